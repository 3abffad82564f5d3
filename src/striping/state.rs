//! State of one bundle: the machine, the inboxes and the outboxes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use bytes::BytesMut;
use stripe::{Bundle, BundleEvent, Role, StreamId, StripeError};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use super::carrier::{CarrierEnd, Progress};
use super::inbox::Inbox;
use super::refusal::{Refusal, RefusalKind, StripingError};
use super::stream::StripedStream;

/// Time for the peer to end a stream whose handle was dropped after its own end.
const LINGER: Duration = Duration::from_secs(5);

/// State of a bundle, for its owner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BundleState {
    /// Attached carriers.
    pub carriers: usize,
    /// Carriers that both sides know.
    pub ready: usize,
    /// Open streams.
    pub streams: usize,
    /// When a stream was last seen to have waited for credit for 100 ms, in any direction (client
    /// only): another carrier would make it faster. Renewed twice a second while that lasts.
    pub limited_at: Option<Instant>,
    /// The bundle is over, and why.
    pub over: Option<Arc<str>>,
}

/// Bytes on the wire of one carrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CarrierStats {
    /// Index of the subflow.
    pub index: u8,
    /// Number of carriers that the subflow has had.
    pub generation: u16,
    /// Both sides know it.
    pub is_ready: bool,
    /// Bytes sent.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
}

/// What the tasks and handles of a bundle share.
pub(super) struct Shared {
    machines: Mutex<Machines>,
    /// Wakes the timer's task.
    pub(super) timer: Notify,
    pub(super) state: watch::Sender<BundleState>,
    /// Streams that the peer has opened (relay only).
    opened: Option<mpsc::UnboundedSender<(StripedStream, String)>>,
    origin: Instant,
}

/// Everything behind the lock.
pub(super) struct Machines {
    pub(super) bundle: Bundle,
    pub(super) streams: HashMap<StreamId, StreamSlot>,
    pub(super) carriers: BTreeMap<u8, CarrierSlot>,
    /// Streams without a handle, with the time at which they are reset.
    lingering: VecDeque<(Duration, StreamId)>,
    /// The timer's next time.
    armed: Option<Duration>,
    limited_at: Option<Instant>,
    pub(super) over: Option<Arc<str>>,
    /// State as last published.
    shown: BundleState,
    wakers: Vec<Waker>,
    opened: Vec<(StreamId, String)>,
}

/// One stream.
#[derive(Default)]
pub(super) struct StreamSlot {
    pub(super) inbox: Inbox,
    pub(super) end: Option<StreamEnd>,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    /// Its handle was dropped after its own end.
    lingers: bool,
}

/// The peer's end of a stream.
#[derive(Clone)]
pub(super) enum StreamEnd {
    Finished,
    Reset(Refusal),
}

/// One carrier.
pub(super) struct CarrierSlot {
    pub(super) generation: u16,
    pub(super) is_ready: bool,
    pub(super) outbox: BytesMut,
    pub(super) task: Option<Waker>,
    /// Ends it at once.
    pub(super) leave: Option<CarrierEnd>,
    /// Ends it when the outbox is empty.
    pub(super) closes: bool,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) sent: u64,
    pub(super) received: u64,
}

impl CarrierSlot {
    /// Moves the waker of its task to those that are woken.
    fn wake(&mut self, wakers: &mut Vec<Waker>) {
        wakers.extend(self.task.take());
    }
}

impl Shared {
    pub(super) fn new(
        role: Role,
        opened: Option<mpsc::UnboundedSender<(StripedStream, String)>>,
    ) -> Self {
        Self {
            machines: Mutex::new(Machines {
                bundle: Bundle::new(role),
                streams: HashMap::new(),
                carriers: BTreeMap::new(),
                lingering: VecDeque::new(),
                armed: None,
                limited_at: None,
                over: None,
                shown: BundleState::default(),
                wakers: Vec::new(),
                opened: Vec::new(),
            }),
            timer: Notify::new(),
            state: watch::Sender::new(BundleState::default()),
            opened,
            origin: Instant::now(),
        }
    }

    /// Locks the machines for a look, without effects on the peer.
    pub(super) fn lock(&self) -> MutexGuard<'_, Machines> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the machines, moves what can move then, and wakes the tasks that have work.
    pub(super) fn change<T>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Machines, Duration) -> T,
    ) -> T {
        let mut machines = self.lock();
        let now = self.origin.elapsed();
        let result = change(&mut machines, now);
        machines.settle(now, Instant::now());
        let next = machines.next_timeout();
        let is_earlier = match (next, machines.armed) {
            (Some(next), Some(armed)) => next < armed,
            (next, _) => next.is_some(),
        };
        if is_earlier {
            machines.armed = next;
            self.timer.notify_one();
        }
        let state = machines.state();
        if state != machines.shown {
            if state.over.is_some() {
                self.timer.notify_one();
            }
            machines.shown = state.clone();
            self.state.send_replace(state);
        }
        let wakers = std::mem::take(&mut machines.wakers);
        let opened = std::mem::take(&mut machines.opened);
        drop(machines);
        for waker in wakers {
            waker.wake();
        }
        for (id, target) in opened {
            let stream = StripedStream::new(id, Arc::clone(self));
            if let Some(sender) = &self.opened {
                // Without a receiver the stream is dropped, which resets it.
                _ = sender.send((stream, target));
            }
        }
        result
    }

    /// Returns the moment of the timer's next time, and arms it for that.
    pub(super) fn arm(&self) -> Option<Instant> {
        let mut machines = self.lock();
        machines.armed = machines.next_timeout();
        machines.armed.map(|at| self.origin + at)
    }

    /// Does what is due.
    pub(super) fn on_timer(self: &Arc<Self>) {
        self.change(|machines, now| {
            machines.armed = None;
            machines.bundle.handle_timeout(now);
            while let Some(&(at, id)) = machines.lingering.front()
                && at <= now
            {
                machines.lingering.pop_front();
                if machines.streams.get(&id).is_some_and(|slot| slot.lingers) {
                    machines.reset(id, &Refusal::new(RefusalKind::Other, "closed"));
                }
            }
        });
    }
}

impl Machines {
    /// Returns the error of all streams after the end of the bundle.
    pub(super) fn check(&self) -> Result<(), StripingError> {
        let over = self.over.clone();
        over.map_or(Ok(()), |reason| Err(StripingError::Ended(reason)))
    }

    /// Ends the bundle: streams fail with `reason`, carriers end when their outbox is empty.
    pub(super) fn end(&mut self, reason: &str) {
        self.over.get_or_insert_with(|| reason.into());
        for slot in self.streams.values_mut() {
            self.wakers.extend(slot.reader.take());
            self.wakers.extend(slot.writer.take());
        }
        for carrier in self.carriers.values_mut() {
            carrier.closes = true;
            carrier.wake(&mut self.wakers);
        }
    }

    /// Adds a carrier in place of the one of the same index.
    pub(super) fn insert(&mut self, index: u8, slot: CarrierSlot) {
        if let Some(mut before) = self.carriers.insert(index, slot) {
            before.wake(&mut self.wakers);
        }
    }

    /// Ends a carrier at once.
    pub(super) fn dismiss(&mut self, index: u8, generation: u16, end: CarrierEnd) {
        let slot = self.carriers.get_mut(&index);
        if let Some(slot) = slot.filter(|slot| slot.generation == generation) {
            slot.leave.get_or_insert(end);
            slot.wake(&mut self.wakers);
        }
    }

    /// Ends all carriers at once.
    pub(super) fn dismiss_all(&mut self) {
        for slot in self.carriers.values_mut() {
            slot.leave.get_or_insert(CarrierEnd::BundleOver);
            slot.wake(&mut self.wakers);
        }
    }

    /// Takes bytes of a carrier. Returns its end if they end it.
    pub(super) fn receive(
        &mut self,
        (index, generation): (u8, u16),
        bytes: &[u8],
        now: Duration,
    ) -> Option<CarrierEnd> {
        let slot = self.carriers.get_mut(&index);
        let Some(slot) = slot.filter(|slot| slot.generation == generation) else {
            return Some(CarrierEnd::Detached);
        };
        slot.received += bytes.len() as u64;
        match self.bundle.handle_input(index, bytes, now) {
            Ok(()) => None,
            Err(error @ (StripeError::Magic | StripeError::Version(_))) => {
                Some(CarrierEnd::NotRelay(error))
            }
            Err(StripeError::NotAttached(_)) => Some(CarrierEnd::Detached),
            Err(error) => {
                self.end(&error.to_string());
                self.dismiss_all();
                Some(CarrierEnd::BundleOver)
            }
        }
    }

    /// Resets a stream and forgets it.
    pub(super) fn reset(&mut self, id: StreamId, refusal: &Refusal) {
        self.bundle.reset(id, &refusal.to_wire());
        self.streams.remove(&id);
    }

    /// Notes that the handle of a stream was dropped, after its own end or before.
    pub(super) fn leave(&mut self, id: StreamId, is_finished: bool, now: Duration) {
        let Some(slot) = self.streams.get_mut(&id) else {
            return;
        };
        match &slot.end {
            Some(_) => {
                self.bundle.finish(id);
                self.streams.remove(&id);
            }
            // The last bytes still go out, as after a close in TCP.
            None if is_finished && slot.inbox.is_empty() => {
                slot.lingers = true;
                self.lingering.push_back((now + LINGER, id));
            }
            None => self.reset(id, &Refusal::new(RefusalKind::Other, "closed")),
        }
    }

    /// Moves frames to the outboxes, and events to the streams.
    fn settle(&mut self, now: Duration, instant: Instant) {
        loop {
            while let Some(transmit) = self.bundle.poll_transmit(now) {
                if let Some(carrier) = self.carriers.get_mut(&transmit.index) {
                    carrier.outbox.extend_from_slice(&transmit.bytes);
                    carrier.wake(&mut self.wakers);
                }
            }
            let Some(event) = self.bundle.poll_event() else {
                return;
            };
            self.handle(event, instant);
        }
    }

    fn handle(&mut self, event: BundleEvent, instant: Instant) {
        match event {
            BundleEvent::Opened { id, target } => {
                self.streams.insert(id, StreamSlot::default());
                self.opened.push((id, target));
            }
            BundleEvent::Data { id, data } => match self.streams.get_mut(&id) {
                Some(slot) if !slot.lingers => {
                    slot.inbox.push(data);
                    self.wakers.extend(slot.reader.take());
                }
                _ => self.reset(id, &Refusal::new(RefusalKind::Other, "closed")),
            },
            BundleEvent::Finished(id) => self.ended(id, StreamEnd::Finished),
            BundleEvent::Reset { id, reason } => {
                self.ended(id, StreamEnd::Reset(Refusal::parse(&reason)));
            }
            BundleEvent::Writable(id) => {
                if let Some(slot) = self.streams.get_mut(&id) {
                    self.wakers.extend(slot.writer.take());
                }
            }
            BundleEvent::Ready(index) => {
                if let Some(carrier) = self.carriers.get_mut(&index) {
                    carrier.is_ready = true;
                    carrier.progress.send_replace(Progress::Ready);
                }
            }
            BundleEvent::Refused { index, reason } => {
                if let Some(carrier) = self.carriers.get_mut(&index) {
                    carrier.leave = Some(CarrierEnd::Refused(Refusal::parse(&reason)));
                    carrier.wake(&mut self.wakers);
                }
            }
            BundleEvent::Limited => self.limited_at = Some(instant),
        }
    }

    fn ended(&mut self, id: StreamId, end: StreamEnd) {
        let Some(slot) = self.streams.get_mut(&id) else {
            return;
        };
        if slot.lingers {
            self.streams.remove(&id);
            return;
        }
        slot.end = Some(end);
        self.wakers.extend(slot.reader.take());
        self.wakers.extend(slot.writer.take());
    }

    fn next_timeout(&self) -> Option<Duration> {
        let linger = self.lingering.front().map(|(at, _)| *at);
        let machine = self.bundle.poll_timeout();
        [linger, machine].into_iter().flatten().min()
    }

    fn state(&self) -> BundleState {
        let ready = self.carriers.values().filter(|carrier| carrier.is_ready);
        BundleState {
            carriers: self.carriers.len(),
            ready: ready.count(),
            streams: self.bundle.open_streams(),
            limited_at: self.limited_at,
            over: self.over.clone(),
        }
    }
}
