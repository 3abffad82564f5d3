//! Users of the operating system: user ids, and on Windows security identifiers.

use std::fmt;
use std::str::FromStr;

/// User that a process runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserId {
    /// User id, on systems that have such numbers.
    Uid(u32),
    /// Security identifier, on Windows.
    Sid(Sid),
}

impl UserId {
    /// Returns the user id, if the system has such numbers.
    #[must_use]
    pub fn uid(&self) -> Option<u32> {
        match *self {
            Self::Uid(uid) => Some(uid),
            Self::Sid(_) => None,
        }
    }

    /// Returns the security identifier, on Windows.
    #[must_use]
    pub fn sid(&self) -> Option<Sid> {
        match *self {
            Self::Uid(_) => None,
            Self::Sid(sid) => Some(sid),
        }
    }
}

impl From<u32> for UserId {
    fn from(uid: u32) -> Self {
        Self::Uid(uid)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uid(uid) => uid.fmt(f),
            Self::Sid(sid) => sid.fmt(f),
        }
    }
}

/// Returns the effective user of this process. `None` if the system does not report it.
#[must_use]
pub fn own_user() -> Option<UserId> {
    #[cfg(unix)]
    {
        super::peer::own_uid().map(UserId::Uid)
    }
    #[cfg(windows)]
    {
        static OWN: std::sync::OnceLock<Option<UserId>> = std::sync::OnceLock::new();
        *OWN.get_or_init(|| super::processes::user_of(std::process::id()))
    }
}

/// Maximum number of parts behind the authority (`SID_MAX_SUB_AUTHORITIES` in winnt.h).
const MOST_PARTS: usize = 15;
/// The authority has 48 bits.
const LARGEST_AUTHORITY: u64 = (1 << 48) - 1;

/// Windows security identifier, `S-1-5-21-…`. Its revision is always 1 ([MS-DTYP], 2.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sid {
    authority: u64,
    count: usize,
    parts: [u32; MOST_PARTS],
}

/// The text is no security identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid security identifier")]
pub struct InvalidSid;

impl FromStr for Sid {
    type Err = InvalidSid;

    /// Parses the string form ([MS-DTYP], 2.4.2.1).
    fn from_str(text: &str) -> Result<Self, InvalidSid> {
        let mut fields = text.strip_prefix("S-1-").ok_or(InvalidSid)?.split('-');
        let authority = fields.next().ok_or(InvalidSid)?;
        let authority = match authority.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => authority.parse(),
        };
        let authority = authority.map_err(|_| InvalidSid)?;
        let (mut count, mut parts) = (0, [0; MOST_PARTS]);
        for field in fields {
            *parts.get_mut(count).ok_or(InvalidSid)? = field.parse().map_err(|_| InvalidSid)?;
            count += 1;
        }
        match count > 0 && authority <= LARGEST_AUTHORITY {
            true => Ok(Self {
                authority,
                count,
                parts,
            }),
            false => Err(InvalidSid),
        }
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Authorities of more than 32 bits are hexadecimal.
        match u32::try_from(self.authority) {
            Ok(authority) => write!(f, "S-1-{authority}")?,
            Err(_) => write!(f, "S-1-0x{:012X}", self.authority)?,
        }
        let mut parts = self.parts.iter().take(self.count);
        parts.try_for_each(|part| write!(f, "-{part}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_read_and_written() {
        for text in [
            "S-1-5-18",
            "S-1-5-21-3623811015-3361044348-30300820-1013",
            "S-1-5-21-0-0-0-1000",
            "S-1-0x010000000000-1",
            "S-1-1-0-1-2-3-4-5-6-7-8-9-10-11-12-13-14",
        ] {
            let sid: Sid = text.parse().unwrap();
            assert_eq!(sid.to_string(), text);
            assert_eq!(UserId::Sid(sid).to_string(), text);
        }
        for text in [
            "",
            "S-1-5",
            "S-1-5-",
            "S-2-5-18",
            "s-1-5-18",
            "S-1-5-18-x",
            "S-1-5--18",
            "S-1-5-4294967296",
            "S-1-0x1000000000000-1",
            "S-1-1-0-1-2-3-4-5-6-7-8-9-10-11-12-13-14-15",
        ] {
            assert_eq!(text.parse::<Sid>(), Err(InvalidSid), "{text}");
        }
    }

    #[test]
    fn users_of_different_kinds_differ() {
        let system: Sid = "S-1-5-18".parse().unwrap();
        let other: Sid = "S-1-5-18-0".parse().unwrap();
        assert_ne!(system, other);
        assert_ne!(UserId::Sid(system), UserId::from(18));
        assert_eq!(UserId::from(18).uid(), Some(18));
        assert_eq!(UserId::Sid(system).sid(), Some(system));
        assert!(own_user().is_some());
    }
}
