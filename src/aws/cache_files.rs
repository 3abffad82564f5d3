//! Reading and writing the caches of the AWS CLI below `~/.aws`.
//!
//! Other programs read and write the same files, without locks. A file is therefore read again if it
//! does not parse, and written as a temporary file that replaces it by rename.

use std::io;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_profile::{
    CacheDir, CacheFault, CachedCredentials, Homes, MAX_CACHE_FILE_BYTES, SecretText, Variables,
    cache_dir,
};
use tempfile::NamedTempFile;
use thiserror::Error;
use tokio::time::{sleep, timeout};

use super::files::{self, PLATFORM};
use super::validation;
use crate::base::quote::shown;
use crate::base::redacted::Redacted;
use crate::platform::create_private_dir;
use crate::platform::permissions::{self, FileRole};

/// Pauses before a file that does not parse is read again: the AWS CLI empties a file and then
/// writes it at once.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(30),
    Duration::from_millis(40),
];
/// Deadline for one operation: a home directory may be on a file server that does not answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// Maximum number of files in a list. Each role of each session has one.
const MOST_FILES: usize = 10_000;

/// A cache file or directory that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("cannot {action} {}: {reason}", shown(.path))]
pub struct CacheFileError {
    /// The operation as a verb: "read", "write", "remove", "list".
    pub action: &'static str,
    /// Path of the file or directory.
    pub path: PathBuf,
    /// Reason, without contents of the file.
    pub reason: String,
}

/// The cache directories of this user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheFiles {
    sso: PathBuf,
    cli: PathBuf,
    login: PathBuf,
}

impl CacheFiles {
    /// Returns the directories that the AWS CLI uses with these environment variables.
    #[must_use]
    pub fn of_environment() -> Self {
        let variable = |name: &str| validation::variable(name).ok().flatten();
        Self::with(&variable, &files::home)
    }

    fn with(variable: Variables<'_>, homes: Homes<'_>) -> Self {
        let path = |dir| PathBuf::from(cache_dir(dir, PLATFORM, variable, homes));
        Self {
            sso: path(CacheDir::Sso),
            cli: path(CacheDir::Cli),
            login: path(CacheDir::Login),
        }
    }

    /// Returns the directories below a home directory.
    #[cfg(test)]
    pub(crate) fn below(home: &Path) -> Self {
        let home = |_: Option<&str>| Some(home.to_str().unwrap().to_owned());
        Self::with(&|_| None, &home)
    }

    /// Returns the path of a directory.
    #[must_use]
    pub fn dir(&self, dir: CacheDir) -> &Path {
        match dir {
            CacheDir::Sso => &self.sso,
            CacheDir::Cli => &self.cli,
            CacheDir::Login => &self.login,
        }
    }

    /// Returns the path of a file.
    #[must_use]
    pub fn path(&self, dir: CacheDir, name: &str) -> PathBuf {
        self.dir(dir).join(name)
    }

    /// Reads and parses a file; `None` if it does not exist. A file that may be in the middle of a
    /// write is read again within 100 ms. Cancel-safe.
    ///
    /// # Errors
    /// [`CacheFileError`].
    pub async fn read<T>(
        &self,
        dir: CacheDir,
        name: &str,
        parse: impl Fn(&[u8]) -> Result<T, CacheFault>,
    ) -> Result<Option<T>, CacheFileError> {
        let path = self.path(dir, name);
        let mut pauses = PAUSES.iter();
        loop {
            let copy = path.clone();
            let read = move || read(&copy);
            let Some(bytes) = blocking("read", &path, read).await? else {
                return Ok(None);
            };
            let fault = match parse(bytes.expose()) {
                Ok(parsed) => return Ok(Some(parsed)),
                Err(fault) => fault,
            };
            match pauses.next().filter(|_| fault.may_be_partial()) {
                Some(pause) => sleep(*pause).await,
                None => return Err(failed("read", &path)(fault)),
            }
        }
    }

    /// Writes a file: see [`CacheFiles::begin_write`].
    ///
    /// # Errors
    /// [`CacheFileError`].
    pub async fn write(
        &self,
        dir: CacheDir,
        name: &str,
        contents: SecretText,
    ) -> Result<(), CacheFileError> {
        self.begin_write(dir, name).await?.commit(contents).await
    }

    /// Creates the temporary file of a write, with mode 0600, and missing directories with mode
    /// 0700. A caller whose contents cannot be requested twice begins before it requests them. If
    /// the path is a symbolic link, the file that it points to is replaced.
    ///
    /// # Errors
    /// [`CacheFileError`].
    pub async fn begin_write(
        &self,
        dir: CacheDir,
        name: &str,
    ) -> Result<PendingFile, CacheFileError> {
        let path = self.path(dir, name);
        let copy = path.clone();
        blocking("write", &path, move || begin(copy)).await
    }

    /// Returns the names of the JSON files in a directory, sorted. A missing directory is empty.
    ///
    /// # Errors
    /// [`CacheFileError`], also for more than 10,000 entries.
    pub async fn list(&self, dir: CacheDir) -> Result<Vec<String>, CacheFileError> {
        let path = self.dir(dir).to_owned();
        let copy = path.clone();
        blocking("list", &path, move || list(&copy)).await
    }

    /// Removes a file, or the symbolic link at its path. Returns whether it existed.
    ///
    /// # Errors
    /// [`CacheFileError`].
    pub async fn remove(&self, dir: CacheDir, name: &str) -> Result<bool, CacheFileError> {
        let path = self.path(dir, name);
        let copy = path.clone();
        let remove = move || match std::fs::remove_file(&copy) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.to_string()),
        };
        blocking("remove", &path, remove).await
    }
}

/// Converts cached keys to the SDK's type.
pub(super) fn sdk_credentials(keys: &CachedCredentials, provider: &'static str) -> Credentials {
    let expires_at = u64::try_from(keys.expires_at).unwrap_or_default();
    let builder = Credentials::builder()
        .access_key_id(keys.access_key_id.clone())
        .secret_access_key(keys.secret_access_key.expose())
        .session_token(keys.session_token.expose())
        .expiry(SystemTime::UNIX_EPOCH + Duration::from_secs(expires_at))
        .provider_name(provider);
    match keys.account_id.as_deref() {
        Some(account_id) => builder.account_id(account_id).build(),
        None => builder.build(),
    }
}

/// A write that has begun. Dropping it removes the temporary file.
#[derive(Debug)]
pub struct PendingFile {
    path: PathBuf,
    temporary: NamedTempFile,
}

impl PendingFile {
    /// Writes the contents to the disk and moves them to the path.
    ///
    /// # Errors
    /// [`CacheFileError`].
    pub async fn commit(self, contents: SecretText) -> Result<(), CacheFileError> {
        let path = self.path.clone();
        blocking("write", &path, move || self.replace(&contents)).await
    }

    fn replace(mut self, contents: &SecretText) -> Result<(), String> {
        let written = self
            .temporary
            .write_all(contents.expose().as_bytes())
            .and_then(|()| self.temporary.as_file().sync_all());
        written.map_err(|error| error.to_string())?;
        let moved = self.temporary.persist(&self.path);
        moved.map(drop).map_err(|error| error.error.to_string())
    }
}

/// Runs blocking work in a thread for it, within the deadline.
async fn blocking<T: Send + 'static>(
    action: &'static str,
    path: &Path,
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, CacheFileError> {
    let failed = failed(action, path);
    match timeout(DEADLINE, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(done)) => done.map_err(failed),
        Ok(Err(stopped)) => Err(failed(stopped.to_string())),
        Err(_) => Err(failed(format!(
            "the file system did not answer within {} s",
            DEADLINE.as_secs()
        ))),
    }
}

fn failed<R: ToString>(action: &'static str, path: &Path) -> impl FnOnce(R) -> CacheFileError {
    let path = path.to_owned();
    move |reason| CacheFileError {
        action,
        path,
        reason: reason.to_string(),
    }
}

fn read(path: &Path) -> Result<Option<Redacted<Vec<u8>>>, String> {
    match permissions::read(FileRole::AwsFile, path, MAX_CACHE_FILE_BYTES) {
        Ok(bytes) => Ok(Some(Redacted::new(bytes))),
        Err(error) if error.io() == Some(io::ErrorKind::NotFound) => Ok(None),
        Err(error) => Err(error.without_path()),
    }
}

fn begin(path: PathBuf) -> Result<PendingFile, String> {
    let is_link = std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_symlink());
    // A link without a target is replaced itself.
    let path = match is_link.then(|| path.canonicalize()) {
        Some(Ok(target)) => target,
        _ => path,
    };
    let dir = path.parent().unwrap_or(&path);
    create_private_dir(dir).map_err(|error| error.to_string())?;
    // Readers of a whole directory take "*.json".
    let temporary = tempfile::Builder::new()
        .prefix(".pgiam-")
        .suffix(".tmp")
        .tempfile_in(dir);
    let temporary = temporary.map_err(|error| error.to_string())?;
    Ok(PendingFile { path, temporary })
}

fn list(dir: &Path) -> Result<Vec<String>, String> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.to_string()),
    };
    let mut names = Vec::new();
    for (count, entry) in entries.enumerate() {
        if count == MOST_FILES {
            return Err(format!("it has more than {MOST_FILES} entries"));
        }
        let name = entry.map_err(|error| error.to_string())?.file_name();
        names.extend(
            name.into_string()
                .ok()
                .filter(|name| name.ends_with(".json")),
        );
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use aws_profile::LoginToken;

    use super::*;

    fn text(bytes: &[u8]) -> Result<String, CacheFault> {
        let partial = CacheFault::NotJson { line: 1, column: 0 };
        match bytes {
            [] => Err(partial),
            [b'!', ..] => Err(CacheFault::NotAnObject),
            bytes => Ok(String::from_utf8(bytes.to_vec()).unwrap()),
        }
    }

    #[cfg(unix)]
    fn mode(path: &Path) -> u32 {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn files_are_replaced_and_private() {
        let home = tempfile::tempdir().unwrap();
        let files = CacheFiles::below(home.path());
        let dir = files.dir(CacheDir::Sso).to_owned();
        assert_eq!(dir, home.path().join(".aws/sso/cache"));
        assert_eq!(files.list(CacheDir::Sso).await, Ok(Vec::new()));
        assert_eq!(files.read(CacheDir::Sso, "a.json", text).await, Ok(None));
        for contents in ["one", "two"] {
            let written = files
                .write(CacheDir::Sso, "a.json", SecretText::new(contents))
                .await;
            assert_eq!(written, Ok(()));
            let read = files.read(CacheDir::Sso, "a.json", text).await;
            assert_eq!(read.unwrap().as_deref(), Some(contents));
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                assert_eq!(mode(&dir.join("a.json")), 0o600);
                assert_eq!(mode(&dir), 0o700);
                assert_eq!(mode(&home.path().join(".aws")), 0o700);
                let open = std::fs::Permissions::from_mode(0o644);
                std::fs::set_permissions(dir.join("a.json"), open).unwrap();
            }
        }
        // A write that is given up leaves nothing.
        drop(files.begin_write(CacheDir::Sso, "b.json").await.unwrap());
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
        std::fs::write(dir.join("other.txt"), "").unwrap();
        assert_eq!(
            files.list(CacheDir::Sso).await,
            Ok(vec!["a.json".to_owned()])
        );
        assert_eq!(files.remove(CacheDir::Sso, "a.json").await, Ok(true));
        assert_eq!(files.remove(CacheDir::Sso, "a.json").await, Ok(false));
    }

    #[tokio::test]
    async fn a_half_written_file_is_read_again() {
        let home = tempfile::tempdir().unwrap();
        let files = CacheFiles::below(home.path());
        files
            .write(CacheDir::Cli, "a.json", SecretText::new(""))
            .await
            .unwrap();
        let path = files.path(CacheDir::Cli, "a.json");
        let attempts = std::sync::atomic::AtomicUsize::new(0);
        let parse = |bytes: &[u8]| {
            if attempts.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 2 {
                std::fs::write(&path, "done").unwrap();
            }
            text(bytes)
        };
        let read = files.read(CacheDir::Cli, "a.json", parse).await;
        assert_eq!(read.unwrap().as_deref(), Some("done"));
        assert_eq!(attempts.into_inner(), 4);
        for (contents, reason) in [
            ("", "the file is not valid JSON (line 1, column 0)"),
            ("!", "the file is not a JSON object"),
        ] {
            std::fs::write(&path, contents).unwrap();
            let error = files.read(CacheDir::Cli, "a.json", text).await.unwrap_err();
            assert_eq!(error.reason, reason);
            assert_eq!(
                error.to_string(),
                format!("cannot read {}: {reason}", path.display())
            );
        }
    }

    #[tokio::test]
    async fn other_kinds_and_huge_files_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let files = CacheFiles::below(home.path());
        let dir = files.dir(CacheDir::Login).to_owned();
        std::fs::create_dir_all(dir.join("dir.json")).unwrap();
        let huge = std::fs::File::create(dir.join("huge.json")).unwrap();
        huge.set_len(1 << 40).unwrap();
        let read = async |name| files.read(CacheDir::Login, name, LoginToken::parse).await;
        let reason = async |name| read(name).await.unwrap_err().reason;
        assert_eq!(reason("dir.json").await, "it is not a regular file");
        assert_eq!(reason("huge.json").await, "it is longer than 65536 bytes");
        #[cfg(unix)]
        {
            let made = std::process::Command::new("mkfifo")
                .arg(dir.join("pipe.json"))
                .status();
            assert!(made.unwrap().success());
            std::os::unix::fs::symlink("/dev/null", dir.join("null.json")).unwrap();
            assert_eq!(reason("pipe.json").await, "it is not a regular file");
            assert_eq!(reason("null.json").await, "it is not a regular file");
        }
        // The directory is a file.
        std::fs::write(home.path().join(".aws/cli"), "").unwrap();
        let error = files
            .write(CacheDir::Cli, "a.json", SecretText::new("x"))
            .await;
        assert_eq!(error.unwrap_err().action, "write");
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_link_stays_and_its_target_is_replaced() {
        use std::os::unix::fs::symlink;
        let home = tempfile::tempdir().unwrap();
        let files = CacheFiles::below(home.path());
        let elsewhere = home.path().join("dotfiles");
        std::fs::create_dir(&elsewhere).unwrap();
        std::fs::write(elsewhere.join("token"), "old").unwrap();
        let dir = files.dir(CacheDir::Sso);
        std::fs::create_dir_all(dir).unwrap();
        symlink(elsewhere.join("token"), dir.join("a.json")).unwrap();
        symlink(elsewhere.join("gone"), dir.join("b.json")).unwrap();
        for name in ["a.json", "b.json"] {
            files
                .write(CacheDir::Sso, name, SecretText::new("new"))
                .await
                .unwrap();
            assert_eq!(std::fs::read_to_string(dir.join(name)).unwrap(), "new");
        }
        assert_eq!(
            std::fs::read_to_string(elsewhere.join("token")).unwrap(),
            "new"
        );
        assert!(dir.join("a.json").is_symlink() && !dir.join("b.json").is_symlink());
        assert!(!elsewhere.join("gone").exists());
    }

    /// The AWS CLI in the same directory: it empties and writes in place, and pgiam renames.
    #[tokio::test(flavor = "multi_thread")]
    async fn readers_always_see_a_whole_file() {
        let home = tempfile::tempdir().unwrap();
        let files = CacheFiles::below(home.path());
        let login = |account: usize| {
            SecretText::new(format!(
                r#"{{"accessToken": {{"accountId": "{account}", "expiresAt": "2030-01-01T00:00:00Z"}}}}"#
            ))
        };
        files
            .write(CacheDir::Login, "a.json", login(0))
            .await
            .unwrap();
        let writer = {
            let files = files.clone();
            tokio::spawn(async move {
                let path = files.path(CacheDir::Login, "a.json");
                for account in 0..100 {
                    match account % 2 {
                        0 => files
                            .write(CacheDir::Login, "a.json", login(account))
                            .await
                            .unwrap(),
                        _ => std::fs::write(&path, login(account).expose()).unwrap(),
                    }
                }
            })
        };
        let mut reads = 0;
        while !writer.is_finished() {
            let read = files
                .read(CacheDir::Login, "a.json", LoginToken::parse)
                .await;
            assert!(read.unwrap().is_some());
            reads += 1;
        }
        assert!(reads > 0);
        writer.await.unwrap();
    }
}
