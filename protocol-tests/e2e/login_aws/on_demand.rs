//! Logins that begin where they are missing: at a terminal, and with a client that waits.

use protocol_tests::aws::roles::Role;
use protocol_tests::aws::sandbox::Sandbox;
use protocol_tests::database::rds::RdsDatabase;
use protocol_tests::harness::person::Button;
use protocol_tests::harness::program;
use tokio::process::Command;

use super::{ACCOUNT, Home, calls, config, ended};
use crate::daily::screen::{END, Terminal};
use crate::support::{BASTION, HOST, PATIENCE, Setup, World, behind, eventually, launch, run};

/// A target of the profile `dev`, with `serve` at the beginning.
fn file(serve: &str) -> String {
    format!(
        "{serve}[targets.orders]\nhost = \"{HOST}\"\nuser = \"db_user\"\ndatabase = \"app\"\nport = 0\n\
         bastion = \"{BASTION}\"\nprofile = \"dev\"\n"
    )
}

/// End of a session that is over.
const ENDED: &str = "2026-01-01T08:12:00Z";

/// Writes the token of a session that cannot be renewed.
fn token_file(home: &Home, sandbox: &Sandbox, ends: &str) {
    let text = format!(
        r#"{{"startUrl": "{}", "region": "eu-central-1", "accessToken": "no such token",
        "expiresAt": "{ends}"}}"#,
        sandbox.identity_center().start_url()
    );
    std::fs::create_dir_all(home.path(".aws/sso/cache")).expect("a directory");
    // The name of the session "corp".
    let name = "ee0bfd2552fbd840c02cc48b6e823320543c450f.json";
    home.write(&format!(".aws/sso/cache/{name}"), &text);
}

/// Returns the arguments that run one query through pgiam.
fn run_query(psql: &str) -> [&str; 9] {
    let query = "select current_user";
    ["run", "orders", "--", psql, "-X", "-A", "-t", "-c", query]
}

#[tokio::test]
async fn the_morning_begins_with_enter() {
    let (sandbox, database) = behind(&Setup::default()).await;
    let home = Home::new(&sandbox, &config(&sandbox));
    token_file(&home, &sandbox, ENDED);
    home.write("pgiam.toml", &file(""));
    let psql = database.postgres().psql_program().display().to_string();
    let args = run_query(&psql);
    let mut command = home.command(&sandbox, &args);
    command.env("PGIAM_CA_FILE", sandbox.pki().ca_pem_path());
    let Some(terminal) = Terminal::run(&command, "morning").await else {
        return;
    };
    let question = terminal
        .shows("Press Enter to log in, Ctrl-C to stop.")
        .await;
    let ended = "The SSO session of profile dev ended at 2026-01-01 08:12 UTC.";
    assert!(question.replace('\n', " ").contains(ended), "{question}");
    assert_eq!(home.person.addresses(), Vec::<String>::new());
    terminal.press("Enter").await;
    home.sign_in(1, Button::Allow).await;
    let screen = terminal.shows(END).await;
    assert!(
        screen.contains("Logged in to SSO session corp until"),
        "{screen}"
    );
    assert!(screen.contains("\ndb_user\n[exit 0]"), "{screen}");
    drop(terminal);
    database.stop().await.expect("the server stops");
    sandbox.shutdown().await;
}

/// A server at a terminal.
struct ServerAtTerminal {
    terminal: Terminal,
    home: Home,
    database: RdsDatabase,
    sandbox: Sandbox,
}

impl ServerAtTerminal {
    /// Starts it with the token of a session that ends at this time.
    async fn start(name: &str, ends: &str) -> Option<Self> {
        let (sandbox, database) = behind(&Setup::default()).await;
        let home = Home::new(&sandbox, &config(&sandbox));
        token_file(&home, &sandbox, ends);
        home.write("pgiam.toml", &file("[serve]\nsocket_dir = \"none\"\n"));
        let mut command = home.command(&sandbox, &["serve", "--log", "error"]);
        command.env("PGIAM_CA_FILE", sandbox.pki().ca_pem_path());
        Some(Self {
            terminal: Terminal::run(&command, name).await?,
            home,
            database,
            sandbox,
        })
    }

    /// Ends it with Ctrl-C.
    async fn quit(self) {
        self.terminal.press("C-c").await;
        self.terminal.shows("[exit 0]").await;
        drop(self.terminal);
        self.database.stop().await.expect("the server stops");
        self.sandbox.shutdown().await;
    }
}

#[tokio::test]
async fn a_server_asks_beside_its_work() {
    let Some(server) = ServerAtTerminal::start("server", ENDED).await else {
        return;
    };
    let ServerAtTerminal {
        terminal,
        home,
        database,
        ..
    } = &server;
    let screen = terminal.shows("Press Enter to log in").await;
    let port = screen.split(" -p ").nth(1).expect("a port");
    let port: String = port.chars().take_while(char::is_ascii_digit).collect();
    let port = port.parse().expect("a port");
    let query = || {
        let psql = database.postgres().psql_program();
        let mut command = program::psql(&psql, port);
        command.args(["-A", "-t", "-c", "select current_user"]);
        command
    };
    // It serves meanwhile, and says what is missing.
    let refused = run(query()).await;
    assert!(refused.stderr.contains("pgiam login dev"), "{refused:?}");
    terminal.press("Enter").await;
    home.sign_in(1, Button::Allow).await;
    terminal.shows("Logged in to SSO session corp").await;
    assert_eq!(run(query()).await.rows(), "db_user");
    server.quit().await;
}

#[tokio::test]
async fn a_server_asks_again_when_a_session_ends() {
    // According to its file it is valid, so the start asks nothing.
    let ends = "2099-01-01T00:00:00Z";
    let Some(server) = ServerAtTerminal::start("later", ends).await else {
        return;
    };
    let (terminal, home) = (&server.terminal, &server.home);
    let screen = terminal.shows(" -p ").await;
    assert!(!screen.contains("Press Enter"), "{screen}");
    token_file(home, &server.sandbox, ENDED);
    terminal.shows("Press Enter to log in").await;
    terminal.press("Enter").await;
    home.sign_in(1, Button::Allow).await;
    terminal.shows("Logged in to SSO session corp").await;
    server.quit().await;
}

#[tokio::test]
async fn a_login_elsewhere_answers_the_question() {
    let Some(server) = ServerAtTerminal::start("elsewhere", ENDED).await else {
        return;
    };
    let (terminal, home) = (&server.terminal, &server.home);
    terminal.shows("Press Enter to log in").await;
    let login = home.start(&server.sandbox, &["login", "dev"]);
    home.sign_in(1, Button::Allow).await;
    assert_eq!(ended(login).await.code, Some(0));
    terminal.press("Enter").await;
    terminal
        .shows("Another login has renewed the SSO session of profile dev.")
        .await;
    assert_eq!(home.person.addresses().len(), 1);
    server.quit().await;
}

#[tokio::test]
async fn a_code_is_asked_for_once() {
    let (sandbox, database) = behind(&Setup::default()).await;
    let serial = sandbox.mfa().enable(&sandbox.user().arn);
    let role = format!("arn:aws:iam::{ACCOUNT}:role/Admin");
    sandbox.roles().add(Role {
        requires_mfa: true,
        ..Role::new(&role)
    });
    let config = format!(
        "[profile dev]\nrole_arn = {role}\nsource_profile = keys\nmfa_serial = {serial}\n\
         region = eu-central-1\n"
    );
    let home = Home::new(&sandbox, &config);
    home.write("pgiam.toml", &file(""));
    let psql = database.postgres().psql_program().display().to_string();
    let args = run_query(&psql);
    let mut command = home.command(&sandbox, &args);
    command.env("PGIAM_CA_FILE", sandbox.pki().ca_pem_path());
    let Some(terminal) = Terminal::run(&command, "code").await else {
        return;
    };
    terminal.shows(&format!("MFA code for {serial}:")).await;
    let code = sandbox.mfa().next_code(&serial).expect("a code");
    terminal.press(&code).await;
    terminal.press("Enter").await;
    let screen = terminal.shows(END).await;
    assert!(screen.contains("\ndb_user\n[exit 0]"), "{screen}");
    drop(terminal);
    // The keys are in the cache now.
    let again = run(command).await;
    assert_eq!(again.rows(), "db_user");
    database.stop().await.expect("the server stops");
    sandbox.shutdown().await;
}

#[tokio::test]
async fn without_a_profile_a_role_is_chosen() {
    let sandbox = Sandbox::builder().region("eu-central-1").start().await;
    let sandbox = sandbox.expect("sandbox");
    sandbox
        .identity_center()
        .add_account("210987654321", "Other", "other@example.com");
    sandbox
        .identity_center()
        .assign("210987654321", "Developer");
    sandbox.identity_center().assign(ACCOUNT, "ReadOnly");
    let url = sandbox.identity_center().start_url();
    let text = format!("[sso-session corp]\nsso_start_url = {url}\nsso_region = eu-central-1\n");
    let home = Home::new(&sandbox, &text);
    std::fs::remove_file(home.path(".aws/credentials")).expect("a file");
    let mut command = home.command(&sandbox, &["list"]);
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    let Some(terminal) = Terminal::run(&command, "choose").await else {
        return;
    };
    home.sign_in(1, Button::Allow).await;
    terminal.shows("Account").await;
    // Filters the accounts.
    terminal.press("Sandbox").await;
    terminal.press("Enter").await;
    terminal.shows("ReadOnly").await;
    terminal.press("Devel").await;
    terminal.press("Enter").await;
    let screen = terminal.shows(END).await;
    assert!(
        screen.contains("Added profile Developer-123456789012"),
        "{screen}"
    );
    assert!(screen.contains("[exit 0]"), "{screen}");
    let written = std::fs::read_to_string(home.path(".aws/config")).expect("the file");
    assert_eq!(
        written,
        format!(
            "{text}\n[profile Developer-{ACCOUNT}]\nsso_session = corp\nsso_account_id = {ACCOUNT}\n\
             sso_role_name = Developer\nregion = eu-central-1\n"
        )
    );
    drop(terminal);
    sandbox.shutdown().await;
}

/// A server with `login = "browser"` whose session has ended.
async fn waiting_world(serve: &str) -> (World, Home) {
    waiting_for(file(serve)).await
}

/// A server with this configuration whose session has ended.
async fn waiting_for(text: String) -> (World, Home) {
    let (sandbox, database) = behind(&Setup::default()).await;
    let home = Home::new(&sandbox, &config(&sandbox));
    token_file(&home, &sandbox, ENDED);
    let setup = Setup {
        config: Some(text),
        ..setup_of(&home, "")
    };
    let mut proxy = launch(&sandbox, &setup);
    proxy.wait_ready(PATIENCE).await.expect("pgiam listens");
    let world = World {
        proxy,
        database,
        sandbox,
    };
    (world, home)
}

/// Returns the setup of a server that lives in a home directory.
fn setup_of(home: &Home, serve: &str) -> Setup {
    let keys = [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
    ];
    let files = ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"];
    let none = keys.into_iter().chain(files).map(|name| (name, None));
    let text = |path: &std::path::Path| Some(path.display().to_string());
    let mut setup = Setup {
        config: Some(file(serve)),
        env: none.collect(),
        ..Setup::default()
    };
    setup.env.extend([
        ("HOME", text(home.dir.path())),
        ("BROWSER", text(home.person.program())),
    ]);
    setup
}

fn query(world: &World) -> Command {
    world.psql_command(&["-A", "-t", "-c", "select current_user"])
}

#[tokio::test]
async fn a_client_waits_for_the_browser() {
    let (world, home) = waiting_world("[serve]\nlogin = \"browser\"\n").await;
    assert_eq!(home.person.addresses(), Vec::<String>::new());
    let clients = (
        tokio::spawn(run(query(&world))),
        tokio::spawn(run(query(&world))),
    );
    home.sign_in(1, Button::Allow).await;
    for client in [clients.0, clients.1] {
        assert_eq!(client.await.expect("psql").rows(), "db_user");
    }
    assert_eq!(home.person.addresses().len(), 1, "one window for both");
    assert_eq!(calls(&world.sandbox, "sso-oidc:RegisterClient"), 1);
    world.stop().await;
}

/// A target of the profile `dev` whose database is looked up first.
fn by_identifier() -> String {
    file("[serve]\nlogin = \"browser\"\n").replace(&format!("host = \"{HOST}\""), "db = \"orders\"")
}

#[tokio::test]
async fn a_lookup_waits_for_the_browser() {
    let (world, home) = waiting_for(by_identifier()).await;
    let client = tokio::spawn(run(query(&world)));
    home.sign_in(1, Button::Allow).await;
    assert_eq!(client.await.expect("psql").rows(), "db_user");
    assert_eq!(home.person.addresses().len(), 1);
    world.stop().await;
}

#[tokio::test]
async fn a_client_without_a_known_owner_opens_no_window() {
    let serve = "[serve]\nlogin = \"browser\"\npeer_check = false\n";
    let (world, home) = waiting_world(serve).await;
    let warned =
        "login = \"browser\" has no effect, because peer_check = false; log in with: pgiam login";
    world
        .proxy
        .wait_log(warned, PATIENCE)
        .await
        .expect("a warning");
    let ran = run(query(&world)).await;
    assert!(ran.stderr.contains("SSO session"), "{ran:?}");
    assert_eq!(home.person.addresses(), Vec::<String>::new());
    world.stop().await;
}

#[tokio::test]
async fn a_browser_that_fails_keeps_no_client_waiting() {
    let (sandbox, database) = behind(&Setup::default()).await;
    let home = Home::new(&sandbox, &config(&sandbox));
    token_file(&home, &sandbox, ENDED);
    let mut setup = setup_of(&home, "[serve]\nlogin = \"browser\"\n");
    setup.env.retain(|(name, _)| *name != "BROWSER");
    setup.env.push(("BROWSER", Some("/nonexistent".to_owned())));
    let mut proxy = launch(&sandbox, &setup);
    proxy.wait_ready(PATIENCE).await.expect("pgiam listens");
    let world = World {
        proxy,
        database,
        sandbox,
    };
    let ran = run(query(&world)).await;
    assert!(ran.stderr.contains("pgiam login dev"), "{ran:?}");
    world.stop().await;
}

#[tokio::test]
async fn an_ignored_page_is_opened_once() {
    let serve = "[serve]\nlogin = \"browser\"\n[defaults]\nconnect_timeout = 2\n";
    let (world, home) = waiting_world(serve).await;
    let ran = run(query(&world)).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    insta::assert_snapshot!(
        "ignored_page",
        ran.stderr.replace(&world.proxy.port().to_string(), "PORT")
    );
    let again = run(query(&world)).await;
    assert_eq!(again.code, Some(2), "{again:?}");
    assert_eq!(home.person.addresses().len(), 1);
    // The login that comes late serves the next client.
    let page = home
        .person
        .sign_in(&home.person.addresses()[0], Button::Allow)
        .await;
    page.expect("a page");
    world
        .proxy
        .wait_log("logged in to AWS", PATIENCE)
        .await
        .expect("a log line");
    assert_eq!(world.query("select current_user").await, "db_user");
    world.stop().await;
}

#[tokio::test]
async fn a_denied_login_opens_no_second_window() {
    let (world, home) = waiting_world("[serve]\nlogin = \"browser\"\n").await;
    let client = tokio::spawn(run(query(&world)));
    home.sign_in(1, Button::Deny).await;
    let ran = client.await.expect("psql");
    assert!(ran.stderr.contains("SSO session"), "{ran:?}");
    let again = run(query(&world)).await;
    assert!(again.stderr.contains("SSO session"), "{again:?}");
    assert_eq!(home.person.addresses().len(), 1);
    world.stop().await;
}

#[tokio::test]
async fn the_end_of_a_session_is_announced() {
    let (sandbox, database) = behind(&Setup::default()).await;
    let home = Home::new(&sandbox, &config(&sandbox));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let ends = now.expect("a time").as_secs() + 240;
    let ends = aws_profile::format_date(ends.cast_signed());
    token_file(&home, &sandbox, &ends);
    let bin = home.path("bin");
    std::fs::create_dir(&bin).expect("a directory");
    let seen = home.path("seen");
    let script = format!("#!/bin/sh\nprintf '%s\\n' \"$@\" >> '{}'\n", seen.display());
    home.write("bin/notify-send", &script);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(bin.join("notify-send"), mode).expect("a mode");
    let path = std::env::var("PATH").expect("PATH");
    let mut setup = setup_of(&home, "[serve]\nlogin = \"browser\"\n");
    setup
        .env
        .push(("PATH", Some(format!("{}:{path}", bin.display()))));
    setup.env.push(("TZ", Some("UTC".to_owned())));
    let mut proxy = launch(&sandbox, &setup);
    proxy.wait_ready(PATIENCE).await.expect("pgiam listens");
    let text = eventually("the notification", || {
        std::fs::read_to_string(&seen)
            .ok()
            .filter(|text| text.ends_with(".\n"))
    });
    // The hour and the minute; before midnight, the date is in front of them.
    let expected = format!("{} UTC.\n", &ends[11..16]);
    let text = text.await;
    assert!(
        text.contains("The SSO session corp ends at ") && text.ends_with(&expected),
        "{text}"
    );
    World {
        proxy,
        database,
        sandbox,
    }
    .stop()
    .await;
}

#[tokio::test]
async fn no_window_opens_unasked() {
    let (world, home) = waiting_world("").await;
    let ran = run(query(&world)).await;
    assert!(ran.stderr.contains("SSO session"), "{ran:?}");
    assert_eq!(home.person.addresses(), Vec::<String>::new());
    world.stop().await;
}
