//! Required owners and modes of security-relevant files and directories: one table, and the
//! functions that check a path against it.
//!
//! Each file is opened first and checked through its descriptor, so that the checked file is the
//! one that is read. A pipe or a device is never opened for reading, because that could block
//! forever. Access control lists are not checked. On systems without owners and modes only the kind
//! is checked.

mod open;
#[cfg(unix)]
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

#[cfg(unix)]
use self::open::failed;
pub use self::open::{CheckedDir, contents, examine, open, read};
use crate::base::quote;
use crate::base::quote::shown;

/// Purpose of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileRole {
    /// Directory of the certificate for local clients and the default sockets.
    StateDir,
    /// Directory of the Unix sockets.
    SocketDir,
    /// Directory of the key and the certificate for local clients.
    CertificateDir,
    /// Private key of that certificate.
    Key,
    /// Certificate for local clients.
    Certificate,
    /// File with the local password.
    PasswordFile,
    /// Configuration file.
    ConfigFile,
    /// Configuration file that was found in a parent directory.
    ProjectFile,
    /// Configuration file that restricts the clients, or sets the authorities trusted for a
    /// database.
    SecurityFile,
    /// Certificate authorities trusted for a database.
    CaFile,
    /// A file of the AWS tools: configuration, credentials, token, authorities for AWS services.
    AwsFile,
}

/// Requirements for a path.
#[cfg_attr(
    not(unix),
    expect(dead_code, reason = "Windows has no owners and modes of this kind")
)]
struct PermissionRule {
    /// Name in messages.
    name: &'static str,
    is_dir: bool,
    /// The path may be a symbolic link.
    link: bool,
    /// Permitted owners.
    owner: FileOwner,
    /// Forbidden permission bits if this user owns it.
    own: u32,
    /// Forbidden permission bits if root owns it.
    roots: u32,
    /// Other users may write to the directory if its sticky bit is set, which keeps them from
    /// removing this user's files.
    sticky: bool,
    /// Members of the owner's own group may write to it, and a link to it must be of a permitted
    /// owner.
    own_group: bool,
    /// Other users must not be able to replace it: its parent directories are checked, too.
    parents: bool,
    /// Mode for `chmod` in the remedy.
    chmod: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FileOwner {
    Us,
    UsOrRoot,
    /// A file that a container gets from its host has the host's owner.
    Anybody,
}

/// Bits that let other users write.
const WRITTEN_BY_OTHERS: u32 = 0o022;
/// Bits that give other users any access.
const OPEN_TO_OTHERS: u32 = 0o077;
/// Bits that PostgreSQL refuses for a key owned by root: it may be readable by a group of this
/// user, as Kubernetes and distributions set it up (`be-secure-common.c`,
/// `check_ssl_key_file_permissions`).
const OPEN_KEY_OF_ROOT: u32 = 0o037;
/// Bit that lets all users write.
const WRITTEN_BY_ALL: u32 = 0o002;
/// Bits of the group.
#[cfg(unix)]
const GROUP: u32 = 0o070;
/// Sticky bit.
#[cfg(unix)]
const STICKY: u32 = 0o1000;

/// Default requirements of directories.
const DIR: PermissionRule = PermissionRule {
    name: "",
    is_dir: true,
    link: true,
    owner: FileOwner::UsOrRoot,
    own: WRITTEN_BY_OTHERS,
    // If root provides a directory that all users may write to (a volume of a container),
    // its files are checked themselves.
    roots: 0,
    sticky: true,
    own_group: false,
    parents: true,
    chmod: "700",
};
/// Default requirements of files.
const FILE: PermissionRule = PermissionRule {
    name: "",
    is_dir: false,
    link: true,
    owner: FileOwner::UsOrRoot,
    own: WRITTEN_BY_OTHERS,
    roots: WRITTEN_BY_OTHERS,
    sticky: false,
    own_group: false,
    parents: false,
    chmod: "go-w",
};

impl FileRole {
    /// Returns the requirements.
    const fn rule(self) -> PermissionRule {
        match self {
            Self::StateDir => PermissionRule {
                name: "the state directory",
                ..DIR
            },
            Self::SocketDir => PermissionRule {
                name: "the directory of the Unix sockets",
                link: false,
                owner: FileOwner::Us,
                own: OPEN_TO_OTHERS,
                sticky: false,
                ..DIR
            },
            Self::CertificateDir => PermissionRule {
                name: "the directory of the local certificate",
                link: false,
                parents: false,
                ..DIR
            },
            Self::Key => PermissionRule {
                name: "the key of the local certificate",
                own: OPEN_TO_OTHERS,
                roots: OPEN_KEY_OF_ROOT,
                chmod: "600",
                ..FILE
            },
            Self::Certificate => PermissionRule {
                name: "the local certificate",
                ..FILE
            },
            Self::PasswordFile => PermissionRule {
                name: "the local password file",
                own: OPEN_TO_OTHERS,
                roots: OPEN_KEY_OF_ROOT,
                parents: true,
                chmod: "600",
                ..FILE
            },
            Self::ConfigFile => PermissionRule {
                name: "the configuration file",
                owner: FileOwner::Anybody,
                own: 0,
                roots: 0,
                ..FILE
            },
            Self::SecurityFile => PermissionRule {
                name: "the configuration file",
                owner: FileOwner::Anybody,
                own: WRITTEN_BY_ALL,
                roots: WRITTEN_BY_ALL,
                parents: true,
                ..FILE
            },
            Self::ProjectFile => PermissionRule {
                name: "the configuration file",
                own_group: true,
                parents: true,
                ..FILE
            },
            Self::AwsFile => PermissionRule {
                name: "the file",
                owner: FileOwner::Anybody,
                own: 0,
                roots: 0,
                ..FILE
            },
            Self::CaFile => PermissionRule {
                name: "the CA file",
                owner: FileOwner::Anybody,
                own: WRITTEN_BY_ALL,
                roots: WRITTEN_BY_ALL,
                parents: true,
                ..FILE
            },
        }
    }
}

impl FileRole {
    /// Returns the remedy for a path of another user. A key created by another user must not be
    /// taken over, because that would mean using it.
    #[cfg(unix)]
    fn remedy(self, path: &Path, us: u32) -> String {
        let word = |path: &Path| quote::shell(&path.to_string_lossy());
        match (self, path.parent()) {
            (Self::CertificateDir, _) => format!(
                "delete it, and pgiam creates a new one: rm -r {}",
                word(path)
            ),
            (Self::Key | Self::Certificate, Some(dir)) => {
                format!(
                    "delete it, and pgiam creates a new one: rm -r {}",
                    word(dir)
                )
            }
            (Self::ProjectFile, _) => {
                format!(
                    "if you trust its contents, name it: --config {}",
                    word(path)
                )
            }
            _ => format!(
                "use another path, or if you trust its contents: chown {us} {}",
                word(path)
            ),
        }
    }

    /// Returns an additional remedy for a path that was open to other users.
    #[cfg(unix)]
    fn more(self, path: &Path) -> String {
        match (self, path.parent()) {
            (Self::Key, Some(dir)) => format!(
                " (if others may have read it, delete it, and pgiam creates a new one: rm -r {})",
                quote::shell(&dir.to_string_lossy())
            ),
            _ => String::new(),
        }
    }
}

/// Reason why a path is not used.
#[derive(Debug, Error)]
pub enum PathError {
    /// Error of the file system.
    #[error("cannot use {name} {path}: {source}", path = shown(.path))]
    File {
        /// Purpose of the path.
        name: &'static str,
        /// The path.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// The path is of another kind.
    #[error("{name} {path} is not {expected}; remove it or use another path", path = shown(.path))]
    Kind {
        /// Purpose of the path.
        name: &'static str,
        /// The path.
        path: PathBuf,
        /// Expected kind.
        expected: &'static str,
    },
    /// Another user owns it.
    #[error("{name} {path} belongs to user id {owner}, not to you; {remedy}", path = shown(.path))]
    Owner {
        /// Purpose of the path.
        name: &'static str,
        /// The path.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Remedy.
        remedy: String,
    },
    /// Other users may read or write it.
    #[error(
        "{name} {path} is accessible to other users (mode {mode:04o}); restrict it: chmod {chmod} {}{more}", quote::shell(&.path.to_string_lossy()), path = shown(.path)
)]
    Open {
        /// Purpose of the path.
        name: &'static str,
        /// The path.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Mode for `chmod`.
        chmod: &'static str,
        /// Additional remedy.
        more: String,
    },
    /// Other users may replace it.
    #[error(
        "{name} {path} can be replaced by other users, because they may write to {parent} (mode {mode:04o}); restrict the directory: chmod o-w {}", quote::shell(&.parent.to_string_lossy()), path = shown(.path), parent = shown(.parent)
)]
    Parent {
        /// Purpose of the path.
        name: &'static str,
        /// The path.
        path: PathBuf,
        /// Its parent directory.
        parent: PathBuf,
        /// Permission bits of the parent directory.
        mode: u32,
    },
    /// The file exceeds the maximum size for its purpose.
    #[error("{name} {path} is longer than {most} bytes; use another file", path = shown(.path))]
    TooLong {
        /// Purpose of the path.
        name: &'static str,
        /// The path.
        path: PathBuf,
        /// Maximum size in bytes.
        most: u64,
    },
}

impl PathError {
    /// Formats the error for a message that already names the path.
    #[must_use]
    pub fn without_path(&self) -> String {
        match self {
            Self::File { source, .. } => source.to_string(),
            Self::Kind { expected, .. } => format!("it is not {expected}"),
            Self::TooLong { most, .. } => format!("it is longer than {most} bytes"),
            Self::Owner { .. } | Self::Open { .. } | Self::Parent { .. } => self.to_string(),
        }
    }

    /// Returns the error with all permission bits of the path.
    #[cfg(unix)]
    fn with_mode(mut self, real: u32) -> Self {
        if let Self::Open { mode, .. } = &mut self {
            *mode = real;
        }
        self
    }

    /// Returns the kind of the file system's error, if it is one.
    #[must_use]
    pub fn io(&self) -> Option<io::ErrorKind> {
        match self {
            Self::File { source, .. } => Some(source.kind()),
            _ => None,
        }
    }
}

fn kind(role: FileRole, path: &Path, found: &std::fs::Metadata) -> Result<(), PathError> {
    let PermissionRule { name, is_dir, .. } = role.rule();
    let (right, expected) = match is_dir {
        true => (found.is_dir(), "a directory"),
        false => (found.is_file(), "a regular file"),
    };
    if right {
        return Ok(());
    }
    Err(PathError::Kind {
        name,
        path: path.to_owned(),
        expected,
    })
}

/// Checks metadata against the table.
fn check(role: FileRole, path: &Path, found: &std::fs::Metadata) -> Result<(), PathError> {
    kind(role, path, found)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let us = rustix::process::geteuid().as_raw();
        let has_own_group = role.rule().own_group && found.gid() == found.uid();
        let real = found.mode() & 0o7777;
        // A group whose only member is the owner does not count: Debian and Fedora create one for
        // each user, with the user's number.
        let counted = if has_own_group { real & !GROUP } else { real };
        let judged = judge(role, path, (found.uid(), counted), us);
        judged.map_err(|error| error.with_mode(real))
    }
    #[cfg(not(unix))]
    Ok(())
}

/// Checks the owner of a symbolic link, if `path` is one.
///
/// # Errors
/// [`PathError::Owner`].
#[cfg(unix)]
fn check_link(role: FileRole, path: &Path) -> Result<(), PathError> {
    use std::os::unix::fs::MetadataExt;
    let us = rustix::process::geteuid().as_raw();
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => judge(role, path, (found.uid(), 0), us),
        // The file itself is examined next.
        _ => Ok(()),
    }
}

/// Decides whether a process of user `us` may use a path with this owner and mode.
#[cfg(unix)]
fn judge(role: FileRole, path: &Path, (owner, mode): (u32, u32), us: u32) -> Result<(), PathError> {
    const ROOT: u32 = 0;
    let rule = role.rule();
    let may_own = match rule.owner {
        FileOwner::Us => owner == us,
        FileOwner::UsOrRoot => owner == us || owner == ROOT,
        FileOwner::Anybody => true,
    };
    if !may_own {
        return Err(PathError::Owner {
            name: rule.name,
            path: path.to_owned(),
            owner,
            remedy: role.remedy(path, us),
        });
    }
    let (forbidden, chmod) = match owner == ROOT && us != ROOT {
        // A group of this user may read it.
        true if rule.roots == OPEN_KEY_OF_ROOT => (rule.roots, "640"),
        true => (rule.roots, rule.chmod),
        false => (rule.own, rule.chmod),
    };
    if mode & forbidden == 0 || (rule.sticky && mode & STICKY != 0) {
        return Ok(());
    }
    Err(PathError::Open {
        name: rule.name,
        path: path.to_owned(),
        mode,
        chmod,
        more: role.more(path),
    })
}

/// Checks that other users cannot replace `path`: no directory above it, both as written and with
/// links resolved, is writable by all users without a sticky bit. Such directories provided by root
/// (a volume of a container) are root's responsibility.
fn parents(role: FileRole, path: &Path) -> Result<(), PathError> {
    #[cfg(unix)]
    if role.rule().parents {
        use std::os::unix::fs::MetadataExt;
        let us = rustix::process::geteuid().as_raw();
        let failed = failed(role, path);
        let written = std::path::absolute(path).map_err(&failed)?;
        let real = path.canonicalize().map_err(&failed)?;
        for parent in written.ancestors().skip(1).chain(real.ancestors().skip(1)) {
            // A directory that cannot be examined cannot be written through this path, either.
            let Ok(found) = std::fs::metadata(parent) else {
                continue;
            };
            let mode = found.mode() & 0o7777;
            let is_open = mode & WRITTEN_BY_ALL != 0 && mode & STICKY == 0;
            if is_open && !(found.uid() == 0 && us != 0) && !is_read_only(parent) {
                return Err(PathError::Parent {
                    name: role.rule().name,
                    path: path.to_owned(),
                    parent: parent.to_owned(),
                    mode,
                });
            }
        }
    }
    let _ = (role, path);
    Ok(())
}

/// Returns `true` if the directory is mounted read-only: configurations and secrets of Kubernetes
/// are, in directories of mode 0777.
#[cfg(unix)]
fn is_read_only(dir: &Path) -> bool {
    use rustix::fs::StatVfsMountFlags;
    rustix::fs::statvfs(dir).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY))
}
