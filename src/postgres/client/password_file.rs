//! The local password of TCP clients, for setups in which the system cannot identify the user of a
//! client. It is never sent to the database.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use crate::base::environment::{VariableError, origin_hint, without_line_break};
use crate::base::quote::shown;
use crate::base::redacted::Redacted;
use crate::platform::permissions::{self, FileRole, PathError};

/// Environment variable for the password.
pub const VARIABLE: &str = "PGIAM_LOCAL_PASSWORD";
/// Maximum length of the password, in bytes.
const LONGEST: usize = 1024;

/// A password that is valid: not empty, and possible to send from every client.
#[derive(Debug, Clone)]
pub struct LocalPassword(Redacted<String>);

impl LocalPassword {
    /// Returns the password, for [`ScramVerifier::new`](pg_handshake::scram::ScramVerifier::new).
    #[must_use]
    pub fn secret(&self) -> &Redacted<String> {
        &self.0
    }
}

/// Reason why a configured local password is unusable. No variant contains any part of the
/// password.
#[derive(Debug, Error)]
pub enum LocalPasswordError {
    /// Both the file and the variable are set.
    #[error(
        "the local password is set twice, in the file {file} and in the variable {VARIABLE}; remove one of them", file = shown(.file)
)]
    Twice {
        /// The file.
        file: PathBuf,
    },
    /// The file cannot be read, or its permissions are unsafe.
    #[error("{}{}", .0, origin_hint("password_file"))]
    File(#[from] PathError),
    /// The variable cannot be read.
    #[error(transparent)]
    Variable(#[from] VariableError),
    /// The file or the variable contains no valid password.
    #[error("the local password in {origin} {reason}")]
    Unusable {
        /// The file or the variable.
        origin: String,
        /// The rule that the value breaks.
        reason: &'static str,
    },
}

/// Loads the local password from the first line of `file`, or from the variable [`VARIABLE`], given
/// as `variable`. Returns `None` if neither is set.
///
/// On Unix the file must belong to the current user or to root, and be inaccessible to others.
/// Blocks while it reads from the file system; pipes and devices are refused, so the wait is short.
///
/// # Errors
/// [`LocalPasswordError`]; every variant names the file or the variable.
pub fn load(
    file: Option<&Path>,
    variable: Result<Option<Redacted<String>>, VariableError>,
) -> Result<Option<LocalPassword>, LocalPasswordError> {
    match (file, variable?) {
        (None, None) => Ok(None),
        (Some(file), Some(_)) => Err(LocalPasswordError::Twice {
            file: file.to_owned(),
        }),
        (Some(file), None) => from_file(file).map(Some),
        (None, Some(password)) => match flaw(password.expose()) {
            None => Ok(Some(LocalPassword(password))),
            Some(reason) => Err(LocalPasswordError::Unusable {
                origin: format!("the variable {VARIABLE}"),
                reason,
            }),
        },
    }
}

const EMPTY: &str = "is empty; set a password or remove the setting";
const TOO_LONG: &str = "is longer than 1024 bytes; choose a shorter one";
const ZERO: &str = "contains a zero byte, which no client can send; choose another one";
const NOT_TEXT: &str = "is not UTF-8 text; choose another one, or save the file as UTF-8 (PowerShell's > writes UTF-16: use Set-Content -Encoding utf8)";

fn flaw(password: &str) -> Option<&'static str> {
    if password.is_empty() {
        Some(EMPTY)
    } else if password.len() > LONGEST {
        Some(TOO_LONG)
    } else if password.contains('\0') {
        Some(ZERO)
    } else {
        None
    }
}

fn from_file(path: &Path) -> Result<LocalPassword, LocalPasswordError> {
    let unusable = |reason| LocalPasswordError::Unusable {
        origin: format!("the file {}", path.display()),
        reason,
    };
    let file = permissions::open(FileRole::PasswordFile, path)?;
    let line = first_line(file).map_err(|source| PathError::File {
        name: "the local password file",
        path: path.to_owned(),
        source,
    })?;
    let password = str::from_utf8(&line).map_err(|_| unusable(NOT_TEXT))?;
    match flaw(password) {
        None => Ok(LocalPassword(Redacted::new(password.to_owned()))),
        Some(reason) => Err(unusable(reason)),
    }
}

/// Reads the first line without its line break and without the byte order mark that Windows editors
/// write. Stops reading once the line is too long.
fn first_line(file: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    const MARK: &[u8] = b"\xef\xbb\xbf";
    // The longest password, the mark, a line end, and one byte that shows a longer line. All of it
    // is reserved at once, so that growing leaves no copies behind.
    const MOST: usize = MARK.len() + LONGEST + 3;
    let mut line = Zeroizing::new(Vec::with_capacity(2 * MOST));
    file.take(MOST as u64).read_to_end(&mut line)?;
    if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
        line.truncate(end);
    }
    let length = without_line_break(&line).len();
    line.truncate(length);
    if line.starts_with(MARK) {
        line.drain(..MARK.len());
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::write_private_file;

    fn load_bytes(contents: &[u8]) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        write_private_file(&path, contents).unwrap();
        match load(Some(&path), Ok(None)) {
            Ok(password) => Ok(password.unwrap().secret().expose().clone()),
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains(path.to_str().unwrap()), "{text}");
                // The temporary name contains random characters.
                Err(text.replace(path.to_str().unwrap(), "PATH"))
            }
        }
    }

    #[test]
    fn the_first_line_counts() {
        for (contents, password) in [
            ("hunter2", "hunter2"),
            ("hunter2\n", "hunter2"),
            ("hunter2\r\n", "hunter2"),
            ("hunter2\nmore\n", "hunter2"),
            (" spaces stay \n", " spaces stay "),
            ("a\rb\r\n", "a\rb"),
            ("größe\n", "größe"),
            ("hunter2\r", "hunter2"),
            ("\u{feff}hunter2\r\n", "hunter2"),
        ] {
            assert_eq!(load_bytes(contents.as_bytes()).unwrap(), password);
        }
        for end in ["", "\n", "\r\n", "\nmore"] {
            let longest = "x".repeat(LONGEST);
            assert_eq!(
                load_bytes(format!("{longest}{end}").as_bytes()),
                Ok(longest)
            );
        }
    }

    #[test]
    fn what_is_no_password_is_refused_and_not_shown() {
        for (contents, reason) in [
            (b"".as_slice(), "is empty"),
            (b"\nsecond", "is empty"),
            (b"\r\n", "is empty"),
            (b"hun\0ter2\n", "zero byte"),
            (b"hunter2\xff\n", "not UTF-8"),
            (b"\xff\xfeh\0u\0\r\0\n\0", "PowerShell's > writes UTF-16"),
            (b"\xef\xbb\xbf\n", "is empty"),
            (&[b'x'; LONGEST + 1], "longer than 1024 bytes"),
            (&[b'x'; 100_000], "longer than 1024 bytes"),
        ] {
            let text = load_bytes(contents).unwrap_err();
            assert!(text.contains(reason), "{text}");
            assert!(!text.contains("hun") && !text.contains("xx"), "{text}");
        }
    }

    fn from_variable(text: &str) -> Result<Option<LocalPassword>, LocalPasswordError> {
        load(None, Ok(Some(text.to_owned().into())))
    }

    #[test]
    fn the_variable_is_the_other_way() {
        let password = from_variable("hunter2").unwrap().unwrap();
        assert_eq!(password.secret().expose(), "hunter2");
        assert_eq!(format!("{password:?}"), "LocalPassword(********)");
        assert!(load(None, Ok(None)).unwrap().is_none());
        for bad in ["a\0b", &"x".repeat(LONGEST + 1)] {
            let text = from_variable(bad).unwrap_err().to_string();
            assert!(text.contains(VARIABLE), "{text}");
        }
        // An unreadable variable is an error, not an absent password.
        let unreadable = VariableError {
            name: VARIABLE.to_owned(),
            reason: "is not UTF-8 text",
        };
        for file in [None, Some(Path::new("/etc/pw"))] {
            let text = load(file, Err(unreadable.clone())).unwrap_err().to_string();
            assert!(text.contains(VARIABLE), "{text}");
        }
    }

    #[test]
    fn two_passwords_are_one_too_many() {
        let variable = Ok(Some("hunter2".to_owned().into()));
        let text = load(Some(Path::new("/etc/pw")), variable)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("/etc/pw") && text.contains(VARIABLE),
            "{text}"
        );
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn what_is_no_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        let text = load(Some(&missing), Ok(None)).unwrap_err().to_string();
        assert!(text.contains("missing"), "{text}");
        let mut no_files = vec![dir.path()];
        if cfg!(unix) {
            // Reading this would never end.
            no_files.push(Path::new("/dev/zero"));
        }
        for path in no_files {
            let text = load(Some(path), Ok(None)).unwrap_err().to_string();
            assert!(text.contains("is not a regular file"), "{text}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn an_open_file_is_refused() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        write_private_file(&path, b"hunter2").unwrap();
        let load_with = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            load(Some(&path), Ok(None)).map_err(|error| error.to_string())
        };
        for open in [0o644, 0o640, 0o604, 0o620, 0o602, 0o601] {
            let text = load_with(open).unwrap_err();
            assert!(
                text.contains(&format!("(mode {open:04o}); restrict it: chmod 600 /")),
                "{text}"
            );
        }
        for closed in [0o600, 0o400, 0o700] {
            load_with(closed).unwrap();
        }
    }
}
