//! Opens the streams that are kept for the next logins, and hands them to logins.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use pg_handshake::{Negotiation, ProtocolVersion, Startup, Upstream, UpstreamEvent};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use super::login::{DatabaseServer, OpenedConnection, next_event, open, secure};
use crate::base::error_text::chain;
use crate::config::EndpointKind;
use crate::failure::connection::ConnectionError;
use crate::postgres::ready_streams::{KeeperStep, ReadyStream, ReadyStreams};
use crate::postgres::target::PgContext;
use crate::tunnel::{Readiness, SpareMark, StreamPurpose};

/// Deadline for dial and TLS of a stream. No client waits for it.
const OPEN_DEADLINE: Duration = Duration::from_secs(10);
/// Time limit for the first byte that answers a login in a ready stream. A server answers the
/// startup packet before it checks the token, which may take longer.
pub(in crate::postgres) const FIRST_ANSWER: Duration = Duration::from_secs(4);

/// Returns the maximum number of streams to this server. RDS Proxy and Aurora DSQL count the
/// connections of their clients, and close idle ones by rules of their own.
fn most(context: &PgContext, server: &DatabaseServer) -> usize {
    match server.capabilities.kind() {
        EndpointKind::Proxy | EndpointKind::Dsql => 0,
        _ => context.target.settings.login.ready,
    }
}

/// Records a successful login at `server`: from now on streams are kept ready for the next ones.
pub(in crate::postgres) fn keep(context: &Arc<PgContext>, server: &DatabaseServer) {
    let most = most(context, server);
    let ready = &context.protocol.ready;
    if most > 0 && ready.logged_in() {
        tokio::spawn(keeper(ready.clone(), Arc::downgrade(context), most));
    }
}

/// Takes a stream to `server`, if there is one, or will be soon. Cancel-safe.
pub(in crate::postgres) async fn take(
    context: &PgContext,
    server: &DatabaseServer,
) -> Option<ReadyStream> {
    if most(context, server) == 0 {
        return None;
    }
    let ready = &context.protocol.ready;
    let transport = &context.transport;
    ready
        .take(&server.name, &server.capabilities, |mark| {
            transport.take_spare(mark)
        })
        .await
}

impl ReadyStream {
    /// Begins a login in the stream.
    pub(in crate::postgres) fn begin(self, startup: Startup) -> OpenedConnection {
        // TLS is established and verified, as after a direct start.
        let mut machine = Upstream::login(startup, Negotiation::Direct);
        machine.poll_event(); // StartTls.
        machine.tls_established();
        OpenedConnection {
            server: DatabaseServer {
                name: self.name,
                capabilities: self.capabilities,
            },
            machine,
            stream: self.stream,
            tls: Some(self.tls),
            patience: Some(FIRST_ANSWER),
        }
    }
}

/// Keeps up to `most` streams ready until the target is unused. It does not keep the target's
/// tunnel open: only the dials in progress do, within their deadline.
async fn keeper(ready: ReadyStreams, context: Weak<PgContext>, most: usize) {
    let mut opening = FuturesUnordered::new();
    loop {
        let KeeperStep::Open {
            count,
            began,
            look_at,
        } = ready.step(most)
        else {
            return;
        };
        for _ in 0..count {
            opening.push(open_one(ready.clone(), context.clone(), began, most));
        }
        tokio::select! {
            () = ready.changed() => {}
            Some(()) = opening.next() => {}
            () = sleep_until(look_at) => {}
        }
    }
}

/// Opens one stream, and adds it to those that are ready.
async fn open_one(ready: ReadyStreams, context: Weak<PgContext>, began: Instant, most: usize) {
    let opened = async {
        let context = context.upgrade()?;
        match timeout(OPEN_DEADLINE, open_ready(&context)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                debug!(target = %context.target.name, error = &*chain(&error), "cannot keep a connection ready");
                None
            }
            Err(_) => None,
        }
    };
    let stream = opened.await;
    ready.opened(began, stream, most);
}

/// Opens a stream up to verified TLS. `None`: not to this server, or not now.
async fn open_ready(context: &PgContext) -> Result<Option<ReadyStream>, ConnectionError> {
    // A session that is only started for this would cost more than it saves.
    if context.transport.readiness() != Readiness::Up {
        return Ok(None);
    }
    let endpoint = context.endpoint().await?;
    let server = DatabaseServer::at(context, &endpoint);
    if most(context, &server) == 0 {
        return Ok(None); // The name leads to another server now.
    }
    let (mark, began) = (SpareMark::default(), (Instant::now(), SystemTime::now()));
    // The startup packet is the one of the login that will use the stream; this one is never sent.
    let nothing = Startup::new(ProtocolVersion::V3_0);
    let machine = Upstream::login(nothing, server.capabilities.negotiation());
    let purpose = StreamPurpose::Spare(mark.clone());
    let OpenedConnection {
        mut machine,
        mut stream,
        tls,
        ..
    } = open(context, &server, machine, purpose).await?;
    let tls = match tls {
        Some(tls) => tls,
        None => {
            // No other event is possible before TLS.
            let UpstreamEvent::StartTls = next_event(&mut machine, &mut stream).await? else {
                return Ok(None);
            };
            let secured = secure(context, &server, stream, Negotiation::SslRequest).await?;
            stream = secured.0;
            secured.1
        }
    };
    Ok(Some(ReadyStream {
        name: server.name,
        capabilities: server.capabilities,
        stream,
        tls,
        mark,
        began,
    }))
}
