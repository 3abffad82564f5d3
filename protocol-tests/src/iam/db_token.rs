//! Judging RDS login tokens.
//!
//! A token is a presigned `GET https://host:port/?Action=connect&DBUser=…` for service `rds-db` with
//! the scheme cut off (Amazon RDS user guide, "IAM database authentication").

use std::time::{Duration, SystemTime};

use super::{Iam, MAX_SKEW, User};
use crate::sigv4::{self, Authorization, Canonical, ParseError};

/// Longest life of a token; RDS refuses what asks for more.
const MAX_LIFE: Duration = Duration::from_secs(900);

/// The database a token must be meant for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DbEndpoint {
    /// The RDS host name, lower-case.
    pub host: String,
    /// The port the database has in its network.
    pub port: u16,
    /// The region the database is in.
    pub region: String,
}

/// Why a token does not open the door. No variant carries any part of the token that is secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// It does not have the shape of a token at all.
    #[error("malformed token: {0}")]
    Malformed(&'static str),
    /// Made for another host.
    #[error("token is for host {signed:?}, this is {expected:?}")]
    WrongHost {
        /// What the token says.
        signed: String,
        /// What this database is.
        expected: String,
    },
    /// Made for another port.
    #[error("token is for port {signed:?}, this is {expected}")]
    WrongPort {
        /// What the token says.
        signed: String,
        /// What this database has.
        expected: u16,
    },
    /// `Action` is not `connect`.
    #[error("token is for action {0:?}, not \"connect\"")]
    WrongAction(String),
    /// Made for another database user.
    #[error("token is for database user {signed:?}, the login is for {login:?}")]
    WrongUser {
        /// What the token says.
        signed: String,
        /// Who wants to log in.
        login: String,
    },
    /// Signed for another service.
    #[error("token is signed for service {0:?}, not \"rds-db\"")]
    WrongService(String),
    /// Signed for another region.
    #[error("token is signed for region {signed:?}, this is {expected:?}")]
    WrongRegion {
        /// What the token says.
        signed: String,
        /// Where this database is.
        expected: String,
    },
    /// The day of the credential scope is not the day of `X-Amz-Date`.
    #[error("credential scope and X-Amz-Date name different days")]
    WrongDay,
    /// No user has this access key.
    #[error("access key {0} is unknown")]
    UnknownKey(String),
    /// The key is temporary and the token carries no session token.
    #[error("session token is missing")]
    SessionTokenMissing,
    /// The session token is not the one of this key.
    #[error("session token does not belong to the access key")]
    SessionTokenWrong,
    /// `X-Amz-Expires` is above 900 s.
    #[error("token asks for {0} s of life, more than 900")]
    LifeTooLong(u64),
    /// Its time is over.
    #[error("token ended {0} s ago")]
    Expired(u64),
    /// It is dated more than 15 minutes ahead.
    #[error("token is dated {0} s in the future")]
    NotYetValid(u64),
    /// The signature is not what the key's owner would have made.
    #[error("signature does not match")]
    SignatureMismatch,
    /// The credentials that signed it have ended, whatever the token says.
    #[error("the credentials that signed the token have expired")]
    CredentialsExpired,
    /// The signer is known but lacks `rds-db:connect` for this user.
    #[error("{arn} may not rds-db:connect as {db_user:?}")]
    NotAuthorized {
        /// The signer.
        arn: String,
        /// Who wants to log in.
        db_user: String,
    },
}

impl From<ParseError> for TokenRefusal {
    fn from(error: ParseError) -> Self {
        Self::Malformed(error.0)
    }
}

/// A token taken apart.
struct Token {
    host: String,
    port: String,
    action: String,
    db_user: String,
    authorization: Authorization,
    amz_date: String,
    life: u64,
    session_token: Option<String>,
    /// All parameters but the signature.
    signed_query: Vec<(String, String)>,
}

/// Every parameter a token may have. RDS tokens of all AWS SDKs have these and no others.
const PARAMETERS: [&str; 9] = [
    "Action",
    "DBUser",
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
    "X-Amz-SignedHeaders",
];

impl Token {
    fn parse(text: &str) -> Result<Self, TokenRefusal> {
        if text.bytes().any(|b| !b.is_ascii_graphic()) {
            return Err(TokenRefusal::Malformed("not printable ASCII"));
        }
        let (authority, raw_query) = text
            .split_once("/?")
            .ok_or(TokenRefusal::Malformed("no \"/?\" after the host"))?;
        let (host, port) = authority
            .rsplit_once(':')
            .ok_or(TokenRefusal::Malformed("no port after the host"))?;
        if host.contains("//") {
            return Err(TokenRefusal::Malformed("the scheme must be cut off"));
        }
        let mut query = sigv4::query_pairs(raw_query)?;
        if query.iter().any(|(n, _)| !PARAMETERS.contains(&n.as_str())) {
            return Err(TokenRefusal::Malformed("unknown parameter"));
        }
        let take = |name: &str| -> Result<Option<String>, TokenRefusal> {
            let mut found = query.iter().filter(|(n, _)| n == name);
            let value = found.next().map(|(_, v)| v.clone());
            if found.next().is_some() {
                return Err(TokenRefusal::Malformed("a parameter is given twice"));
            }
            Ok(value)
        };
        let need = |name: &str| {
            take(name)?.ok_or(TokenRefusal::Malformed("a required parameter is missing"))
        };
        if need("X-Amz-Algorithm")? != sigv4::ALGORITHM {
            return Err(TokenRefusal::Malformed("unknown algorithm"));
        }
        let (access_key_id, scope) = sigv4::parse_credential(&need("X-Amz-Credential")?)?;
        let signed_headers = sigv4::parse_signed_headers(&need("X-Amz-SignedHeaders")?)?;
        if signed_headers != ["host"] {
            return Err(TokenRefusal::Malformed("exactly the host must be signed"));
        }
        let life = need("X-Amz-Expires")?;
        let token = Self {
            host: host.to_owned(),
            port: port.to_owned(),
            action: need("Action")?,
            db_user: need("DBUser")?,
            authorization: Authorization {
                access_key_id,
                scope,
                signed_headers,
                signature: need("X-Amz-Signature")?,
            },
            amz_date: need("X-Amz-Date")?,
            life: life
                .parse()
                .map_err(|_| TokenRefusal::Malformed("X-Amz-Expires is not a number"))?,
            session_token: take("X-Amz-Security-Token")?,
            signed_query: Vec::new(),
        };
        query.retain(|(name, _)| name != "X-Amz-Signature");
        Ok(Self {
            signed_query: query,
            ..token
        })
    }

    /// What the token is for, against what it is used for.
    fn check_purpose(&self, db: &DbEndpoint, db_user: &str) -> Result<(), TokenRefusal> {
        if self.host != db.host {
            return Err(TokenRefusal::WrongHost {
                signed: self.host.clone(),
                expected: db.host.clone(),
            });
        }
        if self.port != db.port.to_string() {
            return Err(TokenRefusal::WrongPort {
                signed: self.port.clone(),
                expected: db.port,
            });
        }
        if self.action != "connect" {
            return Err(TokenRefusal::WrongAction(self.action.clone()));
        }
        if self.db_user != db_user {
            return Err(TokenRefusal::WrongUser {
                signed: self.db_user.clone(),
                login: db_user.to_owned(),
            });
        }
        let scope = &self.authorization.scope;
        if scope.service != "rds-db" {
            return Err(TokenRefusal::WrongService(scope.service.clone()));
        }
        if scope.region != db.region {
            return Err(TokenRefusal::WrongRegion {
                signed: scope.region.clone(),
                expected: db.region.clone(),
            });
        }
        Ok(())
    }

    fn check_time(&self, now: SystemTime) -> Result<(), TokenRefusal> {
        let made = sigv4::parse_amz_date(&self.amz_date)
            .ok_or(TokenRefusal::Malformed("X-Amz-Date is not a date"))?;
        if self.authorization.scope.date != self.amz_date[..8] {
            return Err(TokenRefusal::WrongDay);
        }
        if self.life == 0 || self.life > MAX_LIFE.as_secs() {
            return Err(TokenRefusal::LifeTooLong(self.life));
        }
        let end = made + Duration::from_secs(self.life);
        if let Ok(late) = now.duration_since(end)
            && !late.is_zero()
        {
            return Err(TokenRefusal::Expired(late.as_secs()));
        }
        match made.duration_since(now) {
            Ok(early) if early > MAX_SKEW => Err(TokenRefusal::NotYetValid(early.as_secs())),
            _ => Ok(()),
        }
    }

    fn check_signature(&self, user: &User) -> Result<(), TokenRefusal> {
        // The presigned request is https, whose default port is left out of the Host header
        // (RFC 9110 section 4.2.3), so it is not part of what is signed either.
        let host = match self.port.as_str() {
            "443" => self.host.clone(),
            port => format!("{}:{port}", self.host),
        };
        let canonical = Canonical {
            method: "GET",
            path: "/",
            query: &self.signed_query,
            headers: &[("host".to_owned(), host)],
            payload_hash: &sigv4::sha256_hex(b""),
        };
        let ours = sigv4::signature(
            &user.secret_access_key,
            &self.amz_date,
            &self.authorization.scope,
            &canonical,
        );
        if sigv4::same_secret(&ours, &self.authorization.signature) {
            Ok(())
        } else {
            Err(TokenRefusal::SignatureMismatch)
        }
    }
}

pub(super) fn verify(
    iam: &Iam,
    text: &str,
    db: &DbEndpoint,
    db_user: &str,
    now: SystemTime,
) -> Result<User, TokenRefusal> {
    let token = Token::parse(text)?;
    token.check_purpose(db, db_user)?;
    token.check_time(now)?;
    let key = &token.authorization.access_key_id;
    let user = iam
        .get(key)
        .ok_or_else(|| TokenRefusal::UnknownKey(key.clone()))?;
    match (&user.session_token, &token.session_token) {
        (Some(_), None) => return Err(TokenRefusal::SessionTokenMissing),
        (expected, given) if expected != given => return Err(TokenRefusal::SessionTokenWrong),
        _ => {}
    }
    token.check_signature(&user)?;
    if user.has_expired(now) {
        return Err(TokenRefusal::CredentialsExpired);
    }
    if !user.may_connect_as(db_user) {
        return Err(TokenRefusal::NotAuthorized {
            arn: user.arn,
            db_user: db_user.to_owned(),
        });
    }
    Ok(user)
}

#[cfg(test)]
mod tests;
