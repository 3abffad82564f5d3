//! The local password: what clients need who reach the proxy from where its user cannot be told
//! apart from others. The database never sees it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use crate::secret::Redacted;

/// The environment variable that may hold it.
pub const VARIABLE: &str = "PGIAM_LOCAL_PASSWORD";
/// The longest password, in bytes.
const LONGEST: usize = 1024;

/// A password that is not empty and that every client can send.
#[derive(Debug, Clone)]
pub struct LocalPassword(Redacted<String>);

impl LocalPassword {
    /// The password, for [`Verifier::new`](crate::scram::Verifier::new).
    #[must_use]
    pub fn secret(&self) -> &Redacted<String> {
        &self.0
    }
}

/// Why a local password that was asked for is not usable. None of these says anything of it.
#[derive(Debug, Error)]
pub enum LocalPasswordError {
    /// A file and the variable.
    #[error(
        "there are two local passwords, one in the file {file} and one in the variable {VARIABLE}; remove one of them"
    )]
    Twice {
        /// The file.
        file: PathBuf,
    },
    /// The file system said no.
    #[error("cannot read the local password file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// A directory, a pipe, a device: reading it could wait for ever.
    #[error("the local password file {path} is not an ordinary file")]
    NotAFile {
        /// What it names.
        path: PathBuf,
    },
    /// Other users may read or write it.
    #[error(
        "the local password file {path} is open to other users (mode {mode:04o}); close it: chmod 600 {path}"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// There is something, but no password that can be used.
    #[error("the local password in {origin} {reason}")]
    Unusable {
        /// The file or the variable.
        origin: String,
        /// What is wrong, and what would be right.
        reason: &'static str,
    },
}

/// Loads the local password from the first line of `file`, or takes the value of
/// [`VARIABLE`]; `None` if neither is given.
///
/// On Unix the file must be closed to group and others. Reads the file system, and so blocks for a
/// moment; a pipe or a device is refused, so never for longer.
///
/// # Errors
/// [`LocalPasswordError`], all of which name the file or the variable. An empty variable is one,
/// because whoever sets it expects protection.
pub fn load(
    file: Option<&Path>,
    env: Option<String>,
) -> Result<Option<LocalPassword>, LocalPasswordError> {
    // From here on every way out overwrites it.
    let env = env.map(Redacted::new);
    match (file, env) {
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

const EMPTY: &str = "is empty; set one, or take the setting away";
const TOO_LONG: &str = "is longer than 1024 bytes; choose a shorter one";
const ZERO: &str = "contains a zero byte, which no client can send; choose another one";
const NOT_TEXT: &str = "is not UTF-8 text; choose another one";

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
    let failed = |source| LocalPasswordError::File {
        path: path.to_owned(),
        source,
    };
    let not_a_file = || LocalPasswordError::NotAFile {
        path: path.to_owned(),
    };
    // Before opening: that alone would wait for a pipe's other end.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(not_a_file());
    }
    let file = File::open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(not_a_file());
    }
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::MetadataExt::mode(&found) & 0o7777;
        if mode & 0o077 != 0 {
            return Err(LocalPasswordError::Open {
                path: path.to_owned(),
                mode,
            });
        }
    }
    let unusable = |reason| LocalPasswordError::Unusable {
        origin: format!("the file {}", path.display()),
        reason,
    };
    let line = first_line(file).map_err(failed)?;
    let password = str::from_utf8(&line).map_err(|_| unusable(NOT_TEXT))?;
    match flaw(password) {
        None => Ok(LocalPassword(Redacted::new(password.to_owned()))),
        Some(reason) => Err(unusable(reason)),
    }
}

/// The first line without its end, `\n` or `\r\n`; cut off where it is too long by then.
fn first_line(file: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    // The longest password, a line end, and one byte to see that it was too long. All of it is
    // reserved at once, so that growing leaves no copies behind.
    const MOST: usize = LONGEST + 3;
    let mut line = Zeroizing::new(Vec::with_capacity(2 * MOST));
    file.take(MOST as u64).read_to_end(&mut line)?;
    if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
        line.truncate(end);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
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
        match load(Some(&path), None) {
            Ok(password) => Ok(password.unwrap().secret().expose().clone()),
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains(path.to_str().unwrap()), "{text}");
                Err(text)
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
            (&[b'x'; LONGEST + 1], "longer than 1024 bytes"),
            (&[b'x'; 100_000], "longer than 1024 bytes"),
        ] {
            let text = load_bytes(contents).unwrap_err();
            assert!(text.contains(reason), "{text}");
            assert!(!text.contains("hun") && !text.contains("xx"), "{text}");
        }
    }

    #[test]
    fn the_variable_is_the_other_way() {
        let password = load(None, Some("hunter2\n".into())).unwrap().unwrap();
        assert_eq!(password.secret().expose(), "hunter2\n", "taken as it is");
        assert_eq!(format!("{password:?}"), "LocalPassword(********)");
        assert!(load(None, None).unwrap().is_none());
        for bad in [String::new(), "a\0b".into(), "x".repeat(LONGEST + 1)] {
            let text = load(None, Some(bad)).unwrap_err().to_string();
            assert!(text.contains(VARIABLE), "{text}");
        }
    }

    #[test]
    fn two_passwords_are_one_too_many() {
        let text = load(Some(Path::new("/etc/pw")), Some("hunter2".into()))
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
        let error = load(Some(&missing), None).unwrap_err();
        assert!(matches!(error, LocalPasswordError::File { .. }), "{error}");
        assert!(error.to_string().contains("missing"), "{error}");
        let error = load(Some(dir.path()), None).unwrap_err();
        assert!(
            matches!(error, LocalPasswordError::NotAFile { .. }),
            "{error}"
        );
        if cfg!(unix) {
            // Reading this would never end.
            let error = load(Some(Path::new("/dev/zero")), None).unwrap_err();
            assert!(
                matches!(error, LocalPasswordError::NotAFile { .. }),
                "{error}"
            );
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
            load(Some(&path), None).map_err(|error| error.to_string())
        };
        for open in [0o644, 0o640, 0o604, 0o620, 0o602, 0o601] {
            let text = load_with(open).unwrap_err();
            assert!(
                text.contains(&format!("(mode {open:04o}); close it: chmod 600 /")),
                "{text}"
            );
        }
        for closed in [0o600, 0o400, 0o700] {
            load_with(closed).unwrap();
        }
    }
}
