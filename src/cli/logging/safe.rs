//! Values and lines that no field of an event can break.

use std::borrow::Cow;
use std::io::{self, Write};

use tracing_subscriber::fmt::MakeWriter;

use super::logfmt;
use crate::base::foreign_text::{visible, visible_json};
use crate::base::redacted::redact;

/// Maximum length of one value in a human-readable line, in bytes.
pub(super) const LONGEST_VALUE: usize = 8 * 1024;

/// Escapes and shortens one value for a log line.
pub(super) fn safe(value: &str) -> Cow<'_, str> {
    let end = value.floor_char_boundary(LONGEST_VALUE);
    let redacted = redact(&value[..end]);
    let mut shown = visible(&redacted).into_owned();
    if end < value.len() {
        shown.push_str(&format!("… ({} more bytes)", value.len() - end));
    }
    if shown == value {
        Cow::Borrowed(value)
    } else {
        Cow::Owned(shown)
    }
}

/// Form of the lines for machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MachineForm {
    Json,
    Logfmt,
}

/// Writes JSON lines without terminal control characters and without named secrets, or the same
/// fields as logfmt.
pub(super) struct SafeLines<W> {
    pub(super) writer: W,
    pub(super) form: MachineForm,
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for SafeLines<W> {
    type Writer = SafeLine<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        SafeLine {
            writer: self.writer.make_writer(),
            form: self.form,
        }
    }
}

/// Accepts whole lines: the layer writes each event at once.
pub(super) struct SafeLine<W> {
    writer: W,
    form: MachineForm,
}

impl<W: Write> Write for SafeLine<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let redacted = redact(&text);
        let shown = match self.form {
            MachineForm::Json => visible_json(&redacted),
            MachineForm::Logfmt => Cow::Owned(logfmt::line(&redacted)),
        };
        self.writer.write_all(shown.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
