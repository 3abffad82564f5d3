//! How the agent and the client agree on a key: KMS makes it for the client and opens it for the
//! agent, and a challenge shows that both have the same.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::cipher::SessionCipher;
use crate::aws::cloud::Cloud;
use crate::aws::events::Event;
use crate::aws::kms::EncryptionContext;
use crate::aws::session::SessionInfo;

/// Random bytes of the challenge that proves the key.
const CHALLENGE: usize = 64;

/// The client's part of the `KMSEncryption` action.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct KeyAnswer {
    #[serde(rename = "KMSCipherTextKey")]
    cipher_text_key: String,
    #[serde(default)]
    challenge_acknowledgement: bool,
}

/// What the agent asked for: enough to open the client's answer.
pub(super) struct KeyRequest<'a> {
    pub(super) cloud: &'a Cloud,
    pub(super) session: &'a SessionInfo,
    /// The random text of the request, when there was one.
    pub(super) challenge: Option<&'a str>,
    /// Whether the client must have used it.
    pub(super) required: bool,
}

impl KeyRequest<'_> {
    /// Has KMS open the client's key; `Err` holds the agent's words.
    pub(super) fn open(&self, answer: &Value) -> Result<Arc<SessionCipher>, String> {
        let answer = KeyAnswer::deserialize(answer).map_err(|error| error.to_string())?;
        let fetch = |reason: String| format!("Fetching data key failed: {reason}");
        if self.required && !answer.challenge_acknowledgement {
            return Err(fetch("challenge was not acknowledged".to_owned()));
        }
        let blob = BASE64.decode(&answer.cipher_text_key);
        let blob = blob.map_err(|error| error.to_string())?;
        let key = self
            .decrypt(&blob, answer.challenge_acknowledgement)
            .map_err(|(code, message)| {
                fetch(format!(
                    "Unable to retrieve data key, Error when decrypting data key {code}: {message}\n\
                     \tstatus code: 400, request id: {}",
                    Uuid::new_v4()
                ))
            })?;
        let cipher = SessionCipher::new(&key);
        let cipher = cipher.ok_or_else(|| fetch(format!("data key of {} bytes", key.len())))?;
        Ok(Arc::new(cipher))
    }

    /// `kms:Decrypt` as the node's role; the error is code and message.
    fn decrypt(&self, blob: &[u8], acknowledged: bool) -> Result<Vec<u8>, (String, String)> {
        let refused =
            |error: crate::aws::kms::KmsError| (error.code().to_owned(), error.to_string());
        let kms = &self.cloud.kms;
        let key_arn = kms.key_of(blob).map_err(refused)?;
        let role = self.cloud.node_role();
        let role = role.ok_or_else(|| ("NoCredentialProviders".to_owned(), String::new()))?;
        if role.is_denied_on("kms:Decrypt", &key_arn) {
            let text = format!(
                "User: {} is not authorized to perform: kms:Decrypt on resource: {key_arn} because \
                 no identity-based policy allows the kms:Decrypt action",
                role.arn
            );
            return Err(("AccessDeniedException".to_owned(), text));
        }
        let context = self.context(acknowledged);
        let key = kms.decrypt(blob, &context).map_err(refused)?;
        self.cloud.events.push(Event::KmsCall {
            operation: "Decrypt".to_owned(),
            key_arn,
            context,
            user_arn: role.arn,
        });
        Ok(key)
    }

    fn context(&self, acknowledged: bool) -> EncryptionContext {
        let mut context = EncryptionContext::from([
            ("aws:ssm:SessionId".to_owned(), self.session.id.clone()),
            ("aws:ssm:TargetId".to_owned(), self.session.target.clone()),
        ]);
        if let Some(challenge) = self.challenge.filter(|_| acknowledged) {
            context.insert("aws:ssm:RandomChallenge".to_owned(), challenge.to_owned());
        }
        context
    }
}

/// What the client's data key is to be bound to: 16 random bytes as the real agent writes them; `None`
/// without randomness.
pub(super) fn random_challenge() -> Option<String> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(BASE64.encode(bytes))
}

/// Payload type 8 and the bytes that payload type 9 has to bring back; `None` without randomness.
pub(super) fn challenge(cipher: &SessionCipher) -> Option<(Bytes, Vec<u8>)> {
    let mut secret = vec![0; CHALLENGE];
    aws_lc_rs::rand::fill(&mut secret).ok()?;
    let sealed = cipher.seal(&secret).ok()?;
    let payload = json!({ "Challenge": BASE64.encode(sealed) });
    Some((Bytes::from(payload.to_string()), secret))
}

/// Whether payload type 9 proves that the client has the key.
pub(super) fn is_answered(cipher: &SessionCipher, payload: &[u8], secret: &[u8]) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Response {
        challenge: String,
    }
    let response: Option<Response> = serde_json::from_slice(payload).ok();
    let sealed = response.and_then(|r| BASE64.decode(r.challenge).ok());
    let plain = sealed.and_then(|sealed| cipher.open(&sealed).ok());
    plain.is_some_and(|plain| plain == secret)
}
