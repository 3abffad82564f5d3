//! What clients hear before anything is tried for them: those that come too late, and those that
//! only ask whether a connection could be made (`pg_isready`) and cannot make one.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pg_handshake::{Startup, UpstreamError};
use tokio::time::Instant;

use super::{Arrival, Entry, Proxy, Rooms, SessionError, is_probe};
use crate::report::{self, About};
use crate::tunnel::Readiness;

/// How long a connection that failed tells about those that would follow. Longer than a health check
/// usually pauses; not so long that one who asks hears of what is over.
const FRESH: Duration = Duration::from_secs(10);
/// Cannot connect now (PostgreSQL docs, "PostgreSQL Error Codes").
const CANNOT_CONNECT_NOW: &str = "57P03";

/// Why a client that may connect is told no at once.
pub(super) fn turned_away(
    proxy: &Proxy,
    entry: &Entry,
    startup: &Startup,
    arrival: &Arrival,
) -> Result<(), SessionError> {
    if proxy.turns_newcomers_away() {
        return Err(SessionError::NotReady(Box::new(SessionError::ShuttingDown)));
    }
    if !is_probe(startup) {
        return Ok(());
    }
    // The best answer is to try. But it names no target, or does not know the password; to ask for
    // that, or to name the targets, is to say that connections are accepted (`PQping`).
    let asked = entry.named(startup);
    let stranger = proxy.asks_password(arrival);
    if asked.is_some() && !stranger {
        return Ok(());
    }
    // Which targets there are is not for those who do not know the password.
    match entry.not_now(asked.filter(|_| !stranger || entry.slots.len() == 1)) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

impl Rooms {
    pub(super) fn not_now(&self) -> Option<SessionError> {
        match self.transport.readiness() {
            waits @ (Readiness::Starting | Readiness::Interrupted) => {
                Some(SessionError::NoTunnelYet(waits))
            }
            Readiness::Up | Readiness::Idle => {
                self.last_failure.get().map(SessionError::FailedBefore)
            }
        }
    }
}

/// Why the last connection to a target could not be made.
#[derive(Debug, Default)]
pub(super) struct LastFailure(Mutex<Option<(&'static str, Instant)>>);

impl LastFailure {
    /// A connection was made.
    pub(super) fn forget(&self) {
        *self.lock() = None;
    }

    /// A connection was not made. That says something about others if it was for want of a way to
    /// the database or of a token; and if the database itself has answered, there is a way.
    pub(super) fn note(&self, error: &SessionError, about: &About<'_>) {
        match reach(error) {
            Reach::Database => self.forget(),
            Reach::Nowhere => {
                let id = report::before_login(error, Some(about)).id;
                *self.lock() = Some((id, Instant::now()));
            }
            Reach::Unknown => {}
        }
    }

    /// The identifier of the reason, if it was not long ago.
    pub(super) fn get(&self) -> Option<&'static str> {
        let failure = *self.lock();
        failure
            .filter(|(_, at)| at.elapsed() < FRESH)
            .map(|(id, _)| id)
    }

    fn lock(&self) -> MutexGuard<'_, Option<(&'static str, Instant)>> {
        // It is written whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far a connection that failed has come.
#[derive(Debug, PartialEq, Eq)]
enum Reach {
    /// The database has answered it.
    Database,
    /// Others would have failed like it.
    Nowhere,
    /// It was about the one client, or ended before it could tell.
    Unknown,
}

fn reach(error: &SessionError) -> Reach {
    use SessionError as E;
    match error {
        E::NotReady(cause) | E::Interrupted(cause) => reach(cause),
        E::Upstream(UpstreamError::Server(_)) => {
            if error.sqlstate().as_deref() == Some(CANNOT_CONNECT_NOW) {
                Reach::Nowhere
            } else {
                Reach::Database
            }
        }
        E::Upstream(
            UpstreamError::UnexpectedAuth(_)
            | UpstreamError::PasswordNotAsked
            | UpstreamError::PasswordAskedTwice,
        )
        | E::ChannelBinding => Reach::Database,
        E::Token(_)
        | E::Credentials(_)
        | E::Tunnel(_)
        | E::Alias(_)
        | E::ConnectTimeout { .. }
        | E::UpstreamTls(_)
        | E::NoAlpn
        | E::Upstream(_)
        | E::UpstreamLost(_)
        | E::LoginTimeout(_) => Reach::Nowhere,
        _ => Reach::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_remembered_for_a_moment() {
        let last = LastFailure::default();
        assert_eq!(last.get(), None);
        *last.lock() = Some(("ssm.access-denied", Instant::now()));
        tokio::time::advance(FRESH - Duration::from_millis(1)).await;
        assert_eq!(last.get(), Some("ssm.access-denied"));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(last.get(), None);
        *last.lock() = Some(("ssm.access-denied", Instant::now()));
        last.forget();
        assert_eq!(last.get(), None);
    }

    #[test]
    fn only_what_would_meet_others_too_counts() {
        let gone = || SessionError::ClientGone(std::io::ErrorKind::UnexpectedEof.into());
        let lost = || SessionError::UpstreamLost(std::io::ErrorKind::UnexpectedEof.into());
        let wrapped = SessionError::NotReady(Box::new(lost()));
        for (error, expected) in [
            (lost(), Reach::Nowhere),
            (wrapped, Reach::Nowhere),
            (SessionError::NoAlpn, Reach::Nowhere),
            (SessionError::ChannelBinding, Reach::Database),
            (gone(), Reach::Unknown),
            (SessionError::ShuttingDown, Reach::Unknown),
            (SessionError::NoTunnelYet(Readiness::Up), Reach::Unknown),
        ] {
            assert_eq!(reach(&error), expected, "{error}");
        }
    }
}
