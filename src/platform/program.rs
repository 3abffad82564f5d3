//! Programs of the system, and how it installs them.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Endings of the names of programs, in the order in which `cmd` tries them (`PATHEXT`), and last the
/// name as it is: beside `npm.cmd` there is a script `npm` for other systems.
const ENDINGS: &[&str] = match cfg!(windows) {
    true => &[".com", ".exe", ".bat", ".cmd", ""],
    false => &[""],
};

/// Returns `true` if a program can be started by this name: it is in `PATH`, or the name is a path.
#[must_use]
pub fn is_program(name: &OsStr) -> bool {
    file(name, &dirs(), ENDINGS).is_some()
}

/// Returns the name to start a program by. On Windows the system finds only `.exe` files by a name
/// without an ending; a script such as `npm.cmd` needs its path.
#[must_use]
pub fn to_start(name: &OsStr) -> OsString {
    match file(name, &dirs(), ENDINGS) {
        Some(found) if is_script(&found) => found.into_os_string(),
        _ => name.to_owned(),
    }
}

fn dirs() -> Vec<PathBuf> {
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&dirs).collect()
}

fn is_script(path: &Path) -> bool {
    let ending = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    cfg!(windows)
        && ["bat", "cmd"]
            .iter()
            .any(|script| ending.eq_ignore_ascii_case(script))
}

/// Finds the file of a program: a name without a directory in `dirs`, with one of these endings.
fn file(name: &OsStr, dirs: &[PathBuf], endings: &[&str]) -> Option<PathBuf> {
    let with_ending = |path: PathBuf| {
        endings.iter().find_map(|ending| {
            let mut path = path.clone().into_os_string();
            path.push(ending);
            let path = PathBuf::from(path);
            is_executable(&path).then_some(path)
        })
    };
    if Path::new(name).components().count() > 1 {
        return with_ending(PathBuf::from(name));
    }
    dirs.iter().find_map(|dir| with_ending(dir.join(name)))
}

fn is_executable(path: &Path) -> bool {
    let Ok(found) = std::fs::metadata(path) else {
        return false;
    };
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&found.permissions());
        found.is_file() && mode & 0o111 != 0
    }
    #[cfg(not(unix))]
    found.is_file()
}

/// Returns the identifiers of the Linux distribution, the most specific first (os-release(5), `ID`
/// and `ID_LIKE`); empty on other systems.
#[must_use]
pub fn distribution() -> Vec<String> {
    let read = |path| std::fs::read_to_string(path).ok();
    let text = read("/etc/os-release").or_else(|| read("/usr/lib/os-release"));
    identifiers(&text.unwrap_or_default())
}

fn identifiers(os_release: &str) -> Vec<String> {
    let of = |key: &str| {
        let mut lines = os_release.lines();
        let value = lines.find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='));
        let value = value.unwrap_or_default().trim_matches(['"', '\'']);
        value
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    [of("ID"), of("ID_LIKE")].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_has_identifiers() {
        let text = "NAME=\"Linux Mint\"\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\nVERSION_ID=22\n";
        assert_eq!(identifiers(text), ["linuxmint", "ubuntu", "debian"]);
        assert_eq!(identifiers("ID='arch'"), ["arch"]);
        assert_eq!(identifiers(""), [""; 0]);
    }

    #[cfg(unix)]
    #[test]
    fn the_first_directory_and_the_first_ending_win() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| root.path().join(name));
        for path in ["one/npm", "one/npm.cmd", "two/npm.exe", "two/psql.exe"] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        let dirs = [one.clone(), two.clone()];
        let found = |name: &OsStr| file(name, &dirs, &[".com", ".exe", ".bat", ".cmd", ""]);
        assert_eq!(found(OsStr::new("npm")), Some(one.join("npm.cmd")));
        assert_eq!(found(OsStr::new("psql")), Some(two.join("psql.exe")));
        assert_eq!(found(OsStr::new("npm.cmd")), Some(one.join("npm.cmd")));
        assert_eq!(
            found(two.join("npm").as_os_str()),
            Some(two.join("npm.exe"))
        );
        assert_eq!(found(OsStr::new("pg_dump")), None);
        assert_eq!(to_start(OsStr::new("sh")), "sh");
    }

    #[cfg(unix)]
    #[test]
    fn programs_are_found_by_name_and_by_path() {
        for (name, found) in [
            ("sh", true),
            ("/bin/sh", true),
            ("no-such-program-anywhere", false),
            ("/etc/passwd", false),
            ("/etc", false),
            ("./sh", false),
        ] {
            assert_eq!(is_program(OsStr::new(name)), found, "{name}");
        }
    }
}
