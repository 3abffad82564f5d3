//! Somebody at a terminal is asked where several bastions would do.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::Stdio;

use nix::pty::openpty;
use protocol_tests::program;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::{OTHER, command, deny};
use crate::support::{BASTION, HOST, PATIENCE, Setup, behind, run};

/// What a program writes to its terminal, as it comes.
struct Screen {
    keyboard: File,
    parts: mpsc::UnboundedReceiver<String>,
    seen: String,
}

impl Screen {
    fn of(terminal: File) -> Self {
        let keyboard = terminal.try_clone().expect("a second handle");
        let (sender, parts) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            let mut terminal = terminal;
            let mut buffer = [0; 4096];
            // Linux ends with an error once nobody has the other side open.
            while let Ok(read @ 1..) = terminal.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
                if sender.send(text).is_err() {
                    return;
                }
            }
        });
        Self {
            keyboard,
            parts,
            seen: String::new(),
        }
    }

    /// Reads until it shows `text`.
    async fn wait_for(&mut self, text: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.seen.contains(text) {
            match timeout_at(until, self.parts.recv()).await {
                Ok(Some(part)) => self.seen.push_str(&part),
                Ok(None) | Err(_) => panic!("no \"{text}\" on the screen: {}", self.seen),
            }
        }
    }
}

#[tokio::test]
async fn the_bastion_that_somebody_chooses_is_taken() {
    let config =
        "[targets.orders]\ndb = \"orders\"\nuser = \"db_user\"\ndatabase = \"app\"\nport = 0\n";
    let (sandbox, database) = behind(&Setup::default()).await;
    sandbox.agent(OTHER).set_pacing(false);
    // Without EC2 they are alike.
    deny(&sandbox, &["ec2:DescribeInstances"]);
    let path = sandbox.dir().join("pgiam.toml");
    std::fs::write(path, config).expect("pgiam.toml");
    let pair = openpty(None, None).expect("a terminal");
    let end = |end: &std::os::fd::OwnedFd| Stdio::from(end.try_clone().expect("a handle"));
    let mut child = {
        let mut command = command(
            &sandbox,
            &["serve", "--state-dir", "state", "--log-format", "json"],
        );
        command
            .arg("--ca-file")
            .arg(sandbox.pki().ca_pem_path())
            .env("NO_COLOR", "1")
            .stdin(end(&pair.slave))
            .stderr(end(&pair.slave))
            .stdout(Stdio::piped());
        command.spawn().expect("pgiam starts")
    };
    drop(pair.slave);
    let mut screen = Screen::of(File::from(pair.master));
    screen.wait_for("1 to 2 [1]: ").await;
    for id in [format!("1  {BASTION}"), format!("2  {OTHER}")] {
        assert!(screen.seen.contains(&id), "{id}: {}", screen.seen);
    }
    screen.keyboard.write_all(b"2\n").expect("an answer");
    screen
        .wait_for(&format!(
            "write this under [targets.orders]: bastion = \"{OTHER}\""
        ))
        .await;
    let line =
        format!("orders: cluster orders in eu-central-1, IAM login on; bastion {OTHER} (chosen)");
    assert!(screen.seen.contains(&line), "{}", screen.seen);
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let ready = tokio::time::timeout(PATIENCE, lines.next_line())
        .await
        .expect("pgiam is ready in time");
    let ready = ready.expect("its output").expect("a line");
    assert!(ready.contains(HOST), "{ready}");
    let port = ready
        .split(" -p ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let port = port.and_then(|port| port.parse().ok()).expect(&ready);
    let mut psql = program::psql(&database.postgres().psql_program(), port);
    psql.args(["-A", "-t", "-q", "-c", "select 1"]);
    assert_eq!(run(psql).await.rows(), "1");
    screen.wait_for(&format!("\"bastion\":\"{OTHER}\"")).await;
    child.kill().await.expect("pgiam ends");
    database.stop().await.expect("the server stops");
    sandbox.shutdown().await;
}
