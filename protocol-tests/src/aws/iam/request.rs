//! Who signed an HTTP request.

use std::time::SystemTime;

use http::{HeaderMap, Method, Uri};

use super::{Iam, MAX_SKEW, User};
use crate::aws::sigv4;
use crate::aws::sigv4::{Authorization, Canonical, ParseError, Scope};

/// Why a request is not accepted, worded as AWS words it. Display is the `message` of the answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The request is not signed at all.
    #[error("Missing Authentication Token")]
    Missing,
    /// Something about the shape of the signature is wrong.
    #[error("{0}")]
    Incomplete(String),
    /// No user has this access key, or the session token is not the one that belongs to it.
    #[error("The security token included in the request is invalid.")]
    UnknownKey,
    /// The temporary credentials have ended.
    #[error("The security token included in the request is expired")]
    ExpiredCredentials,
    /// Dated too early or too late, or scoped to another day, region or service.
    #[error("{0}")]
    WrongScopeOrTime(String),
    /// Recomputing the signature gave another one.
    #[error(
        "The request signature we calculated does not match the signature you provided. Check your \
         AWS Secret Access Key and signing method. Consult the service documentation for details."
    )]
    Mismatch,
}

impl AuthError {
    /// The error code in the AWS JSON 1.1 protocol (`__type`), used by ssm.
    pub fn json_code(&self) -> &'static str {
        match self {
            Self::Missing => "MissingAuthenticationTokenException",
            Self::Incomplete(_) => "IncompleteSignatureException",
            Self::UnknownKey => "UnrecognizedClientException",
            Self::ExpiredCredentials => "ExpiredTokenException",
            Self::WrongScopeOrTime(_) | Self::Mismatch => "InvalidSignatureException",
        }
    }

    /// The error code in the Query protocol (`<Code>`), used by sts, iam and rds.
    pub fn query_code(&self) -> &'static str {
        match self {
            Self::Missing => "MissingAuthenticationToken",
            Self::Incomplete(_) => "IncompleteSignature",
            Self::UnknownKey => "InvalidClientTokenId",
            Self::ExpiredCredentials => "ExpiredToken",
            Self::WrongScopeOrTime(_) | Self::Mismatch => "SignatureDoesNotMatch",
        }
    }

    /// The error code of ec2, which has its own for these.
    pub fn ec2_code(&self) -> &'static str {
        match self {
            Self::Missing => "MissingAuthenticationToken",
            Self::Incomplete(_) => "IncompleteSignature",
            Self::ExpiredCredentials => "RequestExpired",
            Self::WrongScopeOrTime(text) if text.starts_with("Signature ") => "RequestExpired",
            Self::UnknownKey | Self::WrongScopeOrTime(_) | Self::Mismatch => "AuthFailure",
        }
    }

    /// HTTP status of ec2's answer.
    pub fn ec2_status(&self) -> u16 {
        match self.ec2_code() {
            "AuthFailure" => 401,
            "MissingAuthenticationToken" => 403,
            _ => 400,
        }
    }

    /// The message of ec2, which does not say what exactly is wrong.
    pub fn ec2_message(&self) -> String {
        match self.ec2_code() {
            "AuthFailure" => "AWS was not able to validate the provided access credentials".into(),
            "RequestExpired" => "Request has expired.".into(),
            _ => self.to_string(),
        }
    }

    /// HTTP status of the JSON protocol's answer.
    pub fn json_status(&self) -> u16 {
        400
    }

    /// HTTP status of the Query protocol's answer.
    pub fn query_status(&self) -> u16 {
        match self {
            Self::Incomplete(_) => 400,
            _ => 403,
        }
    }
}

impl From<ParseError> for AuthError {
    fn from(error: ParseError) -> Self {
        Self::Incomplete(error.to_string())
    }
}

/// A request as received.
pub(super) struct Parts<'a> {
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
}

/// What the signer claims, wherever in the request it stands.
struct Claim {
    authorization: Authorization,
    amz_date: String,
    session_token: Option<String>,
    /// Seconds from `amz_date` a presigned request is good for; header signatures have none.
    expires: Option<u64>,
    query: Vec<(String, String)>,
}

pub(super) fn authenticate(
    iam: &Iam,
    request: &Parts<'_>,
    service: &str,
    now: SystemTime,
) -> Result<User, AuthError> {
    let claim = read_claim(request)?;
    let authorization = &claim.authorization;
    // IAM is one service for the whole partition, in one of its regions.
    let region = match service {
        "iam" => iam.partition().iam_region,
        _ => iam.region(),
    };
    check_scope(&authorization.scope, region, service)?;
    check_time(&claim, now)?;
    let user = iam
        .get(&authorization.access_key_id)
        .ok_or(AuthError::UnknownKey)?;
    if user.session_token != claim.session_token {
        return Err(AuthError::UnknownKey);
    }
    let headers = signed_headers(request, &authorization.signed_headers)?;
    let payload_hash = payload_hash(request, claim.expires.is_some())?;
    let canonical = Canonical {
        method: request.method.as_str(),
        path: request.uri.path(),
        query: &claim.query,
        headers: &headers,
        payload_hash: &payload_hash,
    };
    let ours = sigv4::signature(
        &user.secret_access_key,
        &claim.amz_date,
        &authorization.scope,
        &canonical,
    );
    if !sigv4::same_secret(&ours, &authorization.signature) {
        return Err(AuthError::Mismatch);
    }
    if user.has_expired(now) {
        return Err(AuthError::ExpiredCredentials);
    }
    Ok(user)
}

/// The service a request says it is signed for; nothing about that has been checked.
pub(crate) fn signed_service(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let request = Parts {
        method: &Method::POST,
        uri,
        headers,
        body: b"",
    };
    let claim = read_claim(&request).ok()?;
    Some(claim.authorization.scope.service)
}

fn read_claim(request: &Parts<'_>) -> Result<Claim, AuthError> {
    let query = sigv4::query_pairs(request.uri.query().unwrap_or(""))?;
    if query.iter().any(|(name, _)| name == "X-Amz-Signature") {
        return read_presigned(query);
    }
    let value = header(request.headers, "authorization")?.ok_or(AuthError::Missing)?;
    let amz_date = header(request.headers, "x-amz-date")?.ok_or_else(|| {
        AuthError::Incomplete(
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header."
                .to_owned(),
        )
    })?;
    Ok(Claim {
        authorization: sigv4::parse_authorization(value)?,
        amz_date: amz_date.to_owned(),
        session_token: header(request.headers, "x-amz-security-token")?.map(str::to_owned),
        expires: None,
        query,
    })
}

fn read_presigned(mut query: Vec<(String, String)>) -> Result<Claim, AuthError> {
    let take = |name: &'static str| -> Result<Option<String>, AuthError> {
        let mut found = query.iter().filter(|(n, _)| n == name);
        match (found.next(), found.next()) {
            (value, None) => Ok(value.map(|(_, v)| v.clone())),
            _ => Err(AuthError::Incomplete(format!("{name} is given twice"))),
        }
    };
    let need = |name: &'static str| {
        take(name)?.ok_or_else(|| AuthError::Incomplete(format!("{name} is missing")))
    };
    if need("X-Amz-Algorithm")? != sigv4::ALGORITHM {
        return Err(AuthError::Incomplete(
            "X-Amz-Algorithm is not supported".into(),
        ));
    }
    let (access_key_id, scope) = sigv4::parse_credential(&need("X-Amz-Credential")?)?;
    let expires = need("X-Amz-Expires")?;
    let expires = expires
        .parse()
        .map_err(|_| AuthError::Incomplete("X-Amz-Expires must be a number".into()))?;
    let claim = Claim {
        authorization: Authorization {
            access_key_id,
            scope,
            signed_headers: sigv4::parse_signed_headers(&need("X-Amz-SignedHeaders")?)?,
            signature: need("X-Amz-Signature")?,
        },
        amz_date: need("X-Amz-Date")?,
        session_token: take("X-Amz-Security-Token")?,
        expires: Some(expires),
        query: Vec::new(),
    };
    query.retain(|(name, _)| name != "X-Amz-Signature");
    Ok(Claim { query, ..claim })
}

fn check_scope(scope: &Scope, region: &str, service: &str) -> Result<(), AuthError> {
    if scope.region != region {
        return Err(AuthError::WrongScopeOrTime(format!(
            "Credential should be scoped to a valid region, not '{}'. ",
            scope.region
        )));
    }
    if scope.service != service {
        return Err(AuthError::WrongScopeOrTime(format!(
            "Credential should be scoped to correct service: '{service}'. "
        )));
    }
    Ok(())
}

fn check_time(claim: &Claim, now: SystemTime) -> Result<(), AuthError> {
    let text = &claim.amz_date;
    let signed = sigv4::parse_amz_date(text).ok_or_else(|| {
        AuthError::Incomplete(
            "Date must be in ISO-8601 'basic format'. See http://en.wikipedia.org/wiki/ISO_8601"
                .to_owned(),
        )
    })?;
    if claim.authorization.scope.date != text[..8] {
        return Err(AuthError::WrongScopeOrTime(format!(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from \
             HTTP: '{}' != '{}', from '{text}'.",
            claim.authorization.scope.date,
            &text[..8]
        )));
    }
    let (here, format) = (sigv4::format_amz_date(now), sigv4::format_amz_date);
    let life = claim
        .expires
        .map_or(MAX_SKEW, std::time::Duration::from_secs);
    if now > signed + life {
        return Err(AuthError::WrongScopeOrTime(format!(
            "Signature expired: {text} is now earlier than {} ({here} - {} min.)",
            format(now - life),
            life.as_secs() / 60
        )));
    }
    if signed > now + MAX_SKEW {
        return Err(AuthError::WrongScopeOrTime(format!(
            "Signature not yet current: {text} is still later than {} ({here} + 15 min.)",
            format(now + MAX_SKEW)
        )));
    }
    Ok(())
}

/// The signed headers with their values; refuses when one that must be signed is not.
fn signed_headers(
    request: &Parts<'_>,
    names: &[String],
) -> Result<Vec<(String, String)>, AuthError> {
    if !names.iter().any(|n| n == "host") {
        return Err(AuthError::Incomplete(
            "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.".to_owned(),
        ));
    }
    let unsigned: Vec<&str> = request
        .headers
        .keys()
        .map(http::HeaderName::as_str)
        .filter(|n| n.starts_with("x-amz-") && !names.iter().any(|s| s == n))
        .collect();
    if !unsigned.is_empty() {
        return Err(AuthError::Incomplete(format!(
            "There were headers present in the request which were not signed: {}",
            unsigned.join(", ")
        )));
    }
    names
        .iter()
        .map(|name| {
            let values: Result<Vec<&str>, AuthError> = request
                .headers
                .get_all(name)
                .iter()
                .map(|v| v.to_str().map_err(|_| not_text(name)))
                .collect();
            let values = values?;
            if values.is_empty() {
                return Err(AuthError::Incomplete(format!(
                    "Signed header {name} is missing"
                )));
            }
            Ok((name.clone(), values.join(",")))
        })
        .collect()
}

fn payload_hash(request: &Parts<'_>, presigned: bool) -> Result<String, AuthError> {
    let actual = sigv4::sha256_hex(request.body);
    match header(request.headers, "x-amz-content-sha256")? {
        Some(declared) if declared != actual => Err(AuthError::Mismatch),
        _ if presigned => Ok(sigv4::sha256_hex(b"")),
        _ => Ok(actual),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, AuthError> {
    headers
        .get(name)
        .map(|value| value.to_str().map_err(|_| not_text(name)))
        .transpose()
}

fn not_text(name: &str) -> AuthError {
    AuthError::Incomplete(format!("Header {name} is not text"))
}

#[cfg(test)]
mod tests;
