//! Validation of keys, session tokens and regions.
//!
//! All of them end up in HTTP headers, which take visible ASCII characters. For other characters
//! the SDK panics or fails with a message about its own builders, and AWS reports a wrong
//! signature. Each value is therefore checked where it enters, and refused with its name and its
//! source. The value itself is never shown.

use std::ffi::OsString;
use std::sync::Arc;

use aws_credential_types::Credentials;
use aws_profile::{Keys, Origin, Secret};
use aws_smithy_types::retry::{RetryConfig, RetryMode};

use super::CredentialsError;
use crate::base::redacted::remember;

/// Maximum length of a value: session tokens have some kilobytes, and AWS does not accept headers
/// of more than 16 KB in total.
const LONGEST: usize = 16 * 1024;

pub(super) const ENVIRONMENT: &str = "the environment";

/// Variables that the SDK writes into the User-Agent header of every request.
const IN_HEADERS: [&str; 1] = ["AWS_EXECUTION_ENV"];
/// Variables for the endpoints of the services that pgiam calls.
const ENDPOINTS: [&str; 11] = [
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_EC2",
    "AWS_ENDPOINT_URL_IAM",
    "AWS_ENDPOINT_URL_KMS",
    "AWS_ENDPOINT_URL_RDS",
    "AWS_ENDPOINT_URL_SIGNIN",
    "AWS_ENDPOINT_URL_SSM",
    "AWS_ENDPOINT_URL_SSMMESSAGES",
    "AWS_ENDPOINT_URL_SSO",
    "AWS_ENDPOINT_URL_SSO_OIDC",
    "AWS_ENDPOINT_URL_STS",
];

/// An invalid value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} from {source_of} {fault}")]
pub struct MalformedValue {
    /// Name of the value in its source.
    pub what: String,
    /// Source of the value: "the environment", "profile dev".
    pub source_of: String,
    /// Problem with the value, as a predicate.
    pub fault: &'static str,
}

impl MalformedValue {
    pub(super) fn new(what: &str, source_of: &str, fault: &'static str) -> Self {
        Self {
            what: what.to_owned(),
            source_of: source_of.to_owned(),
            fault,
        }
    }
}

impl From<MalformedValue> for CredentialsError {
    fn from(malformed: MalformedValue) -> Self {
        Self::Malformed(Arc::new(malformed))
    }
}

/// Returns the problem with a value, if any.
fn fault(value: &str) -> Option<&'static str> {
    let is_visible = |c: char| c.is_ascii_graphic();
    if value.chars().all(is_visible) && !value.is_empty() && value.len() <= LONGEST {
        return None;
    }
    let breaks = |c: char| c == '\r' || c == '\n';
    let inner = value.trim_end_matches(breaks);
    Some(if value.trim().is_empty() {
        "is empty"
    } else if inner.len() < value.len() && inner.chars().all(is_visible) {
        "ends in a line break (CRLF?)"
    } else if value.contains(breaks) {
        "contains a line break"
    } else if value.trim().len() < value.len() && value.trim().chars().all(is_visible) {
        "begins or ends with whitespace"
    } else if value.chars().any(char::is_control) {
        "contains a control character"
    } else if !value.is_ascii() {
        "contains a character that is not ASCII"
    } else if value.len() > LONGEST {
        "is longer than 16 KB"
    } else {
        "contains whitespace"
    })
}

/// Reads a variable of the AWS tools.
pub(crate) fn variable(name: &str) -> Result<Option<String>, MalformedValue> {
    let value = std::env::var_os(name);
    let text = value.map(OsString::into_string).transpose();
    text.map_err(|_| MalformedValue::new(name, ENVIRONMENT, "is not valid UTF-8"))
}

/// Checks keys of the environment or of a file. An empty session token counts as none.
///
/// # Errors
/// [`MalformedValue`], with the variable or with file and line.
pub(super) fn keys(keys: &Keys) -> Result<(), MalformedValue> {
    let check = |key: &str, value: &str, origin: &Origin| match fault(value) {
        None => Ok(()),
        Some(fault) => Err(match origin {
            Origin::Variable(name) => MalformedValue::new(name, ENVIRONMENT, fault),
            origin => MalformedValue::new(key, &origin.to_string(), fault),
        }),
    };
    let secret = |key: &str, secret: &Secret| {
        check(key, secret.expose(), &secret.origin)?;
        remember(secret.expose());
        Ok(())
    };
    let id = &keys.access_key_id;
    check("aws_access_key_id", id.as_str(), &id.origin)?;
    secret("aws_secret_access_key", &keys.secret_access_key)?;
    match &keys.session_token {
        Some(token) if !token.expose().is_empty() => secret("aws_session_token", token),
        _ => Ok(()),
    }
}

/// Checks credentials from `source_of`, whatever their provider.
pub(super) fn credentials(
    credentials: &Credentials,
    source_of: &str,
) -> Result<(), MalformedValue> {
    for (what, value) in [
        ("the access key id", Some(credentials.access_key_id())),
        (
            "the secret access key",
            Some(credentials.secret_access_key()),
        ),
        ("the session token", credentials.session_token()),
    ] {
        if let Some(fault) = value.and_then(fault) {
            return Err(MalformedValue::new(what, source_of, fault));
        }
    }
    remember(credentials.secret_access_key());
    if let Some(token) = credentials.session_token() {
        remember(token);
    }
    Ok(())
}

/// Checks the variables that the SDK reads by itself and panics on, or fails with words of its own.
///
/// # Errors
/// [`MalformedValue`], with the name of the variable.
pub(super) fn variables_of_sdk() -> Result<(), MalformedValue> {
    headers()?;
    endpoints()
}

/// Checks the variables that the SDK passes on in headers, if they are set.
fn headers() -> Result<(), MalformedValue> {
    for name in IN_HEADERS {
        let Some(value) = variable(name)? else {
            continue;
        };
        // A header value may contain spaces.
        if let Some(fault) = fault(&value.replace(' ', "_")).filter(|_| !value.is_empty()) {
            return Err(MalformedValue::new(name, ENVIRONMENT, fault));
        }
    }
    Ok(())
}

/// Returns the number of attempts and the retry mode, from the environment and the profile.
///
/// The SDK panics on values that it does not know: `legacy`, which the AWS CLI documents, and empty
/// ones.
///
/// # Errors
/// [`MalformedValue`] for a value that the AWS CLI does not know either.
pub(super) fn retries(profile: &RetrySettings, name: &str) -> Result<RetryConfig, MalformedValue> {
    let of_profile = format!("profile {name}");
    let pick = |key, value: &Option<String>, variable_name| -> Result<_, MalformedValue> {
        let given = variable(variable_name)?.filter(|value| !value.trim().is_empty());
        Ok(match given {
            Some(value) => Some((variable_name, ENVIRONMENT.to_owned(), value)),
            None => value.clone().map(|value| (key, of_profile.clone(), value)),
        })
    };
    let mut retries = RetryConfig::standard();
    if let Some((what, source_of, value)) =
        pick("max_attempts", &profile.max_attempts, "AWS_MAX_ATTEMPTS")?
    {
        let attempts = value
            .trim()
            .parse::<u32>()
            .ok()
            .filter(|attempts| *attempts > 0);
        let wrong = || MalformedValue::new(what, &source_of, "is not a whole number of 1 or more");
        retries = retries.with_max_attempts(attempts.ok_or_else(wrong)?);
    }
    if let Some((what, source_of, value)) =
        pick("retry_mode", &profile.retry_mode, "AWS_RETRY_MODE")?
    {
        let mode = value.trim().to_ascii_lowercase();
        retries = retries.with_retry_mode(match mode.as_str() {
            // The SDK has no equivalent of botocore's `legacy`; `standard` is nearest to it.
            "standard" | "legacy" => RetryMode::Standard,
            "adaptive" => RetryMode::Adaptive,
            _ => {
                let fault = "is not a retry mode (standard, adaptive or legacy)";
                return Err(MalformedValue::new(what, &source_of, fault));
            }
        });
    }
    Ok(retries)
}

/// Retry settings of a profile, as written.
#[derive(Clone, Debug, Default)]
pub(super) struct RetrySettings {
    pub(super) max_attempts: Option<String>,
    pub(super) retry_mode: Option<String>,
}

/// Variables that name a profile or a file. The SDK treats a value that is not UTF-8 as unset and
/// would sign with another identity.
const NAMES: [&str; 5] = [
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CA_BUNDLE",
];

/// Checks that the variables which name a profile or a file are text.
pub(super) fn names() -> Result<(), MalformedValue> {
    NAMES.iter().try_for_each(|name| variable(name).map(drop))
}

/// Checks the endpoints set in the environment. The SDK panics on an empty one.
fn endpoints() -> Result<(), MalformedValue> {
    let ignores = variable("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")?;
    if ignores.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(());
    }
    for name in ENDPOINTS {
        if let Some(value) = variable(name)? {
            endpoint(&value, name, ENVIRONMENT)?;
        }
    }
    Ok(())
}

/// Checks the URL of an endpoint.
pub(super) fn endpoint(value: &str, what: &str, source_of: &str) -> Result<(), MalformedValue> {
    let wrong = |fault| Err(MalformedValue::new(what, source_of, fault));
    if value.trim().is_empty() {
        return wrong("is empty; set it to a URL or unset it");
    }
    if let Some(fault) = fault(value) {
        return wrong(fault);
    }
    match url::Url::parse(value) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") => wrong(
            "is not an http or https URL, such as https://vpce-1.ssm.eu-central-1.vpce.amazonaws.com",
        ),
        Ok(url) if url.has_host() => Ok(()),
        Ok(_) | Err(_) => {
            wrong("is not a URL, such as https://vpce-1.ssm.eu-central-1.vpce.amazonaws.com")
        }
    }
}

/// Returns `value` if it is a valid region name: it becomes part of host names and of signatures.
pub(super) fn region(value: String, what: &str, source_of: &str) -> Result<String, MalformedValue> {
    if let Some(fault) = fault(&value) {
        return Err(MalformedValue::new(what, source_of, fault));
    }
    let is_label = |c: char| c.is_ascii_alphanumeric() || c == '-';
    match value.chars().all(is_label) && value.len() <= 63 {
        true => Ok(value),
        false => Err(MalformedValue::new(
            what,
            source_of,
            "is not a region name such as eu-central-1",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_fault_has_its_words() {
        for (value, expected) in [
            ("AKIAIOSFODNN7EXAMPLE", None),
            ("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY+=", None),
            ("", Some("is empty")),
            (" \r\n", Some("is empty")),
            ("AKIA\r", Some("ends in a line break (CRLF?)")),
            ("AKIA\n", Some("ends in a line break (CRLF?)")),
            ("AKIA\r\n", Some("ends in a line break (CRLF?)")),
            ("AK\nIA", Some("contains a line break")),
            ("AK\nIA\n", Some("contains a line break")),
            (" AKIA", Some("begins or ends with whitespace")),
            ("AKIA\t", Some("begins or ends with whitespace")),
            ("AK IA", Some("contains whitespace")),
            ("AK\tIA", Some("contains a control character")),
            ("AK\0IA", Some("contains a control character")),
            ("AK\x1b[2JIA", Some("contains a control character")),
            ("AK\x7fIA", Some("contains a control character")),
            ("AKIÄ", Some("contains a character that is not ASCII")),
            (
                "\u{feff}AKIA",
                Some("contains a character that is not ASCII"),
            ),
        ] {
            assert_eq!(fault(value), expected, "{value:?}");
        }
        assert_eq!(fault(&"x".repeat(LONGEST)), None);
        assert_eq!(
            fault(&"x".repeat(LONGEST + 1)),
            Some("is longer than 16 KB")
        );
    }

    #[test]
    fn each_part_of_credentials_is_looked_at_and_none_is_shown() {
        let good = ["AKID", "secret", "session"];
        for (place, what) in [
            (0, "the access key id"),
            (1, "the secret access key"),
            (2, "the session token"),
        ] {
            let mut parts = good.map(str::to_owned);
            parts[place] = "hidden\r\n".to_owned();
            let [id, secret, token] = parts;
            let bad = Credentials::new(id, secret, Some(token), None, "test");
            let refused = credentials(&bad, "the container").unwrap_err();
            assert_eq!(
                refused.to_string(),
                format!("{what} from the container ends in a line break (CRLF?)")
            );
        }
        let [id, secret, token] = good;
        let fine = Credentials::new(id, secret, Some(token.to_owned()), None, "test");
        assert_eq!(credentials(&fine, "x"), Ok(()));
    }

    #[test]
    fn retries_are_what_the_tools_know() {
        let read = |attempts: Option<&str>, mode: Option<&str>| {
            let settings = RetrySettings {
                max_attempts: attempts.map(str::to_owned),
                retry_mode: mode.map(str::to_owned),
            };
            retries(&settings, "dev")
        };
        let read_mode = read(Some("5"), Some("legacy")).unwrap();
        assert_eq!(
            (read_mode.max_attempts(), read_mode.mode()),
            (5, RetryMode::Standard)
        );
        assert_eq!(
            read(None, Some("Adaptive")).unwrap().mode(),
            RetryMode::Adaptive
        );
        for wrong in ["0", "-1", "x", "99999999999999999999"] {
            let refused = read(Some(wrong), None).unwrap_err().to_string();
            assert_eq!(
                refused,
                "max_attempts from profile dev is not a whole number of 1 or more"
            );
        }
        let refused = read(None, Some("nonsense")).unwrap_err().to_string();
        assert!(refused.starts_with("retry_mode from profile dev is not a retry mode"));
    }

    #[test]
    fn endpoints_are_http_urls() {
        let fault = |value: &str| {
            let refused = endpoint(value, "AWS_ENDPOINT_URL", ENVIRONMENT);
            refused.err().map(|refused| refused.fault)
        };
        for good in [
            "https://localhost:8443",
            "http://127.0.0.1:1/path",
            "http://[::1]:4566",
        ] {
            assert_eq!(fault(good), None, "{good}");
        }
        for (bad, begin) in [
            ("", "is empty"),
            (" ", "is empty"),
            ("https://localhost\r", "ends in a line break"),
            ("localhost:8443", "is not an http or https URL"),
            ("ftp://localhost", "is not an http or https URL"),
            ("http://", "is not a URL"),
            ("https://localhost:99999", "is not a URL"),
            ("vpce-1.example.com", "is not a URL"),
        ] {
            let fault = fault(bad).unwrap();
            assert!(fault.starts_with(begin), "{bad:?}: {fault}");
        }
    }

    #[test]
    fn regions_are_labels_of_host_names() {
        let read = |value: &str| region(value.to_owned(), "region", "profile dev");
        assert_eq!(read("eu-central-1").unwrap(), "eu-central-1");
        for (value, fault) in [
            ("eu-central-1\r", "ends in a line break (CRLF?)"),
            ("eu central 1", "contains whitespace"),
            (
                "evil.example.com/",
                "is not a region name such as eu-central-1",
            ),
        ] {
            let refused = read(value).unwrap_err().to_string();
            assert_eq!(refused, format!("region from profile dev {fault}"));
        }
    }
}
