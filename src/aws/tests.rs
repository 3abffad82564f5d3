//! Tests of the real credential chain with files, programs and a loopback HTTP server.

mod identity;
pub(super) mod stand_in;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::SystemTime;

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::tls::testing::self_signed_server;

const KEYS: &str = "aws_access_key_id = AKIAIOSFODNN7EXAMPLE\n\
                    aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n";

/// AWS files of the test, so that those of the developer have no effect.
struct Files {
    dir: TempDir,
}

impl Files {
    fn new(config: &str) -> Self {
        let files = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        files.write("config", config);
        files.write("credentials", "");
        files
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn options(&self, profile: &str) -> AwsOptions {
        AwsOptions {
            profile: Some(profile.to_owned()),
            region: Some("eu-central-1".into()),
            config_file: Some(self.path("config")),
            credentials_file: Some(self.path("credentials")),
            ..AwsOptions::default()
        }
    }

    fn context(&self, profile: &str) -> AwsContext {
        AwsContext::new(self.options(profile))
    }
}

/// Creates a `credential_process` that prints the given JSON members besides key and version, and
/// records that it was called.
fn process(files: &Files, members: &str) -> String {
    files.write(
        "keys.json",
        &format!(r#"{{"Version": 1, "AccessKeyId": "AKID", "SecretAccessKey": "sk"{members}}}"#),
    );
    let (calls, keys) = (files.path("calls"), files.path("keys.json"));
    format!(
        "[profile dev]\ncredential_process = sh -c 'echo x >> {} && cat {}'\n",
        calls.display(),
        keys.display()
    )
}

fn calls(files: &Files) -> usize {
    std::fs::read_to_string(files.path("calls"))
        .unwrap_or_default()
        .lines()
        .count()
}

async fn failure(context: &AwsContext) -> CredentialsError {
    context.credentials().await.unwrap_err()
}

/// Starts a loopback server that gives every request one fixed answer; `None` = never answers.
async fn server(fixed: Option<(u16, &'static str)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                match fixed {
                    Some((status, body)) => answer(stream, status, body).await,
                    None => {
                        let _open = stream;
                        std::future::pending().await
                    }
                }
            });
        }
    });
    url
}

/// Time in the answers below, in seconds since 1970.
const SERVED_AT: u64 = 1_790_000_000;

/// Serves one request.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, status: u16, body: &str) {
    // Read the whole request: closing a socket with unread bytes would reset it and lose the
    // answer.
    let mut request = Vec::new();
    while !is_whole(&request) {
        match stream.read_buf(&mut request).await {
            Ok(1..) => {}
            _ => return,
        }
    }
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: text/xml\r\nconnection: close\r\n\
         date: Mon, 21 Sep 2026 14:13:20 GMT\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}

#[tokio::test]
async fn static_keys_of_the_named_profile() {
    let files = Files::new("[profile dev]\nregion = eu-west-3\n");
    files.write("credentials", &format!("[dev]\n{KEYS}"));
    let credentials = files.context("dev").credentials().await.unwrap();
    assert_eq!(credentials.access_key_id(), "AKIAIOSFODNN7EXAMPLE");
    assert_eq!(credentials.expiry(), None);
}

#[tokio::test]
async fn region_of_the_options_comes_before_the_profile() {
    let files = Files::new("[profile dev]\nregion = eu-west-3\n");
    let options = files.options("dev");
    let region = AwsContext::new(options).region().await.unwrap();
    assert_eq!(region.as_deref(), Some("eu-central-1"));
}

#[tokio::test]
async fn a_profile_that_does_not_exist_is_named_with_those_that_do() {
    let files =
        Files::new("[profile b]\nregion = x\n[default]\nregion = x\n[profile a]\nregion = x\n");
    match failure(&files.context("prod")).await {
        CredentialsError::NoSuchProfile {
            profile,
            variable,
            fault,
            known,
        } => {
            assert_eq!((profile.as_str(), variable, fault), ("prod", None, None));
            assert_eq!(known, ["a", "b", "default"]);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_line_that_may_hide_a_profile_is_named() {
    let files = Files::new("[profile dev\n");
    match failure(&files.context("dev")).await {
        CredentialsError::NoSuchProfile { profile, fault, .. } => {
            assert_eq!(profile, "dev");
            let path = files.path("config");
            let expected = format!(
                "{}:1: the line begins with \"[\", but is not a [section]",
                path.display()
            );
            assert_eq!(fault, Some(expected));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn mended_files_are_seen_without_a_restart() {
    let files = Files::new("[profile other]\nregion = x\n");
    let context = files.context("dev");
    assert!(matches!(
        failure(&context).await,
        CredentialsError::NoSuchProfile { .. }
    ));
    files.write("credentials", &format!("[dev]\n{KEYS}"));
    assert!(context.credentials().await.is_ok());
}

#[tokio::test]
async fn changed_files_are_read_again() {
    let files = Files::new("");
    files.write("credentials", &format!("[dev]\n{KEYS}"));
    let context = files.context("dev");
    let id = async || context.credentials().await.unwrap().access_key_id()[..4].to_owned();
    assert_eq!(id().await, "AKIA");
    let longer = format!("[dev]\n# new\n{}", KEYS.replace("AKIA", "ASIA"));
    files.write("credentials", &longer);
    assert_eq!(id().await, "ASIA");
}

#[tokio::test]
async fn invalidating_loads_again() {
    let files = Files::new("");
    files.write("config", &process(&files, ""));
    let context = files.context("dev");
    context.credentials().await.unwrap();
    context.credentials().await.unwrap();
    assert_eq!(calls(&files), 1);
    context.invalidate();
    context.credentials().await.unwrap();
    assert_eq!(calls(&files), 2);
}

#[tokio::test]
async fn many_callers_run_the_process_once() {
    let files = Files::new("");
    files.write("config", &process(&files, ""));
    let context = Arc::new(files.context("dev"));
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let context = context.clone();
            tokio::spawn(async move { context.credentials().await.map(drop) })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(calls(&files), 1);
}

#[cfg(unix)]
#[tokio::test]
async fn contexts_share_a_slow_process_and_its_late_answer() {
    let files = Files::new("");
    files.write(
        "config",
        &process(&files, "").replace("&&", "&& until [ -e $0 ]; do :; done &&"),
    );
    let go = files.path("go");
    let config = std::fs::read_to_string(files.path("config")).unwrap();
    files.write(
        "config",
        &format!("{} {}\n", config.trim_end(), go.display()),
    );
    let contexts = ["eu-central-1", "eu-west-1"].map(|region| {
        AwsContext::new(AwsOptions {
            region: Some(region.into()),
            deadline: Duration::from_millis(200),
            ..files.options("dev")
        })
    });
    for context in [&contexts[0], &contexts[1], &contexts[0]] {
        let error = failure(context).await;
        assert!(
            matches!(error, CredentialsError::Timeout { .. }),
            "{error:?}"
        );
    }
    files.write("go", "");
    for context in &contexts {
        let loaded = loop {
            match context.credentials().await {
                Err(CredentialsError::Timeout { .. }) => {}
                loaded => break loaded,
            }
        };
        assert_eq!(loaded.unwrap().access_key_id(), "AKID");
    }
    assert_eq!(calls(&files), 1);
}

#[tokio::test]
async fn expired_output_of_a_process_is_not_used() {
    let files = Files::new("");
    files.write(
        "config",
        &process(&files, r#", "Expiration": "2024-02-29T12:00:00Z""#),
    );
    let context = files.context("dev");
    let error = failure(&context).await;
    assert_eq!(
        error.to_string(),
        "the AWS credentials of profile dev have expired (at 2024-02-29T12:00:00Z)"
    );
    // Nothing was cached: the next call runs it again.
    failure(&context).await;
    assert_eq!(calls(&files), 2);
}

#[tokio::test]
async fn credentials_are_renewed_when_they_end() {
    let files = Files::new("");
    files.write(
        "config",
        &process(&files, r#", "Expiration": "2024-02-29T12:00:00Z""#),
    );
    let unix = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let end = 1_709_208_000;
    let time = Arc::new(AtomicU64::new(end - 3600));
    let clock = time.clone();
    let context = AwsContext::new(AwsOptions {
        clock: Arc::new(move || unix(clock.load(SeqCst))),
        ..files.options("dev")
    });
    assert_eq!(
        context.credentials().await.unwrap().expiry(),
        Some(unix(end))
    );
    context.credentials().await.unwrap();
    assert_eq!(calls(&files), 1);
    time.store(end, SeqCst);
    assert!(matches!(
        failure(&context).await,
        CredentialsError::Expired { at: Some(_), .. }
    ));
    assert_eq!(calls(&files), 2);
}

#[tokio::test]
async fn a_failing_process_is_quoted_without_its_secrets() {
    let files = Files::new(
        "[profile dev]\ncredential_process = sh -c 'echo \"no MFA; SecretAccessKey=abcdef/123\" >&2; exit 3'\n",
    );
    let error = failure(&files.context("dev")).await;
    assert!(
        matches!(error, CredentialsError::Process { .. }),
        "{error:?}"
    );
    assert_eq!(
        error.to_string(),
        "the credential_process of profile dev failed: \
         exit status 3. Stderr: no MFA; SecretAccessKey=********"
    );
    assert!(!format!("{error:?}").contains("abcdef"), "{error:?}");
}

#[tokio::test]
async fn the_output_of_a_process_that_is_no_json_is_not_quoted() {
    let files = Files::new("[profile dev]\ncredential_process = echo top-secret\n");
    let error = failure(&files.context("dev")).await;
    assert!(
        matches!(error, CredentialsError::Process { .. }),
        "{error:?}"
    );
    assert!(
        !format!("{error} {error:?}").contains("top-secret"),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_sso_session_that_was_never_begun() {
    let name = format!("pgiam-test-{}", uuid::Uuid::new_v4());
    let files = Files::new(&format!(
        "[profile dev]\nsso_session = {name}\nsso_account_id = 111122223333\nsso_role_name = Dev\n\
         [sso-session {name}]\nsso_region = eu-central-1\nsso_start_url = https://example.com/start\n\
         [profile old]\nsso_account_id = 111122223333\nsso_role_name = Dev\n\
         sso_region = eu-central-1\nsso_start_url = https://example.com/{name}\n"
    ));
    match failure(&files.context("dev")).await {
        CredentialsError::SsoSession {
            profile, session, ..
        } => {
            assert_eq!(profile.as_deref(), Some("dev"));
            assert_eq!(session, Some(name));
        }
        other => panic!("{other:?}"),
    }
    let old = failure(&files.context("old")).await;
    assert!(
        matches!(old, CredentialsError::SsoSession { session: None, .. }),
        "{old:?}"
    );
}

fn role(endpoint: &str) -> String {
    format!(
        "[profile dev]\nrole_arn = arn:aws:iam::111122223333:role/app\nsource_profile = base\n\
         endpoint_url = {endpoint}\n[profile base]\n{KEYS}"
    )
}

#[tokio::test]
async fn a_refused_role_is_named_with_the_words_of_aws() {
    let answer = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code>\
                  <Message>User: arn:aws:iam::111122223333:user/me is not authorized</Message>\
                  </Error><RequestId>r</RequestId></ErrorResponse>";
    let files = Files::new(&role(&server(Some((403, answer))).await));
    match failure(&files.context("dev")).await {
        CredentialsError::AssumeRole {
            role,
            code,
            message,
            profile,
            caller,
        } => {
            assert_eq!(caller.as_deref(), Some("arn:aws:iam::111122223333:user/me"));
            assert_eq!(profile.as_deref(), Some("dev"));
            assert_eq!(role.as_deref(), Some("arn:aws:iam::111122223333:role/app"));
            assert_eq!(code, "AccessDenied");
            assert_eq!(
                message,
                "User: arn:aws:iam::111122223333:user/me is not authorized"
            );
        }
        other => panic!("{other:?}"),
    }
}

const ROLE_CREDENTIALS: &str = "<AssumeRoleResponse><AssumeRoleResult><Credentials>\
     <AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey>\
     <SessionToken>t</SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration>\
     </Credentials></AssumeRoleResult></AssumeRoleResponse>";

#[tokio::test]
async fn an_assumed_role_works_and_ends_when_sts_says() {
    let files = Files::new(&role(&server(Some((200, ROLE_CREDENTIALS))).await));
    let credentials = files.context("dev").credentials().await.unwrap();
    assert_eq!(credentials.access_key_id(), "ASIAROLE");
    assert!(credentials.expiry().is_some());
}

#[tokio::test]
async fn nothing_hangs_when_sts_does_not_answer() {
    let files = Files::new(&role(&server(None).await));
    let after = Duration::from_millis(50);
    let options = AwsOptions {
        deadline: after,
        ..files.options("dev")
    };
    let error = failure(&AwsContext::new(options)).await;
    assert!(
        matches!(&error, CredentialsError::Timeout { after: a, .. } if *a == after),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_ca_bundle_that_cannot_be_read_stops_everything() {
    let files = Files::new(&format!("[profile dev]\n{KEYS}"));
    let path = files.path("missing.pem");
    let options = AwsOptions {
        ca_bundle: Some(path.clone()),
        ..files.options("dev")
    };
    let context = AwsContext::new(options);
    let named = |error| matches!(error, CredentialsError::CaBundle { path: p, .. } if p == path);
    assert!(named(failure(&context).await));
    assert!(named(context.roots().await.unwrap_err()));
    assert!(named(
        context.ssm(&"eu-central-1".into()).await.unwrap_err()
    ));
    std::fs::write(&path, include_str!("../../certs/rds-roots.pem")).unwrap();
    assert_eq!(context.roots().await.unwrap().len(), 81);
}

#[tokio::test]
async fn ssm_requests_are_signed_with_the_current_credentials() {
    let refusal = r#"{"__type":"TargetNotConnected","Message":"i-1 is not connected."}"#;
    let url = server(Some((400, refusal))).await;
    let profile = format!("[profile dev]\nendpoint_url = {url}\n");
    let files = Files::new(&format!("{profile}credential_process = false\n"));
    let context = files.context("dev");
    let client = context.ssm(&"eu-central-1".into()).await.unwrap();
    // No credentials yet: the client reports that, and works as soon as there are some.
    let send = || client.start_session().target("i-1").send();
    let text = format!("{:?}", send().await.unwrap_err());
    assert!(text.contains("Process"), "{text}");
    files.write("config", &format!("{profile}{KEYS}"));
    let text = format!("{:?}", send().await.unwrap_err());
    assert!(text.contains("TargetNotConnected"), "{text}");
}

/// Options of the profile with a fixed clock.
fn stopped(files: &Files, unix: u64) -> AwsOptions {
    AwsOptions {
        clock: Arc::new(move || SystemTime::UNIX_EPOCH + Duration::from_secs(unix)),
        ..files.options("dev")
    }
}

#[tokio::test]
async fn every_client_notes_what_time_aws_has() {
    let refusal = r#"{"__type":"AccessDeniedException","message":"no"}"#;
    let url = server(Some((400, refusal))).await;
    let files = Files::new(&format!("[profile dev]\nendpoint_url = {url}\n{KEYS}"));
    for ask_kms in [false, true] {
        let context = AwsContext::new(stopped(&files, SERVED_AT - 420));
        context.credentials().await.unwrap();
        assert_eq!(context.clock_offset(), None);
        if ask_kms {
            let client = context.kms(&"eu-central-1".into()).await.unwrap();
            let ask = client.generate_data_key().key_id("k").send();
            ask.await.unwrap_err();
        } else {
            let client = context.ssm(&"eu-central-1".into()).await.unwrap();
            let ask = client.start_session().target("i-1").send();
            ask.await.unwrap_err();
        }
        let offset = context.clock_offset().unwrap();
        assert_eq!(offset.seconds, 420);
        assert_eq!(offset.to_string(), "7 min behind AWS");
    }
}

#[tokio::test]
async fn the_way_to_credentials_tells_the_time_as_well() {
    let files = Files::new(&role(&server(Some((200, ROLE_CREDENTIALS))).await));
    let context = AwsContext::new(stopped(&files, SERVED_AT + 12));
    context.credentials().await.unwrap();
    let offset = context.clock_offset().unwrap();
    assert_eq!(offset.to_string(), "12 s ahead of AWS");
    // The offset outlives the credentials.
    context.invalidate();
    assert_eq!(context.clock_offset(), Some(offset));
}

/// Starts an STS on loopback with a self-signed certificate. Returns the URL and the certificate as
/// PEM.
async fn https_server(body: &'static str) -> (String, String) {
    let (acceptor, certificate) = self_signed_server();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    answer(stream, 200, body).await;
                }
            });
        }
    });
    (format!("https://localhost:{port}"), certificate.pem())
}

#[tokio::test]
async fn the_ca_bundle_decides_whether_https_is_trusted() {
    let (url, pem) = https_server(ROLE_CREDENTIALS).await;
    let files = Files::new(&role(&url));
    files.write("good.pem", &pem);
    files.write("other.pem", include_str!("../../certs/rds-roots.pem"));
    let with = |bundle| {
        AwsContext::new(AwsOptions {
            ca_bundle: Some(files.path(bundle)),
            ..files.options("dev")
        })
    };
    let credentials = with("good.pem").credentials().await.unwrap();
    assert_eq!(credentials.access_key_id(), "ASIAROLE");
    let error = failure(&with("other.pem")).await;
    assert!(matches!(error, CredentialsError::Other { .. }), "{error:?}");
    assert!(
        format!("{error:?}").contains("issuer is not trusted"),
        "{error:?}"
    );
}

/// Tests that depend on environment variables run in a child process that has exactly these: the
/// test below starts this one again, and reads its output.
#[tokio::test]
#[ignore = "started by settings_of_the_environment_are_honoured"]
async fn child() {
    let profile = std::env::var("PGIAM_TEST_PROFILE").ok();
    let context = AwsContext::new(AwsOptions {
        profile,
        ..AwsOptions::default()
    });
    let show = |key: &str, value: String| println!("\n@{key}={value}");
    match context.credentials().await {
        Ok(credentials) => show("key", credentials.access_key_id().to_owned()),
        Err(error) => {
            show("error", format!("{error}"));
            let source = std::error::Error::source(&error);
            show(
                "cause",
                source
                    .map(|cause| in_words(cause).to_string())
                    .unwrap_or_default(),
            );
        }
    }
    match context.sdk_config().await {
        Ok(config) => {
            show("endpoint", format!("{:?}", config.endpoint_url()));
            show("region", format!("{:?}", context.region().await.unwrap()));
            let client = context.ssm(&"eu-central-1".into()).await.unwrap();
            let sent = client.start_session().target("i-1").send().await;
            show("ssm", format!("{:?}", sent.unwrap_err()).replace('\n', " "));
            let endpoints = context.endpoints().await.unwrap();
            let configured: Vec<_> = endpoints
                .configured
                .iter()
                .map(|url| url.as_str())
                .collect();
            show("endpoints", configured.join(" "));
            show(
                "data_channel",
                format!("{:?}", endpoints.data_channel.map(String::from)),
            );
            show("fips", endpoints.fips.to_string());
            show("roots", context.roots().await.unwrap().len().to_string());
        }
        Err(error) => show("config", format!("{error}")),
    }
}

async fn in_child(environment: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "aws::tests::child",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env_clear()
        .envs(environment.iter().copied());
    let output = tokio::process::Command::from(command)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .filter_map(|line| line.strip_prefix('@')?.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[tokio::test]
async fn settings_of_the_environment_are_honoured() {
    let refusal = r#"{"__type":"TargetNotConnected","Message":"i-1 is not connected."}"#;
    let url = server(Some((400, refusal))).await;
    let files = Files::new(&format!("[profile dev]\nregion = eu-west-3\n{KEYS}"));
    let (config, credentials) = (
        text(&files.path("config")),
        text(&files.path("credentials")),
    );
    let common = [
        ("AWS_CONFIG_FILE", config.as_str()),
        ("AWS_SHARED_CREDENTIALS_FILE", credentials.as_str()),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_ACCESS_KEY_ID", "AKIDENVIRONMENT"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
        ("AWS_ENDPOINT_URL_SSM", url.as_str()),
    ];

    let seen = in_child(&common).await;
    assert_eq!(seen["key"], "AKIDENVIRONMENT");
    assert_eq!(seen["endpoint"], r#"Some("http://127.0.0.1:1")"#);
    assert_eq!(seen["region"], "None");
    assert_eq!(
        seen["endpoints"],
        format!("http://127.0.0.1:1/ {url}/ http://127.0.0.1:1/")
    );
    assert!(seen["ssm"].contains("TargetNotConnected"), "{seen:?}");
    assert_eq!(seen["data_channel"], "None");

    // An endpoint set for the gateway counts as its own, even if it equals the one for all
    // services.
    for own in ["http://127.0.0.1:1", "https://gateway.corp:8443"] {
        let variable = ("AWS_ENDPOINT_URL_SSMMESSAGES", own);
        let seen = in_child(&[&common[..], &[variable]].concat()).await;
        assert_eq!(seen["data_channel"], format!("Some(\"{own}/\")"));
        let ignored = ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true");
        let nowhere = ("HTTPS_PROXY", "http://127.0.0.1:1");
        let seen = in_child(&[&common[..], &[variable, ignored, nowhere]].concat()).await;
        assert_eq!(seen["data_channel"], "None");
        assert_eq!(seen["endpoints"], "");
    }

    // A profile named explicitly comes before the keys of the environment, as in the AWS CLI.
    let seen = in_child(&[&common[..], &[("PGIAM_TEST_PROFILE", "dev")]].concat()).await;
    assert_eq!(seen["key"], "AKIAIOSFODNN7EXAMPLE");
    assert_eq!(seen["region"], r#"Some("eu-west-3")"#);

    // A profile set only in the environment does not, but must exist.
    let seen = in_child(&[&common[..], &[("AWS_PROFILE", "dev")]].concat()).await;
    assert_eq!(seen["key"], "AKIDENVIRONMENT");
    let seen = in_child(&[&common[..], &[("AWS_PROFILE", "gone")]].concat()).await;
    assert_eq!(seen["error"], "AWS profile gone does not exist");

    let seen = in_child(&[&common[..], &[("AWS_CA_BUNDLE", "/nonexistent.pem")]].concat()).await;
    assert!(
        seen["error"].starts_with("cannot use the CA bundle /nonexistent.pem"),
        "{seen:?}"
    );
    assert_eq!(seen["error"], seen["config"]);
}

#[tokio::test]
async fn settings_of_the_profile_are_honoured() {
    let files = Files::new("");
    files.write("ca.pem", include_str!("../../certs/rds-roots.pem"));
    files.write(
        "config",
        &format!(
            "[profile dev]\nca_bundle = {}\nendpoint_url = http://127.0.0.1:1\nservices = local\n\
             {KEYS}[services local]\nssm =\n  endpoint_url = http://127.0.0.1:2\n",
            files.path("ca.pem").display(),
        ),
    );
    let (config, credentials) = (
        text(&files.path("config")),
        text(&files.path("credentials")),
    );
    let seen = in_child(&[
        ("AWS_CONFIG_FILE", &config),
        ("AWS_SHARED_CREDENTIALS_FILE", &credentials),
        ("AWS_PROFILE", "dev"),
    ])
    .await;
    assert_eq!(seen["roots"], "81");
    assert_eq!(
        seen["endpoints"],
        "http://127.0.0.1:1/ http://127.0.0.1:2/ http://127.0.0.1:1/"
    );
    assert_eq!(seen["data_channel"], "None");

    let config_now = std::fs::read_to_string(&config).unwrap();
    let own = "ssmmessages =\n  endpoint_url = http://127.0.0.1:3\n";
    files.write("config", &format!("{config_now}{own}"));
    let seen = in_child(&[
        ("AWS_CONFIG_FILE", &config),
        ("AWS_SHARED_CREDENTIALS_FILE", &credentials),
        ("AWS_PROFILE", "dev"),
    ])
    .await;
    assert_eq!(seen["data_channel"], r#"Some("http://127.0.0.1:3/")"#);
}

/// Starts a proxy that refuses all requests and records their destinations.
async fn recorder() -> (String, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                match stream.read_buf(&mut request).await {
                    Ok(1..) => {}
                    _ => break,
                }
            }
            let request = String::from_utf8_lossy(&request);
            let line = request.lines().next().unwrap_or_default().to_owned();
            let _ = tell.send(line);
            let _ = stream.write_all(b"HTTP/1.1 403 X\r\n\r\n").await;
        }
    });
    (url, told)
}

/// The SDK finds the host by itself. This test shows that clients created here leave that unchanged
/// and use the proxy.
#[tokio::test]
async fn fips_and_dual_stack_endpoints_are_used() {
    let files = Files::new("");
    files.write(
        "fips",
        &format!("[default]\nuse_fips_endpoint = true\n{KEYS}"),
    );
    files.write("plain", &format!("[default]\n{KEYS}"));
    let (fips_file, plain_file) = (text(&files.path("fips")), text(&files.path("plain")));
    let credentials = text(&files.path("credentials"));
    let fips = ("AWS_USE_FIPS_ENDPOINT", "true");
    let dual_stack = ("AWS_USE_DUALSTACK_ENDPOINT", "true");
    for (config, settings, host) in [
        (&plain_file, vec![], "ssm.eu-central-1.amazonaws.com"),
        (
            &plain_file,
            vec![fips],
            "ssm-fips.eu-central-1.amazonaws.com",
        ),
        (&fips_file, vec![], "ssm-fips.eu-central-1.amazonaws.com"),
        (&plain_file, vec![dual_stack], "ssm.eu-central-1.api.aws"),
        (
            &plain_file,
            vec![fips, dual_stack],
            "ssm-fips.eu-central-1.api.aws",
        ),
    ] {
        let (proxy, mut told) = recorder().await;
        let common = [
            ("AWS_CONFIG_FILE", config.as_str()),
            ("AWS_SHARED_CREDENTIALS_FILE", credentials.as_str()),
            ("AWS_MAX_ATTEMPTS", "1"),
            ("HTTPS_PROXY", proxy.as_str()),
        ];
        let seen = in_child(&[&common[..], &settings].concat()).await;
        let asked = told.try_recv().expect("the proxy was not asked");
        assert_eq!(asked, format!("CONNECT {host}:443 HTTP/1.1"), "{seen:?}");
        let with_fips = host.contains("-fips.");
        assert_eq!(seen["fips"], with_fips.to_string());
    }
}

/// The metadata service is called directly, although there is a proxy for everything else; a
/// different server at its address does not matter. The proxy of this test answers 403 to all
/// requests.
#[tokio::test]
async fn without_credentials_anywhere() {
    let refuses = server(Some((403, "no"))).await;
    let files = Files::new("");
    let (config, credentials) = (
        text(&files.path("config")),
        text(&files.path("credentials")),
    );
    for metadata in ["http://127.0.0.1:1", &refuses] {
        let seen = in_child(&[
            ("AWS_CONFIG_FILE", &config),
            ("AWS_SHARED_CREDENTIALS_FILE", &credentials),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata),
            ("AWS_ENDPOINT_URL_SSM", "http://ssm.example.com"),
            ("HTTP_PROXY", &refuses),
            ("http_proxy", &refuses),
        ])
        .await;
        assert_eq!(seen["error"], "no AWS credentials for the default profile");
        let direct = metadata != refuses;
        assert_eq!(
            seen["cause"].contains("communicate with IMDS"),
            direct,
            "{seen:?}"
        );
    }
}

#[tokio::test]
async fn nothing_is_signed_at_a_time_that_no_signature_can_hold() {
    let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
    let after = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_800);
    for (now, words) in [(before, "before 1970"), (after, "after the year 9999")] {
        let files = Files::new(&format!("[profile dev]\n{KEYS}"));
        let context = AwsContext::new(AwsOptions {
            clock: Arc::new(move || now),
            ..files.options("dev")
        });
        let error = context.credentials().await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "this machine's clock is set to a time {words}, so pgiam cannot sign AWS requests"
            )
        );
    }
}
