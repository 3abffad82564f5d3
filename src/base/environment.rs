//! The `PGIAM_*` variables. All of them are read in this module, by the same rules: an empty
//! variable counts as unset, a value that is not UTF-8 is refused with the variable's name, and one
//! line break at the end is removed, as left by a `.env` file with CRLF or a secret created with
//! `echo`.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::sync::OnceLock;

use thiserror::Error;

use crate::base::redacted::Redacted;
use crate::base::suggest::nearest;

/// Common prefix of pgiam's variables.
const PREFIX: &str = "PGIAM_";

/// A variable that is set but invalid. Does not contain its value, which may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the variable {name} {reason}")]
pub struct VariableError {
    /// Name of the variable.
    pub name: String,
    /// The problem and the remedy.
    pub reason: &'static str,
}

const NOT_TEXT: &str = "is not valid UTF-8; correct it or unset it (set a path that is not UTF-8 with the flag or in the configuration file)";
const ONLY_A_BREAK: &str = "contains only a line break; set it to the secret or unset it";

/// Reads the variable `name`. Returns `None` if it is unset or empty, or if an orchestrator has set
/// it for a service called pgiam.
///
/// # Errors
/// [`VariableError`] for a value that is not UTF-8.
pub fn read(name: &str) -> Result<Option<String>, VariableError> {
    value(name, std::env::var_os(name)).map(|value| value.filter(|text| !text.is_empty()))
}

/// Returns a variable of the system, such as `TERM`, if it is set and not empty.
#[must_use]
pub fn text(name: &str) -> Option<String> {
    let value = std::env::var_os(name)?.into_string().ok()?;
    Some(value).filter(|text| !text.is_empty())
}

/// Reads a secret from the variable `name`. Returns `None` if it is unset or empty.
///
/// # Errors
/// [`VariableError`] for a value that is not UTF-8, or that contains only a line break: a secret
/// was meant to be there.
pub fn read_secret(name: &str) -> Result<Option<Redacted<String>>, VariableError> {
    secret(name, std::env::var_os(name))
}

fn secret(name: &str, given: Option<OsString>) -> Result<Option<Redacted<String>>, VariableError> {
    match value(name, given)? {
        Some(text) if text.is_empty() => Err(VariableError {
            name: name.to_owned(),
            reason: ONLY_A_BREAK,
        }),
        text => Ok(text.map(Redacted::new)),
    }
}

/// Returns the value without its line break; the result may be empty.
fn value(name: &str, given: Option<OsString>) -> Result<Option<String>, VariableError> {
    let Some(given) = given.filter(|value| !value.is_empty() && !is_service_link(name, value))
    else {
        return Ok(None);
    };
    let mut text = given.into_string().map_err(|_| VariableError {
        name: name.to_owned(),
        reason: NOT_TEXT,
    })?;
    let length = without_line_break(text.as_bytes()).len();
    text.truncate(length);
    Ok(Some(text))
}

/// Returns `bytes` without one line break at the end: `\n`, `\r\n`, or the `\r` that a line reader
/// leaves.
pub(crate) fn without_line_break(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

/// Returns `true` if an orchestrator has set the variable, for a service or a container called
/// "pgiam" or "pgiam-…": Kubernetes ("Accessing the Service", environment variables) and Docker's
/// links set `PGIAM_SERVICE_HOST`, `PGIAM_PORT=tcp://10.0.0.1:5433`, `PGIAM_PORT_5433_TCP_ADDR` and
/// so on. The value decides if the name alone could be one of pgiam's.
fn is_service_link(name: &str, value: &OsStr) -> bool {
    let value = value.to_string_lossy();
    let is_url = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme));
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && is_url)
        || is_port_of_a_link(name)
        || name.contains("_ENV_")
        || (name.ends_with("_NAME") && value.starts_with('/'))
}

/// Matches `…_PORT_5433_TCP`, also with the suffix `_PROTO`, `_PORT` or `_ADDR`.
fn is_port_of_a_link(name: &str) -> bool {
    let name = ["_PROTO", "_PORT", "_ADDR"]
        .iter()
        .find_map(|end| name.strip_suffix(end))
        .unwrap_or(name);
    let mut words = name.rsplit('_');
    let protocol = words.next();
    let number = words.next().unwrap_or_default();
    matches!(protocol, Some("TCP" | "UDP" | "SCTP"))
        && !number.is_empty()
        && number.bytes().all(|b| b.is_ascii_digit())
        && words.next() == Some("PORT")
}

/// Returns `true` if a build service runs this program: GitHub, GitLab and most others set `CI`.
#[must_use]
pub fn is_ci() -> bool {
    let value = std::env::var_os("CI").unwrap_or_default();
    !value.is_empty() && value != "false"
}

/// Variables that have become settings.
static TAKEN: OnceLock<BTreeSet<String>> = OnceLock::new();

/// Records the variables that have become settings, so that an error about one of these names it.
pub(crate) fn note_taken(names: impl IntoIterator<Item = String>) {
    // The command line is read once.
    _ = TAKEN.set(names.into_iter().collect());
}

/// Returns the variable of a configuration key: `PGIAM_IDLE_TIMEOUT` for `idle_timeout`.
fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase().replace('-', "_"))
}

/// Returns the variable that set the value of `key`, if any.
#[must_use]
pub fn origin(key: &str) -> Option<String> {
    let name = variable_of(key);
    TAKEN.get()?.contains(&name).then_some(name)
}

/// Returns the name of the setting `key` in an error about a value outside the file: its variable,
/// or its flag.
#[must_use]
pub fn name_of(key: &str) -> String {
    origin(key).unwrap_or_else(|| format!("--{}", key.replace('_', "-")))
}

/// Returns a line to append to an error about the value of `key`: the variable that set it, if any.
#[must_use]
pub fn origin_hint(key: &str) -> String {
    origin(key)
        .map(|name| format!("\nhint: the value comes from the variable {name}"))
        .unwrap_or_default()
}

/// Returns all variables whose names and values are text.
pub(crate) fn all() -> impl Iterator<Item = (String, String)> {
    let texts = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(texts)
}

/// Returns the directories in which a shell looks for programs.
pub(crate) fn search_path() -> Vec<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect()
}

/// Returns the user that started this program with sudo, if any.
#[must_use]
pub fn sudo_user() -> Option<String> {
    let user = std::env::var("SUDO_USER").ok()?;
    Some(user).filter(|name| !name.is_empty() && name != "root")
}

/// Variables with pgiam's prefix that are not settings.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct UnknownVariables {
    /// Variables that an orchestrator has set for a service called pgiam.
    pub of_services: Vec<String>,
    /// Unknown variables, each with the most similar setting.
    pub unknown: Vec<(String, Option<String>)>,
}

/// Finds variables with pgiam's prefix that are not among the settings `known`.
#[must_use]
pub fn unknown_variables(known: &[String]) -> UnknownVariables {
    classify(std::env::vars_os(), known)
}

fn classify(all: impl Iterator<Item = (OsString, OsString)>, known: &[String]) -> UnknownVariables {
    let mut others = UnknownVariables::default();
    for (name, value) in all {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
            continue;
        };
        if is_service_link(name, &value) {
            others.of_services.push(name.to_owned());
        } else if !known.iter().any(|known| known == name) {
            // Compare without the prefix, which all names have in common.
            let bare = |name: &str| name.strip_prefix(PREFIX).unwrap_or(name).to_owned();
            let names: Vec<String> = known.iter().map(|known| bare(known)).collect();
            let like = nearest(&bare(name), names.iter().map(String::as_str));
            let like = like.map(|like| format!("{PREFIX}{like}"));
            others.unknown.push((name.to_owned(), like));
        }
    }
    others.of_services.sort();
    others.unknown.sort();
    others
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn os(text: &str) -> Option<OsString> {
        Some(OsString::from(text))
    }

    #[test]
    fn empty_is_unset_and_one_line_break_goes() {
        for (given, expected) in [
            (None, None),
            (os(""), None),
            (os("a"), Some("a")),
            (os("a\n"), Some("a")),
            (os("a\r\n"), Some("a")),
            (os("a\r"), Some("a")),
            (os("a\n\n"), Some("a\n")),
            (os(" a\tb "), Some(" a\tb ")),
            (os("\r\n"), Some("")),
        ] {
            let found = value("PGIAM_HOST", given.clone()).unwrap();
            assert_eq!(found.as_deref(), expected, "{given:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_is_not_utf8_is_refused_by_name() {
        use std::os::unix::ffi::OsStringExt;

        let bytes = || Some(OsString::from_vec(b"hunter\xff2".to_vec()));
        let errors = [
            value("PGIAM_LOCAL_PASSWORD", bytes()).unwrap_err(),
            secret("PGIAM_LOCAL_PASSWORD", bytes()).unwrap_err(),
        ];
        for error in errors.map(|error| error.to_string()) {
            assert!(error.contains("the variable PGIAM_LOCAL_PASSWORD is not valid UTF-8"));
            assert!(!error.contains("hunter"), "{error}");
        }
    }

    #[test]
    fn a_secret_that_is_a_line_break_is_refused() {
        let password = |given| secret("PGIAM_LOCAL_PASSWORD", given);
        assert_eq!(password(os("")), Ok(None));
        assert_eq!(password(None), Ok(None));
        assert_eq!(
            password(os("hunter2\r\n")).unwrap().unwrap().expose(),
            "hunter2"
        );
        for only in ["\n", "\r\n", "\r"] {
            let said = password(os(only)).unwrap_err().to_string();
            assert!(said.contains("only a line break"), "{said}");
        }
    }

    #[test]
    fn variables_of_orchestrators_are_no_settings() {
        for (name, value) in [
            ("PGIAM_SERVICE_HOST", "10.0.0.1"),
            ("PGIAM_SERVICE_PORT", "5433"),
            ("PGIAM_SERVICE_PORT_HTTP", "9801"),
            ("PGIAM_PORT", "tcp://10.0.0.1:5433"),
            ("PGIAM_HTTP_PORT", "tcp://10.0.0.1:80"),
            ("PGIAM_HUB_PORT", "udp://[fd00::1]:80"),
            ("PGIAM_PORT_5433_TCP", "tcp://10.0.0.1:5433"),
            ("PGIAM_PORT_5433_TCP_PROTO", "tcp"),
            ("PGIAM_PORT_5433_TCP_PORT", "5433"),
            ("PGIAM_PORT_5433_TCP_ADDR", "10.0.0.1"),
            ("PGIAM_METRICS_PORT_80_UDP_ADDR", "10.0.0.1"),
            ("PGIAM_NAME", "/app/pgiam"),
            ("PGIAM_ENV_PATH", "/bin"),
            ("PGIAM_1_PORT", "tcp://172.17.0.2:5433"),
        ] {
            assert!(is_service_link(name, OsStr::new(value)), "{name}");
            assert_eq!(super::value(name, os(value)), Ok(None), "{name}");
        }
        for (name, value) in [
            ("PGIAM_PORT", "5433"),
            ("PGIAM_PORT", "pg"),
            ("PGIAM_HOST", "tcp://10.0.0.1:5433"),
            ("PGIAM_HTTP_PORT", "9801"),
            ("PGIAM_DB", "pgiam"),
        ] {
            assert!(!is_service_link(name, OsStr::new(value)), "{name}={value}");
        }
    }

    #[test]
    fn strangers_are_told_apart_from_misspelt_settings() {
        let known = ["PGIAM_PORT", "PGIAM_LOCAL_PASSWORD", "PGIAM_BASTION"].map(str::to_owned);
        let all = [
            ("PGIAM_PORT", "tcp://10.0.0.1:5433"),
            ("PGIAM_SERVICE_HOST", "10.0.0.1"),
            ("PGIAM_BASTION", "i-1"),
            ("PGIAM_LOCAL_PASWORD", "hunter2"),
            ("PGIAM_XYZ", "1"),
            ("PATH", "/bin"),
        ];
        let all = all.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let expected = UnknownVariables {
            of_services: vec!["PGIAM_PORT".to_owned(), "PGIAM_SERVICE_HOST".to_owned()],
            unknown: vec![
                (
                    "PGIAM_LOCAL_PASWORD".to_owned(),
                    Some("PGIAM_LOCAL_PASSWORD".to_owned()),
                ),
                ("PGIAM_XYZ".to_owned(), None),
            ],
        };
        assert_eq!(classify(all.into_iter(), &known), expected);
    }

    /// Collects the sources of the program without their tests, by path.
    fn sources(dir: &Path, all: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                sources(&path, all);
            } else if name.ends_with(".rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                all.push((path.display().to_string(), text));
            }
        }
    }

    #[test]
    fn nothing_else_reads_these_variables() {
        let mut all = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
        let mut readers = 0;
        for (path, text) in all {
            if path.ends_with("src/base/environment.rs") || path.contains("/tests") {
                continue;
            }
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            for (at, line) in code.lines().enumerate() {
                let reads = ["env::var", "env::vars", "option_env!", "var_os("];
                if !reads.iter().any(|read| line.contains(read)) {
                    continue;
                }
                readers += 1;
                let place = format!("{path}:{}: {line}", at + 1);
                // Only variables of other programs, by a literal name or one built from a name of
                // AWS's.
                let theirs = [
                    "\"XDG_",
                    "\"AWS_",
                    "\"PG",
                    "\"TERM\"",
                    "\"PATH\"",
                    "\"BROWSER\"",
                    "\"DISPLAY\"",
                    "\"SSH_",
                    "\"WSL_DISTRO_NAME\"",
                    "VARIABLE}_",
                ];
                let is_theirs = theirs.iter().any(|name| line.contains(name))
                    // Variables of XDG and of Windows, and of AWS.
                    || (["src/platform.rs", "src/aws/validation.rs"]
                        .iter()
                        .any(|file| path.ends_with(file))
                        && line.contains("(name)"));
                assert!(
                    is_theirs && !line.contains(PREFIX),
                    "{place}\nread a variable of ours with environment::read, and name another one in this test"
                );
            }
            assert!(!code.contains("VarError"), "{path}");
        }
        assert!(readers > 0, "this test has found the places that it judges");
    }
}
