//! Paths of the two files and of the caches.

use crate::resolve::{Platform, Variables};
use crate::setting::FileKind;

/// Home directories that no variable names: `None` asks for that of the current user, a name for
/// that of another user.
pub type Homes<'a> = &'a dyn Fn(Option<&str>) -> Option<String>;

/// Returns the path of a file: that of its variable, else the one below `~/.aws`, with variables, a
/// leading `~` and `~USER` expanded as Python's `posixpath` or `ntpath` does. A variable that is
/// set but empty gives the empty path, which no file has. Relative paths stay relative.
///
/// On Windows the home directory is `USERPROFILE`, else `HOMEDRIVE` and `HOMEPATH`; `HOME` does not
/// count. `~USER` is only expanded if `homes` knows the user; Python guesses a directory beside that
/// of the current user.
#[must_use]
pub fn file_path(
    kind: FileKind,
    platform: Platform,
    variables: Variables<'_>,
    homes: Homes<'_>,
) -> String {
    let (variable, default) = match kind {
        FileKind::Config => ("AWS_CONFIG_FILE", "~/.aws/config"),
        FileKind::Credentials => ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
    };
    let path = variables(variable).unwrap_or_else(|| default.to_owned());
    let path = with_variables(&path, platform, variables);
    with_home(path, platform, variables, homes)
}

/// A directory with caches of the AWS CLI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheDir {
    /// `~/.aws/sso/cache`: tokens and registrations of IAM Identity Center.
    Sso,
    /// `~/.aws/cli/cache`: keys of roles.
    Cli,
    /// `AWS_LOGIN_CACHE_DIRECTORY`, else `~/.aws/login/cache`: logins of `aws login`.
    Login,
}

/// Returns the path of a cache directory, expanded as by [`file_path`]. The variables of the two
/// files do not move the caches.
#[must_use]
pub fn cache_dir(
    dir: CacheDir,
    platform: Platform,
    variables: Variables<'_>,
    homes: Homes<'_>,
) -> String {
    let path = match dir {
        CacheDir::Sso => "~/.aws/sso/cache".to_owned(),
        CacheDir::Cli => "~/.aws/cli/cache".to_owned(),
        CacheDir::Login => match variables("AWS_LOGIN_CACHE_DIRECTORY") {
            Some(path) => with_variables(&path, platform, variables),
            None => "~/.aws/login/cache".to_owned(),
        },
    };
    with_home(path, platform, variables, homes)
}

/// Expands variables. Values are not expanded again.
pub(crate) fn with_variables(path: &str, platform: Platform, variables: Variables<'_>) -> String {
    let mut expanded = String::with_capacity(path.len());
    let mut rest = path;
    // Behind it, "${" is not looked up again and again.
    let last_brace = path.rfind('}').unwrap_or_default();
    while !rest.is_empty() {
        let has_brace = path.len() - rest.len() < last_brace;
        let part = match platform {
            Platform::Posix => posix_part(rest, has_brace),
            Platform::Windows => windows_part(rest),
        };
        let (text, after) = rest.split_at(part.length);
        match part.kind {
            PartKind::Literal(text) => expanded.push_str(text),
            // An unknown variable stays as it is.
            PartKind::Variable(name) => match variables(name) {
                Some(value) => expanded.push_str(&value),
                None => expanded.push_str(text),
            },
        }
        rest = after;
    }
    expanded
}

/// A part of a path: its length, and its text after the expansion or its variable.
struct Part<'a> {
    length: usize,
    kind: PartKind<'a>,
}

enum PartKind<'a> {
    Literal(&'a str),
    Variable(&'a str),
}

/// Returns the text before one of the characters, or else one character.
fn literal<'a>(text: &'a str, specials: &[char]) -> Part<'a> {
    let first = text.chars().next().map_or(0, char::len_utf8);
    let length = match text.find(specials) {
        None => text.len(),
        Some(length) => length.max(first),
    };
    Part {
        length,
        kind: PartKind::Literal(text.get(..length).unwrap_or_default()),
    }
}

/// Returns the variable between two marks, the first of which begins the text.
fn between<'a>(text: &'a str, begin: &str, end: char) -> Option<Part<'a>> {
    let (name, _) = text.strip_prefix(begin)?.split_once(end)?;
    Some(Part {
        length: begin.len() + name.len() + end.len_utf8(),
        kind: PartKind::Variable(name),
    })
}

/// Returns the variable of `$NAME`, if the name is not empty.
fn bare(text: &str, is_part: impl Fn(char) -> bool) -> Option<Part<'_>> {
    let name = text.strip_prefix('$')?;
    let length = name.find(|c| !is_part(c)).unwrap_or(name.len());
    let name = name.get(..length).filter(|name| !name.is_empty())?;
    Some(Part {
        length: length + 1,
        kind: PartKind::Variable(name),
    })
}

/// `has_brace` says that a closing brace follows.
fn posix_part(text: &str, has_brace: bool) -> Part<'_> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let in_braces = has_brace.then(|| between(text, "${", '}'));
    in_braces
        .flatten()
        .or_else(|| bare(text, is_part))
        .unwrap_or_else(|| literal(text, &['$']))
}

/// On Windows, `%NAME%` is a variable, too, `%%` and `$$` are one character, and nothing is expanded
/// in single quotes. Text after an open `%`, `${` or quote stays as it is.
fn windows_part(text: &str) -> Part<'_> {
    let whole = |length: usize| Part {
        length,
        kind: PartKind::Literal(text.get(..length).unwrap_or_default()),
    };
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if let Some(quoted) = text.strip_prefix('\'') {
        return whole(quoted.find('\'').map_or(text.len(), |end| end + 2));
    }
    if text.starts_with("%%") || text.starts_with("$$") {
        return Part {
            length: 2,
            kind: PartKind::Literal(text.get(..1).unwrap_or_default()),
        };
    }
    let variable = between(text, "%", '%').or_else(|| between(text, "${", '}'));
    if let Some(variable) = variable {
        return variable;
    }
    if text.starts_with('%') || text.starts_with("${") {
        return whole(text.len());
    }
    bare(text, is_part).unwrap_or_else(|| literal(text, &['$', '%', '\'']))
}

fn with_home(
    path: String,
    platform: Platform,
    variables: Variables<'_>,
    homes: Homes<'_>,
) -> String {
    let Some(rest) = path.strip_prefix('~') else {
        return path;
    };
    let is_separator = |c| c == '/' || (c == '\\' && platform == Platform::Windows);
    let (user, rest) = rest.split_at(rest.find(is_separator).unwrap_or(rest.len()));
    let home = match (user, platform) {
        ("", Platform::Posix) => variables("HOME").or_else(|| homes(None)),
        ("", Platform::Windows) => windows_home(variables).or_else(|| homes(None)),
        (user, _) => homes(Some(user)),
    };
    match (home, platform) {
        (None, _) => path,
        (Some(home), Platform::Windows) => home + rest,
        (Some(home), Platform::Posix) => match home.trim_end_matches('/').to_owned() + rest {
            root if root.is_empty() => "/".to_owned(),
            expanded => expanded,
        },
    }
}

fn windows_home(variables: Variables<'_>) -> Option<String> {
    let of_drive = || {
        let path = variables("HOMEPATH")?;
        Some(variables("HOMEDRIVE").unwrap_or_default() + &path)
    };
    variables("USERPROFILE").or_else(of_drive)
}
