//! Tokens of Aurora DSQL: a presigned request for `dsql:DbConnect` or `dsql:DbConnectAdmin`,
//! without its scheme (Aurora DSQL User Guide, "Generating an authentication token").
//!
//! The format is that of botocore's `generate_db_connect_auth_token` and
//! `generate_db_connect_admin_auth_token`; the tests compare byte for byte. A token contains
//! neither port nor user: it is valid for every role of the cluster that the identity is linked to.

use std::time::SystemTime;

use aws_credential_types::Credentials;

use super::presign::{UnsignedRequest, check};
use super::{IamToken, TokenError, TokenRequest};

/// Service name in the signature.
const SERVICE: &str = "dsql";

/// The role that exists in every cluster and has an IAM action of its own (Aurora DSQL User Guide,
/// "Authentication and authorization"). The server compares role names case-sensitively.
const ADMIN: &str = "admin";

/// Returns a token for `request`, signed at `now`. Pure: the same arguments give the same token.
///
/// # Errors
/// [`TokenError::Credentials`] with [`CredentialsError::Expired`](crate::aws::CredentialsError)
/// when the credentials have expired; [`TokenError::BadRequest`] when host, port or region is
/// invalid.
pub fn sign(
    request: &TokenRequest,
    credentials: &Credentials,
    now: SystemTime,
) -> Result<IamToken, TokenError> {
    check(request)?;
    let TokenRequest {
        host, user, region, ..
    } = request;
    let action = action(user);
    let unsigned = UnsignedRequest {
        url: format!("{host}/?Action={action}"),
        // The token keeps the host as given; the signed host is in lower case.
        host: host.to_ascii_lowercase(),
        service: SERVICE,
        region,
    };
    unsigned.sign(credentials, now)
}

/// Returns the IAM action for a login of `user`, without `dsql:`.
#[must_use]
pub fn action(user: &str) -> &'static str {
    if user == ADMIN {
        "DbConnectAdmin"
    } else {
        "DbConnect"
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde::Deserialize;

    use super::*;
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
        user: String,
        region: Region,
        session_token: Option<String>,
        unix_time: u64,
        token: String,
    }

    fn seconds(unix: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(unix)
    }

    fn request(host: &str, user: &str) -> TokenRequest {
        TokenRequest {
            host: host.to_owned(),
            port: 5432,
            user: user.to_owned(),
            region: "us-east-1".into(),
        }
    }

    #[test]
    fn tokens_are_those_of_botocore() {
        let text = include_str!("../../../protocol-tests/vectors/dsql-tokens.json");
        let vectors: Vectors = serde_json::from_str(text).unwrap();
        assert!(vectors.tokens.len() >= 12);
        for vector in vectors.tokens {
            let (id, key) = (&vectors.access_key_id, &vectors.secret_access_key);
            let credentials = Credentials::new(id, key, vector.session_token, None, "vectors");
            let request = TokenRequest {
                region: vector.region,
                ..request(&vector.host, &vector.user)
            };
            let now = seconds(vector.unix_time) + Duration::from_millis(999);
            let token = sign(&request, &credentials, now).unwrap();
            assert_eq!(token.value.expose(), &vector.token, "{}", vector.name);
            let expected = seconds(vector.unix_time + 900);
            assert_eq!(token.expires_at, expected, "{}", vector.name);
        }
    }

    #[test]
    fn a_token_ends_with_its_credentials_and_is_not_made_after_them() {
        let now = seconds(1_000_000);
        let until = |seconds| {
            let ends = Some(now + Duration::from_secs(seconds));
            let credentials = Credentials::new("AKID", "secret", None, ends, "test");
            sign(
                &request("x.dsql.us-east-1.on.aws", "app"),
                &credentials,
                now,
            )
        };
        let ends = until(60).unwrap().expires_at;
        assert_eq!(ends, now + Duration::from_secs(60));
        assert!(matches!(until(0), Err(TokenError::Credentials(_))));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        let credentials = Credentials::new("AKID", "secret", None, None, "test");
        for host in ["", "a/b", "a?b", "user@host"] {
            let refused = sign(&request(host, "app"), &credentials, seconds(0)).unwrap_err();
            assert!(
                matches!(refused, TokenError::BadRequest { what: "host", .. }),
                "{host}: {refused:?}"
            );
        }
    }
}
