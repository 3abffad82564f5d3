//! Connections for a CancelRequest.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use pg_handshake::{CancelKey, Negotiation, Upstream, UpstreamEvent};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use tracing::{Span, info, warn};

use super::login::{DatabaseServer, OpenedConnection, next_event, open, secure};
use crate::base::pump;
use crate::base::stream::Stream;
use crate::failure::connection::ConnectionError;
use crate::postgres::shared::Proxy;
use crate::postgres::target::PgContext;
use crate::postgres::target::PgPortTargets;
use crate::tunnel::StreamPurpose;

/// Time limit for a CancelRequest. The server never answers it, and closes the connection.
const CANCEL_DEADLINE: Duration = Duration::from_secs(10);

/// Forwards a CancelRequest. As with PostgreSQL, the client gets no answer except that the
/// connection closes (PostgreSQL docs, "Canceling Requests in Progress"). pgiam closes it when the
/// server has closed: libpq takes the close as "processed".
///
/// The request takes the same path as the connection that it cancels, whose target may have been
/// reconfigured since.
pub(in crate::postgres) async fn deliver(
    proxy: &Proxy,
    port_targets: &PgPortTargets,
    key: &CancelKey,
    mut stream: Stream,
) {
    let pid = key.pid();
    let mut meant: Vec<Arc<PgContext>> = proxy.cancel_keys.find(key);
    meant.retain(|context| port_targets.has(&context.target.name));
    if meant.is_empty() {
        if proxy.serving.may_log() {
            info!(
                pid,
                "ignored a cancel request that matches no open connection"
            );
        }
    } else {
        let names: Vec<&str> = meant.iter().map(|context| &*context.target.name).collect();
        Span::current().record("target", names.join(", "));
    }
    join_all(meant.iter().map(|context| send(proxy, context, key))).await;
    pump::close(&mut stream).await;
}

async fn send(proxy: &Proxy, context: &PgContext, key: &CancelKey) {
    let pid = key.pid();
    let forwarded = timeout(CANCEL_DEADLINE, async {
        let _turn = proxy.cancels.acquire().await;
        forward(context, key).await
    });
    let forwarded = proxy.serving.stop.run_until_cancelled(forwarded).await;
    match forwarded.unwrap_or(Ok(Err(ConnectionError::ShuttingDown))) {
        Ok(Ok(())) => info!(pid, "delivered a cancel request"),
        Ok(Err(error)) => warn!(
            pid,
            reason = &*crate::base::error_text::chain(&error),
            "cannot deliver a cancel request"
        ),
        Err(_) => warn!(
            pid,
            seconds = CANCEL_DEADLINE.as_secs(),
            "delivering a cancel request timed out"
        ),
    }
}

async fn forward(context: &PgContext, key: &CancelKey) -> Result<(), ConnectionError> {
    let server = DatabaseServer::at(context, &context.endpoint().await?);
    let mut negotiation = server.capabilities.negotiation();
    let OpenedConnection {
        mut machine,
        mut stream,
        ..
    } = loop {
        let machine = Upstream::cancel(key.clone(), negotiation);
        match open(context, &server, machine, StreamPurpose::Brief).await {
            // The request itself has not been sent.
            Err(error) if negotiation == Negotiation::Direct && error.is_about_direct_tls() => {
                server.capabilities.direct_failed();
                negotiation = Negotiation::SslRequest;
            }
            opened => break opened?,
        }
    };
    while next_event(&mut machine, &mut stream).await? == UpstreamEvent::StartTls {
        (stream, _) = secure(context, &server, stream, Negotiation::SslRequest).await?;
        machine.tls_established();
    }
    let mut rest = [0; 64];
    // The server closes once it has signalled the backend; the kind of close does not matter.
    while let Ok(1..) = stream.read(&mut rest).await {}
    Ok(())
}
