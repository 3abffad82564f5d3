//! Names from files in messages.

use std::fmt;

/// Most characters of a name in a message.
const MAX_SHOWN: usize = 80;

/// A name in double quotes, its control characters escaped and its end cut.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars().take(MAX_SHOWN) {
            match c {
                '\'' => f.write_str("'")?,
                c => write!(f, "{}", c.escape_debug())?,
            }
        }
        if self.0.chars().nth(MAX_SHOWN).is_some() {
            f.write_str("…")?;
        }
        f.write_str("\"")
    }
}
