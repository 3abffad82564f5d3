//! Single calls of services that speak AWS's Query protocol (a form in, XML out) and whose SDK would
//! be out of all proportion: EC2's alone is larger than the rest of this program.
//!
//! A call goes the way the SDK's go: the same credentials, HTTP client, proxy, roots and endpoint
//! settings, and its answer is watched for the time it tells.

mod send;
#[cfg(test)]
mod tests;

use std::time::Duration;

use aws_config::SdkConfig;
use thiserror::Error;
use tokio::time::{Instant, sleep};
use url::Url;
use url::form_urlencoded::Serializer;

use super::calls::{Late, within};
use super::{AwsContext, CredentialsError, Keys, endpoints, http, refused_keys};
use crate::aws::api_error::ApiAnswer;
use crate::base::foreign_text::ForeignText;
use crate::base::jitter::jitter;
use crate::base::partition::Partition;
use send::{Answer, Failed, Request};

/// How long a call may take, a second attempt included.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a second attempt waits at most, so that those who were throttled together do not come
/// back together.
const PAUSE: Duration = Duration::from_millis(600);
/// How long a question for the time may delay the error that depends on it.
const TIME_DEADLINE: Duration = Duration::from_secs(2);

/// A call: `Action`, `Version` and what else stands in the form.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// As in the service's host name and in signatures: `ec2`, `iam`.
    pub service: &'static str,
    /// As IAM policies name it: `ec2:DescribeInstances`.
    pub name: &'static str,
    /// The version of its API.
    pub version: &'static str,
    /// The call, such as `DescribeInstances`.
    pub action: &'static str,
    /// The other fields of the form.
    pub params: Vec<(String, String)>,
    /// The region to ask in. IAM is one service for the region's whole partition.
    pub region: &'a str,
}

/// Why a call has no answer.
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
    /// It was not answered in time.
    #[error(transparent)]
    Late(Late),
    /// The answer is none: it is too long, or broken off.
    #[error("the answer of {host} is not usable: {reason}")]
    BadAnswer {
        /// The service's host.
        host: String,
        /// What is wrong with it.
        reason: ForeignText,
    },
    /// The service could not be reached.
    #[error("cannot reach {host}: {reason}")]
    Unreachable {
        /// Where it was looked for.
        host: String,
        /// What failed, with its causes.
        reason: ForeignText,
    },
}

impl QueryError {
    /// Whether it is a permission that is missing.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Refused { answer, .. } if denies(&answer.code))
    }

    /// Whether AWS does not accept the keys, or not any more.
    #[must_use]
    pub fn rejects_keys(&self) -> Option<Keys> {
        match self {
            Self::Refused { answer, .. } => refused_keys(&answer.code),
            _ => None,
        }
    }
}

/// Whether an error code says that a permission is missing: the services have different words.
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

/// Whether an error code says that there were too many calls.
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
    /// The answer to a call, as XML. A call that was throttled, or met a fault of the service, is made
    /// once more. Takes no longer than 10 s. Cancel-safe.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn query(&self, query: Query<'_>) -> Result<String, QueryError> {
        let config = self.sdk_config().await?;
        let place = Place::of(&config, &query)?;
        let calling = self.call(&config, &query, &place);
        let answered = within(query.name, Instant::now() + DEADLINE, calling).await;
        answered.unwrap_or_else(|late| Err(QueryError::Late(late)))
    }

    async fn call(
        &self,
        config: &SdkConfig,
        query: &Query<'_>,
        place: &Place,
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
        place: &Place,
    ) -> Result<Answer, QueryError> {
        let credentials = self.credentials().await?;
        let watch = self.clock_watch();
        let request = Request {
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

/// The document in an answer, AWS's refusal, or what is wrong with an answer that is not AWS's.
fn read(answer: Answer, query: &Query<'_>, place: &Place) -> Result<String, QueryError> {
    match http::of_another(answer.status) {
        Some(reason) => Err(place.failed(Failed::BadAnswer(reason.into()))),
        None => answer.read(query),
    }
}

/// Asks STS in `region` for nothing but the `Date` header of its answer, which the client of `config`
/// takes note of. Without credentials STS refuses the call, which is an answer too.
pub(super) async fn ask_the_time(config: &SdkConfig, region: &str) {
    let query = Query {
        service: "sts",
        name: "sts:GetCallerIdentity",
        version: "2011-06-15",
        action: "GetCallerIdentity",
        params: Vec::new(),
        region,
    };
    let Ok(place) = Place::of(config, &query) else {
        return;
    };
    let request = Request {
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
        "asked STS for the time"
    );
}

fn form(query: &Query<'_>) -> String {
    let mut form = Serializer::new(String::new());
    form.append_pair("Action", query.action);
    form.append_pair("Version", query.version);
    form.extend_pairs(&query.params);
    form.finish()
}

/// Where a service is, and the region its requests are signed for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    url: Url,
    region: String,
}

impl Place {
    /// Where the user says it is, else where AWS does.
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
            Url::parse(&text).map_err(|_| "it is no URL such as https://HOST:PORT".to_owned());
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
                reason: format!("the configured endpoint is not usable: {reason}").into(),
                host: text,
            })?,
            region: region.to_owned(),
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

    fn failed(&self, failed: Failed) -> QueryError {
        let host = self.host();
        match failed {
            Failed::BadAnswer(reason) => QueryError::BadAnswer { host, reason },
            Failed::Unreachable(reason) => QueryError::Unreachable { host, reason },
        }
    }
}

/// The public name of a service.
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
    // In GovCloud the plain names have validated cryptography, and EC2 has no other ones there.
    match fips && partition.name != "aws-us-gov" {
        true => format!("{service}-fips.{region}.{suffix}"),
        false => format!("{service}.{region}.{suffix}"),
    }
}
