//! Calls to IAM Identity Center's OIDC service. They are not signed.

use std::time::Duration;

use aws_config::{Region, SdkConfig};
use aws_sdk_ssooidc::Client;
use aws_sdk_ssooidc::config::Builder;
use aws_sdk_ssooidc::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};
use aws_sdk_ssooidc::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ssooidc::operation::create_token::CreateTokenError;
use aws_sdk_ssooidc::operation::create_token::builders::CreateTokenFluentBuilder;
use aws_smithy_types::error::metadata::ErrorMetadata;
use serde::Deserialize;
use tokio::time::timeout;
use url::Url;

use super::LoginError;
use crate::aws::in_words;
use crate::base::foreign_text::ForeignText;
use crate::base::redacted::{Redacted, remember};

/// Timeout of one call with its retries.
const DEADLINE: Duration = Duration::from_secs(30);
/// Scope that lets a client list accounts and get the credentials of roles (IAM Identity Center
/// User Guide, "Scopes").
pub(super) const DEFAULT_SCOPE: &str = "sso:account:access";
/// Name of clients in IAM Identity Center, with the session.
const CLIENT: &str = "pgiam";

/// A registered client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RegisteredClient {
    pub(super) id: String,
    pub(super) secret: Redacted<String>,
    /// End of the registration in seconds since 1970.
    pub(super) expires_at: i64,
}

/// A token that was issued to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IssuedToken {
    pub(super) access_token: Redacted<String>,
    pub(super) refresh_token: Option<Redacted<String>>,
    /// Lifetime.
    pub(super) expires_in: Duration,
    pub(super) client: RegisteredClient,
}

/// The grant that a client is registered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant<'a> {
    /// Authorization code with PKCE.
    AuthorizationCode { issuer: &'a str },
    /// Device code.
    DeviceCode,
}

/// Refusal of a token. The first three are answers of a login that goes on or ended normally.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TokenRefusal {
    /// The user has not entered the code yet.
    Pending,
    /// pgiam asks too often.
    SlowDown,
    /// The code has expired.
    Expired,
    /// The connection failed, or the service.
    Unanswered(LoginError),
    /// Any other answer.
    Failed(LoginError),
}

/// The OIDC service of a region.
#[derive(Clone, Debug)]
pub(super) struct Oidc {
    client: Client,
    /// Address of the service.
    url: Url,
}

impl Oidc {
    /// Creates a client without sending a request. The endpoint is that of the region, or the
    /// one set for the service (`AWS_ENDPOINT_URL_SSO_OIDC` and the like).
    ///
    /// # Errors
    /// [`LoginError::Call`] if there is no endpoint for the region.
    pub(super) async fn new(config: &SdkConfig, region: &str) -> Result<Self, LoginError> {
        let set = crate::aws::endpoint_set_for(config, "SSO OIDC");
        let url = match set.or_else(|| config.endpoint_url().map(str::to_owned)) {
            Some(url) => url,
            None => resolved(config, region).await?,
        };
        let url = Url::parse(&url).map_err(|error| LoginError::Call {
            call: "the lookup of the endpoint of sso-oidc",
            reason: error.to_string().into(),
        })?;
        let builder = Builder::from(config).region(Region::new(region.to_owned()));
        Ok(Self {
            client: Client::from_conf(builder.build()),
            url,
        })
    }

    /// Returns the URL of the page on which the user logs in.
    pub(super) fn authorize_url(&self) -> Url {
        let mut url = self.url.clone();
        url.set_path(&format!("{}/authorize", url.path().trim_end_matches('/')));
        url
    }

    /// Registers a client.
    ///
    /// # Errors
    /// [`LoginError::Call`], [`LoginError::Incomplete`].
    pub(super) async fn register(
        &self,
        name: &str,
        grant: Grant<'_>,
        scopes: Option<&[String]>,
    ) -> Result<RegisteredClient, LoginError> {
        const CALL: &str = "sso-oidc:RegisterClient";
        let call = self
            .client
            .register_client()
            .client_name(format!("{CLIENT}-{name}"))
            .client_type("public");
        let call = match grant {
            Grant::AuthorizationCode { issuer } => {
                let default = || vec![DEFAULT_SCOPE.to_owned()];
                call.grant_types("authorization_code")
                    .grant_types("refresh_token")
                    .redirect_uris(super::pkce::REDIRECT_URI)
                    .issuer_url(issuer)
                    .set_scopes(Some(scopes.map_or_else(default, <[String]>::to_vec)))
            }
            Grant::DeviceCode => call.set_scopes(scopes.map(<[String]>::to_vec)),
        };
        let answer = answered(CALL, call.send()).await?;
        let id = answer.client_id.ok_or_else(|| incomplete(CALL, "clientId"));
        let secret = answer.client_secret;
        let secret = secret.ok_or_else(|| incomplete(CALL, "clientSecret"))?;
        remember(&secret);
        Ok(RegisteredClient {
            id: id?,
            secret: secret.into(),
            expires_at: answer.client_secret_expires_at,
        })
    }

    /// Requests a device code.
    ///
    /// # Errors
    /// [`LoginError::Call`], [`LoginError::Incomplete`].
    pub(super) async fn device_code(
        &self,
        client: &RegisteredClient,
        start_url: &str,
    ) -> Result<DeviceCode, LoginError> {
        const CALL: &str = "sso-oidc:StartDeviceAuthorization";
        let call = self
            .client
            .start_device_authorization()
            .client_id(&client.id)
            .client_secret(client.secret.expose())
            .start_url(start_url);
        let answer = answered(CALL, call.send()).await?;
        let device_code = answer.device_code;
        let device_code = device_code.ok_or_else(|| incomplete(CALL, "deviceCode"))?;
        remember(&device_code);
        let user_code = answer.user_code;
        let url = answer.verification_uri;
        Ok(DeviceCode {
            device_code: device_code.into(),
            user_code: user_code.ok_or_else(|| incomplete(CALL, "userCode"))?,
            url: url.ok_or_else(|| incomplete(CALL, "verificationUri"))?,
            complete_url: answer.verification_uri_complete,
            expires_in: seconds(answer.expires_in),
            interval: seconds(answer.interval),
        })
    }

    /// Exchanges an authorization code for a token.
    ///
    /// # Errors
    /// [`TokenRefusal`].
    pub(super) async fn token_for_code(
        &self,
        client: &RegisteredClient,
        code: &Redacted<String>,
        verifier: &Redacted<String>,
        redirect_uri: &str,
    ) -> Result<IssuedToken, TokenRefusal> {
        let call = self.client.create_token().grant_type("authorization_code");
        let call = call
            .code(code.expose())
            .code_verifier(verifier.expose())
            .redirect_uri(redirect_uri);
        token(client, call).await
    }

    /// Asks for the token of a device code.
    ///
    /// # Errors
    /// [`TokenRefusal`].
    pub(super) async fn token_for_device(
        &self,
        client: &RegisteredClient,
        device_code: &Redacted<String>,
    ) -> Result<IssuedToken, TokenRefusal> {
        const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
        let call = self.client.create_token().grant_type(GRANT);
        token(client, call.device_code(device_code.expose())).await
    }
}

/// A device code, and the words for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeviceCode {
    pub(super) device_code: Redacted<String>,
    pub(super) user_code: String,
    pub(super) url: String,
    pub(super) complete_url: Option<String>,
    /// Zero if the answer has none.
    pub(super) expires_in: Duration,
    /// Zero if the answer has none.
    pub(super) interval: Duration,
}

fn seconds(count: i32) -> Duration {
    Duration::from_secs(count.try_into().unwrap_or_default())
}

fn incomplete(call: &'static str, field: &'static str) -> LoginError {
    LoginError::Incomplete { call, field }
}

/// Returns the endpoint of the service by the rules of the SDK.
async fn resolved(config: &SdkConfig, region: &str) -> Result<String, LoginError> {
    let failed = |reason: ForeignText| LoginError::Call {
        call: "the lookup of the endpoint of sso-oidc",
        reason,
    };
    let params = Params::builder()
        .region(region)
        .use_fips(config.use_fips().unwrap_or_default())
        .use_dual_stack(config.use_dual_stack().unwrap_or_default())
        .build();
    let params = params.map_err(|error| failed(in_words(&error)))?;
    let endpoint = DefaultResolver::new().resolve_endpoint(&params).await;
    let endpoint = endpoint.map_err(|error| failed(in_words(&*error)))?;
    Ok(endpoint.url().to_owned())
}

/// Waits for an answer within the deadline.
async fn answered<T, E>(
    call: &'static str,
    answering: impl Future<Output = Result<T, SdkError<E>>>,
) -> Result<T, LoginError>
where
    E: std::error::Error + Send + Sync + ProvideErrorMetadata + 'static,
{
    match timeout(DEADLINE, answering).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(failed(call, &error)),
        Err(_) => Err(late(call)),
    }
}

fn late(call: &'static str) -> LoginError {
    let seconds = DEADLINE.as_secs();
    LoginError::Call {
        call,
        reason: format!("no answer within {seconds} s").into(),
    }
}

fn failed<E>(call: &'static str, error: &SdkError<E>) -> LoginError
where
    E: std::error::Error + Send + Sync + ProvideErrorMetadata + 'static,
{
    let service = error.as_service_error().map(ProvideErrorMetadata::meta);
    let reason = service.and_then(reason).unwrap_or_else(|| in_words(error));
    LoginError::Call { call, reason }
}

/// Returns the words of the service.
fn reason(meta: &ErrorMetadata) -> Option<ForeignText> {
    match (meta.code(), meta.message()) {
        (Some(code), Some(message)) => Some(format!("{code}: {message}").into()),
        (Some(code), None) => Some(code.into()),
        (None, _) => None,
    }
}

async fn token(
    client: &RegisteredClient,
    call: CreateTokenFluentBuilder,
) -> Result<IssuedToken, TokenRefusal> {
    const CALL: &str = "sso-oidc:CreateToken";
    let call = call
        .client_id(&client.id)
        .client_secret(client.secret.expose());
    let answer = match timeout(DEADLINE, call.send()).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(refusal(CALL, &error)),
        Err(_) => return Err(TokenRefusal::Unanswered(late(CALL))),
    };
    let access_token = answer.access_token;
    let missing = || TokenRefusal::Failed(incomplete(CALL, "accessToken"));
    let access_token = access_token.ok_or_else(missing)?;
    for secret in [Some(&access_token), answer.refresh_token.as_ref()] {
        secret.into_iter().for_each(|secret| remember(secret));
    }
    Ok(IssuedToken {
        access_token: access_token.into(),
        refresh_token: answer.refresh_token.map(Redacted::new),
        expires_in: seconds(answer.expires_in),
        client: client.clone(),
    })
}

/// Error of an OAuth token endpoint (RFC 6749, 5.2). The SDK's own types need another header.
#[derive(Debug, Deserialize)]
struct OAuthError {
    error: String,
    error_description: Option<String>,
}

fn refusal(call: &'static str, error: &SdkError<CreateTokenError>) -> TokenRefusal {
    let body = error
        .raw_response()
        .and_then(|answer| answer.body().bytes());
    let said: Option<OAuthError> = body.and_then(|body| serde_json::from_slice(body).ok());
    let Some(said) = said else {
        return TokenRefusal::Unanswered(failed(call, error));
    };
    match said.error.as_str() {
        "authorization_pending" => TokenRefusal::Pending,
        "slow_down" => TokenRefusal::SlowDown,
        "expired_token" => TokenRefusal::Expired,
        "access_denied" => TokenRefusal::Failed(LoginError::Denied),
        "server_error" => TokenRefusal::Unanswered(failed(call, error)),
        code => {
            let reason = match &said.error_description {
                Some(description) => format!("{code}: {description}").into(),
                None => code.into(),
            };
            TokenRefusal::Failed(LoginError::Call { call, reason })
        }
    }
}
