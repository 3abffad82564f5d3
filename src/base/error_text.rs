//! Errors as text.

use std::io;

use super::foreign_text::ForeignText;
use super::tls_words;

/// What broke, in our words where the library's are none for a user: rustls puts a link to its
/// manual into this one.
#[must_use]
pub fn plain(error: &io::Error) -> ForeignText {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "it was closed without a goodbye".into(),
        _ => tls_words::translated(error.to_string(), error).into(),
    }
}

/// An error and its causes in one line, each cause once. They may quote what another side has said.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> ForeignText {
    causes(error).into()
}

/// The same of an error of this program's own, in the lines that it was written in: a reason, and a
/// remedy below it.
#[must_use]
pub fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    // The parser of HTTP names itself.
    let text = text.replace("httparse error: ", "");
    tls_words::translated(text, error)
}
