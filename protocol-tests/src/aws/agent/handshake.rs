//! The three handshake payloads and what the agent makes of the client's answer.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::AgentSettings;
use crate::aws::session::PortParameters;

/// Start of the text that reaches the client in `channel_closed` when the handshake fails.
const FAILED: &str = "----------ERROR-------\nEncountered error while initiating handshake. ";

/// Payload type 5. `challenge` goes with the `KMSEncryption` action, if there is one.
pub(super) fn request(
    settings: &AgentSettings,
    to: &PortParameters,
    challenge: Option<&str>,
) -> Bytes {
    let mut actions = vec![json!({
        "ActionType": "SessionType",
        "ActionParameters": {
            "SessionType": "Port",
            "Properties": {
                "host": to.host,
                "localPortNumber": to.local_port,
                "portNumber": to.port.to_string(),
                "type": "LocalPortForwarding",
            },
        },
    })];
    if let Some(key) = &settings.kms_key {
        let mut parameters = json!({ "KMSKeyId": key });
        if let Some(challenge) = challenge {
            parameters["Challenge"] = json!(challenge);
        }
        actions.push(json!({
            "ActionType": "KMSEncryption",
            "ActionParameters": parameters,
        }));
    }
    let request = json!({
        "AgentVersion": settings.version,
        "RequestedClientActions": actions,
    });
    Bytes::from(request.to_string())
}

/// Payload type 7.
pub(super) fn complete(took: Duration, encrypted: bool) -> Bytes {
    let message = if encrypted {
        "This session is encrypted using AWS KMS."
    } else {
        ""
    };
    let complete = json!({
        "HandshakeTimeToComplete": u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
        "CustomerMessage": message,
    });
    Bytes::from(complete.to_string())
}

/// How the session ends when the handshake fails in these words.
pub(super) fn failed(reason: &str) -> String {
    format!("{FAILED}{reason}")
}

/// What ends the session when the client does not answer in time.
pub(super) fn timed_out() -> String {
    failed(
        "Handshake timed out. Please ensure that you have the latest version of the session \
         manager plugin.",
    )
}

/// What ends the session when the client does not prove its key in time.
pub(super) fn challenge_timed_out() -> String {
    failed("Timed out waiting for encryption challenge.")
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Response {
    client_version: String,
    processed_client_actions: Option<Vec<Processed>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Processed {
    action_type: String,
    action_status: i64,
    #[serde(default)]
    action_result: Value,
    #[serde(default)]
    error: Option<Value>,
}

/// A client that did what it was asked to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    pub(super) client_version: String,
    /// `ActionResult` of `KMSEncryption`, when that was asked for.
    pub(super) key: Option<Value>,
}

/// Reads payload type 6: what the client agreed to, or the text the session ends with.
pub(super) fn judge(settings: &AgentSettings, payload: &[u8]) -> Result<Agreed, String> {
    let response: Response = serde_json::from_slice(payload)
        .map_err(|error| format!("{FAILED}Could not unmarshal handshake response: {error}"))?;
    let processed = response.processed_client_actions.unwrap_or_default();
    let mut asked = vec!["SessionType"];
    if settings.kms_key.is_some() {
        asked.push("KMSEncryption");
    }
    let mut key = None;
    for action in asked {
        let Some(answer) = processed.iter().find(|p| p.action_type == action) else {
            return Err(format!("{FAILED}{action} was not processed on client"));
        };
        if answer.action_status != 1 {
            let error = match &answer.error {
                Some(Value::String(text)) => text.clone(),
                _ => String::new(),
            };
            return Err(format!(
                "{FAILED}{action} failed on client with status {} error: {error}",
                answer.action_status
            ));
        }
        if action == "KMSEncryption" {
            key = Some(answer.action_result.clone());
        }
    }
    Ok(Agreed {
        client_version: response.client_version,
        key,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged_action_by_action() {
        let plain = AgentSettings::default();
        let answer = |status: u8| {
            json!({
                "ClientVersion": "1.2.764.0",
                "ProcessedClientActions": [{
                    "ActionType": "SessionType", "ActionStatus": status,
                    "ActionResult": null, "Error": "no",
                }],
                "Errors": null,
            })
            .to_string()
        };
        assert_eq!(
            judge(&plain, answer(1).as_bytes()),
            Ok(Agreed {
                client_version: "1.2.764.0".to_owned(),
                key: None,
            })
        );
        let refused = judge(&plain, answer(3).as_bytes()).unwrap_err();
        assert!(refused.ends_with("SessionType failed on client with status 3 error: no"));
        let with_key = AgentSettings {
            kms_key: Some("alias/x".to_owned()),
            ..plain
        };
        assert!(judge(&with_key, answer(1).as_bytes()).is_err());
        assert!(judge(&with_key, b"{}").is_err());
    }
}
