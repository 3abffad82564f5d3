//! The machine as it is: variables that others have set, homes that cannot be written, files that
//! others own, ways to deploy a configuration, output that goes nowhere. Nothing here needs AWS: the
//! target is reached directly, and no client logs in.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol_tests::harness::ports::{free_port, free_ports};
use protocol_tests::harness::program;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::support::{HOST, PATIENCE, Ran, pgiam, run};

/// A home directory, with nothing of the caller's around it.
struct Place {
    dir: tempfile::TempDir,
}

fn target(port: u16) -> String {
    format!("[targets.orders]\nhost = \"{HOST}\"\nvia = \"direct\"\nport = {port}\n")
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("its mode");
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self { dir }
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// `pgiam` with these words and the file `pgiam.toml` of this place.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(pgiam());
        program::clean_env(&mut command, &["AWS_", "PGIAM_", "XDG_", "PG"]);
        command
            .args(words)
            .current_dir(self.dir.path())
            .env("HOME", self.dir.path())
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// What a command says that ends by itself.
    async fn ran(&self, words: &[&str], set: impl FnOnce(&mut Command)) -> Ran {
        let mut command = self.command(words);
        set(&mut command);
        run(command).await
    }

    /// What a start says that must end by itself.
    async fn refused(&self, words: &[&str], set: impl FnOnce(&mut Command)) -> Ran {
        let ran = self.ran(words, set).await;
        assert_eq!(ran.stdout, "", "{ran:?}");
        assert!(matches!(ran.code, Some(1 | 2)), "{ran:?}");
        ran
    }
}

/// A started `pgiam serve`.
struct Serving {
    child: Child,
    port: u16,
}

impl Serving {
    /// Starts a command that serves `port`, and waits until a client would be served.
    async fn start(mut command: Command, port: u16) -> Self {
        let child = command.spawn().expect("pgiam starts");
        let mut serving = Self { child, port };
        serving.listens(port).await;
        serving
    }

    /// Waits until the port answers as a PostgreSQL server does.
    async fn listens(&mut self, port: u16) {
        let listening = async {
            loop {
                if let Some(ended) = self.child.try_wait().expect("its state") {
                    let mut said = String::new();
                    if let Some(stderr) = &mut self.child.stderr {
                        _ = stderr.read_to_string(&mut said).await;
                    }
                    panic!("pgiam has ended: {ended}\n{said}");
                }
                if answers(port).await {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, listening)
            .await
            .expect("it listens in time");
    }

    /// Ends it in order; what it has written, where that was piped.
    async fn stop(self) -> Ran {
        assert!(answers(self.port).await, "it serves to the end");
        let pid = self.child.id().expect("it runs").cast_signed();
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it runs");
        let output = timeout(PATIENCE, self.child.wait_with_output()).await;
        let output = output.expect("it ends in time").expect("its output");
        let ran = Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran
    }
}

/// Whether an SSLRequest is answered.
async fn answers(port: u16) -> bool {
    use tokio::io::AsyncWriteExt as _;
    let Ok(mut client) = TcpStream::connect(("127.0.0.1", port)).await else {
        return false;
    };
    let sent = client.write_all(b"\0\0\0\x08\x04\xd2\x16\x2f").await;
    sent.is_ok() && client.read_u8().await.is_ok_and(|answer| answer == b'S')
}

fn piped(mut command: Command) -> Command {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[tokio::test]
async fn variables_of_an_orchestrator_stop_no_command() {
    let place = Place::new();
    let port = free_port();
    place.write("pgiam.toml", target(port));
    let with_links = |mut command: Command| {
        command
            .env("PGIAM_SERVICE_HOST", "10.0.0.1")
            .env("PGIAM_SERVICE_PORT", "5433")
            .env("PGIAM_SERVICE_PORT_POSTGRES", "5433")
            .env("PGIAM_PORT", "tcp://10.0.0.1:5433")
            .env("PGIAM_HTTP_PORT", "tcp://10.0.0.2:80")
            .env("PGIAM_PORT_5433_TCP", "tcp://10.0.0.1:5433")
            .env("PGIAM_PORT_5433_TCP_ADDR", "10.0.0.1")
            .env("PGIAM_BUILD", OsString::from_vec(b"\xff".to_vec()))
            .env("PGIAM_LOCAL_PASWORD", "hunter2")
            // A file that was written for Windows: each value ends in a carriage return.
            .env("PGIAM_DRAIN_TIMEOUT", "1\r")
            .env("PGIAM_HUB_PORT", "");
        command
    };
    for words in [
        &["url", "orders"][..],
        &["completions", "bash"],
        &["--version"],
        &["setup", "policy", "--help"],
    ] {
        let ran = run(with_links(place.command(words))).await;
        assert_eq!(ran.code, Some(0), "{words:?} {ran:?}");
    }
    let url = run(with_links(place.command(&["url", "orders"]))).await;
    assert!(url.stdout.contains(&port.to_string()), "{url:?}");
    let status = run(with_links(place.command(&["status"]))).await;
    assert_eq!(status.code, Some(3), "{status:?}");

    let serving = Serving::start(with_links(piped(place.command(&["serve"]))), port).await;
    let log = serving.stop().await.stderr;
    let lines: Vec<&str> = log
        .lines()
        .filter(|l| l.contains("PGIAM_SERVICE_HOST"))
        .collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains("PGIAM_PORT_5433_TCP_ADDR"), "{log}");
    assert!(log.contains("did you mean PGIAM_LOCAL_PASSWORD?"), "{log}");
    assert!(!log.contains("hunter2"), "{log}");
}

#[tokio::test]
async fn a_fault_of_a_variable_names_it() {
    let place = Place::new();
    let port = free_port();
    place.write(
        "pgiam.toml",
        target(port) + &target(port).replace("orders]", "stock]"),
    );
    let not_text = OsString::from_vec(b"hunter\xff2".to_vec());
    let cases: [(&str, &OsStr, &str); 9] = [
        ("PGIAM_PORT", "pg".as_ref(), "'PGIAM_PORT'"),
        (
            "PGIAM_PORT",
            "6000".as_ref(),
            "PGIAM_PORT applies to one target, but 2",
        ),
        (
            "PGIAM_PORT",
            &not_text,
            "the variable PGIAM_PORT is not valid UTF-8",
        ),
        (
            "PGIAM_LOCAL_PASSWORD",
            &not_text,
            "the variable PGIAM_LOCAL_PASSWORD is not valid UTF-8",
        ),
        (
            "PGIAM_LOCAL_PASSWORD",
            "\r\n".as_ref(),
            "the variable PGIAM_LOCAL_PASSWORD contains only",
        ),
        ("PGIAM_PEER_CHECK", "perhaps".as_ref(), "'PGIAM_PEER_CHECK'"),
        (
            "PGIAM_ADDRESS",
            "here".as_ref(),
            "from the variable PGIAM_ADDRESS",
        ),
        (
            "PGIAM_PASSWORD_FILE",
            "nosuch".as_ref(),
            "from the variable PGIAM_PASSWORD_FILE",
        ),
        (
            "PGIAM_CONFIG",
            "nosuch.toml".as_ref(),
            "from the variable PGIAM_CONFIG",
        ),
    ];
    for (name, value, expected) in cases {
        let ran = place.refused(&["serve"], |command| {
            command.env(name, value);
        });
        let said = ran.await.stderr;
        assert!(said.contains(expected), "{name}={value:?}\n→ {said}");
        assert!(
            !said.contains("--port") || expected.contains("applies"),
            "{said}"
        );
        assert!(!said.contains("hunter"), "{said}");
    }
    place.write("pgiam.toml", target(port));
    for (name, value) in [
        ("PGIAM_REGION", "us-east-1"),
        ("PGIAM_CA_FILE", "nosuch.pem"),
    ] {
        let ran = place.refused(&["serve"], |command| {
            command.env(name, value);
        });
        let said = ran.await.stderr;
        assert!(
            said.contains(&format!("from the variable {name}")),
            "{said}"
        );
    }
}

#[tokio::test]
async fn what_others_could_have_made_or_changed_is_not_used() {
    let place = Place::new();
    let port = free_port();
    place.write("pgiam.toml", target(port));
    let state = place.path(".local/state/pgiam");
    Serving::start(place.command(&["serve"]), port)
        .await
        .stop()
        .await;
    let key = state.join("local-tls/server.key");
    let mut refused = Vec::new();
    for (path, open, closed) in [(&state, 0o777, 0o700), (&key, 0o644, 0o600)] {
        mode(path, open);
        refused.push(place.refused(&["serve"], |_| {}).await.stderr);
        mode(path, closed);
    }
    if nix::unistd::geteuid().is_root() {
        for path in [&state, &key] {
            std::os::unix::fs::chown(path, Some(12_345), None).expect("given away");
            let said = place.refused(&["serve"], |_| {}).await.stderr;
            assert!(said.contains("user id 12345, not to you"), "{said}");
            refused.push(said);
            std::os::unix::fs::chown(path, Some(0), None).expect("taken back");
        }
        let password = place.write("password", "hunter2\n");
        mode(&password, 0o600);
        std::os::unix::fs::chown(&password, Some(12_345), None).expect("given away");
        let words = ["serve", "--password-file", "password"];
        let said = place.refused(&words, |_| {}).await.stderr;
        assert!(said.contains("belongs to user id 12345"), "{said}");
        refused.push(said);
    }
    for said in refused {
        let remedies = ["chmod ", "chown ", "rm -r "];
        let is_told = remedies.iter().any(|remedy| said.contains(remedy));
        assert!(is_told && !said.contains("hunter2"), "{said}");
    }
    // A file that everybody may change does not say who may connect.
    let config = place.write("pgiam.toml", target(port) + "[serve]\npeer_check = 'off'\n");
    mode(&config, 0o666);
    let said = place.refused(&["serve"], |_| {}).await.stderr;
    assert!(said.contains("chmod go-w pgiam.toml"), "{said}");
    mode(&config, 0o644);
    Serving::start(place.command(&["serve"]), port)
        .await
        .stop()
        .await;
}

#[tokio::test]
async fn without_a_home_the_certificate_stays_in_memory() {
    let place = Place::new();
    let port = free_port();
    let config = place.write("pgiam.toml", target(port));
    let config = config.display().to_string();
    for home in ["/dev/null", "/proc/nonexistent"] {
        let mut command = piped(place.command(&["serve", "--config", &config]));
        command.env("HOME", home).current_dir("/");
        let log = Serving::start(command, port).await.stop().await.stderr;
        let told: Vec<&str> = log
            .lines()
            .filter(|l| l.contains("in memory only"))
            .collect();
        assert_eq!(told.len(), 1, "{log}");
        assert!(
            told[0].contains(" ! ") && told[0].contains("sslrootcert"),
            "{log}"
        );
        assert!(told[0].contains(home), "{log}");
    }
}

#[tokio::test]
async fn a_configuration_that_is_no_text_file_is_refused_at_once() {
    let place = Place::new();
    let made = Command::new("mkfifo")
        .arg(place.path("pipe"))
        .status()
        .await;
    assert!(made.expect("mkfifo").success());
    let huge = std::fs::File::create(place.path("huge")).expect("a file");
    huge.set_len(1 << 40).expect("its length");
    let text = target(5433);
    let units = text.chars().map(u32::from);
    let utf32: Vec<u8> = units.flat_map(u32::to_le_bytes).collect();
    place.write("utf32", utf32);
    for (path, expected) in [
        ("pipe", "is not a regular file"),
        ("/dev/zero", "is not a regular file"),
        (".", "is not a regular file"),
        ("huge", "is longer than 1048576 bytes"),
        ("utf32", "its encoding is UTF-32"),
    ] {
        let ran = place.refused(&["serve", "--config", path], |_| {}).await;
        assert!(ran.stderr.contains(expected), "{path}: {ran:?}");
        assert_eq!(ran.code, Some(2), "{ran:?}");
    }
    // With a byte order mark, and lines that end as on Windows; and as Windows PowerShell writes it.
    let port = free_port();
    let text = format!("\u{feff}{}", target(port).replace('\n', "\r\n"));
    let utf16 = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for bytes in [text.clone().into_bytes(), utf16] {
        place.write("pgiam.toml", bytes);
        Serving::start(place.command(&["serve"]), port)
            .await
            .stop()
            .await;
    }
}

#[tokio::test]
async fn it_serves_whatever_becomes_of_its_output() {
    let place = Place::new();
    let port = free_port();
    place.write("pgiam.toml", target(port));
    let program = pgiam().display().to_string();
    for redirection in [
        ">/dev/full",
        "2>/dev/full",
        ">/dev/full 2>&1",
        ">&-",
        "2>&-",
        ">&- 2>&- <&-",
    ] {
        let mut shell = Command::new("/bin/sh");
        program::clean_env(&mut shell, &["AWS_", "PGIAM_", "XDG_", "PG"]);
        shell
            .args([
                "-c",
                &format!("exec {program} serve --log trace {redirection}"),
            ])
            .current_dir(place.path(""))
            .env("HOME", place.path(""))
            .kill_on_drop(true);
        Serving::start(shell, port).await.stop().await;
    }
    // Nobody reads any more.
    let mut child = piped(place.command(&["serve", "--log", "trace"]));
    let mut child = child.spawn().expect("pgiam starts");
    drop((child.stdout.take(), child.stderr.take()));
    let mut serving = Serving { child, port };
    serving.listens(port).await;
    serving.stop().await;
}

/// A way to replace a configuration file, from the one with `before` to the one with `after`.
struct Deployed {
    place: Place,
    /// What `--config` names.
    config: PathBuf,
}

fn store(place: &Place, name: &str, text: &str) -> PathBuf {
    let dir = place.path(name);
    std::fs::create_dir(&dir).expect("a directory");
    let path = dir.join("pgiam.toml");
    std::fs::write(&path, text).expect("a file");
    set_time(&path);
    dir
}

/// The time that Nix gives every file.
fn set_time(path: &Path) {
    let file = std::fs::File::options().write(true).open(path).expect("it");
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    file.set_modified(time).expect("its time");
}

fn swap(link: &Path, to: &Path) {
    let beside = link.parent().expect("a directory").join("swapped");
    symlink(to, &beside).expect("a link");
    std::fs::rename(beside, link).expect("it takes its place");
}

impl Deployed {
    /// Starts with one port and waits until another one, which the change brings, is served.
    async fn changes(&self, ports: [u16; 2], change: impl FnOnce(&Place)) {
        let config = self.config.display().to_string();
        let mut command = self.place.command(&["serve", "--config", &config]);
        command.stderr(Stdio::null());
        let mut serving = Serving::start(command, ports[0]).await;
        change(&self.place);
        serving.listens(ports[1]).await;
        serving.port = ports[1];
        serving.stop().await;
    }
}

#[tokio::test]
async fn a_file_that_is_replaced_is_loaded_however_that_is_done() {
    // Both have five digits, so that the files have the same length.
    let ports = free_ports::<2>();
    let [before, after] = ports.map(target);

    // By an editor that renames, with the time and the length of the one before.
    let place = Place::new();
    let config = place.write("pgiam.toml", &before);
    set_time(&config);
    let deployed = Deployed { place, config };
    let change = |place: &Place| {
        let beside = place.write("new", &after);
        set_time(&beside);
        std::fs::rename(beside, place.path("pgiam.toml")).expect("it takes its place");
    };
    deployed.changes(ports, change).await;

    // In place, within one tick of the clock.
    let place = Place::new();
    let config = place.write("pgiam.toml", &before);
    set_time(&config);
    let deployed = Deployed { place, config };
    let change = |place: &Place| set_time(&place.write("pgiam.toml", &after));
    deployed.changes(ports, change).await;

    // By a link from the file into a store.
    let place = Place::new();
    let [old, new] =
        [("old", &before), ("new", &after)].map(|(name, text)| store(&place, name, text));
    let config = place.path("pgiam.toml");
    symlink(old.join("pgiam.toml"), &config).expect("a link");
    let deployed = Deployed { place, config };
    let change = |place: &Place| swap(&place.path("pgiam.toml"), &new.join("pgiam.toml"));
    deployed.changes(ports, change).await;

    // By a link to the directory, as releases are switched.
    let place = Place::new();
    let [old, new] =
        [("old", &before), ("new", &after)].map(|(name, text)| store(&place, name, text));
    symlink(&old, place.path("current")).expect("a link");
    let config = place.path("current/pgiam.toml");
    let deployed = Deployed { place, config };
    deployed
        .changes(ports, |place| swap(&place.path("current"), &new))
        .await;

    // By a link in the directory, which goes with what it led to: a ConfigMap of Kubernetes.
    let place = Place::new();
    let [old, new] =
        [("..1", &before), ("..2", &after)].map(|(name, text)| store(&place, name, text));
    symlink("..1", place.path("..data")).expect("a link");
    let config = place.path("pgiam.toml");
    symlink("..data/pgiam.toml", &config).expect("a link");
    let deployed = Deployed { place, config };
    let change = |place: &Place| {
        swap(
            &place.path("..data"),
            Path::new(new.file_name().expect("a name")),
        );
        std::fs::remove_dir_all(&old).expect("the old one goes");
    };
    deployed.changes(ports, change).await;
}

/// `pgiam token` asks no service, so that the settings of the AWS tools alone decide.
#[tokio::test]
async fn settings_of_the_aws_tools_are_read_or_refused_by_name() {
    let place = Place::new();
    let made = Command::new("mkfifo")
        .arg(place.path("pipe"))
        .status()
        .await;
    assert!(made.expect("mkfifo").success());
    place.write("latin", b"# caf\xe9\n[default]\n");
    place.write("legacy", "[default]\nretry_mode = legacy\nmax_attempts =\n");
    place.write(
        "typo",
        "[profile a]\nrole_arn = arn:aws:iam::1:role/a\nsource_profile = zzz\n",
    );
    let pipe = place.path("pipe").display().to_string();
    let path = |name: &str| place.path(name).display().to_string();
    let host = "orders.cluster-abc123.eu-central-1.rds.amazonaws.com";
    let token = ["token", "--host", host, "--user", "app"];
    for (name, value, expected) in [
        ("AWS_RETRY_MODE", "legacy", ""),
        ("AWS_MAX_ATTEMPTS", "", ""),
        ("AWS_CONFIG_FILE", "/dev/null", ""),
        ("AWS_CONFIG_FILE", &path("legacy"), ""),
        (
            "AWS_ENDPOINT_URL",
            "",
            "AWS_ENDPOINT_URL from the environment is empty",
        ),
        (
            "AWS_ENDPOINT_URL_SSM",
            "localhost:1",
            "is not an http or https URL",
        ),
        // The keys in the environment need no profile.
        ("AWS_CONFIG_FILE", &pipe, ""),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/zero", ""),
        ("AWS_CONFIG_FILE", &path("latin"), ""),
        ("AWS_CA_BUNDLE", "/dev/zero", "it is not a regular file"),
    ] {
        let ran = place
            .ran(&token, |command| {
                command
                    .env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
                    .env(
                        "AWS_SECRET_ACCESS_KEY",
                        "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY",
                    )
                    .env(name, value);
            })
            .await;
        assert_eq!(
            ran.code == Some(0),
            expected.is_empty(),
            "{name}={value}: {ran:?}"
        );
        assert!(ran.stderr.contains(expected), "{name}={value}: {ran:?}");
        assert!(!ran.stderr.contains("internal error"), "{ran:?}");
    }
    let ran = place
        .ran(&[&token[..], &["--profile", "a"]].concat(), |command| {
            command.env("AWS_CONFIG_FILE", path("typo"));
        })
        .await;
    let expected = "source_profile \"zzz\" does not exist";
    assert!(
        ran.code != Some(0) && ran.stderr.contains(expected),
        "{ran:?}"
    );

    // A path that cannot be followed is no missing file: the profile may be behind it.
    std::os::unix::fs::symlink("loop", place.path("loop")).expect("a link");
    let ran = place
        .ran(&token, |command| {
            command.env("AWS_CONFIG_FILE", path("loop"));
        })
        .await;
    let expected = "Too many levels of symbolic links";
    assert!(
        ran.code != Some(0) && ran.stderr.contains(expected),
        "{ran:?}"
    );
}
