//! Reports about connections that fail before ReadyForQuery.

use pg_handshake::ClientError;

use super::client::channel_binding;
use crate::base::error_text::plain;
use crate::failure::connection::ConnectionError;
use crate::failure::route::RouteError;
use crate::tunnel::TunnelError;

use super::client::{
    client, closed_after_tls, connect_timeout, foreign_client, invalid_target,
    last_connection_failed, local_password, local_tls, not_ready, route, two_passwords,
    unknown_client,
};
use super::context::ErrorContext;
use super::hint::Hint;
use super::message::{
    BROKEN, CANNOT_CONNECT, LogLevel, Message, NOT_NOW, PROTOCOL_VIOLATION, Report,
};
use super::phrases::{CONNECT_AGAIN, sentence, shutting_down, test_port, too_many_connections};
use super::{aws, client, database, descriptors, discovery, tunnel};

/// Creates the report of a connection that failed before the end of its login.
#[must_use]
pub fn before_login(error: &ConnectionError, context: Option<&ErrorContext<'_>>) -> Report {
    let target = context.map(|context| context.target);
    let warn = |message: Message| message.report(LogLevel::Warn, target);
    // An error from the database concerns its own descriptors, not ours.
    if !matches!(error, ConnectionError::Upstream(_))
        && let Some(message) = descriptors::find_exhaustion(error)
    {
        return warn(message);
    }
    match error {
        ConnectionError::OutOfDescriptors(limit) => warn(descriptors::exhausted(*limit)),
        ConnectionError::Client(ClientError::DirectTls) => Report::log_only("client.direct-tls", error),
        ConnectionError::ForeignPeer { peer, own } => warn(foreign_client(*peer, *own)),
        ConnectionError::UnknownPeer(error) => warn(unknown_client(error)),
        ConnectionError::Password(refused) => {
            Message::new("client.password", PROTOCOL_VIOLATION, refused.to_string())
                .hint("Update the client: its answer to the password request violates the PostgreSQL protocol.")
                .report(LogLevel::Info, target)
        }
        ConnectionError::LocalPassword(refused) => warn(local_password(refused)),
        ConnectionError::TwoPasswords => warn(two_passwords()),
        // Most clients with sslmode=prefer reconnect at once without TLS, and succeed.
        ConnectionError::ChannelBinding => Report {
            expected: true,
            ..channel_binding().report(LogLevel::Info, target)
        },
        ConnectionError::Alias(refused) => warn(database::alias(refused)),
        ConnectionError::NoAlpn => warn(database::no_alpn(context)),
        ConnectionError::NoTunnelYet(readiness) => not_ready(*readiness).report(LogLevel::Info, target),
        ConnectionError::FailedBefore(id) => last_connection_failed(id).report(LogLevel::Info, target),
        // A new tunnel cannot be opened while the previous one is lost, most likely for the same
        // reason.
        ConnectionError::Interrupted(cause) => {
            before_login(cause, context).into_not_ready(Some("The tunnel was lost, and pgiam is reconnecting."))
        }
        ConnectionError::NotReady(cause) if matches!(**cause, ConnectionError::ShuttingDown) => {
            draining().report(LogLevel::Info, target)
        }
        ConnectionError::NotReady(cause) => before_login(cause, context).into_not_ready(None),
        ConnectionError::Client(refused) => client(refused).report(LogLevel::Info, target),
        ConnectionError::StartupTimeout(_) => Report::log_only("client.silent", error),
        ConnectionError::ClientGone(_) => Report::log_only("client.gone", error),
        ConnectionError::ClientLeft { after, waiting } => client::left_while_waiting(error, (*after, *waiting), target),
        ConnectionError::LocalTls { error: failed, certificate } => local_tls(error, failed, certificate.as_deref()),
        ConnectionError::GoneAfterTls { certificate } => closed_after_tls(error, certificate.as_deref()),
        ConnectionError::TooManyConnections { limit, of_target } => warn(too_many_connections(*limit, *of_target)),
        ConnectionError::Route(refused @ RouteError::Stopped { .. }) => {
            route(refused).report(LogLevel::Info, target).into_not_ready(None)
        }
        ConnectionError::Route(refused) => warn(route(refused)),
        ConnectionError::Credentials(refused) => warn(aws::credentials(refused)),
        ConnectionError::Discovery(failed) => warn(discovery::discovery(failed, context)),
        ConnectionError::LookupTimeout(after) => warn(discovery::lookup_timeout(*after)),
        ConnectionError::Config(_) | ConnectionError::Setup(_) => warn(invalid_target(error)),
        ConnectionError::Internal(stopped) => warn(aws::internal(stopped, error.to_string())),
        ConnectionError::Token(refused) => warn(aws::token(refused)),
        ConnectionError::Tunnel(TunnelError::ShuttingDown) | ConnectionError::ShuttingDown => {
            shutting_down().report(LogLevel::Info, target)
        }
        ConnectionError::Tunnel(failed) => warn(tunnel::tunnel(failed, context)),
        ConnectionError::ConnectTimeout {
            after,
            readiness,
            waiting,
        } => warn(connect_timeout(*after, *readiness, *waiting, target)),
        ConnectionError::UpstreamTls(failed) => warn(database::tls(failed, context)),
        ConnectionError::Upstream(failed) => database::upstream(failed, context),
        ConnectionError::UpstreamLost(lost) => warn(
            Message::new("database.lost", BROKEN, "the connection to the database was lost during the login")
                .detail(sentence(&plain(lost)))
                .hint(CONNECT_AGAIN),
        ),
        ConnectionError::LoginTimeout(after) => warn(
            Message::new("database.timeout", CANNOT_CONNECT, format!("the database did not finish the login within {} s", after.as_secs()))
                .hint(Hint::from("Possible causes: the database is starting, overloaded or out of memory (check its log; if it is only slow, raise login_timeout); the port is filtered.").and(test_port(context))),
        ),
    }
}

/// Refuses a client that connects while the program waits for open connections to end.
pub(super) fn draining() -> Message {
    Message::new("server.shutdown", NOT_NOW, "pgiam is shutting down")
        .detail("pgiam is waiting for its open connections to end.")
        .hint("Connect again after pgiam has restarted.")
}
