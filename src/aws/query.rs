//! Single calls of services with AWS's Query protocol (a form as request, XML as answer). Their SDK
//! crates would be out of proportion: EC2's alone is larger than the rest of pgiam.
//!
//! A call uses the same credentials, HTTP client, proxy, roots and endpoint settings as the SDK's
//! calls, and its answer is watched for the time.

mod send;
#[cfg(test)]
mod tests;

use std::time::Duration;

use aws_config::SdkConfig;
use thiserror::Error;
use tokio::time::{Instant, sleep};
use url::Url;
use url::form_urlencoded::Serializer;

use super::calls::{CallTimeout, within};
use super::{AwsContext, CredentialsError, KeyState, endpoints, http, refused_keys};
use crate::aws::api_error::ApiAnswer;
use crate::base::foreign_text::ForeignText;
use crate::base::jitter::jitter;
use crate::base::names::Region;
use crate::base::partition::Partition;
use send::{QueryAnswer, QueryRequest, RequestFailure};

/// Deadline of a call, a second attempt included.
const DEADLINE: Duration = Duration::from_secs(10);
/// Maximum pause before a second attempt. It is random, so that clients throttled together do not
/// retry together.
const PAUSE: Duration = Duration::from_millis(600);
/// Maximum delay that a request for the time adds to the error that depends on it.
const TIME_DEADLINE: Duration = Duration::from_secs(2);

/// A call: `Action`, `Version` and the other fields of the form.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// Name in the service's host name and in signatures: `ec2`, `iam`.
    pub service: &'static str,
    /// Action in IAM policies: `ec2:DescribeInstances`.
    pub name: &'static str,
    /// Version of the API.
    pub version: &'static str,
    /// The call, such as `DescribeInstances`.
    pub action: &'static str,
    /// Other fields of the form.
    pub params: Vec<(String, String)>,
    /// Region of the request. IAM is one service for the region's whole partition.
    pub region: &'a Region,
}

/// Error of a call.
#[derive(Clone, Debug, Error)]
pub enum QueryError {
    /// There are no credentials to sign it with.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// AWS refused it.
    #[error("AWS refused {service}:{action}: {}: {}", .answer.code, .answer.message)]
    Refused {
        /// The service.
        service: &'static str,
        /// The call.
        action: &'static str,
        /// AWS's answer.
        answer: ApiAnswer,
    },
    /// It timed out.
    #[error(transparent)]
    Late(CallTimeout),
    /// The answer is invalid: too long, or broken off.
    #[error("invalid answer from {host}: {reason}")]
    BadAnswer {
        /// Host of the service.
        host: String,
        /// Problem with the answer.
        reason: ForeignText,
    },
    /// The service could not be reached.
    #[error("cannot reach {host}: {reason}")]
    Unreachable {
        /// Host of the service.
        host: String,
        /// Error with its causes.
        reason: ForeignText,
    },
}

impl QueryError {
    /// Returns `true` if a permission is missing.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Refused { answer, .. } if denies(&answer.code))
    }

    /// Returns the state of the keys if AWS does not accept them.
    #[must_use]
    pub fn rejects_keys(&self) -> Option<KeyState> {
        match self {
            Self::Refused { answer, .. } => refused_keys(&answer.code),
            _ => None,
        }
    }
}

/// Returns `true` if an error code means a missing permission: the services use different codes.
pub(crate) fn denies(code: &str) -> bool {
    const CODES: [&str; 5] = [
        "AccessDenied",
        "AccessDeniedException",
        "NotAuthorized",
        "UnauthorizedOperation",
        "UnauthorizedAccess",
    ];
    CODES.contains(&code)
}

/// Returns `true` if an error code means too many calls.
pub(crate) fn throttles(code: &str) -> bool {
    const CODES: [&str; 6] = [
        "RequestLimitExceeded",
        "RequestThrottled",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
    ];
    CODES.contains(&code) || http::throttles(code)
}

impl AwsContext {
    /// Runs a call and returns the XML answer. A call that was throttled, or met a service fault,
    /// is repeated once. Takes at most 10 s. Cancel-safe.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn query(&self, query: Query<'_>) -> Result<String, QueryError> {
        let config = self.sdk_config().await?;
        let place = QueryEndpoint::of(&config, &query)?;
        let calling = self.call(&config, &query, &place);
        let answered = within(query.name, Instant::now() + DEADLINE, calling).await;
        answered.unwrap_or_else(|late| Err(QueryError::Late(late)))
    }

    async fn call(
        &self,
        config: &SdkConfig,
        query: &Query<'_>,
        place: &QueryEndpoint,
    ) -> Result<String, QueryError> {
        let answer = self.attempt(config, query, place).await?;
        if !answer.deserves_another() {
            return self::read(answer, query, place);
        }
        sleep(jitter(PAUSE)).await;
        let answer = self.attempt(config, query, place).await?;
        self::read(answer, query, place)
    }

    async fn attempt(
        &self,
        config: &SdkConfig,
        query: &Query<'_>,
        place: &QueryEndpoint,
    ) -> Result<QueryAnswer, QueryError> {
        let credentials = self.credentials().await?;
        let watch = self.clock_watch();
        let request = QueryRequest {
            service: query.service,
            action: query.action,
            place,
            form: form(query),
        };
        let signed = request
            .signed(&credentials, watch.now())
            .map_err(|reason| place.unreachable(reason))?;
        let sent = send::send(config, &request, signed).await;
        let mut answer = sent.map_err(|failed| place.failed(failed))?;
        answer.asked_of(&watch);
        Ok(answer)
    }
}

/// Returns the document in an answer, AWS's refusal, or the problem with an answer that is not from
/// AWS.
fn read(
    answer: QueryAnswer,
    query: &Query<'_>,
    place: &QueryEndpoint,
) -> Result<String, QueryError> {
    match http::of_another(answer.status) {
        Some(reason) => Err(place.failed(RequestFailure::BadAnswer(reason.into()))),
        None => answer.read(query),
    }
}

/// Sends an unsigned request to STS in `region`, only for the `Date` header of its answer, which
/// the client of `config` records. STS refuses the call, but the refusal has the header as well.
pub(super) async fn ask_the_time(config: &SdkConfig, region: &Region) {
    let query = Query {
        service: "sts",
        name: "sts:GetCallerIdentity",
        version: "2011-06-15",
        action: "GetCallerIdentity",
        params: Vec::new(),
        region,
    };
    let Ok(place) = QueryEndpoint::of(config, &query) else {
        return;
    };
    let request = QueryRequest {
        service: query.service,
        action: query.action,
        place: &place,
        form: form(&query),
    };
    let until = Instant::now() + TIME_DEADLINE;
    let asked = send::send(config, &request, send::unsigned());
    let asked = within(query.name, until, asked).await;
    tracing::debug!(
        answered = matches!(asked, Ok(Ok(_))),
        "compared the clock with STS"
    );
}

fn form(query: &Query<'_>) -> String {
    let mut form = Serializer::new(String::new());
    form.append_pair("Action", query.action);
    form.append_pair("Version", query.version);
    form.extend_pairs(&query.params);
    form.finish()
}

/// URL of a service, and the region its requests are signed for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct QueryEndpoint {
    url: Url,
    region: Region,
}

impl QueryEndpoint {
    /// Returns the configured endpoint, or the public one.
    fn of(config: &SdkConfig, query: &Query<'_>) -> Result<Self, QueryError> {
        let Query {
            service, region, ..
        } = query;
        let partition = Partition::of(region);
        let text = endpoints::set_for(config, &service.to_ascii_uppercase()).unwrap_or_else(|| {
            let fips = config.use_fips().unwrap_or_default();
            let dual_stack = config.use_dual_stack().unwrap_or_default();
            format!("https://{}/", host(query, partition, fips, dual_stack))
        });
        let parsed =
            Url::parse(&text).map_err(|_| "expected a URL such as https://HOST:PORT".to_owned());
        let url = parsed.and_then(|url| match url.has_host() {
            true => Ok(url),
            false => Err("it has no host".to_owned()),
        });
        let region = match *service {
            "iam" => partition.iam_region,
            _ => region,
        };
        Ok(Self {
            url: url.map_err(|reason| QueryError::Unreachable {
                reason: format!("invalid endpoint in the configuration: {reason}").into(),
                host: text,
            })?,
            region: region.into(),
        })
    }

    fn host(&self) -> String {
        self.url.host_str().unwrap_or_default().to_owned()
    }

    fn unreachable(&self, reason: String) -> QueryError {
        let host = self.host();
        QueryError::Unreachable {
            host,
            reason: reason.into(),
        }
    }

    fn failed(&self, failed: RequestFailure) -> QueryError {
        let host = self.host();
        match failed {
            RequestFailure::BadAnswer(reason) => QueryError::BadAnswer { host, reason },
            RequestFailure::Unreachable(reason) => QueryError::Unreachable { host, reason },
        }
    }
}

/// Returns the public host name of a service.
fn host(query: &Query<'_>, partition: &Partition, fips: bool, dual_stack: bool) -> String {
    let Query {
        service, region, ..
    } = query;
    if *service == "iam" {
        return partition.iam_host(fips, dual_stack);
    }
    let suffix = match dual_stack {
        true => partition.dual_stack_suffix,
        false => partition.dns_suffix,
    };
    // In GovCloud the plain names have validated cryptography, and EC2 has no others there.
    match fips && partition.name != "aws-us-gov" {
        true => format!("{service}-fips.{region}.{suffix}"),
        false => format!("{service}.{region}.{suffix}"),
    }
}
