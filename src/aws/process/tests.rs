#[cfg(target_os = "linux")]
use std::path::Path;

use aws_profile::{Origin, Setting};

use super::*;

const KEYS: &str = r#""Version": 1, "AccessKeyId": "AKID", "SecretAccessKey": "sk""#;

fn setting(value: &str) -> Setting {
    Setting {
        value: value.into(),
        origin: Origin::Request,
    }
}

/// Returns a program of the profile `dev`.
pub(super) fn program(words: &[&str]) -> Process {
    Process {
        profile: "dev".into(),
        command: setting("hidden").into(),
        words: words.iter().map(|word| (*word).to_owned()).collect(),
        account_id: None,
    }
}

fn shell(script: &str) -> Process {
    program(&["sh", "-c", script])
}

fn refusal(output: &str) -> String {
    read(output.as_bytes(), None).unwrap_err()
}

/// Parses an output with the keys and further members.
fn with(members: &str) -> Result<Credentials, String> {
    read(format!("{{{KEYS}, {members}}}").as_bytes(), None)
}

#[test]
fn output_becomes_credentials() {
    let output = format!(
        "\r\n {{{KEYS}, \"SessionToken\": \"st\", \"Expiration\": \"2030-01-31T13:00:00+01:00\"}}\n"
    );
    let read = read(output.as_bytes(), Some("123456789012")).unwrap();
    assert_eq!(read.access_key_id(), "AKID");
    assert_eq!(read.secret_access_key(), "sk");
    assert_eq!(read.session_token(), Some("st"));
    let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_896_091_200);
    assert_eq!(read.expiry(), Some(noon));
    let account = read.account_id().map(|id| id.as_str().to_owned());
    assert_eq!(account.as_deref(), Some("123456789012"));
}

#[test]
fn members_are_read_as_by_the_cli() {
    let account = |read: &Credentials| read.account_id().map(|id| id.as_str().to_owned());
    let null = with(r#""SessionToken": null, "Expiration": null, "AccountId": null"#).unwrap();
    assert_eq!(
        (null.session_token(), null.expiry(), account(&null)),
        (None, None, None)
    );
    let empty = with(r#""SessionToken": "", "AccountId": "1""#).unwrap();
    assert_eq!(empty.session_token(), Some(""));
    assert_eq!(account(&empty).as_deref(), Some("1"));
    let last = with(r#""AccessKeyId": "LAST", "sessiontoken": "x", "More": [1]"#).unwrap();
    assert_eq!((last.access_key_id(), last.session_token()), ("LAST", None));
    for version in ["1", "1.0", "1e0"] {
        assert!(
            with(&format!("\"Version\": {version}")).is_ok(),
            "{version}"
        );
    }
}

#[test]
fn problems_with_the_output_are_reported_without_quoting_it() {
    for (output, reason) in [
        ("", "its output is not JSON (line 1, column 0)"),
        ("hidden", "its output is not JSON (line 1, column 1)"),
        ("\u{feff}{}", "its output is not JSON (line 1, column 1)"),
        ("hidden\n{}", "its output is not JSON (line 1, column 1)"),
        ("{} {}", "its output is not JSON (line 1, column 4)"),
        ("[\"hidden\"]", "its output is not a JSON object"),
        ("{}", "its output has no Version, expected 1"),
        (
            "{\"Version\": \"1\"}",
            "Version in its output is a string, expected the number 1",
        ),
        ("{\"Version\": 2}", "its output has Version 2, expected 1"),
        (
            "{\"Version\": 1.5}",
            "its output has Version 1.5, expected 1",
        ),
        ("{\"Version\": 1}", "its output has no AccessKeyId"),
        ("{\"version\": 1}", "its output has no Version, expected 1"),
        (
            "{\"Version\": 1, \"accesskeyid\": \"hidden\"}",
            "its output has no AccessKeyId",
        ),
        (
            "{\"Version\": 1, \"AccessKeyId\": \"hidden\"}",
            "its output has no SecretAccessKey",
        ),
        (
            "{\"Version\": 1, \"AccessKeyId\": 7}",
            "AccessKeyId in its output is not a string",
        ),
    ] {
        assert_eq!(refusal(output), reason, "{output}");
    }
    let latin_1 = b"{\"Version\": 1, \"AccessKeyId\": \"b\xfcro\"}";
    let reason = read(latin_1, None).unwrap_err();
    assert!(reason.starts_with("its output is not JSON"), "{reason}");
}

#[test]
fn an_expiration_needs_an_offset() {
    let new_year = SystemTime::UNIX_EPOCH + Duration::from_secs(4_070_908_800);
    for (text, difference) in [
        ("2099-01-01T00:00:00Z", 0),
        ("2099-01-01T00:00:00.123456Z", 0),
        ("2099-01-01T02:00:00+02:00", 0),
        ("2098-12-31T19:00:00-0500", 0),
        ("2099-01-01T00:00:00UTC", 0),
        ("20990101T000000Z", 0),
        ("2099-01-01T00:01Z", 60),
        ("Thu, 01 Jan 2099 00:00:00 GMT", 0),
    ] {
        let read = with(&format!("\"Expiration\": \"{text}\"")).unwrap();
        let expected = new_year + Duration::from_secs(difference);
        assert_eq!(read.expiry(), Some(expected), "{text}");
    }
    const NO_TIME: &str =
        "Expiration in its output is not a time with an offset, such as 2030-01-31T12:00:00Z";
    for (value, reason) in [
        ("\"2099-01-01T00:00:00\"", NO_TIME),
        ("\"2099-01-01 00:00:00\"", NO_TIME),
        ("\"2099-01-01\"", NO_TIME),
        ("\"4070908800\"", NO_TIME),
        ("\"\"", NO_TIME),
        ("\"hidden\"", NO_TIME),
        ("4070908800", "Expiration in its output is not a string"),
    ] {
        let refused = with(&format!("\"Expiration\": {value}")).unwrap_err();
        assert_eq!(refused, reason, "{value}");
    }
    // The caller compares it with its clock.
    let past = with("\"Expiration\": \"1960-01-01T00:00:00Z\"").unwrap();
    assert_eq!(past.expiry(), Some(SystemTime::UNIX_EPOCH));
}

#[cfg(unix)]
async fn run_command(command: &str) -> Result<Credentials, String> {
    let words = aws_profile::split_posix(command).unwrap();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    credentials(&program(&words)).await
}

#[cfg(unix)]
#[tokio::test]
async fn a_program_starts_without_a_shell() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let at = |name: &str| dir.join(name).display().to_string();
    let count = at("count");
    std::fs::write(at("p"), format!("echo $# > {count}; echo '{{{KEYS}}}'\n")).unwrap();
    std::fs::create_dir(at("a blank")).unwrap();
    // A link and no copy: a file that a test has just written may still be open in a child of
    // another test, and cannot be executed then.
    std::os::unix::fs::symlink("/bin/sh", at("a blank/sh")).unwrap();
    let p = at("p");
    for (command, arguments) in [
        (format!("sh {p} a#b #c"), "2"),
        (format!("\"{}\" {p} x", at("a blank/sh")), "1"),
        (format!("sh {p}\none 'two  words' \"\""), "3"),
        (format!("sh {p} ~ $HOME * | > x && y ; z"), "10"),
    ] {
        run_command(&command).await.expect(&command);
        assert_eq!(std::fs::read_to_string(&count).unwrap().trim(), arguments);
    }
    const NO_SHELL: &str =
        "; it runs without a shell, so ~, $VARIABLE and NAME=VALUE have no effect";
    let missing = "cannot be started: No such file or directory (os error 2)";
    let denied = "cannot be started: Permission denied (os error 13)";
    for (command, reason) in [
        ("~/p".to_owned(), format!("~/p {missing}{NO_SHELL}")),
        ("$HOME/p".to_owned(), format!("$HOME/p {missing}{NO_SHELL}")),
        (format!("A=1 {p}"), format!("A=1 {missing}{NO_SHELL}")),
        (at("gone"), format!("{} {missing}", at("gone"))),
        (p.clone(), format!("{p} {denied}")),
        (
            format!("echo '{{{KEYS}}}' | cat"),
            "its output is not JSON (line 1, column 64)".to_owned(),
        ),
        (
            format!("true && sh {p}"),
            "its output is not JSON (line 1, column 0)".to_owned(),
        ),
    ] {
        assert_eq!(run_command(&command).await.unwrap_err(), reason);
    }
    let empty = credentials(&program(&[])).await.unwrap_err();
    assert_eq!(empty, "it is empty");
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_exit_status_decides_about_a_run() {
    let failed = shell(&format!("echo '{{{KEYS}}}'; echo why >&2; exit 3"));
    let refused = credentials(&failed).await.unwrap_err();
    assert_eq!(refused, "exit status 3. Stderr: why\n");
    let complains = shell(&format!("echo why >&2; echo '{{{KEYS}}}'"));
    assert!(credentials(&complains).await.is_ok());
    // It has no input.
    let reads = shell(&format!("cat && echo '{{{KEYS}}}'"));
    assert!(credentials(&reads).await.is_ok());
    // The account of the profile, which the output does not have.
    let of_account = Process {
        account_id: Some(setting("123456789012")),
        ..reads
    };
    let made = credentials(&of_account).await.unwrap();
    let account = made.account_id().map(|id| id.as_str().to_owned());
    assert_eq!(account.as_deref(), Some("123456789012"));
}

#[test]
fn secret_access_keys_on_standard_error_are_not_quoted() {
    const KEY_ITSELF: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    for (text, shown) in [
        (format!("bad key {KEY_ITSELF}"), "bad key ********"),
        (KEY_ITSELF.to_owned(), "********"),
        (
            format!("é key=\"{KEY_ITSELF}\",\nx\n"),
            "é key=\"********\",\nx\n",
        ),
        (format!("a={KEY_ITSELF}."), "a=********."),
    ] {
        assert_eq!(without_keys(&text), shown);
    }
    for text in [
        "",
        "no such profile: dev-account\n",
        // A digest, a path and a word of another length.
        "94bdd5e0b1f3c7a94bdd5e0b1f3c7a94bdd5e0b1",
        "/home/me/.config/some-tool/and/a/longer/Path1",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEYx",
    ] {
        assert_eq!(without_keys(text), text);
    }
}

#[cfg(unix)]
#[tokio::test]
async fn endless_output_is_refused_after_the_bound() {
    for (command, reason) in [
        ("yes hidden", "it wrote more than 64 KiB to standard output"),
        (
            "yes hidden >&2",
            "it wrote more than 1024 KiB to standard error",
        ),
    ] {
        let refused = credentials(&shell(command)).await.unwrap_err();
        assert_eq!(refused, reason);
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_child_that_holds_the_output_open_is_not_waited_for() {
    let command = format!("sleep 600 & printf '%s' '{{{KEYS}}}'");
    let made = credentials(&shell(&command)).await.unwrap();
    assert_eq!(made.access_key_id(), "AKID");
}

#[cfg(unix)]
#[tokio::test]
async fn a_program_that_reads_from_the_terminal_is_not_waited_for() {
    // The signals of the system to a program that does.
    for signal in ["TTIN", "TTOU"] {
        let stopped = shell(&format!("kill -{signal} $$; echo '{{{KEYS}}}'"));
        let refused = credentials(&stopped).await.unwrap_err();
        let reason = "it waits for input from the terminal, and gets none";
        assert_eq!(refused, reason, "{signal}");
    }
    // The user stops it, and lets it continue.
    let paused = shell(&format!(
        "(sleep 1; kill -CONT $$) & kill -STOP $$; echo '{{{KEYS}}}'"
    ));
    assert!(credentials(&paused).await.is_ok());
}

/// Returns `true` if a process runs; a zombie does not.
#[cfg(target_os = "linux")]
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| &rest[..1]);
    state.is_some_and(|state| state != "Z")
}

#[cfg(target_os = "linux")]
async fn pids(file: &Path) -> Vec<String> {
    loop {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if lines.len() == 2 && text.ends_with('\n') {
            return lines;
        }
        tokio::task::yield_now().await;
    }
}

#[cfg(target_os = "linux")]
async fn gone(pids: &[String]) {
    while pids.iter().any(|pid| runs(pid)) {
        tokio::task::yield_now().await;
    }
}

/// Returns a shell command that starts another shell that sleeps; both write their process ids.
#[cfg(target_os = "linux")]
fn family(file: &Path, then: &str) -> String {
    let file = file.display();
    format!("echo $$ >> {file}; sh -c 'echo $$ >> {file}; sleep 600; true' & {then}")
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn left_over_children_end_with_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    let wait = format!(
        "until [ $(wc -l < {}) = 2 ]; do :; done; exit 3",
        file.display()
    );
    let failing = shell(&family(&file, &wait));
    let refused = credentials(&failing).await.unwrap_err();
    assert_eq!(refused, "exit status 3. Stderr: ");
    gone(&pids(&file).await).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn children_and_grandchildren_end_with_a_cancelled_run() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    let waiting = shell(&family(&file, "wait"));
    let started = tokio::select! {
        _ = credentials(&waiting) => panic!("it waits for its child"),
        pids = pids(&file) => pids,
    };
    gone(&started).await;
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_outlives_its_callers_and_ends_with_the_runtime() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    let waiting = shell(&family(&file, "wait"));
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let first = runtime();
    let caller = ProcessCaller::default();
    let started = first.block_on(async {
        tokio::select! {
            _ = caller.credentials(&waiting) => panic!("it waits for its child"),
            pids = pids(&file) => pids,
        }
    });
    assert!(started.iter().all(|pid| runs(pid)), "{started:?}");
    let running = caller.running().unwrap();
    assert_eq!((&*running.profile, &*running.program), ("dev", "sh"));
    drop(first);
    assert_eq!(caller.running(), None);
    runtime().block_on(gone(&started));
}
