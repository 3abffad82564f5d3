//! Adds a profile to the AWS config file, as `aws configure sso` does.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use aws_profile::{FileInput, Files, MAX_FILE_BYTES};
use tokio::task::spawn_blocking;

use super::aws_files::config_path;
use crate::base::quote;
use crate::platform::create_private_dir;
use crate::platform::permissions::{self, FileRole};

/// A profile for a role of IAM Identity Center.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewProfile {
    /// Name of the `[sso-session …]` section.
    pub session: String,
    /// `sso_account_id`.
    pub account_id: String,
    /// `sso_role_name`.
    pub role_name: String,
    /// `region`.
    pub region: String,
}

/// Reason why a profile was not added.
#[derive(Debug, thiserror::Error)]
pub enum NewProfileError {
    /// Another profile has the name.
    #[error("another profile is named {0}; rename it in the AWS config file, or use it")]
    Exists(String),
    /// A value has a line break or the like.
    #[error("{0:?} cannot be written to the AWS config file")]
    Unwritable(String),
    /// The file cannot be read or written.
    #[error("cannot add a profile to {}: {reason}", quote::shown(.path))]
    File {
        /// Path of the config file.
        path: PathBuf,
        /// The problem.
        reason: String,
    },
}

impl NewProfile {
    /// Returns the name: `ROLE-ACCOUNT`, the default of `aws configure sso`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}-{}", self.role_name, self.account_id)
    }

    /// Appends the profile to the config file. The rest of the file stays the same, byte by byte.
    /// Returns `false` if the file has this profile already.
    ///
    /// # Errors
    /// [`NewProfileError`].
    pub async fn add(&self) -> Result<bool, NewProfileError> {
        self.add_to(PathBuf::from(config_path())).await
    }

    async fn add_to(&self, path: PathBuf) -> Result<bool, NewProfileError> {
        let (profile, target) = (self.clone(), path.clone());
        let added = spawn_blocking(move || profile.append(&target)).await;
        added.unwrap_or_else(|error| {
            let reason = error.to_string();
            Err(NewProfileError::File { path, reason })
        })
    }

    fn append(&self, path: &Path) -> Result<bool, NewProfileError> {
        let failed = |reason: String| NewProfileError::File {
            path: path.to_owned(),
            reason,
        };
        let values = [
            &self.session,
            &self.account_id,
            &self.role_name,
            &self.region,
        ];
        if let Some(value) = values.into_iter().find(|value| !is_writable(value)) {
            return Err(NewProfileError::Unwritable(value.clone()));
        }
        // A link stays a link.
        let path = &match path.canonicalize() {
            Ok(real) => real,
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(failed(error.to_string())),
        };
        let before = read(path).map_err(failed)?;
        let files = Files::parse(
            (&path.to_string_lossy(), FileInput::Contents(&before)),
            ("", FileInput::Missing),
        );
        if files.profile_names().contains(&self.name().as_str()) {
            return match self.is_in(&files) {
                true => Ok(false),
                false => Err(NewProfileError::Exists(self.name())),
            };
        }
        let after = [before.clone(), self.section(&before).into_bytes()].concat();
        let unchanged = || read(path).is_ok_and(|now| now == before);
        match replace(path, &after, unchanged) {
            Ok(true) => Ok(true),
            Ok(false) => Err(failed(
                "another program has changed it; try again".to_owned(),
            )),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// Returns `true` if the profile of this name has the same role of the same session.
    fn is_in(&self, files: &Files) -> bool {
        let Ok(Some(profile)) = files.profile(&self.name()) else {
            return false;
        };
        let settings = [
            ("sso_session", &self.session),
            ("sso_account_id", &self.account_id),
            ("sso_role_name", &self.role_name),
        ];
        settings.into_iter().all(|(key, expected)| {
            let found = profile.setting(key).ok().flatten();
            found.is_some_and(|found| found.as_str() == expected.as_str())
        })
    }

    /// Returns the text to append.
    fn section(&self, before: &[u8]) -> String {
        let end = match before.windows(2).any(|pair| pair == b"\r\n") {
            true => "\r\n",
            false => "\n",
        };
        let mut lines = Vec::new();
        match before {
            [] => {}
            [.., b'\n'] => lines.push(String::new()),
            _ => lines.extend([String::new(), String::new()]),
        }
        lines.extend([
            format!("[profile {}]", header_word(&self.name())),
            format!("sso_session = {}", self.session),
            format!("sso_account_id = {}", self.account_id),
            format!("sso_role_name = {}", self.role_name),
            format!("region = {}", self.region),
        ]);
        lines.iter().map(|line| line.clone() + end).collect()
    }
}

/// Quotes a name in a header as the AWS CLI does: only if it has a blank.
fn header_word(name: &str) -> String {
    match name.contains([' ', '\t']) {
        true => quote::posix(name),
        false => name.to_owned(),
    }
}

/// Returns `true` if the AWS CLI reads the value as it is written.
fn is_writable(value: &str) -> bool {
    !value.is_empty() && value.trim() == value && !value.chars().any(char::is_control)
}

/// Reads the file; a missing one is empty.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let most = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX);
    match permissions::read(FileRole::AwsFile, path, most) {
        Err(error) if error.io() == Some(io::ErrorKind::NotFound) => Ok(Vec::new()),
        read => read.map_err(|error| error.without_path()),
    }
}

/// Writes another file and renames it, with the permissions of the old one. Returns `false` if the
/// old one has changed meanwhile.
fn replace(path: &Path, contents: &[u8], unchanged: impl Fn() -> bool) -> io::Result<bool> {
    let dir = path.parent().unwrap_or(Path::new("."));
    create_private_dir(dir)?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(contents)?;
    if let Ok(found) = fs::metadata(path) {
        file.as_file().set_permissions(found.permissions())?;
    }
    file.as_file().sync_all()?;
    if !unchanged() {
        return Ok(false);
    }
    file.persist(path)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> NewProfile {
        NewProfile {
            session: "corp".to_owned(),
            account_id: "011122223333".to_owned(),
            role_name: "Dev".to_owned(),
            region: "eu-west-1".to_owned(),
        }
    }

    const SECTION: &str = "[profile Dev-011122223333]\nsso_session = corp\n\
                           sso_account_id = 011122223333\nsso_role_name = Dev\nregion = eu-west-1\n";

    #[tokio::test]
    async fn the_rest_of_the_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        for (before, between, is_crlf) in [
            ("", "", false),
            ("[default]\nregion = x\n", "\n", false),
            ("# caf\u{e9}\n[default]\nregion = x", "\n\n", false),
            ("[default]\r\nregion = x\r\n", "\r\n", true),
        ] {
            let path = dir.path().join("config");
            fs::write(&path, before).unwrap();
            profile().add_to(path.clone()).await.unwrap();
            let section = match is_crlf {
                true => SECTION.replace('\n', "\r\n"),
                false => SECTION.to_owned(),
            };
            let after = fs::read_to_string(&path).unwrap();
            assert_eq!(after, format!("{before}{between}{section}"));
            // The second day.
            assert!(!profile().add_to(path.clone()).await.unwrap());
            let other = NewProfile {
                session: "other".to_owned(),
                ..profile()
            };
            let refused = other.add_to(path.clone()).await;
            assert!(matches!(refused, Err(NewProfileError::Exists(_))));
            assert_eq!(fs::read_to_string(&path).unwrap(), after);
        }
    }

    #[tokio::test]
    async fn a_missing_file_is_created() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".aws/config");
        assert!(profile().add_to(path.clone()).await.unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), SECTION);
        let odd = NewProfile {
            session: "a\nb".to_owned(),
            ..profile()
        };
        let refused = odd.add_to(path).await;
        assert!(matches!(refused, Err(NewProfileError::Unwritable(_))));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn links_and_modes_stay() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("dotfile"), dir.path().join("config"));
        fs::write(&real, "").unwrap();
        fs::set_permissions(&real, PermissionsExt::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("dotfile", &link).unwrap();
        profile().add_to(link.clone()).await.unwrap();
        assert!(link.is_symlink());
        let mode = fs::metadata(&real).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o640);
        assert_eq!(fs::read_to_string(&real).unwrap(), SECTION);
    }
}
