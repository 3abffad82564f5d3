//! `pgiam.toml` in a parent directory.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::unistd::Uid;
use protocol_tests::aws::sandbox::Sandbox;
use serde_json::Value;
use tokio::process::Command;

use super::screen::{END, Terminal};
use super::{command, write};
use crate::support::{PATIENCE, REGION, Ran, eventually, ordinary_config, run};

/// A repository with a file in its root, and a directory deep in it.
struct Project {
    sandbox: Sandbox,
    root: PathBuf,
    deep: PathBuf,
}

impl Project {
    async fn open() -> Self {
        let sandbox = Sandbox::builder().region(REGION).start().await;
        let sandbox = sandbox.expect("sandbox");
        let root = sandbox.dir().join("shop");
        let deep = root.join("src/deep");
        std::fs::create_dir_all(&deep).expect("a directory");
        std::fs::create_dir(root.join(".git")).expect("a directory");
        let project = Self {
            sandbox,
            root,
            deep,
        };
        write(&project.file(), &with_port(5433));
        project
    }

    fn file(&self) -> PathBuf {
        self.root.join("pgiam.toml")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = command(&self.sandbox, args);
        command.current_dir(&self.deep);
        command
    }

    /// Runs `pgiam url orders` deep in the repository.
    async fn url(&self) -> Ran {
        run(self.command(&["url", "orders", "--format", "dsn"])).await
    }
}

fn with_port(port: u16) -> String {
    ordinary_config().replace("port = 0", &format!("port = {port}"))
}

fn set_mode(path: &Path, mode: u32) {
    let mode = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, mode).expect("a mode");
}

const DSN: &str = "host=localhost port=5433 user=db_user dbname=app sslmode=disable";

#[tokio::test]
async fn the_file_of_the_repository_is_found() {
    let project = Project::open().await;
    assert_eq!(project.url().await.rows(), DSN);
    // A nearer file comes first.
    let near = project.root.join("src/pgiam.toml");
    write(&near, &with_port(6000));
    assert_eq!(project.url().await.rows(), DSN.replace("5433", "6000"));
    std::fs::remove_file(near).expect("the file");
    let said = project.command(&["url", "orders", "--port", "1"]);
    let Some(terminal) = Terminal::run(&said, "project").await else {
        return;
    };
    let screen = terminal.shows(END).await;
    assert!(screen.starts_with("configuration: "), "{screen}");
    assert!(
        screen.replace('\n', "").contains("shop/pgiam.toml"),
        "{screen}"
    );
    // Without a repository only the current directory counts, and the home directory is none.
    let mut at_home = project.command(&["url", "orders"]);
    at_home.env("HOME", &project.root);
    for ran in [run(at_home).await, {
        std::fs::remove_dir(project.root.join(".git")).expect("the directory");
        project.url().await
    }] {
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{ran:?}");
        assert!(
            ran.stderr.contains("there is no target \"orders\""),
            "{ran:?}"
        );
    }
    project.sandbox.shutdown().await;
}

#[tokio::test]
async fn a_file_that_others_can_change_is_ignored() {
    let project = Project::open().await;
    set_mode(&project.file(), 0o666);
    let ran = project.url().await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{ran:?}");
    let path = project.file().display().to_string();
    let ignored = format!("pgiam: ignored a configuration file: the configuration file {path} ");
    assert!(ran.stderr.starts_with(&ignored), "{ran:?}");
    assert!(
        ran.stderr
            .contains(&format!("(mode 0666); restrict it: chmod go-w {path}\n")),
        "{ran:?}"
    );
    set_mode(&project.file(), 0o644);
    assert_eq!(project.url().await.rows(), DSN);
    if Uid::effective().is_root() {
        std::os::unix::fs::chown(project.file(), Some(65_534), Some(65_534)).expect("chown");
        let ran = project.url().await;
        assert_eq!(ran.code, Some(2), "{ran:?}");
        let remedy = format!(
            "belongs to user id 65534, not to you; if you trust its contents, name it: --config {path}\n"
        );
        assert!(ran.stderr.contains(&remedy), "{ran:?}");
        let named =
            run(project.command(&["url", "orders", "--format", "dsn", "--config", &path])).await;
        assert_eq!(named.rows(), DSN);
        // A link of another user leads nowhere.
        std::fs::rename(project.file(), project.root.join("real.toml")).expect("a name");
        std::os::unix::fs::chown(project.root.join("real.toml"), Some(0), Some(0)).expect("chown");
        std::os::unix::fs::symlink("real.toml", project.file()).expect("a link");
        assert_eq!(project.url().await.rows(), DSN);
        std::os::unix::fs::lchown(project.file(), Some(65_534), Some(65_534)).expect("lchown");
        let ran = project.url().await;
        assert!(ran.stderr.contains("belongs to user id 65534"), "{ran:?}");
    }
    project.sandbox.shutdown().await;
}

#[tokio::test]
async fn a_server_follows_the_file_that_it_found() {
    let project = Project::open().await;
    write(&project.file(), &ordinary_config());
    let mut serve = project.command(&["serve", "--log-format", "json"]);
    let log = std::fs::File::create(project.root.join("log")).expect("a file");
    serve.stdout(Stdio::null()).stderr(log);
    let mut server = serve.spawn().expect("pgiam starts");
    let path = project
        .file()
        .canonicalize()
        .expect("a path")
        .display()
        .to_string();
    let logged = |text: &str| {
        let log = std::fs::read_to_string(project.root.join("log")).unwrap_or_default();
        log.contains(text).then_some(())
    };
    eventually("the log names the file", || {
        logged("using the configuration file of a parent directory")
    })
    .await;
    let names = async || {
        let ran = run(project.command(&["status", "--json"])).await;
        let all: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
        let targets = all[0]["targets"].as_array().cloned().unwrap_or_default();
        let names: Vec<String> = targets.iter().map(|one| one["name"].to_string()).collect();
        (names.join(" "), all[0]["config"].clone())
    };
    let wanted = async |expected: &str| {
        let look = async {
            while names().await != (expected.to_owned(), Value::from(path.as_str())) {
                tokio::time::sleep(std::time::Duration::from_millis(30)).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, look).await;
        assert!(found.is_ok(), "{expected}: {:?}", names().await);
    };
    wanted("\"orders\"").await;
    // A nearer file does not take its place.
    write(
        &project.deep.join("pgiam.toml"),
        "[targets.near]\nhost = \"x\"\n",
    );
    write(
        &project.file(),
        &ordinary_config().replace("targets.orders", "targets.stock"),
    );
    wanted("\"stock\"").await;
    // Nor does a file that others can change.
    set_mode(&project.file(), 0o666);
    write(&project.file(), &ordinary_config());
    eventually("the log says so", || logged("accessible to other users")).await;
    wanted("\"stock\"").await;
    server.kill().await.expect("it ends");
    project.sandbox.shutdown().await;
}
