//! The session's opening: handshake, key, and what forwards the bytes afterwards.

use std::sync::Arc;
use std::time::Instant;

use super::{Agent, Input, Outcome, Phase, Unready};
use crate::aws::agent::basic::Basic;
use crate::aws::agent::cipher::SessionCipher;
use crate::aws::agent::encryption;
use crate::aws::agent::encryption::KeyRequest;
use crate::aws::agent::handshake;
use crate::aws::agent::handshake::Agreed;
use crate::aws::agent::mux;
use crate::aws::agent::mux::Destination;
use crate::aws::agent::version_at_least;
use crate::aws::events::Event;
use crate::aws::wire::{Message, payload};
use crate::network::vpc;

impl Agent {
    pub(super) async fn take_handshake(&mut self, message: &Message) -> Outcome {
        let settings = self.settings.clone();
        let Agreed {
            client_version,
            key,
        } = match handshake::judge(&settings, &message.payload) {
            Ok(agreed) => agreed,
            Err(reason) => return Outcome::Failed(reason),
        };
        let Some(answer) = key else {
            return self.complete(client_version, None, message).await;
        };
        let request = KeyRequest {
            cloud: &self.cloud,
            session: &self.session.info,
            challenge: self.challenge.as_deref(),
            required: settings.kms_challenge_required,
        };
        let cipher = match request.open(&answer) {
            Ok(cipher) => cipher,
            Err(reason) => return Outcome::Failed(handshake::failed(&reason)),
        };
        let Some((challenge, secret)) = encryption::challenge(&cipher) else {
            return Outcome::Failed(handshake::failed("no randomness"));
        };
        self.answer_first(message).await;
        self.outgoing
            .send(payload::CHALLENGE_REQUEST, challenge)
            .await;
        self.deadline = Some(Instant::now() + settings.handshake_limit);
        self.phase = Phase::Challenge {
            cipher,
            secret,
            client_version,
        };
        Outcome::Answered
    }

    pub(super) async fn take_challenge(&mut self, message: &Message) -> Outcome {
        let Phase::Challenge {
            cipher,
            secret,
            client_version,
        } = &self.phase
        else {
            self.session.violation("challenge response out of turn");
            return Outcome::Processed;
        };
        if !encryption::is_answered(cipher, &message.payload, secret) {
            // The real agent neither acknowledges it nor says anything: the client sends it again
            // until the time is over.
            self.session
                .violation("encryption challenge does not match");
            return Outcome::Dropped;
        }
        let (cipher, client_version) = (cipher.clone(), client_version.clone());
        self.complete(client_version, Some(cipher), message).await
    }

    /// Acknowledges `message` before what the agent sends because of it.
    async fn answer_first(&mut self, message: &Message) {
        self.acknowledge(message);
        self.reply().await;
    }

    /// Says HandshakeComplete and starts forwarding.
    async fn complete(
        &mut self,
        client_version: String,
        cipher: Option<Arc<SessionCipher>>,
        message: &Message,
    ) -> Outcome {
        let settings = self.settings.clone();
        self.answer_first(message).await;
        if settings.withhold_complete {
            self.deadline = None;
            return Outcome::Answered;
        }
        let complete = handshake::complete(self.begun.elapsed(), cipher.is_some());
        self.outgoing
            .send(payload::HANDSHAKE_COMPLETE, complete)
            .await;
        self.deadline = None;
        self.cloud.events.push(Event::HandshakeComplete {
            session_id: self.session.info.id.clone(),
            client_version: client_version.clone(),
        });
        let destination = match self.destination(&settings.version) {
            Ok(destination) => destination,
            Err(reason) => return Outcome::Failed(reason),
        };
        if let Some(cipher) = &cipher {
            self.outgoing.encrypt_with(cipher.clone());
        }
        self.phase = Phase::Forwarding {
            input: self.start(destination, &settings.version, &client_version),
            cipher,
            unready: Unready::new(&settings),
        };
        Outcome::Answered
    }

    /// The multiplexer when both sides have one, else one plain connection.
    fn start(&mut self, destination: Destination, agent: &str, client: &str) -> Input {
        let (cloud, session) = (self.cloud.clone(), self.session.clone());
        let (control, outgoing) = (self.control.clone(), self.outgoing.clone());
        if version_at_least(agent, [3, 0, 196, 0]) && version_at_least(client, [1, 1, 70, 0]) {
            let mux = mux::Mux {
                cloud,
                session,
                control,
                outgoing,
                destination,
                lost: self.lost.clone(),
                keepalive: !version_at_least(client, [1, 2, 331, 1]),
            };
            return Input::Mux(mux.start(&mut self.tasks));
        }
        let basic = Basic {
            cloud,
            session,
            control,
            outgoing,
            destination,
        };
        Input::Basic(basic.start(&mut self.tasks))
    }

    /// Looks the host up, once for the whole session. The real agent ends the session with the words
    /// of its resolver when that fails.
    fn destination(&self, agent_version: &str) -> Result<Destination, String> {
        let parameters = &self.session.info.parameters;
        // Older agents do not know the host parameter and dial their own machine.
        let host = if version_at_least(agent_version, [3, 1, 1374, 0]) {
            parameters.host.clone()
        } else {
            "localhost".to_owned()
        };
        let addresses = self.cloud.vpc.lookup(&host)?;
        if let Some(address) = addresses.iter().find(|a| vpc::is_forbidden(**a)) {
            return Err(format!("Forwarding to IP address {address} is forbidden."));
        }
        Ok(Destination {
            host,
            port: parameters.port,
            addresses,
        })
    }
}
