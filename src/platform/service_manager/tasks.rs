//! Task Scheduler (Windows): a task at logon. Untested on Windows.

use std::path::{Path, PathBuf};

use super::{InstallPlan, PlannedFile, ServiceSpec, mark, replaced, seal, words, xml};

const TEMPLATE: &str = include_str!("../../../deploy/windows/pgiam.xml");

/// Returns the path of the task's description in `dir`, the state directory.
#[must_use]
pub fn description(dir: &Path) -> PathBuf {
    dir.join("service.xml")
}

/// Returns the path of the log in `dir`, the state directory.
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

fn text(spec: &ServiceSpec, log: &Path, user: &str) -> String {
    let comment = format!("<!-- {} -->\n", mark());
    let text = replaced(TEMPLATE, "<!-- To install", "-->\n", &comment);
    let mut command = String::new();
    for (name, value) in &spec.environment {
        command.push_str(&format!("$env:{name} = {}; ", quoted(value)));
    }
    if let Some(directory) = &spec.directory {
        command.push_str(&format!("Set-Location {}; ", quoted(directory)));
    }
    command.push_str("& ");
    command.push_str(&quoted(&spec.program));
    for argument in &spec.arguments {
        command.push(' ');
        command.push_str(&quoted(argument));
    }
    command.push_str(&format!(
        " *>> {}; exit $LASTEXITCODE",
        quoted(&log.display().to_string())
    ));
    let command = in_double_quotes(&command);
    text.replace("@USER@", &xml(user))
        .replace("@COMMAND@", &xml(&command))
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

/// Quotes a word for PowerShell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "''"))
}
