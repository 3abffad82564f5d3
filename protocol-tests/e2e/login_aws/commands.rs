//! `pgiam login` and `pgiam logout`.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use protocol_tests::aws::api::ApiFault;
use protocol_tests::aws::sandbox::Sandbox;
use protocol_tests::harness::person::Button;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use super::{ACCOUNT, Home, calls, config, ended, has_no_secret};

async fn sandbox() -> Sandbox {
    let sandbox = Sandbox::builder().region("eu-central-1").start().await;
    sandbox.expect("sandbox")
}

/// Masks times and the port, which differ between runs.
fn masked(text: &str) -> String {
    let mut words = Vec::new();
    for line in text.lines() {
        let line = match line.trim_start().starts_with("https://") {
            true => "  URL".to_owned(),
            false => line.to_owned(),
        };
        let is_time = |word: &str| {
            let word = word.trim_end_matches([',', ')']);
            word.len() == 5 && word.as_bytes()[2] == b':'
        };
        // The portal gives roles a name with random letters.
        let line = match line.split_once("AWSReservedSSO_Developer_") {
            Some((before, after)) => {
                let after = after.trim_start_matches(|c: char| c.is_ascii_hexdigit());
                format!("{before}AWSReservedSSO_Developer_X{after}")
            }
            None => line,
        };
        let is_date = |word: &str| word.len() == 10 && word.as_bytes()[4] == b'-';
        let line: Vec<&str> = line
            .split(' ')
            .filter(|word| !is_date(word))
            .map(|word| if is_time(word) { "TIME" } else { word })
            .collect();
        words.push(line.join(" "));
    }
    words.join("\n")
}

#[tokio::test]
async fn a_login_in_the_browser_reaches_its_end() {
    let sandbox = sandbox().await;
    let home = Home::new(&sandbox, &config(&sandbox));
    let login = home.start(&sandbox, &["login", "dev"]);
    let page = home.sign_in(1, Button::Allow).await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("<h1>You are logged in</h1>"), "{page:?}");
    let ran = ended(login).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    insta::assert_snapshot!(
        "browser",
        masked(&format!("{}---\n{}", ran.stdout, ran.stderr))
    );
    has_no_secret(&sandbox, &format!("{ran:?}{}", page.text));
    for (name, _) in home.cached("sso/cache") {
        let file = home.path(".aws/sso/cache").join(&name);
        let mode = std::fs::metadata(file)
            .expect("a file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }

    // A second login asks again, and registers nothing. A target stands for its profile.
    let target = "[targets.orders]\nhost = \"db.example.com\"\nprofile = \"dev\"\n";
    home.write("pgiam.toml", target);
    let login = home.start(&sandbox, &["login", "orders"]);
    home.sign_in(2, Button::Allow).await;
    assert_eq!(ended(login).await.code, Some(0));
    assert_eq!(
        home.cached("sso/cache").len(),
        2,
        "a token and a registration"
    );
    sandbox.shutdown().await;
}

#[tokio::test]
async fn no_secret_is_logged() {
    let sandbox = sandbox().await;
    let home = Home::new(&sandbox, &config(&sandbox));
    let login = home.start(
        &sandbox,
        &["login", "dev", "--log", "trace", "--log-format", "logfmt"],
    );
    home.sign_in(1, Button::Allow).await;
    let ran = ended(login).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains(" level=DEBUG "), "{}", ran.stderr);
    has_no_secret(&sandbox, &ran.stderr);
    for (_, file) in home.cached("sso/cache") {
        for key in ["accessToken", "refreshToken", "clientSecret"] {
            let secret = file[key].as_str().unwrap_or("not there");
            assert!(!ran.stderr.contains(secret), "{key}");
        }
    }
    let ran = home
        .pgiam(&sandbox, &["logout", "dev", "--log", "trace"])
        .await;
    has_no_secret(&sandbox, &ran.stderr);
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_denied_login_says_so_on_both_sides() {
    let sandbox = sandbox().await;
    let home = Home::new(&sandbox, &config(&sandbox));
    let login = home.start(&sandbox, &["login", "dev"]);
    let page = home.sign_in(1, Button::Deny).await;
    assert!(page.text.contains("<h1>The login failed</h1>"), "{page:?}");
    let ran = ended(login).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let said = "pgiam: the login was denied on AWS's page\n";
    assert!(ran.stderr.ends_with(said), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_device_code_needs_no_browser_here() {
    let sandbox = sandbox().await;
    let home = Home::new(&sandbox, &config(&sandbox));
    // Profiles without a session know no other way.
    for args in [
        &["login", "dev", "--device-code", "--no-browser"][..],
        &["login", "old", "--no-browser"],
    ] {
        let mut login = home.start(&sandbox, args);
        let mut lines = BufReader::new(login.stderr.take().expect("stderr")).lines();
        let code = loop {
            let line = lines.next_line().await.expect("text").expect("a code");
            if let Some(code) = line.trim().strip_prefix("code ") {
                break code.to_owned();
            }
        };
        assert!(sandbox.identity_center().approve(&code), "{code}");
        let ran = ended(login).await;
        assert_eq!(ran.code, Some(0), "{args:?}: {ran:?}");
        assert!(ran.stdout.starts_with("Logged in to "), "{}", ran.stdout);
        has_no_secret(&sandbox, &ran.stdout);
    }
    assert_eq!(home.person.addresses(), Vec::<String>::new());
    assert_eq!(home.cached("sso/cache").len(), 4);
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_logout_leaves_no_token() {
    let sandbox = sandbox().await;
    let home = Home::new(&sandbox, &config(&sandbox));
    let none = home.pgiam(&sandbox, &["logout", "dev"]).await;
    assert_eq!(
        none.stdout,
        "There is no login of SSO session corp on this machine\n"
    );
    let login = home.start(&sandbox, &["login", "dev"]);
    home.sign_in(1, Button::Allow).await;
    assert_eq!(ended(login).await.code, Some(0));
    let token = |home: &Home| {
        let files = home.cached("sso/cache");
        let mut tokens = files
            .into_iter()
            .filter(|(_, file)| !file["accessToken"].is_null());
        tokens.next()
    };
    assert!(token(&home).is_some());
    let ran = home.pgiam(&sandbox, &["logout", "dev"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(
        ran.stdout,
        "Logged out of SSO session corp: removed 1 login and 0 key files\n"
    );
    assert!(token(&home).is_none());
    assert_eq!(calls(&sandbox, "sso:Logout"), 1);
    let ran = home.pgiam(&sandbox, &["logout", "--all"]).await;
    assert_eq!(ran.stdout, "There is no login on this machine\n");
    sandbox.shutdown().await;
}

#[tokio::test]
async fn an_mfa_code_is_read_once() {
    let sandbox = sandbox().await;
    let user = sandbox.user().clone();
    let serial = sandbox.mfa().enable(&user.arn);
    let role = format!("arn:aws:iam::{ACCOUNT}:role/Admin");
    sandbox
        .roles()
        .add(protocol_tests::aws::roles::Role::new(&role));
    let config = format!(
        "{}[profile admin]\nrole_arn = {role}\nsource_profile = keys\nmfa_serial = {serial}\n\
         region = eu-central-1\n",
        config(&sandbox)
    );
    let home = Home::new(&sandbox, &config);
    let without = home.pgiam(&sandbox, &["login", "admin"]).await;
    assert_eq!(without.code, Some(1), "{without:?}");
    insta::assert_snapshot!("mfa_without_terminal", without.stderr);

    let code = sandbox.mfa().next_code(&serial).expect("a code");
    let mut login = home.command(&sandbox, &["login", "admin", "--mfa-code", "-"]);
    login.stdin(std::process::Stdio::piped());
    login.stdout(std::process::Stdio::piped());
    login.stderr(std::process::Stdio::piped());
    let mut login = login.spawn().expect("pgiam starts");
    let mut input = login.stdin.take().expect("stdin");
    input
        .write_all(format!("{code}\n").as_bytes())
        .await
        .expect("input");
    let ran = ended(login).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        ran.stdout.contains(":assumed-role/Admin/"),
        "{}",
        ran.stdout
    );
    let cached = home.cached("cli/cache");
    assert_eq!(cached.len(), 1);
    assert!(!cached[0].1["AssumedRoleUser"]["Arn"].is_null());

    let ran = home.pgiam(&sandbox, &["logout", "admin"]).await;
    assert_eq!(
        ran.stdout,
        "Logged out of profile admin: removed 0 logins and 1 key file\n"
    );
    sandbox.shutdown().await;
}

#[tokio::test]
async fn keys_with_a_device_get_a_session() {
    let sandbox = sandbox().await;
    let user = sandbox.user().clone();
    let serial = sandbox.mfa().enable(&user.arn);
    let config = format!("[profile keys]\nmfa_serial = {serial}\nregion = eu-central-1\n");
    let home = Home::new(&sandbox, &config);
    let code = sandbox.mfa().next_code(&serial).expect("a code");
    let ran = home
        .pgiam(&sandbox, &["login", "keys", "--mfa-code", &code])
        .await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        ran.stdout.contains(&user.arn) && ran.stdout.contains("keys until"),
        "{ran:?}"
    );
    assert_eq!(home.cached("cli/cache").len(), 1);
    // Spent, and of the wrong form.
    let spent = home
        .pgiam(&sandbox, &["login", "keys", "--mfa-code", &code])
        .await;
    assert_eq!(spent.code, Some(1), "{spent:?}");
    let odd = home
        .pgiam(&sandbox, &["login", "keys", "--mfa-code", "12345"])
        .await;
    assert_eq!(
        odd.stderr,
        "pgiam: an MFA code has six digits; read it from the device, and log in again\n"
    );
    let ran = home.pgiam(&sandbox, &["logout", "--all"]).await;
    assert_eq!(
        ran.stdout,
        "Logged out of all sessions: removed 0 logins and 1 key file\n"
    );
    assert_eq!(home.cached("cli/cache").len(), 0);
    sandbox.shutdown().await;
}

#[tokio::test]
async fn profiles_without_a_login_name_the_alternative() {
    let sandbox = sandbox().await;
    let more = "[profile tool]\ncredential_process = granted credential-process --profile x\n\
                [profile console]\nlogin_session = arn:aws:iam::123456789012:user/Admin\n";
    let home = Home::new(&sandbox, &format!("{}{more}", config(&sandbox)));
    let mut said = String::new();
    for args in [
        &["login", "keys"][..],
        &["login", "tool"],
        &["login", "console"],
        &["login", "devv"],
        &["login"],
        &["login", "--sso-session", "crop"],
    ] {
        let mut command = home.command(&sandbox, args);
        command.env("AWS_EC2_METADATA_DISABLED", "true");
        let ran = crate::support::run(command).await;
        assert_eq!(ran.code, Some(1), "{args:?}: {ran:?}");
        said.push_str(&format!("$ pgiam {}\n{}", args.join(" "), ran.stderr));
    }
    insta::assert_snapshot!("without_a_login", said);
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_service_that_is_asked_too_often_is_asked_later() {
    let sandbox = sandbox().await;
    let home = Home::new(&sandbox, &config(&sandbox));
    let login = ["login", "dev", "--device-code", "--no-browser"];
    let mut login = home.start(&sandbox, &login);
    let mut lines = BufReader::new(login.stderr.take().expect("stderr")).lines();
    let code = loop {
        let line = lines.next_line().await.expect("text").expect("a code");
        if let Some(code) = line.trim().strip_prefix("code ") {
            break code.to_owned();
        }
    };
    let slow = ApiFault::Refused {
        status: 400,
        code: "SlowDownException",
        message: "slow down",
    };
    sandbox.api().fail("CreateToken", slow, 1);
    let began = std::time::Instant::now();
    assert!(sandbox.identity_center().approve(&code), "{code}");
    assert_eq!(ended(login).await.code, Some(0));
    let took = began.elapsed();
    // The interval of one second, and then six.
    assert!(took >= Duration::from_secs(6), "{took:?}");
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_login_that_nobody_completes_ends() {
    let sandbox = sandbox().await;
    sandbox.identity_center().update(|settings| {
        settings.device_code_life = Duration::from_secs(3);
    });
    let home = Home::new(&sandbox, &config(&sandbox));
    let ran = home
        .pgiam(&sandbox, &["login", "dev", "--device-code", "--no-browser"])
        .await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stderr.contains("the device code has expired"),
        "{}",
        ran.stderr
    );
    sandbox.shutdown().await;
}
