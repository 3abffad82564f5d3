//! The JSON texts at the beginning and the end of a channel.
//!
//! Field order is that of the real programs, so that a captured text is reproduced byte for byte.
//! Unknown fields are ignored when reading. [`from_json`] reads each type and [`to_json`] writes
//! it.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::ChannelToken;

/// Returns the JSON text of one of these types.
pub fn to_json<T: Serialize>(value: &T) -> Bytes {
    // Serialising into memory fails only for maps with keys that are not strings; there are none.
    serde_json::to_vec(value)
        .map(Bytes::from)
        .unwrap_or_default()
}

/// Parses one of these types.
///
/// # Errors
/// When the text is not JSON, a required field is missing or has the wrong type, or there is
/// trailing text.
pub fn from_json<T: DeserializeOwned>(text: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(text)
}

/// The version in every [`OpenDataChannel`].
pub const MESSAGE_SCHEMA_VERSION: &str = "1.0";

/// The first message of either side to the service, a WebSocket *text* message. The client's form
/// has a client version, the agent's form has an instance id.
///
/// Debug shows no token; [`to_json`] does, so treat its result as a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct OpenDataChannel {
    /// [`MESSAGE_SCHEMA_VERSION`].
    pub message_schema_version: String,
    /// A new UUID for each attempt to open.
    pub request_id: String,
    /// Token from StartSession or ResumeSession.
    pub token_value: ChannelToken,
    /// The agent's instance id; absent in the client's form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_instance_id: Option<String>,
    /// Id of the sender: for the client a UUID that stays the same for the session.
    pub client_id: String,
    /// The client's version; absent in the agent's form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_version: Option<String>,
}

/// First message of the agent: its version and the actions it requests from the client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HandshakeRequest {
    /// The agent's version, see [`crate::AgentVersion`].
    pub agent_version: String,
    /// Actions requested from the client.
    pub requested_client_actions: Vec<RequestedAction>,
}

/// One action requested from the client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RequestedAction {
    /// Its name: [`RequestedAction::SESSION_TYPE`], [`RequestedAction::KMS_ENCRYPTION`] or unknown.
    pub action_type: String,
    /// Its parameters; their form is recognized by their fields, not by the name.
    #[serde(default)]
    pub action_parameters: ActionParameters,
}

impl RequestedAction {
    /// Parameters are [`ActionParameters::SessionType`].
    pub const SESSION_TYPE: &str = "SessionType";
    /// Parameters are [`ActionParameters::Kms`].
    pub const KMS_ENCRYPTION: &str = "KMSEncryption";
}

/// Parameters of a [`RequestedAction`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ActionParameters {
    /// The type of the session.
    SessionType(SessionType),
    /// The key that encrypts the session.
    Kms(KmsEncryption),
    /// Anything else.
    Other(Value),
}

impl Default for ActionParameters {
    fn default() -> Self {
        Self::Other(Value::Null)
    }
}

/// The type of the session that the agent runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SessionType {
    /// [`SessionType::PORT`] for port forwarding.
    pub session_type: String,
    /// The session document's properties, an object of texts for port sessions.
    #[serde(default)]
    pub properties: Value,
}

impl SessionType {
    /// The type of port sessions.
    pub const PORT: &str = "Port";

    /// Returns the text of a property, such as `host`, `portNumber`, `localPortNumber` or `type`.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.get(name)?.as_str()
    }
}

/// The key that encrypts the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KmsEncryption {
    /// The key's ARN or id.
    #[serde(rename = "KMSKeyId")]
    pub key_id: String,
    /// Newer agents: goes into the encryption context, as `aws:ssm:RandomChallenge`.
    #[serde(rename = "Challenge", default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<String>,
}

/// The `ActionResult` of a successful [`RequestedAction::KMS_ENCRYPTION`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KmsEncryptionResult {
    /// The data key, encrypted under the KMS key; the agent asks KMS to decrypt it.
    #[serde(rename = "KMSCipherTextKey", with = "base64")]
    pub cipher_text_key: Vec<u8>,
    /// The request's challenge is in the key's encryption context: the agent must put it there too.
    #[serde(
        rename = "ChallengeAcknowledgement",
        default,
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub challenge_acknowledgement: bool,
}

/// The agent's test of the data key before it ends the handshake, and the client's answer: both are
/// one encrypted text in this form. The client decrypts it and returns the same text under its own
/// half of the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct EncryptionChallenge {
    /// Nonce and ciphertext.
    #[serde(with = "base64")]
    pub challenge: Vec<u8>,
}

/// Bytes as Go's JSON library writes them: base64 with padding.
mod base64 {
    use data_encoding::BASE64;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64.decode(text.as_bytes()).map_err(de::Error::custom)
    }
}

/// The client's answer to [`HandshakeRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HandshakeResponse {
    /// The client's version, which selects smux and its keepalive on the agent's side.
    pub client_version: String,
    /// One for each requested action.
    pub processed_client_actions: Vec<ProcessedAction>,
    /// The errors of all actions again; `null` when there are none.
    pub errors: Option<Vec<String>>,
}

/// Result of one [`RequestedAction`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ProcessedAction {
    /// The action's name.
    pub action_type: String,
    /// Its status.
    pub action_status: ActionStatus,
    /// Depends on the action; `null` for the session type.
    pub action_result: Value,
    /// Reason of the failure; empty on success.
    pub error: String,
}

/// Status of a requested action; a number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum ActionStatus {
    /// 1: done.
    Success,
    /// 2: failed.
    Failed,
    /// 3: unsupported.
    Unsupported,
}

impl From<ActionStatus> for u8 {
    fn from(status: ActionStatus) -> Self {
        match status {
            ActionStatus::Success => 1,
            ActionStatus::Failed => 2,
            ActionStatus::Unsupported => 3,
        }
    }
}

/// Error for a number that is not an action status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown action status {0}")]
pub struct UnknownStatus(u8);

impl TryFrom<u8> for ActionStatus {
    type Error = UnknownStatus;

    fn try_from(code: u8) -> Result<Self, UnknownStatus> {
        match code {
            1 => Ok(Self::Success),
            2 => Ok(Self::Failed),
            3 => Ok(Self::Unsupported),
            other => Err(UnknownStatus(other)),
        }
    }
}

/// End of a successful handshake: data may flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HandshakeComplete {
    /// Time the agent waited, ns.
    pub handshake_time_to_complete: i64,
    /// A text for the user, from the account's Session Manager preferences; mostly empty.
    #[serde(default)]
    pub customer_message: String,
}

/// End of the session by the service. The service fills more fields; only these two matter to a
/// client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ChannelClosed {
    /// The session id.
    pub session_id: String,
    /// The reason as text; may be empty.
    pub output: String,
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    /// Checks that the text is reproduced byte for byte, and that no prefix of it is accepted.
    fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(text: &str) -> T {
        let value: T = from_json(text.as_bytes()).unwrap();
        assert_eq!(to_json(&value), text);
        for cut in 0..text.len() {
            assert!(from_json::<T>(&text.as_bytes()[..cut]).is_err(), "{cut}");
        }
        value
    }

    #[test]
    fn open_in_both_forms() {
        let client: OpenDataChannel = check(concat!(
            r#"{"MessageSchemaVersion":"1.0","RequestId":"r","TokenValue":"secret","#,
            r#""ClientId":"c","ClientVersion":"1.2.0.0"}"#
        ));
        assert_eq!(client.client_version.as_deref(), Some("1.2.0.0"));
        assert!(!format!("{client:?}").contains("secret"));
        let agent: OpenDataChannel = check(concat!(
            r#"{"MessageSchemaVersion":"1.0","RequestId":"r","TokenValue":"secret","#,
            r#""ClientInstanceId":"i-0","ClientId":"c"}"#
        ));
        assert_eq!(agent.client_instance_id.as_deref(), Some("i-0"));
    }

    #[test]
    fn request_with_all_actions() {
        let request: HandshakeRequest = check(concat!(
            r#"{"AgentVersion":"3.3.0.0","RequestedClientActions":["#,
            r#"{"ActionType":"KMSEncryption","ActionParameters":"#,
            r#"{"KMSKeyId":"arn:aws:kms:x","Challenge":"abc"}},"#,
            r#"{"ActionType":"SessionType","ActionParameters":{"SessionType":"Port","#,
            r#""Properties":{"host":"db","portNumber":"5432"}}},"#,
            r#"{"ActionType":"New","ActionParameters":{"a":[1,null]}}]}"#
        ));
        let [kms, session, new] = &request.requested_client_actions[..] else {
            panic!()
        };
        let ActionParameters::Kms(kms) = &kms.action_parameters else {
            panic!("{kms:?}")
        };
        assert_eq!(kms.challenge.as_deref(), Some("abc"));
        let ActionParameters::SessionType(session) = &session.action_parameters else {
            panic!("{session:?}")
        };
        assert_eq!(session.property("host"), Some("db"));
        assert_eq!(session.property("type"), None);
        assert!(matches!(new.action_parameters, ActionParameters::Other(_)));
    }

    #[test]
    fn response_with_each_status() {
        let response: HandshakeResponse = check(concat!(
            r#"{"ClientVersion":"1.2.0.0","ProcessedClientActions":["#,
            r#"{"ActionType":"SessionType","ActionStatus":1,"ActionResult":null,"Error":""},"#,
            r#"{"ActionType":"A","ActionStatus":2,"ActionResult":null,"Error":"e"},"#,
            r#"{"ActionType":"B","ActionStatus":3,"ActionResult":null,"Error":"e"}],"#,
            r#""Errors":["e","e"]}"#
        ));
        let statuses = response
            .processed_client_actions
            .iter()
            .map(|a| a.action_status);
        let expected = [
            ActionStatus::Success,
            ActionStatus::Failed,
            ActionStatus::Unsupported,
        ];
        assert!(statuses.eq(expected));
        assert!(from_json::<ActionStatus>(b"0").is_err());
        assert!(from_json::<ActionStatus>(b"4").is_err());
    }

    #[test]
    fn encryption_result_and_challenge() {
        let result: KmsEncryptionResult =
            check(r#"{"KMSCipherTextKey":"AAEC/w==","ChallengeAcknowledgement":true}"#);
        assert_eq!(result.cipher_text_key, [0, 1, 2, 255]);
        let bare: KmsEncryptionResult = check(r#"{"KMSCipherTextKey":""}"#);
        assert!(!bare.challenge_acknowledgement);
        let challenge: EncryptionChallenge = check(r#"{"Challenge":"c2VjcmV0"}"#);
        assert_eq!(challenge.challenge, b"secret");
        assert!(from_json::<EncryptionChallenge>(br#"{"Challenge":"c2VjcmV"}"#).is_err());
    }

    #[test]
    fn complete_and_closed() {
        let complete: HandshakeComplete =
            check(r#"{"HandshakeTimeToComplete":31522716,"CustomerMessage":"hi"}"#);
        assert_eq!(complete.customer_message, "hi");
        let closed: ChannelClosed = check(r#"{"SessionId":"dev-1","Output":"timed out"}"#);
        assert_eq!(closed.output, "timed out");
        let bare: ChannelClosed = from_json(br#"{"MessageType":"channel_closed"}"#).unwrap();
        assert_eq!(bare, ChannelClosed::default());
    }
}
