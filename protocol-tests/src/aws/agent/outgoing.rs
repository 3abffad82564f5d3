//! The agent's sending half: numbers, remembers, resends the oldest.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::sync::Notify;
use uuid::Uuid;

use super::AgentControl;
use super::cipher::SessionCipher;
use crate::aws::events::{Event, EventLog};
use crate::aws::session::{Session, Side};
use crate::aws::wire;
use crate::aws::wire::{Header, payload};
use crate::harness::sync::lock;

/// Unacknowledged messages that are remembered; a message beyond it is sent once and never again.
const REMEMBERED: usize = 100_000;
/// How often the oldest message is looked at.
const CHECK: Duration = Duration::from_millis(100);
const FIRST_TIMEOUT: Duration = Duration::from_millis(200);
const MAX_TIMEOUT: Duration = Duration::from_secs(1);
/// An acknowledgement that comes back later than this finds the message recorded.
const RECORDED_AFTER: Duration = Duration::from_millis(2);
/// Least share of the timeout that stands for the clock's grain.
const GRAIN: Duration = Duration::from_millis(10);

pub(super) struct Outgoing {
    session: Arc<Session>,
    control: AgentControl,
    events: EventLog,
    state: Mutex<State>,
    /// Held from numbering messages until they are under way, so that they leave in order.
    turn: tokio::sync::Mutex<()>,
    paused: AtomicBool,
    /// The agent has died: nothing leaves any more.
    dead: AtomicBool,
    resumed: Notify,
    cipher: OnceLock<Arc<SessionCipher>>,
}

struct State {
    next: i64,
    /// Sequence number of the first of `slots`.
    first: i64,
    /// Messages in order; `None` where one is acknowledged or was never remembered. The front is
    /// always the oldest that is waiting.
    slots: VecDeque<Option<Unacked>>,
    remembered: usize,
    timeout: RetransmissionTimeout,
}

struct Unacked {
    id: Uuid,
    raw: Bytes,
    sent: Instant,
    miss_next_ack: bool,
}

/// Smoothed round trip and its variance, weights 1/8 and 1/4.
struct RetransmissionTimeout {
    round_trip: Duration,
    variance: Duration,
    value: Duration,
}

impl RetransmissionTimeout {
    fn measured(&mut self, sample: Duration) {
        let off = self.round_trip.abs_diff(sample);
        self.variance = self.variance * 3 / 4 + off / 4;
        self.round_trip = self.round_trip * 7 / 8 + sample / 8;
        self.value = (self.round_trip + GRAIN.max(self.variance * 4)).min(MAX_TIMEOUT);
    }
}

impl State {
    fn remember(&mut self, unacked: Unacked) {
        let keep = self.remembered < REMEMBERED;
        self.remembered += usize::from(keep);
        self.slots.push_back(keep.then_some(unacked));
        self.next += 1;
        self.drop_answered();
    }

    fn slot(&mut self, sequence: i64) -> Option<&mut Option<Unacked>> {
        let at = usize::try_from(sequence - self.first).ok()?;
        self.slots.get_mut(at)
    }

    fn drop_answered(&mut self) {
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first += 1;
        }
    }
}

impl Outgoing {
    pub(super) fn new(session: Arc<Session>, control: AgentControl, events: EventLog) -> Self {
        Self {
            session,
            control,
            events,
            state: Mutex::new(State {
                next: 0,
                first: 0,
                slots: VecDeque::new(),
                remembered: 0,
                timeout: RetransmissionTimeout {
                    round_trip: Duration::from_millis(100),
                    variance: Duration::ZERO,
                    value: FIRST_TIMEOUT,
                },
            }),
            turn: tokio::sync::Mutex::new(()),
            paused: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            resumed: Notify::new(),
            cipher: OnceLock::new(),
        }
    }

    /// Encrypts stream payloads from now on.
    pub(super) fn encrypt_with(&self, cipher: Arc<SessionCipher>) {
        // A second handshake does not exist.
        let _ = self.cipher.set(cipher);
    }

    /// Nothing leaves from now on, whoever still runs.
    pub(super) fn die(&self) {
        self.dead.store(true, Ordering::Release);
    }

    /// Sends messages outside of the sequence and leaves `messages` empty.
    pub(super) async fn send_unsequenced(&self, messages: &mut Vec<Bytes>) {
        if self.dead.load(Ordering::Acquire) {
            return messages.clear();
        }
        self.session.relay_all(Side::Agent, messages).await;
    }

    /// Sends the next `output_stream_data`.
    pub(super) async fn send(&self, payload_type: u32, payload: Bytes) {
        let size = payload.len().max(1);
        self.send_parts(payload_type, &mut BytesMut::from(payload), size, 1)
            .await;
    }

    /// Takes up to `count` payloads of up to `size` bytes off `data` and sends them.
    ///
    /// While publication is paused the first of them is numbered and remembered but not sent, and
    /// the rest is left: the real agent has one message in hand when it is told to pause, and the
    /// retransmission brings that out later.
    pub(super) async fn send_parts(
        &self,
        payload_type: u32,
        data: &mut BytesMut,
        size: usize,
        count: usize,
    ) {
        let _turn = self.turn.lock().await;
        if self.dead.load(Ordering::Acquire) {
            return data.clear();
        }
        if self.paused.load(Ordering::Acquire) {
            self.number(payload_type, data, size, 1);
        } else {
            let mut messages = self.number(payload_type, data, size, count);
            self.session.relay_all(Side::Agent, &mut messages).await;
        }
    }

    fn number(
        &self,
        payload_type: u32,
        data: &mut BytesMut,
        size: usize,
        count: usize,
    ) -> Vec<Bytes> {
        let race = self.control.read(|s| s.miss_ack_every);
        let cipher = self
            .cipher
            .get()
            .filter(|_| payload_type == payload::OUTPUT);
        let (now, created_ms) = (Instant::now(), wire::now_ms());
        let mut state = lock(&self.state);
        let parts = count.min(data.len().div_ceil(size));
        let mut out = BytesMut::with_capacity(parts * (wire::PAYLOAD_OFFSET + size + 28));
        let mut messages = Vec::with_capacity(parts);
        for _ in 0..parts {
            let length = size.min(data.len());
            let header = Header {
                kind: wire::OUTPUT,
                created_ms,
                sequence: state.next,
                flags: if state.next == 0 { wire::SYN } else { 0 },
                id: wire::fresh_id(),
                payload_type,
            };
            match cipher.map(|cipher| cipher.seal(&data[..length])) {
                None => header.put(&mut out, &data[..length]),
                Some(Ok(sealed)) => header.put(&mut out, &sealed),
                // Without randomness nothing can be encrypted; the client waits in vain.
                Some(Err(_)) => self.session.violation("the agent cannot encrypt"),
            }
            data.advance(length);
            let raw = out.split().freeze();
            state.remember(Unacked {
                id: header.id,
                raw: raw.clone(),
                sent: now,
                miss_next_ack: race.is_some_and(|n| header.sequence % i64::from(n.max(1)) == 3),
            });
            messages.push(raw);
        }
        messages
    }

    /// Takes an acknowledgement that came at `now`; says what is wrong with one that no client
    /// should send.
    pub(super) fn acknowledged(
        &self,
        sequence: i64,
        id: Uuid,
        now: Instant,
    ) -> Result<(), &'static str> {
        self.set_paused(false);
        let mut state = lock(&self.state);
        if !(0..state.next).contains(&sequence) {
            return Err("acknowledges a message that was never sent");
        }
        let Some(slot) = state.slot(sequence) else {
            return Ok(());
        };
        let Some(unacked) = slot else {
            return Ok(());
        };
        if unacked.id != id {
            return Err("acknowledges a sequence number with another message's id");
        }
        let sample = now.saturating_duration_since(unacked.sent);
        // `set_races` wants them whatever the machine's speed.
        let missed = sample < RECORDED_AFTER || self.control.read(|s| s.races.is_none());
        if std::mem::take(&mut unacked.miss_next_ack) && missed {
            return Ok(());
        }
        *slot = None;
        state.remembered -= 1;
        state.timeout.measured(sample);
        state.drop_answered();
        Ok(())
    }

    /// Obeys `pause_publication` and `start_publication`.
    pub(super) fn set_paused(&self, paused: bool) {
        if self.paused.load(Ordering::Acquire) != paused {
            self.paused.store(paused, Ordering::Release);
            self.resumed.notify_waiters();
        }
    }

    /// Waits until publication is allowed: before that the agent does not even read from its
    /// multiplexer.
    pub(super) async fn active(&self) {
        loop {
            let resumed = self.resumed.notified();
            if !self.paused.load(Ordering::Acquire) {
                return;
            }
            resumed.await;
        }
    }

    /// Resends the oldest message for ever; the rest waits for its turn.
    pub(super) async fn retransmit(self: Arc<Self>) {
        let mut check = tokio::time::interval(CHECK);
        loop {
            check.tick().await;
            if self.paused.load(Ordering::Acquire) || self.dead.load(Ordering::Acquire) {
                continue;
            }
            let Some((sequence, raw)) = self.overdue() else {
                continue;
            };
            self.events.push(Event::AgentResent {
                session_id: self.session.info.id.clone(),
                sequence,
            });
            self.session.relay(Side::Agent, raw).await;
        }
    }

    fn overdue(&self) -> Option<(i64, Bytes)> {
        let mut state = lock(&self.state);
        let (limit, sequence) = (state.timeout.value, state.first);
        let oldest = state.slots.front_mut()?.as_mut()?;
        if oldest.sent.elapsed() <= limit {
            return None;
        }
        oldest.sent = Instant::now();
        Some((sequence, oldest.raw.clone()))
    }
}
