//! One port session of the built-in agent: receiving half, handshake, end.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use super::mux::{self, Destination};
use super::outgoing::Outgoing;
use super::{AgentControl, handshake, version_at_least};
use crate::cloud::Cloud;
use crate::events::Event;
use crate::session::{Attachment, Session, Side};
use crate::vpc;
use crate::wire::{self, Message, flag, payload};

/// Messages that wait for an earlier one.
const REORDER_LIMIT: usize = 100_000;

/// Serves `session` until it ends.
pub(crate) async fn serve(cloud: Arc<Cloud>, session: Arc<Session>, control: AgentControl) {
    // Nobody gives orders to the built-in agent's side.
    let (attachment, _) = session.attach(Side::Agent).await;
    let outgoing = Outgoing::new(session.clone(), control.clone(), cloud.events.clone());
    let agent = Agent {
        outgoing: Arc::new(outgoing),
        session: session.clone(),
        control,
        cloud,
        tasks: JoinSet::new(),
        phase: Phase::Handshake,
        expected: 0,
        early: BTreeMap::new(),
        begun: Instant::now(),
    };
    tokio::select! {
        biased;
        _ = session.ended() => {}
        () = agent.run(attachment) => {}
    }
}

struct Agent {
    cloud: Arc<Cloud>,
    session: Arc<Session>,
    control: AgentControl,
    outgoing: Arc<Outgoing>,
    /// Everything that runs beside the receiving half; ends with it.
    tasks: JoinSet<()>,
    phase: Phase,
    /// Sequence number of the next input message.
    expected: i64,
    early: BTreeMap<i64, Message>,
    begun: Instant,
}

enum Phase {
    Handshake,
    Forwarding {
        /// Bytes for the multiplexer.
        bytes: mpsc::Sender<Bytes>,
        /// Stream messages still to be dropped.
        deaf_messages: u32,
        deaf_until: Instant,
    },
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

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AckContent<'a> {
    acknowledged_message_type: &'a str,
    acknowledged_message_id: &'a str,
    acknowledged_message_sequence_number: i64,
}

impl Agent {
    async fn run(mut self, mut attachment: Attachment) {
        self.send_state("Connected").await;
        let settings = self.control.settings();
        if !settings.mute {
            let request = handshake::request(&settings, &self.session.info.parameters);
            self.outgoing
                .send(payload::HANDSHAKE_REQUEST, request)
                .await;
        }
        self.tasks.spawn(self.outgoing.clone().retransmit());
        let deadline = self.begun + settings.handshake_limit;
        let reason = loop {
            let message = if matches!(self.phase, Phase::Handshake) {
                match tokio::time::timeout_at(deadline, attachment.queue.recv()).await {
                    Ok(message) => message,
                    Err(_) => break handshake::timed_out(),
                }
            } else {
                attachment.queue.recv().await
            };
            let Some(raw) = message else { return };
            if let Err(reason) = self.receive(&raw).await {
                break reason;
            }
        };
        // The reason travels outside of the data channel in reality; here it goes first.
        self.session.end(&reason);
        self.send_state("Terminating").await;
    }

    async fn send_state(&self, state: &str) {
        let content = json!({
            "SchemaVersion": 1,
            "SessionState": state,
            "SessionId": self.session.info.id,
        });
        let mut message = Message::new(wire::AGENT_STATE, 0, Bytes::from(content.to_string()));
        message.flags = wire::SYN_FIN;
        self.outgoing.send_unsequenced(&message).await;
    }

    /// `Err` ends the session with that text.
    async fn receive(&mut self, raw: &Bytes) -> Result<(), String> {
        let message = match Message::decode(raw) {
            Ok(message) => message,
            Err(error) => {
                self.session.violation(&format!("not a message: {error}"));
                return Ok(());
            }
        };
        match message.kind.as_str() {
            wire::ACKNOWLEDGE => self.take_ack(&message),
            wire::INPUT => return self.take_input(message).await,
            wire::PAUSE => self.outgoing.set_paused(true),
            wire::START => self.outgoing.set_paused(false),
            other => self.session.violation(&format!("message type {other:?}")),
        }
        Ok(())
    }

    fn take_ack(&self, message: &Message) {
        let taken = match serde_json::from_slice::<AckContent<'_>>(&message.payload) {
            Ok(ack) if ack.acknowledged_message_type == wire::OUTPUT => {
                let sequence = ack.acknowledged_message_sequence_number;
                match Uuid::parse_str(ack.acknowledged_message_id) {
                    Ok(id) => self.outgoing.acknowledged(sequence, id),
                    Err(_) => Err("acknowledged id is not a UUID"),
                }
            }
            Ok(_) => Err("acknowledges something else than output_stream_data"),
            Err(_) => Err("acknowledgement is not readable"),
        };
        if let Err(what) = taken {
            self.session.violation(what);
        }
    }

    async fn take_input(&mut self, message: Message) -> Result<(), String> {
        self.outgoing.set_paused(false);
        if message.sequence < self.expected {
            self.outgoing
                .send_unsequenced(&Message::ack(&message))
                .await;
            return Ok(());
        }
        if self.is_deaf(&message) {
            self.cloud.events.push(Event::InputDropped {
                session_id: self.session.info.id.clone(),
                sequence: message.sequence,
            });
            return Ok(());
        }
        if message.sequence > self.expected {
            if self.early.len() < REORDER_LIMIT {
                self.outgoing
                    .send_unsequenced(&Message::ack(&message))
                    .await;
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

    /// Whether stream bytes come before anybody could take them.
    fn is_deaf(&mut self, message: &Message) -> bool {
        if message.payload_type != payload::OUTPUT {
            return false;
        }
        match &mut self.phase {
            Phase::Handshake => true,
            Phase::Forwarding {
                deaf_messages,
                deaf_until,
                ..
            } => {
                let counted = *deaf_messages > 0;
                *deaf_messages -= u32::from(counted);
                counted || Instant::now() < *deaf_until
            }
        }
    }

    async fn in_order(&mut self, message: &Message, ack: bool) -> Result<(), String> {
        let outcome = self.process(message).await;
        if matches!(outcome, Outcome::Dropped) {
            return Ok(());
        }
        self.expected += 1;
        if ack && !matches!(outcome, Outcome::Answered) {
            self.outgoing.send_unsequenced(&Message::ack(message)).await;
        }
        match outcome {
            Outcome::Processed | Outcome::Answered | Outcome::Dropped => Ok(()),
            Outcome::Goodbye => Err(String::new()),
            Outcome::Failed(reason) => Err(reason),
        }
    }

    async fn process(&mut self, message: &Message) -> Outcome {
        match (&self.phase, message.payload_type) {
            (Phase::Handshake, payload::HANDSHAKE_RESPONSE) => self.take_handshake(message).await,
            (Phase::Handshake, other) => {
                let what = format!("payload type {other} before the handshake response");
                self.session.violation(&what);
                Outcome::Dropped
            }
            (Phase::Forwarding { bytes, .. }, payload::OUTPUT) => {
                // Waits while the multiplexer is full, and everything of the session with it.
                match bytes.send(message.payload.clone()).await {
                    Ok(()) => Outcome::Processed,
                    Err(_) => Outcome::Failed(String::new()),
                }
            }
            (Phase::Forwarding { .. }, payload::FLAG) => self.take_flag(&message.payload),
            (Phase::Forwarding { .. }, other) => {
                self.session.violation(&format!("payload type {other}"));
                Outcome::Processed
            }
        }
    }

    fn take_flag(&self, value: &[u8]) -> Outcome {
        match value.try_into().map(u32::from_be_bytes) {
            Ok(flag::TERMINATE_SESSION) => Outcome::Goodbye,
            _ => {
                self.session.violation(&format!("flag {value:02x?}"));
                Outcome::Processed
            }
        }
    }

    /// Acknowledges by itself, because HandshakeComplete must come after it.
    async fn take_handshake(&mut self, message: &Message) -> Outcome {
        let settings = self.control.settings();
        let client_version = match handshake::judge(&settings, &message.payload) {
            Ok(version) => version,
            Err(reason) => return Outcome::Failed(reason),
        };
        if !version_at_least(&client_version, [1, 1, 70, 0]) {
            // The real agent falls back to one plain stream here, which no client of today needs.
            return Outcome::Failed(format!("client {client_version} has no multiplexer"));
        }
        self.outgoing.send_unsequenced(&Message::ack(message)).await;
        let complete = handshake::complete(self.begun.elapsed());
        self.outgoing
            .send(payload::HANDSHAKE_COMPLETE, complete)
            .await;
        self.cloud.events.push(Event::HandshakeComplete {
            session_id: self.session.info.id.clone(),
            client_version: client_version.clone(),
        });
        let destination = match self.destination(&settings.version) {
            Ok(destination) => destination,
            Err(reason) => return Outcome::Failed(reason),
        };
        let mux = mux::Mux {
            cloud: self.cloud.clone(),
            session: self.session.clone(),
            control: self.control.clone(),
            outgoing: self.outgoing.clone(),
            destination,
            keepalive: !version_at_least(&client_version, [1, 2, 331, 1]),
        };
        self.phase = Phase::Forwarding {
            bytes: mux.start(&mut self.tasks),
            deaf_messages: settings.not_ready_messages,
            deaf_until: Instant::now() + settings.not_ready_for,
        };
        Outcome::Answered
    }

    /// Looks the host up, once for the whole session.
    fn destination(&self, agent_version: &str) -> Result<Destination, String> {
        let parameters = &self.session.info.parameters;
        // Older agents do not know the host parameter and dial their own machine.
        let host = if version_at_least(agent_version, [3, 1, 1374, 0]) {
            parameters.host.clone()
        } else {
            "localhost".to_owned()
        };
        let address: Option<IpAddr> = self.cloud.vpc.resolve(&host);
        if let Some(address) = address.filter(|a| vpc::is_forbidden(*a)) {
            return Err(format!("Forwarding to IP address {address} is forbidden."));
        }
        Ok(Destination {
            host,
            port: parameters.port,
            address,
        })
    }
}
