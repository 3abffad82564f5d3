//! Text forms of errors.

use std::io;

use super::foreign_text::ForeignText;
use super::tls_words;

/// Formats an I/O error, with pgiam's own words where the library's are unsuitable for users:
/// rustls adds a link to its manual.
#[must_use]
pub fn plain(error: &io::Error) -> ForeignText {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "it was closed unexpectedly".into(),
        _ => tls_words::translated(error.to_string(), error).into(),
    }
}

/// Formats an error and its causes in one line, each cause once. The causes may quote foreign text.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> ForeignText {
    causes(error).into()
}

/// Formats an error of pgiam itself with its causes and keeps its lines: a reason, and a remedy
/// below it.
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
    // The HTTP parser names itself.
    let text = text.replace("httparse error: ", "");
    tls_words::translated(text, error)
}
