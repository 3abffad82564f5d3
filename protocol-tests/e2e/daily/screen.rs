//! What people see, in a real terminal of 80 columns.

use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use protocol_tests::aws::events::Event;
use protocol_tests::aws::inventory::{Ec2Instance, VPC_ID};
use tokio::process::Command;

use super::{Lab, command};
use crate::shell::Shell;
use crate::support::{PATIENCE, World, run};

/// Columns and lines of the terminal.
const SIZE: (&str, &str) = ("80", "60");
/// Stands behind what a command has shown.
pub(crate) const END: &str = "[exit ";

/// A terminal of its own, without anybody's settings.
pub(crate) struct Terminal {
    socket: String,
}

impl Terminal {
    /// Runs `command` in it, in the environment that the command has. `None`: there is no tmux here, and
    /// `./dev test` has said so.
    pub(crate) async fn run(command: &Command, name: &str) -> Option<Self> {
        if Command::new("tmux")
            .arg("-V")
            .stdout(Stdio::null())
            .status()
            .await
            .is_err()
        {
            assert!(
                std::env::var_os("CI").is_none(),
                "tmux is missing, and this is CI"
            );
            return None;
        }
        // A server that is ending still has its socket: the next terminal gets another one.
        static TERMINALS: AtomicU32 = AtomicU32::new(0);
        let number = TERMINALS.fetch_add(1, Ordering::Relaxed);
        let terminal = Self {
            socket: format!("pgiam-{}-{name}-{number}", std::process::id()),
        };
        let words = command.as_std();
        let mut line = quoted(&words.get_program().to_string_lossy());
        for word in words.get_args() {
            line.push(' ');
            line.push_str(&quoted(&word.to_string_lossy()));
        }
        let mut tmux = terminal.tmux();
        tmux.args([
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            SIZE.0,
            "-y",
            SIZE.1,
        ]);
        for (name, value) in words.get_envs() {
            if let Some(value) = value {
                // tmux gives a window the PATH of the process that asks for it.
                if name == "PATH" {
                    tmux.env(name, value);
                }
                tmux.arg("-e").arg(format!(
                    "{}={}",
                    name.to_string_lossy(),
                    value.to_string_lossy()
                ));
            }
        }
        tmux.arg(format!("{line}; printf '{END}%s]' \"$?\"; exec sleep 600"));
        if let Some(dir) = words.get_current_dir() {
            tmux.current_dir(dir);
        }
        let ran = run(tmux).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        Some(terminal)
    }

    fn tmux(&self) -> Command {
        let mut command = Command::new("tmux");
        command
            .args(["-L", &self.socket])
            .env("TERM", "xterm-256color")
            .env("LC_ALL", "C.UTF-8");
        protocol_tests::harness::program::clean_env(
            &mut command,
            &["AWS_", "PGIAM_", "PG", "TMUX"],
        );
        command
    }

    /// What stands on the screen, once `wanted` does.
    pub(crate) async fn shows(&self, wanted: &str) -> String {
        let seen = self.shows_within(wanted, PATIENCE).await;
        seen.unwrap_or_else(|last| panic!("{wanted} is not on the screen:\n{last}"))
    }

    /// What stands on the screen, once `wanted` does, or what stands there at the end of the time.
    pub(crate) async fn shows_within(
        &self,
        wanted: &str,
        limit: Duration,
    ) -> Result<String, String> {
        let mut last = String::new();
        let look = async {
            loop {
                let mut capture = self.tmux();
                capture.args(["capture-pane", "-p"]);
                last = run(capture).await.stdout;
                if last.contains(wanted) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        };
        let seen = tokio::time::timeout(limit, look).await;
        if seen.is_ok() { Ok(last) } else { Err(last) }
    }

    /// Waits until the screen does not have `unwanted`.
    pub(crate) async fn shows_no(&self, unwanted: &str) {
        let look = async {
            loop {
                let mut capture = self.tmux();
                capture.args(["capture-pane", "-p"]);
                if !run(capture).await.stdout.contains(unwanted) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        };
        let gone = tokio::time::timeout(PATIENCE, look).await;
        assert!(gone.is_ok(), "{unwanted} is still on the screen");
    }

    pub(crate) async fn press(&self, keys: &str) {
        let mut press = self.tmux();
        press.args(["send-keys", keys]);
        assert_eq!(run(press).await.code, Some(0));
    }
}

impl Terminal {
    /// Changes the size.
    pub(crate) async fn resize(&self, columns: usize, rows: usize) {
        let mut resize = self.tmux();
        let size = [columns, rows].map(|size| size.to_string());
        resize.args(["resize-window", "-x", &size[0], "-y", &size[1]]);
        assert_eq!(run(resize).await.code, Some(0));
    }

    /// What tmux knows about it, in tmux's own format.
    pub(crate) async fn tells(&self, format: &str) -> String {
        let mut tell = self.tmux();
        tell.args(["display-message", "-p", format]);
        run(tell).await.stdout.trim().to_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut kill = std::process::Command::new("tmux");
        // It may have ended with its command.
        _ = kill
            .args(["-L", &self.socket, "kill-server"])
            .stderr(Stdio::null())
            .status();
    }
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Compares a screen with what it was, without what is different each time. No line may be as wide as
/// the terminal: then it was cut or wrapped.
fn compare(name: &str, screen: &str) {
    let wide = screen.lines().find(|line| line.chars().count() > 80);
    assert_eq!(wide, None, "{screen}");
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_snapshot_path("../snapshots");
    // Times stand at the right margin, in as many columns as they need.
    settings.add_filter(r" +\d+(\.\d+)? (ms|s|min)\b", " [TIME]");
    // Ages below 10 s: how long the test took.
    settings.add_filter(r"\b[0-9]s\b", "0s");
    settings.add_filter(r"pgiam-sandbox-[[:alnum:]]+", "[DIR]");
    settings.add_filter(r"pid \d+", "pid [PID]");
    settings.add_filter(r"PostgreSQL \d+\.\d+", "PostgreSQL [VERSION]");
    settings.add_filter(r"\b[\d.,]+ (MB/s|kB/s|B/s|MB|kB|B)\b", "[AMOUNT]");
    settings.add_filter(r"\d+ days left", "[DAYS] days left");
    settings.add_filter(r"dev-[0-9a-f]{17}", "dev-[SESSION]");
    settings.add_filter(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "[WHEN]");
    // The request's id, with what it does to the lines around it.
    settings.add_filter(r"\(request\s+id\s+[0-9a-f-]+\)", "([REQUEST])");
    settings.bind(|| insta::assert_snapshot!(name, screen.trim_end()));
}

impl Lab {
    /// The screen after a command has ended there.
    async fn screen(&self, name: &str, args: &[&str]) -> Option<String> {
        let terminal = Terminal::run(&command(&self.sandbox, args), name).await?;
        Some(terminal.shows(END).await)
    }
}

#[tokio::test]
async fn commands_that_look_and_print() {
    let lab = Lab::open().await;
    for (name, args) in [
        ("screen-help", &["--help"][..]),
        ("screen-list", &["list"]),
        ("screen-init", &["init", "-"]),
        ("screen-no-target", &["serve", "ordres"]),
        ("screen-no-status", &["status"]),
        ("screen-token", &["token", "orders"]),
        ("screen-url", &["url", "orders", "--port", "5433"]),
    ] {
        let Some(screen) = lab.screen(name, args).await else {
            return;
        };
        compare(name, &screen);
    }
    lab.close().await;
}

#[tokio::test]
async fn a_check_that_ends_well_and_one_that_does_not() {
    let lab = Lab::open().await;
    let Some(screen) = lab
        .screen("check", &["check", "orders", "--no-speed"])
        .await
    else {
        return;
    };
    compare("screen-check", &screen);
    let agent = lab.sandbox.agent("i-0123456789abcdef0");
    agent.update(|settings| settings.online = false);
    let Some(screen) = lab.screen("offline", &["check", "orders"]).await else {
        return;
    };
    compare("screen-check-offline", &screen);
    lab.close().await;
}

#[tokio::test]
async fn somebody_at_a_terminal_is_asked_which_bastion() {
    let lab = Lab::open().await;
    // A file would say it.
    std::fs::remove_file(lab.sandbox.dir().join("pgiam.toml")).expect("the file");
    let second = Ec2Instance::new("i-0fedcba9876543210", VPC_ID).tag("Name", "bastion-2");
    lab.sandbox.inventory().add_machine(second);
    lab.sandbox.agent("i-0fedcba9876543210").set_pacing(false);
    let psql = lab.psql();
    let args = [
        "run",
        "--db",
        "orders",
        "--user",
        "db_user",
        "--database",
        "app",
        "--",
        &psql,
        "-X",
        "-A",
        "-t",
        "-c",
        "select current_user",
    ];
    let Some(terminal) = Terminal::run(&command(&lab.sandbox, &args), "ask").await else {
        return;
    };
    terminal.shows("1 to 2 [1]:").await;
    terminal.press("2").await;
    terminal.press("Enter").await;
    let screen = terminal.shows(END).await;
    assert!(
        screen.contains("db_user") && screen.contains("[exit 0]"),
        "{screen}"
    );
    compare("screen-ask", &screen);
    let chosen = |event: &Event| matches!(event, Event::StartSession { target, .. } if target == "i-0fedcba9876543210");
    assert_eq!(lab.sandbox.events().count(chosen), 1);
    lab.close().await;
}

#[tokio::test]
async fn the_status_of_a_running_program() {
    let world = World::start().await;
    let mut psql = Shell::open(&world, "application_name=reports");
    assert_eq!(psql.ask("select 1;").await, "1");
    let mut status = command(&world.sandbox, &["status"]);
    status.env("COLUMNS", "80");
    let Some(terminal) = Terminal::run(&status, "status").await else {
        return;
    };
    let screen = terminal.shows(END).await;
    let port = world.proxy.port().to_string();
    compare("screen-status", &screen.replace(&port, "[PRT]"));
    assert_eq!(psql.end().await.code, Some(0));
    world.stop().await;
}

#[tokio::test]
async fn it_ends_with_the_terminal_that_it_was_started_at() {
    let lab = Lab::open().await;
    let Some(terminal) = Terminal::run(&command(&lab.sandbox, &["serve"]), "gone").await else {
        return;
    };
    terminal.shows("ready  orders").await;
    let serving = run(command(&lab.sandbox, &["status"])).await;
    assert_eq!(serving.code, Some(0), "{serving:?}");
    drop(terminal);
    let look = async {
        while run(command(&lab.sandbox, &["status"])).await.code != Some(3) {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    };
    let ended = tokio::time::timeout(PATIENCE, look).await;
    assert!(ended.is_ok(), "it still runs");
    lab.close().await;
}
