//! Files where Windows keeps them, with the names and encodings that its programs give them.

use std::path::{Path, PathBuf};

use protocol_tests::aws::sandbox::Sandbox;
use protocol_tests::harness::program::{self, Launch, Proxy};
use tokio::process::Command;

use super::{app_data, folder, written};
use crate::daily::command;
use crate::support::{PATIENCE, REGION, Setup, behind, ordinary_config, pgiam, run};

/// A name as users give it who do not write English.
const NAME: &str = "Ünï 日本 Кир mit Leerzeichen";

/// A folder that is removed with its contents.
struct Removed(PathBuf);

impl Removed {
    fn new(path: PathBuf) -> Self {
        _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Removed {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A text as PowerShell and Notepad write it: UTF-16 behind its mark.
fn wide(text: &str, unit: impl Fn(u16) -> [u8; 2]) -> Vec<u8> {
    let units = [0xfeff].into_iter().chain(text.encode_utf16());
    units.flat_map(unit).collect()
}

#[tokio::test]
#[ignore = "./dev test --windows runs it"]
async fn the_configuration_of_the_user_is_read_in_each_encoding_of_windows() {
    let roaming = Removed::new(app_data().join("Roaming/pgiam"));
    let sandbox = Sandbox::builder().region(REGION).start().await;
    let sandbox = sandbox.expect("sandbox");
    let place = sandbox.dir().join("elsewhere");
    std::fs::create_dir(&place).expect("a folder");
    let unix = ordinary_config()
        .replace("targets.orders", "targets.\"größe 日本\"")
        .replace("port = 0", "port = 5433");
    let text = unix.replace('\n', "\r\n");
    for (name, bytes) in [
        ("line feeds", unix.clone().into_bytes()),
        ("CRLF", text.clone().into_bytes()),
        ("UTF-8 with a mark", format!("\u{feff}{text}").into_bytes()),
        ("UTF-16 LE", wide(&text, u16::to_le_bytes)),
        ("UTF-16 BE", wide(&text, u16::to_be_bytes)),
    ] {
        std::fs::write(roaming.0.join("config.toml"), bytes).expect("the file");
        let mut url = command(&sandbox, &["url", "größe 日本", "--format", "dsn"]);
        url.current_dir(&place).env_remove("XDG_CONFIG_HOME");
        let ran = run(url).await;
        let dsn = "host=localhost port=5433 user=db_user dbname=app sslmode=disable";
        assert_eq!(
            (ran.code, ran.stdout.trim_end()),
            (Some(0), dsn),
            "{name}: {ran:?}"
        );
    }
    sandbox.shutdown().await;
}

/// Starts `pgiam serve` without a word about its directories, asks something through it, and stops it.
async fn serves(launch: Launch<'_>, psql: &Path) {
    let mut proxy = Proxy::start(launch).expect("pgiam starts");
    proxy.wait_ready(PATIENCE).await.expect("pgiam is ready");
    let mut psql = program::psql(psql, proxy.port());
    psql.args([
        "-A",
        "-t",
        "-d",
        "sslmode=require",
        "-c",
        "select current_user",
    ]);
    assert_eq!(run(psql).await.rows(), "db_user", "{}", proxy.log_text());
    proxy.stop().await.expect("pgiam ends");
}

#[tokio::test]
#[ignore = "./dev test --windows runs it"]
async fn names_of_all_scripts_and_the_state_of_the_user() {
    let local = Removed::new(app_data().join("Local/pgiam"));
    let (sandbox, database) = behind(&Setup::default()).await;
    let psql = database.postgres().psql_program();
    let place = sandbox.dir().join(NAME);
    std::fs::create_dir(&place).expect("a folder");
    let authority = place.join("Behörde 認証.pem");
    std::fs::copy(sandbox.pki().ca_pem_path(), &authority).expect("a file");
    let config = place.join("Einstellungen Кир.toml");
    // Relative paths of the file are relative to it.
    let text = ordinary_config() + "ca_file = \"Behörde 認証.pem\"\n";
    std::fs::write(&config, text).expect("the file");
    let start = |args: Vec<std::ffi::OsString>| Launch {
        env: sandbox.env(),
        collect_log: true,
        pgiam: pgiam(),
        args,
    };
    let state = place.join("Zustand 状態");
    serves(
        Launch {
            env: sandbox.env(),
            collect_log: true,
            ..Launch::serve(pgiam(), &config, &authority, &state)
        },
        &psql,
    )
    .await;
    assert!(state.join("local-tls/server.crt").exists());
    // Without a directory, it is the one of the user.
    let words = vec!["serve".into(), "--config".into(), config.into_os_string()];
    serves(start(words), &psql).await;
    assert!(local.0.join("local-tls/server.crt").exists());
    assert_eq!(sandbox.open_sessions(), Vec::<String>::new());
    database.stop().await.expect("the server stops");
    sandbox.shutdown().await;
}

/// An account of the sandbox whose keys come from a program.
fn by_program(sandbox: &Sandbox, line: &str) -> Command {
    let config = format!("[profile tool]\nregion = {REGION}\ncredential_process = {line}\n");
    std::fs::write(sandbox.dir().join("config"), config.replace('\n', "\r\n")).expect("a file");
    let mut list = command(sandbox, &["list", "--json"]);
    for (name, _) in sandbox.env() {
        list.env_remove(name);
    }
    list.envs(sandbox.env_without_keys())
        .env("AWS_PROFILE", "tool");
    list
}

#[tokio::test]
#[ignore = "./dev test --windows runs it"]
async fn credentials_come_from_programs_of_windows() {
    let sandbox = Sandbox::builder().region(REGION).start().await;
    let sandbox = sandbox.expect("sandbox");
    let tools = sandbox.dir().join("my tools");
    std::fs::create_dir(&tools).expect("a folder");
    let user = sandbox.user();
    let keys = serde_json::json!({
        "Version": 1,
        "AccessKeyId": user.access_key_id,
        "SecretAccessKey": user.secret_access_key,
    });
    let file = tools.join("keys.json");
    std::fs::write(&file, keys.to_string()).expect("a file");
    // %~dp0 is the folder of the script; %1 is the first word behind it.
    let script =
        "@echo off\r\nif not \"%~1\" == \"a word\" exit /b 3\r\ntype \"%~dp0keys.json\"\r\n";
    std::fs::write(tools.join("keys of ana.cmd"), script).expect("a script");
    std::fs::copy(folder().join("event.exe"), tools.join("print keys.exe")).expect("a program");
    let [script, program, file] =
        ["keys of ana.cmd", "print keys.exe", "keys.json"].map(|name| written(&tools.join(name)));
    for line in [
        format!("\"{script}\" \"a word\""),
        format!("\"{program}\" 1 cmd /c type \"{file}\""),
        // By its name alone.
        format!("cmd /c type \"{file}\""),
    ] {
        let ran = run(by_program(&sandbox, &line)).await;
        assert_eq!(ran.code, Some(0), "{line}: {ran:?}");
    }
    let ran = run(by_program(&sandbox, &format!("\"{script}\" other"))).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("exit status 3"), "{ran:?}");
    sandbox.shutdown().await;
}
