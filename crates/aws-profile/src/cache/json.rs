//! JSON of the caches: reading objects, and writing the text of Python's `json.dumps`.

use std::fmt;
use std::fmt::Write as _;

use serde_json::{Map, Value};
use thiserror::Error;

use super::SecretText;

/// Maximum size of a cache file in bytes. A token of `aws login` has about 10 KiB, keys of a role
/// with a long session token have less.
pub const MAX_CACHE_FILE_BYTES: u64 = 64 << 10;

/// Reason why a cache file cannot be used. Its contents are not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CacheFault {
    /// The file is larger than [`MAX_CACHE_FILE_BYTES`].
    #[error("the file is larger than {} KiB", MAX_CACHE_FILE_BYTES >> 10)]
    TooLarge,
    /// The file is not JSON, or empty.
    #[error("the file is not valid JSON (line {line}, column {column})")]
    NotJson {
        /// Line from 1; 0 for the end of an empty file.
        line: usize,
        /// Column from 1, in bytes.
        column: usize,
    },
    /// The JSON value is not an object.
    #[error("the file is not a JSON object")]
    NotAnObject,
    /// A required key is missing. Keys are case-sensitive.
    #[error("the file has no {0}")]
    Missing(&'static str),
    /// A required key has a value of another type, or a date that cannot be read.
    #[error("the file has an invalid {0}")]
    Invalid(&'static str),
}

impl CacheFault {
    /// Returns `true` if another program may be writing the file at the moment: the AWS CLI
    /// empties it first.
    #[must_use]
    pub fn may_be_partial(self) -> bool {
        matches!(self, Self::NotJson { .. })
    }
}

/// Keys of a file that this crate does not know, kept for the next write. `Debug` shows only their
/// number.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct UnknownKeys(Map<String, Value>);

impl UnknownKeys {
    fn rendered(&self) -> impl Iterator<Item = (&str, String)> {
        let mut keys: Vec<&String> = self.0.keys().collect();
        keys.sort();
        keys.into_iter()
            .filter_map(|key| Some((key.as_str(), value(self.0.get(key)?, &SPACED))))
    }
}

impl fmt::Debug for UnknownKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnknownKeys({})", self.0.len())
    }
}

/// An object of a cache file, whose known keys are taken out one by one.
pub(super) struct Object(Map<String, Value>);

impl Object {
    /// Parses the contents of a file.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, CacheFault> {
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_CACHE_FILE_BYTES {
            return Err(CacheFault::TooLarge);
        }
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(_) => Err(CacheFault::NotAnObject),
            Err(error) => Err(CacheFault::NotJson {
                line: error.line(),
                column: error.column(),
            }),
        }
    }

    /// Takes a value out; `null` counts as missing.
    fn take(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key).filter(|value| !value.is_null())
    }

    /// Takes an object out.
    pub(super) fn object(&mut self, key: &'static str) -> Result<Self, CacheFault> {
        match self.take(key) {
            Some(Value::Object(map)) => Ok(Self(map)),
            Some(_) => Err(CacheFault::Invalid(key)),
            None => Err(CacheFault::Missing(key)),
        }
    }

    /// Takes a required text out.
    pub(super) fn text(&mut self, key: &'static str) -> Result<String, CacheFault> {
        match self.take(key) {
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(CacheFault::Invalid(key)),
            None => Err(CacheFault::Missing(key)),
        }
    }

    /// Takes a required secret out.
    pub(super) fn secret(&mut self, key: &'static str) -> Result<SecretText, CacheFault> {
        self.text(key).map(SecretText::new)
    }

    /// Takes a required date out, in seconds since 1970.
    pub(super) fn date(&mut self, key: &'static str) -> Result<i64, CacheFault> {
        crate::parse_date(&self.text(key)?).ok_or(CacheFault::Invalid(key))
    }

    /// Takes an optional list of texts out.
    pub(super) fn texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        let Some(Value::Array(values)) = self.take(key) else {
            return None;
        };
        let text = |value: Value| value.as_str().map(str::to_owned);
        values.into_iter().map(text).collect()
    }

    /// Returns the keys that nothing has taken out.
    pub(super) fn rest(self) -> UnknownKeys {
        UnknownKeys(self.0)
    }
}

/// Separators between items, and between a key and its value.
pub(super) struct Separators {
    item: &'static str,
    key: &'static str,
}

/// Python's default.
pub(super) const SPACED: Separators = Separators {
    item: ", ",
    key: ": ",
};
/// `separators=(",", ":")`.
pub(super) const COMPACT: Separators = Separators {
    item: ",",
    key: ":",
};

/// Writes an object whose values are written already, in this order.
pub(super) fn object<'a>(
    members: impl IntoIterator<Item = (&'a str, String)>,
    separators: &Separators,
) -> String {
    let member = |(key, value): (&str, String)| text(key) + separators.key + &value;
    let members: Vec<String> = members.into_iter().map(member).collect();
    format!("{{{}}}", members.join(separators.item))
}

/// Writes a file: the known keys that have a value, then the unknown ones.
pub(super) fn file<'a>(
    known: impl IntoIterator<Item = (&'a str, Option<String>)>,
    unknown: &'a UnknownKeys,
) -> SecretText {
    let known = known
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)));
    SecretText::new(object(known.chain(unknown.rendered()), &SPACED))
}

/// Writes a list of texts.
pub(super) fn list<T: AsRef<str>>(texts: &[T]) -> String {
    let texts: Vec<String> = texts.iter().map(|item| text(item.as_ref())).collect();
    format!("[{}]", texts.join(SPACED.item))
}

/// Writes a text in ASCII.
pub(super) fn text(text: &str) -> String {
    let mut written = String::with_capacity(text.len() + 2);
    written.push('"');
    for c in text.chars() {
        match c {
            '"' => written.push_str("\\\""),
            '\\' => written.push_str("\\\\"),
            '\n' => written.push_str("\\n"),
            '\r' => written.push_str("\\r"),
            '\t' => written.push_str("\\t"),
            '\u{8}' => written.push_str("\\b"),
            '\u{c}' => written.push_str("\\f"),
            ' '..='~' => written.push(c),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    _ = write!(written, "\\u{unit:04x}");
                }
            }
        }
    }
    written.push('"');
    written
}

/// Writes any value, the keys of objects sorted.
fn value(value: &Value, separators: &Separators) -> String {
    match value {
        Value::String(string) => text(string),
        Value::Array(items) => {
            let items: Vec<String> = items
                .iter()
                .map(|item| self::value(item, separators))
                .collect();
            format!("[{}]", items.join(separators.item))
        }
        Value::Object(map) => {
            let mut members: Vec<(&str, String)> = map
                .iter()
                .map(|(key, member)| (key.as_str(), self::value(member, separators)))
                .collect();
            members.sort();
            object(members, separators)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}
