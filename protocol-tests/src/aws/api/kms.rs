//! `kms`: data keys for encrypted sessions.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Value, json};

use super::json::{self, Call};
use super::{ApiError, Reply, Request, allow};
use crate::aws::cloud::Cloud;
use crate::aws::events::Event;
use crate::aws::kms::{EncryptionContext, KmsError};

/// How the service's operations begin in `X-Amz-Target`.
pub(super) const TARGET_PREFIX: &str = "TrentService.";
/// Most bytes of a data key.
const MAX_BYTES: usize = 1024;

pub(super) async fn answer(cloud: &Arc<Cloud>, request: &Request) -> Reply {
    json::serve(
        cloud,
        request,
        "kms",
        TARGET_PREFIX,
        |call, operation| match operation {
            "GenerateDataKey" => call.generate_data_key(),
            "Decrypt" => call.decrypt(),
            _ => Err(ApiError::new("UnknownOperationException", "")),
        },
    )
    .await
}

impl From<KmsError> for ApiError {
    fn from(error: KmsError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GenerateDataKey {
    key_id: String,
    number_of_bytes: Option<usize>,
    key_spec: Option<String>,
    #[serde(default)]
    encryption_context: EncryptionContext,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Decrypt {
    ciphertext_blob: String,
    key_id: Option<String>,
    #[serde(default)]
    encryption_context: EncryptionContext,
}

impl Call<'_> {
    fn generate_data_key(&self) -> Result<Value, ApiError> {
        let input: GenerateDataKey = self.input()?;
        let length = match (input.number_of_bytes, input.key_spec.as_deref()) {
            (Some(length @ 1..=MAX_BYTES), None) => length,
            (None, Some("AES_256")) => 32,
            (None, Some("AES_128")) => 16,
            _ => {
                let text = "Please specify either number of bytes or key spec.";
                return Err(ApiError::new("ValidationException", text));
            }
        };
        check_context(&input.encryption_context)?;
        let kms = &self.cloud.kms;
        let key = kms.resolve(&input.key_id)?;
        let action = "kms:GenerateDataKey";
        allow(self.user, action, action, &key)?;
        let made = kms.generate_data_key(&key, length, &input.encryption_context)?;
        self.note("GenerateDataKey", &key, input.encryption_context);
        Ok(json!({
            "CiphertextBlob": BASE64.encode(&made.blob),
            "Plaintext": BASE64.encode(&made.plaintext),
            "KeyId": key,
        }))
    }

    fn decrypt(&self) -> Result<Value, ApiError> {
        let input: Decrypt = self.input()?;
        check_context(&input.encryption_context)?;
        let blob = BASE64.decode(&input.ciphertext_blob);
        let blob = blob.map_err(|_| ApiError::new("SerializationException", ""))?;
        let kms = &self.cloud.kms;
        let key = kms.key_of(&blob)?;
        allow(self.user, "kms:Decrypt", "kms:Decrypt", &key)?;
        if let Some(asked) = &input.key_id
            && kms.resolve(asked)? != key
        {
            return Err(KmsError::IncorrectKey.into());
        }
        let plaintext = kms.decrypt(&blob, &input.encryption_context)?;
        self.note("Decrypt", &key, input.encryption_context);
        Ok(json!({
            "KeyId": key,
            "Plaintext": BASE64.encode(&plaintext),
            "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
        }))
    }

    fn note(&self, operation: &str, key_arn: &str, context: EncryptionContext) {
        self.cloud.events.push(Event::KmsCall {
            operation: operation.to_owned(),
            key_arn: key_arn.to_owned(),
            context,
            user_arn: self.user.arn.clone(),
        });
    }
}

/// Empty values are what the service answers "Invalid EncryptionContext" to.
fn check_context(context: &EncryptionContext) -> Result<(), ApiError> {
    let empty = context.iter().any(|(n, v)| n.is_empty() || v.is_empty());
    if empty {
        return Err(ApiError::new(
            "ValidationException",
            "Invalid EncryptionContext",
        ));
    }
    Ok(())
}
