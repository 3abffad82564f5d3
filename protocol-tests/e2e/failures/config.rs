//! What cannot be meant is refused on the command line, before anything listens.

use std::path::Path;

use protocol_tests::harness::program;
use tokio::process::Command;

use super::{Record, hide};
use crate::support::{HOST, pgiam, run};

/// A folder to run `pgiam` in, with nothing of the caller's around it.
struct Place {
    dir: tempfile::TempDir,
    record: Record,
}

impl Place {
    fn new(name: &'static str) -> Self {
        Self {
            dir: tempfile::tempdir().expect("a folder"),
            record: Record::new(name),
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).expect(name);
    }

    /// Runs `pgiam` with these words, which must end by itself, with nothing on standard output.
    async fn says(&mut self, title: &str, words: &str) {
        let mut command = Command::new(pgiam());
        program::clean_env(&mut command, &["AWS_", "PGIAM_", "XDG_"]);
        command
            .args(words.split_whitespace())
            .current_dir(self.path())
            .env("HOME", self.path())
            .kill_on_drop(true);
        let ran = run(command).await;
        assert_eq!(ran.stdout, "", "{title}");
        let here = self.path().display().to_string();
        let said = ran.stderr.replace(&here, "DIR");
        let code = ran.code.map_or_else(String::new, |code| code.to_string());
        let said = format!("$ pgiam {words}\n{}\n(exit code {code})", said.trim_end());
        self.record.add(title, &hide(&said, "(os error ", ")", "N"));
    }

    /// The same with a configuration file of one target.
    async fn says_of(&mut self, title: &str, target: &str) {
        self.write("pgiam.toml", &format!("[targets.orders]\n{target}\n"));
        self.says(title, "serve").await;
    }
}

#[tokio::test]
async fn files_that_cannot_be_meant() {
    let mut place = Place::new("configuration");
    let right = format!("host = \"{HOST}\"\nbastion = \"i-0123456789abcdef0\"");
    place.says("no configuration", "serve").await;
    place
        .says("a file that is not there", "serve --config nosuch.toml")
        .await;
    for (title, target) in [
        ("a misspelt key", format!("hots = \"{HOST}\"")),
        ("a quote forgotten", format!("host = \"{HOST}")),
        ("a number in quotes", format!("{right}\nport = \"5433\"")),
        ("a port too high", format!("{right}\nport = 70000")),
        ("no host", "bastion = \"i-0123456789abcdef0\"".to_owned()),
        ("an address for a host", "host = \"10.0.0.7\"".to_owned()),
        (
            "a URL for a host",
            format!("host = \"postgres://{HOST}/app\""),
        ),
        ("a port that is none", format!("host = \"{HOST}:pg\"")),
        (
            "a bastion by its name",
            format!("host = \"{HOST}\"\nbastion = \"bastion-1\""),
        ),
        (
            "an unknown way",
            format!("host = \"{HOST}\"\nvia = \"vpn\""),
        ),
        (
            "a region that contradicts the host",
            format!("{right}\nregion = \"us-east-1\""),
        ),
        ("an empty user", format!("{right}\nuser = \"\"")),
        ("no time at all", format!("{right}\nconnect_timeout = 0")),
        (
            "a CA file that is not there",
            format!("{right}\nca_file = \"rds.pem\""),
        ),
        (
            "a CA file without certificates",
            format!("{right}\nca_file = \"pgiam.toml\""),
        ),
    ] {
        place.says_of(title, &target).await;
    }
    place.record.compare();
}

#[tokio::test]
async fn commands_that_cannot_be_meant() {
    let mut place = Place::new("command-line");
    let target = format!("host = \"{HOST}\"\nbastion = \"i-0123456789abcdef0\"\nport = 0");
    place.write(
        "pgiam.toml",
        &format!("[targets.orders]\n{target}\n[targets.stock]\n{target}\n"),
    );
    place.write("file", "");
    for (title, words) in [
        ("an unknown target", "serve nosuch"),
        ("one port for two targets", "serve --port 6000"),
        ("a flag that is none", "serve --prot 6000"),
        ("a port that is none", "serve --port pg"),
        ("a log format that is none", "serve --log-format xml"),
        ("a log filter that is none", "serve --log info,pgiam=loud"),
        (
            "a state folder that is a file",
            "serve --state-dir file/state",
        ),
    ] {
        place.says(title, words).await;
    }

    std::fs::create_dir_all(place.path().join("state/local-tls")).expect("the state folder");
    place.write("state/local-tls/server.crt", "rubbish");
    place
        .says("a damaged certificate", "serve --state-dir state")
        .await;

    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = holder.local_addr().expect("its address").port();
    let words = format!("serve orders --port {port}");
    place.says("a port in use", &words).await;
    place.record.text = place
        .record
        .text
        .replace(&port.to_string(), "PORT")
        .replace(&(port + 1).to_string(), "PORT+1");
    place.record.compare();
}

#[tokio::test]
async fn shortcuts_that_lead_nowhere() {
    let mut place = Place::new("shortcuts");
    let target = format!("host = \"{HOST}\"\nport = 0");
    place.write(
        "pgiam.toml",
        &format!("[targets.orders]\n{target}\n[targets.stock]\n{target}\n"),
    );
    for (title, words) in [
        ("psql in an unknown target", "psql ordres --psql sh"),
        (
            "psql in one of several targets, without a terminal",
            "psql --psql sh",
        ),
        (
            "a program that is missing",
            "psql orders --psql no-such-psql",
        ),
        ("the port of a target that is not served", "url orders"),
        ("a form that is none", "url orders --format xml"),
    ] {
        place.says(title, words).await;
    }
    place.write("pgiam.toml", "[targets.orders]\nhots = 1\n");
    place
        .says("psql with a misspelt key", "psql --psql sh")
        .await;
    place.record.compare();
}
