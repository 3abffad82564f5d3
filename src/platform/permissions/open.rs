//! Opening and reading files with the checks of the table.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{FileRole, PathError, check, kind, parents};

pub(super) fn failed(role: FileRole, path: &Path) -> impl Fn(io::Error) -> PathError {
    let (name, path) = (role.rule().name, path.to_owned());
    move |source| PathError::File {
        name,
        path: path.clone(),
        source,
    }
}

/// Opens a file for reading and checks it.
///
/// # Errors
/// [`PathError`].
pub fn open(role: FileRole, path: &Path) -> Result<File, PathError> {
    let failed = failed(role, path);
    #[cfg(unix)]
    if role.rule().own_group {
        super::check_link(role, path)?;
    }
    // Check before opening, which alone would wait for a pipe's other end, or could affect a
    // device. This check also reports the owner of a file that may not be opened.
    check(role, path, &std::fs::metadata(path).map_err(&failed)?)?;
    let mut options = std::fs::OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        // For a pipe that has replaced the file since.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags);
    }
    let file = options.open(path).map_err(&failed)?;
    examine(role, path, &file)?;
    Ok(file)
}

/// Checks a file that was opened at `path`.
///
/// # Errors
/// [`PathError`].
pub fn examine(role: FileRole, path: &Path, file: &File) -> Result<(), PathError> {
    let found = file.metadata().map_err(failed(role, path))?;
    check(role, path, &found)?;
    parents(role, path)
}

/// Reads a file of at most `most` bytes and checks it.
///
/// # Errors
/// [`PathError`].
pub fn read(role: FileRole, path: &Path, most: u64) -> Result<Vec<u8>, PathError> {
    contents(role, path, &open(role, path)?, most)
}

/// Reads the rest of an open file, at most `most` bytes.
///
/// # Errors
/// [`PathError`].
pub fn contents(role: FileRole, path: &Path, file: &File, most: u64) -> Result<Vec<u8>, PathError> {
    let mut bytes = Vec::new();
    let read = file.take(most.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(failed(role, path))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > most {
        return Err(PathError::TooLong {
            name: role.rule().name,
            path: path.to_owned(),
            most,
        });
    }
    Ok(bytes)
}

/// A checked directory. It stays the same one if its path is replaced.
#[derive(Debug)]
pub struct CheckedDir {
    path: PathBuf,
    #[cfg(unix)]
    descriptor: rustix::fd::OwnedFd,
}

impl CheckedDir {
    /// Opens a directory and checks it.
    ///
    /// # Errors
    /// [`PathError`].
    pub fn open(role: FileRole, path: &Path) -> Result<Self, PathError> {
        let failed = failed(role, path);
        if !role.rule().link {
            let found = std::fs::symlink_metadata(path).map_err(&failed)?;
            kind(role, path, &found)?;
        }
        check(role, path, &std::fs::metadata(path).map_err(&failed)?)?;
        #[cfg(unix)]
        {
            use rustix::fs::{Mode, OFlags};
            let mut flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            if !role.rule().link {
                flags |= OFlags::NOFOLLOW;
            }
            let descriptor = rustix::fs::open(path, flags, Mode::empty())
                .map_err(|error| failed(error.into()))?;
            let file = File::from(descriptor);
            check(role, path, &file.metadata().map_err(&failed)?)?;
            parents(role, path)?;
            Ok(Self {
                path: path.to_owned(),
                descriptor: file.into(),
            })
        }
        #[cfg(not(unix))]
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Reads a file of at most `most` bytes in the directory and checks it.
    ///
    /// # Errors
    /// [`PathError`].
    pub fn read(&self, role: FileRole, name: &str, most: u64) -> Result<Vec<u8>, PathError> {
        let path = self.path.join(name);
        #[cfg(unix)]
        {
            use rustix::fs::{Mode, OFlags};
            let failed = failed(role, &path);
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let opened = rustix::fs::openat(&self.descriptor, name, flags, Mode::empty());
            let opened = match opened {
                Ok(opened) => opened,
                Err(error) => {
                    // Reports the owner of a file that may not be opened.
                    if let Ok(found) = std::fs::metadata(&path) {
                        check(role, &path, &found)?;
                    }
                    return Err(failed(error.into()));
                }
            };
            let file = File::from(opened);
            check(role, &path, &file.metadata().map_err(&failed)?)?;
            contents(role, &path, &file, most)
        }
        #[cfg(not(unix))]
        read(role, &path, most)
    }
}
