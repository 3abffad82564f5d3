//! Places at which pgiam looks for the configuration file.

use std::path::{Path, PathBuf};

use crate::platform;

/// Name of the file in a project.
const NAME: &str = "pgiam.toml";
/// A directory of Git, or a file in a worktree or a submodule (gitrepository-layout(5)).
const REPOSITORY: &str = ".git";

/// A path to look at, and the rules for the file there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) path: PathBuf,
    /// The file is in a parent directory: the user has not chosen the directory that it is in, and
    /// may not know the file.
    pub(super) is_above: bool,
}

impl Candidate {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            is_above: false,
        }
    }
}

/// Returns the paths, in order: the current directory, its parents up to the root of the Git
/// repository, the user's own file.
pub(super) fn candidates() -> Vec<Candidate> {
    let mut all = vec![Candidate::new(PathBuf::from(NAME))];
    if let Ok(here) = std::env::current_dir() {
        let above = project_above(&here, std::env::home_dir().as_deref());
        all.extend(above.into_iter().map(|dir| Candidate {
            path: dir.join(NAME),
            is_above: true,
        }));
    }
    all.extend(platform::user_config_file().map(Candidate::new));
    all
}

/// Describes the paths for a message.
pub(super) fn in_words(candidates: &[Candidate]) -> String {
    let above = candidates.iter().rfind(|candidate| candidate.is_above);
    let root = above.and_then(|candidate| candidate.path.parent());
    let root = root.map(|root| {
        format!(
            " here and in each parent directory up to {}",
            root.display()
        )
    });
    let mut root = root;
    let listed = candidates.iter().filter(|candidate| !candidate.is_above);
    let listed = listed.map(|candidate| {
        let more = root.take().unwrap_or_default();
        format!("{}{more}", candidate.path.display())
    });
    listed.collect::<Vec<_>>().join(", ")
}

/// Returns the parents of a directory up to the root of its Git repository, nearest first. Empty
/// without a repository.
///
/// The search ends below the home directory, and at the end of a file system, as Git's does. On
/// systems whose owners of files pgiam does not check, it is limited to the home directory: elsewhere
/// other users may be able to create both a repository and the file.
fn project_above(here: &Path, home: Option<&Path>) -> Vec<PathBuf> {
    let real = |path: &Path| path.canonicalize().ok();
    let home = home.and_then(real);
    let Some(start) = real(here) else {
        return Vec::new();
    };
    let is_below_home = home.as_ref().is_some_and(|home| start.starts_with(home));
    if !cfg!(unix) && !is_below_home {
        return Vec::new();
    }
    let mut above: Vec<PathBuf> = Vec::new();
    let mut dirs = start.ancestors().zip(here.ancestors());
    let Some((mut inner, _)) = dirs.next() else {
        return above;
    };
    let is_limit = |dir: &Path| home.as_deref() == Some(dir);
    if is_repository(inner) || is_limit(inner) {
        return above;
    }
    for (dir, shown) in dirs {
        let is_same = real(shown).as_deref() == Some(dir);
        if !is_same || is_limit(dir) || !platform::is_one_file_system(inner, dir) {
            break;
        }
        above.push(shown.to_owned());
        if is_repository(dir) {
            return above;
        }
        inner = dir;
    }
    Vec::new()
}

fn is_repository(dir: &Path) -> bool {
    dir.join(REPOSITORY).symlink_metadata().is_ok()
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir_all, write};

    use super::*;

    /// Returns the names of the directories that are searched, relative to `base`.
    fn above(base: &Path, here: &str, home: &str) -> Vec<String> {
        let found = project_above(&base.join(here), Some(&base.join(home)));
        let names = found.iter().map(|dir| {
            let relative = dir.strip_prefix(base).unwrap();
            relative.display().to_string().replace('\\', "/")
        });
        names.collect()
    }

    #[test]
    fn the_root_of_the_repository_is_the_last_directory() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        for path in [
            "home/shop/src/deep",
            "home/shop/.git",
            "home/plain/src",
            "home/tree/src",
        ] {
            create_dir_all(base.join(path)).unwrap();
        }
        // A worktree.
        write(base.join("home/tree/.git"), "gitdir: /elsewhere").unwrap();
        for (here, expected) in [
            ("home/shop/src/deep", &["home/shop/src", "home/shop"][..]),
            ("home/shop/src", &["home/shop"]),
            ("home/shop", &[]),
            ("home/plain/src", &[]),
            ("home/tree/src", &["home/tree"]),
            ("home", &[]),
            ("home/nosuch", &[]),
        ] {
            assert_eq!(above(&base, here, "home"), expected, "{here}");
        }
    }

    #[test]
    fn the_home_directory_is_no_project() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        for path in ["home/.git", "home/notes/today", ".git"] {
            create_dir_all(base.join(path)).unwrap();
        }
        assert_eq!(above(&base, "home/notes/today", "home"), [""; 0]);
        assert_eq!(above(&base, "home", "home"), [""; 0]);
        let elsewhere = above(&base, "home/notes/today", "other");
        let expected: &[&str] = match cfg!(unix) {
            true => &["home/notes", "home"],
            false => &[],
        };
        assert_eq!(elsewhere, expected);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn another_file_system_ends_the_search() {
        // /proc is mounted on every Linux, and has no repository.
        assert!(!platform::is_one_file_system(
            Path::new("/proc"),
            Path::new("/")
        ));
        assert!(project_above(Path::new("/proc/self"), None).is_empty());
    }

    #[test]
    fn the_places_are_named() {
        let above = |path: &str| Candidate {
            path: PathBuf::from(path),
            is_above: true,
        };
        let user = Candidate::new(PathBuf::from("/home/ana/.config/pgiam/config.toml"));
        let here = Candidate::new(PathBuf::from(NAME));
        assert_eq!(
            in_words(&[here.clone(), user.clone()]),
            "pgiam.toml, /home/ana/.config/pgiam/config.toml"
        );
        assert_eq!(
            in_words(&[
                here,
                above("/home/ana/shop/src/pgiam.toml"),
                above("/home/ana/shop/pgiam.toml"),
                user
            ]),
            "pgiam.toml here and in each parent directory up to /home/ana/shop, /home/ana/.config/pgiam/config.toml"
        );
    }
}
