//! Server: accept loops, permits, reload and shutdown.

mod target_stop;

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::idle::{Arrivals, IdleClock};
use super::ports::{BindError, ListenAt, Listener, PortUse, port_uses};
use super::protocol::ClientProtocol;
use super::runtimes::ConnectionRuntimes;
use super::shutdown::{RunningParts, TUNNEL_SHUTDOWN_DEADLINE};
use crate::admission::{Admitted, Entrance, Listens, Verdict};
use crate::base::stream::Stream;
use crate::observe::{ListedTarget, StatusSource};
use crate::targets::context::{ProtocolState, TargetContext};
use crate::targets::served_target::{PortTargets, ServedTarget};
use crate::tunnel::Transport;
use target_stop::StoppedRow;

/// Maximum number of admitted clients in startup, or being refused for a connection limit, at the
/// same time. Others wait in the kernel.
const MAX_STARTUPS: usize = 128;

/// An open port.
struct OpenPort<P> {
    port_use: PortUse,
    port: u16,
    socket: Option<PathBuf>,
    /// The targets behind it. Each connection reads the current value when it is accepted.
    port_targets: Arc<RwLock<PortTargets<P>>>,
    accepting: CancellationToken,
    /// Ends the accept loops when no accepted client waits in them.
    closing: CancellationToken,
    /// The accept loops.
    loops: TaskTracker,
}

/// One target at one port.
pub struct TargetAtPort<P> {
    /// The local port.
    pub port: u16,
    /// The Unix socket of that port.
    pub socket: Option<PathBuf>,
    /// True if the database name selects the target there.
    pub by_name: bool,
    /// True if all targets are behind that port.
    pub hub: bool,
    /// The target.
    pub served: Arc<ServedTarget<P>>,
}

/// The ports and targets that are served now. Cheap to clone.
pub struct ServedPorts<P>(Arc<RwLock<Vec<Arc<OpenPort<P>>>>>);

impl<P> Default for ServedPorts<P> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<P> Clone for ServedPorts<P> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<P: ProtocolState> ServedPorts<P> {
    /// Returns every target at every port, in the order in which they were opened; the hub's last.
    #[must_use]
    pub fn rows(&self) -> Vec<TargetAtPort<P>> {
        let mut rows = Vec::new();
        for open in read(&self.0).iter() {
            let port_targets = read(&open.port_targets);
            rows.extend(port_targets.targets.iter().map(|served| TargetAtPort {
                port: open.port,
                socket: open.socket.clone(),
                by_name: port_targets.picks_by_name(),
                hub: matches!(open.port_use, PortUse::Hub(_)),
                served: Arc::clone(served),
            }));
        }
        rows.sort_by_key(|row| row.hub); // Stable.
        rows
    }

    /// Returns every target once.
    #[must_use]
    pub fn targets(&self) -> Vec<Arc<ServedTarget<P>>> {
        let rows = self.rows().into_iter();
        rows.filter(|row| !row.hub).map(|row| row.served).collect()
    }
}

/// The running server.
pub struct Server<C: ClientProtocol> {
    protocol: Arc<C>,
    at: ListenAt,
    served: ServedPorts<C::TargetState>,
    startups: Arc<Semaphore>,
    runtimes: Arc<ConnectionRuntimes>,
    connections: TaskTracker,
    arrivals: Arrivals,
    /// Connections accepted while the server was stopping.
    late: TaskTracker,
    /// Removed targets that still have open connections or a lookup in progress.
    retired: Vec<Weak<ServedTarget<C::TargetState>>>,
    leaving: Vec<Weak<TargetContext<C::TargetState>>>,
    /// Targets that are stopped until the next reload.
    stopped: Vec<StoppedRow>,
    /// Tunnels that are shutting down.
    endings: TaskTracker,
}

impl<C: ClientProtocol> Server<C> {
    /// Starts an accept loop on every listener. The connections run on `runtimes`.
    #[must_use]
    pub fn start(
        protocol: Arc<C>,
        at: ListenAt,
        listeners: Vec<Listener<C::TargetState>>,
        endings: TaskTracker,
        runtimes: ConnectionRuntimes,
    ) -> Self {
        let server = Self {
            protocol,
            at,
            served: ServedPorts::default(),
            startups: Arc::new(Semaphore::new(MAX_STARTUPS)),
            runtimes: Arc::new(runtimes),
            connections: TaskTracker::new(),
            arrivals: Arrivals::default(),
            late: TaskTracker::new(),
            retired: Vec::new(),
            leaving: Vec::new(),
            stopped: Vec::new(),
            endings,
        };
        for listener in listeners {
            server.open(listener);
        }
        server.show();
        server
    }

    /// Returns the addresses of every port.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.at.serve.addresses
    }

    /// Returns a handle to the ports and targets, which is updated on every reload.
    #[must_use]
    pub fn served(&self) -> ServedPorts<C::TargetState> {
        self.served.clone()
    }

    /// Publishes the ports and targets that are served now.
    fn show(&self) {
        let rows = self.served.rows().into_iter().filter(|row| !row.hub);
        let listed = rows.map(|row| ListedTarget {
            port: row.port,
            addresses: self.at.serve.addresses.clone(),
            by_name: row.by_name,
            socket: row.socket,
            source: row.served as Arc<dyn StatusSource>,
        });
        let stopped = self.stopped.iter().map(|stopped| stopped.listed.clone());
        let listed = listed.chain(stopped).collect();
        self.protocol.serving().observed.show(listed);
    }

    fn open(&self, listener: Listener<C::TargetState>) {
        let open = OpenPort {
            port: listener.port,
            socket: listener.socket().map(PathBuf::from),
            port_use: listener.port_use,
            port_targets: Arc::new(RwLock::new(listener.port_targets)),
            accepting: CancellationToken::new(),
            closing: CancellationToken::new(),
            loops: TaskTracker::new(),
        };
        for socket in listener.sockets {
            self.accept_at(socket, &open);
        }
        if let Some(socket) = listener.unix {
            self.accept_at(socket, &open);
        }
        write(&self.served.0).push(Arc::new(open));
    }

    fn accept_at(&self, socket: impl Listens + 'static, open: &OpenPort<C::TargetState>) {
        let entrance = Entrance::new(socket, Arc::clone(&self.protocol.serving().guard));
        let accept = AcceptLoop {
            protocol: Arc::clone(&self.protocol),
            port_targets: Arc::clone(&open.port_targets),
            startups: Arc::clone(&self.startups),
            runtimes: Arc::clone(&self.runtimes),
            connections: self.connections.clone(),
            arrivals: self.arrivals.clone(),
            late: self.late.clone(),
        };
        let (stop, closing) = (open.accepting.clone(), open.closing.clone());
        let alive = self.protocol.serving().observed.accepting();
        open.loops.spawn(async move {
            let accepting = stop.run_until_cancelled(accept.run(entrance, &closing));
            let ended = async {
                let ended = accepting.await;
                ended.filter(|()| !closing.is_cancelled())
            };
            alive.watch(ended).await;
        });
    }

    /// Replaces the targets. Ports that remain are never closed. Open connections continue,
    /// including those to removed targets; a removed target's tunnel ends after its last
    /// connection. A stopped target is served again. Returns the ports that failed; the rest is
    /// served.
    ///
    /// # Errors
    /// [`BindError`] if no port would be left. Then only the targets behind the remaining ports
    /// have changed.
    pub async fn reload(
        &mut self,
        targets: &[Arc<ServedTarget<C::TargetState>>],
    ) -> Result<Vec<BindError>, BindError> {
        let wanted = port_uses(targets, &self.at.serve)?;
        let ports = wanted.len();
        let fixed = wanted.iter().filter_map(|(each, _)| each.fixed_port());
        let fixed: Vec<u16> = fixed.collect();
        let before = self.served.targets();
        let keeps = |open: &Arc<OpenPort<_>>| {
            wanted
                .iter()
                .any(|(port_use, _)| *port_use == open.port_use)
        };
        let (stay, close): (Vec<_>, Vec<_>) = {
            let all = read(&self.served.0);
            all.iter().cloned().partition(keeps)
        };
        let (mut opened, mut later, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for (port_use, port_targets) in wanted {
            if let Some(open) = stay.iter().find(|open| open.port_use == port_use) {
                *write(&open.port_targets) = port_targets;
            } else if close
                .iter()
                .any(|open| Some(open.port) == port_use.fixed_port())
            {
                later.push((port_use, port_targets)); // The port stays in use for another purpose.
            } else {
                match self.at.listen_as_one_of(ports, port_use, port_targets) {
                    Ok(listener) => opened.push(listener),
                    Err(error) => failed.push(error),
                }
            }
        }
        // Working ports are not given up for failing ones.
        if stay.is_empty()
            && opened.is_empty()
            && later.is_empty()
            && let Some(error) = failed.pop()
        {
            return Err(error);
        }
        for open in &close {
            open.accepting.cancel();
            open.loops.close();
        }
        write(&self.served.0).clone_from(&stay);
        for open in close {
            open.loops.wait().await;
        }
        for (port_use, port_targets) in later {
            match self.at.listen_as_one_of(ports, port_use, port_targets) {
                Ok(listener) => opened.push(listener),
                Err(error) => failed.push(error),
            }
        }
        opened.into_iter().for_each(|listener| self.open(listener));
        if let Some(unused) = self.at.unused(&fixed) {
            warn!("{unused}");
        }
        self.retire(&before, targets);
        self.stopped.clear();
        self.show();
        Ok(failed)
    }

    /// Returns a clock for the time without clients.
    #[must_use]
    pub fn idle_clock(&self) -> IdleClock {
        IdleClock::start(self.connections.clone(), self.arrivals.clone())
    }

    /// Closes all ports if no client is connected. A client that connected meanwhile is served, and
    /// the ports are opened again; then it returns `false`. No client is lost: clients that a
    /// passed socket has not accepted wait for the next process.
    pub async fn close_if_idle(&mut self) -> bool {
        let open = read(&self.served.0).clone();
        for port in &open {
            port.closing.cancel();
            port.loops.close();
        }
        for port in &open {
            port.loops.wait().await;
        }
        if self.connections.is_empty() {
            return true;
        }
        info!("a client has connected; staying");
        write(&self.served.0).clear();
        let ports = open.len();
        for port in open {
            let port_targets = read(&port.port_targets).clone();
            let reopened = self
                .at
                .listen_as_one_of(ports, port.port_use.clone(), port_targets);
            match reopened {
                Ok(listener) => self.open(listener),
                Err(error) => warn!(%error, "cannot listen again"),
            }
        }
        self.show();
        false
    }

    /// Retires the targets that are no longer configured.
    fn retire(
        &mut self,
        before: &[Arc<ServedTarget<C::TargetState>>],
        now: &[Arc<ServedTarget<C::TargetState>>],
    ) {
        self.retired.retain(|served| served.strong_count() > 0);
        self.leaving.retain(|context| context.strong_count() > 0);
        for served in before {
            if now.iter().any(|other| Arc::ptr_eq(other, served)) {
                continue;
            }
            match served.ready() {
                Some(context) => {
                    context.protocol.no_more_clients();
                    self.leaving.push(Arc::downgrade(context));
                }
                None => self.retired.push(Arc::downgrade(served)),
            }
        }
    }

    /// Returns every tunnel that may be open.
    fn transports(&self) -> Vec<Arc<dyn Transport>> {
        let retired = self.retired.iter().filter_map(Weak::upgrade);
        let targets = self.served.targets().into_iter().chain(retired);
        let context = targets.filter_map(|served| served.ready().cloned());
        let leaving = self.leaving.iter().filter_map(Weak::upgrade);
        context
            .chain(leaving)
            .map(|context| Arc::clone(&context.transport))
            .collect()
    }

    /// Waits up to `grace` for open connections; `hurry` cuts the wait short. Meanwhile new clients
    /// are refused and only cancel requests are served, as in PostgreSQL's "smart" shutdown. Then
    /// it notifies and closes the remaining connections, and ends the SSM sessions.
    pub async fn drain(self, grace: Duration, hurry: impl Future<Output = ()>) {
        self.protocol.serving().refuse_new_clients();
        for served in self.served.targets() {
            if let Some(context) = served.ready() {
                context.protocol.no_more_clients();
            }
        }
        let mut running = RunningParts {
            accepting: CancellationToken::new(),
            connections: self.connections.clone(),
            stop: self.protocol.serving().stop.clone(),
            transports: Vec::new(),
        };
        running.wait(grace, hurry).await;
        for open in read(&self.served.0).iter() {
            open.accepting.cancel();
        }
        // Only now: a lookup for a client may have added targets meanwhile.
        running.transports = self.transports();
        running.finish(&self.late).await;
        self.endings.close();
        if timeout(TUNNEL_SHUTDOWN_DEADLINE, self.endings.wait())
            .await
            .is_err()
        {
            warn!("ending the SSM sessions timed out; AWS ends them at their idle timeout");
        }
    }
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    // Every write under these locks is one assignment, which a panic cannot interrupt.
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// Data that an accept loop passes to each connection.
struct AcceptLoop<C: ClientProtocol> {
    protocol: Arc<C>,
    port_targets: Arc<RwLock<PortTargets<C::TargetState>>>,
    startups: Arc<Semaphore>,
    runtimes: Arc<ConnectionRuntimes>,
    connections: TaskTracker,
    arrivals: Arrivals,
    late: TaskTracker,
}

impl<C: ClientProtocol> AcceptLoop<C> {
    /// Accepts until it is dropped, or until `closing` is cancelled and every accepted client has
    /// been passed on. When the limit of clients in startup is reached, the next
    /// client waits here, and the others in the kernel. The permit is acquired after the accept,
    /// not before: a program may listen on more sockets than there are permits. Refused clients
    /// need no permit.
    async fn run<L: Listens>(self, mut entrance: Entrance<L>, closing: &CancellationToken) {
        loop {
            let verdict = tokio::select! {
                biased;
                verdict = entrance.next() => verdict,
                () = closing.cancelled() => {
                    if !entrance.is_deciding() {
                        return;
                    }
                    entrance.next().await
                }
            };
            self.arrivals.count();
            match verdict {
                Verdict::Admitted(connection) => {
                    // The semaphore is never closed.
                    let Ok(permit) = Arc::clone(&self.startups).acquire_owned().await else {
                        return;
                    };
                    self.serve::<L>(connection, permit);
                }
                Verdict::Refused(connection) => {
                    let connection = connection.map(|stream| Box::new(stream) as Stream);
                    let (protocol, port_targets) =
                        (Arc::clone(&self.protocol), self.port_targets());
                    self.tracker()
                        .spawn(protocol.refuse(port_targets, connection));
                }
            }
        }
    }

    /// Serves a connection on one of the runtimes.
    fn serve<L: Listens>(&self, connection: Admitted<L::Stream>, permit: OwnedSemaphorePermit) {
        let place = self.runtimes.place();
        let moved = {
            let _entered = place.handle.enter();
            connection
                .try_map(|stream| Ok::<_, io::Error>(Box::new(L::moved_here(stream)?) as Stream))
        };
        let connection = match moved {
            Ok(connection) => connection,
            Err(error) => {
                return warn!(%error, "cannot move a new connection to its thread; closed it");
            }
        };
        let (protocol, port_targets) = (Arc::clone(&self.protocol), self.port_targets());
        let runtime = place.handle.clone();
        let serve = async move {
            protocol.serve(port_targets, connection, permit).await;
            drop(place);
        };
        self.tracker().spawn_on(serve, &runtime);
    }

    /// Returns the current targets, which a reload may have changed.
    fn port_targets(&self) -> PortTargets<C::TargetState> {
        read(&self.port_targets).clone()
    }

    /// Returns the tracker for a connection. Late connections are not waited for.
    fn tracker(&self) -> &TaskTracker {
        if self.protocol.serving().refuses_new_clients() {
            &self.late
        } else {
            &self.connections
        }
    }
}
