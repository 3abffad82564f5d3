//! SSO OIDC: registration of clients, device codes and tokens.

use std::time::{SystemTime, UNIX_EPOCH};

use http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::rest::Answered;
use super::{ApiError, Reply, Request, pages, play_fault, rest};
use crate::aws::cloud::Cloud;
use crate::aws::identity_center::{Client, Denied, Grant, NewClient, denied};

const NAMESPACE: &str = "com.amazonaws.sso.oidc";

/// Exceptions of the model, their `error` in the answer, and their status.
const ERRORS: [(&str, &str, u16); 13] = [
    ("AccessDeniedException", "access_denied", 400),
    (
        "AuthorizationPendingException",
        "authorization_pending",
        400,
    ),
    ("ExpiredTokenException", "expired_token", 400),
    ("InternalServerException", "server_error", 500),
    ("InvalidClientException", "invalid_client", 401),
    (
        "InvalidClientMetadataException",
        "invalid_client_metadata",
        400,
    ),
    ("InvalidGrantException", "invalid_grant", 400),
    ("InvalidRedirectUriException", "invalid_redirect_uri", 400),
    ("InvalidRequestException", "invalid_request", 400),
    ("InvalidScopeException", "invalid_scope", 400),
    ("SlowDownException", "slow_down", 400),
    ("UnauthorizedClientException", "unauthorized_client", 400),
    (
        "UnsupportedGrantTypeException",
        "unsupported_grant_type",
        400,
    ),
];

pub(super) async fn answer(cloud: &Cloud, request: &Request, operation: &str) -> Reply {
    let throttled = ApiError::new("SlowDownException", "Slow down to not overload the service");
    if let Some(reply) = play_fault(cloud, operation, throttled, failure).await {
        return reply;
    }
    let answered = match operation {
        "RegisterClient" => register(cloud, request),
        "StartDeviceAuthorization" => start_device(cloud, request),
        _ => create_token(cloud, request),
    };
    let action = format!("sso-oidc:{operation}");
    rest::reply(cloud, action, answered, |refusal| {
        failure(&ApiError::new(refusal.code, refusal.text))
    })
}

/// Answers with `error` and `error_description`; the name of the exception is in a header only.
fn failure(error: &ApiError) -> Reply {
    let known = ERRORS.iter().find(|(name, _, _)| *name == error.code);
    let (word, status) = match (known, error.code.as_str()) {
        (Some((_, word, status)), _) => (*word, StatusCode::from_u16(*status).ok()),
        (None, "InternalServerError") => ("server_error", None),
        (None, other) => (other, None),
    };
    let body = json!({ "error": word, "error_description": error.message });
    let error = ApiError {
        status: status.unwrap_or(error.status),
        ..ApiError::new(&error.code, "")
    };
    rest::failure(&error, NAMESPACE, &body)
}

fn input<T: DeserializeOwned>(request: &Request) -> Result<T, Denied> {
    let parsed = serde_json::from_slice(&request.body);
    parsed.map_err(|_| denied("InvalidRequestException", "Invalid request"))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Register {
    client_name: Option<String>,
    client_type: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    grant_types: Vec<String>,
    #[serde(default)]
    redirect_uris: Vec<String>,
    issuer_url: Option<String>,
}

fn register(cloud: &Cloud, request: &Request) -> Answered {
    let input: Register = input(request)?;
    let client = cloud.identity_center.register(NewClient {
        name: input.client_name.unwrap_or_default(),
        kind: input.client_type.unwrap_or_default(),
        scopes: input.scopes,
        grant_types: input.grant_types,
        redirect_uris: input.redirect_uris,
        issuer_url: input.issuer_url,
    })?;
    let body = json!({
        "clientId": client.id,
        "clientSecret": client.secret,
        "clientIdIssuedAt": epoch(client.issued),
        "clientSecretExpiresAt": epoch(client.expires),
    });
    Ok((body, client.name))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StartDevice {
    #[serde(flatten)]
    credentials: ClientCredentials,
    start_url: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientCredentials {
    client_id: Option<String>,
    client_secret: Option<String>,
}

impl ClientCredentials {
    fn client(&self, cloud: &Cloud) -> Result<Client, Denied> {
        let id = needed(self.client_id.as_deref())?;
        let secret = needed(self.client_secret.as_deref())?;
        cloud.identity_center.client(id, secret)
    }
}

fn needed(value: Option<&str>) -> Result<&str, Denied> {
    let value = value.filter(|value| !value.is_empty());
    value.ok_or(denied(
        "InvalidRequestException",
        "Missing required parameter",
    ))
}

fn start_device(cloud: &Cloud, request: &Request) -> Answered {
    let input: StartDevice = input(request)?;
    let client = input.credentials.client(cloud)?;
    let start_url = needed(input.start_url.as_deref())?;
    let new = cloud.identity_center.start_device(&client, start_url)?;
    let page = format!("{}{}", rest::origin(request), pages::DEVICE);
    let body = json!({
        "deviceCode": new.device_code,
        "userCode": new.user_code,
        "verificationUri": page,
        "verificationUriComplete": format!("{page}?user_code={}", new.user_code),
        "expiresIn": new.expires_in.as_secs(),
        "interval": new.interval.as_secs(),
    });
    Ok((body, client.name))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CreateToken {
    #[serde(flatten)]
    credentials: ClientCredentials,
    grant_type: Option<String>,
    device_code: Option<String>,
    refresh_token: Option<String>,
    code: Option<String>,
    code_verifier: Option<String>,
    redirect_uri: Option<String>,
}

fn create_token(cloud: &Cloud, request: &Request) -> Answered {
    let input: CreateToken = input(request)?;
    let client = input.credentials.client(cloud)?;
    let grant_type = needed(input.grant_type.as_deref())?;
    let grant = match grant_type {
        "authorization_code" => Grant::Code {
            code: needed(input.code.as_deref())?,
            verifier: needed(input.code_verifier.as_deref())?,
            redirect_uri: needed(input.redirect_uri.as_deref())?,
        },
        "refresh_token" => Grant::Refresh {
            token: needed(input.refresh_token.as_deref())?,
        },
        "urn:ietf:params:oauth:grant-type:device_code" => Grant::Device {
            code: needed(input.device_code.as_deref())?,
        },
        _ => {
            return Err(denied(
                "UnsupportedGrantTypeException",
                "Unsupported grant type",
            ));
        }
    };
    let tokens = cloud.identity_center.create_token(&client, &grant)?;
    let mut body = json!({
        "accessToken": tokens.access_token,
        "tokenType": "Bearer",
        "expiresIn": tokens.expires_in.as_secs(),
    });
    if let Some(token) = tokens.refresh_token {
        body["refreshToken"] = json!(token);
    }
    Ok((body, grant_type.to_owned()))
}

/// Seconds since 1970.
fn epoch(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs())
}
