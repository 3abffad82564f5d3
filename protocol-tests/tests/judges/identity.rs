//! botocore and the AWS CLI (version 1) judge the sandbox's logins: they make their own calls, read
//! the answers by AWS's models, and write caches that the other reads.
//!
//! `./dev test` installs them and names the AWS CLI in `PGIAM_AWSCLI`. Without it these tests are
//! left out aloud; in CI that is a failure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, SystemTime};

use protocol_tests::aws::api::ApiFault;
use protocol_tests::aws::console::SessionEnd;
use protocol_tests::aws::events::Event;
use protocol_tests::aws::roles::Role;
use protocol_tests::aws::sandbox::Sandbox;
use protocol_tests::harness::judge::{self, AwsCli};
use protocol_tests::harness::person::{Button, Person};
use protocol_tests::harness::program::clean_env;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// Python is slow to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const ACCOUNT: &str = "123456789012";
const ADMIN: &str = "arn:aws:iam::123456789012:user/Admin";

/// The programs with a home directory of their own, and a sandbox.
struct Judge {
    sandbox: Sandbox,
    cli: AwsCli,
    home: tempfile::TempDir,
}

impl Judge {
    /// `None`, and a word about it, without the programs.
    async fn start(config: &str) -> Option<Self> {
        let sandbox = Sandbox::builder().start().await.unwrap();
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        let config = config.replace("START_URL", sandbox.identity_center().start_url());
        std::fs::write(home.path().join(".aws/config"), config).unwrap();
        let user = sandbox.user();
        let keys = format!(
            "[base]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
            user.access_key_id, user.secret_access_key
        );
        std::fs::write(home.path().join(".aws/credentials"), keys).unwrap();
        let files = ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"];
        let mut env = sandbox.env_without_keys();
        env.retain(|(name, _)| !files.contains(&name.as_str()));
        env.push(("HOME".to_owned(), home.path().display().to_string()));
        let cli = AwsCli::find(env)?;
        Some(Self { sandbox, cli, home })
    }

    async fn botocore(&self, arguments: &[&str]) -> Output {
        run(self.cli.botocore(arguments)).await
    }

    async fn aws(&self, arguments: &[&str], input: &str) -> Output {
        self.cli.aws(arguments, input).await.unwrap()
    }

    /// The ARN that the AWS CLI finds behind a profile.
    async fn arn(&self, profile: &str, input: &str) -> String {
        let arguments = [
            "sts",
            "get-caller-identity",
            "--query",
            "Arn",
            "--output",
            "text",
            "--profile",
            profile,
        ];
        ok(&self.aws(&arguments, input).await)
    }

    /// The only JSON file of a cache.
    fn cached(&self, cache: &str) -> Value {
        let dir = self.home.path().join(".aws").join(cache);
        let files = std::fs::read_dir(dir).unwrap();
        let paths = files.map(|file| file.unwrap().path());
        let paths: Vec<PathBuf> = paths.filter(|p| p.extension().is_some()).collect();
        assert_eq!(paths.len(), 1, "{paths:?}");
        serde_json::from_slice(&std::fs::read(&paths[0]).unwrap()).unwrap()
    }

    fn calls(&self, detail: &str) -> usize {
        let wanted = |e: &Event| matches!(e, Event::LoginCall { detail: d, .. } if d == detail);
        self.sandbox.events().count(wanted)
    }
}

async fn run(mut command: Command) -> Output {
    let ended = timeout(PATIENCE, command.output()).await;
    ended.unwrap().unwrap()
}

/// What a program that succeeds has written.
fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone())
        .unwrap()
        .trim()
        .to_owned()
}

fn assert_failed(output: &Output, words: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && text.contains(words),
        "{output:?}"
    );
}

/// Starts a program and returns its first line.
async fn started(mut command: Command) -> (Child, BufReader<ChildStdout>, String) {
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    let read = timeout(PATIENCE, stdout.read_line(&mut line)).await;
    read.unwrap().unwrap();
    (child, stdout, line.trim().to_owned())
}

/// Waits for the end of a program that [`started`] has started.
async fn ended(child: Child) -> Output {
    let ended = timeout(PATIENCE, child.wait_with_output()).await;
    ended.unwrap().unwrap()
}

const SSO: &str = "\
[profile dev]
sso_session = corp
sso_account_id = 123456789012
sso_role_name = Developer
[profile admin]
sso_session = corp
sso_account_id = 123456789012
sso_role_name = Admin
[sso-session corp]
sso_start_url = START_URL
sso_region = eu-central-1
sso_registration_scopes = sso:account:access
";

#[tokio::test]
async fn botocore_logs_in_with_a_device_code() {
    let Some(judge) = Judge::start(SSO).await else {
        return;
    };
    let (child, _out, line) = started(judge.cli.botocore(&["device", "dev"])).await;
    let (user_code, _) = line.split_once(' ').unwrap();
    assert!(judge.sandbox.identity_center().approve(user_code));
    ok(&ended(child).await);
    let arn = judge.arn("dev", "").await;
    assert!(
        arn.contains(":assumed-role/AWSReservedSSO_Developer_"),
        "{arn}"
    );
    assert_eq!(ok(&judge.botocore(&["whoami", "dev"]).await), arn);
    let refused = judge.botocore(&["whoami", "admin"]).await;
    assert_failed(&refused, "(ForbiddenException)");
}

#[tokio::test]
async fn botocore_understands_how_a_device_code_ends() {
    let Some(judge) = Judge::start(SSO).await else {
        return;
    };
    let center = judge.sandbox.identity_center().clone();
    let (child, _out, line) = started(judge.cli.botocore(&["device", "dev"])).await;
    assert!(center.deny(line.split_once(' ').unwrap().0));
    assert_failed(&ended(child).await, "AccessDeniedException");
    let (child, _out, _) = started(judge.cli.botocore(&["device", "dev"])).await;
    center.expire_device_codes();
    assert_failed(&ended(child).await, "ExpiredTokenException");
    let slow_down = ApiFault::Refused {
        status: 400,
        code: "SlowDownException",
        message: "Slow down",
    };
    judge.sandbox.api().fail("CreateToken", slow_down, 1);
    let (child, _out, _) = started(judge.cli.botocore(&["device", "dev"])).await;
    assert_failed(&ended(child).await, "SlowDownException");
}

#[tokio::test]
async fn botocore_logs_in_with_a_code_and_refreshes() {
    let Some(judge) = Judge::start(SSO).await else {
        return;
    };
    let person = Person::new(judge.sandbox.pki(), judge.home.path()).unwrap();
    // Less than the 15 minutes before the end in which botocore refreshes.
    let short = Duration::from_secs(60);
    judge
        .sandbox
        .identity_center()
        .update(|settings| settings.access_token_life = short);
    let (child, _out, address) = started(judge.cli.botocore(&["code", "dev"])).await;
    let page = person.sign_in(&address, Button::Allow).await.unwrap();
    assert_eq!(page.text, "Done");
    ok(&ended(child).await);
    let before = judge.cached("sso/cache");
    judge
        .sandbox
        .identity_center()
        .update(|settings| settings.access_token_life = Duration::from_secs(3600));
    let token = ok(&judge.botocore(&["token", "dev"]).await);
    let after = judge.cached("sso/cache");
    assert_eq!(judge.calls("refresh_token"), 1);
    assert_ne!(before["refreshToken"], after["refreshToken"]);
    assert_eq!(after["accessToken"], token.as_str());
    assert!(judge.arn("dev", "").await.ends_with("/dev@example.com"));

    let (child, _out, address) = started(judge.cli.botocore(&["code", "dev"])).await;
    person.sign_in(&address, Button::Deny).await.unwrap();
    assert_failed(&ended(child).await, "access_denied");
    judge.sandbox.identity_center().end_logins();
    let refused = judge.botocore(&["whoami", "dev"]).await;
    assert_failed(&refused, "UnauthorizedSSOTokenError");
}

#[tokio::test]
async fn the_aws_cli_uses_the_portal() {
    let Some(judge) = Judge::start(SSO).await else {
        return;
    };
    let center = judge.sandbox.identity_center();
    center.add_account("210987654321", "Production", "prod@example.com");
    for role in ["Admin", "ReadOnly"] {
        center.assign("210987654321", role);
    }
    judge.sandbox.api().limit_pages(1);
    let login = center.log_in();
    let sso = async |operation: &str, rest: &[&str]| {
        let token = ["--access-token", &login.access_token];
        let all = [&["sso", operation, "--output", "text"], &token[..], rest].concat();
        judge.aws(&all, "").await
    };
    let accounts = ["--query", "accountList[].accountId"];
    let accounts = ok(&sso("list-accounts", &accounts).await);
    let accounts: Vec<&str> = accounts.split_whitespace().collect();
    assert_eq!(accounts, [ACCOUNT, "210987654321"]);
    let production = ["--account-id", "210987654321"];
    let roles = [&production[..], &["--query", "roleList[].roleName"]].concat();
    let roles = ok(&sso("list-account-roles", &roles).await);
    assert_eq!(
        roles.split_whitespace().collect::<Vec<_>>(),
        ["Admin", "ReadOnly"]
    );
    let role = [&production[..], &["--role-name", "Admin"]].concat();
    let key = [&role[..], &["--query", "roleCredentials.accessKeyId"]].concat();
    let key = ok(&sso("get-role-credentials", &key).await);
    let arn = judge.sandbox.iam().get(&key).unwrap().arn;
    assert!(arn.starts_with("arn:aws:sts::210987654321:"), "{arn}");
    ok(&sso("logout", &[]).await);
    let refused = sso("get-role-credentials", &role).await;
    assert_failed(&refused, "(UnauthorizedException)");
    assert_failed(&refused, "Session token not found or invalid");
}

const ROLES: &str = "\
[profile mfa]
role_arn = arn:aws:iam::123456789012:role/Mfa
source_profile = base
mfa_serial = arn:aws:iam::123456789012:mfa/dev
external_id = x/1
duration_seconds = 7200
role_session_name = me
[profile chain]
role_arn = arn:aws:iam::210987654321:role/Last
source_profile = mfa
[profile web]
role_arn = arn:aws:iam::123456789012:role/Web
web_identity_token_file = TOKEN_FILE
[profile base]
region = eu-central-1
";

fn add_roles(sandbox: &Sandbox) -> String {
    let mut mfa = Role::new("arn:aws:iam::123456789012:role/Mfa");
    mfa.requires_mfa = true;
    mfa.external_id = Some("x/1".to_owned());
    mfa.max_session = Duration::from_secs(7200);
    let mut last = Role::new("arn:aws:iam::210987654321:role/Last");
    last.trusts = vec![mfa.arn.clone()];
    let mut web = Role::new("arn:aws:iam::123456789012:role/Web");
    web.web_identity = Some("a.b.c\n".to_owned());
    for role in [mfa, last, web] {
        sandbox.roles().add(role);
    }
    sandbox.mfa().enable(&sandbox.user().arn)
}

#[tokio::test]
async fn the_aws_cli_assumes_roles_with_mfa() {
    let Some(judge) = Judge::start(ROLES).await else {
        return;
    };
    let serial = add_roles(&judge.sandbox);
    let code = || format!("{}\n", judge.sandbox.mfa().next_code(&serial).unwrap());
    let wrong = judge.aws(
        &["sts", "get-caller-identity", "--profile", "mfa"],
        "abcdef\n",
    );
    assert_failed(
        &wrong.await,
        "MultiFactorAuthentication failed with invalid MFA one time pass code",
    );
    let arn = "arn:aws:sts::123456789012:assumed-role/Mfa/me";
    assert_eq!(judge.arn("mfa", &code()).await, arn);
    assert_eq!(judge.cached("cli/cache")["AssumedRoleUser"]["Arn"], arn);
    assert_eq!(judge.arn("mfa", "").await, arn, "from the cache");
    let chained = judge.arn("chain", "").await;
    assert!(
        chained.starts_with("arn:aws:sts::210987654321:assumed-role/Last/"),
        "{chained}"
    );
    let assumed = |e: &Event| matches!(e, Event::RoleAssumed { seconds: 7200, mfa: Some(s), .. } if *s == serial);
    assert_eq!(judge.sandbox.events().count(assumed), 1);
    let code = judge.sandbox.mfa().next_code(&serial).unwrap();
    assert_eq!(ok(&judge.botocore(&["whoami", "mfa", &code]).await), arn);
}

#[tokio::test]
async fn the_aws_cli_gets_a_session_token_and_a_web_identity() {
    let Some(judge) = Judge::start(ROLES).await else {
        return;
    };
    let serial = add_roles(&judge.sandbox);
    let code = judge.sandbox.mfa().next_code(&serial).unwrap();
    let session = [
        "sts",
        "get-session-token",
        "--serial-number",
        &serial,
        "--token-code",
        &code,
        "--profile",
        "base",
        "--query",
        "Credentials.AccessKeyId",
        "--output",
        "text",
    ];
    let key = ok(&judge.aws(&session, "").await);
    assert!(judge.sandbox.iam().get(&key).unwrap().mfa);
    let reused = judge.aws(&session, "").await;
    assert_failed(&reused, "(AccessDenied)");

    let token = judge.home.path().join("token");
    std::fs::write(&token, "a.b.c\n").unwrap();
    let config = judge.home.path().join(".aws/config");
    let text = ROLES.replace("TOKEN_FILE", &token.display().to_string());
    std::fs::write(config, text).unwrap();
    let arn = judge.arn("web", "").await;
    assert!(
        arn.starts_with("arn:aws:sts::123456789012:assumed-role/Web/"),
        "{arn}"
    );
    std::fs::write(&token, "a.b.x\n").unwrap();
    let refused = judge.botocore(&["whoami", "web"]).await;
    assert_failed(&refused, "(InvalidIdentityToken)");
}

#[tokio::test]
async fn credentials_end_in_the_middle() {
    let Some(judge) = Judge::start(ROLES).await else {
        return;
    };
    let serial = add_roles(&judge.sandbox);
    let code = format!("{}\n", judge.sandbox.mfa().next_code(&serial).unwrap());
    judge.arn("mfa", &code).await;
    let key = &judge.cached("cli/cache")["Credentials"]["AccessKeyId"];
    judge.sandbox.iam().update(key.as_str().unwrap(), |user| {
        user.expires = Some(SystemTime::now() - Duration::from_secs(1));
    });
    let refused = judge.aws(&["sts", "get-caller-identity", "--profile", "mfa"], "");
    assert_failed(&refused.await, "(ExpiredToken)");
}

#[tokio::test]
async fn botocore_refreshes_a_console_session() {
    let config = format!("[profile console]\nlogin_session = {ADMIN}\n");
    let Some(judge) = Judge::start(&config).await else {
        return;
    };
    // Less than the 5 minutes before the end in which botocore refreshes.
    let login = judge
        .sandbox
        .console()
        .log_in(ADMIN, Duration::from_secs(60));
    let cache = judge.home.path().join(".aws/login/cache");
    std::fs::create_dir_all(&cache).unwrap();
    std::fs::write(cache.join(login.file_name()), login.file.to_string()).unwrap();
    assert_eq!(ok(&judge.botocore(&["whoami", "console"]).await), ADMIN);
    let after = judge.cached("login/cache");
    assert_ne!(after["refreshToken"], login.file["refreshToken"]);
    assert_eq!(judge.calls("refresh_token"), 1);

    judge
        .sandbox
        .console()
        .end_sessions(SessionEnd::TokenExpired);
    std::fs::write(cache.join(login.file_name()), {
        let mut ended = after;
        ended["accessToken"]["expiresAt"] = "2026-01-01T00:00:00Z".into();
        ended.to_string()
    })
    .unwrap();
    let refused = judge.botocore(&["whoami", "console"]).await;
    assert_failed(&refused, "LoginRefreshRequired");
}

/// The form of each STS answer, by the name of its operation.
async fn shapes(cli: &AwsCli, role: &str) -> BTreeMap<String, Value> {
    let text = ok(&run(cli.script("shapes.py", &[role])).await);
    let lines = text.lines().map(|line| line.split_once(' ').unwrap());
    lines
        .map(|(name, shape)| (name.to_owned(), serde_json::from_str(shape).unwrap()))
        .collect()
}

/// moto is another stand-in for AWS: what it answers, the sandbox must answer, too.
#[tokio::test]
async fn moto_answers_in_the_same_form() {
    let Some(python) = judge::find("PGIAM_MOTO", "moto") else {
        return;
    };
    let Some(judge) = Judge::start("").await else {
        return;
    };
    let user = judge.sandbox.user();
    let keys = |endpoint: &str| {
        let mut env = judge.sandbox.env();
        for (name, value) in &mut env {
            if name == "AWS_ENDPOINT_URL" {
                endpoint.clone_into(value);
            }
        }
        env
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("judges/moto/account.py");
    let mut moto = Command::new(python);
    clean_env(&mut moto, &["AWS_", "MOTO_"]);
    // It ends with its standard input.
    moto.arg(script)
        .stdin(Stdio::piped())
        .env("NO_PROXY", "localhost,127.0.0.1")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .kill_on_drop(true);
    let (_moto, _out, url) = started(moto).await;

    let role = format!("arn:aws:iam::{ACCOUNT}:role/Judge");
    let mut open = Role::new(&role);
    open.trusts = vec![user.arn.clone()];
    open.web_identity = Some("a.b.c".to_owned());
    judge.sandbox.roles().add(open);
    let ours = AwsCli::find(keys(&judge.sandbox.endpoint_url())).unwrap();
    let theirs = AwsCli::find(keys(&url)).unwrap();
    let ours = shapes(&ours, &role).await;
    let theirs = shapes(&theirs, &role).await;
    assert_eq!(theirs.len(), 4, "{theirs:?}");
    for (operation, shape) in &theirs {
        let shape = shape.as_object().unwrap();
        // AWS answers it only for a session policy, which nobody here sends.
        let expected = shape.iter().filter(|(name, _)| *name != "PackedPolicySize");
        for (name, value) in expected {
            assert_eq!(&ours[operation][name], value, "{operation}: {name}");
        }
    }
}
