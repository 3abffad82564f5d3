//! The REST JSON protocol, which SSO OIDC, the SSO portal and the sign-in service speak.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use http_body_util::Full;
use serde_json::Value;

use super::{ApiError, Reply, Request, typed_reply};
use crate::aws::cloud::Cloud;
use crate::aws::events::Event;
use crate::aws::identity_center::Denied;

const CONTENT_TYPE: &str = "application/json";
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

pub(super) fn success(body: &Value) -> Reply {
    typed_reply(StatusCode::OK, CONTENT_TYPE, body.to_string())
}

/// Body of an answer, and its entry in the event log.
pub(super) type Answered = Result<(Value, String), Denied>;

/// Records a call, and writes its answer, or its refusal with `failure`.
pub(super) fn reply(
    cloud: &Cloud,
    action: String,
    answered: Answered,
    failure: impl FnOnce(Denied) -> Reply,
) -> Reply {
    match answered {
        Ok((body, detail)) => {
            cloud.events.push(Event::LoginCall { action, detail });
            success(&body)
        }
        Err(refusal) => {
            cloud.note_denied(&action, refusal.code);
            failure(refusal)
        }
    }
}

/// An error with its name in a header, as these services write it: `NAME:http://…/NAMESPACE/`.
pub(super) fn failure(error: &ApiError, namespace: &str, body: &Value) -> Reply {
    let mut reply = typed_reply(error.status, CONTENT_TYPE, body.to_string());
    let name = format!(
        "{}:http://internal.amazon.com/coral/{namespace}/",
        error.code
    );
    if let Ok(name) = HeaderValue::from_str(&name) {
        reply.headers_mut().insert(ERROR_TYPE, name);
    }
    reply
}

/// A page of HTML.
pub(super) fn page(status: StatusCode, html: String) -> Reply {
    typed_reply(status, "text/html; charset=utf-8", html)
}

/// Sends the browser elsewhere, with GET.
pub(super) fn see_other(location: &str) -> Reply {
    let mut reply = Reply::new(Full::new(Bytes::new()));
    *reply.status_mut() = StatusCode::SEE_OTHER;
    if let Ok(location) = HeaderValue::from_str(location) {
        reply.headers_mut().insert(header::LOCATION, location);
    }
    reply
}

/// Names and values of a query string or a form.
pub(super) struct Values(Vec<(String, String)>);

impl Values {
    pub(super) fn of_query(request: &Request) -> Self {
        Self::parse(request.uri.query().unwrap_or_default().as_bytes())
    }

    pub(super) fn of_form(request: &Request) -> Self {
        Self::parse(&request.body)
    }

    fn parse(text: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(text).into_owned().collect())
    }

    /// One value; an empty one counts as none.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }
}

/// `https://HOST` as the client has called this server.
pub(super) fn origin(request: &Request) -> String {
    let host = request.headers.get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok());
    format!("https://{}", host.unwrap_or("localhost"))
}
