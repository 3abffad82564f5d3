//! TLS on both sides: self-signed towards local clients, verify-full towards the database.

use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

mod key_share;
pub mod local;
pub mod roots;
#[cfg(test)]
pub(crate) mod testing;
pub mod upstream;

/// Returns the only crypto provider of the program, set explicitly so that nothing depends on a
/// process-wide default.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

/// Clock of this machine, for TLS. The one of rustls panics at a time before 1970.
#[derive(Debug)]
struct MachineClock;

impl TimeProvider for MachineClock {
    fn current_time(&self) -> Option<UnixTime> {
        unix_time(SystemTime::now())
    }
}

fn unix_time(now: SystemTime) -> Option<UnixTime> {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(UnixTime::since_unix_epoch(since))
}

/// Returns the clock for every TLS configuration created here.
#[must_use]
pub(crate) fn clock() -> Arc<dyn TimeProvider> {
    Arc::new(MachineClock)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_time_before_1970_is_no_time() {
        let now = SystemTime::UNIX_EPOCH;
        assert_eq!(unix_time(now).map(|time| time.as_secs()), Some(0));
        assert_eq!(unix_time(now - Duration::from_secs(1)), None);
        assert!(clock().current_time().is_some());
    }
}
