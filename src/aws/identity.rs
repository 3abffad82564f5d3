//! Identity check after a database has refused a token.
//!
//! The database gives no reason for the refusal. `sts:GetCallerIdentity` needs no permission (IAM
//! Reference, "GetCallerIdentity") and gives three facts: whether the keys are valid, the account
//! they belong to, and, in its `Date` header, the time.

use std::time::Duration;

use aws_sdk_sts::config::Builder;
use aws_sdk_sts::config::retry::RetryConfig;
use aws_sdk_sts::error::ProvideErrorMetadata;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::{AwsContext, error, in_words};
use crate::base::foreign_text::ForeignText;
use crate::base::names::Region;

/// Time limit of [`AwsContext::identity`] for an error message: the maximum delay that it adds.
pub const BESIDE_AN_ERROR: Duration = Duration::from_secs(2);
/// Time limit of [`AwsContext::identity`] for a command that is about the identity.
pub const FOR_A_COMMAND: Duration = Duration::from_secs(10);

/// Lifetime of a result, or of a missing answer, for the same keys: a pool that is refused connects
/// repeatedly.
const PAUSE: Duration = Duration::from_secs(30);

/// AWS's information about the credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Account id, if AWS or the source of the credentials gives it.
    pub account: Option<String>,
    /// State of the keys; `None` if AWS did not report it.
    pub keys: Option<KeyState>,
    /// ARN of the identity, if AWS reported it: `arn:aws:iam::…:user/…`,
    /// `arn:aws:sts::…:assumed-role/…`.
    pub arn: Option<String>,
}

/// State of the keys at AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// AWS accepts them.
    Accepted,
    /// They have expired.
    Expired,
    /// AWS does not know them, or rejects the signature.
    Rejected {
        /// AWS error code, such as `InvalidClientTokenId`.
        code: String,
    },
}

/// The last answer.
#[derive(Debug, Default)]
pub(super) struct IdentityCache(Mutex<Option<IdentityAnswer>>);

#[derive(Debug)]
struct IdentityAnswer {
    at: Instant,
    /// Id of the keys; it is not secret.
    access_key_id: String,
    identity: Identity,
    /// The answer gave the clock offset.
    compared: bool,
}

impl AwsContext {
    /// Asks AWS in `region` for the identity of the credentials; concurrent callers share one
    /// request. As with every answer of AWS, [`AwsContext::clock_offset`] is up to date afterwards.
    /// Takes at most `limit`; facts that are unknown by then are `None`. Cancel-safe.
    pub async fn identity(&self, region: &Region, limit: Duration) -> Identity {
        let until = Instant::now() + limit;
        let Ok(Ok(credentials)) = timeout_at(until, self.credentials()).await else {
            return Identity::default();
        };
        let access_key_id = credentials.access_key_id();
        let account = credentials.account_id();
        let account = account.map(|id| shown(id.as_str().to_owned()));
        let unknown = Identity {
            account,
            ..Identity::default()
        };
        let Ok(mut last) = timeout_at(until, self.inner.asked.0.lock()).await else {
            return unknown;
        };
        let holds = |answer: &&IdentityAnswer| {
            answer.access_key_id == access_key_id && answer.at.elapsed() < PAUSE
        };
        // After the clock was set, it has to be compared again.
        let was_set = |answer: &&IdentityAnswer| answer.compared && self.clock_offset().is_none();
        if let Some(answer) = last.as_ref().filter(holds).filter(|one| !was_set(one)) {
            return answer.identity.clone();
        }
        let asked = timeout_at(until, self.ask(region, unknown.clone())).await;
        let identity = asked.unwrap_or_else(|_| {
            debug!("sts:GetCallerIdentity timed out");
            unknown
        });
        *last = Some(IdentityAnswer {
            at: Instant::now(),
            access_key_id: access_key_id.to_owned(),
            identity: identity.clone(),
            compared: self.clock_offset().is_some(),
        });
        identity
    }

    async fn ask(&self, region: &Region, unknown: Identity) -> Identity {
        let config = match self.config_in(region).await {
            Ok(config) => Builder::from(&config),
            Err(_) => return unknown,
        };
        let config = config.retry_config(RetryConfig::disabled()).build();
        let client = aws_sdk_sts::Client::from_conf(config);
        match client.get_caller_identity().send().await {
            Ok(answer) => Identity {
                account: answer
                    .account
                    .filter(|id| is_account(id))
                    .or(unknown.account),
                keys: Some(KeyState::Accepted),
                arn: answer.arn.map(shown),
            },
            Err(refused) => {
                let keys = refused.code().and_then(error::refused_keys);
                debug!(
                    reason = &*in_words(&refused),
                    "sts:GetCallerIdentity failed"
                );
                Identity { keys, ..unknown }
            }
        }
    }
}

/// Returns `true` for an account id: 12 digits (Account Management Reference Guide, "View AWS
/// account identifiers").
fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Sanitizes a text from AWS for display.
fn shown(text: String) -> String {
    ForeignText::from(text).into_string()
}
