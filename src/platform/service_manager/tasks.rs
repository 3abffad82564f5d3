//! Task Scheduler (Windows): a task at logon. Written from Microsoft's documentation; not tried.

use std::path::{Path, PathBuf};

use crate::base::quote::powershell;

use super::{InstallPlan, PlannedFile, ServiceSpec, mark, replaced, seal, words, xml};

const TEMPLATE: &str = include_str!("../../../deploy/windows/pgiam.xml");

/// Returns the path of the task's description in `dir`, the state directory.
#[must_use]
pub fn description(dir: &Path) -> PathBuf {
    dir.join("service.xml")
}

/// Returns the path of the log in `dir`, the state directory. Each start of the program begins a new
/// one, and keeps the last as `service.log.1`.
#[must_use]
pub fn log(dir: &Path) -> PathBuf {
    dir.join("service.log")
}

/// Returns the installation for `user`, with files in `dir`, the state directory.
#[must_use]
pub fn plan(spec: &ServiceSpec, dir: &Path, user: &str) -> InstallPlan {
    let path = description(dir);
    let mut create = words("schtasks /Create /TN pgiam /F /XML");
    create.push(path.display().to_string());
    InstallPlan {
        files: vec![PlannedFile {
            text: seal(&text(spec, &log(dir), user)),
            path,
            is_utf16: true,
        }],
        obsolete: Vec::new(),
        before: vec![words("schtasks /End /TN pgiam")],
        after: vec![create, words("schtasks /Run /TN pgiam")],
    }
}

/// Returns the description of the task. PowerShell hides the window, sets the variables, and starts
/// the program again 10 s after a failure: the Task Scheduler repeats only a task that it could not
/// start (MS-TSCH, section 2.5.4.2). Exit codes 0 and 2 are no failures, as in the unit of systemd.
///
/// The program writes the log itself: in PowerShell 5.1, a redirection turns each line of standard
/// error into an error record.
fn text(spec: &ServiceSpec, log: &Path, user: &str) -> String {
    let comment = format!("<!-- {} -->\n", mark());
    let text = replaced(TEMPLATE, "<!-- To install", "-->\n", &comment);
    let mut command = String::new();
    for (name, value) in &spec.environment {
        command.push_str(&format!("$env:{name} = {}; ", powershell(value)));
    }
    let arguments: Vec<String> = spec.arguments.iter().map(|word| argument(word)).collect();
    let log = log.display().to_string();
    let directory = match &spec.directory {
        Some(directory) => format!(" -WorkingDirectory {}", powershell(directory)),
        None => String::new(),
    };
    command.push_str(&format!(
        "do {{ Move-Item -Force -LiteralPath {log} -Destination {old} -ErrorAction SilentlyContinue; $p = Start-Process -NoNewWindow -Wait -PassThru{directory} -RedirectStandardError {log} -FilePath {program} -ArgumentList {arguments}; $ended = $p.ExitCode -in 0, 2; if (-not $ended) {{ Start-Sleep 10 }} }} until ($ended); exit $p.ExitCode",
        old = powershell(&format!("{log}.1")),
        log = powershell(&log),
        program = powershell(&spec.program),
        arguments = powershell(&arguments.join(" ")),
    ));
    let command = in_double_quotes(&command);
    text.replace("@USER@", &xml(user))
        .replace("@COMMAND@", &xml(&command))
}

/// Quotes an argument for a command line, if it needs it.
fn argument(word: &str) -> String {
    match word.is_empty() || word.contains([' ', '\t', '"']) {
        true => format!("\"{}\"", in_double_quotes(word)),
        false => word.to_owned(),
    }
}

/// Escapes a text for an argument in double quotes (Microsoft, "Parsing C command-line arguments"):
/// only backslashes before a quote are special.
fn in_double_quotes(text: &str) -> String {
    let mut escaped = String::new();
    let mut backslashes = 0;
    for c in text.chars() {
        if c == '"' {
            escaped.extend(std::iter::repeat_n('\\', backslashes + 1));
        }
        backslashes = if c == '\\' { backslashes + 1 } else { 0 };
        escaped.push(c);
    }
    escaped.extend(std::iter::repeat_n('\\', backslashes));
    escaped
}
