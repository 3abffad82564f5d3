//! `kms:GenerateDataKey`: the key of a session with encryption in its preferences.

use std::time::Duration;

use aws_sdk_kms::error::ProvideErrorMetadata;
use ssm_channel::DataKey;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::aws::calls::within;
use crate::aws::{AwsContext, CredentialsError, bad_answer, in_words};
use crate::base::names::{NodeId, Region, SessionId};
use crate::tunnel::TunnelError;

/// Timeout of KMS. The agent allows 15 s for the whole handshake.
const DEADLINE: Duration = Duration::from_secs(10);
/// The encryption context. KMS decrypts the key (`kms:Decrypt`, by the agent) only for a caller
/// that names the same session, node and challenge.
const SESSION: &str = "aws:ssm:SessionId";
const TARGET: &str = "aws:ssm:TargetId";
const CHALLENGE: &str = "aws:ssm:RandomChallenge";

/// Parameters of a data key.
#[derive(Clone, Copy, Debug)]
pub(super) struct DataKeyRequest<'a> {
    /// The KMS key: an ARN, an id, or an alias. The agent reads it from the preferences.
    pub(super) key: &'a str,
    /// The session it is for.
    pub(super) session_id: &'a SessionId,
    /// The managed node at its other end.
    pub(super) target: &'a NodeId,
    /// The agent's challenge, if it sent one.
    pub(super) challenge: Option<&'a str>,
}

/// Calls `kms:GenerateDataKey` for a session in `region`, within a deadline. If the key's ARN names
/// another region, the call goes to that region.
///
/// # Errors
/// [`TunnelError::DataKey`]; `denied` tells if an access policy is the reason.
/// [`TunnelError::Credentials`].
pub(super) async fn data_key(
    aws: &AwsContext,
    region: &Region,
    wanted: DataKeyRequest<'_>,
) -> Result<DataKey, TunnelError> {
    let failed = |denied: bool, reason: String| TunnelError::DataKey {
        key: wanted.key.into(),
        denied,
        reason: reason.into(),
    };
    let region_of_key = region_of(wanted.key).map(Region::from);
    let client = aws.kms(region_of_key.as_ref().unwrap_or(region)).await;
    let client = client.map_err(|error| TunnelError::Credentials(error.into()))?;
    let call = client
        .generate_data_key()
        .key_id(wanted.key)
        .number_of_bytes(i32::try_from(DataKey::LENGTH).unwrap_or(i32::MAX))
        .encryption_context(SESSION, wanted.session_id)
        .encryption_context(TARGET, wanted.target);
    let call = match wanted.challenge {
        Some(challenge) => call.encryption_context(CHALLENGE, challenge),
        None => call,
    };
    let until = Instant::now() + DEADLINE;
    let answer = match within("kms:GenerateDataKey", until, call.send()).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            if let Some(credentials) = CredentialsError::behind(&error) {
                return Err(TunnelError::Credentials(credentials.clone().into()));
            }
            if let Some(reason) = bad_answer(&error) {
                return Err(failed(false, reason.into_string()));
            }
            let code = error.code().unwrap_or_default();
            let reason = match error.message() {
                Some(message) => format!("{code}: {message}"),
                None => in_words(&error).into_string(),
            };
            return Err(failed(code.starts_with("AccessDenied"), reason));
        }
        Err(late) => return Err(TunnelError::Late(Box::new(late))),
    };
    let plaintext = answer
        .plaintext
        .map(|blob| Zeroizing::new(blob.into_inner()));
    let ciphertext = answer.ciphertext_blob.map(|blob| blob.into_inner());
    match (plaintext, ciphertext) {
        (Some(plaintext), Some(ciphertext)) if plaintext.len() == DataKey::LENGTH => Ok(DataKey {
            plaintext,
            ciphertext,
        }),
        _ => Err(failed(
            false,
            "the answer contains no valid data key".to_owned(),
        )),
    }
}

/// Returns the region in the ARN of a key or alias: `arn:PARTITION:kms:REGION:ACCOUNT:key/ID`.
fn region_of(key: &str) -> Option<&str> {
    let mut fields = key.split(':');
    let is_arn = fields.next() == Some("arn");
    let is_kms = fields.nth(1) == Some("kms");
    let region = fields.next().filter(|region| !region.is_empty())?;
    (is_arn && is_kms).then_some(region)
}

#[cfg(test)]
mod tests;
