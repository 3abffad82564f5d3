//! Messages for the SDK's errors: the SDK's own messages are written for its developers.

use std::error::Error;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;

use super::http;
use crate::aws::response_limit::TooLong;
use crate::base::foreign_text::ForeignText;

/// Errors of the chain that only name a type of the SDK (aws-smithy-runtime-api, `result.rs` and
/// `orchestrator/error.rs`; aws-credential-types, `error.rs`; the services' `error_meta.rs`).
const EMPTY: [&str; 26] = [
    "failed to construct request",
    "request has timed out",
    "dispatch failure",
    "response error",
    "service error",
    "connector error",
    "operation error",
    "interceptor error",
    "an unknown error occurred",
    "timeout",
    "user error",
    "io error",
    "other",
    "unhandled error",
    "client error (Connect)",
    "client error (SendRequest)",
    "connection error",
    "an error occurred while loading credentials",
    "an error occurred while loading an access token",
    "unexpected credentials error",
    "unexpected access token providererror",
    "the credentials provider was not properly configured",
    "the access token provider was not properly configured",
    "the credential provider was not enabled",
    "streaming error",
    "error reading a body from connection",
];

/// Formats an error of the SDK with its causes in one line: the failure itself, without the SDK's
/// names for its own stages.
pub(crate) fn in_words(error: &(dyn Error + 'static)) -> ForeignText {
    let mut said: Vec<String> = Vec::new();
    for link in std::iter::successors(Some(error), |link| (**link).source()) {
        let text = one_line(&link.to_string());
        let text = without_request(&text).to_owned();
        let text = crate::base::tls_words::translated(text, link);
        let known = said.iter().any(|before| before.contains(&text));
        if text.is_empty() || known || is_empty(&text) {
            continue;
        }
        said.push(translated(&text).unwrap_or(text));
    }
    match said.is_empty() {
        true => "no reason given".into(),
        false => said.join(": ").into(),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the text before the `Debug` form of a request, which contains tokens.
fn without_request(text: &str) -> &str {
    let end = ["`Request {", "Request {"]
        .iter()
        .find_map(|form| text.find(form));
    text[..end.unwrap_or(text.len())].trim_end()
}

fn is_empty(text: &str) -> bool {
    // A `Debug` form inside a `Display` one, such as `Other(OtherError(…))`.
    let is_debug = || {
        let name = text.split(['(', '{', ' ']).next().unwrap_or_default();
        let is_type = name.starts_with(|c: char| c.is_ascii_uppercase())
            && name.chars().all(|c| c.is_ascii_alphanumeric());
        let rest = text[name.len()..].trim_start();
        is_type && name.len() > 1 && (rest.starts_with('(') || rest.starts_with('{'))
    };
    EMPTY.contains(&text) || text.starts_with("unhandled error (") || is_debug()
}

/// Translates a message for developers with the SDK to one for users of pgiam.
fn translated(text: &str) -> Option<String> {
    const STATUS: &str = "Non-success status from HTTP credential provider: StatusCode(";
    if let Some(status) = text.strip_prefix(STATUS) {
        return Some(format!("HTTP status {}", status.trim_end_matches(')')));
    }
    const FEATURE: &str = "cargo feature(s) enabled: ";
    if let Some((_, rest)) = text.split_once(FEATURE) {
        let feature = rest.split(['.', ' ']).next().unwrap_or_default();
        return Some(match feature {
            "credentials-login" => {
                "the profile uses login_session (aws login), which pgiam does not support"
                    .to_owned()
            }
            feature => format!("the profile uses {feature}, which pgiam does not support"),
        });
    }
    for (theirs, ours) in [
        (
            "a character literal was not valid",
            "a time in it is not of the form 2030-01-31T12:00:00Z",
        ),
        (
            "no DNS resolver was provided",
            "its host is not an address of this machine or of a container service",
        ),
        (
            "This indicates an SDK bug",
            "the instance metadata service refused the request",
        ),
        ("Failed to parse profile file", "the file cannot be parsed"),
        (
            "Failed to apply endpoint",
            "invalid endpoint in the configuration: expected a URL such as https://HOST:PORT",
        ),
        (
            "connection closed before message completed",
            "the server closed the connection before its answer was complete",
        ),
        (
            "end of file before message length reached",
            "the server closed the connection before its answer was complete",
        ),
        (
            "failed to parse header",
            "a value sent in an HTTP header contains an invalid character",
        ),
        (
            "failed to parse header value",
            "a value sent in an HTTP header contains an invalid character",
        ),
        (
            "user agent metadata was not valid",
            "an environment variable sent as User-Agent contains an invalid character",
        ),
    ] {
        if text.contains(theirs) {
            return Some(ours.to_owned());
        }
    }
    None
}

/// Returns the problem with an answer that arrived and is not a refusal: it is too long, is not
/// valid HTTP, comes from a proxy, or contains an invalid document. `None` for every other failure.
pub(crate) fn bad_answer<E>(error: &SdkError<E, HttpResponse>) -> Option<ForeignText>
where
    E: Error + 'static,
{
    let mut links = std::iter::successors(Some(error as &(dyn Error + 'static)), |link| {
        (**link).source()
    });
    if let Some(too_long) = links.find_map(|link| link.downcast_ref::<TooLong>()) {
        return Some(too_long.to_string().into());
    }
    if let Some(broken) = http::broken(error) {
        // HTTP parsers name themselves in their messages.
        tracing::debug!(reason = %in_words(error), "received an answer that is not HTTP");
        return Some(broken.into());
    }
    let answer = error.raw_response()?;
    if let Some(reason) = http::of_another(answer.status().as_u16()) {
        return Some(reason.into());
    }
    answer.status().is_success().then(|| {
        let status = answer.status().as_u16();
        // The parsers of the SDK print their own types.
        tracing::debug!(reason = %in_words(error), "cannot parse an answer from AWS");
        format!("HTTP status {status} with an unexpected body").into()
    })
}
