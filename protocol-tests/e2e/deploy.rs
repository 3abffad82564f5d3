//! The files for operations ask the program for nothing that it does not have.

use std::path::Path;
use std::process::Command;

use crate::support;

#[test]
fn deploy_files_name_real_commands_flags_and_variables() {
    let check = Path::new(env!("CARGO_MANIFEST_DIR")).join("protocol-tests/judges/deploy/check.py");
    let run = Command::new("python3")
        .arg(check)
        .arg(support::pgiam())
        .output();
    match run {
        Ok(run) => assert!(
            run.status.success(),
            "{}",
            String::from_utf8_lossy(&run.stderr)
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("SKIPPED: there is no python3");
        }
        Err(error) => panic!("python3: {error}"),
    }
}
