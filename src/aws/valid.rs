//! What may not be in a key, a session token or a region.
//!
//! All of them end up in HTTP headers, which take visible ASCII characters. The SDK panics on anything
//! else, or fails with words about its own builders; AWS answers that the signature is wrong. So each
//! value is looked at where it comes in, and refused by its name and its source. The value itself is
//! never shown.

use std::ffi::OsString;
use std::sync::Arc;

use aws_config::profile::Profile;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError as SdkError;
use aws_smithy_types::retry::{RetryConfig, RetryMode};

use super::CredentialsError;
use crate::base::redacted::remember;

/// The longest value that is passed on: session tokens have some kilobytes, and AWS does not take
/// headers of more than 16 KB in all.
const LONGEST: usize = 16 * 1024;

const ID: &str = "AWS_ACCESS_KEY_ID";
const SECRETS: [&str; 2] = ["AWS_SECRET_ACCESS_KEY", "SECRET_ACCESS_KEY"];
const TOKEN: &str = "AWS_SESSION_TOKEN";
pub(super) const ENVIRONMENT: &str = "the environment";

/// Variables that the SDK writes into the User-Agent header of every request.
const IN_HEADERS: [&str; 1] = ["AWS_EXECUTION_ENV"];
/// Variables for the endpoints of the services that are asked.
const ENDPOINTS: [&str; 10] = [
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_EC2",
    "AWS_ENDPOINT_URL_IAM",
    "AWS_ENDPOINT_URL_KMS",
    "AWS_ENDPOINT_URL_RDS",
    "AWS_ENDPOINT_URL_SSM",
    "AWS_ENDPOINT_URL_SSMMESSAGES",
    "AWS_ENDPOINT_URL_SSO",
    "AWS_ENDPOINT_URL_SSO_OIDC",
    "AWS_ENDPOINT_URL_STS",
];
/// Where a region comes from, in this order.
const REGIONS: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];

/// A value that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} from {source_of} {fault}")]
pub struct Malformed {
    /// Its name, as its source has it.
    pub what: String,
    /// Where it is from: "the environment", "profile dev".
    pub source_of: String,
    /// What is wrong with it, as a predicate.
    pub fault: &'static str,
}

impl Malformed {
    pub(super) fn new(what: &str, source_of: &str, fault: &'static str) -> Self {
        Self {
            what: what.to_owned(),
            source_of: source_of.to_owned(),
            fault,
        }
    }

    /// As the failure of a provider of the SDK; [`CredentialsError::behind`] finds it again.
    pub(super) fn of_provider(self) -> SdkError {
        SdkError::provider_error(CredentialsError::from(self))
    }
}

impl From<Malformed> for CredentialsError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(Arc::new(malformed))
    }
}

/// What is wrong with a value, if anything.
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
        "begins or ends with a blank"
    } else if value.chars().any(char::is_control) {
        "contains a control character"
    } else if !value.is_ascii() {
        "contains a character that is not ASCII"
    } else if value.len() > LONGEST {
        "is longer than 16 KB"
    } else {
        "contains a blank"
    })
}

/// A variable of AWS's tools.
pub(super) fn variable(name: &str) -> Result<Option<String>, Malformed> {
    // `SECRET_ACCESS_KEY` is an older name, which the SDK takes as well.
    let value = match name.strip_prefix("AWS_") {
        Some(rest) => std::env::var_os(format!("AWS_{rest}")),
        None => std::env::var_os("SECRET_ACCESS_KEY"),
    };
    let text = value.map(OsString::into_string).transpose();
    text.map_err(|_| Malformed::new(name, ENVIRONMENT, "is not valid UTF-8"))
}

/// What is wrong with the credentials of the environment, if it has any.
///
/// The SDK takes half of them for none and goes on to the next place, that is, to another identity.
pub(super) fn environment() -> Result<(), Malformed> {
    let given = |value: &String| !value.trim().is_empty();
    let Some(id) = variable(ID)?.filter(given) else {
        return Ok(());
    };
    let [secret, second] = [variable(SECRETS[0])?, variable(SECRETS[1])?].map(|s| s.filter(given));
    let (name, secret) = match (secret, second) {
        (None, Some(second)) => (SECRETS[1], second),
        (secret, _) => (SECRETS[0], secret.unwrap_or_default()),
    };
    // The SDK trims the token, and takes a blank one for none.
    let token = variable(TOKEN)?.filter(given);
    let values = [(ID, Some(id)), (name, Some(secret)), (TOKEN, token)];
    for (name, value) in values {
        let value = value.as_deref();
        let value = value.map(|value| if name == TOKEN { value.trim() } else { value });
        if let Some(fault) = value.and_then(fault) {
            return Err(Malformed::new(name, ENVIRONMENT, fault));
        }
        if let Some(value) = value.filter(|_| name != ID) {
            remember(value);
        }
    }
    Ok(())
}

/// What is wrong with the keys that a profile holds, if it holds any.
pub(super) fn static_keys(profile: &Profile) -> Result<(), Malformed> {
    let source_of = format!("profile {}", profile.name());
    for key in [
        "aws_access_key_id",
        "aws_secret_access_key",
        "aws_session_token",
    ] {
        let value = profile.get(key);
        if let Some(fault) = value.and_then(fault) {
            return Err(Malformed::new(key, &source_of, fault));
        }
        if let Some(value) = value.filter(|_| key != "aws_access_key_id") {
            remember(value);
        }
    }
    Ok(())
}

/// What is wrong with credentials from `source_of`, whatever has made them.
pub(super) fn credentials(credentials: &Credentials, source_of: &str) -> Result<(), Malformed> {
    for (what, value) in [
        ("the access key id", Some(credentials.access_key_id())),
        (
            "the secret access key",
            Some(credentials.secret_access_key()),
        ),
        ("the session token", credentials.session_token()),
    ] {
        if let Some(fault) = value.and_then(fault) {
            return Err(Malformed::new(what, source_of, fault));
        }
    }
    remember(credentials.secret_access_key());
    if let Some(token) = credentials.session_token() {
        remember(token);
    }
    Ok(())
}

/// What is wrong with the variables that the SDK passes on in headers, if they are set.
pub(super) fn headers() -> Result<(), Malformed> {
    for name in IN_HEADERS {
        let Some(value) = variable(name)? else {
            continue;
        };
        // A header takes blanks within.
        if let Some(fault) = fault(&value.replace(' ', "_")).filter(|_| !value.is_empty()) {
            return Err(Malformed::new(name, ENVIRONMENT, fault));
        }
    }
    Ok(())
}

/// Returns how often calls are tried, and in which mode, from the environment and the profile.
///
/// The SDK panics on values that it does not know: `legacy`, which the AWS CLI documents, and empty ones.
///
/// # Errors
/// [`Malformed`] for a value that the AWS CLI does not know either.
pub(super) fn retries(profile: &RetrySettings, name: &str) -> Result<RetryConfig, Malformed> {
    let of_profile = format!("profile {name}");
    let pick = |key, value: &Option<String>, variable_name| -> Result<_, Malformed> {
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
        let wrong = || Malformed::new(what, &source_of, "is not a whole number of 1 or more");
        retries = retries.with_max_attempts(attempts.ok_or_else(wrong)?);
    }
    if let Some((what, source_of, value)) =
        pick("retry_mode", &profile.retry_mode, "AWS_RETRY_MODE")?
    {
        let mode = value.trim().to_ascii_lowercase();
        retries = retries.with_retry_mode(match mode.as_str() {
            // What `legacy` means to botocore, the SDK has no part of; `standard` is nearest to it.
            "standard" | "legacy" => RetryMode::Standard,
            "adaptive" => RetryMode::Adaptive,
            _ => {
                let fault = "is not a retry mode (standard, adaptive or legacy)";
                return Err(Malformed::new(what, &source_of, fault));
            }
        });
    }
    Ok(retries)
}

/// The retry settings of a profile, as written.
#[derive(Clone, Debug, Default)]
pub(super) struct RetrySettings {
    pub(super) max_attempts: Option<String>,
    pub(super) retry_mode: Option<String>,
}

/// Variables that name a profile or a file. The SDK takes one that is not text for one that is not set:
/// another identity would sign.
const NAMES: [&str; 4] = [
    "AWS_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CA_BUNDLE",
];

/// Checks that the variables which name a profile or a file are text.
pub(super) fn names() -> Result<(), Malformed> {
    NAMES.iter().try_for_each(|name| variable(name).map(drop))
}

/// What is wrong with the endpoints that the environment sets. The SDK panics on an empty one.
pub(super) fn endpoints() -> Result<(), Malformed> {
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

/// What is wrong with the URL of an endpoint.
pub(super) fn endpoint(value: &str, what: &str, source_of: &str) -> Result<(), Malformed> {
    let wrong = |fault| Err(Malformed::new(what, source_of, fault));
    if value.trim().is_empty() {
        return wrong("is empty; unset it, or give a URL");
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

/// The region of the environment.
///
/// # Errors
/// [`Malformed`] when it cannot be the name of one.
pub(super) fn region_of_environment() -> Result<Option<String>, Malformed> {
    for name in REGIONS {
        let given = |value: &String| !value.trim().is_empty();
        if let Some(value) = variable(name)?.filter(given) {
            return region(value, name, ENVIRONMENT).map(Some);
        }
    }
    Ok(None)
}

/// `value`, if it can be the name of a region: it becomes part of host names and of signatures.
pub(super) fn region(value: String, what: &str, source_of: &str) -> Result<String, Malformed> {
    if let Some(fault) = fault(&value) {
        return Err(Malformed::new(what, source_of, fault));
    }
    let is_label = |c: char| c.is_ascii_alphanumeric() || c == '-';
    match value.chars().all(is_label) && value.len() <= 63 {
        true => Ok(value),
        false => Err(Malformed::new(
            what,
            source_of,
            "is not the name of a region, such as eu-central-1",
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
            (" AKIA", Some("begins or ends with a blank")),
            ("AKIA\t", Some("begins or ends with a blank")),
            ("AK IA", Some("contains a blank")),
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
            ("eu central 1", "contains a blank"),
            (
                "evil.example.com/",
                "is not the name of a region, such as eu-central-1",
            ),
        ] {
            let refused = read(value).unwrap_err().to_string();
            assert_eq!(refused, format!("region from profile dev {fault}"));
        }
    }
}
