//! Running the tools of the service manager.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use tokio::process::Command;
use tokio::time::timeout;

use crate::base::quote::shell;
use crate::platform::service_manager::CommandLine;

/// Longest time for one command. systemd gives a service 90 s to start by default.
const PATIENCE: Duration = Duration::from_secs(120);

/// Output of a tool that has ended.
pub(super) struct ToolOutput {
    pub(super) is_success: bool,
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl ToolOutput {
    /// Returns the message of a failed tool.
    pub(super) fn message(&self) -> String {
        let said = match self.stderr.trim() {
            "" => self.stdout.trim(),
            said => said,
        };
        said.to_owned()
    }
}

/// Returns a command line to show or to copy.
pub(super) fn shown(command: &CommandLine) -> String {
    let words: Vec<String> = command.iter().map(|word| shell(word)).collect();
    words.join(" ")
}

/// Runs a tool to its end.
///
/// # Errors
/// It cannot be started, or does not end in time.
pub(super) async fn run(command: &CommandLine) -> anyhow::Result<ToolOutput> {
    let mut running = prepared(command)?;
    running.stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = timeout(PATIENCE, running.output()).await;
    let output = output
        .with_context(|| {
            format!(
                "{} did not end within {} s",
                shown(command),
                PATIENCE.as_secs()
            )
        })?
        .with_context(|| format!("cannot run {}", shown(command)))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(ToolOutput {
        is_success: output.status.success(),
        code: output.status.code(),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    })
}

/// Runs a tool with the standard streams of this process; returns its exit code.
///
/// # Errors
/// It cannot be started.
pub(super) async fn show(command: &CommandLine) -> anyhow::Result<u8> {
    let mut running = prepared(command)?;
    running.stdin(Stdio::inherit());
    let status = running.status().await;
    let status = status.with_context(|| format!("cannot run {}", shown(command)))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.unwrap_or(crate::cli::exit::FAILED))
}

fn prepared(command: &CommandLine) -> anyhow::Result<Command> {
    let (program, arguments) = command.split_first().context("an empty command")?;
    let mut running = Command::new(program);
    running
        .args(arguments)
        .stdin(Stdio::null())
        .env("LC_ALL", "C") // Messages are compared and quoted.
        .kill_on_drop(true);
    Ok(running)
}
