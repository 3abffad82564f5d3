//! Judging login tokens.
//!
//! For RDS a token is a presigned `GET https://host:port/?Action=connect&DBUser=…` for service
//! `rds-db` with the scheme cut off (Amazon RDS user guide, "IAM database authentication"). For Aurora
//! DSQL it is `GET https://host/?Action=DbConnect` for service `dsql`, or `DbConnectAdmin` for the role
//! `admin`, and names no port and no user (Aurora DSQL user guide, "Generating an authentication
//! token").

use std::time::{Duration, SystemTime};

use super::{Iam, MAX_SKEW, TokenRefusal, User};
use crate::aws::sigv4;
use crate::aws::sigv4::{Authorization, Canonical};

/// Which kind of database a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    Rds,
    Dsql,
}

impl Service {
    /// In the credential scope.
    fn name(self) -> &'static str {
        match self {
            Self::Rds => "rds-db",
            Self::Dsql => "dsql",
        }
    }

    /// Longest life of a token: RDS refuses what asks for more than 15 minutes, Aurora DSQL what
    /// asks for more than a week.
    fn max_life(self) -> Duration {
        match self {
            Self::Rds => Duration::from_secs(900),
            Self::Dsql => Duration::from_secs(604_800),
        }
    }

    fn action(self, db_user: &str) -> &'static str {
        match self {
            Self::Rds => "connect",
            Self::Dsql if db_user == "admin" => "DbConnectAdmin",
            Self::Dsql => "DbConnect",
        }
    }

    /// Every parameter a token may have. Tokens of all AWS SDKs have these and no others.
    fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Rds => &PARAMETERS,
            Self::Dsql => &PARAMETERS[1..],
        }
    }
}

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

/// A token taken apart.
struct Token {
    service: Service,
    host: String,
    /// Of RDS only.
    port: Option<String>,
    action: String,
    /// Of RDS only.
    db_user: Option<String>,
    authorization: Authorization,
    amz_date: String,
    life: u64,
    session_token: Option<String>,
    /// All parameters but the signature.
    signed_query: Vec<(String, String)>,
}

/// The one that only RDS has comes first.
const PARAMETERS: [&str; 9] = [
    "DBUser",
    "Action",
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
    "X-Amz-SignedHeaders",
];

impl Token {
    fn parse(text: &str, service: Service) -> Result<Self, TokenRefusal> {
        if text.bytes().any(|b| !b.is_ascii_graphic()) {
            return Err(TokenRefusal::Malformed("not printable ASCII"));
        }
        let (authority, raw_query) = text
            .split_once("/?")
            .ok_or(TokenRefusal::Malformed("no \"/?\" after the host"))?;
        let (host, port) = match (service, authority.rsplit_once(':')) {
            (Service::Rds, None) => return Err(TokenRefusal::Malformed("no port after the host")),
            (Service::Dsql, Some(_)) => return Err(TokenRefusal::Malformed("a port or a scheme")),
            (Service::Dsql, None) => (authority, None),
            (Service::Rds, Some((host, port))) => (host, Some(port.to_owned())),
        };
        if host.contains("//") {
            return Err(TokenRefusal::Malformed("the scheme must be cut off"));
        }
        let mut query = sigv4::query_pairs(raw_query)?;
        let known = service.parameters();
        if query.iter().any(|(n, _)| !known.contains(&n.as_str())) {
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
            service,
            host: host.to_owned(),
            port,
            action: need("Action")?,
            db_user: match service {
                Service::Rds => Some(need("DBUser")?),
                Service::Dsql => None,
            },
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
        if let Some(port) = &self.port
            && *port != db.port.to_string()
        {
            return Err(TokenRefusal::WrongPort {
                signed: port.clone(),
                expected: db.port,
            });
        }
        let action = self.service.action(db_user);
        if self.action != action {
            return Err(TokenRefusal::WrongAction {
                signed: self.action.clone(),
                expected: action,
            });
        }
        if let Some(named) = &self.db_user
            && named != db_user
        {
            return Err(TokenRefusal::WrongUser {
                signed: named.clone(),
                login: db_user.to_owned(),
            });
        }
        let scope = &self.authorization.scope;
        if scope.service != self.service.name() {
            return Err(TokenRefusal::WrongService {
                signed: scope.service.clone(),
                expected: self.service.name(),
            });
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
        let most = self.service.max_life().as_secs();
        if self.life == 0 || self.life > most {
            return Err(TokenRefusal::LifeTooLong {
                asked: self.life,
                most,
            });
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
        let host = match self.port.as_deref() {
            None | Some("443") => self.host.clone(),
            Some(port) => format!("{}:{port}", self.host),
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
    (service, text): (Service, &str),
    db: &DbEndpoint,
    db_user: &str,
    now: SystemTime,
) -> Result<User, TokenRefusal> {
    let token = Token::parse(text, service)?;
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
    check_permission(iam, service, &user, db, db_user)?;
    Ok(user)
}

/// What the policies of the signer say; in Aurora DSQL, also which role it is associated with.
fn check_permission(
    iam: &Iam,
    service: Service,
    user: &User,
    db: &DbEndpoint,
    db_user: &str,
) -> Result<(), TokenRefusal> {
    let denied = |action: String| TokenRefusal::NotAuthorized {
        arn: user.arn.clone(),
        action,
        db_user: db_user.to_owned(),
    };
    match service {
        Service::Rds if user.may_connect_as(db_user) => Ok(()),
        Service::Rds => Err(denied("rds-db:connect".to_owned())),
        Service::Dsql => {
            let action = format!("dsql:{}", service.action(db_user));
            if user.is_denied_on(&action, &iam.dsql_cluster_arn(db)) {
                return Err(denied(action));
            }
            // Nobody is associated with `admin`: its own action is enough.
            if db_user == "admin" || user.db_users.iter().any(|u| u == "*" || u == db_user) {
                return Ok(());
            }
            Err(TokenRefusal::NotAssociated {
                arn: user.arn.clone(),
                db_user: db_user.to_owned(),
            })
        }
    }
}

#[cfg(test)]
mod tests;
