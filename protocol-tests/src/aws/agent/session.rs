//! One port session of the built-in agent: receiving half, handshake, end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinSet;

use super::cipher::SessionCipher;
use super::mux::Lost;
use super::outgoing::Outgoing;
use super::{AgentControl, AgentEnd, AgentSettings, basic, encryption, handshake};
use crate::aws::cloud::Cloud;
use crate::aws::events::Event;
use crate::aws::session::{Attachment, Session, Side};
use crate::aws::wire;
use crate::aws::wire::{Message, flag, payload};

mod opening;

/// Messages that wait for an earlier one.
const REORDER_LIMIT: usize = 100_000;
/// Messages taken off the gateway at once.
const BATCH: usize = 64;

/// Serves `session` until it ends, or until the node is taken away from it.
pub(crate) async fn serve(cloud: Arc<Cloud>, session: Arc<Session>, control: AgentControl) {
    let stopped = control.stopped();
    // Nobody gives orders to the built-in agent's side.
    let (mut attachment, _) = session.attach(Side::Agent).await;
    let outgoing = Outgoing::new(session.clone(), control.clone(), cloud.events.clone());
    let outgoing = Arc::new(outgoing);
    let agent = Agent {
        outgoing: outgoing.clone(),
        session: session.clone(),
        settings: control.of_next_session(),
        lost: Lost::default(),
        control: control.clone(),
        cloud: cloud.clone(),
        tasks: JoinSet::new(),
        phase: Phase::Handshake,
        challenge: None,
        expected: 0,
        early: BTreeMap::new(),
        replies: Vec::new(),
        begun: Instant::now(),
        deadline: None,
    };
    let end = {
        let mut running = std::pin::pin!(agent.run(&mut attachment));
        tokio::select! {
            biased;
            _ = session.ended() => return,
            end = stopped => end,
            () = &mut running => return,
        }
    };
    outgoing.die();
    cloud.events.push(Event::AgentLost {
        session_id: session.info.id.clone(),
        graceful: end == AgentEnd::Graceful,
    });
    match end {
        AgentEnd::Graceful => session.end(""),
        AgentEnd::Crash => {}
        AgentEnd::Silent => stay_connected(&session, attachment).await,
    }
}

/// A connection behind which nothing lives any more: what comes is taken, and nobody notices.
async fn stay_connected(session: &Session, mut attachment: Attachment) {
    let swallow = async { while attachment.queue.recv().await.is_some() {} };
    tokio::select! {
        _ = session.ended() => {}
        () = swallow => {}
    }
}

struct Agent {
    cloud: Arc<Cloud>,
    session: Arc<Session>,
    control: AgentControl,
    /// As they were when the session began.
    settings: AgentSettings,
    /// Streams whose beginning was thrown away.
    lost: Lost,
    outgoing: Arc<Outgoing>,
    /// Everything that runs beside the receiving half; ends with it.
    tasks: JoinSet<()>,
    phase: Phase,
    /// Random text that the client's data key is to be bound to.
    challenge: Option<String>,
    /// Sequence number of the next input message.
    expected: i64,
    early: BTreeMap<i64, Message>,
    /// Acknowledgements that leave with the current batch.
    replies: Vec<Bytes>,
    begun: Instant,
    /// When the current step of the handshake must be done.
    deadline: Option<Instant>,
}

enum Phase {
    Handshake,
    /// The client has a key and must prove it.
    Challenge {
        cipher: Arc<SessionCipher>,
        secret: Vec<u8>,
        client_version: String,
    },
    Forwarding {
        input: Input,
        cipher: Option<Arc<SessionCipher>>,
        unready: Unready,
    },
}

/// What becomes of stream messages before the agent is ready for them.
struct Unready {
    /// Stream messages still to be acknowledged and thrown away.
    discards: u32,
    discard_until: Instant,
    /// Those still to be dropped, after that.
    drops: u32,
    drop_until: Instant,
}

impl Unready {
    fn new(settings: &AgentSettings) -> Self {
        let now = Instant::now();
        Self {
            discards: settings.discard_messages,
            discard_until: now + settings.discard_for,
            drops: settings.not_ready_messages,
            drop_until: now + settings.discard_for + settings.not_ready_for,
        }
    }

    fn discards(&mut self) -> bool {
        let counted = self.discards > 0;
        self.discards -= u32::from(counted);
        counted || Instant::now() < self.discard_until
    }

    fn drops(&mut self) -> bool {
        let counted = self.drops > 0;
        self.drops -= u32::from(counted);
        counted || Instant::now() < self.drop_until
    }
}

/// Where stream bytes go.
enum Input {
    Mux(mpsc::Sender<Bytes>),
    Basic(mpsc::Sender<basic::Input>),
}

impl Input {
    /// Hands bytes over if there is room, and back if there is not.
    fn offer(&self, bytes: Bytes) -> Result<(), TrySendError<Bytes>> {
        match self {
            Self::Mux(to) => to.try_send(bytes),
            Self::Basic(to) => to.try_send(basic::Input::Bytes(bytes)).map_err(|error| {
                match error {
                    TrySendError::Full(basic::Input::Bytes(bytes)) => TrySendError::Full(bytes),
                    // Only bytes were given.
                    _ => TrySendError::Closed(Bytes::new()),
                }
            }),
        }
    }

    /// Hands bytes over when there is room; false when nobody takes them any more.
    async fn give(&self, bytes: Bytes) -> bool {
        match self {
            Self::Mux(to) => to.send(bytes).await.is_ok(),
            Self::Basic(to) => to.send(basic::Input::Bytes(bytes)).await.is_ok(),
        }
    }
}

/// What became of an input message.
enum Outcome {
    Processed,
    /// Processed, and acknowledged on the way.
    Answered,
    /// As if it had never come: not acknowledged either.
    Dropped,
    /// The client said goodbye.
    Goodbye,
    /// The session cannot go on; the text is for `channel_closed`.
    Failed(String),
}

impl Agent {
    async fn run(mut self, attachment: &mut Attachment) {
        self.send_state("Connected").await;
        let settings = self.settings.clone();
        if !settings.mute {
            let wanted = settings.kms_key.is_some() && settings.kms_challenge;
            self.challenge = wanted.then(encryption::random_challenge).flatten();
            let to = &self.session.info.parameters;
            let request = handshake::request(&settings, to, self.challenge.as_deref());
            self.outgoing
                .send(payload::HANDSHAKE_REQUEST, request)
                .await;
        }
        self.tasks.spawn(self.outgoing.clone().retransmit());
        self.deadline = Some(self.begun + settings.handshake_limit);
        let mut batch = Vec::with_capacity(BATCH);
        let reason = loop {
            let arrived = attachment.queue.recv_many(&mut batch, BATCH);
            let arrived = match self.deadline {
                None => arrived.await,
                Some(at) => match tokio::time::timeout_at(at.into(), arrived).await {
                    Ok(arrived) => arrived,
                    Err(_) => break self.too_late(),
                },
            };
            if arrived == 0 {
                return;
            }
            let received = self.receive_all(&mut batch).await;
            self.reply().await;
            if let Err(reason) = received {
                break reason;
            }
        };
        // The reason travels outside of the data channel.
        self.session.end(&reason);
    }

    fn too_late(&self) -> String {
        match self.phase {
            Phase::Challenge { .. } => handshake::challenge_timed_out(),
            Phase::Handshake | Phase::Forwarding { .. } => handshake::timed_out(),
        }
    }

    async fn send_state(&self, state: &str) {
        let content = json!({
            "SchemaVersion": 1,
            "SessionState": state,
            "SessionId": self.session.info.id,
        });
        let mut message = Message::new(wire::AGENT_STATE, 0, Bytes::from(content.to_string()));
        message.flags = wire::SYN_FIN;
        self.outgoing
            .send_unsequenced(&mut vec![message.encode()])
            .await;
    }

    /// Sends the acknowledgements that have piled up.
    async fn reply(&mut self) {
        if !self.replies.is_empty() {
            self.outgoing.send_unsequenced(&mut self.replies).await;
        }
    }

    /// `Err` ends the session with that text.
    async fn receive_all(&mut self, batch: &mut Vec<Bytes>) -> Result<(), String> {
        let now = Instant::now();
        for raw in batch.drain(..) {
            // Taken apart no further than needed: there is one for every message sent.
            if wire::is_kind(&raw, wire::ACKNOWLEDGE) {
                self.take_ack(&raw, now);
                continue;
            }
            let message = match Message::decode(&raw) {
                Ok(message) => message,
                Err(error) => {
                    self.session.violation(&format!("not a message: {error}"));
                    continue;
                }
            };
            match message.kind.as_str() {
                wire::INPUT => self.take_input(message).await?,
                wire::PAUSE => self.outgoing.set_paused(true),
                wire::START => self.outgoing.set_paused(false),
                other => self.session.violation(&format!("message type {other:?}")),
            }
        }
        Ok(())
    }

    fn take_ack(&self, raw: &[u8], now: Instant) {
        let payload = match wire::check(raw) {
            Ok((_, payload)) => payload,
            Err(error) => return self.session.violation(&format!("not a message: {error}")),
        };
        let taken = wire::read_ack(payload)
            .and_then(|(sequence, id)| self.outgoing.acknowledged(sequence, id, now));
        if let Err(what) = taken {
            self.session.violation(what);
        }
    }

    fn acknowledge(&mut self, message: &Message) {
        self.replies.push(Message::ack(message).encode());
    }

    async fn take_input(&mut self, message: Message) -> Result<(), String> {
        self.outgoing.set_paused(false);
        if message.sequence < self.expected {
            self.acknowledge(&message);
            return Ok(());
        }
        if message.sequence > self.expected {
            if self.early.len() < REORDER_LIMIT {
                self.acknowledge(&message);
                self.early.insert(message.sequence, message);
            }
            return Ok(());
        }
        self.in_order(&message, true).await?;
        while let Some(message) = self.early.remove(&self.expected) {
            self.in_order(&message, false).await?;
        }
        Ok(())
    }

    /// What becomes of stream bytes that come before the port handler could take them; `None`: they
    /// are taken. What is ahead of its turn is kept without looking, as the real agent does.
    fn come_too_early(&mut self, bytes: &[u8], sequence: i64) -> Option<Outcome> {
        let Phase::Forwarding { unready, .. } = &mut self.phase else {
            return None;
        };
        let session_id = self.session.info.id.clone();
        if unready.discards() {
            self.lost.note(bytes);
            let event = Event::InputDiscarded {
                session_id,
                sequence,
            };
            self.cloud.events.push(event);
            return Some(Outcome::Processed);
        }
        if unready.drops() {
            let event = Event::InputDropped {
                session_id,
                sequence,
            };
            self.cloud.events.push(event);
            return Some(Outcome::Dropped);
        }
        None
    }

    async fn in_order(&mut self, message: &Message, ack: bool) -> Result<(), String> {
        let outcome = match message.payload_type {
            payload::OUTPUT => self.take_bytes(message).await,
            payload::FLAG => self.take_flag(&message.payload).await,
            payload::HANDSHAKE_RESPONSE if matches!(self.phase, Phase::Handshake) => {
                self.take_handshake(message).await
            }
            payload::CHALLENGE_RESPONSE => self.take_challenge(message).await,
            other => {
                self.session.violation(&format!("payload type {other}"));
                Outcome::Processed
            }
        };
        if matches!(outcome, Outcome::Dropped) {
            return Ok(());
        }
        self.expected += 1;
        if ack && !matches!(outcome, Outcome::Answered) {
            self.acknowledge(message);
        }
        match outcome {
            Outcome::Processed | Outcome::Answered | Outcome::Dropped => Ok(()),
            Outcome::Goodbye => Err(String::new()),
            Outcome::Failed(reason) => Err(reason),
        }
    }

    async fn take_bytes(&mut self, message: &Message) -> Outcome {
        let Phase::Forwarding { cipher, .. } = &self.phase else {
            // The real agent acknowledges such a message and throws it away.
            let what = "stream bytes before the handshake was complete are lost";
            self.session.violation(what);
            return Outcome::Processed;
        };
        let bytes = match cipher.as_ref().map(|cipher| cipher.open(&message.payload)) {
            None => message.payload.clone(),
            Some(Ok(plain)) => Bytes::from(plain),
            Some(Err(_)) => {
                let what = "stream bytes that cannot be decrypted";
                self.session.violation(what);
                return Outcome::Dropped;
            }
        };
        if let Some(outcome) = self.come_too_early(&bytes, message.sequence) {
            return outcome;
        }
        let Phase::Forwarding { input, .. } = &self.phase else {
            return Outcome::Processed;
        };
        let bytes = match input.offer(bytes) {
            Ok(()) => return Outcome::Processed,
            Err(TrySendError::Full(bytes)) => bytes,
            Err(TrySendError::Closed(_)) => return Outcome::Failed(String::new()),
        };
        // Waits while the other end is full, and everything of the session with it; what has been
        // taken so far is acknowledged before.
        self.reply().await;
        match &self.phase {
            Phase::Forwarding { input, .. } if input.give(bytes).await => Outcome::Processed,
            _ => Outcome::Failed(String::new()),
        }
    }

    async fn take_flag(&self, value: &[u8]) -> Outcome {
        let value = value.try_into().map(u32::from_be_bytes);
        match (value, &self.phase) {
            (Ok(flag::TERMINATE_SESSION), Phase::Forwarding { .. }) => return Outcome::Goodbye,
            (
                Ok(flag::DISCONNECT_TO_PORT),
                Phase::Forwarding {
                    input: Input::Basic(to),
                    ..
                },
            ) => drop(to.send(basic::Input::Disconnect).await),
            (value, _) => self.session.violation(&format!("flag {value:02x?}")),
        }
        Outcome::Processed
    }
}
