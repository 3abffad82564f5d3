//! Service managers: the files and commands that make pgiam a service of one account.
//!
//! This module computes texts and command lines and changes nothing. The files in `deploy/` are the
//! templates. All three managers are compiled everywhere, so that their texts can be tested; the
//! commands for macOS and Windows are written from their documentation and not tried.

pub mod launchd;
pub mod systemd;
pub mod tasks;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Service to install.
#[derive(Clone, Debug, Default)]
pub struct ServiceSpec {
    /// Path of the program.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables that the service gets.
    pub environment: BTreeMap<String, String>,
    /// Working directory, if arguments may be relative to it.
    pub directory: Option<String>,
    /// Seconds that open connections may take to end when the service stops.
    pub drain_timeout: u64,
    /// Addresses and paths on which the manager listens for pgiam; `None`: pgiam listens itself.
    pub sockets: Option<Vec<String>>,
}

/// Command line of a tool of the manager.
pub type CommandLine = Vec<String>;

/// A file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedFile {
    /// Path of the file.
    pub path: PathBuf,
    /// Contents, with a [`seal`].
    pub text: String,
    /// The file is written as UTF-16 with a byte order mark.
    pub is_utf16: bool,
}

/// Steps of an installation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstallPlan {
    /// Files to write.
    pub files: Vec<PlannedFile>,
    /// Files of another kind of installation, to remove.
    pub obsolete: Vec<PathBuf>,
    /// Commands to run before the files are written; their failure does not matter.
    pub before: Vec<CommandLine>,
    /// Commands to run after the files are written.
    pub after: Vec<CommandLine>,
}

/// Returns a command line from words without spaces inside.
pub(crate) fn words(line: &str) -> CommandLine {
    line.split_whitespace().map(str::to_owned).collect()
}

/// Mark of a file that pgiam wrote; the checksum follows.
const MARK: &str = "pgiam service install, checksum ";
/// Place of the checksum in a text without one.
const EMPTY: &str = "0000000000000000";

/// Returns the line to put into a file as a comment.
#[must_use]
pub fn mark() -> String {
    format!("Written by {MARK}{EMPTY}")
}

/// Writes the checksum of a text into its [mark]. It shows later whether someone has changed the
/// file; it protects against nothing.
#[must_use]
pub fn seal(text: &str) -> String {
    let sum = format!("{:016x}", fnv1a(text));
    text.replacen(&format!("{MARK}{EMPTY}"), &format!("{MARK}{sum}"), 1)
}

/// Origin of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileOrigin {
    /// There is no file.
    Missing,
    /// pgiam wrote the file, and it is unchanged.
    Ours,
    /// pgiam wrote the file, and it has been changed since.
    Changed,
    /// Something else wrote the file, or it is a symbolic link.
    Foreign,
}

/// Returns the origin of a file and its text.
///
/// # Errors
/// Any error of the file system other than a missing file.
pub fn origin(path: &Path) -> io::Result<(FileOrigin, String)> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => return Ok((FileOrigin::Foreign, String::new())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok((FileOrigin::Missing, String::new()));
        }
        Err(error) => return Err(error),
    }
    let text = decoded(&std::fs::read(path)?);
    Ok((origin_of(&text), text))
}

fn origin_of(text: &str) -> FileOrigin {
    let Some(at) = text.find(MARK).map(|at| at + MARK.len()) else {
        return FileOrigin::Foreign;
    };
    let (before, rest) = text.split_at(at);
    match rest.split_at_checked(EMPTY.len()) {
        Some((sum, after))
            if format!("{:016x}", fnv1a(&format!("{before}{EMPTY}{after}"))) == sum =>
        {
            FileOrigin::Ours
        }
        _ => FileOrigin::Changed,
    }
}

/// FNV-1a with 64 bits.
fn fnv1a(text: &str) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    text.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, step)
}

impl PlannedFile {
    /// Writes the file under a temporary name and renames it. Creates its directory.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn write(&self) -> io::Result<()> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir)?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(".pgiam-");
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
        let mut file = builder.tempfile_in(dir)?;
        file.write_all(&self.bytes())?;
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        Ok(())
    }

    fn bytes(&self) -> Vec<u8> {
        if !self.is_utf16 {
            return self.text.as_bytes().to_vec();
        }
        let units = std::iter::once(0xfeff).chain(self.text.encode_utf16());
        units.flat_map(u16::to_le_bytes).collect()
    }
}

fn decoded(bytes: &[u8]) -> String {
    match bytes {
        [0xff, 0xfe, rest @ ..] => {
            let (pairs, _) = rest.as_chunks::<2>();
            let units: Vec<u16> = pairs.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
            String::from_utf16_lossy(&units)
        }
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// Escapes a text for XML.
fn xml(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Replaces the part of `text` from `start` up to `end`, both included. The templates are part of
/// the program, and a test covers each call, so a missing part leaves the text as it is.
fn replaced(text: &str, start: &str, end: &str, by: &str) -> String {
    let Some((before, rest)) = text.split_once(start) else {
        return text.to_owned();
    };
    let Some((_, after)) = rest.split_once(end) else {
        return text.to_owned();
    };
    format!("{before}{by}{after}")
}

#[cfg(test)]
mod tests;
