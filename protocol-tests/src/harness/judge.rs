//! Programs by others that `./dev judges` installs: where they are, and the AWS CLI with botocore.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use super::program::clean_env;

/// Python is slow to start on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// The program that `variable` names. Without it the caller's test is left out aloud.
///
/// # Panics
/// In CI (`CI=true`), if there is none.
#[expect(clippy::print_stdout, reason = "what was left out is to be seen")]
pub fn find(variable: &str, name: &str) -> Option<PathBuf> {
    match std::env::var_os(variable).map(PathBuf::from) {
        Some(program) if program.exists() => Some(program),
        given => {
            let reason = format!("{variable} is {given:?}: run ./dev test, or see ./dev judges");
            let strict = std::env::var_os("CI").is_some_and(|ci| ci == "true");
            assert!(!strict, "a judge is missing, and this is CI: {reason}");
            println!("SKIPPED {name}: {reason}");
            None
        }
    }
}

/// The AWS CLI, version 1, and botocore.
pub struct AwsCli {
    cli: PathBuf,
    env: Vec<(String, String)>,
}

impl AwsCli {
    /// The programs, with `env` in place of all inherited variables of AWS. See [`find`].
    pub fn find(env: Vec<(String, String)>) -> Option<Self> {
        let cli = find("PGIAM_AWSCLI", "the AWS CLI")?;
        Some(Self { cli, env })
    }

    /// `judges/identity/identity.py` with these arguments.
    pub fn botocore(&self, arguments: &[&str]) -> Command {
        self.script("identity.py", arguments)
    }

    /// Another script of `judges/identity`.
    pub fn script(&self, name: &str, arguments: &[&str]) -> Command {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("judges/identity");
        let script = scripts.join(name);
        let mut command = Command::new(self.cli.with_file_name("python"));
        clean_env(&mut command, &["AWS_", "BOTO"]);
        command
            .arg(script)
            .args(arguments)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            // Neither reads AWS_REGION.
            .env("AWS_DEFAULT_REGION", "eu-central-1")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("NO_PROXY", "localhost,127.0.0.1")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// The AWS CLI with `input` on its standard input, which it reads without a terminal.
    ///
    /// # Errors
    /// When it does not start or does not end in time.
    pub async fn aws(&self, arguments: &[&str], input: &str) -> anyhow::Result<Output> {
        let mut command = self.botocore(&["detached"]);
        command
            .arg(&self.cli)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("starting the AWS CLI")?;
        if let Some(mut stdin) = child.stdin.take() {
            // It may end without reading.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let ended = timeout(DEADLINE, child.wait_with_output()).await;
        Ok(ended.context("the AWS CLI does not end")??)
    }
}
