//! Credentials that cannot be signed with, from each source, and programs that print them.

use std::process::Stdio;
#[cfg(target_os = "linux")]
use std::time::Duration;

use tokio::process::Command;
#[cfg(target_os = "linux")]
use tokio::time::timeout;

use super::Record;
use super::aws::no_keys;
#[cfg(target_os = "linux")]
use crate::support::{PATIENCE, eventually};
use crate::support::{Setup, World, by_shell, ordinary_config, pgiam, run};

/// What may be in no log and no answer: it stands in each of the values.
const HIDDEN: &str = "hiddenvalue";

fn write(world: &World, file: &str, text: &str) {
    std::fs::write(world.sandbox.dir().join(file), text).expect(file);
}

#[tokio::test]
async fn keys_of_the_environment_that_cannot_be_signed_with() {
    let mut record = Record::new("keys");
    record.secrets.push(HIDDEN.to_owned());
    let set = |name, value: &str| vec![(name, Some(format!("{HIDDEN}{value}")))];
    for (title, env) in [
        (
            "a key id from a file with Windows line ends",
            set("AWS_ACCESS_KEY_ID", "\r"),
        ),
        (
            "a secret with a line break",
            set("AWS_SECRET_ACCESS_KEY", "\nx"),
        ),
        (
            "a session token with a quotation mark of a word processor",
            set("AWS_SESSION_TOKEN", "\u{201d}"),
        ),
        (
            "a key id without a secret",
            vec![("AWS_SECRET_ACCESS_KEY", Some(String::new()))],
        ),
        (
            "a name of the machine's kind that no header takes",
            vec![("AWS_EXECUTION_ENV", Some("AWS_ECS\r\n".to_owned()))],
        ),
    ] {
        let setup = Setup {
            env,
            ..Setup::default()
        };
        let world = World::with(setup).await;
        // Clients that try again at once must not make it busy.
        record.refused(&world, title, &[]).await;
        for _ in 0..2 {
            world.psql(&["-c", "select 1"]).await;
        }
        let log = world.proxy.log_text();
        assert!(!log.contains("panic"), "{title}: {log}");
        assert!(log.len() < 40_000, "{title}: {} bytes of log", log.len());
        record.leave(world).await;
    }
    record.compare();
}

#[tokio::test]
async fn keys_of_profiles_and_programs_that_cannot_be_signed_with() {
    let mut record = Record::new("profile-keys");
    record.secrets.push(HIDDEN.to_owned());
    let world = World::with(Setup {
        env: no_keys(),
        config: Some(ordinary_config() + "profile = \"dev\"\n"),
        ..Setup::default()
    })
    .await;
    let process = |line: &str| {
        let line = by_shell(line);
        format!("[profile dev]\ncredential_process = {line}\n")
    };
    let printed = |id: &str, secret: &str, token: &str| {
        process(&format!(
            "printf '%s' '{{\"Version\":1,\"AccessKeyId\":\"{id}\",\"SecretAccessKey\":\"{secret}\",\"SessionToken\":\"{token}\"}}'"
        ))
    };
    let role =
        "[profile dev]\nrole_arn = arn:aws:iam::123456789012:role/app\nsource_profile = base\n";
    for (title, config) in [
        (
            "a secret with a blank",
            format!(
                "[profile dev]\naws_access_key_id = AKIA\naws_secret_access_key = {HIDDEN} x\n"
            ),
        ),
        (
            "keys that a role is assumed with",
            format!(
                "{role}[profile base]\naws_access_key_id = AKIA\naws_secret_access_key = {HIDDEN}é\n"
            ),
        ),
        (
            "a program that prints a line break in a key id",
            printed(&format!("{HIDDEN}\\n"), "s", "t"),
        ),
        (
            "a program that prints an empty secret",
            printed("AKIA", "", "t"),
        ),
        (
            "a program that prints a session token with an escape character",
            printed("AKIA", "s", &format!("{HIDDEN}\\u001b")),
        ),
        (
            "a program that a role is assumed with",
            printed(&format!("{HIDDEN}\\r"), "s", "t")
                .replace("[profile dev]", &format!("{role}[profile base]")),
        ),
        (
            "a program that does not stop to print",
            process(&format!("yes {HIDDEN}")),
        ),
        (
            "a program that does not stop to complain",
            process(&format!("sh -c 'yes {HIDDEN} >&2'")),
        ),
    ] {
        write(&world, "config", &config);
        record.refused(&world, title, &[]).await;
    }
    let log = world.proxy.log_text();
    assert!(!log.contains("panic"), "{log}");
    record.leave(world).await;
    record.compare();
}

/// Not UTF-8, which the SDK takes for "not set", or quotes.
#[cfg(unix)]
#[tokio::test]
async fn keys_that_are_no_text_are_refused_by_commands_in_one_line() {
    use std::os::unix::ffi::OsStringExt as _;

    let world = World::start().await;
    for (name, args) in [
        ("AWS_ACCESS_KEY_ID", vec!["list"]),
        ("AWS_SECRET_ACCESS_KEY", vec!["list"]),
        ("AWS_SESSION_TOKEN", vec!["list"]),
    ] {
        let value = [HIDDEN.as_bytes(), b"\xff"].concat();
        let mut command = Command::new(pgiam());
        command
            .args(args)
            .envs(world.sandbox.env())
            .env(name, std::ffi::OsString::from_vec(value))
            .current_dir(world.sandbox.dir())
            .stdin(Stdio::null());
        let ran = run(command).await;
        assert_eq!(ran.code, Some(1), "{ran:?}");
        let expected = format!("{name} from the environment is not valid UTF-8");
        assert!(ran.stderr.contains(&expected), "{ran:?}");
        assert!(!ran.stderr.contains(HIDDEN), "{ran:?}");
    }
    world.stop().await;
}

/// Whether a process runs; one that has ended and waits for its parent does not.
#[cfg(target_os = "linux")]
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.to_owned());
    state.is_some_and(|state| !state.starts_with('Z'))
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn programs_and_their_children_end_with_pgiam() {
    use nix::sys::signal::Signal;

    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut world = World::with(Setup {
            env: no_keys(),
            config: Some(ordinary_config() + "profile = \"dev\"\n"),
            ..Setup::default()
        })
        .await;
        let pids = world.sandbox.dir().join("pids");
        let note = format!("echo $$ >> {}", pids.display());
        let script = format!("{note}; sh -c '{note}; sleep 600; true' & wait\n");
        write(&world, "process.sh", &script);
        let script = world.sandbox.dir().join("process.sh");
        let config = format!(
            "[profile dev]\ncredential_process = sh {}\n",
            script.display()
        );
        write(&world, "config", &config);
        let mut waiting = world.psql_command(&["-c", "select 1"]);
        let mut waiting = waiting.kill_on_drop(true).spawn().expect("psql starts");
        let started = eventually("both programs", || {
            let text = std::fs::read_to_string(&pids).ok()?;
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            (lines.len() == 2 && text.ends_with('\n')).then_some(lines)
        });
        let started = started.await;
        assert!(started.iter().all(|pid| runs(pid)), "{started:?}");
        world.proxy.signal(signal).expect("a signal");
        // The client gets its answer when the program drains.
        let ended = world.proxy.wait_end(PATIENCE).await;
        ended.expect("pgiam ends");
        eventually("the end of the programs", || {
            (!started.iter().any(|pid| runs(pid))).then_some(())
        })
        .await;
        let told = timeout(Duration::from_secs(10), waiting.wait()).await;
        told.expect("psql ends").expect("psql's status");
    }
}
