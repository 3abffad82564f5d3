//! [`StripedBundle`]: the handle of a bundle, and its timer.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use stripe::{BundleId, Hello, Role, StreamId};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::carrier::{Carrier, CarrierEnd, CarrierTask, Progress};
use super::refusal::{Refusal, RefusalKind, StripingError};
use super::state::{BundleState, CarrierSlot, CarrierStats, Shared, StreamSlot};
use super::stream::StripedStream;
use crate::base::stream::Stream;

/// Time for the last bytes of an ending bundle to leave.
const FAREWELL: Duration = Duration::from_secs(2);
/// Resolution of the runtime's timer.
const TICK: Duration = Duration::from_millis(1);

/// Streams that the peer opens, each with its target.
pub type OpenedStreams = mpsc::UnboundedReceiver<(StripedStream, String)>;

/// All streams and carriers between one client and one relay. Clones are handles of the same bundle,
/// which lives until [`shutdown`](Self::shutdown).
#[derive(Clone)]
pub struct StripedBundle {
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

impl StripedBundle {
    /// Creates a client's bundle without carriers. Its tasks run in `tasks`; `stop` ends them.
    #[must_use]
    pub fn client(id: BundleId, tasks: &TaskTracker, stop: &CancellationToken) -> Self {
        Self::start(Shared::new(Role::Client(id), None), tasks, stop)
    }

    /// Creates a relay's bundle without carriers. Returns the streams that the client opens, too.
    #[must_use]
    pub fn relay(tasks: &TaskTracker, stop: &CancellationToken) -> (Self, OpenedStreams) {
        let (sender, opened) = mpsc::unbounded_channel();
        let shared = Shared::new(Role::Relay, Some(sender));
        (Self::start(shared, tasks, stop), opened)
    }

    fn start(shared: Shared, tasks: &TaskTracker, stop: &CancellationToken) -> Self {
        let bundle = Self {
            shared: Arc::new(shared),
            tasks: tasks.clone(),
        };
        let timer = keep_time(Arc::clone(&bundle.shared), stop.clone());
        bundle.tasks.spawn(timer);
        bundle
    }

    /// Adds a carrier (client): sends its hello and drives it to its end. A carrier of the same index
    /// is replaced.
    ///
    /// # Errors
    /// The bundle is over, or `generation` is not higher than that of each earlier carrier of this
    /// index.
    pub fn attach(
        &self,
        index: u8,
        generation: u16,
        stream: Stream,
    ) -> Result<Carrier, StripingError> {
        let added = self.add((index, generation), stream, None);
        added.map_err(|failed| failed.1)
    }

    /// Adds a carrier whose hello has arrived (relay), with the bytes that came behind it.
    ///
    /// # Errors
    /// The carrier, and an error as of [`attach`](Self::attach).
    pub fn accept(
        &self,
        hello: &Hello,
        stream: Stream,
        rest: &[u8],
    ) -> Result<Carrier, Box<(Stream, StripingError)>> {
        self.add((hello.index, hello.generation), stream, Some(rest))
    }

    fn add(
        &self,
        (index, generation): (u8, u16),
        stream: Stream,
        accepted: Option<&[u8]>,
    ) -> Result<Carrier, Box<(Stream, StripingError)>> {
        let (sender, progress) = watch::channel(match accepted {
            Some(_) => Progress::Ready,
            None => Progress::Starting,
        });
        let slot = CarrierSlot {
            generation,
            is_ready: accepted.is_some(),
            outbox: BytesMut::new(),
            task: None,
            leave: None,
            closes: false,
            progress: sender.clone(),
            sent: 0,
            received: 0,
        };
        let attached = self.shared.change(|machines, now| {
            machines.check()?;
            machines.bundle.attach(index, generation, now)?;
            machines.insert(index, slot);
            if let Some(rest) = accepted.filter(|rest| !rest.is_empty()) {
                let end = machines.receive((index, generation), rest, now);
                if let Some(slot) = machines.carriers.get_mut(&index) {
                    slot.leave = slot.leave.take().or(end);
                }
            }
            Ok::<(), StripingError>(())
        });
        if let Err(error) = attached {
            return Err(Box::new((stream, error)));
        }
        let task = CarrierTask::new((index, generation), stream, Arc::clone(&self.shared));
        self.tasks.spawn(task.run(sender));
        Ok(Carrier { progress })
    }

    /// Closes a carrier. What it had not delivered goes over the others. A `generation` that was
    /// replaced already changes nothing.
    pub fn detach(&self, index: u8, generation: u16) {
        self.shared.change(|machines, now| {
            machines.bundle.detach(index, generation, now);
            machines.dismiss(index, generation, CarrierEnd::Detached);
        });
    }

    /// Opens a stream to `target`, as `HOST:PORT` (client). Nothing is waited for: a refusal is an
    /// error of the stream.
    ///
    /// # Errors
    /// The bundle is over, or `target` is too long.
    pub fn open(&self, target: &str) -> Result<StripedStream, StripingError> {
        let id = self.shared.change(|machines, now| {
            machines.check()?;
            let id: StreamId = machines.bundle.open(target, now)?;
            machines.streams.insert(id, StreamSlot::default());
            Ok::<_, StripingError>(id)
        })?;
        Ok(StripedStream::new(id, Arc::clone(&self.shared)))
    }

    /// Returns the state, and its changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<BundleState> {
        self.shared.state.subscribe()
    }

    /// Returns the bytes of each carrier.
    #[must_use]
    pub fn stats(&self) -> Vec<CarrierStats> {
        let machines = self.shared.lock();
        let carriers = machines.carriers.iter();
        let stats = |(index, slot): (&u8, &CarrierSlot)| CarrierStats {
            index: *index,
            generation: slot.generation,
            is_ready: slot.is_ready,
            sent: slot.sent,
            received: slot.received,
        };
        carriers.map(stats).collect()
    }

    /// Ends the bundle: resets its streams, and closes its carriers when the last bytes have left,
    /// after two seconds at the latest. Returns when no carrier is left.
    pub async fn shutdown(&self, reason: &str) {
        self.shared.close(reason);
        let mut state = self.shared.state.subscribe();
        _ = state.wait_for(|state| state.carriers == 0).await;
    }
}

/// Runs the timer of a bundle until its end, then lets its carriers send their last bytes.
async fn keep_time(shared: Arc<Shared>, stop: CancellationToken) {
    while shared.state.borrow().over.is_none() {
        let next = shared.arm();
        let due = async {
            match next {
                Some(at) => sleep_until(at.max(Instant::now() + TICK)).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = due => shared.on_timer(),
            () = shared.timer.notified() => {}
            () = stop.cancelled() => break,
        }
    }
    shared.close("shutting down");
    let mut state = shared.state.subscribe();
    let gone = state.wait_for(|state| state.carriers == 0);
    if timeout(FAREWELL, gone).await.is_err() {
        shared.change(|machines, _| machines.dismiss_all());
    }
}

impl Shared {
    /// Resets all streams and lets the carriers end.
    fn close(self: &Arc<Self>, reason: &str) {
        let refusal = Refusal::new(RefusalKind::Stopping, reason);
        self.change(|machines, _| {
            let text = refusal.to_wire();
            for id in machines.streams.keys() {
                machines.bundle.reset(*id, &text);
            }
            machines.end(reason);
        });
    }
}
