//! Files of the AWS tools that pgiam or the SDK reads.
//!
//! A pipe has no end until its writer closes it, and `/dev/zero` has none at all. Each path is
//! therefore checked before it is read.

use std::fs::Metadata;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{env, io};

use aws_profile::{FileInput, FileKind, Files, MAX_FILE_BYTES, Platform, file_path};
use tracing::debug;

use super::AwsOptions;
use crate::aws::validation;
use crate::aws::validation::MalformedValue;
use crate::base::quote::shown;
use crate::base::redacted::Redacted;
use crate::platform::permissions::{self, FileRole};

/// Maximum size in bytes of a file other than the two AWS files.
const LARGEST: u64 = 16 * 1024 * 1024;
/// Deadline for the states of the AWS files. Afterwards they count as unchanged.
const STAMP_DEADLINE: Duration = Duration::from_millis(200);
const NO_FILE: &str = "is not a regular file";
const TOO_LARGE: &str = "is larger than 16 MB";

/// Rules of this system for paths and commands in AWS files.
pub(crate) const PLATFORM: Platform = match cfg!(windows) {
    true => Platform::Windows,
    false => Platform::Posix,
};

/// Reads and parses the config file and the credentials file in a thread for blocking work: a home
/// directory on an unreachable file server would block every connection.
///
/// A missing file counts as empty, as for the AWS CLI, unless the options name it. The fault of an
/// unreadable file is in the result, and makes its profiles unusable.
///
/// # Errors
/// Names the file and the reason: a file that the options name does not exist, or the home
/// directory of another user is unknown.
pub(crate) async fn parse(options: &AwsOptions) -> Result<Files, String> {
    let options = options.clone();
    let parse = move || {
        let config = AwsFile::read(options.config_file.as_deref(), FileKind::Config)?;
        let credentials =
            AwsFile::read(options.credentials_file.as_deref(), FileKind::Credentials)?;
        Ok(Files::parse(config.input(), credentials.input()))
    };
    let parsed = tokio::task::spawn_blocking(parse).await;
    parsed.unwrap_or_else(|error| Err(error.to_string()))
}

/// Returns the home directory of the current user; those of others are unknown.
pub(crate) fn home(user: Option<&str>) -> Option<String> {
    match user {
        None => env::home_dir()?.into_os_string().into_string().ok(),
        Some(_) => None,
    }
}

/// Returns the path that is given, or the one that a variable names, or the one in `~/.aws`.
fn path_of(given: Option<&Path>, kind: FileKind) -> PathBuf {
    let variables = |name: &str| validation::variable(name).ok().flatten();
    match given {
        Some(path) => path.to_owned(),
        None => PathBuf::from(file_path(kind, PLATFORM, &variables, &home)),
    }
}

/// One of the two files.
struct AwsFile {
    path: String,
    contents: AwsFileContents,
}

enum AwsFileContents {
    Missing,
    Unreadable(String),
    /// The text contains keys.
    Read(Redacted<Vec<u8>>),
}

impl AwsFile {
    /// Reads the file at [`path_of`].
    fn read(given: Option<&Path>, kind: FileKind) -> Result<Self, String> {
        let path = path_of(given, kind);
        let shown = shown(&path);
        // Only the user's own home directory is known.
        if given.is_none() && path.as_os_str().to_string_lossy().starts_with('~') {
            return Err(format!(
                "{shown}: cannot expand \"~\"; write the path in full"
            ));
        }
        let contents = match std::fs::metadata(&path) {
            Err(error) if given.is_some() => return Err(format!("{shown}: {error}")),
            Err(error) if is_absent(&error) => AwsFileContents::Missing,
            Err(error) => AwsFileContents::Unreadable(error.to_string()),
            Ok(found) if found.is_dir() || is_null(&path, &found) => AwsFileContents::Missing,
            Ok(_) => match permissions::read(FileRole::AwsFile, &path, MAX_FILE_BYTES as u64) {
                Ok(bytes) => AwsFileContents::Read(Redacted::new(bytes)),
                Err(error) => AwsFileContents::Unreadable(error.without_path()),
            },
        };
        Ok(Self {
            path: shown,
            contents,
        })
    }

    fn input(&self) -> (&str, FileInput<'_>) {
        let input = match &self.contents {
            AwsFileContents::Missing => FileInput::Missing,
            AwsFileContents::Unreadable(reason) => FileInput::Unreadable(reason),
            AwsFileContents::Read(bytes) => FileInput::Contents(bytes.expose()),
        };
        (&self.path, input)
    }
}

/// Returns `true` if a path leads to no file. Any other error, such as a directory that may not be
/// searched, hides a file that may exist.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// State of a file, which tells whether it was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FileStamp(Option<(SystemTime, u64)>);

impl FileStamp {
    /// Returns the state of the file at a path, in a thread for blocking work.
    pub(super) async fn read(path: &Path) -> Self {
        let path = path.to_owned();
        let read = tokio::task::spawn_blocking(move || Self::of(&path)).await;
        read.unwrap_or_default()
    }

    fn of(path: &Path) -> Self {
        let found = std::fs::metadata(path).ok();
        Self(found.and_then(|found| Some((found.modified().ok()?, found.len()))))
    }
}

/// Returns the state of both AWS files, `None` if their file system does not answer in time.
pub(super) async fn stamps(options: &AwsOptions) -> Option<[FileStamp; 2]> {
    let options = options.clone();
    let look = move || {
        [
            FileStamp::of(&path_of(options.config_file.as_deref(), FileKind::Config)),
            FileStamp::of(&path_of(
                options.credentials_file.as_deref(),
                FileKind::Credentials,
            )),
        ]
    };
    let looked = tokio::task::spawn_blocking(look);
    tokio::time::timeout(STAMP_DEADLINE, looked)
        .await
        .ok()?
        .ok()
}

/// A token file that the SDK reads by itself, on a worker of the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TokenFile {
    /// Name of the setting, for messages.
    what: String,
    /// Source of the path, see [`MalformedValue`].
    source_of: String,
    path: PathBuf,
}

impl TokenFile {
    /// Returns the file that an environment variable names, if it is set.
    ///
    /// # Errors
    /// [`MalformedValue`] for a path that is not UTF-8.
    pub(super) fn of_environment(variable: &'static str) -> Result<Option<Self>, MalformedValue> {
        Ok(validation::variable(variable)?.map(|path| Self {
            what: format!("the file of {variable}"),
            source_of: validation::ENVIRONMENT.to_owned(),
            path: PathBuf::from(path),
        }))
    }

    /// Reads the file once, in a thread for blocking work, so that the SDK's read right afterwards
    /// ends.
    ///
    /// # Errors
    /// [`MalformedValue`] for a file that has no end. A missing file is left to the SDK.
    pub(super) async fn probe(self) -> Result<(), MalformedValue> {
        let probing = tokio::task::spawn_blocking(move || {
            let wrong = |fault| Err(MalformedValue::new(&self.what, &self.source_of, fault));
            if let Some(fault) = fault(&self.path) {
                return wrong(fault);
            }
            match permissions::read(FileRole::AwsFile, &self.path, LARGEST) {
                Ok(text) => drop(Redacted::new(text)),
                // The SDK meets the same error and reports it.
                Err(error) => debug!(%error, "cannot read a token file"),
            }
            Ok(())
        });
        probing.await.unwrap_or(Ok(()))
    }
}

/// Reads a file.
///
/// # Errors
/// The reason, without the path.
pub(super) async fn read(path: &Path) -> Result<Vec<u8>, String> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        if let Some(fault) = fault(&path) {
            return Err(format!("it {fault}"));
        }
        if std::fs::metadata(&path).is_ok_and(|found| is_null(&path, &found)) {
            return Ok(Vec::new());
        }
        let bytes = permissions::read(FileRole::AwsFile, &path, LARGEST);
        bytes.map_err(|error| error.without_path())
    });
    read.await.unwrap_or_else(|error| Err(error.to_string()))
}

/// Returns a predicate for a path that must not be read. A missing path or a directory is left to
/// the reader: the AWS CLI ignores both.
fn fault(path: &Path) -> Option<&'static str> {
    let found = std::fs::metadata(path).ok()?;
    if found.is_dir() || is_null(path, &found) {
        return None;
    }
    if !found.is_file() {
        return Some(NO_FILE);
    }
    (found.len() > LARGEST).then_some(TOO_LARGE)
}

/// Returns `true` for the null device, the usual way to disable a configuration file.
fn is_null(path: &Path, found: &Metadata) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let null = std::fs::metadata("/dev/null");
        let _ = path;
        null.is_ok_and(|null| !found.is_file() && null.rdev() == found.rdev() && found.rdev() != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = found;
        path.as_os_str().eq_ignore_ascii_case("nul")
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::parse as files_of;
    use super::*;

    fn options(config: &Path, credentials: &Path) -> AwsOptions {
        AwsOptions {
            config_file: Some(config.to_owned()),
            credentials_file: Some(credentials.to_owned()),
            ..AwsOptions::default()
        }
    }

    fn pipe(path: PathBuf) -> PathBuf {
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.is_ok_and(|status| status.success()));
        path
    }

    /// Returns the fault of a file, or the reason why none was read.
    async fn fault_of(options: &AwsOptions) -> Option<String> {
        match files_of(options).await {
            Ok(files) => files.problems().next().map(ToString::to_string),
            Err(reason) => Some(reason),
        }
    }

    #[tokio::test]
    async fn only_files_that_end_are_read_and_faults_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let null = Path::new("/dev/null");
        let large = dir.path().join("large");
        let made = std::fs::File::create(&large).unwrap();
        made.set_len(MAX_FILE_BYTES as u64 + 1).unwrap();
        let not_a_file = "1: the file cannot be read: it is not a regular file";
        for (path, expected) in [
            (write("config", b"[default]\n"), ""),
            (null.to_owned(), ""),
            (dir.path().to_owned(), ""),
            (
                write("latin", b"[default]\nregion = caf\xe9\n"),
                "2: the line is not UTF-8; save the file as UTF-8",
            ),
            (pipe(dir.path().join("pipe")), not_a_file),
            (PathBuf::from("/dev/zero"), not_a_file),
            (
                large,
                "1: the file cannot be read: it is longer than 4194304 bytes",
            ),
            (
                dir.path().join("missing"),
                " No such file or directory (os error 2)",
            ),
        ] {
            let expected = match expected {
                "" => None,
                reason => Some(format!("{}:{reason}", path.display())),
            };
            for options in [options(&path, null), options(null, &path)] {
                assert_eq!(fault_of(&options).await, expected);
            }
        }
    }

    #[tokio::test]
    async fn a_token_is_read_from_what_ends() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = pipe(dir.path().join("pipe"));
        for (path, expected) in [
            (pipe.as_path(), Some(NO_FILE)),
            (Path::new("/dev/zero"), Some(NO_FILE)),
            (&dir.path().join("missing"), None),
            (dir.path(), None),
        ] {
            let file = TokenFile {
                what: "the token".to_owned(),
                source_of: "the test".to_owned(),
                path: path.to_owned(),
            };
            let refused = file.probe().await.err();
            assert_eq!(refused.map(|refused| refused.fault), expected);
        }
    }
}
