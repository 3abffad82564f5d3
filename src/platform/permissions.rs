//! Who may own and write the files and directories that others could harm us with: one table, and the
//! functions that hold a path against it.
//!
//! Each file is opened first and looked at through its descriptor, so that what was looked at is what
//! is read. A pipe or a device is never opened for reading, because that could wait for ever. Access
//! control lists are not looked at. On systems without owners and modes only the kind is checked.

mod open;
#[cfg(unix)]
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use self::open::failed;
pub use self::open::{Dir, contents, examine, open, read};
use crate::base::quote;
use crate::base::quote::shown;

/// What a path is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Where the certificate for local clients and the default sockets are.
    StateDir,
    /// Where the Unix sockets are.
    SocketDir,
    /// Where the key and the certificate for local clients are.
    CertificateDir,
    /// The private key of that certificate.
    Key,
    /// The certificate that local clients are shown.
    Certificate,
    /// What holds the local password.
    PasswordFile,
    /// The configuration.
    ConfigFile,
    /// The configuration, where it says who may connect or who vouches for a database.
    SecurityFile,
    /// The authorities that may vouch for a database.
    CaFile,
    /// A file of the AWS tools: configuration, credentials, token, authorities for AWS's services.
    AwsFile,
}

/// What must hold for a path.
struct Rule {
    /// What messages call it.
    name: &'static str,
    is_dir: bool,
    /// A symbolic link may stand in its place.
    link: bool,
    /// Who may own it.
    owner: Owner,
    /// Permission bits that one of our own must not have.
    own: u32,
    /// Permission bits that one of root's must not have.
    roots: u32,
    /// A directory whose sticky bit keeps others from removing what is ours may be written by them.
    sticky: bool,
    /// Nobody else may replace it: its parent directories are looked at, too.
    parents: bool,
    /// What mends the mode.
    chmod: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Us,
    UsOrRoot,
    /// A file that a container gets from its host has the host's owner.
    Anybody,
}

/// Others may write it.
const WRITTEN_BY_OTHERS: u32 = 0o022;
/// Others may do anything with it.
const OPEN_TO_OTHERS: u32 = 0o077;
/// What PostgreSQL does not take in a key of root's: it may be readable by a group that we are in, as
/// Kubernetes and distributions arrange it (`be-secure-common.c`, `check_ssl_key_file_permissions`).
const OPEN_KEY_OF_ROOT: u32 = 0o037;
/// Everybody may write it.
const WRITTEN_BY_ALL: u32 = 0o002;
/// The sticky bit.
const STICKY: u32 = 0o1000;

impl Role {
    /// The table.
    const fn rule(self) -> Rule {
        const DIR: Rule = Rule {
            name: "",
            is_dir: true,
            link: true,
            owner: Owner::UsOrRoot,
            own: WRITTEN_BY_OTHERS,
            // Where root gives us a directory that all may write (a volume of a container), what is
            // in it is looked at by itself.
            roots: 0,
            sticky: true,
            parents: true,
            chmod: "700",
        };
        const FILE: Rule = Rule {
            name: "",
            is_dir: false,
            link: true,
            owner: Owner::UsOrRoot,
            own: WRITTEN_BY_OTHERS,
            roots: WRITTEN_BY_OTHERS,
            sticky: false,
            parents: false,
            chmod: "go-w",
        };
        match self {
            Self::StateDir => Rule {
                name: "the state directory",
                ..DIR
            },
            Self::SocketDir => Rule {
                name: "the directory of the Unix sockets",
                link: false,
                owner: Owner::Us,
                own: OPEN_TO_OTHERS,
                sticky: false,
                ..DIR
            },
            Self::CertificateDir => Rule {
                name: "the directory of the local certificate",
                link: false,
                parents: false,
                ..DIR
            },
            Self::Key => Rule {
                name: "the key of the local certificate",
                own: OPEN_TO_OTHERS,
                roots: OPEN_KEY_OF_ROOT,
                chmod: "600",
                ..FILE
            },
            Self::Certificate => Rule {
                name: "the local certificate",
                ..FILE
            },
            Self::PasswordFile => Rule {
                name: "the local password file",
                own: OPEN_TO_OTHERS,
                roots: OPEN_KEY_OF_ROOT,
                parents: true,
                chmod: "600",
                ..FILE
            },
            Self::ConfigFile => Rule {
                name: "the configuration file",
                owner: Owner::Anybody,
                own: 0,
                roots: 0,
                ..FILE
            },
            Self::SecurityFile => Rule {
                name: "the configuration file",
                owner: Owner::Anybody,
                own: WRITTEN_BY_ALL,
                roots: WRITTEN_BY_ALL,
                parents: true,
                ..FILE
            },
            Self::AwsFile => Rule {
                name: "the file",
                owner: Owner::Anybody,
                own: 0,
                roots: 0,
                ..FILE
            },
            Self::CaFile => Rule {
                name: "the CA file",
                owner: Owner::Anybody,
                own: WRITTEN_BY_ALL,
                roots: WRITTEN_BY_ALL,
                parents: true,
                ..FILE
            },
        }
    }
}

impl Role {
    /// What to do about a path of another user. To take over a key that another user has made would be to
    /// use it.
    #[cfg(unix)]
    fn remedy(self, path: &Path, us: u32) -> String {
        let word = |path: &Path| quote::shell(&path.to_string_lossy());
        match (self, path.parent()) {
            (Self::CertificateDir, _) => format!("have a new one made: rm -r {}", word(path)),
            (Self::Key | Self::Certificate, Some(dir)) => {
                format!("have a new one made: rm -r {}", word(dir))
            }
            _ => format!(
                "name another one, or where you trust its contents: chown {us} {}",
                word(path)
            ),
        }
    }

    /// What else to do about a path that was open to others.
    #[cfg(unix)]
    fn more(self, path: &Path) -> String {
        match (self, path.parent()) {
            (Self::Key, Some(dir)) => format!(
                " (if others may have read it, have a new one made: rm -r {})",
                quote::shell(&dir.to_string_lossy())
            ),
            _ => String::new(),
        }
    }
}

/// Why a path is not used.
#[derive(Debug, Error)]
pub enum PathError {
    /// The file system said no.
    #[error("cannot use {name} {path}: {source}", path = shown(.path))]
    File {
        /// What it is to us.
        name: &'static str,
        /// The path.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// Something else stands there.
    #[error("{name} {path} is not {expected}; remove it or name another one", path = shown(.path))]
    Kind {
        /// What it is to us.
        name: &'static str,
        /// The path.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
    },
    /// Another user's.
    #[error("{name} {path} belongs to the user with id {owner}, not to you; {remedy}", path = shown(.path))]
    Owner {
        /// What it is to us.
        name: &'static str,
        /// The path.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// What to do.
        remedy: String,
    },
    /// Other users may read or write it.
    #[error(
        "{name} {path} is open to other users (mode {mode:04o}); close it: chmod {chmod} {}{more}", quote::shell(&.path.to_string_lossy()), path = shown(.path)
)]
    Open {
        /// What it is to us.
        name: &'static str,
        /// The path.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What mends them.
        chmod: &'static str,
        /// What else to do.
        more: String,
    },
    /// Other users may put another one in its place.
    #[error(
        "{name} {path} can be replaced by other users, because they may write {parent} (mode {mode:04o}); close it: chmod o-w {}", quote::shell(&.parent.to_string_lossy()), path = shown(.path), parent = shown(.parent)
)]
    Parent {
        /// What it is to us.
        name: &'static str,
        /// The path.
        path: PathBuf,
        /// The directory above it.
        parent: PathBuf,
        /// The permission bits of that.
        mode: u32,
    },
    /// The file is longer than any of its kind.
    #[error("{name} {path} is longer than {most} bytes; name another one", path = shown(.path))]
    TooLong {
        /// What it is to us.
        name: &'static str,
        /// The path.
        path: PathBuf,
        /// The longest that is read.
        most: u64,
    },
}

impl PathError {
    /// The same for a message that names the path already.
    #[must_use]
    pub fn without_path(&self) -> String {
        match self {
            Self::File { source, .. } => source.to_string(),
            Self::Kind { expected, .. } => format!("it is not {expected}"),
            Self::TooLong { most, .. } => format!("it is longer than {most} bytes"),
            Self::Owner { .. } | Self::Open { .. } | Self::Parent { .. } => self.to_string(),
        }
    }

    /// What the file system said, where it said anything.
    #[must_use]
    pub fn io(&self) -> Option<io::ErrorKind> {
        match self {
            Self::File { source, .. } => Some(source.kind()),
            _ => None,
        }
    }
}

fn kind(role: Role, path: &Path, found: &std::fs::Metadata) -> Result<(), PathError> {
    let Rule { name, is_dir, .. } = role.rule();
    let (right, expected) = match is_dir {
        true => (found.is_dir(), "a directory"),
        false => (found.is_file(), "an ordinary file"),
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

/// Holds what was found against the table.
fn check(role: Role, path: &Path, found: &std::fs::Metadata) -> Result<(), PathError> {
    kind(role, path, found)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let us = rustix::process::geteuid().as_raw();
        judge(role, path, (found.uid(), found.mode() & 0o7777), us)
    }
    #[cfg(not(unix))]
    Ok(())
}

/// The decision: what a path with this owner and this mode is to a process of user `us`.
#[cfg(unix)]
fn judge(role: Role, path: &Path, (owner, mode): (u32, u32), us: u32) -> Result<(), PathError> {
    const ROOT: u32 = 0;
    let rule = role.rule();
    let may_own = match rule.owner {
        Owner::Us => owner == us,
        Owner::UsOrRoot => owner == us || owner == ROOT,
        Owner::Anybody => true,
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
        // A group may read it, and we are in one.
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

/// Checks that nobody else can put something in the place of `path`: no directory above it, as it is
/// written and as links lead, is written by everybody without a sticky bit. Those that root gives
/// us like that (a volume of a container) are root's business.
fn parents(role: Role, path: &Path) -> Result<(), PathError> {
    #[cfg(unix)]
    if role.rule().parents {
        use std::os::unix::fs::MetadataExt;
        let us = rustix::process::geteuid().as_raw();
        let failed = failed(role, path);
        let written = std::path::absolute(path).map_err(&failed)?;
        let real = path.canonicalize().map_err(&failed)?;
        for parent in written.ancestors().skip(1).chain(real.ancestors().skip(1)) {
            // One that cannot be looked at is not written through it, either.
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

/// Whether nobody can write there, because it is mounted like that: configurations and secrets of
/// Kubernetes are, in directories of mode 0777.
#[cfg(unix)]
fn is_read_only(dir: &Path) -> bool {
    use rustix::fs::StatVfsMountFlags;
    rustix::fs::statvfs(dir).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY))
}
