//! Notations of values in the file, by their type. Flags and variables have the same.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

use super::{SocketDir, WrittenBastion, WrittenRelay, expand_home};
use crate::base::names::Region;

/// Type of a key.
pub(super) trait FileValue: Sized {
    /// Reads a value in any of its notations.
    ///
    /// # Errors
    /// The error of the parser for another type or notation.
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;

    /// Makes a path relative to `dir`, the directory of the file. Other values stay as they are.
    fn resolve_path(&mut self, _dir: &Path) {}
}

/// Deserializes a key that the file contains.
pub(super) fn read<'de, D: Deserializer<'de>, T: FileValue>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::read(deserializer).map(Some)
}

/// Types with the one notation of TOML.
macro_rules! plain {
    ($($type:ty),+) => {
        $(impl FileValue for $type {
            fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::deserialize(deserializer)
            }
        })+
    };
}

plain!(
    String,
    Region,
    u16,
    u64,
    IpAddr,
    WrittenBastion,
    WrittenRelay
);

impl FileValue for bool {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        switch(deserializer)
    }
}

impl FileValue for Vec<String> {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        list(deserializer)
    }
}

impl FileValue for PathBuf {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer)
    }

    fn resolve_path(&mut self, dir: &Path) {
        *self = dir.join(expand_home(self));
    }
}

impl FileValue for SocketDir {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        PathBuf::deserialize(deserializer).map(Self::from)
    }

    fn resolve_path(&mut self, dir: &Path) {
        if let Self::At(path) = self {
            path.resolve_path(dir);
        }
    }
}

/// Values of a switch, in any case of letters.
const SWITCH_WORDS: [(&str, bool); 12] = [
    ("true", true),
    ("yes", true),
    ("on", true),
    ("1", true),
    ("y", true),
    ("t", true),
    ("false", false),
    ("no", false),
    ("off", false),
    ("0", false),
    ("n", false),
    ("f", false),
];

/// Returns the value of a word; `None` for an unknown one.
#[must_use]
pub fn parse_switch(word: &str) -> Option<bool> {
    let word = word.trim();
    let found = SWITCH_WORDS
        .iter()
        .find(|(known, _)| word.eq_ignore_ascii_case(known));
    found.map(|(_, value)| *value)
}

/// Deserializes a list: an array of strings, or one string with commas between several values.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct ListVisitor;

    impl<'de> Visitor<'de> for ListVisitor {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string such as \"a, b\", or an array of strings such as [\"a\", \"b\"]")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(split(text))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(text) = seq.next_element::<String>()? {
                all.extend(split(&text));
            }
            Ok(all)
        }
    }

    deserializer.deserialize_any(ListVisitor)
}

/// Splits a text at commas; an empty text has no values.
fn split(text: &str) -> Vec<String> {
    if text.trim().is_empty() {
        return Vec::new();
    }
    text.split(',').map(|one| one.trim().to_owned()).collect()
}

/// Deserializes a switch: `true` or `false`, 1 or 0, or one of the words that a flag takes.
fn switch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    struct SwitchVisitor;

    impl Visitor<'_> for SwitchVisitor {
        type Value = bool;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true or false")
        }

        fn visit_bool<E: de::Error>(self, value: bool) -> Result<bool, E> {
            Ok(value)
        }

        fn visit_i64<E: de::Error>(self, value: i64) -> Result<bool, E> {
            match value {
                0 => Ok(false),
                1 => Ok(true),
                other => Err(E::invalid_value(de::Unexpected::Signed(other), &self)),
            }
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<bool, E> {
            parse_switch(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }

    deserializer.deserialize_any(SwitchVisitor)
}
