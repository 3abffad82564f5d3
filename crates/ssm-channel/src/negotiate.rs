//! The answer to the agent's handshake.

use serde_json::Value;

use crate::error::Error;
use crate::handshake::{
    ActionParameters, ActionStatus, HandshakeRequest, HandshakeResponse, KmsEncryption,
    KmsEncryptionResult, ProcessedAction, RequestedAction, SessionType,
};
use crate::version::AgentVersion;

/// Agreement of client and agent.
#[derive(Debug)]
pub(crate) struct Agreement {
    pub(crate) agent_version: AgentVersion,
    pub(crate) session_type: SessionType,
}

/// Outcome of a handshake request.
#[derive(Debug)]
pub(crate) enum HandshakeOutcome {
    /// The answer for the agent, and the agreement or the error that ends the channel.
    Ready(HandshakeResponse, Result<Agreement, Error>),
    /// The answer needs a data key first.
    NeedsKey(Box<PendingResponse>),
}

/// An answer without the outcome of its KMS action.
#[derive(Debug)]
pub(crate) struct PendingResponse {
    agreed: Agreement,
    pub(crate) wanted: KmsEncryption,
    response: HandshakeResponse,
    /// Index of the KMS action in the response.
    place: usize,
}

impl PendingResponse {
    /// Returns the answer with the encrypted data key.
    pub(crate) fn accept(mut self, ciphertext: Vec<u8>) -> (HandshakeResponse, Agreement) {
        let result = KmsEncryptionResult {
            cipher_text_key: ciphertext,
            challenge_acknowledgement: self.wanted.challenge.is_some(),
        };
        if let Some(action) = self.response.processed_client_actions.get_mut(self.place) {
            action.action_status = ActionStatus::Success;
            // Bytes and a boolean always serialise.
            action.action_result = serde_json::to_value(result).unwrap_or_default();
        }
        (self.response, self.agreed)
    }

    /// Returns the answer that there is no key, in the plugin's words, and the error to end with.
    pub(crate) fn refuse(mut self, reason: String) -> (HandshakeResponse, Error) {
        if let Some(action) = self.response.processed_client_actions.get_mut(self.place) {
            action.action_status = ActionStatus::Failed;
            action.error = format!("Failed to process action {}: {reason}", action.action_type);
        }
        self.response.errors = Some(vec![reason.clone()]);
        let key_id = self.wanted.key_id;
        (self.response, Error::KeyRefused { key_id, reason })
    }
}

/// Result of one action.
enum ActionOutcome {
    Session(SessionType),
    Kms(KmsEncryption),
    /// Name of an unsupported action.
    Unsupported(String),
}

/// Answers every requested action. A port session and one encryption are accepted; any other action
/// is answered as unsupported, which makes the agent end the session with a reason in its log.
pub(crate) fn answer(request: HandshakeRequest, client_version: &str) -> HandshakeOutcome {
    let (mut session_type, mut kms, mut refused) = (None, None, None);
    let mut processed = Vec::new();
    for action in request.requested_client_actions {
        let name = action.action_type.clone();
        let mut error = String::new();
        let unsupported = match judge(action) {
            ActionOutcome::Session(session) => {
                session_type = Some(session);
                None
            }
            ActionOutcome::Kms(wanted) if kms.is_none() => {
                kms = Some((processed.len(), wanted));
                None
            }
            ActionOutcome::Kms(_) => Some(format!("a second {name}")),
            ActionOutcome::Unsupported(what) => Some(what),
        };
        if let Some(what) = unsupported {
            error = format!("{what} is not supported by this client");
            refused = refused.or(Some(what));
        }
        let action_status = if error.is_empty() {
            ActionStatus::Success
        } else {
            ActionStatus::Unsupported
        };
        processed.push(ProcessedAction {
            action_type: name,
            action_status,
            action_result: Value::Null,
            error,
        });
    }
    let agreed = agree(&request.agent_version, session_type, refused);
    conclude(client_version, processed, kms, agreed)
}

fn agree(
    agent_version: &str,
    session_type: Option<SessionType>,
    refused: Option<String>,
) -> Result<Agreement, Error> {
    if let Some(action) = refused {
        return Err(Error::UnsupportedAction { action });
    }
    let session_type =
        session_type.ok_or_else(|| failed("the agent sent no session type".to_owned()))?;
    let agent_version = agent_version
        .parse()
        .map_err(|_| failed(format!("invalid agent version {agent_version:?}")))?;
    Ok(Agreement {
        agent_version,
        session_type,
    })
}

fn conclude(
    client_version: &str,
    mut processed: Vec<ProcessedAction>,
    kms: Option<(usize, KmsEncryption)>,
    agreed: Result<Agreement, Error>,
) -> HandshakeOutcome {
    // When the channel ends anyway, no key is requested.
    if let (Some((place, _)), Err(error)) = (&kms, &agreed)
        && let Some(action) = processed.get_mut(*place)
    {
        action.action_status = ActionStatus::Failed;
        action.error = format!("not tried: {error}");
    }
    let errors: Vec<_> = processed
        .iter()
        .map(|a| a.error.clone())
        .filter(|error| !error.is_empty())
        .collect();
    let response = HandshakeResponse {
        client_version: client_version.to_owned(),
        processed_client_actions: processed,
        errors: (!errors.is_empty()).then_some(errors),
    };
    match (kms, agreed) {
        (Some((place, wanted)), Ok(agreed)) => {
            HandshakeOutcome::NeedsKey(Box::new(PendingResponse {
                agreed,
                wanted,
                response,
                place,
            }))
        }
        (_, agreed) => HandshakeOutcome::Ready(response, agreed),
    }
}

fn judge(action: RequestedAction) -> ActionOutcome {
    let name = action.action_type;
    match (name.as_str(), action.action_parameters) {
        (RequestedAction::SESSION_TYPE, ActionParameters::SessionType(session)) => {
            if session.session_type == SessionType::PORT {
                ActionOutcome::Session(session)
            } else {
                ActionOutcome::Unsupported(format!("{name} {}", session.session_type))
            }
        }
        (RequestedAction::KMS_ENCRYPTION, ActionParameters::Kms(kms)) => ActionOutcome::Kms(kms),
        _ => ActionOutcome::Unsupported(name),
    }
}

fn failed(reason: String) -> Error {
    Error::HandshakeFailed { reason }
}
