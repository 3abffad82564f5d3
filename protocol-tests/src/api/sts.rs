//! `sts:GetCallerIdentity` in the Query protocol (form in, XML out).

use http::{HeaderValue, StatusCode};
use uuid::Uuid;

use super::{ApiError, Reply, Request, play_fault, typed_reply};
use crate::cloud::Cloud;

pub(crate) async fn answer(cloud: &Cloud, request: &Request) -> Reply {
    let form: Vec<(String, String)> = url::form_urlencoded::parse(&request.body)
        .into_owned()
        .collect();
    let action = form.iter().find(|(name, _)| name == "Action");
    let action = action.map_or("", |(_, value)| value.as_str());
    let user = match cloud.authenticate(request, "sts") {
        Ok(user) => user,
        Err(error) => {
            cloud.note_denied(&format!("sts:{action}"), error.query_code());
            return failure(&ApiError {
                status: StatusCode::from_u16(error.query_status()).unwrap_or(StatusCode::FORBIDDEN),
                code: error.query_code().to_owned(),
                message: error.to_string(),
            });
        }
    };
    if let Some(reply) = play_fault(cloud, action, failure).await {
        return reply;
    }
    if action != "GetCallerIdentity" {
        let message = format!("Could not find operation {action} for version 2011-06-15");
        return failure(&ApiError::new("InvalidAction", message));
    }
    let id = Uuid::new_v4().to_string();
    let body = format!(
        "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\n  \
         <GetCallerIdentityResult>\n    <Arn>{}</Arn>\n    <UserId>{}</UserId>\n    \
         <Account>{}</Account>\n  </GetCallerIdentityResult>\n  <ResponseMetadata>\n    \
         <RequestId>{id}</RequestId>\n  </ResponseMetadata>\n</GetCallerIdentityResponse>\n",
        escape(&user.arn),
        user_id(&user.access_key_id),
        cloud.iam.account(),
    );
    with_id(typed_reply(StatusCode::OK, "text/xml", body), &id)
}

/// The request id stands in the header as well as in the body.
fn with_id(mut reply: Reply, id: &str) -> Reply {
    if let Ok(value) = HeaderValue::from_str(id) {
        reply.headers_mut().insert("x-amzn-requestid", value);
    }
    reply
}

/// Unique ids of users start with AIDA, of roles with AROA; any stable text does here.
fn user_id(access_key_id: &str) -> String {
    let tail: String = access_key_id.chars().skip(4).collect();
    format!("AIDA{tail}")
}

fn failure(error: &ApiError) -> Reply {
    let sender = if error.status.is_server_error() {
        "Receiver"
    } else {
        "Sender"
    };
    let id = Uuid::new_v4().to_string();
    let body = format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\n  <Error>\n    \
         <Type>{sender}</Type>\n    <Code>{}</Code>\n    <Message>{}</Message>\n  </Error>\n  \
         <RequestId>{id}</RequestId>\n</ErrorResponse>\n",
        escape(&error.code),
        escape(&error.message),
    );
    with_id(typed_reply(error.status, "text/xml", body), &id)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
