//! What to answer to the agent's handshake.

use serde_json::Value;

use crate::error::Error;
use crate::handshake::{
    ActionParameters, ActionStatus, HandshakeRequest, HandshakeResponse, ProcessedAction,
    RequestedAction, SessionType,
};
use crate::version::AgentVersion;

/// The answer for the agent, and whether the channel can go on.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: HandshakeResponse,
    /// The agent's version and the session it runs.
    pub(crate) outcome: Result<(AgentVersion, SessionType), Error>,
}

/// Judges every requested action. A port session is agreed to; everything else is answered as
/// unsupported, which makes the agent end the session with a reason in its log.
pub(crate) fn answer(request: HandshakeRequest, client_version: &str) -> Answer {
    let mut session_type = None;
    let mut refused = None;
    let mut processed = Vec::new();
    for action in request.requested_client_actions {
        let name = action.action_type.clone();
        let outcome = judge(action);
        let error = match &outcome {
            Ok(_) => String::new(),
            Err(required) => format!("{required} is not supported by this client"),
        };
        let action_status = if outcome.is_ok() {
            ActionStatus::Success
        } else {
            ActionStatus::Unsupported
        };
        match outcome {
            Ok(session) => session_type = Some(session),
            Err(required) => refused = refused.or(Some(required)),
        }
        let action_result = Value::Null;
        processed.push(ProcessedAction {
            action_type: name,
            action_status,
            action_result,
            error,
        });
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
    let outcome = match (refused, session_type) {
        (Some(action), _) => Err(Error::UnsupportedAction { action }),
        (None, None) => Err(failed("the agent named no session type".to_owned())),
        (None, Some(session)) => version(&request.agent_version).map(|version| (version, session)),
    };
    Answer { response, outcome }
}

/// The session an action asks for, or the name of what we do not do.
fn judge(action: RequestedAction) -> Result<SessionType, String> {
    match action.action_parameters {
        ActionParameters::SessionType(session)
            if action.action_type == RequestedAction::SESSION_TYPE =>
        {
            if session.session_type == SessionType::PORT {
                Ok(session)
            } else {
                Err(format!("{} {}", action.action_type, session.session_type))
            }
        }
        _ => Err(action.action_type),
    }
}

fn version(text: &str) -> Result<AgentVersion, Error> {
    text.parse()
        .map_err(|_| failed(format!("agent version {text:?} is not a version")))
}

fn failed(reason: String) -> Error {
    Error::HandshakeFailed { reason }
}
