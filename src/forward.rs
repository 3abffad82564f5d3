//! `pgiam tunnel`: plain TCP through the tunnel, for protocols other than PostgreSQL.
//!
//! `accept → tunnel stream → copy → close`. No protocol is available to report an error to the
//! client. So the error is logged, and the client's connection is reset, so that truncated data
//! does not look complete.

mod copy;

use crate::failure::ForwardError;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, error_span, info};

use crate::admission::{
    Admitted, BindFailure, BoundPort, Entrance, Guard, Listening, Refused, Verdict, listen,
    listen_on_loopback,
};
use crate::aws::{AwsContext, AwsOptions};
use crate::base::error_text::plain;
use crate::config::{DatabaseRef, Listen, ResolvedTarget, Via};
use crate::observe::{
    ListedTarget, LiveConnection, NewConnection, Observed, ReadyCounts, StatusSource, TargetStatus,
};
use crate::platform::descriptors;
use crate::report;
use crate::serving::shutdown::RunningParts;
use crate::tunnel::direct::DirectTransport;
use crate::tunnel::ssm::supervisor::SsmTransport;
use crate::tunnel::{Transport, TunnelError};
use copy::{CopyResult, ForwardEnd, copy, copy_half_closing};

/// Unix reserves lower ports for privileged programs.
const PRIVILEGED: u16 = 1024;

/// Error of listening.
#[derive(Debug, Error)]
pub enum ListenError {
    /// The port is in use.
    #[error("cannot listen on {address}: the port is in use\nhint: choose another port: --listen {}", suggested_port(.address))]
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// Permission for the port is missing.
    #[error("cannot listen on {address}: ports below {PRIVILEGED} require privileges\nhint: choose another port: --listen {}", suggested_port(.address))]
    NotAllowed {
        /// The address.
        address: SocketAddr,
    },
    /// No file descriptors are left.
    #[error("cannot listen on {address}: out of file descriptors{}\nhint: raise the limit: {}", limited(.limit), descriptors::HOW_TO_RAISE)]
    Descriptors {
        /// The address.
        address: SocketAddr,
        /// This process's limit; `None`: the limit of the whole system is reached.
        limit: Option<u64>,
    },
    /// Another failure.
    #[error("cannot listen on {address}: {source}")]
    Other {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
}

/// Suggests a port that is likely to be free: 8080 for 80, 8443 for 443, 3307 for 3306.
fn suggested_port(address: &SocketAddr) -> u16 {
    match address.port() {
        port if port < PRIVILEGED => 8000 + port,
        port => port.checked_add(1).unwrap_or(8000),
    }
}

fn limited(limit: &Option<u64>) -> String {
    limit
        .map(|limit| format!(" (limit {limit})"))
        .unwrap_or_default()
}

/// A bound local address, with one socket or two.
pub struct BoundAddress {
    shown: Listen,
    sockets: Vec<Listening>,
}

impl BoundAddress {
    /// Returns the address to show, with the actual port.
    #[must_use]
    pub fn address(&self) -> Listen {
        self.shown
    }
}

/// Binds every address.
///
/// # Errors
/// [`ListenError`] for the first that cannot be bound.
pub fn bind(addresses: &[Listen]) -> Result<Vec<BoundAddress>, ListenError> {
    addresses.iter().map(bind_one).collect()
}

fn bind_one(address: &Listen) -> Result<BoundAddress, ListenError> {
    let failed = |BindFailure { address, source }| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { address },
        io::ErrorKind::PermissionDenied if address.port() < PRIVILEGED => {
            ListenError::NotAllowed { address }
        }
        _ if descriptors::are_exhausted(&source) => ListenError::Descriptors {
            address,
            limit: descriptors::limit_reached(&source),
        },
        _ => ListenError::Other { address, source },
    };
    match *address {
        Listen::Localhost(port) => {
            let BoundPort { port, sockets } = listen_on_loopback(port).map_err(failed)?;
            Ok(BoundAddress {
                shown: Listen::Localhost(port),
                sockets,
            })
        }
        Listen::Address(address) => {
            let failed = |source| failed(BindFailure { address, source });
            let socket = listen(address).map_err(failed)?;
            Ok(BoundAddress {
                shown: Listen::Address(socket.local_addr().map_err(failed)?),
                sockets: vec![socket],
            })
        }
    }
}

/// Returns the transport to `target`. Sends no request to AWS before the first connection, unless
/// the target is `warm`.
#[must_use]
pub fn transport(target: &ResolvedTarget) -> Arc<dyn Transport> {
    match &target.settings.via {
        Via::Direct => Arc::new(DirectTransport::new(
            target.endpoint.clone(),
            target.settings.connect_timeout,
        )),
        Via::Ssm(settings) => {
            let aws = AwsContext::new(AwsOptions {
                profile: target.settings.profile.clone(),
                region: target.region.clone(),
                ..AwsOptions::default()
            });
            Arc::new(SsmTransport::new(
                Arc::new(aws),
                target.region.clone(),
                settings.clone(),
                target.endpoint.clone(),
            ))
        }
    }
}

/// The running tunnel.
pub struct Forwarder {
    shared: Arc<ForwardState>,
    accepting: CancellationToken,
    connections: TaskTracker,
}

/// State shared by connections.
struct ForwardState {
    target: Arc<ResolvedTarget>,
    transport: Arc<dyn Transport>,
    stop: CancellationToken,
    permits: Semaphore,
    observed: Arc<Observed>,
}

impl StatusSource for ForwardState {
    fn status(&self) -> TargetStatus {
        TargetStatus {
            target: Arc::clone(&self.target),
            configured_as: DatabaseRef::Host(self.target.endpoint.clone()),
            readiness: self.transport.readiness(),
            failed: None,
            tunnel: self.transport.stats(),
            kept: ReadyCounts::default(),
            found: true,
            identity: None,
            stopped: None,
        }
    }
}

impl Forwarder {
    /// Starts accepting the clients that `guard` admits, up to the limit in `observed`.
    #[must_use]
    pub fn start(
        target: ResolvedTarget,
        transport: Arc<dyn Transport>,
        bound: Vec<BoundAddress>,
        guard: Arc<Guard>,
        observed: Arc<Observed>,
    ) -> Self {
        let forwarder = Self {
            shared: Arc::new(ForwardState {
                target: Arc::new(target),
                transport,
                stop: CancellationToken::new(),
                permits: Semaphore::new(observed.limit()),
                observed,
            }),
            accepting: CancellationToken::new(),
            connections: TaskTracker::new(),
        };
        let observed = &forwarder.shared.observed;
        let port = |bound: &BoundAddress| match bound.shown {
            Listen::Localhost(port) => port,
            Listen::Address(address) => address.port(),
        };
        let listed = bound.iter().take(1).map(|bound| ListedTarget {
            port: port(bound),
            addresses: Vec::new(),
            by_name: false,
            socket: None,
            source: forwarder.shared.clone(),
        });
        observed.show(listed.collect());
        for socket in bound.into_iter().flat_map(|bound| bound.sockets) {
            let shared = Arc::clone(&forwarder.shared);
            let connections = forwarder.connections.clone();
            let mut entrance = Entrance::new(socket, Arc::clone(&guard));
            let accept = async move {
                loop {
                    match entrance.next().await {
                        Verdict::Admitted(client) => {
                            connections.spawn(Arc::clone(&shared).serve(client));
                        }
                        Verdict::Refused(client) => shared.turn_away(client),
                    }
                }
            };
            let stop = forwarder.accepting.clone();
            let alive = observed.accepting();
            tokio::spawn(async move {
                alive.watch(stop.run_until_cancelled(accept)).await;
            });
        }
        observed.started();
        forwarder
    }

    /// Stops accepting and waits up to `grace` for open connections; `hurry` cuts the wait short.
    /// Connections that are still open are reset, then the SSM sessions are ended.
    pub async fn drain(self, grace: Duration, hurry: impl Future<Output = ()>) {
        self.shared.observed.drains();
        let running = RunningParts {
            accepting: self.accepting,
            connections: self.connections,
            stop: self.shared.stop.clone(),
            transports: vec![Arc::clone(&self.shared.transport)],
        };
        running.drain(grace, hurry).await;
    }
}

impl ForwardState {
    async fn serve(self: Arc<Self>, client: Admitted<TcpStream>) {
        let peer = client.arrival().to_string();
        let span = error_span!("conn", peer);
        let mut client = client.into_stream();
        let carried = async {
            let live = self.admit(&peer);
            let carried = self.carry(&mut client, &live).await;
            if let Err(error) = &carried {
                self.failed(error);
                reset(&client);
            }
        };
        carried.instrument(span).await;
    }

    /// Resets a connection that is not admitted: no protocol is available to report the reason.
    fn turn_away(&self, client: Refused<TcpStream>) {
        let span = error_span!("conn", peer = %client.arrival());
        let quiet = client.is_quiet();
        let (refusal, client) = client.into_parts();
        if !quiet {
            span.in_scope(|| self.failed(&refusal.into()));
        }
        reset(&client);
    }

    /// Logs and counts a failed connection.
    fn failed(&self, error: &ForwardError) {
        let failure = report::log_forward(error, &self.target);
        self.observed.failed(Some(&self.target.name), failure);
    }

    /// Adds the connection to the list of live connections.
    fn admit(&self, peer: &str) -> LiveConnection {
        self.observed.admit(NewConnection {
            target: &self.target.name,
            user: "",
            database: "",
            program: b"",
            peer,
            since: Instant::now(),
        })
    }

    async fn carry(
        &self,
        client: &mut TcpStream,
        live: &LiveConnection,
    ) -> Result<(), ForwardError> {
        let Ok(_permit) = self.permits.try_acquire() else {
            let limit = self.observed.limit();
            return Err(ForwardError::TooManyConnections { limit });
        };
        let began = Instant::now();
        let deadline = self.target.settings.connect_timeout;
        let opened = tokio::select! {
            opened = timeout(deadline, self.transport.open(Bytes::new())) => opened,
            () = self.stop.cancelled() => return Err(ForwardError::ShuttingDown),
        };
        let mut server = opened.map_err(|_| ForwardError::Timeout {
            after: deadline,
            waiting: self.transport.waits_for(),
        })??;
        let tunnel_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        info!(tunnel_ms, "connection open");
        live.opened();

        let (traffic, stop) = (live.traffic(), &self.stop);
        let copied = if self.transport.half_closes() {
            copy_half_closing(client, &mut server, traffic, stop).await
        } else {
            copy(client, &mut server, traffic, stop).await
        };
        let CopyResult {
            end,
            sent,
            received,
        } = copied;
        let seconds = began.elapsed().as_secs();
        let (by, outcome) = match end {
            ForwardEnd::Client => ("client", Ok(())),
            ForwardEnd::Server => ("server", Ok(())),
            ForwardEnd::ClientLost(error) => {
                debug!(
                    reason = &*plain(&error),
                    "the connection to the client was lost"
                );
                ("client", Ok(()))
            }
            ForwardEnd::ServerLost(error) => ("server", Err(lost(error))),
            ForwardEnd::Stopped => ("shutdown", Err(ForwardError::ShuttingDown)),
        };
        info!(by, sent, received, seconds, "connection ended");
        outcome
    }
}

fn lost(error: io::Error) -> ForwardError {
    match TunnelError::of(&error) {
        Some(error) => ForwardError::Tunnel(error.clone()),
        None => ForwardError::Lost(error),
    }
}

/// Sets the socket to reset on close (RFC 1122, 4.2.2.13).
fn reset(client: &TcpStream) {
    if let Err(error) = socket2::SockRef::from(client).set_linger(Some(Duration::ZERO)) {
        debug!(%error, "cannot reset the connection; closing it");
    }
}

#[cfg(test)]
mod tests;
