//! The agent's sending half: numbers, remembers, resends the oldest.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;
use uuid::Uuid;

use super::AgentControl;
use crate::events::{Event, EventLog};
use crate::session::{Session, Side};
use crate::sync::lock;
use crate::wire::{self, Message};

/// Unacknowledged messages that are remembered; beyond it the oldest is forgotten.
const REMEMBERED: usize = 100_000;
/// How often the oldest message is looked at.
const CHECK: Duration = Duration::from_millis(100);
const FIRST_TIMEOUT: Duration = Duration::from_millis(200);
const MAX_TIMEOUT: Duration = Duration::from_secs(1);
/// Least share of the timeout that stands for the clock's grain.
const GRAIN: Duration = Duration::from_millis(10);

pub(super) struct Outgoing {
    session: Arc<Session>,
    control: AgentControl,
    events: EventLog,
    state: Mutex<State>,
    /// Held from numbering a message until it is under way, so that they leave in order.
    turn: tokio::sync::Mutex<()>,
    paused: watch::Sender<bool>,
}

struct State {
    next: i64,
    unacked: BTreeMap<i64, Unacked>,
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

impl Outgoing {
    pub(super) fn new(session: Arc<Session>, control: AgentControl, events: EventLog) -> Self {
        Self {
            session,
            control,
            events,
            state: Mutex::new(State {
                next: 0,
                unacked: BTreeMap::new(),
                timeout: RetransmissionTimeout {
                    round_trip: Duration::from_millis(100),
                    variance: Duration::ZERO,
                    value: FIRST_TIMEOUT,
                },
            }),
            turn: tokio::sync::Mutex::new(()),
            paused: watch::Sender::new(false),
        }
    }

    /// Sends a message outside of the sequence.
    pub(super) async fn send_unsequenced(&self, message: &Message) {
        self.session.relay(Side::Agent, message.encode()).await;
    }

    /// Sends the next `output_stream_data`, once publication is allowed and there is room.
    pub(super) async fn send(&self, payload_type: u32, payload: Bytes) {
        let _turn = self.turn.lock().await;
        if *self.paused.borrow() {
            let _ = self.paused.subscribe().wait_for(|paused| !*paused).await;
        }
        let mut message = Message::new(wire::OUTPUT, payload_type, payload);
        let race = self.control.read(|s| s.miss_ack_every);
        let raw = {
            let mut state = lock(&self.state);
            message.sequence = state.next;
            message.flags = if state.next == 0 { wire::SYN } else { 0 };
            state.next += 1;
            let raw = message.encode();
            let unacked = Unacked {
                id: message.id,
                raw: raw.clone(),
                sent: Instant::now(),
                miss_next_ack: race.is_some_and(|n| message.sequence % i64::from(n.max(1)) == 3),
            };
            state.unacked.insert(message.sequence, unacked);
            if state.unacked.len() > REMEMBERED {
                state.unacked.pop_first();
            }
            raw
        };
        self.session.relay(Side::Agent, raw).await;
    }

    /// Takes an acknowledgement; says what is wrong with one that no client should send.
    pub(super) fn acknowledged(&self, sequence: i64, id: Uuid) -> Result<(), &'static str> {
        let mut state = lock(&self.state);
        if !(0..state.next).contains(&sequence) {
            return Err("acknowledges a message that was never sent");
        }
        let Some(unacked) = state.unacked.get_mut(&sequence) else {
            return Ok(());
        };
        if unacked.id != id {
            return Err("acknowledges a sequence number with another message's id");
        }
        if std::mem::take(&mut unacked.miss_next_ack) {
            return Ok(());
        }
        let sample = unacked.sent.elapsed();
        state.unacked.remove(&sequence);
        state.timeout.measured(sample);
        Ok(())
    }

    pub(super) fn set_paused(&self, paused: bool) {
        if *self.paused.borrow() != paused {
            self.paused.send_replace(paused);
        }
    }

    /// Resends the oldest message for ever; the rest waits for its turn.
    pub(super) async fn retransmit(self: Arc<Self>) {
        let mut check = tokio::time::interval(CHECK);
        loop {
            check.tick().await;
            if *self.paused.borrow() {
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
        let limit = state.timeout.value;
        let (sequence, oldest) = state.unacked.iter_mut().next()?;
        if oldest.sent.elapsed() <= limit {
            return None;
        }
        oldest.sent = Instant::now();
        Some((*sequence, oldest.raw.clone()))
    }
}
