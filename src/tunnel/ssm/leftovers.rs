//! Ends sessions that a killed pgiam has left open at AWS.
//!
//! Each open session has a file in the runtime directory, with the data to end it and no token. The
//! process that opened the session holds a lock on the file, which the kernel releases when the
//! process ends in any way. So a file that can be locked has lost its owner: the next pgiam ends
//! its session. Several pgiams at once leave each other's sessions alone.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tracing::{debug, info};
use uuid::Uuid;

use super::api;
use crate::aws::{AwsContext, AwsOptions};
use crate::base::names::{Region, SessionId};
use crate::platform;

/// Time for which later processes retry ending a session. The longest idle timeout of an account is
/// an hour.
const TRIED_FOR: Duration = Duration::from_secs(60 * 60);
/// Timeout for all of them together.
const DEADLINE: Duration = Duration::from_secs(60);
/// Most sessions that one process ends.
const MOST: usize = 200;

/// Prefix and suffix of the files' names.
const NAME: (&str, &str) = ("pgiam.", ".session");
/// Suffix while the file is being written.
const UNFINISHED: &str = ".session.new";

/// The directory of this process, once it is known.
static BOOK: OnceLock<LeftoverDirectory> = OnceLock::new();

/// Records the sessions of this process in `dir` from now on, and ends in the background those that
/// other processes have left there. Must be called inside a Tokio runtime. An unusable directory is
/// logged at debug level; then nothing is recorded.
pub fn keep_in(dir: &Path) {
    if let Err(error) = platform::socket::prepare_dir(dir) {
        debug!(reason = %error, "cannot record open sessions");
        return;
    }
    let book = LeftoverDirectory {
        dir: dir.to_owned(),
    };
    let orphans = book.orphans();
    if BOOK.set(book).is_err() {
        return; // Once is enough.
    }
    if !orphans.is_empty() {
        tokio::spawn(async move {
            if timeout(DEADLINE, end_all(orphans)).await.is_err() {
                debug!("ending the sessions of earlier processes timed out");
            }
        });
    }
}

/// Records a session that has just been started; `None` if recording is off.
pub(super) async fn note(
    aws: &AwsContext,
    region: &Region,
    session_id: &SessionId,
) -> Option<SessionRecord> {
    let book = BOOK.get()?;
    let entry = LeftoverSession {
        session_id: session_id.to_owned(),
        region: region.to_owned(),
        profile: aws.profile().map(str::to_owned),
        endpoints: endpoints(aws).await?,
        failed_since: None,
    };
    let noted = book.note(&entry);
    noted
        .inspect_err(|error| debug!(reason = %error, %session_id, "cannot record the session"))
        .ok()
}

/// Returns the endpoints configured for AWS: a session exists only at its own endpoint.
async fn endpoints(aws: &AwsContext) -> Option<Vec<String>> {
    let endpoints = aws.endpoints().await.ok()?;
    Some(
        endpoints
            .configured
            .iter()
            .map(ToString::to_string)
            .collect(),
    )
}

/// Data to end a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LeftoverSession {
    session_id: SessionId,
    region: Region,
    /// The profile in the target's configuration.
    profile: Option<String>,
    endpoints: Vec<String>,
    /// Time of the first failed attempt of a later process, in seconds since the epoch.
    failed_since: Option<u64>,
}

/// The directory with the files.
#[derive(Debug)]
struct LeftoverDirectory {
    dir: PathBuf,
}

/// The file of an open session of this process. Dropping it leaves the file to later processes.
#[derive(Debug)]
pub(super) struct SessionRecord {
    path: PathBuf,
    /// Holds the lock.
    _file: File,
}

impl SessionRecord {
    /// Removes the file because the session is over at AWS.
    pub(super) fn over(self) {
        remove(&self.path);
    }
}

/// The file of a session without a process, locked by this one.
#[derive(Debug)]
struct OrphanedSession {
    entry: LeftoverSession,
    path: PathBuf,
    file: File,
}

impl LeftoverDirectory {
    /// Writes a file. It gets its name once it is complete and locked.
    fn note(&self, entry: &LeftoverSession) -> io::Result<SessionRecord> {
        let id = Uuid::new_v4().simple();
        let unfinished = self.dir.join(format!("{}{id}{UNFINISHED}", NAME.0));
        let path = self.dir.join(format!("{}{id}{}", NAME.0, NAME.1));
        platform::write_private_file(&unfinished, b"")?;
        let written = (|| {
            let mut file = open(&unfinished)?;
            file.try_lock()?;
            write(&mut file, entry)?;
            std::fs::rename(&unfinished, &path)?;
            Ok(file)
        })();
        match written {
            Ok(file) => Ok(SessionRecord { path, _file: file }),
            Err(error) => {
                remove(&unfinished);
                Err(error)
            }
        }
    }

    /// Returns the files of processes that are gone. Unreadable files are removed.
    fn orphans(&self) -> Vec<OrphanedSession> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let ours = entries.filter_map(|entry| {
            let name = entry.file_name();
            let name = name.to_str()?.strip_prefix(NAME.0)?;
            let is_ours = name.ends_with(NAME.1) || name.ends_with(UNFINISHED);
            is_ours.then(|| entry.path())
        });
        ours.filter_map(|path| OrphanedSession::take(&path))
            .take(MOST)
            .collect()
    }
}

impl OrphanedSession {
    /// Takes over a file unless its process lives.
    fn take(path: &Path) -> Option<Self> {
        let mut file = open(path).ok()?;
        file.try_lock().ok()?;
        // Another process may have handled it before this one had the lock, or its own process may
        // be about to rename it.
        if !path.exists() {
            return None;
        }
        let mut text = String::new();
        let read = file.read_to_string(&mut text);
        match serde_json::from_str(&text) {
            Ok(entry) if read.is_ok() => Some(Self {
                entry,
                path: path.to_owned(),
                file,
            }),
            _ if path.extension().is_some_and(|end| end == "new") => None,
            _ => {
                remove(path);
                None
            }
        }
    }

    /// Removes the file because the session is over.
    fn over(self) {
        remove(&self.path);
    }

    /// Records a failed attempt at this time: later processes retry for a while.
    fn failed(mut self, now: u64) {
        let since = *self.entry.failed_since.get_or_insert(now);
        let session_id = &self.entry.session_id;
        if now.saturating_sub(since) >= TRIED_FOR.as_secs() {
            info!(
                %session_id,
                "giving up on a session that an earlier process left open"
            );
            return self.over();
        }
        if let Err(error) = write(&mut self.file, &self.entry) {
            debug!(reason = %error, %session_id, "cannot update the record of an open session");
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

fn write(file: &mut File, entry: &LeftoverSession) -> io::Result<()> {
    let text = serde_json::to_vec(entry)?;
    file.rewind()?;
    file.write_all(&text)?;
    file.set_len(text.len() as u64)
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        debug!(reason = %error, path = %path.display(), "cannot remove the record of a session");
    }
}

/// Ends the sessions in sequence.
async fn end_all(orphans: Vec<OrphanedSession>) {
    let mut contexts: Vec<(LeftoverSession, Arc<AwsContext>)> = Vec::new();
    for orphan in orphans {
        let entry = &orphan.entry;
        let same = |(other, _): &&(LeftoverSession, Arc<AwsContext>)| {
            (&other.profile, &other.region) == (&entry.profile, &entry.region)
        };
        let aws = match contexts.iter().find(same) {
            Some((_, aws)) => Arc::clone(aws),
            None => {
                let aws = Arc::new(AwsContext::new(AwsOptions {
                    profile: entry.profile.clone(),
                    region: Some(entry.region.clone()),
                    ..AwsOptions::default()
                }));
                contexts.push((entry.clone(), Arc::clone(&aws)));
                aws
            }
        };
        if end(&aws, entry).await {
            info!(
                session_id = %entry.session_id,
                "ended a session that an earlier process left open"
            );
            orphan.over();
        } else {
            debug!(
                session_id = %entry.session_id,
                "cannot end a session that an earlier process left open; pgiam retries at the next start"
            );
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            orphan.failed(now.unwrap_or_default().as_secs());
        }
    }
}

/// Ends a session; returns true if that worked. Sends requests only to the endpoints configured
/// now, whatever the file says.
async fn end(aws: &AwsContext, entry: &LeftoverSession) -> bool {
    if endpoints(aws).await.as_ref() != Some(&entry.endpoints) {
        return false;
    }
    match aws.ssm(&entry.region).await {
        Ok(client) => api::terminate_session(&client, &entry.session_id).await,
        Err(error) => {
            debug!(reason = %error, "cannot load AWS credentials to end a session");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str) -> LeftoverSession {
        LeftoverSession {
            session_id: id.to_owned().into(),
            region: "eu-central-1".to_owned().into(),
            profile: Some("dev".to_owned()),
            endpoints: vec!["https://localhost:1/".to_owned()],
            failed_since: None,
        }
    }

    fn book() -> (tempfile::TempDir, LeftoverDirectory) {
        let dir = tempfile::tempdir().unwrap();
        let book = LeftoverDirectory {
            dir: dir.path().to_owned(),
        };
        (dir, book)
    }

    fn files(book: &LeftoverDirectory) -> usize {
        std::fs::read_dir(&book.dir).unwrap().count()
    }

    #[test]
    fn a_session_is_left_alone_while_its_process_lives() {
        let (_dir, book) = book();
        let record = book.note(&entry("s-1")).unwrap();
        assert!(book.orphans().is_empty());
        drop(record); // As when the process ends.
        let orphans = book.orphans();
        assert_eq!(orphans.len(), 1);
        assert_eq!(orphans[0].entry, entry("s-1"));
        assert!(book.orphans().is_empty(), "one process takes it over");
        orphans.into_iter().for_each(OrphanedSession::over);
        assert_eq!(files(&book), 0);
    }

    #[test]
    fn a_session_that_ended_in_order_leaves_nothing() {
        let (_dir, book) = book();
        book.note(&entry("s-1")).unwrap().over();
        assert_eq!(files(&book), 0);
    }

    #[test]
    fn what_cannot_be_ended_is_tried_again_for_a_while() {
        let (_dir, book) = book();
        drop(book.note(&entry("s-1")).unwrap());
        let limit = TRIED_FOR.as_secs();
        for now in [1_000, 1_000 + limit - 1] {
            let orphan = book.orphans().pop().unwrap();
            orphan.failed(now);
        }
        let orphan = book.orphans().pop().unwrap();
        assert_eq!(orphan.entry.failed_since, Some(1_000));
        orphan.failed(1_000 + limit);
        assert_eq!(files(&book), 0);
    }

    #[test]
    fn files_of_others_are_left_alone_and_broken_ones_removed() {
        let (_dir, book) = book();
        for name in ["pgiam.17.sock", "notes.session", "pgiam.x.session"] {
            std::fs::write(book.dir.join(name), "{").unwrap();
        }
        assert!(book.orphans().is_empty());
        assert_eq!(files(&book), 2, "the broken one is gone");
    }

    #[cfg(unix)]
    #[test]
    fn only_this_user_can_read_the_files() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_dir, book) = book();
        let record = book.note(&entry("s-1")).unwrap();
        let mode = std::fs::metadata(&record.path)
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
