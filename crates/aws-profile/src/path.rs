//! Paths of the two files.

use crate::resolve::Variables;
use crate::setting::FileKind;

/// Home directories: `None` asks for that of the current user when `HOME` is not set, a name for
/// that of another user.
pub type Homes<'a> = &'a dyn Fn(Option<&str>) -> Option<String>;

/// Returns the path of a file: that of its variable, else the one below `~/.aws`, with `$NAME`,
/// `${NAME}`, a leading `~` and `~USER` expanded as Python's `posixpath` does. A variable that is
/// set but empty gives the empty path, which no file has. Relative paths stay relative.
#[must_use]
pub fn file_path(kind: FileKind, variables: Variables<'_>, homes: Homes<'_>) -> String {
    let (variable, default) = match kind {
        FileKind::Config => ("AWS_CONFIG_FILE", "~/.aws/config"),
        FileKind::Credentials => ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
    };
    let path = variables(variable).unwrap_or_else(|| default.to_owned());
    with_home(&with_variables(&path, variables), variables, homes)
}

/// Expands variables. An unknown one stays as it is, and values are not expanded again.
fn with_variables(path: &str, variables: Variables<'_>) -> String {
    let mut expanded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let (name, length) = variable_name(after);
        let value = name.and_then(variables);
        match (value, after.get(length..)) {
            (Some(value), Some(after)) => {
                expanded.push_str(&value);
                rest = after;
            }
            _ => {
                expanded.push('$');
                rest = after;
            }
        }
    }
    expanded + rest
}

/// Returns the name of a variable after `$`, and the length of its text.
fn variable_name(text: &str) -> (Option<&str>, usize) {
    if let Some((name, _)) = text.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
        return (Some(name), name.len() + 2);
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let length = text.find(|c| !is_part(c)).unwrap_or(text.len());
    let name = text.get(..length).filter(|name| !name.is_empty());
    (name, length)
}

fn with_home(path: &str, variables: Variables<'_>, homes: Homes<'_>) -> String {
    let Some(rest) = path.strip_prefix('~') else {
        return path.to_owned();
    };
    let (user, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let home = match user {
        "" => variables("HOME").or_else(|| homes(None)),
        user => homes(Some(user)),
    };
    let Some(home) = home else {
        return path.to_owned();
    };
    let expanded = format!("{}{rest}", home.trim_end_matches('/'));
    match expanded.is_empty() {
        true => "/".to_owned(),
        false => expanded,
    }
}
