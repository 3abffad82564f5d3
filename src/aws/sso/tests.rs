//! The rules of the AWS CLI for tokens and keys of IAM Identity Center, against a stand-in.

mod sandbox;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use aws_profile::{Origin, Setting, format_date};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use super::*;
use crate::aws::tests::stand_in::{NOW, StandIn};

const START_URL: &str = "https://d-1.awsapps.com/start";

fn setting(value: &str) -> Setting {
    Setting {
        value: value.into(),
        origin: Origin::Request,
    }
}

fn sso(session: Option<&str>) -> Sso {
    Sso {
        profile: "dev".into(),
        session: session.map(setting),
        start_url: setting(START_URL),
        region: setting("eu-west-1"),
        account_id: setting("011122223333"),
        role_name: setting("Dev"),
        registration_scopes: None,
    }
}

/// A home directory, a service and a clock.
struct Scene {
    _home: TempDir,
    files: CacheFiles,
    service: StandIn,
    now: Arc<AtomicI64>,
    portal: SsoPortal,
}

impl Scene {
    async fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let files = CacheFiles::below(home.path());
        let service = StandIn::start().await;
        let now = Arc::new(AtomicI64::new(NOW));
        let hand = now.clone();
        let clock: Clock = Arc::new(move || time(hand.load(Ordering::SeqCst)));
        Self {
            portal: SsoPortal::new(service.config(), files.clone(), clock),
            _home: home,
            files,
            service,
            now,
        }
    }

    fn pass(&self, seconds: i64) {
        self.now.fetch_add(seconds, Ordering::SeqCst);
    }

    fn write(&self, dir: CacheDir, name: &str, contents: &Json) {
        std::fs::create_dir_all(self.files.dir(dir)).unwrap();
        std::fs::write(self.files.path(dir, name), contents.to_string()).unwrap();
    }

    /// Writes a token with this time left, and these changes.
    fn token(&self, session: Option<&str>, left: i64, changes: &Json) {
        self.write(
            CacheDir::Sso,
            &SsoCacheKey::from(&sso(session)).token_file(),
            &token(left, changes),
        );
    }

    fn stored(&self) -> Json {
        let name = SsoCacheKey::from(&sso(Some("corp"))).token_file();
        let text = std::fs::read(self.files.path(CacheDir::Sso, &name)).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// Writes cached keys of the role with this time left.
    fn role(&self, session: Option<&str>, left: i64) {
        let name = SsoCacheKey::from(&sso(session)).role_file("011122223333", "Dev");
        let keys = json!({"ProviderType": "sso", "Credentials": {
            "AccessKeyId": "ASIACACHED", "SecretAccessKey": "s", "SessionToken": "t",
            "Expiration": format_date(NOW + left).replace('Z', "+00:00"),
        }});
        self.write(CacheDir::Cli, &name, &keys);
    }

    /// Requests keys, and returns their id or a short form of the error.
    async fn ask(&self, session: Option<&str>, caches: CacheUse) -> String {
        match self.portal.credentials(&sso(session), caches).await {
            Ok(keys) => keys.access_key_id().to_owned(),
            Err(error) => short(&error).to_owned(),
        }
    }

    /// Returns the paths of the requests so far.
    fn asked(&self) -> Vec<String> {
        let requests = self.service.requests();
        let path = |request: &String| {
            let path = request.split(' ').nth(1).unwrap();
            path.split('?').next().unwrap().to_owned()
        };
        requests.iter().map(path).collect()
    }
}

fn token(left: i64, changes: &Json) -> Json {
    let mut file = json!({
        "startUrl": START_URL, "region": "eu-west-1", "accessToken": "token-1",
        "expiresAt": format_date(NOW + left), "clientId": "client", "clientSecret": "secret",
        "registrationExpiresAt": format_date(NOW + 86_400), "refreshToken": "refresh-1",
        "futureKey": 7,
    });
    for (key, value) in changes.as_object().unwrap() {
        file[key] = value.clone();
    }
    file
}

fn short(error: &SsoError) -> &'static str {
    match error {
        SsoError::NotLoggedIn { .. } => "not logged in",
        SsoError::Expired { reason, .. } => match reason {
            NotRefreshed::WithoutSession => "expired: legacy",
            NotRefreshed::Token(_) => "expired: cannot refresh",
            NotRefreshed::Refused(_) => "expired: refused",
        },
        SsoError::Rejected { .. } => "rejected",
        SsoError::NotAssigned { .. } => "not assigned",
        SsoError::Cache(_) => "cache",
        SsoError::Malformed(_) => "malformed",
        SsoError::Call(_) => "call",
        SsoError::Internal(_) => "internal",
    }
}

fn keys() -> String {
    json!({"roleCredentials": {
        "accessKeyId": "ASIANEW", "secretAccessKey": "s", "sessionToken": "t",
        "expiration": (NOW + 3600) * 1000 + 999,
    }})
    .to_string()
}

fn new_token(refresh: &Json) -> String {
    json!({"accessToken": "token-2", "expiresIn": 3600, "tokenType": "Bearer", "refreshToken": refresh})
        .to_string()
}

const REFUSED: &str =
    r#"{"error": "invalid_grant", "error_description": "Invalid refresh token provided"}"#;
const KEYS: &str = "/federation/credentials";
const REFRESH: &str = "/token";

/// One row: name, session, time left, changes of the file, answers, result, requests.
type Row = (
    &'static str,
    Option<&'static str>,
    i64,
    Json,
    Vec<(u16, String)>,
    &'static str,
    Vec<&'static str>,
);

fn rows() -> Vec<Row> {
    let none = || json!({});
    let corp = Some("corp");
    let refresh = || (200, new_token(&json!("refresh-2")));
    let refused = || (400, REFUSED.to_owned());
    let ok = || (200, keys());
    vec![
        ("fresh", corp, 900, none(), vec![ok()], "ASIANEW", vec![KEYS]),
        ("10 min left", corp, 600, none(), vec![refresh(), ok()], "ASIANEW", vec![REFRESH, KEYS]),
        ("expired", corp, -5, none(), vec![refresh(), ok()], "ASIANEW", vec![REFRESH, KEYS]),
        ("ends now", corp, 0, none(), vec![refresh(), ok()], "ASIANEW", vec![REFRESH, KEYS]),
        ("8 min left, refused", corp, 480, none(), vec![refused(), ok()], "ASIANEW", vec![REFRESH, KEYS]),
        ("expired, refused", corp, -5, none(), vec![refused()], "expired: refused", vec![REFRESH]),
        (
            "8 min left, server error",
            corp,
            480,
            none(),
            vec![(500, "{}".to_owned()), ok()],
            "ASIANEW",
            vec![REFRESH, KEYS],
        ),
        ("expired, server error", corp, -5, none(), vec![(500, "{}".to_owned())], "call", vec![REFRESH]),
        ("expired, throttled", corp, -5, none(), vec![(429, "{}".to_owned())], "call", vec![REFRESH]),
        ("expired, no JSON", corp, -5, none(), vec![(200, "<html>".to_owned())], "call", vec![REFRESH]),
        ("expired, no token", corp, -5, none(), vec![(200, "{}".to_owned())], "call", vec![REFRESH]),
        (
            "expired, no refresh token",
            corp,
            -5,
            json!({"refreshToken": null}),
            vec![],
            "expired: cannot refresh",
            vec![],
        ),
        (
            "expired, registration ended",
            corp,
            -5,
            json!({"registrationExpiresAt": "2026-01-01T00:00:00Z"}),
            vec![],
            "expired: cannot refresh",
            vec![],
        ),
        (
            "8 min left, registration ended",
            corp,
            480,
            json!({"registrationExpiresAt": "2026-01-01T00:00:00Z"}),
            vec![ok()],
            "ASIANEW",
            vec![KEYS],
        ),
        (
            "fresh, registration in another form",
            corp,
            3600,
            json!({"registrationExpiresAt": "2026-01-01T00:00:00UTC"}),
            vec![ok()],
            "ASIANEW",
            vec![KEYS],
        ),
        (
            "fresh, date with offset",
            corp,
            0,
            json!({"expiresAt": "2026-11-30T15:00:00.5+02:00"}),
            vec![ok()],
            "ASIANEW",
            vec![KEYS],
        ),
        (
            "date without offset",
            corp,
            0,
            json!({"expiresAt": "2099-01-01T00:00:00"}),
            vec![],
            "cache",
            vec![],
        ),
        ("legacy", None, 60, none(), vec![ok()], "ASIANEW", vec![KEYS]),
        ("legacy, expired", None, -5, none(), vec![], "expired: legacy", vec![]),
        ("rejected", corp, 3600, none(), vec![(401, r#"{"__type": "UnauthorizedException", "message": "Session token not found or invalid"}"#.to_owned())], "rejected", vec![KEYS]),
        ("not assigned", corp, 3600, none(), vec![(403, r#"{"__type": "ForbiddenException", "message": "No access"}"#.to_owned())], "not assigned", vec![KEYS]),
        ("answer without keys", corp, 3600, none(), vec![(200, "{}".to_owned())], "call", vec![KEYS]),
    ]
}

#[tokio::test]
async fn tokens_are_used_and_refreshed_as_by_the_cli() {
    for (name, session, left, changes, answers, expected, requests) in rows() {
        let scene = Scene::new().await;
        scene.token(session, left, &changes);
        for (status, body) in answers {
            scene.service.answer(status, body);
        }
        assert_eq!(scene.ask(session, CacheUse::Read).await, expected, "{name}");
        assert_eq!(scene.asked(), requests, "{name}");
    }
}

#[tokio::test]
async fn a_refresh_is_written_as_by_the_cli() {
    for (refresh, changes) in [(json!("refresh-2"), json!({})), (Json::Null, json!({}))] {
        let scene = Scene::new().await;
        scene.token(Some("corp"), -5, &changes);
        scene.service.answer(200, new_token(&refresh));
        let of_profile = sso(Some("corp"));
        let key = SsoCacheKey::from(&of_profile);
        let token = scene.portal.token(&key).await.unwrap();
        assert_eq!(token.access_token.expose(), "token-2");
        let request = scene.service.requests().remove(0);
        let (_, body) = request.split_once("\r\n\r\n").unwrap();
        assert_eq!(
            serde_json::from_str::<Json>(body).unwrap(),
            json!({"clientId": "client", "clientSecret": "secret", "grantType": "refresh_token",
                "refreshToken": "refresh-1"})
        );
        let mut expected = self::token(3600, &json!({"accessToken": "token-2"}));
        match refresh.as_str() {
            Some(refresh) => expected["refreshToken"] = refresh.into(),
            // Dropped, as by the AWS CLI.
            None => drop(expected.as_object_mut().unwrap().remove("refreshToken")),
        }
        assert_eq!(scene.stored(), expected);
    }
}

#[tokio::test]
async fn the_role_cache_comes_first() {
    for (left, caches, expected) in [
        (900, CacheUse::Read, "ASIACACHED"),
        (899, CacheUse::Read, "not logged in"),
        (-5, CacheUse::Read, "not logged in"),
        (900, CacheUse::Skip, "not logged in"),
    ] {
        for session in [Some("corp"), None] {
            let scene = Scene::new().await;
            scene.role(session, left);
            assert_eq!(
                scene.ask(session, caches).await,
                expected,
                "{left} {caches:?}"
            );
            assert_eq!(scene.asked(), Vec::<String>::new());
        }
    }
    let scene = Scene::new().await;
    scene.role(Some("corp"), 900);
    let keys = scene
        .portal
        .credentials(&sso(Some("corp")), CacheUse::Read)
        .await
        .unwrap();
    assert_eq!(keys.account_id().unwrap().as_str(), "011122223333");
    assert_eq!(keys.expiry(), Some(time(NOW + 900)));
    // An unreadable one is replaced by a call, and new keys are not written.
    let name = SsoCacheKey::from(&sso(Some("corp"))).role_file("011122223333", "Dev");
    scene.write(CacheDir::Cli, &name, &json!({"Credentials": {}}));
    scene.token(Some("corp"), 3600, &json!({}));
    scene.service.answer(200, self::keys());
    let keys = scene
        .portal
        .credentials(&sso(Some("corp")), CacheUse::Read)
        .await
        .unwrap();
    assert_eq!(
        (keys.access_key_id(), keys.expiry()),
        ("ASIANEW", Some(time(NOW + 3600)))
    );
    let request = scene.service.requests().remove(0);
    assert!(request.contains("role_name=Dev") && request.contains("account_id=011122223333"));
    assert!(
        request.contains("x-amz-sso_bearer_token: token-1"),
        "{request}"
    );
    let kept = std::fs::read_to_string(scene.files.path(CacheDir::Cli, &name)).unwrap();
    assert_eq!(kept, r#"{"Credentials":{}}"#);
}

#[tokio::test]
async fn a_token_of_the_url_does_not_count_for_a_session() {
    let scene = Scene::new().await;
    scene.token(None, 3600, &json!({}));
    assert_eq!(
        scene.ask(Some("corp"), CacheUse::Read).await,
        "not logged in"
    );
    let error = scene
        .portal
        .credentials(&sso(Some("corp")), CacheUse::Read)
        .await
        .unwrap_err();
    assert!(error.needs_login());
    assert_eq!(
        error.to_string(),
        "there is no SSO session corp on this machine"
    );
}

#[tokio::test]
async fn at_most_one_refresh_a_minute_is_tried() {
    let scene = Scene::new().await;
    scene.token(Some("corp"), 480, &json!({}));
    let ask = async |answers: &[(u16, &str)]| {
        for (status, body) in answers {
            scene.service.answer(*status, *body);
        }
        let got = scene.ask(Some("corp"), CacheUse::Read).await;
        (got, scene.asked().len())
    };
    let keys = keys();
    let got = |id: &str, requests| (id.to_owned(), requests);
    assert_eq!(ask(&[(500, "{}"), (200, &keys)]).await, got("ASIANEW", 2));
    scene.pass(59);
    assert_eq!(ask(&[(200, &keys)]).await, got("ASIANEW", 1));
    scene.pass(1);
    assert_eq!(
        ask(&[(400, REFUSED), (200, &keys)]).await,
        got("ASIANEW", 2)
    );
    // Expired meanwhile: a refusal stands, and the token is not sent.
    scene.pass(420);
    assert_eq!(ask(&[(400, REFUSED)]).await, got("expired: refused", 1));
    scene.pass(30);
    assert_eq!(ask(&[]).await, got("expired: refused", 0));
    scene.pass(31);
    assert_eq!(ask(&[(503, "{}")]).await, got("call", 1));
    // A failure that may pass does not stand once the token has expired.
    assert_eq!(ask(&[(503, "{}")]).await, got("call", 1));
    assert_eq!(ask(&[(400, REFUSED)]).await, got("expired: refused", 1));
    // A new login counts at once.
    scene.token(Some("corp"), 4000, &json!({"accessToken": "token-3"}));
    assert_eq!(ask(&[(200, &keys)]).await, got("ASIANEW", 1));
}

#[tokio::test]
async fn another_program_may_have_won_the_refresh() {
    let scene = Scene::new().await;
    scene.token(Some("corp"), -5, &json!({}));
    let path = scene.files.path(
        CacheDir::Sso,
        &SsoCacheKey::from(&sso(Some("corp"))).token_file(),
    );
    let won = token(
        3600,
        &json!({"accessToken": "token-of-cli", "refreshToken": "refresh-2"}),
    );
    // It writes its answer some time after ours.
    scene.service.answer_after(400, REFUSED, move || {
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            std::fs::write(path, won.to_string()).unwrap();
        });
    });
    scene.service.answer(200, keys());
    assert_eq!(scene.ask(Some("corp"), CacheUse::Read).await, "ASIANEW");
    let requests = scene.service.requests();
    assert!(requests[1].contains("x-amz-sso_bearer_token: token-of-cli"));
}

#[tokio::test]
async fn callers_share_a_refresh() {
    for (answer, expected) in [
        ((200, new_token(&json!("refresh-2"))), Ok("token-2")),
        ((503, "{}".to_owned()), Err("call")),
        ((400, REFUSED.to_owned()), Err("expired: refused")),
    ] {
        let scene = Scene::new().await;
        scene.token(Some("corp"), -5, &json!({}));
        scene.service.answer(answer.0, answer.1);
        // Another answer than the first would be seen.
        scene
            .service
            .answer(200, r#"{"accessToken": "token-9", "expiresIn": 3600}"#);
        let ask = || async {
            let of_profile = sso(Some("corp"));
            let token = scene.portal.token(&SsoCacheKey::from(&of_profile)).await;
            let token = token.map(|token| token.access_token.expose().to_owned());
            token.map_err(|error| short(&error))
        };
        let all = futures_util::future::join_all((0..8).map(|_| ask())).await;
        for got in all {
            assert_eq!(got.as_deref(), expected.as_ref().map(|token| *token));
        }
        assert_eq!(scene.asked(), [REFRESH]);
    }
}

#[tokio::test]
async fn a_cancelled_caller_does_not_lose_the_new_token() {
    let scene = Scene::new().await;
    scene.token(Some("corp"), -5, &json!({}));
    let (asked, was_asked) = tokio::sync::oneshot::channel();
    scene
        .service
        .answer_after(200, new_token(&json!("refresh-2")), || {
            asked.send(()).unwrap()
        });
    let of_profile = sso(Some("corp"));
    let key = SsoCacheKey::from(&of_profile);
    tokio::select! {
        biased;
        _ = was_asked => {}
        token = scene.portal.token(&key) => drop(token),
    }
    for _ in 0..200 {
        if scene.stored()["refreshToken"] == "refresh-2" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the new token was not written");
}

#[cfg(unix)]
#[tokio::test]
async fn a_refresh_token_is_not_spent_if_its_answer_cannot_be_written() {
    use std::os::unix::fs::PermissionsExt;
    let scene = Scene::new().await;
    scene.token(Some("corp"), -5, &json!({}));
    if rustix::process::geteuid().is_root() {
        println!("skipped: root may write into every directory");
        return;
    }
    let target = scene.files.dir(CacheDir::Sso).to_owned();
    std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o500)).unwrap();
    assert_eq!(scene.ask(Some("corp"), CacheUse::Read).await, "cache");
    assert_eq!(scene.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn accounts_and_roles_are_read_page_by_page() {
    let scene = Scene::new().await;
    scene.token(Some("corp"), 3600, &json!({}));
    let of_profile = sso(Some("corp"));
    let key = SsoCacheKey::from(&of_profile);
    let account =
        |id: &str| json!({"accountId": id, "accountName": "Name", "emailAddress": "a@b.c"});
    scene.service.answer(
        200,
        json!({"accountList": [account("1"), {}], "nextToken": "n"}).to_string(),
    );
    scene
        .service
        .answer(200, json!({"accountList": [account("2")]}).to_string());
    let accounts = scene.portal.accounts(&key).await.unwrap();
    let ids: Vec<&str> = accounts.iter().map(|account| account.id.as_str()).collect();
    assert_eq!(ids, ["1", "2"]);
    assert_eq!((&*accounts[0].name, &*accounts[0].email), ("Name", "a@b.c"));
    assert!(scene.service.requests()[1].contains("next_token=n"));
    scene.service.answer(
        200,
        json!({"roleList": [{"roleName": "Dev", "accountId": "1"}]}).to_string(),
    );
    assert_eq!(scene.portal.roles(&key, "1").await.unwrap(), ["Dev"]);
    assert!(scene.service.requests()[0].contains("account_id=1"));
    scene.service.answer(401, "{}");
    let error = scene.portal.accounts(&key).await.unwrap_err();
    assert_eq!(short(&error), "rejected");
    assert_eq!(error.expires_at(), Some(time(NOW + 3600)));
    scene.service.answer(200, "{}");
    scene
        .portal
        .end_session("eu-west-1", &SecretText::new("token-1"))
        .await
        .unwrap();
    let request = scene.service.requests().pop().unwrap();
    assert!(request.starts_with("POST /logout "), "{request}");
}

#[tokio::test]
async fn errors_name_the_login_and_show_no_secret() {
    let scene = Scene::new().await;
    let ask = async |session| {
        scene
            .portal
            .credentials(&sso(session), CacheUse::Read)
            .await
    };
    scene.token(
        Some("corp"),
        -5,
        &json!({"accessToken": "token-which-is-secret"}),
    );
    scene.service.answer(400, REFUSED);
    scene.token(None, -5, &json!({}));
    for (session, expected) in [
        (
            Some("corp"),
            "the SSO session corp ended at 2026-11-30T11:59:55Z: sso-oauth:CreateToken: \
             invalid_grant: Invalid refresh token provided",
        ),
        (
            None,
            "the SSO session https://d-1.awsapps.com/start ended at 2026-11-30T11:59:55Z: profiles \
             without sso_session are not refreshed",
        ),
    ] {
        let error = ask(session).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        assert_eq!(error.expires_at(), Some(time(NOW - 5)));
    }
    let malformed = Sso {
        region: setting("evil.example/x"),
        ..sso(Some("corp"))
    };
    scene.token(Some("corp"), 3600, &json!({}));
    let error = scene
        .portal
        .credentials(&malformed, CacheUse::Read)
        .await
        .unwrap_err();
    assert_eq!(short(&error), "malformed");
}
