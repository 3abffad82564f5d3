//! Expansion of `~/` at the start of a path. Shells expand it only outside quotes and at the start
//! of a word: not in TOML, not in `--ca-file=~/ca.pem`, not in the environment of a service.

use std::path::{Path, PathBuf};

/// Replaces a leading `~` by the user's home directory, if there is one.
#[must_use]
pub fn expand_home(path: &Path) -> PathBuf {
    match std::env::home_dir() {
        Some(home) => expand_in(&home, path),
        None => path.to_owned(),
    }
}

fn expand_in(home: &Path, path: &Path) -> PathBuf {
    match path.strip_prefix("~") {
        Ok(rest) => home.join(rest),
        Err(_) => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_leading_tilde_is_the_home_directory() {
        for (written, meant) in [
            ("~/ca.pem", "/home/ana/ca.pem"),
            ("~", "/home/ana"),
            ("/etc/~/ca.pem", "/etc/~/ca.pem"),
            ("~ana/ca.pem", "~ana/ca.pem"),
            ("ca.pem", "ca.pem"),
            ("./~/ca.pem", "./~/ca.pem"),
            ("none", "none"),
        ] {
            let found = expand_in(Path::new("/home/ana"), Path::new(written));
            assert_eq!(found, Path::new(meant), "{written}");
        }
    }
}
