//! Log file of a server that `pgiam up` started: `log/NAME.log` in the state directory, and one
//! predecessor, `log/NAME.log.1`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::time::interval;
use tracing::warn;

use crate::platform::{background, create_private_dir};

/// Size in bytes at which a new file begins: some 50,000 lines.
const FULL: u64 = 8 * 1024 * 1024;
/// Interval between two looks at the size.
const LOOK: Duration = Duration::from_secs(2);
/// Maximum bytes of a file that are read for the reason of a failed start.
const MOST: u64 = 64 * 1024;

/// Returns the log file of a server for these targets; without names, for all.
pub(super) fn path(state_dir: &Path, targets: &[String]) -> PathBuf {
    let mut name = String::from("pgiam");
    for target in targets {
        name.push('-');
        name.extend(target.chars().map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' => c,
            _ => '_',
        }));
    }
    name.truncate(100); // ASCII; file names may have 255 bytes.
    state_dir.join("log").join(format!("{name}.log"))
}

/// Opens the log file to append to it, readable by this user only. Begins a new file if it is full.
pub(super) fn open(path: &Path) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        create_private_dir(dir)?;
    }
    if fs::metadata(path).is_ok_and(|found| found.len() >= FULL) {
        fs::rename(path, predecessor(path))?;
    }
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn predecessor(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// Detaches this process from its terminal, and begins a new log file whenever the current one is
/// full or has been removed; on Windows only at the next start. The outputs of this process are in
/// that file already.
///
/// # Errors
/// Any error of the system.
pub(super) fn begin(path: &Path) -> anyhow::Result<()> {
    background::detach().context("cannot run in the background")?;
    if !background::CAN_REDIRECT {
        return Ok(());
    }
    let path = path.to_owned();
    tokio::spawn(async move {
        let mut look = interval(LOOK);
        loop {
            look.tick().await;
            if is_full(&path, FULL)
                && let Err(error) = open(&path).and_then(|file| background::redirect_output(&file))
            {
                warn!(%error, "cannot begin a new log file");
            }
        }
    });
    Ok(())
}

/// Returns `true` if the file has `full` bytes, or is gone.
fn is_full(path: &Path, full: u64) -> bool {
    match fs::metadata(path) {
        Ok(found) => found.len() >= full,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Returns the failure that ended a process whose output begins at `start`: its last message and
/// the remedy below, or its last lines.
pub(super) fn failure(path: &Path, start: u64) -> String {
    /// Number of lines without a message of the program.
    const LINES: usize = 5;
    let text = read(path, start).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let message = lines.iter().rposition(|line| line.starts_with("pgiam: "));
    let message = message.unwrap_or(lines.len().saturating_sub(LINES));
    lines.get(message..).unwrap_or_default().join("\n")
}

fn read(path: &Path, start: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let end = file.metadata()?.len();
    file.seek(SeekFrom::Start(start.max(end.saturating_sub(MOST))))?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_after_its_targets() {
        let at = |targets: &[&str]| {
            let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
            let path = path(Path::new("/s"), &targets);
            path.to_str().unwrap().to_owned()
        };
        assert_eq!(at(&[]), "/s/log/pgiam.log");
        assert_eq!(
            at(&["orders", "a b/../c"]),
            "/s/log/pgiam-orders-a_b____c.log"
        );
        assert!(at(&["ö".repeat(300).as_str()]).len() < 130);
    }

    #[test]
    fn a_full_file_is_replaced_and_one_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(dir.path(), &[]);
        io::Write::write_all(&mut open(&path).unwrap(), b"one\n").unwrap();
        assert!(!is_full(&path, 5) && is_full(&path, 4));
        fs::remove_file(&path).unwrap();
        assert!(is_full(&path, 5), "it is gone");
        for nth in 0..3 {
            let file = open(&path).unwrap();
            assert_eq!(file.metadata().unwrap().len(), 0, "{nth}");
            file.set_len(FULL).unwrap();
        }
        let mut names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        names.sort_by_key(|entry| entry.as_ref().unwrap().file_name());
        assert_eq!(names.len(), 2, "{names:?}");
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::PermissionsExt::mode(
                &fs::metadata(&path).unwrap().permissions(),
            );
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn the_reason_of_a_failed_start_is_its_last_message() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let before = "pgiam: an old failure\n";
        fs::write(
            &path,
            format!("{before}INFO begin\npgiam: no such file\nhint: write it:\n  pgiam init\n"),
        )
        .unwrap();
        let start = u64::try_from(before.len()).unwrap();
        assert_eq!(
            failure(&path, start),
            "pgiam: no such file\nhint: write it:\n  pgiam init"
        );
        fs::write(&path, "1\n2\n3\n4\n5\n6\n").unwrap();
        assert_eq!(failure(&path, 0), "2\n3\n4\n5\n6");
        assert_eq!(failure(&dir.path().join("none"), 0), "");
    }
}
