//! Limit of open files: the number of descriptors that this process may have, and the behaviour
//! near the limit.

use std::io;

/// Instructions for raising the limit, for error messages.
pub const HOW_TO_RAISE: &str = match cfg!(target_vendor = "apple") {
    true => "ulimit -n 10240, or NumberOfFiles below HardResourceLimits in the launchd agent",
    false => "ulimit -n 65536, or LimitNOFILE=65536 in the systemd unit",
};

/// The limit before and after [`raise`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitChange {
    /// Soft limit at the start of the process; `None`: unlimited.
    pub from: Option<u64>,
    /// Current soft limit.
    pub to: Option<u64>,
}

/// Raises the soft limit to the hard one, which needs no permission (setrlimit(2)). Many systems
/// start processes with 1,024 for the sake of programs that use select(2); pgiam does not use it.
///
/// # Errors
/// Any error of the system. Then the limit is unchanged.
pub fn raise() -> io::Result<LimitChange> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let (from, to) = (current, hard_limit(maximum));
        let is_more = match (from, to) {
            (Some(from), Some(to)) => to > from,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if !is_more {
            return Ok(LimitChange { from, to: from });
        }
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: to,
                maximum,
            },
        )?;
        Ok(LimitChange { from, to })
    }
    #[cfg(not(unix))]
    Ok(LimitChange {
        from: None,
        to: None,
    })
}

/// Gives child processes started from here on the original soft limit, for as long as the result
/// lives: a program that uses select(2) breaks with a higher one. Meanwhile this process keeps its
/// descriptors, and gets no new ones above that limit.
#[derive(Debug)]
pub struct ForChildren {
    #[cfg(unix)]
    raised: Option<rustix::process::Rlimit>,
}

impl ForChildren {
    /// Lowers the limit.
    #[must_use]
    pub fn begin(limit: LimitChange) -> Self {
        #[cfg(unix)]
        {
            use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
            if limit.from == limit.to {
                return Self { raised: None };
            }
            let now = getrlimit(Resource::Nofile);
            let original = Rlimit {
                current: limit.from,
                maximum: now.maximum,
            };
            let lowered = setrlimit(Resource::Nofile, original);
            Self {
                raised: lowered.is_ok().then_some(now),
            }
        }
        #[cfg(not(unix))]
        {
            let _ = limit;
            Self {}
        }
    }
}

impl Drop for ForChildren {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Some(raised) = self.raised.take() {
            // It was in force before, and the hard limit has not changed.
            _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
        }
    }
}

/// Returns the usable hard limit: macOS reports "no limit" but refuses more than this (`OPEN_MAX`,
/// setrlimit(2) there).
#[cfg(all(unix, target_vendor = "apple"))]
fn hard_limit(maximum: Option<u64>) -> Option<u64> {
    const OPEN_MAX: u64 = 10_240;
    Some(maximum.map_or(OPEN_MAX, |maximum| maximum.min(OPEN_MAX)))
}

#[cfg(all(unix, not(target_vendor = "apple")))]
fn hard_limit(maximum: Option<u64>) -> Option<u64> {
    maximum
}

/// Returns the number of descriptors that this process may have now; `None`: unlimited or unknown.
#[must_use]
pub fn limit() -> Option<u64> {
    #[cfg(unix)]
    {
        rustix::process::getrlimit(rustix::process::Resource::Nofile).current
    }
    #[cfg(not(unix))]
    None
}

/// Returns `true` for an error that means lack of descriptors: this process is at its limit
/// (`EMFILE`), or the whole system (`ENFILE`).
#[must_use]
pub fn are_exhausted(error: &io::Error) -> bool {
    #[cfg(unix)]
    let codes = {
        use rustix::io::Errno;
        [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error)
    };
    #[cfg(not(unix))]
    let codes = [10_024]; // WSAEMFILE
    error
        .raw_os_error()
        .is_some_and(|code| codes.contains(&code))
}

/// Returns the limit that an error of [`are_exhausted`] is about; `None`: the whole system's.
#[must_use]
pub fn limit_reached(error: &io::Error) -> Option<u64> {
    #[cfg(unix)]
    if error.raw_os_error() == Some(rustix::io::Errno::NFILE.raw_os_error()) {
        return None;
    }
    let _ = error;
    limit()
}

/// Returns the number of descriptors reserved below `limit` for the needs of accepted connections:
/// the stream to the database, or the refusal.
#[cfg(unix)]
fn reserve(limit: u64) -> u64 {
    (limit / 8).clamp(8, 64)
}

/// Returns the limit if a newly allocated descriptor is among the last available ones. The system
/// allocates the lowest free one (POSIX, "File Descriptor Allocation"), so all below it are in use.
#[cfg(unix)]
#[must_use]
pub fn is_among_the_last(descriptor: &impl std::os::fd::AsRawFd) -> Option<u64> {
    let limit = limit()?;
    let number = u64::try_from(descriptor.as_raw_fd()).ok()?;
    (number >= limit.saturating_sub(reserve(limit))).then_some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn running_out_is_told_from_other_failures() {
        use rustix::io::Errno;
        for (errno, expected) in [
            (Errno::MFILE, true),
            (Errno::NFILE, true),
            (Errno::NOBUFS, false),
            (Errno::NOMEM, false),
            (Errno::ACCESS, false),
            (Errno::CONNABORTED, false),
        ] {
            assert_eq!(are_exhausted(&errno.into()), expected, "{errno}");
        }
        assert!(!are_exhausted(&io::ErrorKind::Other.into()));
    }

    #[test]
    #[cfg(unix)]
    fn the_last_descriptors_are_known_by_their_number() {
        struct Numbered(i32);
        impl std::os::fd::AsRawFd for Numbered {
            fn as_raw_fd(&self) -> i32 {
                self.0
            }
        }
        let Some(limit) = limit() else { return };
        let last = i32::try_from(limit - 1).unwrap();
        let first_of_the_last = i32::try_from(limit - reserve(limit)).unwrap();
        assert_eq!(is_among_the_last(&Numbered(last)), Some(limit));
        assert_eq!(is_among_the_last(&Numbered(first_of_the_last)), Some(limit));
        assert_eq!(is_among_the_last(&Numbered(first_of_the_last - 1)), None);
        for (limit, kept) in [(16, 8), (64, 8), (256, 32), (1024, 64), (1 << 20, 64)] {
            assert_eq!(reserve(limit), kept, "{limit}");
        }
    }
}
