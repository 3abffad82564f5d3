//! What people type every day: one command with a tunnel of its own, a changed configuration, help.

mod guide;
mod known;
mod log;
mod project;
mod psql;
mod reload;
mod run;
pub(crate) mod screen;
mod watch;
mod words;

use std::path::Path;

use protocol_tests::aws::sandbox::Sandbox;
use protocol_tests::database::rds::RdsDatabase;
use protocol_tests::harness::program;
use tokio::process::Command;

use crate::support::{Setup, behind, ordinary_config, pgiam};

/// The program with the settings that keep it inside the sandbox, and nothing inherited.
pub(crate) fn command(sandbox: &Sandbox, args: &[&str]) -> Command {
    let dir = sandbox.dir();
    let mut command = Command::new(pgiam());
    program::clean_env(&mut command, &["AWS_", "PGIAM_", "PG"]);
    command
        .args(args)
        .envs(sandbox.env())
        .env("PGIAM_CA_FILE", sandbox.pki().ca_pem_path())
        .env("PGIAM_STATE_DIR", dir.join("state"))
        .env("XDG_CONFIG_HOME", dir.join("no-config"))
        .env("NO_PROXY", "localhost,127.0.0.1")
        .current_dir(dir)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    command
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a file in the sandbox's directory");
}

/// AWS and a database, for a program that is started by each test, with the ordinary file in its folder.
pub(crate) struct Lab {
    pub(crate) database: RdsDatabase,
    pub(crate) sandbox: Sandbox,
}

impl Lab {
    pub(crate) async fn open() -> Self {
        let (sandbox, database) = behind(&Setup::default()).await;
        write(&sandbox.dir().join("pgiam.toml"), &ordinary_config());
        Self { database, sandbox }
    }

    fn psql(&self) -> String {
        let psql = self.database.postgres().psql_program();
        psql.display().to_string()
    }

    pub(crate) async fn close(self) {
        let left = self.sandbox.open_sessions();
        assert_eq!(left, Vec::<String>::new(), "left at AWS");
        self.database.stop().await.expect("the server stops");
        self.sandbox.shutdown().await;
    }
}
