//! Code common to the signers of all kinds of tokens: a presigned HTTPS request without its scheme
//! (SigV4 with query parameters: IAM User Guide, "Create a signed AWS API request").

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{IamToken, TokenError, TokenFuture, TokenProvider, TokenRequest};
use crate::aws::{AwsContext, CredentialsError, signable};
use crate::base::names::Region;
use crate::base::redacted::Redacted;
use crate::base::single_flight::{Clock, system_clock};

/// Maximum validity that RDS accepts (RDS User Guide, "IAM database authentication"), and the value
/// that the AWS tools use for DSQL as well.
const VALIDITY: Duration = Duration::from_secs(900);

/// SigV4 leaves the unreserved characters of RFC 3986 unchanged and escapes all others.
pub(super) const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Function that signs a request with given credentials at a given time.
type SignFn = fn(&TokenRequest, &Credentials, SystemTime) -> Result<IamToken, TokenError>;

/// Signs with the current credentials of one AWS identity, without a cache: see
/// [`CachedTokens`](super::CachedTokens).
pub(super) struct Signer {
    aws: Arc<AwsContext>,
    sign: SignFn,
    clock: Clock,
}

impl Signer {
    pub(super) fn new(aws: Arc<AwsContext>, sign: SignFn) -> Self {
        let clock = system_clock();
        Self { aws, sign, clock }
    }
}

impl TokenProvider for Signer {
    fn token<'a>(&'a self, request: &'a TokenRequest) -> TokenFuture<'a> {
        Box::pin(async move {
            let credentials = self.aws.credentials().await?;
            (self.sign)(request, &credentials, (self.clock)())
        })
    }

    // The end of credentials without a known expiry (a profile with a session token, a deleted access
    // key) can only be noticed like this.
    fn invalidate(&self, _: &TokenRequest, _: &IamToken) {
        self.aws.invalidate();
    }
}

/// A request to be signed.
pub(super) struct UnsignedRequest<'a> {
    /// URL without its scheme, with at least one query parameter.
    pub(super) url: String,
    /// Signed `Host` header.
    pub(super) host: String,
    pub(super) service: &'static str,
    pub(super) region: &'a Region,
}

impl UnsignedRequest<'_> {
    /// Returns the token: the URL with its signature. Pure.
    ///
    /// # Errors
    /// [`TokenError::Credentials`] with [`CredentialsError::Expired`] when the credentials have
    /// expired, or with [`CredentialsError::Era`] when the local clock is out of range; otherwise a
    /// bug in pgiam.
    pub(super) fn sign(
        self,
        credentials: &Credentials,
        now: SystemTime,
    ) -> Result<IamToken, TokenError> {
        let now = signable(now).map_err(CredentialsError::from)?;
        let ends = credentials.expiry();
        if ends.is_some_and(|ends| ends <= now) {
            let profile = None;
            return Err(CredentialsError::Expired { at: ends, profile }.into());
        }
        let signature = self.signature_parameters(credentials, now)?;
        // The signature covers whole seconds.
        let until = whole_seconds(now) + VALIDITY;
        Ok(IamToken {
            value: Redacted::new(self.url + &signature),
            expires_at: ends.map_or(until, |ends| ends.min(until)),
            from_cache: false,
        })
    }

    /// Returns the signature's parameters for this URL, each with its `&`.
    fn signature_parameters(
        &self,
        credentials: &Credentials,
        now: SystemTime,
    ) -> Result<String, TokenError> {
        let mut settings = SigningSettings::default();
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(VALIDITY);
        let identity = credentials.clone().into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name(self.service)
            .time(now)
            .settings(settings)
            .build()
            .map_err(|error| TokenError::Internal(Arc::new(error)))?
            .into();
        let headers = [("host", self.host.as_str())].into_iter();
        let url = format!("https://{}", self.url);
        let signable = SignableRequest::new("GET", url, headers, SignableBody::empty());
        let signable = signable.map_err(|error| TokenError::Signing(Arc::new(error)))?;

        // At trace level the signer logs the canonical request, including the session token.
        let silent = tracing::Dispatch::none();
        let signed = tracing::dispatcher::with_default(&silent, || sign(signable, &params));
        let signed = signed.map_err(|error| TokenError::Signing(Arc::new(error)))?;
        let (instructions, _) = signed.into_parts();
        let (_, params) = instructions.into_parts();

        // The signer appends the session token last; botocore ends with the signature. A verifying
        // server accepts any order, but one order is easier to compare.
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
}

fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

/// Refuses values that would end up in another part of the URL.
pub(super) fn check(request: &TokenRequest) -> Result<(), TokenError> {
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
