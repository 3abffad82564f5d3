//! Requests to AWS within a deadline, and classification of the errors.

use std::error::Error;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use aws_sdk_rds::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_rds::operation::RequestId;
use tokio::time::Instant;

use super::DiscoverError;
use crate::aws::api_error::ApiAnswer;
use crate::aws::calls::within;
use crate::aws::http::no_code;
use crate::aws::pages::{self, PageLimitExceeded};
use crate::aws::query::{Query, QueryError, denies};
use crate::aws::{AwsContext, ClockOffset, CredentialsError, bad_answer, in_words};
use crate::base::foreign_text::ForeignText;
use crate::base::names::Region;

/// Timeout of a call for optional information. A network that reaches some AWS services may drop
/// packets to the others.
const OPTIONAL: Duration = Duration::from_secs(5);

/// Identity, region and deadline of the requests.
#[derive(Clone, Copy)]
pub(super) struct LookupContext<'a> {
    pub(super) aws: &'a AwsContext,
    pub(super) region: &'a Region,
    until: Instant,
}

impl<'a> LookupContext<'a> {
    pub(super) fn new(
        aws: &'a AwsContext,
        region: &'a Region,
        deadline: Duration,
    ) -> Result<Self, DiscoverError> {
        if region.is_empty() {
            return Err(DiscoverError::NoRegion);
        }
        Ok(Self {
            aws,
            region,
            until: Instant::now() + deadline,
        })
    }

    /// Returns a copy with the short timeout for optional information.
    pub(super) fn optional(&self) -> Self {
        Self {
            until: self.until.min(Instant::now() + OPTIONAL),
            ..*self
        }
    }

    /// Runs one SDK call or a sequence of them.
    pub(super) async fn sdk<T, E>(
        &self,
        action: &'static str,
        call: impl Future<Output = Result<T, SdkError<E>>>,
    ) -> Result<T, DiscoverError>
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match within(action, self.until, call).await {
            Ok(answer) => answer.map_err(|error| self.refusal(action, &error)),
            Err(late) => Err(DiscoverError::Late(late)),
        }
    }

    /// Reads all pages of an SDK list and collects the rows that `rows` extracts from each page.
    pub(super) async fn list<P, R, E, I: IntoIterator<Item = R>>(
        &self,
        action: &'static str,
        next: impl FnMut(&mut Context<'_>) -> Poll<Option<Result<P, SdkError<E>>>>,
        rows: impl FnMut(P) -> I,
    ) -> Result<Vec<R>, DiscoverError>
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let listed = self.sdk(action, pages::all(next, rows)).await?;
        listed.map_err(|endless| self::endless(action, endless))
    }

    /// Runs a call that no SDK crate is included for.
    pub(super) async fn query(
        &self,
        action: &'static str,
        query: Query<'_>,
    ) -> Result<String, DiscoverError> {
        let refused = match within(action, self.until, self.aws.query(query)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(refused)) => refused,
            Err(late) => return Err(DiscoverError::Late(late)),
        };
        let denied = refused.is_denied();
        Err(match refused {
            QueryError::Credentials(error) => error.into(),
            QueryError::Refused { answer, .. } => DiscoverError::Refused {
                action,
                denied,
                answer,
                region: self.region.to_owned(),
            },
            QueryError::Late(late) => DiscoverError::Late(late),
            QueryError::BadAnswer { reason, .. } => DiscoverError::Answer { action, reason },
            QueryError::Unreachable { reason, .. } => self.unreachable(action, reason),
        })
    }

    fn refusal<E>(&self, action: &'static str, error: &SdkError<E>) -> DiscoverError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        if let Some(credentials) = CredentialsError::behind(error) {
            return credentials.clone().into();
        }
        if let Some(reason) = bad_answer(error) {
            return DiscoverError::Answer { action, reason };
        }
        let Some(response) = error.raw_response() else {
            return self.unreachable(action, in_words(error));
        };
        let status = response.status().as_u16();
        let date = response.headers().get("date");
        let code = error.code().map_or_else(|| no_code(status), str::to_owned);
        DiscoverError::Refused {
            action,
            denied: denies(&code),
            answer: ApiAnswer {
                code: code.into(),
                message: error.message().unwrap_or_default().into(),
                request_id: error.request_id().map(Into::into),
                clock: date.and_then(|date| ClockOffset::from_date_header(date, SystemTime::now())),
            },
            region: self.region.to_owned(),
        }
    }

    fn unreachable(&self, action: &'static str, reason: ForeignText) -> DiscoverError {
        DiscoverError::Unreachable {
            service: action
                .split_once(':')
                .map_or(action, |(service, _)| service),
            region: self.region.to_owned(),
            reason,
        }
    }
}

/// Creates the error for a list that exceeds the page limits.
pub(super) fn endless(action: &'static str, endless: PageLimitExceeded) -> DiscoverError {
    DiscoverError::Answer {
        action,
        reason: endless.to_string().into(),
    }
}
