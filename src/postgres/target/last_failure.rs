//! Immediate answers to clients: to those that connect during a shutdown, and to readiness probes
//! (`pg_isready`) of an unreachable target.

use crate::report;
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pg_handshake::UpstreamError;

use crate::failure::connection::SessionError;
use crate::report::ErrorContext;

/// Cannot connect now (PostgreSQL docs, "PostgreSQL Error Codes").
const CANNOT_CONNECT_NOW: &str = "57P03";

/// Reason why a target cannot be reached now, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReady {
    /// Identifier of the cause, as in `docs/errors.md`.
    pub id: &'static str,
    /// The error, in one line.
    pub message: String,
}

impl NotReady {
    pub(in crate::postgres) fn of(error: &SessionError, about: &ErrorContext<'_>) -> Self {
        let report = report::before_login(error, Some(about));
        let message = report.failure().message;
        Self {
            id: report.id,
            message: message.lines().next().unwrap_or_default().to_owned(),
        }
    }
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message, self.id)
    }
}

/// True while a background task retries the target.
#[derive(Debug, Default)]
pub(in crate::postgres) struct Recovering(pub(in crate::postgres) AtomicBool);

/// Reason why a target cannot be reached, from the last connection or check. It stays until another
/// one succeeds; `recovery.rs` takes care of that.
#[derive(Debug, Default)]
pub(crate) struct LastFailure(Mutex<Option<(NotReady, Reached)>>);

/// Step that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reached {
    /// No credentials.
    Credentials,
    /// A later step.
    Further,
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
    pub(crate) fn note(&self, error: &SessionError, about: &ErrorContext<'_>) {
        let everybodys = about.target.settings.user.as_deref() == Some(about.user);
        match reach(error) {
            Reach::Database if everybodys && refuses_role(error, about) => {
                *self.lock() = Some((NotReady::of(error, about), Reached::Further));
            }
            Reach::Database => _ = self.forget(),
            Reach::Nowhere => {
                let reached = match error.is_about_credentials() {
                    true => Reached::Credentials,
                    false => Reached::Further,
                };
                *self.lock() = Some((NotReady::of(error, about), reached));
            }
            Reach::Unknown => {}
        }
    }

    /// Returns the reason.
    pub(crate) fn get(&self) -> Option<NotReady> {
        let failure = self.lock();
        failure.as_ref().map(|(reason, _)| reason.clone())
    }

    /// Returns the step that failed.
    pub(crate) fn reached(&self) -> Option<Reached> {
        self.lock().as_ref().map(|(_, reached)| *reached)
    }

    fn lock(&self) -> MutexGuard<'_, Option<(NotReady, Reached)>> {
        // Every write is one assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether the database rejects tokens for this role.
fn refuses_role(error: &SessionError, about: &ErrorContext<'_>) -> bool {
    let wants_other = matches!(
        error,
        SessionError::Upstream(UpstreamError::UnexpectedAuth(_))
    );
    wants_other || (about.token_judged && error.refuses_token(about.target.endpoint.kind()))
}

/// Result of a failed connection for other clients.
#[derive(Debug, PartialEq, Eq)]
enum Reach {
    /// The database has answered.
    Database,
    /// Other clients would fail in the same way.
    Nowhere,
    /// The failure concerns only this client, or came too early to know.
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
        | E::Internal(_)
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
    use std::sync::Arc;

    use pg_handshake::{ErrorReply, ServerError, SqlState};

    use super::*;
    use crate::aws::CredentialsError;
    use crate::config::{ConfigFile, ResolvedTarget, TargetLayer};
    use crate::tunnel::Readiness;
    use crate::tunnel::TunnelError;

    fn target() -> ResolvedTarget {
        let text = "[targets.orders]\nvia = 'direct'\nuser = 'db_user'\nhost = 'orders.abc.eu-central-1.rds.amazonaws.com'";
        let file: ConfigFile = toml::from_str(text).unwrap();
        let mut all = file.resolved_targets(&[], &TargetLayer::default()).unwrap();
        all.remove(0)
    }

    fn refused(state: &str) -> SessionError {
        let reply = ErrorReply::fatal(SqlState::parse(state.as_bytes()).unwrap(), "no");
        let error = ServerError::parse(reply.encode()).unwrap();
        SessionError::Upstream(UpstreamError::Server(error))
    }

    #[test]
    fn a_failure_stands_until_something_shows_otherwise() {
        let (last, target) = (LastFailure::default(), target());
        let about = ErrorContext::target(&target);
        let id = || last.get().map(|failure| failure.id);
        assert_eq!((id(), last.reached()), (None, None));
        assert!(!last.forget(), "no news");
        last.note(&SessionError::NoAlpn, &about);
        assert_eq!(
            (id(), last.reached()),
            (Some("tls.alpn"), Some(Reached::Further))
        );
        // Concerns only this client.
        let gone = SessionError::ClientGone(std::io::ErrorKind::UnexpectedEof.into());
        last.note(&gone, &about);
        assert_eq!(id(), Some("tls.alpn"));
        let expired = || CredentialsError::Expired {
            at: None,
            profile: None,
        };
        for error in [
            SessionError::Credentials(expired()),
            SessionError::Token(expired().into()),
            SessionError::Tunnel(TunnelError::Credentials(Arc::new(expired()))),
        ] {
            last.note(&error, &about);
            assert_eq!(last.reached(), Some(Reached::Credentials), "{error:?}");
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

    #[test]
    fn only_what_would_meet_others_too_counts() {
        let gone = || SessionError::ClientGone(std::io::ErrorKind::UnexpectedEof.into());
        let lost = || SessionError::UpstreamLost(std::io::ErrorKind::UnexpectedEof.into());
        let wrapped = SessionError::NotReady(Box::new(lost()));
        let left = SessionError::ClientLeft {
            after: std::time::Duration::from_secs(5),
            waiting: Some("ssm:StartSession"),
        };
        for (error, expected) in [
            (lost(), Reach::Nowhere),
            (wrapped, Reach::Nowhere),
            (SessionError::NoAlpn, Reach::Nowhere),
            (SessionError::ChannelBinding, Reach::Database),
            (gone(), Reach::Unknown),
            (left, Reach::Unknown),
            (SessionError::ShuttingDown, Reach::Unknown),
            (SessionError::NoTunnelYet(Readiness::Up), Reach::Unknown),
        ] {
            assert_eq!(reach(&error), expected, "{error}");
        }
    }
}
