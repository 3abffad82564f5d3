//! Each source of an AWS identity, up to a query; and identities that must not be taken.

use std::time::{Duration, SystemTime};

use protocol_tests::aws::console::SessionEnd;
use protocol_tests::aws::events::Event;
use protocol_tests::aws::iam::User;
use protocol_tests::aws::roles::Role;
use protocol_tests::harness::program;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::failures::refusals;
#[cfg(target_os = "linux")]
use crate::support::eventually;
use crate::support::{HOST, PATIENCE, Setup, World, behind, launch, ordinary_config, pgiam};

const ACCOUNT: &str = "123456789012";
/// File of the session `corp` in `~/.aws/sso/cache`: SHA-1 of its name.
const CORP: &str = ".aws/sso/cache/ee0bfd2552fbd840c02cc48b6e823320543c450f.json";

/// Starts a world whose home directory is that of the sandbox, and whose AWS files `prepare` writes:
/// it gets the sandbox's directory and URL of Identity Center, and returns the config file.
async fn world(profile: Option<&str>, env: &[(&'static str, &str)], config: &str) -> World {
    let mut setup = Setup::default();
    if let Some(profile) = profile {
        setup.config = Some(format!("{}profile = \"{profile}\"\n", ordinary_config()));
    }
    let (sandbox, database) = behind(&setup).await;
    let home = sandbox.dir().display().to_string();
    for key in [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
    ] {
        setup.env.push((key, None));
    }
    setup.env.push(("HOME", Some(home)));
    let env = env
        .iter()
        .map(|(name, value)| (*name, Some((*value).to_owned())));
    setup.env.extend(env);
    let user = sandbox.user();
    let keys = format!(
        "[base]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
        user.access_key_id, user.secret_access_key
    );
    std::fs::write(sandbox.dir().join("credentials"), keys).expect("keys");
    let url = sandbox.identity_center().start_url();
    let config = config.replace("START_URL", url);
    std::fs::write(sandbox.dir().join("config"), config).expect("profiles");
    let mut proxy = launch(&sandbox, &setup);
    proxy.wait_ready(PATIENCE).await.expect("pgiam is ready");
    World {
        proxy,
        database,
        sandbox,
    }
}

fn write(world: &World, file: &str, value: &Value) {
    let path = world.sandbox.dir().join(file);
    let folder = path.parent().expect("a folder");
    std::fs::create_dir_all(folder).expect("a folder");
    std::fs::write(path, value.to_string()).expect("a file");
}

fn calls(world: &World, action: &str) -> usize {
    let wanted = |e: &Event| matches!(e, Event::LoginCall { action: a, .. } if a == action);
    world.sandbox.events().count(wanted)
}

/// Returns what psql says about a connection that must fail.
async fn refused(world: &World) -> String {
    let ran = world.psql(&["-c", "select 1"]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    ran.stderr
}

#[tokio::test]
async fn a_chain_of_roles_is_assumed_as_the_profile_says() {
    let hop = format!("arn:aws:iam::{ACCOUNT}:role/hop");
    let app = format!("arn:aws:iam::{ACCOUNT}:role/app");
    let config = format!(
        "[profile app]\nrole_arn = {app}\nsource_profile = hop\nexternal_id = x1\n\
         duration_seconds = 1800\nrole_session_name = me\n\
         [profile hop]\nrole_arn = {hop}\nsource_profile = base\n"
    );
    let world = world(Some("app"), &[], &config).await;
    world.sandbox.roles().add(Role::new(&hop));
    world.sandbox.roles().add(Role {
        external_id: Some("x1".to_owned()),
        trusts: vec![hop.clone()],
        ..Role::new(&app)
    });
    assert_eq!(world.query("select 1").await, "1");
    let assumed: Vec<_> = world.sandbox.events().all();
    let assumed = assumed.iter().filter_map(|event| match event {
        Event::RoleAssumed {
            role_arn,
            session_name,
            seconds,
            external_id,
            ..
        } => Some((
            role_arn.clone(),
            session_name.clone(),
            *seconds,
            external_id.clone(),
        )),
        _ => None,
    });
    let assumed: Vec<_> = assumed.collect();
    assert_eq!(assumed.len(), 2, "{assumed:?}");
    assert_eq!(assumed[0].0, hop);
    let last = (app, "me".to_owned(), 1800, Some("x1".to_owned()));
    assert_eq!(assumed[1], last);
    world.stop().await;
}

#[tokio::test]
async fn a_web_identity_in_the_environment_comes_before_the_profile() {
    let role = format!("arn:aws:iam::{ACCOUNT}:role/ci");
    let dir = tempfile::tempdir().expect("a directory");
    let token = dir.path().join("token");
    std::fs::write(&token, "a-signed-token\n").expect("a token");
    let env = [
        (
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            token.to_str().expect("UTF-8"),
        ),
        ("AWS_ROLE_ARN", role.as_str()),
    ];
    let config = "[default]\naws_access_key_id = AKIAOTHER\naws_secret_access_key = s\n";
    let world = world(None, &env, config).await;
    world.sandbox.roles().add(Role {
        web_identity: Some("a-signed-token\n".to_owned()),
        ..Role::new(&role)
    });
    assert_eq!(world.query("select 1").await, "1");
    world.stop().await;
}

#[tokio::test]
async fn a_login_of_aws_login_is_renewed_until_it_ends() {
    let identity = format!("arn:aws:iam::{ACCOUNT}:user/me");
    let config = format!("[profile dev]\nlogin_session = {identity}\n");
    let world = world(Some("dev"), &[], &config).await;
    let said = refused(&world).await;
    assert!(said.contains("run:\n  aws login --profile dev\n"), "{said}");

    let console = world.sandbox.console();
    let ended = console.log_in(&identity, Duration::from_secs(60));
    console.end_sessions(SessionEnd::TokenExpired);
    let file = format!(".aws/login/cache/{}", ended.file_name());
    write(&world, &file, &ended.file);
    let said = refused(&world).await;
    assert!(said.contains("aws.login-session"), "{said}");

    let login = console.log_in(&identity, Duration::from_secs(60));
    write(&world, &file, &login.file);
    assert_eq!(world.query("select 1").await, "1");
    assert_eq!(calls(&world, "signin:CreateOAuth2Token"), 1);
    let log = world.proxy.log_text();
    for secret in console.secrets() {
        assert!(!log.contains(&secret), "a secret in the log");
    }
    world.stop().await;
}

const SSO: &str = "[profile dev]\nsso_session = corp\nsso_account_id = 123456789012\n\
     sso_role_name = Developer\n[sso-session corp]\nsso_start_url = START_URL\n\
     sso_region = eu-central-1\n";

#[tokio::test]
async fn an_sso_token_is_renewed_silently_and_never_sent_after_its_end() {
    let world = world(None, &[("AWS_DEFAULT_PROFILE", "dev")], SSO).await;
    let said = refused(&world).await;
    assert!(said.contains("Run:\n  pgiam login dev\n"), "{said}");
    assert_eq!(calls(&world, "sso:GetRoleCredentials"), 0);

    // Ten minutes are left, which is less than the AWS CLI leaves.
    let center = world.sandbox.identity_center();
    center.update(|settings| settings.access_token_life = Duration::from_secs(600));
    write(&world, CORP, &center.log_in().token_file());
    assert_eq!(world.query("select 1").await, "1");
    assert_eq!(calls(&world, "sso-oidc:CreateToken"), 1);
    assert_eq!(calls(&world, "sso:GetRoleCredentials"), 1);
    let log = world.proxy.log_text();
    for secret in center.secrets() {
        assert!(!log.contains(&secret), "a secret in the log");
    }
    world.stop().await;
}

#[tokio::test]
async fn an_expired_sso_token_that_cannot_be_renewed_is_not_sent() {
    let world = world(Some("dev"), &[], SSO).await;
    let center = world.sandbox.identity_center();
    let mut file = center.log_in().token_file();
    file["expiresAt"] = json!("2020-01-01T00:00:00UTC");
    center.end_logins();
    write(&world, CORP, &file);
    let said = refused(&world).await;
    assert!(said.contains("Run:\n  pgiam login dev\n"), "{said}");
    assert!(said.contains("2020-01-01T00:00:00Z"), "{said}");
    assert_eq!(calls(&world, "sso:GetRoleCredentials"), 0);
    world.stop().await;
}

/// Returns the key of the last login that the database accepted.
fn last_key(world: &World) -> String {
    let events = world.sandbox.events().all();
    let mut keys = events.into_iter().filter_map(|event| match event {
        Event::DbToken { outcome, .. } => outcome.ok(),
        _ => None,
    });
    keys.next_back().expect("a login")
}

#[tokio::test]
async fn role_keys_that_aws_rejects_are_replaced() {
    let world = world(Some("dev"), &[], SSO).await;
    let center = world.sandbox.identity_center();
    write(&world, CORP, &center.log_in().token_file());
    assert_eq!(world.query("select 1").await, "1");
    let first = last_key(&world);
    let past = SystemTime::now() - Duration::from_secs(60);
    let end = |user: &mut User| user.expires = Some(past);
    assert!(world.sandbox.iam().update(&first, end));
    assert_eq!(world.query("select 1").await, "1");
    assert_ne!(last_key(&world), first);
    assert_eq!(calls(&world, "sso:GetRoleCredentials"), 2);
    world.stop().await;
}

/// Starts a container's endpoint with usable keys of somebody else. Returns its address.
async fn container() -> (String, tokio::sync::mpsc::UnboundedReceiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            _ = tell.send(());
            _ = stream.read(&mut [0; 4096]).await;
            let body = r#"{"AccessKeyId":"ASIAOTHER","SecretAccessKey":"s","Token":"t","Expiration":"2099-01-01T00:00:00Z"}"#;
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    });
    (format!("http://{address}/"), told)
}

#[tokio::test]
async fn a_profile_that_cannot_be_used_never_becomes_the_container() {
    let (url, mut asked) = container().await;
    let env = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str())];
    let world = world(Some("dev"), &env, "[profile dev]\nsso_role_name = r\n").await;
    let role = "role_arn = arn:aws:iam::1:role/a";
    let sso = "sso_account_id = 1\nsso_role_name = r";
    for (body, expected) in [
        (
            role.to_owned(),
            "source_profile or credential_source is missing",
        ),
        (
            format!("{role}\nsource_profile = gone"),
            "source_profile \"gone\" does not exist",
        ),
        (
            format!("{role}\nsource_profile ="),
            "source_profile \"\" does not exist",
        ),
        (
            format!("{role}\nsource_profile = dev"),
            "is its own source_profile",
        ),
        (
            format!("{role}\nsource_profile = empty"),
            "has no credentials",
        ),
        (
            format!("{role}\ncredential_source = environment"),
            "credential_source",
        ),
        (format!("{sso}\nsso_session = corp"), "sso_region"),
        (
            format!("{sso}\nsso_session = gone"),
            "sso-session \"gone\" does not exist",
        ),
        (
            "sso_role_name = r\nsso_start_url = https://x\nsso_region = x".to_owned(),
            "sso_account_id",
        ),
        ("sso_session = corp".to_owned(), "no complete source"),
        (
            "aws_access_key_id = AKIA".to_owned(),
            "aws_secret_access_key",
        ),
        ("aws_secret_access_key = s".to_owned(), "no complete source"),
        ("web_identity_token_file = /x".to_owned(), "without a role"),
        ("credential_process = 'x".to_owned(), "credential_process"),
        ("credential_process =".to_owned(), "the command is empty"),
        (
            "region\naws_access_key_id = AKIA".to_owned(),
            "has no \"=\"",
        ),
    ] {
        let config = format!(
            "[sso-session corp]\nsso_start_url = https://x\n[profile empty]\nregion = x\n\
             [profile dev]\n{body}\n"
        );
        std::fs::write(world.sandbox.dir().join("config"), config).expect("profiles");
        let said = refused(&world).await;
        assert!(said.contains(expected), "{body}: {said}");
    }
    assert!(asked.try_recv().is_err(), "the container was asked");
    let ids: Vec<_> = refusals(&world);
    assert!(ids.iter().all(|line| line["id"] == "aws.config"), "{ids:?}");

    // A profile without any setting for credentials leaves them to the container, as in the AWS CLI.
    std::fs::write(
        world.sandbox.dir().join("config"),
        "[profile dev]\nregion = eu-central-1\n",
    )
    .expect("profiles");
    refused(&world).await;
    assert!(asked.try_recv().is_ok(), "the container was not asked");
    world.stop().await;
}

/// A command with a `credential_process`: a script in a directory of its own.
#[cfg(unix)]
struct Program {
    dir: tempfile::TempDir,
}

#[cfg(unix)]
impl Program {
    /// The script notes its process id, waits for the file `done`, and prints keys.
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let script = "echo $$ > pid.new; mv pid.new pid\n\
             while [ ! -e done ]; do sleep 0.05; done\n\
             printf '{\"Version\":1,\"AccessKeyId\":\"ASIALATE\",\"SecretAccessKey\":\"s\"}'\n";
        std::fs::write(dir.path().join("script"), script).expect("a script");
        let config = "[default]\ncredential_process = sh script\n";
        std::fs::write(dir.path().join("config"), config).expect("a profile");
        Self { dir }
    }

    /// Starts a command line.
    fn start(&self, args: &[&str]) -> tokio::process::Child {
        let mut command = tokio::process::Command::new(pgiam());
        program::clean_env(&mut command, &["AWS_", "PGIAM_", "PG"]);
        command
            .args(args)
            .env("AWS_CONFIG_FILE", self.dir.path().join("config"))
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .env("HOME", self.dir.path())
            .current_dir(self.dir.path())
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true);
        command.spawn().expect("pgiam starts")
    }

    /// Waits until the script runs; returns its process id.
    #[cfg(target_os = "linux")]
    async fn pid(&self) -> String {
        let pid = eventually("the program", || {
            std::fs::read_to_string(self.dir.path().join("pid")).ok()
        });
        pid.await.trim().to_owned()
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_command_waits_for_a_program_that_waits_for_a_person() {
    let program = Program::new();
    let mut token = program.start(&["token", "--host", HOST, "--user", "app"]);
    let stderr = token.stderr.take().expect("a pipe");
    let mut lines = tokio::io::BufReader::new(stderr).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
    let line = line.expect("in time").expect("UTF-8").expect("a line");
    let expected = "Waiting for the credential_process of profile default (sh), running for ";
    assert!(line.starts_with(expected), "{line}");
    std::fs::write(program.dir.path().join("done"), "").expect("a file");
    let ended = tokio::time::timeout(PATIENCE, token.wait_with_output()).await;
    let output = ended.expect("in time").expect("output");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("ASIALATE"), "{output:?}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn ctrl_c_ends_a_command_with_its_program() {
    let database = ["--host", HOST, "--user", "app"];
    let bastion = [
        "--bastion",
        crate::support::BASTION,
        "--region",
        crate::support::REGION,
    ];
    for (args, code) in [
        ([&["token"][..], &database].concat(), 1),
        ([&["check"][..], &database].concat(), 1),
        ([&["tunnel", "db.example:5432"][..], &bastion].concat(), 1),
        ([&["run"][..], &database, &["--", "true"]].concat(), 130),
    ] {
        let program = Program::new();
        let running = program.start(&args);
        let pid = program.pid().await;
        let pgiam = nix::unistd::Pid::from_raw(running.id().expect("it runs").cast_signed());
        nix::sys::signal::kill(pgiam, nix::sys::signal::Signal::SIGINT).expect("a signal");
        let ended = tokio::time::timeout(PATIENCE, running.wait_with_output()).await;
        let output = ended.expect("in time").expect("output");
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(code == 130 || said.contains("stopped by SIGINT"), "{said}");
        let gone = || (!std::path::Path::new(&format!("/proc/{pid}/exe")).exists()).then_some(());
        eventually("the end of the program", gone).await;
    }
}
