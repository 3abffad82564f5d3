//! The last failure of a target: the answer to readiness probes, and the reason to retry.

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::failure::connection::{ConnectionError, TargetEffect};
use crate::observe::{Failure, LastError};
use crate::report::{self, ErrorContext};

/// Reason why a target cannot be reached now, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReady {
    /// The error, with its remedy.
    pub failure: Failure,
    /// Time of the last attempt.
    pub at: Instant,
}

impl NotReady {
    pub(crate) fn of(error: &ConnectionError, about: &ErrorContext<'_>, at: Instant) -> Self {
        let failure = report::before_login(error, Some(about)).failure();
        Self { failure, at }
    }

    /// Returns the identifier of the cause, as in `docs/errors.md`.
    #[must_use]
    pub fn id(&self) -> &'static str {
        self.failure.id
    }
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = self.failure.message.lines().next().unwrap_or_default();
        write!(f, "{message} [{}]", self.failure.id)
    }
}

impl From<NotReady> for LastError {
    fn from(reason: NotReady) -> Self {
        let NotReady { failure, at } = reason;
        let count = 1;
        Self { failure, at, count }
    }
}

/// True while a background task retries the target.
#[derive(Debug, Default)]
pub(crate) struct RecoveryFlag(pub(crate) AtomicBool);

/// Reason why a target cannot be reached, from the last connection or check. It stays until another
/// one succeeds; `recovery.rs` takes care of that.
#[derive(Debug, Default)]
pub(crate) struct LastFailure(Mutex<Option<FailedTarget>>);

#[derive(Debug)]
struct FailedTarget {
    reason: NotReady,
    credentials_missing: bool,
}

impl LastFailure {
    /// Records a success. Returns whether the target had failed before.
    pub(crate) fn forget(&self) -> bool {
        self.lock().take().is_some()
    }

    /// Records a failed connection, if it matters to other clients. It does if the path to the
    /// database or a token was missing. An answer from the database shows that the path works. A
    /// rejected token for the default role matters, too, because the other clients would fail like
    /// this one.
    pub(crate) fn note(&self, error: &ConnectionError, about: &ErrorContext<'_>) {
        let default_role = about.target.settings.user.as_deref() == Some(about.user);
        match error.target_effect() {
            TargetEffect::Answered if default_role && refuses_role(error, about) => {
                self.record(error, about);
            }
            TargetEffect::Answered => _ = self.forget(),
            TargetEffect::Unreachable => self.record(error, about),
            TargetEffect::Unknown => {}
        }
    }

    fn record(&self, error: &ConnectionError, about: &ErrorContext<'_>) {
        *self.lock() = Some(FailedTarget {
            reason: NotReady::of(error, about, Instant::now()),
            credentials_missing: error.is_about_credentials(),
        });
    }

    /// Returns the reason.
    pub(crate) fn get(&self) -> Option<NotReady> {
        let failure = self.lock();
        failure.as_ref().map(|failure| failure.reason.clone())
    }

    /// Returns whether the connection failed because AWS credentials are missing.
    pub(crate) fn credentials_missing(&self) -> bool {
        let failure = self.lock();
        failure.as_ref().is_some_and(|it| it.credentials_missing)
    }

    fn lock(&self) -> MutexGuard<'_, Option<FailedTarget>> {
        // Every write is one assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether the database rejects tokens for this role.
fn refuses_role(error: &ConnectionError, about: &ErrorContext<'_>) -> bool {
    error.is_other_authentication()
        || (about.token_judged && error.refuses_token(about.target.endpoint.kind()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pg_handshake::{ErrorReply, ServerError, SqlState, UpstreamError};

    use super::*;
    use crate::aws::CredentialsError;
    use crate::config::{ConfigFile, ResolvedTarget, TargetLayer};
    use crate::tunnel::TunnelError;

    fn target() -> ResolvedTarget {
        let text = "[targets.orders]\nvia = 'direct'\nuser = 'db_user'\nhost = 'orders.abc.eu-central-1.rds.amazonaws.com'";
        let file: ConfigFile = toml::from_str(text).unwrap();
        let mut all = file.resolved_targets(&[], &TargetLayer::default()).unwrap();
        all.remove(0)
    }

    fn refused(state: &str) -> ConnectionError {
        let reply = ErrorReply::fatal(SqlState::parse(state.as_bytes()).unwrap(), "no");
        let error = ServerError::parse(reply.encode()).unwrap();
        ConnectionError::Upstream(UpstreamError::Server(error))
    }

    #[test]
    fn a_failure_stands_until_something_shows_otherwise() {
        let (last, target) = (LastFailure::default(), target());
        let about = ErrorContext::target(&target);
        let id = || last.get().map(|reason| reason.id());
        assert!(id().is_none() && !last.credentials_missing());
        assert!(!last.forget(), "no news");
        last.note(&ConnectionError::NoAlpn, &about);
        assert_eq!(id(), Some("tls.alpn"));
        assert!(!last.credentials_missing());
        // Concerns only this client.
        let gone = ConnectionError::ClientGone(std::io::ErrorKind::UnexpectedEof.into());
        last.note(&gone, &about);
        assert_eq!(id(), Some("tls.alpn"));
        let expired = || CredentialsError::Expired {
            at: None,
            profile: None,
        };
        for error in [
            ConnectionError::Credentials(expired()),
            ConnectionError::Token(expired().into()),
            ConnectionError::Tunnel(TunnelError::Credentials(Arc::new(expired()))),
        ] {
            last.note(&error, &about);
            assert!(last.credentials_missing(), "{error:?}");
        }
        last.note(&refused("3D000"), &about);
        assert_eq!(id(), None, "the database has answered");
        last.note(&refused("57P03"), &about);
        assert!(id().is_some() && last.forget(), "news");
    }

    #[test]
    fn a_refused_role_is_a_failure_of_the_target_if_clients_get_it_by_themselves() {
        let (last, target) = (LastFailure::default(), target());
        for (user, token_judged, fails) in [
            ("db_user", true, true),
            ("db_user", false, false),
            ("other", true, false),
        ] {
            let about = ErrorContext {
                user,
                token_judged,
                ..ErrorContext::target(&target)
            };
            last.forget();
            last.note(&refused("28000"), &about);
            assert_eq!(last.get().is_some(), fails, "{user} {token_judged}");
        }
    }
}
