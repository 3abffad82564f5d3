//! Who AWS takes us for: the question that is asked when a database has refused a token.
//!
//! The database says no and gives no reason. AWS's answer to `sts:GetCallerIdentity`, which needs no
//! permission (IAM Reference, "GetCallerIdentity"), gives three: whether the keys are any good, which
//! account they belong to, and, in its `Date` header, what time it is.

use std::time::Duration;

use aws_sdk_sts::config::Builder;
use aws_sdk_sts::config::retry::RetryConfig;
use aws_sdk_sts::error::ProvideErrorMetadata;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::{AwsContext, error, in_words};
use crate::base::foreign_text::ForeignText;

/// How long an error message may be delayed by the question.
const DEADLINE: Duration = Duration::from_secs(2);

/// How long an answer, or that there was none, holds for the same keys: a pool that is refused
/// connects again and again.
const PAUSE: Duration = Duration::from_secs(30);

/// What AWS says about the credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The account they belong to, where AWS or their source has told.
    pub account: Option<String>,
    /// Whether they are any good; `None` when AWS did not tell.
    pub keys: Option<Keys>,
    /// Whose they are, where AWS has told: `arn:aws:iam::…:user/…`, `arn:aws:sts::…:assumed-role/…`.
    pub arn: Option<String>,
}

/// Whether keys are any good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// AWS accepts them.
    Accepted,
    /// Their time is over.
    Expired,
    /// AWS does not know them, or not like this.
    Rejected {
        /// AWS's error code, such as `InvalidClientTokenId`.
        code: String,
    },
}

/// The last answer.
#[derive(Debug, Default)]
pub(super) struct Asked(Mutex<Option<Answer>>);

#[derive(Debug)]
struct Answer {
    at: Instant,
    /// Of which keys; the identifier is no secret.
    access_key_id: String,
    identity: Identity,
    /// It told how far the clock is off.
    compared: bool,
}

impl AwsContext {
    /// Asks AWS whose the credentials are, in `region`; all who want to know share one question. As
    /// with every answer of AWS, [`AwsContext::clock_offset`] is up to date afterwards. Takes no
    /// longer than 2 s; what is not known by then is `None`. Cancel-safe.
    pub async fn identity(&self, region: &str) -> Identity {
        let until = Instant::now() + DEADLINE;
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
        let holds =
            |answer: &&Answer| answer.access_key_id == access_key_id && answer.at.elapsed() < PAUSE;
        // A clock that was set since has to be compared anew.
        let was_set = |answer: &&Answer| answer.compared && self.clock_offset().is_none();
        if let Some(answer) = last.as_ref().filter(holds).filter(|one| !was_set(one)) {
            return answer.identity.clone();
        }
        let asked = timeout_at(until, self.ask(region, unknown.clone())).await;
        let identity = asked.unwrap_or_else(|_| {
            debug!("STS did not say in time whose the credentials are");
            unknown
        });
        *last = Some(Answer {
            at: Instant::now(),
            access_key_id: access_key_id.to_owned(),
            identity: identity.clone(),
            compared: self.clock_offset().is_some(),
        });
        identity
    }

    async fn ask(&self, region: &str, unknown: Identity) -> Identity {
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
                keys: Some(Keys::Accepted),
                arn: answer.arn.map(shown),
            },
            Err(refused) => {
                let keys = refused.code().and_then(error::refused_keys);
                debug!(
                    reason = &*in_words(&refused),
                    "STS does not say whose the credentials are"
                );
                Identity { keys, ..unknown }
            }
        }
    }
}

/// Whether it is an account id: 12 digits (Account Management Reference Guide, "View AWS account
/// identifiers").
fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// What is shown as others have it.
fn shown(text: String) -> String {
    ForeignText::from(text).into_string()
}
