//! `pgiam status --watch` in a real terminal.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;

use super::command;
use super::screen::{END, Terminal};
use crate::shell::Shell;
use crate::support::{World, run};

/// Runs pgiam, and then shows the settings of the terminal.
fn watch(world: &World) -> Command {
    let pgiam = command(&world.sandbox, &["status", "--watch"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "\"$0\" \"$@\"; code=$?; stty -a; exit $code"]);
    shell.arg(pgiam.as_std().get_program());
    shell.args(pgiam.as_std().get_args());
    for (name, value) in pgiam.as_std().get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    shell.current_dir(world.sandbox.dir());
    shell
}

/// Insists that the terminal is as it was before, and shows the last picture.
async fn restored(terminal: &Terminal, code: u8) -> String {
    let screen = terminal.shows(&format!("{END}{code}]")).await;
    let modes: Vec<&str> = screen.split_whitespace().collect();
    for mode in ["icanon", "echo", "isig"] {
        assert!(modes.contains(&mode), "{mode} in {screen}");
    }
    assert_eq!(
        terminal.tells("#{alternate_on} #{cursor_flag}").await,
        "0 1"
    );
    screen
}

#[tokio::test]
async fn the_last_picture_stays_and_the_terminal_is_as_it_was() {
    let world = World::start().await;
    let mut psql = Shell::open(&world, "application_name=reporting");
    assert_eq!(psql.ask("select 1;").await, "1");
    for (name, keys) in [("q", "q"), ("ctrl-c", "C-c")] {
        let Some(terminal) = Terminal::run(&watch(&world), name).await else {
            return;
        };
        let screen = terminal.shows("reporting").await;
        assert!(
            screen.contains("›orders") && screen.contains("q quit"),
            "{screen}"
        );
        assert_eq!(
            terminal.tells("#{alternate_on} #{cursor_flag}").await,
            "1 0"
        );
        terminal.press(keys).await;
        let screen = restored(&terminal, 0).await;
        assert!(
            screen.contains("reporting") && !screen.contains("q quit"),
            "{screen}"
        );
    }
    // The same for a signal.
    let Some(terminal) = Terminal::run(&watch(&world), "term").await else {
        return;
    };
    terminal.shows("reporting").await;
    let shell = terminal.tells("#{pane_pid}").await;
    // The shell of tmux, and the one that runs pgiam.
    let pid = child(&child(&shell).await).await;
    let pid = Pid::from_raw(pid.parse().expect("a process id"));
    kill(pid, Signal::SIGTERM).expect("the signal is sent");
    restored(&terminal, 0).await;
    world.stop().await;
}

async fn child(parent: &str) -> String {
    let mut find = Command::new("pgrep");
    find.args(["-P", parent]);
    run(find).await.stdout.trim().to_owned()
}

#[tokio::test]
async fn keys_and_sizes() {
    let world = World::start().await;
    let refused = world
        .psql(&["-U", "nobody_of_that_name", "-c", "select 1"])
        .await;
    assert_eq!(refused.code, Some(2));
    let mut psql = Shell::open(&world, "application_name=reporting");
    assert_eq!(psql.ask("select 1;").await, "1");
    let Some(terminal) = Terminal::run(&watch(&world), "keys").await else {
        return;
    };
    terminal.shows("reporting").await;
    for (columns, rows, shown) in [
        (60, 15, "LOAD"),
        (40, 10, "This terminal has 40 columns"),
        (200, 60, "ENDPOINT"),
        (80, 24, "LOAD"),
        (110, 30, "TRAFFIC"),
    ] {
        terminal.resize(columns, rows).await;
        let screen = terminal.shows(shown).await;
        let widest = screen.lines().map(|line| line.chars().count()).max();
        assert!(widest.is_some_and(|widest| widest <= columns), "{screen}");
    }
    // The error, its explanation, and back.
    for key in ["Tab", "Tab", "e"] {
        terminal.press(key).await;
    }
    terminal.shows("(Database login)").await;
    terminal.press("Escape").await;
    // Escape and the next key would be one key, if they were sent together.
    terminal.shows_no("(Database login)").await;
    terminal.press("/").await;
    terminal.press("nothing").await;
    terminal.shows("hidden by the filter").await;
    terminal.press("Escape").await;
    terminal.shows("reporting").await;
    // A check in place of the screen.
    terminal.press("c").await;
    let screen = terminal
        .shows("Press any key to return to the screen.")
        .await;
    assert!(
        screen.contains("$ pgiam check --config") && screen.contains("orders"),
        "{screen}"
    );
    terminal.press("Space").await;
    terminal.shows("q quit").await;
    // The target is stopped after a question, and its connection ends.
    terminal.press("s").await;
    terminal.shows("Stop orders?").await;
    terminal.press("n").await;
    terminal.shows("q quit").await;
    terminal.press("s").await;
    terminal.shows("Stop orders?").await;
    terminal.press("y").await;
    terminal.shows("stopped").await;
    let ended = psql.end().await;
    assert!(ended.code.is_some(), "{ended:?}");
    terminal.shows("no connections").await;
    terminal.press("s").await;
    terminal.shows("Serve orders again?").await;
    terminal.press("y").await;
    terminal.shows("idle").await;
    terminal.press("q").await;
    restored(&terminal, 0).await;
    world.stop().await;
}

#[tokio::test]
async fn a_suspended_screen_gives_the_terminal_back() {
    let world = World::start().await;
    let mut shell = Command::new("bash");
    shell.args(["--norc", "--noprofile", "-i"]);
    for (name, value) in command(&world.sandbox, &[]).as_std().get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    shell.env("PGIAM", crate::support::pgiam());
    shell.current_dir(world.sandbox.dir());
    let Some(terminal) = Terminal::run(&shell, "suspend").await else {
        return;
    };
    terminal.shows("bash").await;
    terminal.press("\"$PGIAM\" status --watch").await;
    terminal.press("Enter").await;
    terminal.shows("q quit").await;
    terminal.press("C-z").await;
    terminal.shows("Stopped").await;
    assert_eq!(
        terminal.tells("#{alternate_on} #{cursor_flag}").await,
        "0 1"
    );
    terminal.press("stty -a").await;
    terminal.press("Enter").await;
    terminal.shows("isig icanon").await;
    terminal.press("clear; fg").await;
    terminal.press("Enter").await;
    terminal.shows("q quit").await;
    // The same by a signal from elsewhere.
    let shell = terminal.tells("#{pane_pid}").await;
    let pid = child(&child(&shell).await).await;
    let pid = Pid::from_raw(pid.parse().expect("a process id"));
    kill(pid, Signal::SIGTSTP).expect("the signal is sent");
    terminal.shows("Stopped").await;
    assert_eq!(
        terminal.tells("#{alternate_on} #{cursor_flag}").await,
        "0 1"
    );
    terminal.press("clear; fg").await;
    terminal.press("Enter").await;
    terminal.shows("q quit").await;
    // No program can handle this one: the shell takes the terminal as it is.
    kill(pid, Signal::SIGSTOP).expect("the signal is sent");
    terminal.shows("Stopped").await;
    terminal.press("fg").await;
    terminal.press("Enter").await;
    terminal.shows_no("Stopped").await;
    terminal.shows("q quit").await;
    // Without raw mode the key would wait for Enter.
    terminal.press("?").await;
    terminal.shows("Shift-Tab").await;
    terminal.press("Escape").await;
    terminal.shows_no("Shift-Tab").await;
    terminal.press("q").await;
    terminal.press("echo $((7000+7))").await;
    terminal.press("Enter").await;
    terminal.shows("7007").await;
    terminal.press("exit").await;
    terminal.press("Enter").await;
    terminal.shows(END).await;
    world.stop().await;
}

#[tokio::test]
async fn a_process_that_ends_leaves_the_screen_waiting() {
    let mut world = World::start().await;
    let Some(terminal) = Terminal::run(&watch(&world), "ends").await else {
        return;
    };
    terminal.shows("›orders").await;
    world.proxy.signal(Signal::SIGTERM).expect("pgiam runs");
    terminal.shows("this screen waits for it to start").await;
    terminal.press("q").await;
    restored(&terminal, 3).await;
    let ended = world.proxy.wait_end(crate::support::PATIENCE).await;
    ended.expect("pgiam ends");
    world.stop().await;
}
