//! `pgiam service status` and `logs`.

use std::fmt::Write;
use std::path::Path;

use super::manager::{Manager, UnitState};
use super::tool;
use crate::cli::terminal::{self, BAD, GOOD, WARNING, styled};
use crate::cli::{ServiceLogsArgs, exit};
use crate::commands::status::short;
use crate::platform::service_manager::launchd::{self, AgentState};
use crate::platform::service_manager::systemd::{SERVICE, SOCKET};
use crate::platform::service_manager::{FileOrigin, origin, words};

/// Number of log lines in which the last error of a service is looked for.
const RECENT: u64 = 50;
const NOT_INSTALLED: &str =
    "The service is not installed.\nhint: install it:\n  pgiam service install\n";

/// Prints the state of the service; returns 3 unless it runs, or starts on demand.
///
/// # Errors
/// The manager does not answer.
pub(super) async fn status(manager: &Manager) -> anyhow::Result<u8> {
    match manager {
        Manager::Systemd { .. } => {
            manager.must_run().await?;
            let (service, socket) = (UnitState::of(SERVICE).await?, UnitState::of(SOCKET).await?);
            let (text, code) = of_units(&service, &socket);
            terminal::write(text)?;
            if let Some(reason) = failure(manager, &service).await {
                terminal::write(format!("last error\n{reason}\n"))?;
            }
            Ok(code)
        }
        Manager::Launchd { home, uid } => {
            let agent = agent(*uid).await;
            let (text, code) = of_agent(agent.as_ref(), &launchd::agent(home));
            terminal::write(text)?;
            if agent.is_some_and(|agent| !agent.is_running())
                && let Some(reason) = last_error(manager).await
            {
                terminal::write(format!("last error\n{reason}\n"))?;
            }
            Ok(code)
        }
        Manager::Tasks { .. } => {
            let output = tool::run(&words("schtasks /Query /TN pgiam /V /FO LIST")).await?;
            if !output.is_success {
                terminal::write(NOT_INSTALLED)?;
                return Ok(exit::NOT_RUNNING);
            }
            terminal::write(output.stdout)?;
            Ok(0)
        }
    }
}

/// Asks launchd for the state of the agent; `None` if launchd does not have it.
pub(super) async fn agent(uid: u32) -> Option<AgentState> {
    let print = words(&format!("launchctl print {}", launchd::target(uid)));
    let output = tool::run(&print).await.ok()?;
    output.is_success.then(|| AgentState::parse(&output.stdout))
}

/// Describes an agent with this file, and returns the exit code.
fn of_agent(agent: Option<&AgentState>, file: &Path) -> (String, u8) {
    let Some(agent) = agent else {
        return (NOT_INSTALLED.to_owned(), exit::NOT_RUNNING);
    };
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |what: &str, value: &str| _ = writeln!(text, "{what:<9} {value}");
    let state = agent.state.as_deref().unwrap_or("unknown");
    let state = match (agent.is_running(), agent.pid) {
        (true, Some(pid)) => format!("{}, process {pid}", styled(GOOD, state)),
        (true, None) => styled(GOOD, state),
        (false, _) => styled(WARNING, state),
    };
    line("service", &state);
    line(
        "agent",
        &format!("{}{}", short(file), written_by(&file.to_string_lossy())),
    );
    if let Some(runs) = agent.runs {
        line("starts", &runs.to_string());
    }
    if let Some(code) = &agent.last_exit {
        line("last exit", code);
    }
    let code = match agent.is_running() {
        true => 0,
        false => exit::NOT_RUNNING,
    };
    (text, code)
}

/// Prints the log of the service; returns the exit code of the tool that has it.
///
/// # Errors
/// The tool cannot be started.
pub(super) async fn logs(manager: &Manager, args: &ServiceLogsArgs) -> anyhow::Result<u8> {
    tool::show(&manager.logs(args.lines, args.follow)).await
}

/// Returns the last error of a service that does not run.
async fn failure(manager: &Manager, service: &UnitState) -> Option<String> {
    match service.is_active() || service.get("Result") == "success" {
        true => None,
        false => last_error(manager).await,
    }
}

/// Returns the last message with which the service ended, from its log.
pub(super) async fn last_error(manager: &Manager) -> Option<String> {
    let mut command = manager.logs(RECENT, false);
    if let Manager::Systemd { .. } = manager {
        command.extend(words("-o cat"));
    }
    let output = tool::run(&command).await.ok()?;
    last_message(&output.stdout)
}

/// Returns the last message of the program, with the remedy below it.
fn last_message(log: &str) -> Option<String> {
    let lines: Vec<&str> = log.lines().collect();
    let first = lines.iter().rposition(|line| line.starts_with("pgiam: "))?;
    let (message, rest) = lines.get(first..)?.split_first()?;
    let below = rest
        .iter()
        .take_while(|line| line.starts_with("hint: ") || line.starts_with("  "));
    let all: Vec<&str> = [message].into_iter().chain(below).copied().collect();
    Some(all.join("\n"))
}

/// Describes the units, and returns the exit code.
fn of_units(service: &UnitState, socket: &UnitState) -> (String, u8) {
    if service.get("LoadState") == "not-found" {
        return (NOT_INSTALLED.to_owned(), exit::NOT_RUNNING);
    }
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |what: &str, value: &str| _ = writeln!(text, "{what:<8} {value}");
    let has_socket = socket.get("LoadState") == "loaded";
    line(
        "service",
        &described(service, has_socket && socket.is_active()),
    );
    let path = service.get("FragmentPath");
    line(
        "unit",
        &format!("{}{}", short(Path::new(path)), written_by(path)),
    );
    if has_socket {
        line("sockets", &described(socket, false));
    }
    if service.is_active() && !service.get("StatusText").is_empty() {
        line("status", service.get("StatusText"));
    }
    if !["", "0"].contains(&service.get("NRestarts")) {
        line("restarts", service.get("NRestarts"));
    }
    let runs = service.is_active() || (has_socket && socket.is_active());
    (text, if runs { 0 } else { exit::NOT_RUNNING })
}

/// Returns the state of a unit. `on_demand`: a socket starts it.
fn described(unit: &UnitState, on_demand: bool) -> String {
    let (active, sub) = (unit.get("ActiveState"), unit.get("SubState"));
    let mut text = match active {
        "active" | "reloading" => styled(GOOD, format!("{active} ({sub})")),
        "failed" => {
            let code = unit.get("ExecMainStatus");
            let code = match code.is_empty() {
                true => String::new(),
                false => format!(", exit code {code}"),
            };
            styled(BAD, format!("failed ({}{code})", unit.get("Result")))
        }
        _ if on_demand => "waiting for the first client".to_owned(),
        _ => styled(WARNING, format!("{active} ({sub})")),
    };
    if let Some(pid) = unit.pid() {
        _ = write!(text, ", process {pid}");
    }
    match unit.get("UnitFileState") {
        "enabled" => text.push_str(", starts at login"),
        "disabled" => text.push_str(", does not start at login"),
        _ => {}
    }
    text
}

/// Returns a remark about a unit that pgiam did not write.
fn written_by(path: &str) -> &'static str {
    match origin(Path::new(path)) {
        Ok((FileOrigin::Foreign, _)) => ", not written by pgiam service install",
        Ok((FileOrigin::Changed, _)) => ", changed since pgiam wrote it",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_described() {
        let file = Path::new("/Users/me/Library/LaunchAgents/pgiam.plist");
        let running = AgentState {
            state: Some("running".to_owned()),
            pid: Some(4711),
            runs: Some(2),
            last_exit: Some("1".to_owned()),
        };
        let stopped = AgentState {
            state: Some("spawn scheduled".to_owned()),
            pid: None,
            ..running.clone()
        };
        let mut all = String::new();
        for agent in [Some(&running), Some(&stopped), None] {
            let (text, code) = of_agent(agent, file);
            let text = anstream::adapter::strip_str(&text).to_string();
            all.push_str(&format!("{text}exit code {code}\n\n"));
        }
        insta::assert_snapshot!(all);
    }

    #[test]
    fn the_last_message_has_its_remedy_and_nothing_else() {
        let log = "INFO began\npgiam: old\nINFO again\npgiam: cannot listen\nhint: another port:\n  pgiam serve --port 1\npgiam.service: Failed with result 'exit-code'.\n";
        assert_eq!(
            last_message(log).unwrap(),
            "pgiam: cannot listen\nhint: another port:\n  pgiam serve --port 1"
        );
        assert_eq!(last_message("INFO began\n"), None);
    }
}
