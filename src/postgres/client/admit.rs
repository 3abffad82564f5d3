//! Startup of a client, and refusals before its login.

use std::sync::Arc;
use std::time::Duration;

use pg_handshake::CancelKey;
use tokio::time::timeout;

use crate::admission::{Admitted, Refusal, Refused};
use crate::base::stream::Stream;
use crate::failure::connection::ConnectionError;
use crate::postgres::client::authenticate;
use crate::postgres::client::probe::turned_away;
use crate::postgres::client::startup::{AuthState, StartupFailure, StartupRequest, read_startup};
use crate::postgres::shared::Proxy;
use crate::postgres::target::PgPortTargets;

/// Time limit for the startup packet of a refused client. The refusal is the reply to that packet.
const STRANGERS_TIME: Duration = Duration::from_secs(1);

/// Returns the request of an admitted client, after the local password if one is required.
pub(in crate::postgres) async fn admit_client(
    proxy: &Proxy,
    port_targets: &PgPortTargets,
    connection: Admitted<Stream>,
) -> Result<StartupRequest, StartupFailure> {
    let arrival = connection.arrival();
    // As in PostgreSQL: TLS on a Unix socket would only cost time.
    let acceptor = arrival.is_tcp().then_some(&proxy.acceptor);
    match read_startup(acceptor, connection.into_stream()).await? {
        StartupRequest::Startup {
            mut client,
            startup,
        } => {
            if let Err(error) = turned_away(proxy, port_targets, &startup, &arrival) {
                return Err(StartupFailure::of(client, error));
            }
            if let Some(verifier) = &proxy.verifier
                && proxy.asks_password(&arrival)
            {
                let (verifier, binding) = (Arc::clone(verifier), proxy.binding.as_ref());
                let outcome = authenticate::authenticate(&mut client, verifier, binding);
                if let Err(error) = outcome.await {
                    return Err(StartupFailure::of(client, error));
                }
            }
            client.auth_state = AuthState::Admitted;
            Ok(StartupRequest::Startup { client, startup })
        }
        cancel @ StartupRequest::Cancel { .. } => Ok(cancel),
    }
}

/// Reads the startup packet of a refused client, so that the refusal can be sent as its reply. A
/// cancel request is delivered unless the client is known to belong to another user.
///
/// Clients close as soon as they have sent a cancel request, and then the system no longer reports
/// their owner. As with PostgreSQL, the key is the authorisation.
pub(in crate::postgres) async fn turn_away(
    proxy: &Proxy,
    connection: Refused<Stream>,
) -> Result<(CancelKey, Stream), StartupFailure> {
    let acceptor = connection.arrival().is_tcp().then_some(&proxy.acceptor);
    let (refusal, stream) = connection.into_parts();
    let may_cancel = !matches!(refusal, Refusal::Foreign { .. });
    match timeout(STRANGERS_TIME, read_startup(acceptor, stream)).await {
        Ok(Ok(StartupRequest::Startup { client, .. })) => {
            Err(StartupFailure::of(client, refusal.into()))
        }
        Ok(Ok(StartupRequest::Cancel { key, stream })) if may_cancel => Ok((key, stream)),
        // The client does not read a reply.
        Ok(Ok(StartupRequest::Cancel { .. })) | Err(_) => {
            Err(ConnectionError::from(refusal).into())
        }
        Ok(Err(failed)) => Err(failed),
    }
}
