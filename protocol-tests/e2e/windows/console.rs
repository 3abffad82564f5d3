//! The events of a console: Ctrl-C, Ctrl-Break, the shutdown, and Ctrl-C as it is typed.

use nix::sys::signal::Signal;

use super::folder;
use crate::daily::screen::{END, Terminal};
use crate::daily::{Lab, command};
use crate::shell::Shell;
use crate::support::{PATIENCE, Setup, World};

/// Numbers of the events (`wincon.h`).
const CTRL_BREAK: &str = "1";
const SHUTDOWN: &str = "6";

#[tokio::test]
#[ignore = "./dev test --windows runs it"]
async fn events_of_the_console_wait_for_open_connections() {
    assert!(folder().is_dir());
    for (event, name) in [
        (None, "Ctrl-C"),
        (Some(CTRL_BREAK), "Ctrl-Break"),
        (Some(SHUTDOWN), "shutdown"),
    ] {
        let mut world = World::with(Setup {
            args: ["--drain-timeout", "60"].map(str::to_owned).to_vec(),
            env: vec![("CONSOLE_EVENT", event.map(str::to_owned))],
            ..Setup::default()
        })
        .await;
        let mut psql = Shell::open(&world, "");
        assert_eq!(psql.ask("select 1;").await, "1");
        world.proxy.signal(Signal::SIGINT).expect("pgiam runs");
        let waits = world
            .proxy
            .wait_log("waiting for open connections", PATIENCE);
        assert!(waits.await.is_some(), "{name}: {}", world.proxy.log_text());
        let quoted = format!("\"{name}\"");
        assert!(world.proxy.log_text().contains(&quoted), "{name}");
        let late = world.psql(&["-c", "select 1"]).await;
        assert!(late.stderr.contains("pgiam is shutting down"), "{late:?}");
        assert_eq!(psql.ask("select 2;").await, "2");
        assert_eq!(psql.end().await.code, Some(0));
        let status = world.proxy.wait_end(PATIENCE).await.expect("pgiam ends");
        assert_eq!(status.code(), Some(0), "{name}");
        world.stop().await;
    }
}

#[tokio::test]
#[ignore = "./dev test --windows runs it"]
async fn ctrl_c_at_a_terminal_ends_a_server() {
    assert!(folder().is_dir());
    let lab = Lab::open().await;
    let serve = command(&lab.sandbox, &["serve"]);
    let terminal = Terminal::run(&serve, "windows-serve").await;
    let terminal = terminal.expect("tmux, which ./dev test installs");
    terminal.shows("ready  orders").await;
    terminal.press("C-c").await;
    let screen = terminal.shows(END).await;
    assert!(screen.contains("[exit 0]"), "{screen}");
    lab.close().await;
}
