//! Reports about connections that fail before ReadyForQuery.

use pg_handshake::ClientError;

use super::client::channel_binding;
use crate::base::error_text::plain;
use crate::failure::connection::SessionError;
use crate::tunnel::TunnelError;

use super::client::{
    client, closed_after_tls, connect_timeout, foreign_client, invalid_target,
    last_connection_failed, local_password, local_tls, not_ready, route, two_passwords,
    unknown_client,
};
use super::context::ErrorContext;
use super::message::{
    BROKEN, CANNOT_CONNECT, LogLevel, Message, NOT_NOW, PROTOCOL_VIOLATION, Report,
};
use super::phrases::{CONNECT_AGAIN, sentence, shutting_down, test_port, too_many_connections};
use super::{aws, client, database, descriptors, discovery, tunnel};

/// Creates the report of a connection that failed before the end of its login.
#[must_use]
pub fn before_login(error: &SessionError, context: Option<&ErrorContext<'_>>) -> Report {
    let target = context.map(|context| context.target);
    let warn = |message: Message| message.report(LogLevel::Warn, target);
    // An error from the database concerns its own descriptors, not ours.
    if !matches!(error, SessionError::Upstream(_))
        && let Some(message) = descriptors::find_exhaustion(error)
    {
        return warn(message);
    }
    match error {
        SessionError::OutOfDescriptors(limit) => warn(descriptors::exhausted(*limit)),
        SessionError::Client(ClientError::DirectTls) => Report::log_only("client.direct-tls", error),
        SessionError::ForeignPeer { peer, own } => warn(foreign_client(*peer, *own)),
        SessionError::UnknownPeer(error) => warn(unknown_client(error)),
        SessionError::Password(refused) => {
            Message::new("client.password", PROTOCOL_VIOLATION, refused.to_string())
                .hint("Update the client: its answer to the password request violates the PostgreSQL protocol.")
                .report(LogLevel::Info, target)
        }
        SessionError::LocalPassword(refused) => warn(local_password(refused)),
        SessionError::TwoPasswords => warn(two_passwords()),
        // Most clients with sslmode=prefer reconnect at once without TLS, and succeed.
        SessionError::ChannelBinding => Report {
            expected: true,
            ..channel_binding().report(LogLevel::Info, target)
        },
        SessionError::Alias(refused) => warn(database::alias(refused)),
        SessionError::NoAlpn => warn(database::no_alpn(context)),
        SessionError::NoTunnelYet(readiness) => not_ready(*readiness).report(LogLevel::Info, target),
        SessionError::FailedBefore(id) => last_connection_failed(id).report(LogLevel::Info, target),
        // A new tunnel cannot be opened while the previous one is lost, most likely for the same
        // reason.
        SessionError::Interrupted(cause) => {
            before_login(cause, context).into_not_ready(Some("The tunnel was lost, and pgiam is reconnecting."))
        }
        SessionError::NotReady(cause) if matches!(**cause, SessionError::ShuttingDown) => {
            draining().report(LogLevel::Info, target)
        }
        SessionError::NotReady(cause) => before_login(cause, context).into_not_ready(None),
        SessionError::Client(refused) => client(refused).report(LogLevel::Info, target),
        SessionError::GreetingTimeout(_) => Report::log_only("client.silent", error),
        SessionError::ClientGone(_) => Report::log_only("client.gone", error),
        SessionError::ClientLeft { after, waiting } => client::left_while_waiting(error, (*after, *waiting), target),
        SessionError::LocalTls { error: failed, certificate } => local_tls(error, failed, certificate.as_deref()),
        SessionError::GoneAfterTls { certificate } => closed_after_tls(error, certificate.as_deref()),
        SessionError::TooManyConnections { limit, of_target } => warn(too_many_connections(*limit, *of_target)),
        SessionError::Route(refused) => warn(route(refused)),
        SessionError::Credentials(refused) => warn(aws::credentials(refused)),
        SessionError::Discovery(failed) => warn(discovery::discovery(failed, context)),
        SessionError::LookupTimeout(after) => warn(discovery::lookup_timeout(*after)),
        SessionError::Config(_) | SessionError::Setup(_) => warn(invalid_target(error)),
        SessionError::Internal(stopped) => warn(aws::internal(stopped, error.to_string())),
        SessionError::Token(refused) => warn(aws::token(refused)),
        SessionError::Tunnel(TunnelError::ShuttingDown) | SessionError::ShuttingDown => {
            shutting_down().report(LogLevel::Info, target)
        }
        SessionError::Tunnel(failed) => warn(tunnel::tunnel(failed, context)),
        SessionError::ConnectTimeout {
            after,
            readiness,
            waiting,
        } => warn(connect_timeout(*after, *readiness, *waiting, target)),
        SessionError::UpstreamTls(failed) => warn(database::tls(failed, context)),
        SessionError::Upstream(failed) => database::upstream(failed, context),
        SessionError::UpstreamLost(lost) => warn(
            Message::new("database.lost", BROKEN, "the connection to the database was lost during the login")
                .detail(sentence(&plain(lost)))
                .hint(CONNECT_AGAIN),
        ),
        SessionError::LoginTimeout(after) => warn(
            Message::new("database.timeout", CANNOT_CONNECT, format!("the database did not finish the login within {} s", after.as_secs()))
                .hint(format!(
                    "Possible causes: the database is starting, overloaded or out of memory (check its log; if it is only slow, raise login_timeout); the port is filtered. {}",
                    test_port(context)
                )),
        ),
    }
}

/// Refuses a client that connects while the program waits for open connections to end.
pub(super) fn draining() -> Message {
    Message::new("server.shutdown", NOT_NOW, "pgiam is shutting down")
        .detail("pgiam is waiting for its open connections to end.")
        .hint("Connect again after pgiam has restarted.")
}
