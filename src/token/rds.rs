//! Tokens of Amazon RDS: a presigned request for `rds-db:connect`, without its scheme.
//!
//! The format is not specified by AWS; what counts is what botocore's `generate_db_auth_token`
//! makes, and the tests compare byte for byte.

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign as sign_request,
};
use aws_sigv4::sign::v4;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Token, TokenError, TokenFuture, TokenProvider, TokenRequest};
use crate::aws::{AwsContext, CredentialsError};
use crate::kept::{Clock, system_clock};
use crate::secret::Redacted;

/// The longest validity that RDS accepts (RDS User Guide, "IAM database authentication").
const VALIDITY: Duration = Duration::from_secs(900);

/// The service name that a token is signed for.
const SERVICE: &str = "rds-db";

/// SigV4 leaves the unreserved characters of RFC 3986 as they are and escapes all others.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Signs tokens with the credentials of one AWS identity. Keeps nothing: see
/// [`CachedTokens`](super::CachedTokens).
pub struct RdsTokens {
    aws: Arc<AwsContext>,
    clock: Clock,
}

impl RdsTokens {
    /// Tokens signed with the credentials of `aws`.
    pub fn new(aws: Arc<AwsContext>) -> Self {
        Self::with_clock(aws, system_clock())
    }

    /// The same with a clock of one's own.
    pub fn with_clock(aws: Arc<AwsContext>, clock: Clock) -> Self {
        Self { aws, clock }
    }
}

impl TokenProvider for RdsTokens {
    fn token<'a>(&'a self, request: &'a TokenRequest) -> TokenFuture<'a> {
        Box::pin(async move {
            let credentials = self.aws.credentials().await?;
            sign(request, &credentials, (self.clock)())
        })
    }

    fn invalidate(&self, _: &TokenRequest, _: &Token) {
        // Credentials without a known end (a profile with a session token, a deleted access key)
        // can only be found out like this.
        self.aws.invalidate();
    }
}

/// A token for `request`, signed at `now`. Pure: the same arguments give the same token.
///
/// # Errors
/// [`TokenError::Credentials`] with [`CredentialsError::Expired`] when the credentials have ended
/// (the database would only say that the password is wrong); [`TokenError::BadRequest`] when host,
/// port or region are none.
pub fn sign(
    request: &TokenRequest,
    credentials: &Credentials,
    now: SystemTime,
) -> Result<Token, TokenError> {
    check(request)?;
    let ends = credentials.expiry();
    if ends.is_some_and(|ends| ends <= now) {
        let profile = None;
        return Err(CredentialsError::Expired { at: ends, profile }.into());
    }
    let TokenRequest {
        host, port, user, ..
    } = request;
    let user = utf8_percent_encode(user, ESCAPED);
    let unsigned = format!("{host}:{port}/?Action=connect&DBUser={user}");
    let signature = signature_parameters(&unsigned, request, credentials, now)?;
    // The signature covers whole seconds.
    let until = whole_seconds(now) + VALIDITY;
    Ok(Token {
        value: Redacted::new(format!("{unsigned}{signature}")),
        expires_at: ends.map_or(until, |ends| ends.min(until)),
        from_cache: false,
    })
}

/// The parameters that make a signed URL of `https://` and `unsigned`, each with its `&`.
fn signature_parameters(
    unsigned: &str,
    request: &TokenRequest,
    credentials: &Credentials,
    now: SystemTime,
) -> Result<String, TokenError> {
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(VALIDITY);
    let identity = credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(&request.region)
        .name(SERVICE)
        .time(now)
        .settings(settings)
        .build()
        .map_err(|error| TokenError::Internal(Arc::new(error)))?
        .into();
    let host = signed_host(request);
    let headers = [("host", host.as_str())].into_iter();
    let url = format!("https://{unsigned}");
    let signable = SignableRequest::new("GET", url, headers, SignableBody::empty());
    let signable = signable.map_err(|error| TokenError::Signing(Arc::new(error)))?;

    // At trace level the signer logs the canonical request, session token and all.
    let silent = tracing::Dispatch::none();
    let signed = tracing::dispatcher::with_default(&silent, || sign_request(signable, &params));
    let signed = signed.map_err(|error| TokenError::Signing(Arc::new(error)))?;
    let (instructions, _) = signed.into_parts();
    let (_, params) = instructions.into_parts();

    // The signer appends the session token last; botocore ends with the signature. A server that
    // verifies does not care, but one order is easier to compare.
    let (signature, others): (Vec<_>, Vec<_>) = params
        .iter()
        .partition(|(name, _)| *name == "X-Amz-Signature");
    let mut out = String::new();
    for (name, value) in others.into_iter().chain(signature) {
        out.extend(["&", name, "="]);
        out.extend(utf8_percent_encode(value, ESCAPED));
    }
    Ok(out)
}

/// The `Host` header that is signed: lower case, and without the port if it is the one of HTTPS.
/// The token itself keeps both as they were given. So does botocore.
fn signed_host(request: &TokenRequest) -> String {
    const HTTPS: u16 = 443;
    let host = request.host.to_ascii_lowercase();
    match request.port {
        HTTPS => host,
        port => format!("{host}:{port}"),
    }
}

fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

/// Refuses what would end up in another part of the URL than it was meant for.
fn check(request: &TokenRequest) -> Result<(), TokenError> {
    let is_name = |text: &str, extra: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
    };
    let bad = |what, value: &str| {
        let value = value.to_owned();
        Err(TokenError::BadRequest { what, value })
    };
    let TokenRequest { host, region, .. } = request;
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let is_ipv6 = bracketed.is_some_and(|host| host.parse::<Ipv6Addr>().is_ok());
    if !is_name(host, "-._") && !is_ipv6 {
        return bad("host", host);
    }
    if !is_name(region, "-") {
        return bad("region", region);
    }
    if request.port == 0 {
        return bad("port", "0");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Vectors {
        access_key_id: String,
        secret_access_key: String,
        tokens: Vec<Vector>,
    }

    #[derive(Deserialize)]
    struct Vector {
        name: String,
        host: String,
        port: u16,
        user: String,
        region: String,
        session_token: Option<String>,
        unix_time: u64,
        token: String,
    }

    fn seconds(unix: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(unix)
    }

    fn request() -> TokenRequest {
        TokenRequest {
            host: "db.abc.eu-central-1.rds.amazonaws.com".to_owned(),
            port: 5432,
            user: "app".to_owned(),
            region: "eu-central-1".to_owned(),
        }
    }

    fn credentials(until: Option<SystemTime>) -> Credentials {
        Credentials::new(
            "AKIDEXAMPLE",
            "secret-key",
            Some("session-token".to_owned()),
            until,
            "test",
        )
    }

    #[test]
    fn tokens_are_those_of_botocore() {
        let text = include_str!("../../protocol-tests/vectors/rds-tokens.json");
        let vectors: Vectors = serde_json::from_str(text).unwrap();
        assert!(vectors.tokens.len() >= 20);
        for vector in vectors.tokens {
            let (id, key) = (&vectors.access_key_id, &vectors.secret_access_key);
            let credentials = Credentials::new(id, key, vector.session_token, None, "vectors");
            let request = TokenRequest {
                host: vector.host,
                port: vector.port,
                user: vector.user,
                region: vector.region,
            };
            let now = seconds(vector.unix_time) + Duration::from_millis(999);
            let token = sign(&request, &credentials, now).unwrap();
            assert_eq!(token.value.expose(), &vector.token, "{}", vector.name);
            assert_eq!(
                token.expires_at,
                seconds(vector.unix_time + 900),
                "{}",
                vector.name
            );
        }
    }

    #[test]
    fn a_token_ends_with_its_credentials() {
        let now = seconds(1_000_000);
        for (left, expected) in [(60, 60), (899, 899), (901, 900), (3600, 900)] {
            let ends = now + Duration::from_secs(left);
            let token = sign(&request(), &credentials(Some(ends)), now).unwrap();
            assert_eq!(token.expires_at, now + Duration::from_secs(expected));
            // What is signed is always the same.
            assert!(token.value.expose().contains("&X-Amz-Expires=900&"));
        }
    }

    #[test]
    fn expired_credentials_are_not_signed_with() {
        let now = seconds(1_000_000);
        let error = sign(&request(), &credentials(Some(now)), now).unwrap_err();
        let expired = matches!(
            error,
            TokenError::Credentials(CredentialsError::Expired { at: Some(at), .. }) if at == now
        );
        assert!(expired, "{error:?}");
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        let refused = |request: TokenRequest| match sign(&request, &credentials(None), seconds(0)) {
            Err(TokenError::BadRequest { what, .. }) => what,
            other => panic!("{other:?}"),
        };
        for host in [
            "",
            "a b",
            "a/b",
            "user@host",
            "host:5432",
            "host?x",
            "[::1",
            "::1",
            "hö",
            "a\n",
        ] {
            let host = host.to_owned();
            assert_eq!(refused(TokenRequest { host, ..request() }), "host");
        }
        for region in ["", "eu/central", "eu central"] {
            let region = region.to_owned();
            assert_eq!(
                refused(TokenRequest {
                    region,
                    ..request()
                }),
                "region"
            );
        }
        assert_eq!(
            refused(TokenRequest {
                port: 0,
                ..request()
            }),
            "port"
        );
    }

    #[test]
    fn nothing_secret_is_printed_or_logged() {
        let log = log::Captured::default();
        let token = tracing::subscriber::with_default(log.subscriber(), || {
            tracing::trace!("before");
            let token = sign(&request(), &credentials(None), seconds(0)).unwrap();
            tracing::trace!("after");
            token
        });
        assert_eq!(log.text().matches("TRACE").count(), 2, "{}", log.text());
        assert!(!format!("{token:?}").contains("X-Amz"), "{token:?}");
    }

    mod log {
        use std::io;
        use std::sync::{Arc, Mutex};

        use tracing_subscriber::fmt::MakeWriter;

        /// Everything that is logged, at all levels.
        #[derive(Clone, Default)]
        pub(super) struct Captured(Arc<Mutex<Vec<u8>>>);

        impl Captured {
            pub(super) fn subscriber(&self) -> impl tracing::Subscriber + Send + Sync + use<> {
                tracing_subscriber::fmt()
                    .with_max_level(tracing::Level::TRACE)
                    .with_ansi(false)
                    .with_writer(self.clone())
                    .finish()
            }

            pub(super) fn text(&self) -> String {
                String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
            }
        }

        impl io::Write for Captured {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        impl<'a> MakeWriter<'a> for Captured {
            type Writer = Self;
            fn make_writer(&'a self) -> Self {
                self.clone()
            }
        }
    }
}
