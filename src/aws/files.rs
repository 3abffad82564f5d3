//! Files of the AWS tools that pgiam or the SDK reads.
//!
//! The SDK opens any path that a variable or a profile names, and reads to the end. A pipe has no
//! end until its writer closes it, and `/dev/zero` has none at all. Each path is therefore checked
//! first.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::{env, fmt};

use aws_config::profile::Profile;
#[expect(
    deprecated,
    reason = "the crate they have moved to is not among our dependencies"
)]
use aws_config::profile::profile_file::{ProfileFileKind, ProfileFiles};
use aws_lc_rs::digest;
use tracing::debug;

use super::AwsOptions;
use crate::aws::validation;
use crate::aws::validation::MalformedValue;
use crate::base::quote::shown;
use crate::base::redacted::Redacted;
use crate::platform::permissions::{self, FileRole};

/// Maximum size of a file in bytes. Configurations of large organisations have some hundred
/// kilobytes.
const LARGEST: u64 = 16 * 1024 * 1024;
const NO_FILE: &str = "is not a regular file";
const TOO_LARGE: &str = "is larger than 16 MB";

/// Contents of the configuration and the credentials file. The SDK parses them.
#[derive(Clone, Default)]
pub(super) struct AwsFiles {
    config: Option<FileContents>,
    credentials: Option<FileContents>,
}

#[derive(Clone)]
struct FileContents {
    path: PathBuf,
    /// The text contains keys.
    text: Redacted<String>,
}

impl AwsFiles {
    /// Reads both files in a thread for blocking work. The SDK would read them on a worker of the
    /// runtime, and a home directory on an unreachable file server would block every connection.
    ///
    /// A missing file counts as empty, as for the AWS CLI, unless the options name it. An
    /// unreadable file is an error; the SDK would treat it as empty, too, and use another identity.
    ///
    /// # Errors
    /// Names the file and the reason.
    pub(super) async fn read(options: &AwsOptions) -> Result<Self, String> {
        let options = options.clone();
        let read = move || {
            let config = (&options.config_file, "AWS_CONFIG_FILE", "config");
            let credentials = (
                &options.credentials_file,
                "AWS_SHARED_CREDENTIALS_FILE",
                "credentials",
            );
            Ok(Self {
                config: contents(config)?,
                credentials: contents(credentials)?,
            })
        };
        let read = tokio::task::spawn_blocking(read).await;
        read.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Converts the contents to the SDK's type.
    #[expect(
        deprecated,
        reason = "the crate it has moved to is not among our dependencies"
    )]
    pub(super) fn for_sdk(&self) -> ProfileFiles {
        // The builder requires at least one file.
        let text = |file: &Option<FileContents>| {
            let text = file.as_ref().map(|file| file.text.expose().clone());
            text.unwrap_or_default()
        };
        ProfileFiles::builder()
            .with_contents(ProfileFileKind::Config, text(&self.config))
            .with_contents(ProfileFileKind::Credentials, text(&self.credentials))
            .build()
    }

    /// Returns each file alone, with its path.
    pub(super) fn each(&self) -> impl Iterator<Item = (&Path, Self)> {
        let config = self.config.as_ref().map(|config| {
            let alone = Self {
                config: Some(config.clone()),
                credentials: None,
            };
            (config.path.as_path(), alone)
        });
        let credentials = self.credentials.as_ref().map(|credentials| {
            let alone = Self {
                config: None,
                credentials: Some(credentials.clone()),
            };
            (credentials.path.as_path(), alone)
        });
        config.into_iter().chain(credentials)
    }
}

impl fmt::Debug for AwsFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = |file: &Option<FileContents>| file.as_ref().map(|file| file.path.clone());
        f.debug_struct("AwsFiles")
            .field("config", &path(&self.config))
            .field("credentials", &path(&self.credentials))
            .finish()
    }
}

/// Reads the file that is given, or the one that a variable names, or `~/.aws/DEFAULT`.
fn contents(
    (given, variable, default): (&Option<PathBuf>, &'static str, &str),
) -> Result<Option<FileContents>, String> {
    let from_environment = || {
        let path = validation::variable(variable).ok()??;
        Some(in_home(Path::new(&path)))
    };
    let default = || Some(env::home_dir()?.join(".aws").join(default));
    let Some(path) = given.clone().or_else(from_environment).or_else(default) else {
        return Ok(None);
    };
    let said = |reason: String| format!("{}: {reason}", shown(&path));
    match std::fs::metadata(&path) {
        Ok(found) if is_null(&path, &found) => return Ok(None),
        Ok(_) => {}
        Err(error) if given.is_some() => return Err(said(error.to_string())),
        Err(_) => return Ok(None),
    }
    let bytes = permissions::read(FileRole::AwsFile, &path, LARGEST);
    let bytes = bytes.map_err(|error| said(error.without_path()))?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(FileContents {
            text: Redacted::new(text),
            path,
        })),
        Err(error) => Err(said(format!(
            "it is not UTF-8 text (byte {})",
            error.utf8_error().valid_up_to() + 1
        ))),
    }
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

    /// Returns the file that a key of a profile names.
    pub(super) fn of_profile(profile: &Profile, key: &str, path: &str) -> Self {
        Self {
            what: format!("the file of {key}"),
            source_of: format!("profile {}", profile.name()),
            path: in_home(Path::new(path)),
        }
    }

    /// Returns the file in which the AWS CLI caches the token of an SSO session. `key` is the name
    /// of the session, or the start URL of a profile without one.
    pub(super) fn of_sso(profile: &Profile, key: &str) -> Self {
        let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes());
        let name: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        let path = format!("~/.aws/sso/cache/{name}.json");
        Self {
            source_of: format!("profile {}", profile.name()),
            path: in_home(Path::new(&path)),
            what: format!("the SSO token {path}"),
        }
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

/// Expands `~/x` to the home directory; the SDK expands no other form.
fn in_home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn options(config: &Path, credentials: &Path) -> AwsOptions {
        AwsOptions {
            config_file: Some(config.to_owned()),
            credentials_file: Some(credentials.to_owned()),
            ..AwsOptions::default()
        }
    }

    fn pipe(path: PathBuf) -> PathBuf {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let made = mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0);
        assert!(made.is_ok(), "{made:?}");
        path
    }

    #[tokio::test]
    async fn only_text_that_ends_is_read_and_what_is_not_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let null = Path::new("/dev/null");
        let large = dir.path().join("large");
        let made = std::fs::File::create(&large).unwrap();
        made.set_len(LARGEST + 1).unwrap();
        for (path, expected) in [
            (write("config", b"[default]\n"), ""),
            (null.to_owned(), ""),
            (
                write("latin", b"# caf\xe9\n"),
                "it is not UTF-8 text (byte 6)",
            ),
            (dir.path().to_owned(), "it is not a regular file"),
            (pipe(dir.path().join("pipe")), "it is not a regular file"),
            (PathBuf::from("/dev/zero"), "it is not a regular file"),
            (large, "it is longer than 16777216 bytes"),
            (
                dir.path().join("missing"),
                "No such file or directory (os error 2)",
            ),
        ] {
            let expected = match expected {
                "" => None,
                reason => Some(format!("{}: {reason}", path.display())),
            };
            for options in [options(&path, null), options(null, &path)] {
                let said = AwsFiles::read(&options).await.err();
                assert_eq!(said, expected);
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
