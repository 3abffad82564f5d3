//! The files of the AWS tools that pgiam reads, or has the SDK read.
//!
//! The SDK opens whatever a variable or a profile names, and reads to the end. A pipe has no end until
//! its writer closes it, and `/dev/zero` has none at all. So each path is looked at first.

use std::env;
use std::fs::Metadata;
use std::path::{Path, PathBuf};

use aws_config::profile::Profile;
use aws_lc_rs::digest;

use super::AwsOptions;
use super::valid::{self, Malformed};
use crate::foreign_text::visible;
use crate::platform::permissions::{self, Role};

/// Largest file that is read. Configurations of large organisations have some hundred kilobytes.
const LARGEST: u64 = 16 * 1024 * 1024;
const NO_FILE: &str = "is not an ordinary file";
const TOO_LARGE: &str = "is larger than 16 MB";

/// Checks the configuration and the credentials file. A file that does not exist counts as empty, as
/// for the AWS CLI; the SDK would take one that cannot be read for an empty one, too, and go on to
/// another identity.
///
/// # Errors
/// Names the file and the reason.
pub(super) async fn check(options: &AwsOptions) -> Result<(), String> {
    let paths = paths(options);
    let checked = tokio::task::spawn_blocking(move || paths.iter().try_for_each(|path| text(path)));
    checked.await.unwrap_or_else(|error| Err(error.to_string()))
}

/// Returns the paths of both files.
fn paths(options: &AwsOptions) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for (given, variable, default) in [
        (&options.config_file, "AWS_CONFIG_FILE", "config"),
        (
            &options.credentials_file,
            "AWS_SHARED_CREDENTIALS_FILE",
            "credentials",
        ),
    ] {
        let from_environment = || {
            let path = valid::variable(variable).ok()??;
            Some(in_home(Path::new(&path)))
        };
        let default = || Some(env::home_dir()?.join(".aws").join(default));
        paths.extend(given.clone().or_else(from_environment).or_else(default));
    }
    paths
}

/// Checks that a file, if it exists, is text.
fn text(path: &Path) -> Result<(), String> {
    let said = |reason: String| format!("{}: {reason}", visible(&path.to_string_lossy()));
    match std::fs::metadata(path) {
        Ok(found) if is_null(path, &found) => return Ok(()),
        Ok(_) => {}
        Err(_) => return Ok(()),
    }
    let bytes = permissions::read(Role::AwsFile, path, LARGEST);
    let bytes = bytes.map_err(|error| said(error.without_path()))?;
    match std::str::from_utf8(&bytes) {
        Ok(_) => Ok(()),
        Err(error) => Err(said(format!(
            "it is not UTF-8 text (byte {})",
            error.valid_up_to() + 1
        ))),
    }
}

/// Checks the file that an environment variable names as the place of a token.
///
/// # Errors
/// [`Malformed`], with the name of the variable.
pub(super) fn token(variable: &'static str) -> Result<(), Malformed> {
    let path = valid::variable(variable)?.unwrap_or_default();
    match fault(Path::new(&path)) {
        Some(fault) => Err(Malformed::of_environment(
            &format!("the file of {variable}"),
            fault,
        )),
        None => Ok(()),
    }
}

/// Checks the file that a key of a profile names.
///
/// # Errors
/// [`Malformed`], with the name of the key.
pub(super) fn of_profile(profile: &Profile, key: &str, path: &str) -> Result<(), Malformed> {
    match fault(&in_home(Path::new(path))) {
        Some(fault) => Err(Malformed::of_profile(
            profile,
            &format!("the file of {key}"),
            fault,
        )),
        None => Ok(()),
    }
}

/// Checks the file in which the AWS CLI keeps the token of an SSO session; `key` is the name of the
/// session, or the start URL of a profile without one.
///
/// # Errors
/// [`Malformed`], with the path.
pub(super) fn sso_cache(profile: &Profile, key: &str) -> Result<(), Malformed> {
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes());
    let name: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    let path = format!("~/.aws/sso/cache/{name}.json");
    match fault(&in_home(Path::new(&path))) {
        Some(fault) => Err(Malformed::of_profile(
            profile,
            &format!("the SSO token {path}"),
            fault,
        )),
        None => Ok(()),
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
        let bytes = permissions::read(Role::AwsFile, &path, LARGEST);
        bytes.map_err(|error| error.without_path())
    });
    read.await.unwrap_or_else(|error| Err(error.to_string()))
}

/// Returns a predicate for a path that must not be read. A path that does not exist, or that leads to a
/// directory, is for the reader to judge: the AWS CLI ignores both.
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

/// Whether the path is the null device, which is how configurations are switched off.
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

/// `~/x` in the home directory; the SDK expands no other form.
fn in_home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn only_what_ends_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        std::fs::write(&file, "[default]\n").unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        let large = dir.path().join("large");
        let made = std::fs::File::create(&large).unwrap();
        made.set_len(LARGEST + 1).unwrap();
        let latin = dir.path().join("latin");
        std::fs::write(&latin, b"# caf\xe9\n").unwrap();
        for (path, expected) in [
            (&file, ""),
            (&dir.path().join("missing"), ""),
            (&PathBuf::from("/dev/null"), ""),
            (&latin, "it is not UTF-8 text (byte 6)"),
            (&dir.path().to_owned(), "it is not an ordinary file"),
            (&pipe, "it is not an ordinary file"),
            (&large, "it is longer than 16777216 bytes"),
        ] {
            let said = text(path).err();
            let expected = match expected {
                "" => None,
                reason => Some(format!("{}: {reason}", path.display())),
            };
            assert_eq!(said, expected);
        }
        for (path, expected) in [
            (file.as_path(), None),
            (dir.path(), None),
            (Path::new("/dev/null"), None),
            (&dir.path().join("missing"), None),
            (&pipe, Some(NO_FILE)),
            (Path::new("/dev/zero"), Some(NO_FILE)),
            (&large, Some(TOO_LARGE)),
        ] {
            assert_eq!(fault(path), expected, "{}", path.display());
        }
    }

    #[tokio::test]
    async fn each_of_both_files_is_checked_and_named() {
        let zero = || Some(PathBuf::from("/dev/zero"));
        let null = || Some(PathBuf::from("/dev/null"));
        for (config_file, credentials_file) in [(zero(), null()), (null(), zero())] {
            let options = AwsOptions {
                config_file,
                credentials_file,
                ..AwsOptions::default()
            };
            let refused = check(&options).await.unwrap_err();
            assert_eq!(refused, "/dev/zero: it is not an ordinary file");
        }
    }
}
