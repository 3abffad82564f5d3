//! `pgiam relay`: the far end of striped connections, on the bastion.
//!
//! `accept → hello → bundle → stream → allow list → dial → copy`. It listens on the node's loopback,
//! where the Session Manager agent connects to it, and dials only what its allow list contains. It
//! has no credentials: what it copies is TLS between client and database.

mod allow;
mod bundles;
mod copy;
mod dial;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use stripe::{BundleId, Hello, HelloReply, StripeError};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

pub use allow::{AllowList, AllowPattern};
use bundles::Bundles;
use copy::{Broken, Copied, Copier};
use dial::Dialer;

use crate::admission::{Entrance, Guard, Verdict, listen_on_loopback};
use crate::base::error_text::plain;
use crate::base::event_limit::{EventDecision, EventLimiter};
use crate::base::foreign_text::{ForeignText, visible};
use crate::base::stream::Stream;
use crate::serving::shutdown::RunningParts;
use crate::striping::{
    BundleState, NoHello, OpenedStreams, Refusal, RefusalKind, StripedBundle, StripedStream,
    StripingError, close_gently, read_hello,
};

/// Deadline for a hello. The client sends it as its first bytes.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// Maximum number of carriers whose hello has not come yet.
const MOST_GREETING: usize = 128;
/// Time for which a bundle without carriers is kept: its client may be opening the next session.
const KEPT: Duration = Duration::from_secs(60);
/// Send buffer of a carrier. Credit bounds what waits; this is the second line.
const SEND_BUFFER: usize = 64 * 1024;
/// Lines about refusals of the same minute.
const MOST_LINES: u32 = 20;

/// Settings of a relay.
pub struct RelayOptions {
    /// Port on the loopback addresses; 0 is a fresh one.
    pub port: u16,
    /// Targets that may be dialled.
    pub allow: AllowList,
    /// Addresses that take the place of a name lookup, by name in lower case.
    pub resolve: HashMap<String, IpAddr>,
    /// Maximum number of connections to databases.
    pub max_connections: usize,
}

/// Error of a relay's start.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}\nhint: choose another port, the same in the clients: pgiam relay --port {}", .address.port().checked_add(1).unwrap_or(5439))]
pub struct RelayListenError {
    address: SocketAddr,
    source: std::io::Error,
}

/// A running relay.
pub struct Relay {
    shared: Arc<RelayState>,
    port: u16,
}

/// State shared by all tasks.
struct RelayState {
    dialer: Dialer,
    bundles: Bundles,
    /// Places for connections to databases.
    permits: Arc<Semaphore>,
    max_connections: usize,
    refusals: EventLimiter,
    /// Ends the accept loops, and refuses new streams.
    accepting: CancellationToken,
    /// Ends the bundles.
    stop: CancellationToken,
    /// Connections to databases.
    connections: TaskTracker,
    /// Carriers, timers and bundles.
    tasks: TaskTracker,
}

impl Relay {
    /// Listens and starts accepting.
    ///
    /// # Errors
    /// The port cannot be had.
    pub fn start(options: RelayOptions) -> Result<Self, RelayListenError> {
        let bound = listen_on_loopback(options.port).map_err(|failed| RelayListenError {
            address: failed.address,
            source: failed.source,
        })?;
        let shared = Arc::new(RelayState {
            dialer: Dialer::new(options.allow, options.resolve),
            bundles: Bundles::default(),
            permits: Arc::new(Semaphore::new(options.max_connections)),
            max_connections: options.max_connections,
            refusals: EventLimiter::new(MOST_LINES, Duration::from_secs(60)),
            accepting: CancellationToken::new(),
            stop: CancellationToken::new(),
            connections: TaskTracker::new(),
            tasks: TaskTracker::new(),
        });
        // The agent runs as another user, so that owners say nothing.
        let guard = Arc::new(Guard::of_clients(false));
        let greeting = Arc::new(Semaphore::new(MOST_GREETING));
        for socket in bound.sockets {
            let mut entrance = Entrance::new(socket, Arc::clone(&guard));
            let (state, greeting) = (Arc::clone(&shared), Arc::clone(&greeting));
            let accept = async move {
                loop {
                    let Verdict::Admitted(client) = entrance.next().await else {
                        continue;
                    };
                    // Without a place the connection is closed: who floods gets no answer.
                    let Ok(place) = Arc::clone(&greeting).try_acquire_owned() else {
                        continue;
                    };
                    let (state, tasks) = (Arc::clone(&state), state.tasks.clone());
                    tasks.spawn(async move {
                        state.greet(client.into_stream()).await;
                        drop(place);
                    });
                }
            };
            let stop = shared.accepting.clone();
            tokio::spawn(async move { stop.run_until_cancelled(accept).await });
        }
        let port = bound.port;
        Ok(Self { shared, port })
    }

    /// Returns the port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops accepting and waits up to `grace` for open connections; `hurry` cuts the wait short.
    /// Then the clients are told, and everything is closed.
    pub async fn drain(self, grace: Duration, hurry: impl Future<Output = ()>) {
        let shared = self.shared;
        let running = RunningParts {
            accepting: shared.accepting.clone(),
            connections: shared.connections.clone(),
            stop: shared.stop.clone(),
            transports: Vec::new(),
        };
        running.drain(grace, hurry).await;
        shared.tasks.close();
        _ = timeout(grace.max(Duration::from_secs(3)), shared.tasks.wait()).await;
    }
}

impl RelayState {
    /// Reads the hello of a carrier and adds it to its bundle.
    async fn greet(self: Arc<Self>, stream: TcpStream) {
        if let Err(error) = socket2::SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER) {
            debug!(%error, "cannot set the send buffer");
        }
        let mut stream: Stream = Box::new(stream);
        let read = timeout(HELLO_DEADLINE, read_hello(&mut stream)).await;
        let (hello, rest) = match read {
            Ok(Ok(read)) => read,
            Ok(Err(NoHello::Invalid(StripeError::Version(version)))) => {
                let words = format!(
                    "the relay speaks version {} of its protocol, the client version {version}; update the older pgiam",
                    stripe::VERSION
                );
                return self
                    .refuse(stream, Refusal::new(RefusalKind::Version, words))
                    .await;
            }
            // A health check, or a client of something else.
            Ok(Err(NoHello::Silent)) => return,
            Ok(Err(other)) => return debug!(?other, "closed a connection without a hello"),
            Err(_) => return debug!("closed a connection whose hello did not come in time"),
        };
        if let Err(refusal) = self.join(&hello, stream, &rest) {
            let (stream, refusal) = *refusal;
            self.refuse(stream, refusal).await;
        }
    }

    /// Adds a carrier to its bundle.
    fn join(
        self: &Arc<Self>,
        hello: &Hello,
        stream: Stream,
        rest: &[u8],
    ) -> Result<(), Box<(Stream, Refusal)>> {
        if self.accepting.is_cancelled() {
            return Err(Box::new((stream, stopping())));
        }
        let found = match self.bundles.of(hello, &self.tasks) {
            Ok(found) => found,
            Err(refusal) => return Err(Box::new((stream, refusal))),
        };
        if let Some(opened) = found.opened {
            let (state, bundle, id) = (Arc::clone(self), found.bundle.clone(), hello.bundle);
            self.tasks.spawn(state.serve(id, bundle, opened));
        }
        let joined = found.bundle.accept(hello, stream, rest);
        joined.map(drop).map_err(|failed| {
            let (stream, error) = *failed;
            let refusal = match error {
                StripingError::NotOpened(StripeError::Generation { .. }) => {
                    Refusal::new(RefusalKind::Generation, error.to_string())
                }
                _ => Refusal::new(RefusalKind::UnknownBundle, error.to_string()),
            };
            Box::new((stream, refusal))
        })
    }

    /// Refuses a carrier, with words.
    async fn refuse(&self, mut stream: Stream, refusal: Refusal) {
        self.log_refusal("a session", &refusal);
        let answer = HelloReply::Refused(refusal.to_wire()).encode();
        match timeout(HELLO_DEADLINE, stream.write_all(&answer)).await {
            Ok(Ok(())) => close_gently(&mut stream).await,
            Ok(Err(error)) => debug!(%error, "cannot answer a hello"),
            Err(_) => {}
        }
    }

    /// Serves a bundle to its end.
    async fn serve(
        self: Arc<Self>,
        id: BundleId,
        bundle: StripedBundle,
        mut opened: OpenedStreams,
    ) {
        let begun = Instant::now();
        info!(clients = self.bundles.count(), "client connected");
        let end = abandoned(&bundle);
        tokio::pin!(end);
        let totals = Arc::new(Totals::default());
        let reason = loop {
            tokio::select! {
                reason = &mut end => break reason,
                () = self.stop.cancelled() => break "the relay is stopping".to_owned(),
                stream = opened.recv() => match stream {
                    Some((stream, target)) => self.open(stream, target, &totals),
                    None => break "the bundle is over".to_owned(),
                },
            }
        };
        self.bundles.remove(&id);
        bundle.shutdown(&reason).await;
        let (connections, copied) = totals.read();
        info!(
            reason,
            connections,
            sent = copied.to_database,
            received = copied.to_client,
            seconds = begun.elapsed().as_secs(),
            "client gone"
        );
    }

    /// Starts a connection to the database, or refuses it.
    fn open(self: &Arc<Self>, stream: StripedStream, target: String, totals: &Arc<Totals>) {
        if self.accepting.is_cancelled() {
            return stream.refuse(&stopping());
        }
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            let words = format!(
                "the relay has {} connections already, its maximum; raise it there: pgiam relay --max-connections",
                self.max_connections
            );
            let refusal = Refusal::new(RefusalKind::Full, words);
            self.log_refusal(&target, &refusal);
            return stream.refuse(&refusal);
        };
        let (state, totals) = (Arc::clone(self), Arc::clone(totals));
        self.connections.spawn(async move {
            state.connect(stream, &target, &totals).await;
            drop(permit);
        });
    }

    async fn connect(&self, mut stream: StripedStream, target: &str, totals: &Totals) {
        let dialled = tokio::select! {
            dialled = self.dialer.dial(target) => dialled,
            // A client that gives up sends no byte before.
            () = stream.closed() => return,
        };
        let mut database = match dialled {
            Ok(database) => database,
            Err(refusal) => {
                self.log_refusal(target, &refusal);
                return stream.refuse(&refusal);
            }
        };
        debug!(endpoint = %visible(target), "connected");
        let (copied, ended) = Copier::new(&mut stream, &mut database).run().await;
        totals.add(copied);
        match ended {
            Ok(()) => {}
            Err(Broken::Client(error)) => {
                debug!(reason = &*plain(&error), "the client ended the connection");
            }
            Err(Broken::Database(error)) => {
                let words = format!("the connection to {target} was lost: {}", plain(&error));
                let refusal = Refusal::new(RefusalKind::Lost, words);
                self.log_refusal(target, &refusal);
                stream.refuse(&refusal);
            }
        }
    }

    /// Logs a refusal, but not more than some in a minute.
    fn log_refusal(&self, what: &str, refusal: &Refusal) {
        let endpoint = &*visible(what);
        let reason = ForeignText::new(&refusal.words);
        let code = refusal.kind.code();
        match self.refusals.next() {
            EventDecision::Through { held } => {
                if held > 0 {
                    warn!(lines = held, "suppressed lines about refusals");
                }
                warn!(endpoint, code, reason = %reason, "refused");
            }
            EventDecision::First | EventDecision::Held => {
                debug!(endpoint, code, reason = %reason, "refused, too");
            }
        }
    }
}

fn stopping() -> Refusal {
    Refusal::new(RefusalKind::Stopping, "the relay is stopping")
}

/// Waits until a bundle has had no carrier for [`KEPT`], or is over; returns the reason.
async fn abandoned(bundle: &StripedBundle) -> String {
    let mut state = bundle.state();
    loop {
        let alone = |state: &BundleState| state.carriers == 0 || state.over.is_some();
        let over = state.wait_for(alone).await.map(|state| state.over.clone());
        match over {
            Ok(None) => {}
            Ok(Some(over)) => return over.to_string(),
            Err(_) => return "the bundle is over".to_owned(),
        }
        let again = state.wait_for(|state| state.carriers > 0 || state.over.is_some());
        if timeout(KEPT, again).await.is_err() {
            return format!("no session for {} s", KEPT.as_secs());
        }
    }
}

/// Connections of a bundle that have ended, and their bytes.
#[derive(Debug, Default)]
struct Totals(std::sync::Mutex<(u64, Copied)>);

impl Totals {
    fn lock(&self) -> std::sync::MutexGuard<'_, (u64, Copied)> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn add(&self, copied: Copied) {
        let mut totals = self.lock();
        totals.0 += 1;
        totals.1.to_database += copied.to_database;
        totals.1.to_client += copied.to_client;
    }

    fn read(&self) -> (u64, Copied) {
        *self.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bundle_without_carriers_is_kept_for_a_minute() {
        let tasks = TaskTracker::new();
        let (bundle, _opened) = StripedBundle::relay(&tasks, &CancellationToken::new());
        let begun = Instant::now();
        assert_eq!(abandoned(&bundle).await, "no session for 60 s");
        assert!(begun.elapsed() >= KEPT, "{:?}", begun.elapsed());
        let ended = tokio::spawn({
            let bundle = bundle.clone();
            async move { abandoned(&bundle).await }
        });
        bundle.shutdown("the client violates the protocol").await;
        assert_eq!(ended.await.unwrap(), "the client violates the protocol");
    }
}
