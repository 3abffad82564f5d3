//! Pages that the sign-in shows in a browser. The user is signed in already: a page asks for
//! permission and has the buttons "Allow access" and "Deny access".

use http::{Method, StatusCode};
use url::Url;
use uuid::Uuid;

use super::rest::{self, Values};
use super::{Reply, Request};
use crate::aws::cloud::Cloud;
use crate::aws::events::Event;
use crate::aws::identity_center::AuthorizationRequest;

/// Asks for an authorization code. Not in the model of SSO OIDC; taken from the AWS CLI.
pub(super) const AUTHORIZE: &str = "/authorize";
/// Asks for a device code.
pub(super) const DEVICE: &str = "/device";

/// Name of the field with the user's answer, and the value that allows.
const DECISION: &str = "decision";
const ALLOW: &str = "allow";

pub(super) fn authorize(cloud: &Cloud, request: &Request) -> Reply {
    if request.method == Method::POST {
        return authorized(cloud, request);
    }
    match read_request(cloud, &Values::of_query(request)) {
        Ok((client, asked)) => {
            let id = cloud.identity_center.open_request(asked);
            shown(cloud, AUTHORIZE);
            let text = format!("Allow {client} to access your data?");
            question(&text, AUTHORIZE, ("request", &id.to_string()))
        }
        Err(fault) => {
            cloud.note_denied("sso-oidc:Authorize", fault);
            message(StatusCode::BAD_REQUEST, "Something went wrong", fault)
        }
    }
}

/// Reads and checks a request for a code; the fault is shown to the user, not sent to the client.
fn read_request(
    cloud: &Cloud,
    query: &Values,
) -> Result<(String, AuthorizationRequest), &'static str> {
    let need = |name, fault| query.get(name).ok_or(fault);
    let client_id = need("client_id", "Invalid client")?;
    let client = cloud.identity_center.client_by_id(client_id);
    let client = client.ok_or("Invalid client")?;
    let redirect_uri = need("redirect_uri", "Invalid redirect uri")?;
    if !client.redirects_to(redirect_uri) {
        return Err("Invalid redirect uri");
    }
    if query.get("response_type") != Some("code") || client.may_use("authorization_code").is_err() {
        return Err("Invalid response type");
    }
    if query.get("code_challenge_method") != Some("S256") {
        return Err("Invalid code challenge method");
    }
    let challenge = need("code_challenge", "Invalid code challenge")?;
    // SHA-256 in Base64 without padding.
    if challenge.len() != 43 {
        return Err("Invalid code challenge");
    }
    // "scopes" and not "scope", which OAuth has.
    let scopes = need("scopes", "Invalid scope")?.split(' ');
    let scopes: Vec<String> = scopes.map(str::to_owned).collect();
    if !scopes.iter().all(|scope| client.scopes.contains(scope)) {
        return Err("Invalid scope");
    }
    let asked = AuthorizationRequest {
        client_id: client.id,
        redirect_uri: redirect_uri.to_owned(),
        state: need("state", "Invalid state")?.to_owned(),
        challenge: challenge.to_owned(),
        scopes,
    };
    Ok((client.name, asked))
}

fn authorized(cloud: &Cloud, request: &Request) -> Reply {
    let form = Values::of_form(request);
    let allowed = form.get(DECISION) == Some(ALLOW);
    let id = form.get("request").and_then(|id| Uuid::parse_str(id).ok());
    let closed = id.and_then(|id| cloud.identity_center.close_request(id, allowed));
    let parsed = closed.and_then(|(asked, code)| {
        let url = Url::parse(&asked.redirect_uri).ok()?;
        Some((url, asked.state, code))
    });
    let Some((mut url, state, code)) = parsed else {
        let fault = "This request has ended";
        return message(StatusCode::BAD_REQUEST, "Something went wrong", fault);
    };
    answered(cloud, AUTHORIZE, allowed);
    let mut query = url.query_pairs_mut();
    match code {
        Some(code) => query.append_pair("code", &code),
        None => query
            .append_pair("error", "access_denied")
            .append_pair("error_description", "The user denied access"),
    };
    query.append_pair("state", &state);
    drop(query);
    rest::see_other(url.as_str())
}

pub(super) fn device(cloud: &Cloud, request: &Request) -> Reply {
    if request.method == Method::POST {
        let form = Values::of_form(request);
        let Some(decision) = form.get(DECISION) else {
            return confirm(cloud, form.get("user_code"));
        };
        return decide(cloud, &form, decision == ALLOW);
    }
    confirm(cloud, Values::of_query(request).get("user_code"))
}

/// Asks for the code, or for permission if there is one.
fn confirm(cloud: &Cloud, user_code: Option<&str>) -> Reply {
    let Some(user_code) = user_code else {
        shown(cloud, DEVICE);
        let form = format!(
            "<form method=\"post\" action=\"{DEVICE}\">\
             <input name=\"user_code\" autofocus> <button>Next</button></form>"
        );
        return html(StatusCode::OK, "Enter the code shown on your device", &form);
    };
    match cloud.identity_center.waiting_client(user_code) {
        Some(client) => {
            shown(cloud, DEVICE);
            let text = format!("Allow {} with the code {user_code}?", client.name);
            question(&text, DEVICE, ("user_code", user_code))
        }
        None => {
            let fault = "This code is not valid";
            message(StatusCode::BAD_REQUEST, "Something went wrong", fault)
        }
    }
}

fn decide(cloud: &Cloud, form: &Values, allowed: bool) -> Reply {
    let user_code = form.get("user_code").unwrap_or_default();
    let done = match allowed {
        true => cloud.identity_center.approve(user_code),
        false => cloud.identity_center.deny(user_code),
    };
    if !done {
        let fault = "This code is not valid";
        return message(StatusCode::BAD_REQUEST, "Something went wrong", fault);
    }
    answered(cloud, DEVICE, allowed);
    let title = match allowed {
        true => "Request approved",
        false => "Request denied",
    };
    message(StatusCode::OK, title, "You can close this window.")
}

fn shown(cloud: &Cloud, page: &str) {
    cloud.events.push(Event::PageShown {
        page: page.to_owned(),
    });
}

fn answered(cloud: &Cloud, page: &str, allowed: bool) {
    cloud.events.push(Event::PageAnswered {
        page: page.to_owned(),
        allowed,
    });
}

/// A page with both buttons, which sends the named value with the answer.
fn question(text: &str, action: &str, (name, value): (&str, &str)) -> Reply {
    let form = format!(
        "<form method=\"post\" action=\"{action}\">\
         <input type=\"hidden\" name=\"{name}\" value=\"{}\">\
         <button id=\"allow\" name=\"{DECISION}\" value=\"{ALLOW}\">Allow access</button> \
         <button id=\"deny\" name=\"{DECISION}\" value=\"deny\">Deny access</button></form>",
        escape(value)
    );
    html(StatusCode::OK, text, &form)
}

fn message(status: StatusCode, title: &str, text: &str) -> Reply {
    html(status, title, &format!("<p>{}</p>", escape(text)))
}

fn html(status: StatusCode, title: &str, body: &str) -> Reply {
    let title = escape(title);
    let page = format!(
        "<!DOCTYPE html><html lang=\"en\"><meta charset=\"utf-8\">\
         <title>{title} - Sandbox sign-in</title><h1>{title}</h1>{body}</html>"
    );
    rest::page(status, page)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
