//! The agent's version, which decides its features.

use std::fmt;
use std::str::FromStr;

/// A version of the SSM agent: up to four numbers, compared from the left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentVersion([u32; 4]);

impl AgentVersion {
    /// First agent that puts a smux stream into a port session (for clients above 1.1.70); older
    /// ones carry one plain connection.
    pub const FIRST_WITH_SMUX: Self = Self([3, 0, 196, 0]);
    /// Last agent with a smux that expects keepalive frames and gives up after 30 s without one.
    pub const LAST_WITH_KEEPALIVE: Self = Self([3, 1, 1511, 0]);
    /// First agent that forwards to other hosts than its own instance.
    pub const FIRST_WITH_REMOTE_HOST: Self = Self([3, 1, 1374, 0]);
}

impl fmt::Display for AgentVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([major, minor, build, patch]) = self;
        write!(f, "{major}.{minor}.{build}.{patch}")
    }
}

/// Error for a text that is not one to four numbers separated by dots.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid version: expected up to four numbers")]
pub struct ParseVersionError;

impl FromStr for AgentVersion {
    type Err = ParseVersionError;

    fn from_str(text: &str) -> Result<Self, ParseVersionError> {
        let mut numbers = [0; 4];
        let mut parts = text.split('.');
        for (i, number) in numbers.iter_mut().enumerate() {
            match parts.next() {
                Some(part) => *number = part.parse().map_err(|_| ParseVersionError)?,
                None if i > 0 => break,
                None => return Err(ParseVersionError),
            }
        }
        if parts.next().is_some() {
            Err(ParseVersionError)
        } else {
            Ok(Self(numbers))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        let version = |text: &str| text.parse::<AgentVersion>().unwrap();
        assert!(version("3.3.0.0") > AgentVersion::LAST_WITH_KEEPALIVE);
        assert!(version("3.1.338.0") < AgentVersion::FIRST_WITH_REMOTE_HOST);
        assert!(version("3.10") > version("3.9.9.9"));
        assert_eq!(version("3"), version("3.0.0.0"));
        assert_eq!(version("3.3.0.0").to_string(), "3.3.0.0");
        for bad in [
            "",
            "3.",
            "3..1",
            "v3.1",
            "3.1.2.3.4",
            "-1.0",
            "99999999999.0",
        ] {
            assert_eq!(bad.parse::<AgentVersion>(), Err(ParseVersionError), "{bad}");
        }
    }
}
