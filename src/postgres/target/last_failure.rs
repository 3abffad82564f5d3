//! What clients hear before anything is tried for them: those that come too late, and those that
//! only ask whether a connection could be made (`pg_isready`) and cannot make one.

use crate::report;
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pg_handshake::UpstreamError;

use crate::failure::connection::SessionError;
use crate::report::About;

/// Cannot connect now (PostgreSQL docs, "PostgreSQL Error Codes").
const CANNOT_CONNECT_NOW: &str = "57P03";

/// Why a target cannot be reached now, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReady {
    /// Identifier of the cause, as in `docs/errors.md`.
    pub id: &'static str,
    /// What happened, in a line.
    pub message: String,
}

impl NotReady {
    pub(in crate::postgres) fn of(error: &SessionError, about: &About<'_>) -> Self {
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

/// Whether a task tries a target again.
#[derive(Debug, Default)]
pub(in crate::postgres) struct Recovering(pub(in crate::postgres) AtomicBool);

/// Why a target cannot be reached, as far as is known: what the last connection to it, or the last
/// look at it, has shown. It stands until one shows otherwise; `recovery.rs` sees to that.
#[derive(Debug, Default)]
pub(crate) struct LastFailure(Mutex<Option<(NotReady, Reached)>>);

/// How far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reached {
    /// There are no credentials.
    Credentials,
    /// Further.
    Further,
}

impl LastFailure {
    /// A connection was made. Returns whether that is news.
    pub(crate) fn forget(&self) -> bool {
        self.lock().take().is_some()
    }

    /// A connection was not made. That says something about others if it was for want of a way to
    /// the database or of a token; and if the database itself has answered, there is a way. That it
    /// refuses the token of the role that clients get by themselves would meet the others, too.
    pub(crate) fn note(&self, error: &SessionError, about: &About<'_>) {
        let everybodys = about.target.user.as_deref() == Some(about.user);
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

    /// The reason.
    pub(crate) fn get(&self) -> Option<NotReady> {
        let failure = self.lock();
        failure.as_ref().map(|(reason, _)| reason.clone())
    }

    /// How far it came.
    pub(crate) fn reached(&self) -> Option<Reached> {
        self.lock().as_ref().map(|(_, reached)| *reached)
    }

    fn lock(&self) -> MutexGuard<'_, Option<(NotReady, Reached)>> {
        // It is written whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the database does not take tokens for this role.
fn refuses_role(error: &SessionError, about: &About<'_>) -> bool {
    let wants_other = matches!(
        error,
        SessionError::Upstream(UpstreamError::UnexpectedAuth(_))
    );
    wants_other || (about.token_judged && error.refuses_token(about.target.endpoint.kind()))
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
    use crate::config::{File, Layer, Target};
    use crate::tunnel::Readiness;
    use crate::tunnel::TunnelError;

    fn target() -> Target {
        let text = "[targets.orders]\nvia = 'direct'\nuser = 'db_user'\nhost = 'orders.abc.eu-central-1.rds.amazonaws.com'";
        let file: File = toml::from_str(text).unwrap();
        let mut all = file.targets(&[], &Layer::default(), "").unwrap();
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
        let about = About::target(&target);
        let id = || last.get().map(|failure| failure.id);
        assert_eq!((id(), last.reached()), (None, None));
        assert!(!last.forget(), "no news");
        last.note(&SessionError::NoAlpn, &about);
        assert_eq!(
            (id(), last.reached()),
            (Some("tls.alpn"), Some(Reached::Further))
        );
        // About the one client only.
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
            let about = About {
                user,
                token_judged,
                ..About::target(&target)
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
