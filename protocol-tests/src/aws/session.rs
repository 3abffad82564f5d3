//! One Session Manager session as the message gateway sees it: two sides and what lies between them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedMutexGuard, mpsc, watch};
use uuid::Uuid;

use crate::aws::events::{Event, EventLog};
use crate::aws::wire;
use crate::aws::wire::Message;
use crate::harness::sync::{Tasks, lock};
use crate::network::link::{DelayLine, Direction, Link};

mod lane;

use lane::Lane;
pub(crate) use lane::Order;

/// An end of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Agent,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Client => Self::Agent,
            Self::Agent => Self::Client,
        }
    }
}

/// What the document parameters of `StartSession` said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortParameters {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) local_port: String,
}

/// Who a session belongs to and where it goes.
#[derive(Debug, Clone)]
pub(crate) struct SessionInfo {
    pub(crate) id: String,
    pub(crate) target: String,
    pub(crate) owner_arn: String,
    pub(crate) parameters: PortParameters,
    /// What the service calls the part of itself that serves the session.
    pub(crate) cell: Option<String>,
}

/// A session; alive in the sandbox's table even after its end, so that `ResumeSession` can say so.
pub(crate) struct Session {
    pub(crate) info: SessionInfo,
    tokens: Mutex<Tokens>,
    /// Every token ever handed to the client, for those who look for leaks.
    handed_out: Mutex<Vec<String>>,
    to_client: Lane,
    to_agent: Lane,
    ended: watch::Sender<Option<String>>,
    begun: Instant,
    /// Microseconds from `begun` to the last stream message of either side.
    last_data: AtomicU64,
    link: Link,
    events: EventLog,
    tasks: Tasks,
}

#[derive(Default)]
struct Tokens {
    client: Option<String>,
    agent: Option<String>,
}

impl Session {
    pub(crate) fn new(info: SessionInfo, link: Link, events: EventLog, tasks: Tasks) -> Arc<Self> {
        Arc::new(Self {
            info,
            tokens: Mutex::default(),
            handed_out: Mutex::default(),
            to_client: Lane::new(),
            to_agent: Lane::new(),
            ended: watch::Sender::new(None),
            begun: Instant::now(),
            last_data: AtomicU64::new(0),
            link,
            events,
            tasks,
        })
    }

    fn lane(&self, to: Side) -> &Lane {
        match to {
            Side::Client => &self.to_client,
            Side::Agent => &self.to_agent,
        }
    }

    /// A new token for the next connection of `side`; an older unused one is void.
    pub(crate) fn issue_token(&self, side: Side) -> String {
        let token = random_token();
        let mut tokens = lock(&self.tokens);
        match side {
            Side::Client => {
                lock(&self.handed_out).push(token.clone());
                tokens.client = Some(token.clone());
            }
            Side::Agent => tokens.agent = Some(token.clone()),
        }
        token
    }

    /// Every token the client was ever given.
    pub(crate) fn handed_out(&self) -> Vec<String> {
        lock(&self.handed_out).clone()
    }

    /// Uses the token up; false when it is not the one in force.
    pub(crate) fn redeem_token(&self, side: Side, offered: &str) -> bool {
        let mut tokens = lock(&self.tokens);
        let held = match side {
            Side::Client => &mut tokens.client,
            Side::Agent => &mut tokens.agent,
        };
        let right = held.as_deref() == Some(offered);
        if right {
            *held = None;
        }
        right
    }

    /// When the last stream message of either side passed, or the session began.
    pub(crate) fn last_data(&self) -> Instant {
        self.begun + Duration::from_micros(self.last_data.load(Ordering::Relaxed))
    }

    /// Takes a message from one side to the other, over whatever the link is like now.
    pub(crate) async fn relay(&self, from: Side, message: Bytes) {
        self.relay_all(from, &mut vec![message]).await;
    }

    /// The same for many messages in order; leaves `messages` empty.
    pub(crate) async fn relay_all(&self, from: Side, messages: &mut Vec<Bytes>) {
        if from == Side::Agent {
            messages.retain(|message| {
                let state = wire::is_kind(message, wire::AGENT_STATE);
                if state {
                    self.note_agent_state(message);
                }
                !state
            });
        }
        let lane = self.lane(from.other());
        if messages.iter().any(|m| wire::is_stream_data(m)) {
            let passed = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.last_data.store(passed, Ordering::Relaxed);
            if lane.gate.is_deserted() {
                self.remind(from);
            }
        }
        let bad = self.link.is_bad();
        match lane.line.get() {
            None if !bad => lane.gate.deliver_all(messages).await,
            Some(line) if !bad && line.is_empty() => lane.gate.deliver_all(messages).await,
            line => {
                let direction = match from {
                    Side::Client => Direction::ToAgent,
                    Side::Agent => Direction::ToClient,
                };
                let line = line.unwrap_or_else(|| self.start_line(lane));
                for message in messages.drain(..) {
                    let fate = self.link.judge(direction);
                    line.put(message, &fate).await;
                }
            }
        }
    }

    fn start_line<'a>(&self, lane: &'a Lane) -> &'a DelayLine {
        lane.line.get_or_init(|| {
            let gate = lane.gate.clone();
            let (line, work) = DelayLine::new(move |message| {
                let gate = gate.clone();
                async move { gate.deliver(message).await }
            });
            self.tasks.spawn(work);
            line
        })
    }

    /// The service keeps the agent's state to itself. That of a port session is "Connected" and never
    /// another one; "Terminating" lets an independent agent end a session without a control channel.
    fn note_agent_state(&self, raw: &Bytes) {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct State {
            session_state: String,
        }
        let Ok(message) = Message::decode(raw) else {
            return self.violation("agent_session_state is not a valid message");
        };
        match serde_json::from_slice::<State>(&message.payload) {
            Ok(state) if state.session_state == "Terminating" => self.end(""),
            Ok(_) => {}
            Err(error) => self.violation(&format!("agent_session_state: {error}")),
        }
    }

    /// Makes the caller the connection of `side`; an older one is told to go and waited for.
    pub(crate) async fn attach(
        self: &Arc<Self>,
        side: Side,
    ) -> (Attachment, mpsc::UnboundedReceiver<Order>) {
        let (orders, given) = mpsc::unbounded_channel();
        let lane = self.lane(side);
        let epoch = {
            let mut holder = lock(&lane.holder);
            if let Some(old) = holder.orders.replace(orders) {
                let _ = old.send(Order::Replaced);
            }
            holder.epoch += 1;
            holder.epoch
        };
        let queue = lane.queue.clone().lock_owned().await;
        lane.gate.attached.store(true, Ordering::Release);
        lane.gate.known.store(true, Ordering::Release);
        self.tell_presence(side, true);
        let attachment = Attachment {
            session: self.clone(),
            side,
            epoch,
            queue,
        };
        (attachment, given)
    }

    fn detach(&self, side: Side, epoch: u64) {
        let lane = self.lane(side);
        {
            let mut holder = lock(&lane.holder);
            if holder.epoch != epoch {
                return;
            }
            holder.orders = None;
            lane.gate.attached.store(false, Ordering::Release);
        }
        if !self.has_ended() {
            self.tell_presence(side, false);
        }
    }

    /// Tells the other side that `side` went away or came back.
    fn tell_presence(&self, side: Side, here: bool) {
        let lane = self.lane(side.other());
        let mut holder = lock(&lane.holder);
        if holder.paused != here {
            return;
        }
        holder.paused = !here;
        self.send_presence(side.other(), here);
    }

    /// While a side is away, its peer hears so again for every stream message it sends, as seen at
    /// the client of an agent that was killed.
    fn remind(&self, to: Side) {
        let holder = lock(&self.lane(to).holder);
        // Else the other side has come back in this moment, and the last word must be that.
        if holder.paused {
            self.send_presence(to, false);
        }
    }

    /// Says `start_publication` or `pause_publication`; called with the holder locked, so that the
    /// two keep their order. The message may be lost when the queue is full; then data is waiting
    /// there, and any data means "go on" as well.
    fn send_presence(&self, to: Side, here: bool) {
        let kind = if here { wire::START } else { wire::PAUSE };
        let message = Message::new(kind, 0, Bytes::new()).encode();
        let _ = self.lane(to).gate.queue.try_send(message);
    }

    /// Passes an order to the connection of `side`; false when there is none.
    pub(crate) fn order(&self, side: Side, order: Order) -> bool {
        let holder = lock(&self.lane(side).holder);
        holder
            .orders
            .as_ref()
            .is_some_and(|o| o.send(order).is_ok())
    }

    /// Ends the session for good; only the first reason counts.
    pub(crate) fn end(&self, reason: &str) {
        let first = self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            if first {
                *ended = Some(reason.to_owned());
            }
            first
        });
        if first {
            *lock(&self.tokens) = Tokens::default();
            self.events.push(Event::SessionEnded {
                session_id: self.info.id.clone(),
                reason: reason.to_owned(),
            });
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Resolves with the reason when the session is over.
    pub(crate) async fn ended(&self) -> String {
        let mut ended = self.ended.subscribe();
        let reason = ended.wait_for(Option::is_some).await;
        reason.ok().and_then(|r| r.clone()).unwrap_or_default()
    }

    /// The service's last message to either side.
    pub(crate) fn channel_closed(&self, reason: &str) -> Bytes {
        let content = serde_json::json!({
            "MessageId": Uuid::new_v4().to_string(),
            "CreatedDate": httpdate::fmt_http_date(std::time::SystemTime::now()),
            "DestinationId": self.info.id,
            "SessionId": self.info.id,
            "MessageType": wire::CHANNEL_CLOSED,
            "SchemaVersion": 1,
            "Output": reason,
        });
        Message::new(wire::CHANNEL_CLOSED, 0, Bytes::from(content.to_string())).encode()
    }

    pub(crate) fn violation(&self, what: &str) {
        self.events.push(Event::Violation {
            session_id: self.info.id.clone(),
            what: what.to_owned(),
        });
    }
}

/// The right to be one side's connection; giving it up tells the other side.
pub(crate) struct Attachment {
    pub(crate) session: Arc<Session>,
    side: Side,
    epoch: u64,
    /// Messages for this side.
    pub(crate) queue: OwnedMutexGuard<mpsc::Receiver<Bytes>>,
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.session.detach(self.side, self.epoch);
    }
}

/// As opaque and about as long as the service's own.
pub(crate) fn random_token() -> String {
    let parts: Vec<String> = (0..8)
        .map(|_| Uuid::new_v4().simple().to_string())
        .collect();
    format!("AAEAA{}", parts.concat())
}

/// A cell number as the service writes it: Base64 with its `+` and `/` as they are.
pub(crate) fn random_cell() -> String {
    let parts: Vec<String> = (0..4)
        .map(|_| Uuid::new_v4().simple().to_string())
        .collect();
    format!("AAEAA{}+/{}+=", parts[..2].concat(), parts[2..].concat())
}
