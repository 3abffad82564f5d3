//! Checks the answers of the EC2 instance metadata service before the SDK reads them.
//!
//! The service is reached over plain HTTP at an address where anything may answer: a captive
//! portal, or the host of a container. The SDK builds a path from one answer and a deadline from a
//! header of another, and panics on invalid values.

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_types::sdk_config::SharedHttpClient;
use thiserror::Error;

/// Lifetime of a metadata session in seconds.
const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
/// Maximum lifetime of a session in seconds ("Use IMDSv2", EC2 User Guide).
const LONGEST_TTL: u64 = 21_600;
/// End of the path that lists the role of the instance.
const ROLES: &str = "/security-credentials/";
/// Maximum length of a role name (IAM API Reference, `CreateRole`: 64), with room for a path.
const LONGEST_ROLE: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("invalid answer from the EC2 instance metadata service: {0}")]
struct MetadataError(&'static str);

/// Wraps a client so that it fails for answers that the metadata service cannot give.
pub(super) fn checked(client: SharedHttpClient) -> SharedHttpClient {
    SharedHttpClient::new(CheckedMetadata(client))
}

#[derive(Debug)]
struct CheckedMetadata<T>(T);

impl HttpClient for CheckedMetadata<SharedHttpClient> {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(CheckedMetadata(self.0.http_connector(settings, components)))
    }
}

impl HttpConnector for CheckedMetadata<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let lists_roles = request.uri().ends_with(ROLES);
        let answering = self.0.call(request);
        HttpConnectorFuture::new(async move {
            let answer = answering.await?;
            match check(&answer, lists_roles) {
                Ok(()) => Ok(answer),
                Err(nonsense) => Err(ConnectorError::other(Box::new(nonsense), None)),
            }
        })
    }
}

fn check(answer: &HttpResponse, lists_roles: bool) -> Result<(), MetadataError> {
    let lifetime = answer.headers().get(TTL);
    let lasts = |text: &str| {
        text.parse()
            .is_ok_and(|seconds: u64| seconds <= LONGEST_TTL)
    };
    if lifetime.is_some_and(|text| !lasts(text)) {
        return Err(MetadataError("invalid token lifetime"));
    }
    // The limits below have read the body to its end.
    let body = answer.body().bytes().unwrap_or_default();
    let is_role = body.len() <= LONGEST_ROLE && body.trim_ascii().iter().all(u8::is_ascii_graphic);
    if lists_roles && answer.status().is_success() && !is_role {
        return Err(MetadataError("invalid role name"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use aws_smithy_types::body::SdkBody;

    use super::*;

    #[test]
    fn answers_that_cannot_be_given_are_refused() {
        let answer = |status: u16, ttl: Option<&'static str>, body: &str| {
            let status = status.try_into().unwrap();
            let mut answer = HttpResponse::new(status, SdkBody::from(body));
            if let Some(ttl) = ttl {
                answer.headers_mut().insert(TTL, ttl);
            }
            answer
        };
        let long = "x".repeat(900_000);
        for (status, ttl, body, roles, right) in [
            (200, Some("21600"), "token", false, true),
            (200, Some("18446744073709551615"), "token", false, false),
            (200, Some("9223372036854775807"), "token", false, false),
            (200, Some("-1"), "token", false, false),
            (200, None, "my-role\n", true, true),
            (200, None, "my+role=,.@-x", true, true),
            (404, None, "<html>not found</html>", true, true),
            (200, None, "\x1b[31mro\r\nle ../..", true, false),
            (200, None, &long, true, false),
            (200, None, "<html> portal", true, false),
            (200, None, &long, false, true),
        ] {
            let checked = check(&answer(status, ttl, body), roles);
            assert_eq!(checked.is_ok(), right, "{status} {ttl:?} {}", body.len());
        }
    }
}
