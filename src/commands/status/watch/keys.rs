//! Keys of the screen.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::model::{Model, Pane, Request, Window};
use super::rows::TargetRef;
use crate::admin::ProcessKind;
use crate::report::reload_command;

/// Effect of a key outside of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    None,
    Quit,
    /// Draws everything again.
    Redraw,
    /// Stops this process, as Ctrl-Z does.
    Suspend,
    /// Runs pgiam with these arguments in place of the screen.
    Run(Vec<String>),
    Send(Request),
}

/// Configuration file that stands for none.
const NO_FILE: &str = "/dev/null";

/// Keys for the last line, the most useful first.
pub(super) const SHORT_HELP: [(&str, &str); 8] = [
    ("e", "explain"),
    ("c", "check"),
    ("l", "login"),
    ("s", "stop"),
    ("/", "find"),
    ("?", "help"),
    ("q", "quit"),
    ("Tab", "next table"),
];

/// Lines with two spaces keep their form in a window.
const HELP: &str = "\
\x20 Tab, Shift-Tab  next, previous table
  ↑ ↓ j k         next, previous row
  PgUp, PgDn      previous, next page
  Home, End       first, last row
  Enter           details of the row
  /               filter all tables by words
  Esc             remove the filter
  e               explain the error
  c               check the target (pgiam check)
  l               log in to AWS (pgiam login)
  s               stop the target, or serve it again
  Ctrl-L          draw the screen again
  q               quit

RTT is the round trip to the agent of the bastion. LOGIN is the duration of the logins of the last 15 minutes: median and 99th percentile. CONNS are open connections, of connection_limit. SESS are Session Manager sessions, of the maximum.

↑ and UP are bytes per second to the database, ↓ and DOWN from it. Each bar is one second. Connections are sorted by rate.";

/// Handles a key.
pub(super) fn press(model: &mut Model, key: KeyEvent) -> Action {
    if key.kind == KeyEventKind::Release {
        return Action::None;
    }
    model.message = None;
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        match key.code {
            KeyCode::Char('c') => return Action::Quit,
            KeyCode::Char('l') => return Action::Redraw,
            KeyCode::Char('z') => return Action::Suspend,
            _ => {}
        }
    }
    if model.editing {
        edit(model, key);
        return Action::None;
    }
    if let Some(window) = model.window.take() {
        return press_in_window(model, window, key.code);
    }
    match key.code {
        KeyCode::Char('q') => return Action::Quit,
        KeyCode::Char('?' | 'h') | KeyCode::F(1) => {
            model.open("Keys", HELP.lines().map(str::to_owned).collect());
        }
        KeyCode::Char('/') => model.editing = true,
        KeyCode::Esc => model.filter.clear(),
        KeyCode::Char('c') => return check(model),
        KeyCode::Char('l') => return log_in(model),
        KeyCode::Char('e') => explain(model),
        KeyCode::Char('s') => stop(model),
        KeyCode::Enter => {
            if let Some(row) = model.selected() {
                model.open("Details", row.details);
            }
        }
        code => move_in_tables(model, code),
    }
    Action::None
}

fn move_in_tables(model: &mut Model, code: KeyCode) {
    let page = model.page.max(1);
    match code {
        KeyCode::Tab | KeyCode::Right => model.pane = model.pane.next(1),
        KeyCode::BackTab | KeyCode::Left => model.pane = model.pane.next(Pane::ALL.len() - 1),
        KeyCode::Down | KeyCode::Char('j') => model.select(|at| at + 1),
        KeyCode::Up | KeyCode::Char('k') => model.select(|at| at.saturating_sub(1)),
        KeyCode::PageDown => model.select(|at| at + page),
        KeyCode::PageUp => model.select(|at| at.saturating_sub(page)),
        KeyCode::Home | KeyCode::Char('g') => model.select(|_| 0),
        KeyCode::End | KeyCode::Char('G') => model.select(|_| usize::MAX),
        _ => {}
    }
}

/// Edits the filter.
fn edit(model: &mut Model, key: KeyEvent) {
    match key.code {
        KeyCode::Enter | KeyCode::Tab => model.editing = false,
        KeyCode::Esc => {
            model.editing = false;
            model.filter.clear();
        }
        KeyCode::Backspace if model.filter.is_empty() => model.editing = false,
        KeyCode::Backspace => _ = model.filter.pop(),
        KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => model.filter.clear(),
        KeyCode::Char(c) if !key.modifiers.contains(KeyModifiers::CONTROL) => model.filter.push(c),
        _ => {}
    }
}

/// Handles a key while a window is open.
fn press_in_window(model: &mut Model, mut window: Window, code: KeyCode) -> Action {
    let page = model.page.max(1);
    let to = match (code, &window.asks) {
        (KeyCode::Char('y' | 'Y'), Some(request)) => return Action::Send(request.clone()),
        (KeyCode::Down | KeyCode::Char('j'), _) => window.first.saturating_add(1),
        (KeyCode::Up | KeyCode::Char('k'), _) => window.first.saturating_sub(1),
        (KeyCode::PageDown | KeyCode::Char(' '), None) => window.first.saturating_add(page),
        (KeyCode::PageUp, _) => window.first.saturating_sub(page),
        (KeyCode::Home | KeyCode::Char('g'), _) => 0,
        // The drawing knows the number of wrapped lines, and corrects it.
        (KeyCode::End | KeyCode::Char('G'), _) => usize::MAX,
        // Every other key closes it.
        _ => return Action::None,
    };
    window.first = to;
    model.window = Some(window);
    Action::None
}

fn say(model: &mut Model, text: &str) {
    model.message = Some(text.to_owned());
}

/// Checks the target of the selected row.
fn check(model: &mut Model) -> Action {
    let Some(target) = model.target() else {
        say(model, "select a target to check");
        return Action::None;
    };
    run_for(model, &target, "check")
}

/// Logs in with the profile of the target of the selected row.
fn log_in(model: &mut Model) -> Action {
    match model.target() {
        Some(target) => run_for(model, &target, "login"),
        None => Action::Run(vec!["login".to_owned()]),
    }
}

/// Returns the command for a target of the configuration file that its process has loaded.
fn run_for(model: &mut Model, target: &TargetRef, command: &str) -> Action {
    let process = model.document(target).map(|(process, _)| process);
    let config = process.and_then(|process| process.config.as_ref());
    let Some(config) = config.map(|path| path.to_string_lossy().into_owned()) else {
        if command == "login" {
            return Action::Run(vec![command.to_owned()]);
        }
        if process.is_some_and(|process| process.kind == ProcessKind::Serve.as_str()) {
            // Takes the settings of the running target.
            let words = [command, "--config", NO_FILE, "--", &target.name];
            return Action::Run(words.map(str::to_owned).into());
        }
        let name = &target.name;
        let text = format!("{name} is in no configuration file; pgiam {command} needs its flags");
        say(model, &text);
        return Action::None;
    };
    let words = [command, "--config", &config, "--", &target.name];
    Action::Run(words.map(str::to_owned).into())
}

/// Opens the explanation of the error of the selected row.
fn explain(model: &mut Model) {
    let Some(id) = model.selected().and_then(|row| row.error) else {
        say(model, "select an error to explain (Tab changes the table)");
        return;
    };
    match super::explanation(&id) {
        Some(lines) => model.open(id, lines),
        None => say(
            model,
            &format!("{id} is not known to this version of pgiam"),
        ),
    }
}

/// Asks before the target of the selected row is stopped, or served again.
fn stop(model: &mut Model) {
    let Some(target) = model.target() else {
        return say(model, "select a target to stop");
    };
    let Some((process, document)) = model.document(&target) else {
        return say(model, "the target is gone");
    };
    let (pid, kind, name) = (process.pid, &process.kind, &document.name);
    if kind != ProcessKind::Serve.as_str() {
        let text = format!("pgiam {kind} has one target; stop it with: pgiam stop --pid {pid}");
        return say(model, &text);
    }
    let open = document.connections.len();
    let is_stopped = document.state == "stopped";
    let (title, text, request) = match (is_stopped, open) {
        (true, 0) => (
            format!("Serve {name} again?"),
            format!("pgiam {pid} reloads its configuration and serves all targets in it."),
            Request::Reload(pid),
        ),
        (true, _) => (
            format!("Close the connections of {name} now?"),
            format!(
                "{} to the stopped target still open. To serve it again, press s when they are closed, or run: {}",
                match open {
                    1 => "1 connection is".to_owned(),
                    _ => format!("{open} connections are"),
                },
                reload_command(pid)
            ),
            Request::CloseConnections(target),
        ),
        (false, _) => (
            format!("Stop {name}?"),
            format!(
                "{} The other targets are not affected. s serves {name} again.",
                fate(open)
            ),
            Request::StopTarget(target),
        ),
    };
    model.window = Some(Window {
        title,
        lines: vec![text, String::new(), "y yes, n no".to_owned()],
        first: 0,
        asks: Some(request),
    });
}

/// Describes the end of a target with `open` connections.
fn fate(open: usize) -> String {
    match open {
        0 => "pgiam refuses new clients and ends the sessions of the target.".to_owned(),
        _ => format!(
            "pgiam refuses new clients. {} open. After --drain-timeout pgiam closes what is left, and ends the sessions of the target.",
            match open {
                1 => "1 connection is".to_owned(),
                _ => format!("{open} connections are"),
            }
        ),
    }
}
