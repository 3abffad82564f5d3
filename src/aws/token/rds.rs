//! Tokens of Amazon RDS: a presigned request for `rds-db:connect`, without its scheme.
//!
//! AWS does not specify the format. The reference is botocore's `generate_db_auth_token`, and the
//! tests compare byte for byte.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use percent_encoding::utf8_percent_encode;

use super::presign::{ESCAPED, UnsignedRequest, check};
use super::{IamToken, TokenError, TokenRequest};

/// Service name in the signature.
const SERVICE: &str = "rds-db";

/// Returns a token for `request`, signed at `now`. Pure: the same arguments give the same token.
///
/// # Errors
/// [`TokenError::Credentials`] with [`CredentialsError::Expired`](crate::aws::CredentialsError)
/// when the credentials have expired (the database would only report a wrong password);
/// [`TokenError::BadRequest`] when host, port or region is invalid.
pub fn sign(
    request: &TokenRequest,
    credentials: &Credentials,
    now: SystemTime,
) -> Result<IamToken, TokenError> {
    check(request)?;
    let TokenRequest {
        host,
        port,
        user,
        region,
    } = request;
    let user = utf8_percent_encode(user, ESCAPED);
    let unsigned = UnsignedRequest {
        url: format!("{host}:{port}/?Action=connect&DBUser={user}"),
        host: signed_host(request),
        service: SERVICE,
        region,
    };
    unsigned.sign(credentials, now)
}

/// Returns the signed `Host` header: lower case, and without the port if it is the one of HTTPS.
/// The token itself keeps host and port as given. botocore does the same.
fn signed_host(request: &TokenRequest) -> String {
    const HTTPS: u16 = 443;
    let host = request.host.to_ascii_lowercase();
    match request.port {
        HTTPS => host,
        port => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde::Deserialize;

    use super::*;
    use crate::aws::CredentialsError;
    use crate::base::names::Region;

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
        region: Region,
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
            region: "eu-central-1".into(),
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
        let text = include_str!("../../../protocol-tests/vectors/rds-tokens.json");
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
            // The signed validity is always the same.
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
    fn a_clock_beyond_all_reason_is_said_and_not_signed_with() {
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        for (now, words) in [
            (
                before,
                "this machine's clock is set to a time before 1970, so pgiam cannot sign AWS requests",
            ),
            (
                seconds(253_402_300_800),
                "this machine's clock is set to a time after the year 9999, so pgiam cannot sign AWS requests",
            ),
        ] {
            let error = sign(&request(), &credentials(None), now).unwrap_err();
            assert_eq!(error.to_string(), words);
        }
        let last = seconds(253_402_300_799);
        assert!(sign(&request(), &credentials(None), last).is_ok());
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
                    region: region.into(),
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

        /// Captures the log output of all levels.
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
