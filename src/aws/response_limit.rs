//! Limits for the answers of AWS services, and for answers of other servers in their place.
//!
//! The SDK reads a body to its end, whatever its length and duration. Every call of every client
//! and credential provider passes through this module, which reads the whole body before the SDK
//! gets it. Body sizes are measured on the connection; nothing is ever decompressed.

use std::time::{Duration, SystemTime};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::{
    RuntimeComponents, RuntimeComponentsBuilder,
};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use aws_smithy_types::config_bag::ConfigBag;
use aws_types::sdk_config::SharedHttpClient;
use thiserror::Error;
use tokio::time::timeout;

use super::{calls, pages, signable};

/// Maximum bytes of an answer about one resource: a session, a key, an identity. Such answers have
/// a few kilobytes.
const ONE: usize = 1 << 20;
/// Maximum bytes of a page of a list. 100 databases take about 1 MB, 1,000 EC2 instances about 5
/// MB.
const LIST: usize = 16 << 20;
/// Timeout of one attempt, to the last byte of its answer. Callers have shorter deadlines for all
/// attempts together; this one limits a slow answer to a caller without a deadline.
const LONGEST: Duration = Duration::from_secs(30);

/// An answer that is longer than the limit.
#[derive(Clone, Debug, Error)]
#[error("the answer from {host} is longer than {} MiB", .limit >> 20)]
pub(crate) struct TooLong {
    pub(super) host: String,
    /// Limit in bytes.
    pub(super) limit: usize,
}

/// An answer that did not end in time.
#[derive(Clone, Debug, Error)]
#[error("no complete answer from {host} within {} s", LONGEST.as_secs())]
struct TooLate {
    host: String,
}

/// Wraps a client with the limits.
pub(super) fn bounded(client: SharedHttpClient) -> SharedHttpClient {
    SharedHttpClient::new(LimitedClient(client))
}

/// A client or a connector of the SDK with limits for its answers.
#[derive(Debug)]
struct LimitedClient<T>(T);

impl HttpClient for LimitedClient<SharedHttpClient> {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(LimitedClient(self.0.http_connector(settings, components)))
    }

    fn validate_base_client_config(
        &self,
        components: &RuntimeComponentsBuilder,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.validate_base_client_config(components, config)
    }

    fn validate_final_config(
        &self,
        components: &RuntimeComponents,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.validate_final_config(components, config)
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.0.connector_metadata()
    }
}

impl HttpConnector for LimitedClient<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        // The TLS of the SDK panics at a time before 1970.
        if let Err(era) = signable(SystemTime::now()) {
            return HttpConnectorFuture::ready(Err(ConnectorError::user(Box::new(era))));
        }
        let (host, limit) = (host(request.uri()), limit(&request));
        let tries = calls::sent(&host);
        let answering = self.0.call(request);
        HttpConnectorFuture::new(async move {
            let whole = async {
                let answer = answering.await?;
                collected(answer, &host, limit).await
            };
            let answer = timeout(LONGEST, whole).await.unwrap_or_else(|_| {
                let host = host.clone();
                Err(ConnectorError::timeout(Box::new(TooLate { host })))
            });
            if let (Some(tries), Ok(answer)) = (tries, &answer) {
                tries.answered(answer);
            }
            answer
        })
    }
}

/// Returns the host of a URI, the only part that messages show.
fn host(uri: &str) -> String {
    let authority = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let end = authority.find(['/', '?', '#']).unwrap_or(authority.len());
    authority[..end]
        .rsplit('@')
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// Returns the maximum bytes of the answer, according to the name of the call.
fn limit(request: &HttpRequest) -> usize {
    let target = request.headers().get("x-amz-target");
    let of_json = target.and_then(|target| target.rsplit('.').next());
    let of_query = request
        .body()
        .bytes()
        .and_then(|form| form.strip_prefix(b"Action="))
        .and_then(|action| std::str::from_utf8(action).ok());
    let operation = of_json.or(of_query).unwrap_or_default();
    let lists = ["Describe", "List", "Simulate"];
    match lists.iter().any(|word| operation.starts_with(word)) {
        true => LIST,
        false => ONE,
    }
}

/// Reads the body into memory and returns the answer with it.
async fn collected(
    mut answer: HttpResponse,
    host: &str,
    limit: usize,
) -> Result<HttpResponse, ConnectorError> {
    let too_long = || {
        let host = host.to_owned();
        // Another attempt would get the same answer.
        ConnectorError::other(Box::new(TooLong { host, limit }), None)
    };
    let announced = answer.body().content_length();
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_long());
    }
    let mut body = ByteStream::new(std::mem::replace(answer.body_mut(), SdkBody::taken()));
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| ConnectorError::io(Box::new(error)))?;
        if chunk.len() > limit - bytes.len() {
            return Err(too_long());
        }
        bytes.extend_from_slice(&chunk);
    }
    pages::received(bytes.len());
    *answer.body_mut() = SdkBody::from(bytes);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: Option<&'static str>, form: &'static str) -> HttpRequest {
        let mut request = HttpRequest::new(SdkBody::from(form));
        if let Some(target) = target {
            request.headers_mut().insert("x-amz-target", target);
        }
        request
    }

    #[test]
    fn lists_may_be_longer_than_answers_about_one_thing() {
        for (target, form, expected) in [
            (Some("AmazonSSM.StartSession"), "{}", ONE),
            (Some("AmazonSSM.DescribeInstanceInformation"), "{}", LIST),
            (Some("TrentService.GenerateDataKey"), "{}", ONE),
            (None, "Action=DescribeDBClusters&Version=2014-10-31", LIST),
            (None, "Action=SimulatePrincipalPolicy&Version=x", LIST),
            (None, "Action=GetCallerIdentity&Version=x", ONE),
            (None, "Action=AssumeRole&Version=x", ONE),
            (None, "", ONE),
        ] {
            assert_eq!(limit(&request(target, form)), expected, "{target:?} {form}");
        }
    }

    #[test]
    fn only_the_host_of_an_address_is_shown() {
        for (uri, expected) in [
            (
                "https://ssm.eu-central-1.amazonaws.com/",
                "ssm.eu-central-1.amazonaws.com",
            ),
            (
                "https://localhost:8443/x?X-Amz-Signature=1",
                "localhost:8443",
            ),
            ("http://user:word@169.254.170.2/v2?x", "169.254.170.2"),
            ("/", ""),
        ] {
            assert_eq!(host(uri), expected, "{uri}");
        }
    }
}
