//! Logins against a stand-in for the OIDC service.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};

use aws_config::BehaviorVersion;
use aws_profile::Registration;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

use super::*;

type Answers = Arc<Mutex<VecDeque<(u16, Value)>>>;
type Calls = Arc<Mutex<Vec<(String, Value)>>>;

/// A stand-in that answers CreateToken from a list, and other calls always the same.
pub(super) struct Service {
    pub(super) config: SdkConfig,
    tokens: Answers,
    calls: Calls,
    home: tempfile::TempDir,
}

impl Service {
    pub(super) async fn start(tokens: Vec<(u16, Value)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let tokens: Answers = Arc::new(Mutex::new(tokens.into()));
        let calls = Calls::default();
        let (answers, noted) = (Arc::clone(&tokens), Arc::clone(&calls));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answers, noted) = (Arc::clone(&answers), Arc::clone(&noted));
                let service = service_fn(move |request| {
                    answer(request, Arc::clone(&answers), Arc::clone(&noted))
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        let config = aws_config::defaults(BehaviorVersion::latest())
            .no_credentials()
            .region("eu-west-1")
            .endpoint_url(url)
            .load()
            .await;
        Self {
            config,
            tokens,
            calls,
            home: tempfile::tempdir().unwrap(),
        }
    }

    pub(super) fn files(&self) -> CacheFiles {
        CacheFiles::below(self.home.path())
    }

    pub(super) fn calls(&self, path: &str) -> Vec<Value> {
        let calls = self.calls.lock().unwrap();
        let calls = calls.iter().filter(|(called, _)| called == path);
        calls.map(|(_, body)| body.clone()).collect()
    }

    /// Logs in with a browser that goes where `browse` says.
    async fn log_in(
        &self,
        login: &SsoLogin,
        browse: impl Fn(&Url) -> String + Send + Sync,
    ) -> Result<LoggedIn, LoginError> {
        let options = LoginOptions {
            no_browser: true,
            ..LoginOptions::default()
        };
        let mut tell = |event: LoginEvent<'_>| {
            if let LoginEvent::Page { url, .. } = event {
                let target = browse(&Url::parse(url).unwrap());
                tokio::spawn(async move { get(&target).await });
            }
        };
        log_in(&self.config, (login, &options), &self.files(), &mut tell).await
    }

    fn file(&self, path: &str) -> Option<Value> {
        let bytes = std::fs::read(self.home.path().join(".aws").join(path)).ok()?;
        Some(serde_json::from_slice(&bytes).unwrap())
    }
}

async fn answer(
    request: Request<Incoming>,
    tokens: Answers,
    calls: Calls,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap();
    calls.lock().unwrap().push((path.clone(), body));
    let (status, answer) = match path.as_str() {
        "/client/register" => (
            200,
            json!({
                "clientId": "client-1",
                "clientSecret": "secret-of-the-client",
                "clientIdIssuedAt": 1,
                "clientSecretExpiresAt": 4_102_444_800_i64,
            }),
        ),
        "/device_authorization" => (
            200,
            json!({
                "deviceCode": "device-code-1",
                "userCode": "ABCD-EFGH",
                "verificationUri": "https://device.example/",
                "verificationUriComplete": "https://device.example/?user_code=ABCD-EFGH",
                "expiresIn": 600,
                "interval": 1,
            }),
        ),
        "/token" => tokens.lock().unwrap().pop_front().unwrap(),
        other => panic!("{other}"),
    };
    let mut response = Response::new(Full::new(Bytes::from(answer.to_string())));
    *response.status_mut() = status.try_into().unwrap();
    Ok(response)
}

/// Requests a page like a browser, and returns the answer.
async fn get(url: &str) -> String {
    let url = Url::parse(url).unwrap();
    let address = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
    let mut stream = TcpStream::connect(address).await.unwrap();
    let path = &url[url::Position::BeforePath..];
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    _ = stream.read_to_string(&mut answer).await;
    answer
}

pub(super) fn token() -> (u16, Value) {
    (
        200,
        json!({
            "accessToken": "access-token-1",
            "expiresIn": 28_800,
            "refreshToken": "refresh-token-1",
            "tokenType": "Bearer",
        }),
    )
}

pub(super) fn refused(error: &str) -> (u16, Value) {
    (
        400,
        json!({"error": error, "error_description": format!("{error} it is")}),
    )
}

pub(super) fn session() -> SsoLogin {
    SsoLogin {
        session: Some("corp".to_owned()),
        start_url: "https://d-1.awsapps.com/start".to_owned(),
        region: "eu-west-1".to_owned(),
        scopes: None,
    }
}

/// Returns the address that the page redirects to.
fn redirect(url: &Url, query: &str) -> String {
    let redirect = parameter(url, "redirect_uri");
    let state = parameter(url, "state");
    format!("{redirect}?{}", query.replace("STATE", &state))
}

fn parameter(url: &Url, name: &str) -> String {
    let found = url.query_pairs().find(|(key, _)| key == name);
    found.unwrap().1.into_owned()
}

const TOKEN_FILE: &str = "sso/cache/ee0bfd2552fbd840c02cc48b6e823320543c450f.json";

#[tokio::test]
async fn a_login_in_the_browser_is_saved_like_that_of_the_cli() {
    let service = Service::start(vec![token(), token()]).await;
    let browse = |url: &Url| {
        assert_eq!(parameter(url, "client_id"), "client-1");
        assert_eq!(parameter(url, "scopes"), "sso:account:access");
        redirect(url, "code=code-1&state=STATE")
    };
    let logged_in = service.log_in(&session(), browse).await.unwrap();
    let left = logged_in.until.duration_since(SystemTime::now()).unwrap();
    assert!(logged_in.is_renewable);
    assert!((28_700..=28_800).contains(&left.as_secs()), "{left:?}");

    let [registered] = &service.calls("/client/register")[..] else {
        panic!("one registration")
    };
    assert_eq!(registered["clientName"], "pgiam-corp");
    assert_eq!(registered["clientType"], "public");
    assert_eq!(registered["issuerUrl"], "https://d-1.awsapps.com/start");
    assert_eq!(
        registered["redirectUris"],
        json!(["http://127.0.0.1/oauth/callback"])
    );
    let grants = json!(["authorization_code", "refresh_token"]);
    assert_eq!(registered["grantTypes"], grants);
    let [created] = &service.calls("/token")[..] else {
        panic!("one token")
    };
    assert_eq!(created["grantType"], "authorization_code");
    assert_eq!(created["code"], "code-1");
    assert_eq!(created["codeVerifier"].as_str().unwrap().len(), 64);
    let redirect_uri = created["redirectUri"].as_str().unwrap();
    assert!(
        redirect_uri.starts_with("http://127.0.0.1:"),
        "{redirect_uri}"
    );

    let file = service.file(TOKEN_FILE).unwrap();
    for (key, expected) in [
        ("startUrl", "https://d-1.awsapps.com/start"),
        ("region", "eu-west-1"),
        ("accessToken", "access-token-1"),
        ("clientId", "client-1"),
        ("clientSecret", "secret-of-the-client"),
        ("registrationExpiresAt", "2100-01-01T00:00:00Z"),
        ("refreshToken", "refresh-token-1"),
    ] {
        assert_eq!(file[key], expected, "{key}");
    }
    assert_eq!(
        file["expiresAt"].as_str().unwrap().len(),
        "2026-01-31T12:00:00Z".len()
    );

    // The next login reuses the registration.
    let browse = |url: &Url| redirect(url, "code=code-2&state=STATE");
    service.log_in(&session(), browse).await.unwrap();
    assert_eq!(service.calls("/client/register").len(), 1);
    // Other scopes need another one.
    service.tokens.lock().unwrap().push_back(token());
    let scopes = SsoLogin {
        scopes: Some("sso:account:access, x:y".to_owned()),
        ..session()
    };
    let browse = |url: &Url| {
        assert_eq!(parameter(url, "scopes"), "sso:account:access x:y");
        redirect(url, "code=code-3&state=STATE")
    };
    service.log_in(&scopes, browse).await.unwrap();
    assert_eq!(service.calls("/client/register").len(), 2);
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_user_reads_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let service = Service::start(vec![token()]).await;
    let browse = |url: &Url| redirect(url, "code=c&state=STATE");
    service.log_in(&session(), browse).await.unwrap();
    let dir = service.home.path().join(".aws/sso/cache");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    let files = std::fs::read_dir(&dir).unwrap();
    let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 2);
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn a_login_that_fails_on_the_page_asks_for_no_token() {
    let service = Service::start(Vec::new()).await;
    for (query, expected) in [
        ("error=access_denied&state=STATE", LoginError::Denied),
        (
            "error=invalid_scope&error_description=no+such+scope",
            LoginError::Page {
                code: "invalid_scope".into(),
                description: Some("no such scope".into()),
            },
        ),
    ] {
        let failed = service.log_in(&session(), |url| redirect(url, query)).await;
        assert_eq!(failed, Err(expected), "{query}");
    }
    assert!(service.calls("/token").is_empty());
    assert_eq!(service.file(TOKEN_FILE), None);
}

#[tokio::test]
async fn a_registration_that_fails_is_not_used_again() {
    let service = Service::start(vec![refused("invalid_client"), token()]).await;
    let browse = |url: &Url| redirect(url, "code=c&state=STATE");
    let failed = service.log_in(&session(), browse).await.unwrap_err();
    assert_eq!(
        failed.to_string(),
        "sso-oidc:CreateToken failed: invalid_client: invalid_client it is"
    );
    service.log_in(&session(), browse).await.unwrap();
    assert_eq!(service.calls("/client/register").len(), 2);
}

#[tokio::test]
async fn another_start_url_ends_the_keys_of_the_old_one() {
    let service = Service::start(vec![token(), token(), token()]).await;
    let browse = |url: &Url| redirect(url, "code=c&state=STATE");
    service.log_in(&session(), browse).await.unwrap();
    let dir = service.home.path().join(".aws/cli/cache");
    std::fs::create_dir_all(&dir).unwrap();
    let keys = |kind: &str| {
        format!(
            r#"{{{kind}"Credentials": {{"AccessKeyId": "A", "SecretAccessKey": "S",
            "SessionToken": "T", "Expiration": "2100-01-01T00:00:00Z"}}}}"#
        )
    };
    std::fs::write(dir.join("sso.json"), keys(r#""ProviderType": "sso", "#)).unwrap();
    std::fs::write(dir.join("role.json"), keys("")).unwrap();
    std::fs::write(dir.join("session.db"), "x").unwrap();
    let has = |name: &str| dir.join(name).exists();
    service.log_in(&session(), browse).await.unwrap();
    assert!(has("sso.json"));
    let moved = SsoLogin {
        start_url: "https://d-2.awsapps.com/start".to_owned(),
        ..session()
    };
    service.log_in(&moved, browse).await.unwrap();
    assert!(!has("sso.json") && has("role.json") && has("session.db"));
}

#[tokio::test]
async fn a_device_code_is_awaited() {
    let pending = || refused("authorization_pending");
    let service = Service::start(vec![pending(), pending(), token()]).await;
    let login = SsoLogin {
        session: None,
        ..session()
    };
    let options = LoginOptions {
        no_browser: true,
        ..LoginOptions::default()
    };
    let mut told = Vec::new();
    let mut tell = |event: LoginEvent<'_>| told.push(format!("{event:?}"));
    let files = service.files();
    log_in(&service.config, (&login, &options), &files, &mut tell)
        .await
        .unwrap();
    assert_eq!(
        told,
        [
            "DeviceCode { code: \"ABCD-EFGH\", url: \"https://device.example/\", \
             complete_url: Some(\"https://device.example/?user_code=ABCD-EFGH\"), \
             expires_in: 600s, opens: false }"
        ]
    );
    let [registered] = &service.calls("/client/register")[..] else {
        panic!("one registration")
    };
    let name = registered["clientName"].as_str().unwrap();
    assert!(name.starts_with("pgiam-1"), "{name}");
    for absent in ["grantTypes", "redirectUris", "issuerUrl", "scopes"] {
        assert!(registered[absent].is_null(), "{absent}");
    }
    let started = &service.calls("/device_authorization")[0];
    assert_eq!(started["startUrl"], "https://d-1.awsapps.com/start");
    let created = service.calls("/token");
    assert_eq!(created.len(), 3);
    assert_eq!(created[2]["deviceCode"], "device-code-1");
    // The token goes by the start URL.
    let file = service.file("sso/cache/0c54b6c27e90660baa89eaad85ac1d5dae26cb7d.json");
    assert_eq!(file.unwrap()["accessToken"], "access-token-1");
    let file = service.file("sso/cache/8da4b80b5d9b65ac135f58293730b6683603363f.json");
    let registration = Registration::parse(file.unwrap().to_string().as_bytes()).unwrap();
    assert_eq!(registration.kind(), GrantKind::DeviceCode);
}

#[tokio::test]
async fn the_end_of_a_device_code_is_told() {
    let options = LoginOptions {
        device_code: true,
        no_browser: true,
        redirect_port: None,
    };
    for (error, expected) in [
        ("access_denied", LoginError::Denied),
        (
            "expired_token",
            LoginError::CodeExpired(Duration::from_secs(600)),
        ),
    ] {
        let service = Service::start(vec![refused("authorization_pending"), refused(error)]).await;
        let mut tell = |_: LoginEvent<'_>| {};
        let failed = log_in(
            &service.config,
            (&session(), &options),
            &service.files(),
            &mut tell,
        )
        .await;
        assert_eq!(failed, Err(expected), "{error}");
    }
}

#[tokio::test]
async fn a_start_url_without_tls_is_refused() {
    let service = Service::start(Vec::new()).await;
    let login = SsoLogin {
        start_url: "http://d-1.awsapps.com/start".to_owned(),
        ..session()
    };
    let failed = service.log_in(&login, |_| panic!("no page")).await;
    assert_eq!(
        failed.unwrap_err().to_string(),
        "cannot log in at the start URL http://d-1.awsapps.com/start: it must begin with https://; correct sso_start_url"
    );
}
