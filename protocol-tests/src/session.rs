//! One Session Manager session as the message gateway sees it: two sides and what lies between them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use tokio::sync::{OwnedMutexGuard, mpsc, watch};
use uuid::Uuid;

use crate::events::{Event, EventLog};
use crate::link::{DelayLine, Direction, Link};
use crate::sync::{Tasks, lock};
use crate::wire::{self, Message};

/// Messages waiting for one side. Beyond it the sender waits while the side is there, and messages
/// are lost while it is away.
const QUEUE: usize = 256;

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
    link: Link,
    events: EventLog,
    tasks: Tasks,
}

#[derive(Default)]
struct Tokens {
    client: Option<String>,
    agent: Option<String>,
}

/// Everything on its way to one side.
struct Lane {
    gate: Arc<Gate>,
    queue: Arc<tokio::sync::Mutex<mpsc::Receiver<Bytes>>>,
    line: OnceLock<DelayLine>,
    holder: Mutex<Holder>,
}

#[derive(Default)]
struct Holder {
    orders: Option<mpsc::UnboundedSender<Order>>,
    epoch: u64,
    /// This side was told that the other one is away.
    paused: bool,
}

struct Gate {
    queue: mpsc::Sender<Bytes>,
    attached: AtomicBool,
}

/// What may be done to an attached connection from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// Drop the transport without a word.
    Cut,
    /// Close frame with code and reason.
    Close(u16, String),
    /// A newer connection of the same side takes over.
    Replaced,
}

impl Lane {
    fn new() -> Self {
        let (queue, output) = mpsc::channel(QUEUE);
        Self {
            gate: Arc::new(Gate {
                queue,
                attached: AtomicBool::new(false),
            }),
            queue: Arc::new(tokio::sync::Mutex::new(output)),
            line: OnceLock::new(),
            holder: Mutex::new(Holder::default()),
        }
    }
}

impl Gate {
    async fn deliver(&self, message: Bytes) {
        if self.attached.load(Ordering::Acquire) {
            // Fails only when the session is gone, and then nobody wants the message.
            let _ = self.queue.send(message).await;
        } else {
            let _ = self.queue.try_send(message);
        }
    }
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

    /// Takes a message from one side to the other, over whatever the link is like now.
    pub(crate) async fn relay(&self, from: Side, message: Bytes) {
        if from == Side::Agent && wire::is_kind(&message, wire::AGENT_STATE) {
            return self.note_agent_state(&message);
        }
        let lane = self.lane(from.other());
        let bad = self.link.is_bad();
        match lane.line.get() {
            None if !bad => lane.gate.deliver(message).await,
            Some(line) if !bad && line.is_empty() => lane.gate.deliver(message).await,
            line => {
                let direction = match from {
                    Side::Client => Direction::ToAgent,
                    Side::Agent => Direction::ToClient,
                };
                let fate = self.link.judge(direction);
                let line = line.unwrap_or_else(|| self.start_line(lane));
                line.put(message, &fate).await;
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

    /// The service keeps the agent's state to itself; "Terminating" is the end of the session.
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

    /// Tells the other side that `side` went away or came back. The message may be lost when that
    /// queue is full; then data is waiting there, and any data means "go on" as well.
    fn tell_presence(&self, side: Side, here: bool) {
        let lane = self.lane(side.other());
        let mut holder = lock(&lane.holder);
        if holder.paused != here {
            return;
        }
        holder.paused = !here;
        let kind = if here { wire::START } else { wire::PAUSE };
        let message = Message::new(kind, 0, Bytes::new()).encode();
        let _ = lane.gate.queue.try_send(message);
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
