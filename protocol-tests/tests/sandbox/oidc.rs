//! SSO OIDC: registration, both kinds of login, and refresh.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use protocol_tests::aws::api::ApiFault;
use protocol_tests::aws::events::Event;
use protocol_tests::aws::sandbox::Sandbox;
use protocol_tests::aws::sigv4::sha256_hex;
use protocol_tests::harness::person::{Button, Page, Person};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::http::{Answer, post_json};

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const DEVICE: &str = "urn:ietf:params:oauth:grant-type:device_code";

async fn sandbox() -> Sandbox {
    Sandbox::builder().start().await.unwrap()
}

/// A registration as the AWS CLI makes it for the authorization code.
fn code_client() -> Value {
    json!({
        "clientName": "botocore-client-corp",
        "clientType": "public",
        "grantTypes": ["authorization_code", "refresh_token"],
        "redirectUris": ["http://127.0.0.1/oauth/callback"],
        "issuerUrl": "https://d-1234567890.awsapps.com/start",
        "scopes": ["sso:account:access"],
    })
}

/// The same for device codes.
fn device_client() -> Value {
    json!({
        "clientName": "botocore-client-corp",
        "clientType": "public",
        "scopes": ["sso:account:access"],
    })
}

async fn register(sandbox: &Sandbox, client: &Value) -> Value {
    let answer = post_json(sandbox, "/client/register", client).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

/// A body with the client's id and secret, and the fields of `rest`.
fn with_client(client: &Value, rest: &Value) -> Value {
    let mut body = json!({
        "clientId": client["clientId"],
        "clientSecret": client["clientSecret"],
    });
    for (name, value) in rest.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

async fn start_device(sandbox: &Sandbox, client: &Value) -> Value {
    let start_url = json!({ "startUrl": sandbox.identity_center().start_url() });
    let body = with_client(client, &start_url);
    let answer = post_json(sandbox, "/device_authorization", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

async fn token(sandbox: &Sandbox, client: &Value, rest: &Value) -> Answer {
    post_json(sandbox, "/token", &with_client(client, rest)).await
}

fn device_grant(device: &Value) -> Value {
    json!({ "grantType": DEVICE, "deviceCode": device["deviceCode"] })
}

/// Checks a refusal: status, name in the header, and word in the body.
fn assert_refused(answer: &Answer, status: u16, exception: &str, error: &str) {
    assert_eq!(answer.status, status, "{}", answer.text);
    let name = format!("{exception}:http://internal.amazon.com/coral/com.amazonaws.sso.oidc/");
    assert_eq!(answer.headers["x-amzn-errortype"], name);
    assert_eq!(answer.json()["error"], error);
    assert!(answer.json()["error_description"].is_string());
    assert!(answer.json()["__type"].is_null());
}

/// A listener as a client has it: answers one request and returns its target.
async fn callback(listener: TcpListener) -> String {
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut buffer = vec![0; 8192];
    let read = socket.read(&mut buffer).await.unwrap();
    let page = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nDone";
    socket.write_all(page.as_bytes()).await.unwrap();
    let text = String::from_utf8(buffer[..read].to_vec()).unwrap();
    text.split(' ').nth(1).unwrap().to_owned()
}

/// The address that a client opens in a browser.
fn authorize_url(sandbox: &Sandbox, client: &Value, port: u16) -> String {
    format!(
        "{}/authorize?response_type=code&client_id={}&redirect_uri=http%3A%2F%2F127.0.0.1%3A{port}\
         %2Foauth%2Fcallback&state=s%2F1&code_challenge_method=S256&scopes=sso%3Aaccount%3Aaccess\
         &code_challenge={CHALLENGE}",
        sandbox.endpoint_url(),
        client["clientId"].as_str().unwrap(),
    )
}

/// Opens the page, presses a button and returns the redirect's page, parameters and port.
async fn authorize(
    sandbox: &Sandbox,
    client: &Value,
    button: Button,
) -> (Page, Vec<(String, String)>, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let target = tokio::spawn(callback(listener));
    let person = Person::new(sandbox.pki(), sandbox.dir()).unwrap();
    let url = authorize_url(sandbox, client, port);
    let page = person.sign_in(&url, button).await.unwrap();
    let target = target.await.unwrap();
    let (path, query) = target.split_once('?').unwrap();
    assert_eq!(path, "/oauth/callback");
    let pairs = url::form_urlencoded::parse(query.as_bytes());
    (page, pairs.into_owned().collect(), port)
}

fn value<'a>(pairs: &'a [(String, String)], name: &str) -> &'a str {
    let found = pairs.iter().find(|(known, _)| known == name);
    &found.unwrap_or_else(|| panic!("no {name}: {pairs:?}")).1
}

fn code_grant(code: &str, port: u16) -> Value {
    json!({
        "grantType": "authorization_code",
        "code": code,
        "codeVerifier": VERIFIER,
        "redirectUri": format!("http://127.0.0.1:{port}/oauth/callback"),
    })
}

#[tokio::test]
async fn a_code_is_exchanged_once_and_its_tokens_refreshed() {
    let sandbox = sandbox().await;
    let client = register(&sandbox, &code_client()).await;
    let life = client["clientSecretExpiresAt"].as_u64().unwrap()
        - client["clientIdIssuedAt"].as_u64().unwrap();
    assert_eq!(life, 90 * 86_400);
    let (page, redirect, port) = authorize(&sandbox, &client, Button::Allow).await;
    assert_eq!((page.status, page.text.as_str()), (200, "Done"));
    assert_eq!(value(&redirect, "state"), "s/1");
    let grant = code_grant(value(&redirect, "code"), port);
    let tokens = token(&sandbox, &client, &grant).await;
    assert_eq!(tokens.status, 200, "{}", tokens.text);
    let tokens = tokens.json();
    assert_eq!(tokens["tokenType"], "Bearer");
    assert_eq!(tokens["expiresIn"], 3600);
    assert_refused(
        &token(&sandbox, &client, &grant).await,
        400,
        "InvalidGrantException",
        "invalid_grant",
    );

    let refresh = json!({ "grantType": "refresh_token", "refreshToken": tokens["refreshToken"] });
    let new = token(&sandbox, &client, &refresh).await.json();
    assert_ne!(new["refreshToken"], tokens["refreshToken"]);
    assert_ne!(new["accessToken"], tokens["accessToken"]);
    let again = token(&sandbox, &client, &refresh).await;
    assert_refused(&again, 400, "InvalidGrantException", "invalid_grant");
    assert_eq!(
        again.json()["error_description"],
        "Invalid refresh token provided"
    );
    let secrets = sandbox.identity_center().secrets();
    for secret in [&tokens["accessToken"], &new["refreshToken"]] {
        assert!(secrets.iter().any(|known| *secret == json!(known)));
        assert!(!format!("{:?}", sandbox.events()).contains(secret.as_str().unwrap()));
    }
    let calls = |action: &str, wanted: &str| {
        sandbox.events().count(|e| {
            matches!(e, Event::LoginCall { action: a, detail } if a == action && detail == wanted)
        })
    };
    assert_eq!(calls("sso-oidc:CreateToken", "authorization_code"), 1);
    assert_eq!(calls("sso-oidc:CreateToken", "refresh_token"), 1);
}

#[tokio::test]
async fn a_code_needs_its_verifier_and_its_redirect_uri() {
    let sandbox = sandbox().await;
    let client = register(&sandbox, &code_client()).await;
    let other = register(&sandbox, &code_client()).await;
    for (name, wrong) in [
        ("codeVerifier", "x".repeat(43)),
        ("codeVerifier", "short".to_owned()),
        (
            "redirectUri",
            "http://127.0.0.1:1/oauth/callback".to_owned(),
        ),
        ("code", "wrong".to_owned()),
    ] {
        let (_, redirect, port) = authorize(&sandbox, &client, Button::Allow).await;
        let mut grant = code_grant(value(&redirect, "code"), port);
        grant[name] = json!(wrong);
        let answer = token(&sandbox, &client, &grant).await;
        assert_refused(&answer, 400, "InvalidGrantException", "invalid_grant");
    }
    let (_, redirect, port) = authorize(&sandbox, &client, Button::Allow).await;
    let grant = code_grant(value(&redirect, "code"), port);
    let stolen = token(&sandbox, &other, &grant).await;
    assert_refused(&stolen, 400, "InvalidGrantException", "invalid_grant");
}

#[tokio::test]
async fn a_denied_code_is_told_to_the_client() {
    let sandbox = sandbox().await;
    let client = register(&sandbox, &code_client()).await;
    let (_, redirect, _) = authorize(&sandbox, &client, Button::Deny).await;
    assert_eq!(value(&redirect, "error"), "access_denied");
    assert_eq!(value(&redirect, "state"), "s/1");
    assert!(!redirect.iter().any(|(name, _)| name == "code"));
    let denied = Event::PageAnswered {
        page: "/authorize".to_owned(),
        allowed: false,
    };
    assert_eq!(sandbox.events().count(|event| *event == denied), 1);
}

#[tokio::test]
async fn the_page_refuses_what_is_not_registered() {
    let sandbox = sandbox().await;
    let client = register(&sandbox, &code_client()).await;
    let devices = register(&sandbox, &device_client()).await;
    let person = Person::new(sandbox.pki(), sandbox.dir()).unwrap();
    let right = authorize_url(&sandbox, &client, 1234);
    assert_eq!(person.get(&right).await.unwrap().status, 200);
    let id = client["clientId"].as_str().unwrap();
    for (from, to, fault) in [
        (id, "nobody", "Invalid client"),
        (
            id,
            devices["clientId"].as_str().unwrap(),
            "Invalid redirect uri",
        ),
        ("%2Foauth", "%2Fother", "Invalid redirect uri"),
        ("http%3A", "https%3A", "Invalid redirect uri"),
        ("127.0.0.1", "127.0.0.2", "Invalid redirect uri"),
        (
            "response_type=code",
            "response_type=token",
            "Invalid response type",
        ),
        ("S256", "plain", "Invalid code challenge method"),
        (CHALLENGE, "x", "Invalid code challenge"),
        ("scopes=", "scope=", "Invalid scope"),
        ("account%3Aaccess", "admin", "Invalid scope"),
        ("state=", "other=", "Invalid state"),
    ] {
        // Replaces in the query only: the sandbox's own address may hold the same text.
        let (address, query) = right.split_once('?').unwrap();
        let page = person
            .get(&format!("{address}?{}", query.replace(from, to)))
            .await
            .unwrap();
        assert_eq!(page.status, 400, "{from} {to}");
        assert!(page.text.contains(fault), "{from} {to}: {}", page.text);
    }
    let page = person.sign_in(&right, Button::Allow).await;
    assert!(page.is_err(), "nothing listens at the redirect URI");
}

#[tokio::test]
async fn a_device_waits_for_its_user() {
    let sandbox = sandbox().await;
    let client = register(&sandbox, &device_client()).await;
    let device = start_device(&sandbox, &client).await;
    assert_eq!(
        (&device["expiresIn"], &device["interval"]),
        (&json!(600), &json!(1))
    );
    let user_code = device["userCode"].as_str().unwrap();
    let complete = device["verificationUriComplete"].as_str().unwrap();
    let uri = device["verificationUri"].as_str().unwrap();
    assert_eq!(complete, format!("{uri}?user_code={user_code}"));
    assert!(uri.starts_with(&sandbox.endpoint_url()));
    let grant = device_grant(&device);
    let pending = token(&sandbox, &client, &grant).await;
    assert_refused(
        &pending,
        400,
        "AuthorizationPendingException",
        "authorization_pending",
    );
    sandbox.api().fail(
        "CreateToken",
        ApiFault::Refused {
            status: 400,
            code: "SlowDownException",
            message: "Slow down",
        },
        1,
    );
    let slower = token(&sandbox, &client, &grant).await;
    assert_refused(&slower, 400, "SlowDownException", "slow_down");

    let person = Person::new(sandbox.pki(), sandbox.dir()).unwrap();
    let page = person.get(uri).await.unwrap();
    assert!(page.text.contains("Enter the code"), "{}", page.text);
    let page = person.sign_in(complete, Button::Allow).await.unwrap();
    assert_eq!(page.status, 200);
    assert!(page.text.contains("Request approved"), "{}", page.text);
    let tokens = token(&sandbox, &client, &grant).await.json();
    assert_eq!(tokens["expiresIn"], 3600);
    assert!(tokens["refreshToken"].is_string());
    let again = token(&sandbox, &client, &grant).await;
    assert_refused(&again, 400, "InvalidGrantException", "invalid_grant");
    assert!(!sandbox.identity_center().approve(user_code));
}

#[tokio::test]
async fn a_device_is_denied_or_runs_out_of_time() {
    let sandbox = sandbox().await;
    let center = sandbox.identity_center();
    let client = register(&sandbox, &device_client()).await;
    let device = start_device(&sandbox, &client).await;
    assert!(center.deny(device["userCode"].as_str().unwrap()));
    let denied = token(&sandbox, &client, &device_grant(&device)).await;
    assert_refused(&denied, 400, "AccessDeniedException", "access_denied");

    let late = start_device(&sandbox, &client).await;
    center.expire_device_codes();
    let ended = token(&sandbox, &client, &device_grant(&late)).await;
    assert_refused(&ended, 400, "ExpiredTokenException", "expired_token");
    assert!(!center.approve(late["userCode"].as_str().unwrap()));
    let person = Person::new(sandbox.pki(), sandbox.dir()).unwrap();
    let complete = late["verificationUriComplete"].as_str().unwrap();
    assert_eq!(person.get(complete).await.unwrap().status, 400);
    let unknown = json!({ "grantType": DEVICE, "deviceCode": "x" });
    let unknown = token(&sandbox, &client, &unknown).await;
    assert_refused(&unknown, 400, "InvalidGrantException", "invalid_grant");
}

#[tokio::test]
async fn only_newer_clients_may_refresh() {
    let sandbox = sandbox().await;
    let center = sandbox.identity_center();
    let mut old = device_client();
    old.as_object_mut().unwrap().remove("scopes");
    let log_in = async |client: &Value| {
        let device = start_device(&sandbox, client).await;
        assert!(center.approve(device["userCode"].as_str().unwrap()));
        let tokens = token(&sandbox, client, &device_grant(&device)).await;
        tokens.json()
    };
    let client = register(&sandbox, &old).await;
    let tokens = log_in(&client).await;
    assert_eq!(tokens["expiresIn"], 8 * 3600);
    assert!(tokens["refreshToken"].is_null());

    center.update(|settings| settings.refresh_tokens = false);
    let client = register(&sandbox, &device_client()).await;
    assert!(log_in(&client).await["refreshToken"].is_null());

    center.update(|settings| {
        settings.refresh_tokens = true;
        settings.access_token_life = Duration::from_secs(600);
        settings.login_life = Duration::from_secs(300);
    });
    let tokens = log_in(&client).await;
    assert_eq!(tokens["expiresIn"], 300, "no token outlives its login");
    sandbox.iam().set_clock_ahead(301);
    let refresh = json!({ "grantType": "refresh_token", "refreshToken": tokens["refreshToken"] });
    let over = token(&sandbox, &client, &refresh).await;
    assert_refused(&over, 400, "InvalidGrantException", "invalid_grant");
}

#[tokio::test]
async fn registrations_end_and_have_a_secret() {
    let sandbox = sandbox().await;
    let client = register(&sandbox, &device_client()).await;
    let start_url = json!({ "startUrl": sandbox.identity_center().start_url() });
    for (name, wrong) in [("clientId", "x"), ("clientSecret", "x")] {
        let mut body = with_client(&client, &start_url);
        body[name] = json!(wrong);
        let answer = post_json(&sandbox, "/device_authorization", &body).await;
        assert_refused(&answer, 401, "InvalidClientException", "invalid_client");
    }
    sandbox.identity_center().expire_registrations();
    let body = with_client(&client, &start_url);
    let answer = post_json(&sandbox, "/device_authorization", &body).await;
    assert_refused(&answer, 401, "InvalidClientException", "invalid_client");

    sandbox
        .identity_center()
        .update(|settings| settings.registration_life = Duration::from_secs(60));
    let client = register(&sandbox, &device_client()).await;
    sandbox.iam().set_clock_ahead(61);
    let body = with_client(&client, &start_url);
    let answer = post_json(&sandbox, "/device_authorization", &body).await;
    assert_refused(&answer, 401, "InvalidClientException", "invalid_client");
}

#[tokio::test]
async fn wrong_registrations_are_named() {
    let sandbox = sandbox().await;
    for (name, wrong, exception, error) in [
        (
            "clientName",
            json!(null),
            "InvalidClientMetadataException",
            "invalid_client_metadata",
        ),
        (
            "clientType",
            json!("confidential"),
            "InvalidClientMetadataException",
            "invalid_client_metadata",
        ),
        (
            "grantTypes",
            json!(["password"]),
            "UnsupportedGrantTypeException",
            "unsupported_grant_type",
        ),
        (
            "scopes",
            json!(["everything"]),
            "InvalidScopeException",
            "invalid_scope",
        ),
        (
            "redirectUris",
            json!(["https://example.com/"]),
            "InvalidRedirectUriException",
            "invalid_redirect_uri",
        ),
        (
            "redirectUris",
            json!([]),
            "InvalidRequestException",
            "invalid_request",
        ),
        (
            "issuerUrl",
            json!("https://d-0000000000.awsapps.com/start"),
            "InvalidRequestException",
            "invalid_request",
        ),
        (
            "issuerUrl",
            json!(null),
            "InvalidRequestException",
            "invalid_request",
        ),
        (
            "scopes",
            json!("text"),
            "InvalidRequestException",
            "invalid_request",
        ),
    ] {
        let mut client = code_client();
        client[name] = wrong;
        let answer = post_json(&sandbox, "/client/register", &client).await;
        assert_refused(&answer, 400, exception, error);
    }
}

#[tokio::test]
async fn wrong_calls_are_named() {
    let sandbox = sandbox().await;
    let devices = register(&sandbox, &device_client()).await;
    let codes = register(&sandbox, &code_client()).await;
    let refused = async |client: &Value, rest: Value, exception: &str, error: &str| {
        let answer = token(&sandbox, client, &rest).await;
        assert_refused(&answer, 400, exception, error);
    };
    refused(
        &devices,
        json!({}),
        "InvalidRequestException",
        "invalid_request",
    )
    .await;
    let password = json!({ "grantType": "password" });
    refused(
        &devices,
        password,
        "UnsupportedGrantTypeException",
        "unsupported_grant_type",
    )
    .await;
    let incomplete = json!({ "grantType": "refresh_token" });
    refused(
        &devices,
        incomplete,
        "InvalidRequestException",
        "invalid_request",
    )
    .await;
    let device = json!({ "grantType": DEVICE, "deviceCode": "x" });
    refused(
        &codes,
        device,
        "UnauthorizedClientException",
        "unauthorized_client",
    )
    .await;
    let code = code_grant("x", 1);
    refused(
        &devices,
        code,
        "UnauthorizedClientException",
        "unauthorized_client",
    )
    .await;

    let elsewhere = json!({ "startUrl": "https://d-0000000000.awsapps.com/start" });
    let body = with_client(&devices, &elsewhere);
    let answer = post_json(&sandbox, "/device_authorization", &body).await;
    assert_refused(&answer, 400, "InvalidRequestException", "invalid_request");
    sandbox
        .api()
        .fail("RegisterClient", ApiFault::InternalError, 1);
    let answer = post_json(&sandbox, "/client/register", &device_client()).await;
    assert_eq!(
        (answer.status, &answer.json()["error"]),
        (500, &json!("server_error"))
    );
    sandbox.api().fail("RegisterClient", ApiFault::Throttled, 1);
    let answer = post_json(&sandbox, "/client/register", &device_client()).await;
    assert_refused(&answer, 400, "SlowDownException", "slow_down");
}

/// The challenge above is of the verifier above.
#[test]
fn the_example_is_that_of_the_rfc() {
    let digest = sha256_hex(VERIFIER.as_bytes());
    let bytes: Vec<u8> = (0..digest.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digest[at..at + 2], 16).unwrap())
        .collect();
    assert_eq!(BASE64_URL_SAFE_NO_PAD.encode(bytes), CHALLENGE);
}
