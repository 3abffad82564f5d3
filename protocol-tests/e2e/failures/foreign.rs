//! Text that others have written reaches psql, log and status escaped, in one line, and without the
//! secrets that it names.

use std::sync::Arc;

use protocol_tests::aws::api::ApiFault;
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::aws::no_keys;
use super::{refusals, silent_database};
use crate::support::{HOST, PATIENCE, PORT, Setup, World, eventually, pgiam, run};

/// Commands to a terminal, a line of its own, and a mark that turns the reading direction.
const HOSTILE: &str =
    "\u{1b}]0;owned\u{7}\r\n2026-01-01T00:00:00Z  INFO forged\u{9b}2J\u{7f}\u{202e}end";
/// What an answer may quote.
const SECRET: &str = "IQoJb3JpZ2luX2VjEJr0123456789S3CR3T";

/// Whether nothing in it acts on a terminal or is the secret.
fn is_clean(text: &str) -> bool {
    let acts = |c: char| c.is_control() && c != '\n' || matches!(c, '\u{202a}'..='\u{202e}');
    !text.contains(acts) && !text.contains("S3CR3T") && !text.lines().any(forges)
}

fn forges(line: &str) -> bool {
    line.starts_with("2026-01-01T00:00:00Z")
}

/// A login that fails; what psql has said, and that it and the log are clean.
async fn refused(world: &World, title: &str) -> String {
    let known = refusals(world).len();
    let ran = world.psql(&["-c", "select 1"]).await;
    assert_ne!(ran.code, Some(0), "{title}");
    eventually(title, || refusals(world).into_iter().nth(known)).await;
    assert!(is_clean(&ran.stderr), "{title}: {:?}", ran.stderr);
    let log = world.proxy.log_text();
    let bad = log.lines().find(|line| !is_clean(line));
    assert_eq!(bad, None, "{title}");
    for line in refusals(world) {
        for field in ["reason", "detail", "hint"] {
            let text = line[field].as_str().unwrap_or_default();
            assert!(is_clean(text), "{title}: {field} {text:?}");
        }
    }
    ran.stderr
}

#[tokio::test]
async fn answers_of_aws_and_last_words_of_the_agent() {
    let world = World::start().await;
    let echoed = format!(
        "The request signature we calculated does not match. {HOSTILE} The Canonical String for this request should have been\n'POST\n/\n\nhost:ssm\nx-amz-security-token:{SECRET}\n\nhost;x-amz-security-token'"
    );
    for (code, message) in [
        ("SignatureDoesNotMatch", echoed.clone()),
        ("AccessDeniedException", echoed),
        (
            "SomethingNew",
            format!("{HOSTILE}{}", "x".repeat(1_000_000)),
        ),
    ] {
        let fault = ApiFault::Refused {
            status: 400,
            code,
            message: message.leak(),
        };
        world.sandbox.api().fail("StartSession", fault, 100);
        let said = refused(&world, code).await;
        assert!(said.contains("\\u{1b}]0;owned\\u{7}\\r\\n"), "{said}");
        assert!(said.len() < 5000, "{}", said.len());
        world.sandbox.api().recover();
    }

    let silent = silent_database(&world).await;
    let ended = silent.end_sessions(&world, |_| format!("{HOSTILE} session_token={SECRET}"));
    let (said, _held) = tokio::join!(refused(&world, "last words"), ended);
    assert!(said.contains("\\u{1b}]0;owned\\u{7}"), "{said}");
    world.stop().await;
}

#[tokio::test]
async fn a_close_reason_of_the_service() {
    let world = World::start().await;
    assert_eq!(world.query("select 1").await, "1");
    for id in world.sandbox.open_sessions() {
        assert!(world.sandbox.close_client(&id, 4000, HOSTILE));
    }
    let words = "connection to the SSM service lost; resuming the session";
    let line = world.proxy.wait_log(words, PATIENCE).await.expect(words);
    let reason = line["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("\\u{1b}]0;owned") && is_clean(reason),
        "{reason:?}"
    );
    world.stop().await;
}

/// A database that shows a certificate of nobody's, with this text wherever there can be one.
async fn shows_certificate(world: &World, text: &str) {
    let ascii: String = text.chars().filter(char::is_ascii).collect();
    let mut params = CertificateParams::new(vec![HOST.to_owned()]).expect("names");
    params.subject_alt_names.push(rcgen::SanType::DnsName(
        ascii.try_into().expect("an IA5 string"),
    ));
    params.distinguished_name.push(DnType::CommonName, text);
    params
        .distinguished_name
        .push(DnType::OrganizationName, text);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("its address");
    world.sandbox.vpc().open(HOST, PORT, addr);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = [0; 8];
            _ = socket.read_exact(&mut request).await;
            _ = socket.write_all(b"S").await;
            _ = acceptor.accept(socket).await;
        }
    });
}

#[tokio::test]
async fn names_in_a_certificate() {
    let world = World::start().await;
    shows_certificate(&world, HOSTILE).await;
    let said = refused(&world, "a certificate").await;
    assert!(said.contains("\\u{1b}]0;owned\\u{7}"), "{said}");
    assert!(said.contains("[tls.issuer]"), "{said}");
    world.stop().await;
}

#[tokio::test]
async fn names_that_a_client_gives_itself() {
    let world = World::start().await;
    let mut command = world.psql_command(&["-c", "select pg_sleep(20)"]);
    command.env("PGAPPNAME", HOSTILE).kill_on_drop(true);
    let mut asleep = command.spawn().expect("psql");
    let state = world.sandbox.dir().join("state");
    for words in [&["status"][..], &["status", "--json"]] {
        let shown = async {
            loop {
                let mut status = tokio::process::Command::new(pgiam());
                status.envs(world.sandbox.env()).args(words);
                status.arg("--state-dir").arg(&state);
                let ran = run(status).await;
                if ran.stdout.contains("owned") {
                    return ran.stdout;
                }
            }
        };
        let shown = tokio::time::timeout(PATIENCE, shown).await;
        let shown = shown.expect("the status names the client");
        assert!(is_clean(&shown), "{words:?}: {shown:?}");
    }
    asleep.kill().await.expect("psql ends");
    // A role and a database that the database does not have.
    let known = refusals(&world).len();
    let ran = world
        .psql(&["-U", HOSTILE, "-d", HOSTILE, "-c", "select 1"])
        .await;
    assert_ne!(ran.code, Some(0));
    eventually("a refusal", || refusals(&world).into_iter().nth(known)).await;
    let log = world.proxy.log_text();
    assert_eq!(log.lines().find(|line| !is_clean(line)), None);
    world.stop().await;
}

#[tokio::test]
async fn what_a_credential_process_says_is_logged_by_nobody_but_us() {
    let world = World::with(Setup {
        env: no_keys(),
        ..Setup::default()
    })
    .await;
    let script = world.sandbox.dir().join("process.sh");
    let said = "echo '{\"SecretAccessKey\": \"S3CR3T\"} password=S3CR3T' >&2\nexit 3\n";
    std::fs::write(&script, said).expect("the script");
    let config = format!("[default]\ncredential_process = sh {}\n", script.display());
    std::fs::write(world.sandbox.dir().join("config"), config).expect("the configuration");
    let said = refused(&world, "a credential_process").await;
    assert!(said.contains("aws.credential-process"), "{said}");
    let log = world.proxy.log_text();
    let of_sdk = log.lines().find(|line| line.contains("\"target\":\"aws_"));
    assert_eq!(of_sdk, None);
    world.stop().await;
}
