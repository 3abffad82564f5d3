//! Programs of the system, and how it installs them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Returns `true` if a program can be started by this name: it is in `PATH`, or the name is a path.
#[must_use]
pub fn is_program(name: &OsStr) -> bool {
    let suffixes: &[&str] = if cfg!(windows) {
        &["", ".exe", ".cmd", ".bat"]
    } else {
        &[""]
    };
    let is_there = |path: PathBuf| {
        suffixes.iter().any(|suffix| {
            let mut path = path.clone().into_os_string();
            path.push(suffix);
            is_executable(Path::new(&path))
        })
    };
    if Path::new(name).components().count() > 1 {
        return is_there(PathBuf::from(name));
    }
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&dirs).any(|dir| is_there(dir.join(name)))
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
