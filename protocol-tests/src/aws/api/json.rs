//! The AWS JSON 1.1 protocol, which `ssm` and `kms` speak.

use std::sync::Arc;

use http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{ApiError, Reply, Request, play_fault, typed_reply};
use crate::aws::cloud::Cloud;
use crate::aws::iam::User;

const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// One authenticated request.
pub(super) struct Call<'a> {
    pub(super) cloud: &'a Arc<Cloud>,
    pub(super) request: &'a Request,
    pub(super) user: &'a User,
}

impl Call<'_> {
    pub(super) fn input<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        serde_json::from_slice(&self.request.body)
            .map_err(|_| ApiError::new("SerializationException", ""))
    }
}

/// Finds out who asks, plays an ordered fault, and lets `act` answer the operation that follows
/// `prefix` in `X-Amz-Target`.
pub(super) async fn serve(
    cloud: &Arc<Cloud>,
    request: &Request,
    service: &str,
    prefix: &str,
    act: impl FnOnce(&Call<'_>, &str) -> Result<Value, ApiError>,
) -> Reply {
    let target = request.headers.get("x-amz-target");
    let target = target.and_then(|t| t.to_str().ok()).unwrap_or_default();
    let operation = target.strip_prefix(prefix).unwrap_or_default();
    let refuse = |error: &ApiError| {
        cloud.note_denied(&format!("{service}:{operation}"), &error.code);
        failure(error)
    };
    let user = match cloud.authenticate(request, service) {
        Ok(user) => user,
        Err(error) => {
            let status = StatusCode::from_u16(error.json_status());
            return refuse(&ApiError {
                status: status.unwrap_or(StatusCode::BAD_REQUEST),
                code: error.json_code().to_owned(),
                message: error.to_string(),
            });
        }
    };
    let throttled = ApiError::new("ThrottlingException", "Rate exceeded");
    if let Some(reply) = play_fault(cloud, operation, throttled, failure).await {
        return reply;
    }
    let call = Call {
        cloud,
        request,
        user: &user,
    };
    match act(&call, operation) {
        Ok(answer) => typed_reply(StatusCode::OK, CONTENT_TYPE, answer.to_string()),
        Err(error) => refuse(&error),
    }
}

/// The services' own exceptions write `message`, access refusals come from another layer that
/// writes `Message`; clients have to take both.
fn failure(error: &ApiError) -> Reply {
    let name = match error.code.as_str() {
        "AccessDeniedException" => "Message",
        _ => "message",
    };
    let mut body = json!({ "__type": error.code });
    if !error.message.is_empty() {
        body[name] = json!(error.message);
    }
    typed_reply(error.status, CONTENT_TYPE, body.to_string())
}
