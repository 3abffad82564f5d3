//! `pgiam run TARGET -- CMD`.

use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol_tests::aws::events::Event;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;
use tokio::time::timeout;

use super::{Lab, command};
use crate::support::{HOST, PATIENCE, Ran, run};

impl Lab {
    async fn run(&self, args: &[&str]) -> Ran {
        run(command(&self.sandbox, &[&["run"], args].concat())).await
    }

    /// A shell script as the command; started, and has said its first line.
    async fn started(&self, script: &str) -> (Child, String) {
        let mut command = command(&self.sandbox, &["run", "orders", "--", "sh", "-c", script]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("pgiam starts");
        let output = child.stdout.as_mut().expect("its output");
        let mut line = String::new();
        let mut output = BufReader::new(output);
        let read = timeout(PATIENCE, output.read_line(&mut line));
        read.await.expect("in time").expect("a line");
        (child, line)
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = child.id().expect("it runs").cast_signed();
    kill(Pid::from_raw(pid), signal).expect("a signal");
}

const WHO: &str = "select current_user || ' ' || current_database()";

#[tokio::test]
async fn a_command_finds_the_database_by_every_variable() {
    let lab = Lab::open().await;
    let psql = lab.psql();
    let plain = ["orders", "--", &psql, "-X", "-A", "-t", "-c", WHO];
    let ran = lab.run(&plain).await;
    assert_eq!(ran.rows(), "db_user app");
    assert_eq!(ran.stderr, "", "quiet in a pipe");
    // The only target of the file needs no name; a URL is as good as the variables.
    let script = format!(
        "unset PGHOST PGPORT PGUSER PGDATABASE; exec '{psql}' -X -A -t \"$DATABASE_URL\" -c \"{WHO}\""
    );
    for how in [&["--"][..], &["--socket", "--"]] {
        let ran = lab.run(&[how, &["sh", "-c", &script]].concat()).await;
        assert_eq!(ran.rows(), "db_user app", "{how:?}");
    }
    // Variables of the caller that lead elsewhere are not passed on.
    let mut command = command(
        &lab.sandbox,
        &["run", "--socket", "--", &psql, "-X", "-A", "-t", "-c", WHO],
    );
    command.envs([
        ("PGHOSTADDR", "192.0.2.1"),
        ("PGSSLMODE", "verify-full"),
        ("PGREQUIREAUTH", "scram-sha-256"),
    ]);
    assert_eq!(run(command).await.rows(), "db_user app");
    lab.close().await;
}

#[tokio::test]
async fn no_file_is_needed() {
    let lab = Lab::open().await;
    std::fs::remove_file(lab.sandbox.dir().join("pgiam.toml")).expect("the file");
    let psql = lab.psql();
    // RDS knows which database there is.
    let by_name = ["--db", "orders", "--user", "db_user"];
    let by_host = [
        "--host",
        HOST,
        "--bastion",
        "i-0123456789abcdef0",
        "--user",
        "db_user",
        "--database",
        "app",
    ];
    for how in [&by_name[..], &by_host] {
        let ran = lab
            .run(&[how, &["--", &psql, "-X", "-A", "-t", "-c", WHO]].concat())
            .await;
        assert_eq!(ran.rows(), "db_user app", "{how:?}");
    }
    // It may be the command's own business.
    let nameless = [
        &by_host[..6],
        &["--", &psql, "-X", "-A", "-t", "-d", "app", "-c", WHO],
    ]
    .concat();
    assert_eq!(lab.run(&nameless).await.rows(), "db_user app");
    lab.close().await;
}

#[tokio::test]
async fn exit_codes_are_those_of_the_command_or_have_a_meaning() {
    let lab = Lab::open().await;
    for (command, code) in [
        (&["sh", "-c", "exit 7"][..], 7),
        (&["sh", "-c", "kill -TERM $$"], 128 + 15),
        (&["no-such-command-anywhere"], 127),
        (&["/etc/passwd"], 126),
    ] {
        let ran = lab.run(&[&["orders", "--"], command].concat()).await;
        assert_eq!(ran.code, Some(code), "{ran:?}");
    }
    // Nothing is run where the way is not there, and the reason is that of a client.
    let marker = lab.sandbox.dir().join("ran");
    let touch = format!("touch '{}'", marker.display());
    lab.sandbox
        .agent("i-0123456789abcdef0")
        .update(|settings| settings.online = false);
    let ran = lab.run(&["orders", "--", "sh", "-c", &touch]).await;
    assert_eq!(ran.code, Some(125), "{ran:?}");
    assert!(
        ran.stderr.starts_with(
            "pgiam: target \"orders\": the bastion i-0123456789abcdef0 is not connected"
        ),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains("\nhint: ") && ran.stderr.contains("[ssm.target-not-connected]"),
        "{}",
        ran.stderr
    );
    assert!(!marker.exists());
    let ran = lab.run(&["ordres", "--", "true"]).await;
    assert_eq!(ran.code, Some(125));
    assert!(
        ran.stderr.contains("did you mean \"orders\"?"),
        "{}",
        ran.stderr
    );
    lab.close().await;
}

#[tokio::test]
async fn signals_reach_the_command_and_nothing_is_left() {
    let lab = Lab::open().await;
    let script = "trap 'echo caught; exit 9' TERM; echo \"$PGPORT\"; while :; do sleep 0.02; done";
    let (child, port) = lab.started(script).await;
    signal(&child, Signal::SIGTERM);
    let output = timeout(PATIENCE, child.wait_with_output())
        .await
        .expect("in time")
        .expect("its end");
    assert_eq!(output.status.code(), Some(9), "{output:?}");
    let port: u16 = port.trim().parse().expect("a port");
    std::net::TcpStream::connect(("127.0.0.1", port)).expect_err("nobody listens any more");
    let terminated = |event: &Event| matches!(event, Event::TerminateSession { .. });
    assert_eq!(lab.sandbox.events().count(terminated), 1);
    lab.close().await;
}

#[tokio::test]
async fn a_signal_before_the_command_ends_it_in_order() {
    let lab = Lab::open().await;
    let agent = lab.sandbox.agent("i-0123456789abcdef0");
    agent.update(|settings| settings.mute = true);
    let mut command = command(&lab.sandbox, &["run", "orders", "--", "echo", "never"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("pgiam starts");
    let started = |event: &Event| matches!(event, Event::StartSession { .. });
    crate::support::eventually("a session", || {
        (lab.sandbox.events().count(started) > 0).then_some(())
    })
    .await;
    signal(&child, Signal::SIGTERM);
    let output = timeout(PATIENCE, child.wait_with_output())
        .await
        .expect("in time")
        .expect("its end");
    assert_eq!(
        (output.status.code(), output.stdout.len()),
        (Some(128 + 15), 0),
        "{output:?}"
    );
    lab.close().await;
}

/// pgiam raises its own limit; a command that uses select(2) must not get it.
#[tokio::test]
async fn a_command_gets_the_limit_of_open_files_that_pgiam_was_started_with() {
    let lab = Lab::open().await;
    // pgiam has the lower limit until the command has started, which may be a moment later.
    let script = "ulimit -Sn; ulimit -Hn; own() { grep 'open files' /proc/$PPID/limits; }; \
        at=0; while own | grep -q ' 200 ' && [ $at -lt 100 ]; do at=$((at + 1)); sleep 0.1; done; \
        own";
    let inner = command(&lab.sandbox, &["run", "orders", "--", "sh", "-c", script]);
    let inner = inner.as_std();
    let mut limited = tokio::process::Command::new("/bin/sh");
    limited
        .args(["-c", "ulimit -Sn 200; exec \"$0\" \"$@\""])
        .arg(inner.get_program())
        .args(inner.get_args())
        .kill_on_drop(true);
    if let Some(dir) = inner.get_current_dir() {
        limited.current_dir(dir);
    }
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    let ran = run(limited).await;
    let lines: Vec<&str> = ran.rows().lines().collect();
    let [soft, hard, own] = lines[..] else {
        panic!("{ran:?}");
    };
    assert_eq!(soft, "200", "{ran:?}");
    let own: Vec<&str> = own.split_whitespace().collect();
    assert_eq!(
        own[3..5],
        [hard, hard],
        "pgiam's own is the hard one: {ran:?}"
    );
}
