//! Logins to AWS: IAM Identity Center in a browser and with a device code, MFA codes, `aws login`.

mod caches;
mod chromium;
mod commands;
mod on_demand;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use protocol_tests::aws::events::Event;
use protocol_tests::aws::sandbox::Sandbox;
use protocol_tests::harness::person::{Button, Page, Person};
use protocol_tests::harness::program;
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::support::{PATIENCE, REGION, Ran, pgiam, run};

/// Account of the sandbox.
const ACCOUNT: &str = "123456789012";

/// Profiles of these tests: `dev` with a session, `old` without one, `keys` with access keys.
fn config(sandbox: &Sandbox) -> String {
    let url = sandbox.identity_center().start_url();
    format!(
        "[sso-session corp]\nsso_start_url = {url}\nsso_region = {REGION}\n\
         sso_registration_scopes = sso:account:access\n\
         [profile dev]\nsso_session = corp\nsso_account_id = {ACCOUNT}\nsso_role_name = Developer\n\
         region = {REGION}\n\
         [profile old]\nsso_start_url = {url}\nsso_region = {REGION}\nsso_account_id = {ACCOUNT}\n\
         sso_role_name = Developer\nregion = {REGION}\n"
    )
}

/// A home directory with AWS files, and its user in front of a browser.
struct Home {
    dir: tempfile::TempDir,
    person: Person,
}

impl Home {
    fn new(sandbox: &Sandbox, config: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join(".aws")).expect("a directory");
        let home = Self {
            person: Person::new(sandbox.pki(), dir.path()).expect("a browser"),
            dir,
        };
        home.write(".aws/config", config);
        let user = sandbox.user();
        let keys = format!(
            "[keys]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
            user.access_key_id, user.secret_access_key
        );
        home.write(".aws/credentials", &keys);
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a file");
    }

    /// Returns the variables of a program that lives here.
    fn env(&self, sandbox: &Sandbox) -> Vec<(String, String)> {
        let files = ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"];
        let mut env = sandbox.env_without_keys();
        env.retain(|(name, _)| !files.contains(&name.as_str()));
        let text = |path: &Path| path.display().to_string();
        env.extend([
            ("HOME".to_owned(), text(self.dir.path())),
            ("BROWSER".to_owned(), text(self.person.program())),
            ("XDG_CONFIG_HOME".to_owned(), text(&self.path("no-config"))),
            ("PGIAM_STATE_DIR".to_owned(), text(&self.path("state"))),
            ("NO_PROXY".to_owned(), "localhost,127.0.0.1".to_owned()),
            ("TZ".to_owned(), "UTC".to_owned()),
        ]);
        env
    }

    fn command(&self, sandbox: &Sandbox, args: &[&str]) -> Command {
        let mut command = Command::new(pgiam());
        program::clean_env(&mut command, &["AWS_", "PGIAM_", "PG", "SSH_"]);
        command
            .args(args)
            .envs(self.env(sandbox))
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Waits for the address that pgiam opens as its number `count`, and presses a button there.
    /// Returns the last page.
    async fn sign_in(&self, count: usize, button: Button) -> Page {
        let address = self.person.address(count, PATIENCE).await;
        let page = self
            .person
            .sign_in(&address.expect("an address"), button)
            .await;
        page.expect("a page")
    }

    async fn pgiam(&self, sandbox: &Sandbox, args: &[&str]) -> Ran {
        run(self.command(sandbox, args)).await
    }

    /// Starts a program whose output is collected at its end.
    fn start(&self, sandbox: &Sandbox, args: &[&str]) -> Child {
        let mut command = self.command(sandbox, args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("pgiam starts")
    }

    /// Returns the JSON files of a cache with their names.
    fn cached(&self, cache: &str) -> Vec<(String, Value)> {
        let Ok(files) = std::fs::read_dir(self.path(".aws").join(cache)) else {
            return Vec::new();
        };
        let paths = files.map(|file| file.expect("an entry").path());
        let mut all: Vec<_> = paths
            .map(|path| {
                let bytes = std::fs::read(&path).expect("a file");
                let name = path.file_name().expect("a name").to_string_lossy();
                let value = serde_json::from_slice(&bytes).expect("JSON");
                (name.into_owned(), value)
            })
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

/// Waits for the end of a program.
async fn ended(child: Child) -> Ran {
    let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output = ended.expect("the program ends in time").expect("output");
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Returns the number of calls of an operation, such as `sso:Logout`.
fn calls(sandbox: &Sandbox, action: &str) -> usize {
    let wanted = |e: &Event| matches!(e, Event::LoginCall { action: a, .. } if a == action);
    sandbox.events().count(wanted)
}

/// Insists that no token or code is in a text.
fn has_no_secret(sandbox: &Sandbox, text: &str) {
    for secret in sandbox.identity_center().secrets() {
        assert!(!text.contains(&secret), "a secret in {text}");
    }
}
