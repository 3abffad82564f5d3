//! Failures of single calls to the services of credentials: IAM Identity Center and STS.

use std::error::Error;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use thiserror::Error;

use super::calls::{CallTimeout, within};
use super::http::no_code;
use super::query::throttles;
use super::{bad_answer, in_words};
use crate::base::foreign_text::ForeignText;

/// A call without a usable answer. `action` is the service and action as in IAM policies.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    /// The service returned an error.
    #[error("{action}: {code}{}", after_colon(.message))]
    Refused {
        /// See the type.
        action: &'static str,
        /// Error code, such as `UnauthorizedException`.
        code: ForeignText,
        /// Error message; may be empty.
        message: ForeignText,
        /// HTTP status.
        status: u16,
    },
    /// The call timed out.
    #[error(transparent)]
    Late(#[from] CallTimeout),
    /// The answer is not one of the service, or is incomplete.
    #[error("{action} returned an invalid answer: {reason}")]
    Answer {
        /// See the type.
        action: &'static str,
        /// Problem with the answer.
        reason: ForeignText,
    },
    /// There was no answer.
    #[error("{action} failed: {reason}")]
    Unreachable {
        /// See the type.
        action: &'static str,
        /// Reason.
        reason: ForeignText,
    },
}

fn after_colon(message: &ForeignText) -> String {
    match message.as_str() {
        "" => String::new(),
        message => format!(": {message}"),
    }
}

impl CallError {
    /// Describes an error of the SDK.
    fn of<E>(action: &'static str, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        if let Some(reason) = bad_answer(error) {
            return Self::Answer { action, reason };
        }
        let Some(response) = error.raw_response() else {
            let reason = in_words(error);
            return Self::Unreachable { action, reason };
        };
        let status = response.status().as_u16();
        let (code, message) = oauth_error(response.body().bytes().unwrap_or_default());
        let code = error.code().map(str::to_owned).or(code);
        let message = error.message().map(str::to_owned).or(message);
        Self::Refused {
            action,
            code: code.unwrap_or_else(|| no_code(status)).into(),
            message: message.unwrap_or_default().into(),
            status,
        }
    }

    /// Returns the code of an error that the service returned.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            Self::Late(_) | Self::Answer { .. } | Self::Unreachable { .. } => None,
        }
    }

    /// Returns `true` if the service decided; the same call would fail again.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Refused { code, status, .. } => *status < 500 && !throttles(code),
            Self::Late(_) | Self::Answer { .. } | Self::Unreachable { .. } => false,
        }
    }
}

/// Returns code and description of an OAuth error (RFC 6749, section 5.2), which the SDK leaves in
/// the body.
fn oauth_error(body: &[u8]) -> (Option<String>, Option<String>) {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |key: &str| body.get(key)?.as_str().map(str::to_owned);
    (text("error"), text("error_description"))
}

/// Runs one SDK call until a deadline. Cancel-safe if `call` is.
///
/// # Errors
/// [`CallError`].
pub(crate) async fn call<T, E>(
    action: &'static str,
    until: tokio::time::Instant,
    call: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
) -> Result<T, CallError>
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let answered = within(action, until, call).await?;
    answered.map_err(|error| CallError::of(action, &error))
}
