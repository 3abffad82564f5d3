//! The sign-in service: `CreateOAuth2Token`, which refreshes the sessions of `aws login`.

use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::{ApiError, Reply, Request, play_fault, rest};
use crate::aws::cloud::Cloud;
use crate::aws::console::{ConsoleRefusal, Proof, Refreshed};
use crate::aws::events::Event;

pub(super) const PATH: &str = "/v1/token";
const ACTION: &str = "signin:CreateOAuth2Token";
const NAMESPACE: &str = "com.amazonaws.signin";

/// Refusal: the exception, its `error` and its message.
type Refused = (&'static str, &'static str, &'static str);

/// Words of the service for a wrong token and a wrong key alike.
const INVALID_GRANT: Refused = (
    "ValidationException",
    "INVALID_REQUEST",
    "The provided authorization grant is invalid, expired, revoked, or malformed",
);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Input {
    client_id: Option<String>,
    grant_type: Option<String>,
    refresh_token: Option<String>,
}

pub(super) async fn answer(cloud: &Cloud, request: &Request) -> Reply {
    let throttled = ApiError {
        status: StatusCode::TOO_MANY_REQUESTS,
        ..ApiError::new("TooManyRequestsError", "Too many requests")
    };
    let ordered = |error: &ApiError| failure(error, "server_error");
    if let Some(reply) = play_fault(cloud, "CreateOAuth2Token", throttled, ordered).await {
        return reply;
    }
    match create(cloud, request) {
        Ok(refreshed) => {
            cloud.events.push(Event::LoginCall {
                action: ACTION.to_owned(),
                detail: "refresh_token".to_owned(),
            });
            success(&refreshed)
        }
        Err((code, error, text)) => {
            cloud.note_denied(ACTION, error);
            let status = match code {
                // Seen by others at AWS; the model has no status for it.
                "AccessDeniedException" => StatusCode::UNAUTHORIZED,
                _ => StatusCode::BAD_REQUEST,
            };
            let refusal = ApiError {
                status,
                ..ApiError::new(code, text)
            };
            failure(&refusal, error)
        }
    }
}

fn create(cloud: &Cloud, request: &Request) -> Result<Refreshed, Refused> {
    let invalid = |text| ("ValidationException", "INVALID_REQUEST", text);
    let proof = request.headers.get("dpop");
    let proof = proof.and_then(|proof| proof.to_str().ok());
    let proof = proof.ok_or(invalid("Missing DPoP header"))?;
    let url = format!("{}{PATH}", rest::origin(request));
    let proof = Proof::read(proof, &url, cloud.iam.now());
    let proof = proof.map_err(|fault| {
        tracing::debug!(fault = fault.0, "sandbox: DPoP proof refused");
        invalid("Invalid DPoP proof")
    })?;
    let input: Input =
        serde_json::from_slice(&request.body).map_err(|_| invalid("Invalid request"))?;
    if input.grant_type.as_deref() != Some("refresh_token") {
        return Err(invalid("Invalid grant type"));
    }
    let client_id = input.client_id.unwrap_or_default();
    let token = input.refresh_token.unwrap_or_default();
    let refreshed = cloud.console.refresh(&client_id, &token, &proof);
    refreshed.map_err(|refusal| match refusal {
        ConsoleRefusal::InvalidGrant => INVALID_GRANT,
        ConsoleRefusal::Ended(end) => ("AccessDeniedException", end.code(), end.text()),
    })
}

fn success(new: &Refreshed) -> Reply {
    rest::success(&json!({
        "accessToken": {
            "accessKeyId": new.user.access_key_id,
            "secretAccessKey": new.user.secret_access_key,
            "sessionToken": new.user.session_token,
        },
        "tokenType": "aws_sigv4",
        "expiresIn": new.expires_in.as_secs(),
        "refreshToken": new.refresh_token,
    }))
}

fn failure(error: &ApiError, word: &str) -> Reply {
    let body = json!({ "error": word, "message": error.message });
    rest::failure(error, NAMESPACE, &body)
}
