//! The Windows program under Wine: what only Windows has.
//!
//! `./dev test --windows` runs these tests and many of the other modules: the profile `windows` in
//! `.config/nextest.toml` selects them. All of them start the same script in place of the native
//! program (`judges/windows/pgiam`), which gives the program its paths as Windows writes them.

mod console;
mod control;
mod files;
mod run;

use std::path::{Path, PathBuf};

use protocol_tests::harness::program;

/// The folder of the Windows program and of Wine's drives. Without it, these tests fail.
fn folder() -> PathBuf {
    program::windows().expect("./dev test --windows names the program in PGIAM_WINDOWS")
}

/// A path as Windows programs write it.
fn written(path: &Path) -> String {
    format!("Z:{}", path.display()).replace('/', "\\")
}

/// The folder `AppData` of the user on Wine's drive C.
fn app_data() -> PathBuf {
    let users = folder().join("prefix/drive_c/users");
    let users = std::fs::read_dir(users).expect("Wine's drive C");
    let folders = users.map(|user| user.expect("a user").path().join("AppData"));
    let mut own = folders.filter(|folder| folder.exists());
    own.next().expect("a user with settings")
}
