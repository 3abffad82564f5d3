//! The SSO portal: accounts and roles of the user, and credentials for them.

use std::time::UNIX_EPOCH;

use http::StatusCode;
use serde_json::{Value, json};

use super::rest::{Answered, Values};
use super::{ApiError, Reply, Request, play_fault, rest};
use crate::aws::cloud::Cloud;
use crate::aws::identity_center::{Denied, denied};

const NAMESPACE: &str = "com.amazonaws.switchboard.portal";
/// Largest page of a list.
const MAX_RESULTS: usize = 100;

/// A call with its bearer token.
struct Call<'a> {
    cloud: &'a Cloud,
    query: Values,
    token: Option<&'a str>,
}

pub(super) async fn answer(cloud: &Cloud, request: &Request, operation: &str) -> Reply {
    let throttled = ApiError {
        status: StatusCode::TOO_MANY_REQUESTS,
        ..ApiError::new("TooManyRequestsException", "HTTP 429 Unknown Code")
    };
    if let Some(reply) = play_fault(cloud, operation, throttled, failure).await {
        return reply;
    }
    let token = request.headers.get("x-amz-sso_bearer_token");
    let call = Call {
        cloud,
        query: Values::of_query(request),
        token: token.and_then(|token| token.to_str().ok()),
    };
    let answered = match operation {
        "GetRoleCredentials" => role_credentials(&call),
        "ListAccounts" => accounts(&call),
        "ListAccountRoles" => roles(&call),
        _ => log_out(&call),
    };
    let action = format!("sso:{operation}");
    rest::reply(cloud, action, answered, |refusal| {
        failure(&ApiError {
            status: status(refusal.code),
            ..ApiError::new(refusal.code, refusal.text)
        })
    })
}

fn status(code: &str) -> StatusCode {
    match code {
        "UnauthorizedException" => StatusCode::UNAUTHORIZED,
        "ForbiddenException" => StatusCode::FORBIDDEN,
        "ResourceNotFoundException" => StatusCode::NOT_FOUND,
        _ => StatusCode::BAD_REQUEST,
    }
}

fn failure(error: &ApiError) -> Reply {
    let body = json!({
        "message": error.message,
        "__type": format!("{NAMESPACE}#{}", error.code),
    });
    rest::failure(error, NAMESPACE, &body)
}

impl<'a> Call<'a> {
    fn need(&'a self, name: &str) -> Result<&'a str, Denied> {
        let value = self.query.get(name);
        value.ok_or(denied(
            "InvalidRequestException",
            "Missing required parameter",
        ))
    }

    /// One page of a list, and the token of the next one.
    fn page(&self, all: Vec<Value>) -> Result<(Vec<Value>, Option<String>), Denied> {
        let invalid = |_| denied("InvalidRequestException", "Invalid parameter");
        let number = |name| self.query.get(name).map(str::parse::<usize>).transpose();
        let asked = number("max_result").map_err(invalid)?;
        let asked = asked.unwrap_or(MAX_RESULTS);
        if !(1..=MAX_RESULTS).contains(&asked) {
            return Err(denied("InvalidRequestException", "Invalid max_result"));
        }
        let from = number("next_token").map_err(invalid)?.unwrap_or(0);
        let to = from + self.cloud.api.page_size(asked);
        let next = (to < all.len()).then(|| to.to_string());
        let page = all.into_iter().take(to).skip(from);
        Ok((page.collect(), next))
    }
}

/// The list under its name, with the token of the next page if there is one.
fn listed(name: &str, (page, next): (Vec<Value>, Option<String>)) -> Value {
    let mut body = json!({ name: page });
    if let Some(next) = next {
        body["nextToken"] = json!(next);
    }
    body
}

fn accounts(call: &Call<'_>) -> Answered {
    let all = call.cloud.identity_center.accounts(call.token)?;
    let all = all.into_iter().map(|account| {
        json!({
            "accountId": account.id,
            "accountName": account.name,
            "emailAddress": account.email,
        })
    });
    let page = call.page(all.collect())?;
    Ok((listed("accountList", page), String::new()))
}

fn roles(call: &Call<'_>) -> Answered {
    let account = call.need("account_id")?;
    let all = call.cloud.identity_center.roles(call.token, account)?;
    let all = all.into_iter();
    let all = all.map(|role| json!({ "roleName": role, "accountId": account }));
    let page = call.page(all.collect())?;
    Ok((listed("roleList", page), account.to_owned()))
}

fn role_credentials(call: &Call<'_>) -> Answered {
    let account = call.need("account_id")?;
    let role = call.need("role_name")?;
    let center = &call.cloud.identity_center;
    let user = center.role_credentials(call.token, account, role)?;
    let ends = user.expires.and_then(|e| e.duration_since(UNIX_EPOCH).ok());
    // Whole seconds, in milliseconds, as the service writes them.
    let ends = ends.map_or(0, |t| t.as_secs() * 1000);
    let body = json!({
        "roleCredentials": {
            "accessKeyId": user.access_key_id,
            "secretAccessKey": user.secret_access_key,
            "sessionToken": user.session_token,
            "expiration": ends,
        },
    });
    Ok((body, format!("{account}/{role}")))
}

fn log_out(call: &Call<'_>) -> Answered {
    call.cloud.identity_center.log_out(call.token)?;
    Ok((json!({}), String::new()))
}
