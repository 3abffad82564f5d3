//! Logins that pgiam, the AWS CLI and botocore share through their caches.

use std::process::Output;
use std::time::Duration;

use protocol_tests::aws::iam::User;
use protocol_tests::aws::roles::Role;
use protocol_tests::aws::sandbox::Sandbox;
use protocol_tests::harness::judge::AwsCli;
use protocol_tests::harness::person::Button;

use super::{ACCOUNT, Home, calls, config, ended, has_no_secret};
use crate::support::{HOST, REGION, Ran};

const ADMIN: &str = "arn:aws:iam::123456789012:user/Admin";
const ROLE: &str = "arn:aws:iam::123456789012:role/Mfa";
/// Within the time before the end in which all of them refresh.
const SHORT: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

async fn sandbox() -> Sandbox {
    let sandbox = Sandbox::builder().region(REGION).start().await;
    sandbox.expect("sandbox")
}

/// Asks pgiam for a login token of the database.
async fn token(home: &Home, sandbox: &Sandbox, profile: &str) -> Ran {
    let host = ["--host", HOST, "--user", "db_user", "--region", REGION];
    let args = [&["token", "--show", "--profile", profile][..], &host].concat();
    home.pgiam(sandbox, &args).await
}

/// The user of the sandbox that signed a token.
fn signer(sandbox: &Sandbox, ran: &Ran) -> User {
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let (_, rest) = ran.stdout.split_once("X-Amz-Credential=").expect("a key");
    let key = rest.split('%').next().expect("a key");
    sandbox.iam().get(key).expect("a user")
}

/// What a program that succeeds has written.
fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The only token in the cache of SSO.
fn cached_token(home: &Home) -> serde_json::Value {
    let mut tokens = home.cached("sso/cache");
    tokens.retain(|(_, file)| !file["accessToken"].is_null());
    assert_eq!(tokens.len(), 1, "{tokens:?}");
    tokens.remove(0).1
}

#[tokio::test]
async fn one_login_serves_pgiam_and_botocore() {
    let sandbox = sandbox().await;
    let home = Home::new(&sandbox, &config(&sandbox));
    let Some(judge) = AwsCli::find(home.env(&sandbox)) else {
        return;
    };
    let center = sandbox.identity_center();
    center.update(|settings| settings.access_token_life = SHORT);
    let login = home.start(&sandbox, &["login", "dev"]);
    home.sign_in(1, Button::Allow).await;
    assert_eq!(ended(login).await.code, Some(0));
    let first = cached_token(&home);
    let asked = calls(&sandbox, "sso-oidc:CreateToken");

    // botocore refreshes pgiam's token, and pgiam botocore's.
    let whoami = judge.botocore(&["whoami", "dev"]).output().await;
    let arn = ok(&whoami.expect("botocore"));
    let second = cached_token(&home);
    assert_ne!(first["refreshToken"], second["refreshToken"]);
    center.update(|settings| settings.access_token_life = HOUR);
    let ran = token(&home, &sandbox, "dev").await;
    assert_eq!(signer(&sandbox, &ran).arn, arn);
    let third = cached_token(&home);
    assert_ne!(second["refreshToken"], third["refreshToken"]);
    let read = judge.botocore(&["token", "dev"]).output().await;
    let read = ok(&read.expect("botocore"));
    assert_eq!(third["accessToken"], read.as_str());
    let names = |file: &serde_json::Value| -> Vec<String> {
        let file = file.as_object().expect("an object");
        let mut names: Vec<String> = file.keys().cloned().collect();
        names.sort();
        names
    };
    assert_eq!(names(&second), names(&third), "no key is lost or added");
    assert_eq!(calls(&sandbox, "sso-oidc:CreateToken"), asked + 2);

    // The end of the login is the end for both.
    center.end_logins();
    let refused = token(&home, &sandbox, "dev").await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("pgiam login"), "{refused:?}");
    has_no_secret(&sandbox, &refused.stderr);
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_console_session_that_pgiam_refreshed_serves_botocore() {
    let sandbox = sandbox().await;
    let config = format!("[profile console]\nlogin_session = {ADMIN}\nregion = {REGION}\n");
    let home = Home::new(&sandbox, &config);
    let Some(judge) = AwsCli::find(home.env(&sandbox)) else {
        return;
    };
    let login = sandbox.console().log_in(ADMIN, SHORT);
    std::fs::create_dir_all(home.path(".aws/login/cache")).expect("a directory");
    let name = format!(".aws/login/cache/{}", login.file_name());
    home.write(&name, &login.file.to_string());
    let ran = token(&home, &sandbox, "console").await;
    let user = signer(&sandbox, &ran);
    assert_eq!(user.arn, ADMIN);
    let (_, file) = home.cached("login/cache").remove(0);
    assert_ne!(file["refreshToken"], login.file["refreshToken"]);
    assert_eq!(file["accessToken"]["accessKeyId"], user.access_key_id);
    let whoami = judge.botocore(&["whoami", "console"]).output().await;
    assert_eq!(ok(&whoami.expect("botocore")), ADMIN);
    assert_eq!(calls(&sandbox, "signin:CreateOAuth2Token"), 1);
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_code_given_to_the_aws_cli_serves_pgiam() {
    let sandbox = sandbox().await;
    let dev = sandbox.user().arn.clone();
    let serial = sandbox.mfa().enable(&dev);
    let mut role = Role::new(ROLE);
    role.requires_mfa = true;
    sandbox.roles().add(role);
    let config = format!(
        "[profile mfa]\nrole_arn = {ROLE}\nsource_profile = keys\nmfa_serial = {serial}\n\
         region = {REGION}\n"
    );
    let home = Home::new(&sandbox, &config);
    let Some(judge) = AwsCli::find(home.env(&sandbox)) else {
        return;
    };
    let without = token(&home, &sandbox, "mfa").await;
    assert_eq!(without.code, Some(1), "{without:?}");
    assert!(without.stderr.contains("pgiam login"), "{without:?}");
    let code = sandbox.mfa().next_code(&serial).expect("a code");
    let whoami = ["sts", "get-caller-identity", "--profile", "mfa"];
    ok(&judge.aws(&whoami, &format!("{code}\n")).await.expect("aws"));
    let ran = token(&home, &sandbox, "mfa").await;
    let user = signer(&sandbox, &ran);
    assert!(user.arn.contains(":assumed-role/Mfa/"), "{}", user.arn);

    // And the other direction, after the cache is gone.
    std::fs::remove_dir_all(home.path(".aws/cli/cache")).expect("the cache");
    let code = sandbox.mfa().next_code(&serial).expect("a code");
    let login = ["login", "mfa", "--mfa-code", "-"];
    let mut command = home.command(&sandbox, &login);
    command.stdin(std::process::Stdio::piped());
    command.stdout(std::process::Stdio::piped());
    command.stderr(std::process::Stdio::piped());
    let mut child = command.spawn().expect("pgiam starts");
    let mut stdin = child.stdin.take().expect("its input");
    let line = format!("{code}\n");
    let written = tokio::io::AsyncWriteExt::write_all(&mut stdin, line.as_bytes());
    written.await.expect("its input");
    drop(stdin);
    let ran = ended(child).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let known = judge.aws(&whoami, "").await.expect("aws");
    assert!(ok(&known).contains(":assumed-role/Mfa/"), "{known:?}");
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_role_behind_a_console_session_takes_its_code() {
    let sandbox = sandbox().await;
    let role = format!("arn:aws:iam::{ACCOUNT}:role/Operator");
    let config = format!(
        "[profile console]\nlogin_session = {ADMIN}\nregion = {REGION}\n\
         [profile operator]\nrole_arn = {role}\nsource_profile = console\n\
         mfa_serial = arn:aws:iam::{ACCOUNT}:mfa/admin\nregion = {REGION}\n"
    );
    let home = Home::new(&sandbox, &config);
    let without = home.pgiam(&sandbox, &["login", "operator"]).await;
    let hint = "\n  aws login --profile console\n";
    assert!(without.stderr.ends_with(hint), "{without:?}");
    let login = sandbox.console().log_in(ADMIN, HOUR);
    std::fs::create_dir_all(home.path(".aws/login/cache")).expect("a directory");
    let name = format!(".aws/login/cache/{}", login.file_name());
    home.write(&name, &login.file.to_string());
    let asked = home.pgiam(&sandbox, &["login", "operator"]).await;
    assert!(
        asked.stderr.contains("pgiam login operator --mfa-code -"),
        "{asked:?}"
    );
    sandbox.shutdown().await;
}
