//! Values with more than one notation, the same in the file as in flags and variables.

use std::fmt;

use serde::de::{self, Deserializer, SeqAccess, Visitor};

/// Values of a switch, in any case of letters.
const WORDS: [(&str, bool); 12] = [
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
pub fn switch_of(word: &str) -> Option<bool> {
    let word = word.trim();
    let found = WORDS
        .iter()
        .find(|(known, _)| word.eq_ignore_ascii_case(known));
    found.map(|(_, value)| *value)
}

/// Deserializes a list: an array of strings, or one string with commas between several values.
pub(super) fn list<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    struct Forms;

    impl<'de> Visitor<'de> for Forms {
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

    deserializer.deserialize_any(Forms).map(Some)
}

/// Splits a text at commas; an empty text has no values.
fn split(text: &str) -> Vec<String> {
    if text.trim().is_empty() {
        return Vec::new();
    }
    text.split(',').map(|one| one.trim().to_owned()).collect()
}

/// Deserializes a switch: `true` or `false`, 1 or 0, or one of the words that a flag takes.
pub(super) fn switch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    struct Forms;

    impl Visitor<'_> for Forms {
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
            switch_of(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }

    deserializer.deserialize_any(Forms).map(Some)
}
