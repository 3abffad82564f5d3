//! Relay on the bastion: the notations of its key, and its settings.

use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

use super::forms::parse_switch;

/// Default port of `pgiam relay`.
pub const DEFAULT_RELAY_PORT: u16 = 5439;
/// Sessions through a relay, if the configuration has no number: more were not measured to be
/// faster, and each is a session of the AWS account.
const DEFAULT_SESSIONS: usize = 16;
/// Value that uses a relay on the default port if there is one.
const AUTO: &str = "auto";

const EXPECTED: &str = "expected the port of the relay, \"auto\", or false";

/// Relay of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelaySettings {
    /// Its port on the loopback interface of the bastion.
    pub port: u16,
    /// The configuration names the port: a missing relay is a fault.
    pub is_explicit: bool,
    /// Maximum number of concurrent sessions, 1 to 32.
    pub sessions: usize,
}

/// A relay as written in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WrittenRelay {
    /// `false` in the file.
    Switch(bool),
    /// `5439` in the file.
    Number(i64),
    /// `"auto"` in the file, `--relay 5439` on the command line.
    Text(String),
}

impl WrittenRelay {
    /// Parses the value for a tunnel with the configured number of `sessions`; `None`: no relay.
    ///
    /// # Errors
    /// The problem and a valid form.
    pub(super) fn parse(&self, sessions: Option<usize>) -> Result<Option<RelaySettings>, String> {
        let (port, is_explicit) = match self {
            Self::Number(number) => (port(*number)?, true),
            Self::Switch(false) => return Ok(None),
            Self::Switch(true) => (DEFAULT_RELAY_PORT, false),
            Self::Text(text) => match (text.trim(), text.trim().parse::<i64>()) {
                (AUTO, _) => (DEFAULT_RELAY_PORT, false),
                // 0 and 1 are no switches here: a port was meant.
                (_, Ok(number)) => (port(number)?, true),
                (text, Err(_)) => match parse_switch(text) {
                    Some(false) => return Ok(None),
                    Some(true) => (DEFAULT_RELAY_PORT, false),
                    None => return Err(EXPECTED.to_owned()),
                },
            },
        };
        Ok(Some(RelaySettings {
            port,
            is_explicit,
            sessions: sessions.unwrap_or(DEFAULT_SESSIONS),
        }))
    }
}

fn port(number: i64) -> Result<u16, String> {
    let port = u16::try_from(number).ok().filter(|port| *port != 0);
    port.ok_or_else(|| format!("{EXPECTED}; ports are 1 to 65535"))
}

/// Returns `true` for a value of `--relay`, so that a word after the flag is not a target's name.
#[must_use]
pub fn is_relay(word: &str) -> bool {
    WrittenRelay::Text(word.to_owned()).parse(None).is_ok()
}

impl From<String> for WrittenRelay {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<RelaySettings> for WrittenRelay {
    fn from(settings: RelaySettings) -> Self {
        match settings.is_explicit {
            true => Self::Number(settings.port.into()),
            false => Self::Text(AUTO.to_owned()),
        }
    }
}

impl fmt::Display for WrittenRelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch(switch) => switch.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl Serialize for WrittenRelay {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Switch(switch) => serializer.serialize_bool(*switch),
            Self::Number(number) => serializer.serialize_i64(*number),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> de::Deserialize<'de> for WrittenRelay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RelayVisitor;

        impl Visitor<'_> for RelayVisitor {
            type Value = WrittenRelay;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port, \"auto\", or false")
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
                Ok(WrittenRelay::Switch(value))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
                Ok(WrittenRelay::Number(value))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
                // A number beyond the range is no port either.
                Ok(WrittenRelay::Number(value.try_into().unwrap_or(i64::MAX)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(WrittenRelay::Text(text.to_owned()))
            }
        }

        deserializer.deserialize_any(RelayVisitor)
    }
}
