//! launchd: an agent of the account (macOS). Written from Apple's documentation; not tried on a Mac.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::{InstallPlan, PlannedFile, ServiceSpec, mark, replaced, seal, words, xml};

const TEMPLATE: &str = include_str!("../../../deploy/launchd/pgiam.plist");
/// Seconds beyond the drain timeout before launchd kills the process.
const MARGIN: u64 = 15;

/// Returns the path of the agent.
#[must_use]
pub fn agent(home: &Path) -> PathBuf {
    home.join("Library/LaunchAgents/pgiam.plist")
}

/// Returns the path of the log.
#[must_use]
pub fn log(home: &Path) -> PathBuf {
    home.join("Library/Logs/pgiam.log")
}

/// Returns the name of the agent for `launchctl`.
#[must_use]
pub fn target(uid: u32) -> String {
    format!("gui/{uid}/pgiam")
}

/// State of an agent, from `launchctl print`. Apple promises no form of that text, so a value is
/// missing if its line is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentState {
    /// `running`, `not running` and others.
    pub state: Option<String>,
    /// Process id, while it runs.
    pub pid: Option<u32>,
    /// Number of starts.
    pub runs: Option<u32>,
    /// Exit code of the last process, or `(never exited)`.
    pub last_exit: Option<String>,
}

impl AgentState {
    /// Returns `true` if a process runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state.as_deref() == Some("running")
    }

    /// Parses the output of `launchctl print`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        // Lines of the agent itself are indented by one tab; those of its parts by more.
        let value = |name: &str| {
            text.lines().find_map(|line| {
                let (key, value) = line.strip_prefix('\t')?.split_once(" = ")?;
                (key == name).then(|| value.trim().to_owned())
            })
        };
        Self {
            state: value("state"),
            pid: value("pid").and_then(|pid| pid.parse().ok()),
            runs: value("runs").and_then(|runs| runs.parse().ok()),
            last_exit: value("last exit code"),
        }
    }
}

/// Returns `true` for the exit code of a `launchctl bootstrap` that comes before launchd has removed
/// the agent's predecessor: `EIO`, `EALREADY` or `EINPROGRESS`. The same command succeeds later.
#[must_use]
pub fn is_too_early(code: Option<i32>) -> bool {
    matches!(code, Some(5 | 36 | 37))
}

/// Returns the installation for the account with this home directory and user id.
#[must_use]
pub fn plan(spec: &ServiceSpec, home: &Path, uid: u32) -> InstallPlan {
    let path = agent(home);
    let mut bootstrap = words(&format!("launchctl bootstrap gui/{uid}"));
    bootstrap.push(path.display().to_string());
    InstallPlan {
        files: vec![PlannedFile {
            text: seal(&text(spec, home)),
            path,
            is_utf16: false,
        }],
        obsolete: Vec::new(),
        before: vec![words(&format!("launchctl bootout {}", target(uid)))],
        after: vec![bootstrap],
    }
}

fn text(spec: &ServiceSpec, home: &Path) -> String {
    let comment = format!("<!-- {} -->\n", mark());
    let mut text = replaced(TEMPLATE, "<!-- To install", "-->\n", &comment);
    let mut arguments = String::from("<key>ProgramArguments</key>\n\t<array>\n");
    for word in [&spec.program].into_iter().chain(&spec.arguments) {
        // Writing to a String cannot fail.
        _ = writeln!(arguments, "\t\t<string>{}</string>", xml(word));
    }
    arguments.push_str("\t</array>\n");
    if let Some(directory) = &spec.directory {
        _ = writeln!(
            arguments,
            "\t<key>WorkingDirectory</key>\n\t<string>{}</string>",
            xml(directory)
        );
    }
    text = replaced(
        &text,
        "<key>ProgramArguments</key>",
        "</array>\n",
        &arguments,
    );
    let mut variables = String::from("<key>EnvironmentVariables</key>\n\t<dict>\n");
    for (name, value) in &spec.environment {
        let (name, value) = (xml(name), xml(value));
        _ = writeln!(
            variables,
            "\t\t<key>{name}</key>\n\t\t<string>{value}</string>"
        );
    }
    text = replaced(
        &text,
        "<key>EnvironmentVariables</key>",
        "<dict>\n",
        &variables,
    );
    let stop = format!(
        "<key>ExitTimeOut</key>\n\t<integer>{}</integer>",
        spec.drain_timeout + MARGIN
    );
    text = replaced(&text, "<key>ExitTimeOut</key>", "</integer>", &stop);
    text.replace("@HOME@", &xml(&home.display().to_string()))
}
