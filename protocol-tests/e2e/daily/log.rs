//! The log for people, in a real terminal and in a pipe, and the formats for programs.

use std::io::{PipeReader, Read as _, Write as _};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol_tests::harness::program;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::screen::{END, Terminal};
use super::{Lab, command};
use crate::support::{PATIENCE, Ran, eventually, run};

impl Lab {
    /// One query through the port that stands behind `-p` in `ready`.
    async fn log_in(&self, ready: &str, user: &str) -> Ran {
        let port = ready.split(" -p ").nth(1).expect("a port");
        let port: String = port.chars().take_while(char::is_ascii_digit).collect();
        let psql = self.database.postgres().psql_program();
        let mut psql = program::psql(&psql, port.parse().expect("a port"));
        psql.args(["-A", "-t", "-U", user, "-d", "app", "-c", "select 1"]);
        run(psql).await
    }

    /// `pgiam serve` with these flags in a pipe: what it wrote from its start over one login and one
    /// refused login to its end.
    async fn served(&self, args: &[&str]) -> Ran {
        let stderr = self.sandbox.dir().join("stderr");
        let file = std::fs::File::create(&stderr).expect("a file");
        let (mut child, ready) = self.serving(args, file.into()).await;
        assert_eq!(self.log_in(&ready, "db_user").await.rows(), "1");
        assert_eq!(self.log_in(&ready, "scram_only").await.code, Some(2));
        terminate(&child);
        let ended = child.wait().await.expect("its end");
        Ran {
            code: ended.code(),
            stdout: ready,
            stderr: std::fs::read_to_string(stderr).expect("a file"),
        }
    }

    /// A started `pgiam serve` with these flags, and the line that says where it listens.
    async fn serving(&self, args: &[&str], stderr: Stdio) -> (Child, String) {
        let stdout = self.sandbox.dir().join("stdout");
        let file = std::fs::File::create(&stdout).expect("a file");
        let args = [&["serve"], args].concat();
        let mut command: Command = command(&self.sandbox, &args);
        command.stdout(file).stderr(stderr).kill_on_drop(true);
        let child = command.spawn().expect("pgiam starts");
        let ready = eventually("the ready line", || {
            let text = std::fs::read_to_string(&stdout).expect("a file");
            Some(text).filter(|text| text.contains("ready  orders") && text.ends_with('\n'))
        });
        (child, ready.await)
    }
}

fn terminate(child: &Child) {
    let pid = child.id().expect("it runs").cast_signed();
    kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it runs");
}

/// Bytes that leave little room in a pipe of 64 KiB.
const FILLER: usize = 62 * 1024;
/// Number of logins whose lines of -vv need more than that room.
const LOGINS: usize = 20;

impl Lab {
    /// A server after [`LOGINS`] whose log has been in a full pipe since the first ones.
    async fn served_without_reader(&self) -> (Child, PipeReader) {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        writer.write_all(&[b'\n'; FILLER]).expect("it has room");
        let (child, ready) = self.serving(&["-vv"], writer.into()).await;
        for _ in 0..LOGINS {
            assert_eq!(self.log_in(&ready, "db_user").await.rows(), "1");
        }
        (child, reader)
    }
}

async fn ended(mut child: Child) {
    let ended = timeout(PATIENCE, child.wait()).await.expect("it ends");
    assert_eq!(ended.expect("its end").code(), Some(0));
}

fn read(mut reader: PipeReader) -> String {
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("a text");
    text
}

#[tokio::test]
async fn a_reader_that_pauses_stops_no_connection_and_misses_nothing() {
    let lab = Lab::open().await;
    let (child, reader) = lab.served_without_reader().await;
    let reader = tokio::task::spawn_blocking(|| read(reader));
    terminate(&child);
    ended(child).await;
    let text = reader.await.expect("read");
    let logins = text.matches("psql as db_user to app: ready (").count();
    assert_eq!(logins, LOGINS, "{text}");
    assert!(text.contains(" stopped\n"), "{text}");
    lab.close().await;
}

#[tokio::test]
async fn a_reader_that_stopped_does_not_hold_up_the_end() {
    let lab = Lab::open().await;
    let (child, reader) = lab.served_without_reader().await;
    terminate(&child);
    ended(child).await;
    let text = read(reader);
    assert!(text.len() > FILLER, "the pipe took the first lines");
    assert!(!text.contains("stopping (SIGTERM)"), "{text}");
    lab.close().await;
}

#[tokio::test]
async fn each_connection_is_one_line_on_a_terminal() {
    let lab = Lab::open().await;
    let Some(terminal) = Terminal::run(&command(&lab.sandbox, &["serve"]), "log").await else {
        return;
    };
    let ready = terminal.shows("via ssm").await;
    assert_eq!(lab.log_in(&ready, "db_user").await.rows(), "1");
    let screen = terminal.shows("psql as db_user to app").await;
    let line = screen.lines().find(|line| line.contains("psql as db_user"));
    let line = line.expect("it is shown");
    assert!(
        line[2..].starts_with(':') && line.contains(" ✓ orders  psql"),
        "{line}"
    );
    assert!(line.ends_with(" ms") || line.ends_with(" s"), "{line}");
    for _ in 0..4 {
        assert_eq!(lab.log_in(&ready, "scram_only").await.code, Some(2));
    }
    let screen = terminal.shows("GRANT rds_iam TO").await;
    let command = screen
        .lines()
        .find(|line| line.contains("GRANT rds_iam TO"));
    assert_eq!(
        command.map(str::trim),
        Some("GRANT rds_iam TO \"scram_only\";"),
        "{screen}"
    );
    terminal.press("C-c").await;
    let screen = terminal.shows(END).await;
    let failed = screen
        .matches("✗ orders  psql as scram_only to app")
        .count();
    assert_eq!(
        failed, 2,
        "the first, and the number of the others:\n{screen}"
    );
    assert!(screen.contains("3 more in the last"), "{screen}");
    for line in screen.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    drop(terminal);
    lab.close().await;
}

#[tokio::test]
async fn a_pipe_has_dates_and_no_colours_and_no_wrapping() {
    let lab = Lab::open().await;
    let ran = lab.served(&[]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(!ran.stderr.contains('\u{1b}'), "{ran:?}");
    let lines: Vec<&str> = ran.stderr.lines().collect();
    for line in &lines {
        let is_event = line.as_bytes().first().is_some_and(u8::is_ascii_digit);
        assert!(is_event || line.starts_with("    "), "{line}");
        if is_event {
            assert!(
                line.as_bytes()[10] == b'T' && line.as_bytes()[25] == b' ',
                "{line}"
            );
        }
    }
    let refused = lines
        .iter()
        .find(|line| line.contains("scram_only to app: "));
    let refused = refused.expect("the refused login");
    assert!(refused.contains("is not set up for IAM login"), "{refused}");
    assert!(refused.ends_with(" [database.no-rds-iam]"), "{refused}");
    let remedy = lines.iter().find(|line| line.contains("GRANT rds_iam TO"));
    assert!(
        remedy.is_some_and(|line| line.starts_with("        GRANT ")),
        "{ran:?}"
    );
    let arrow = lines.iter().any(|line| line.starts_with("    → "));
    assert!(arrow, "{ran:?}");
    lab.close().await;
}

#[tokio::test]
async fn quiet_and_verbose_log_less_and_more() {
    let lab = Lab::open().await;
    let quiet = lab.served(&["-q"]).await.stderr;
    assert!(!quiet.contains("db_user to app"), "{quiet}");
    assert!(quiet.contains("scram_only to app"), "{quiet}");
    let silent = lab.served(&["-qq"]).await.stderr;
    assert_eq!(silent, "");
    let verbose = lab.served(&["-v"]).await.stderr;
    assert!(verbose.contains("ended by the client after"), "{verbose}");
    assert!(verbose.contains("login "), "{verbose}");
    for args in [
        &["-q", "-v"][..],
        &["-v", "--log", "info"],
        &["-q", "--log", "info"],
    ] {
        let args = [&["serve"], args].concat();
        let ran = run(command(&lab.sandbox, &args)).await;
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.stderr.contains("cannot be used with"), "{ran:?}");
    }
    let mut beaten = command(&lab.sandbox, &["check", "orders", "-q"]);
    beaten.env("PGIAM_LOG", "trace");
    let ran = run(beaten).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    lab.close().await;
}

#[tokio::test]
async fn formats_for_programs_have_the_same_fields() {
    let lab = Lab::open().await;
    let json = lab.served(&["--log-format", "json"]).await.stderr;
    let logfmt = lab.served(&["--log-format", "logfmt"]).await.stderr;
    let ready: Vec<serde_json::Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object"))
        .filter(|line: &serde_json::Value| line["message"] == "connection ready")
        .collect();
    assert_eq!(ready.len(), 1, "{json}");
    assert_eq!(ready[0]["span"]["user"], "db_user");
    let mut names: Vec<&String> = ready[0].as_object().expect("an object").keys().collect();
    names.sort();
    assert_eq!(
        names,
        [
            "level",
            "login_ms",
            "message",
            "span",
            "spans",
            "startup_ms",
            "target",
            "timestamp",
            "tls",
            "tls_ms",
            "token_ms",
            "total_ms",
            "tunnel_ms"
        ]
    );
    let mut of_span: Vec<&String> = ready[0]["span"].as_object().expect("it").keys().collect();
    of_span.sort();
    assert_eq!(of_span, ["database", "name", "peer", "target", "user"]);
    let line = logfmt
        .lines()
        .find(|line| line.contains("message=\"connection ready\""));
    let line = line.expect("a line");
    for name in names.into_iter().filter(|name| !name.starts_with("span")) {
        assert!(line.contains(&format!("{name}=")), "{name}: {line}");
    }
    for name in of_span {
        assert!(line.contains(&format!(" span.{name}=")), "{name}: {line}");
    }
    lab.close().await;
}
