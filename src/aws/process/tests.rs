use std::path::Path;

use super::*;

const KEYS: &str = r#""Version": 1, "AccessKeyId": "AKID", "SecretAccessKey": "sk""#;

fn refusal(output: &str) -> String {
    read(output.as_bytes(), None).unwrap_err()
}

#[test]
fn output_becomes_credentials() {
    let output = format!(
        "{{{KEYS}, \"sessiontoken\": \"st\", \"Expiration\": \"2030-01-31T13:00:00+01:00\"}}\n"
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
fn what_is_wrong_with_output_is_said_and_the_output_is_not() {
    for (output, reason) in [
        ("", "its output is not JSON (line 1, column 0)"),
        ("hidden", "its output is not JSON (line 1, column 1)"),
        ("[\"hidden\"]", "its output is not a JSON object"),
        ("{}", "its output has no Version, expected 1"),
        (
            "{\"Version\": \"1\"}",
            "its output has no Version, expected 1",
        ),
        ("{\"Version\": 2}", "its output has Version 2, expected 1"),
        ("{\"Version\": 1}", "its output has no AccessKeyId"),
        (
            "{\"Version\": 1, \"AccessKeyId\": \"hidden\"}",
            "its output has no SecretAccessKey",
        ),
        (
            "{\"Version\": 1, \"AccessKeyId\": 7}",
            "AccessKeyId in its output is not a string",
        ),
        (
            &format!("{{{KEYS}, \"Expiration\": \"hidden\"}}"),
            "Expiration in its output is not a time such as 2030-01-31T12:00:00Z",
        ),
    ] {
        assert_eq!(refusal(output), reason, "{output}");
    }
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
        let refused = credentials(command, None).await.unwrap_err();
        assert_eq!(refused, reason);
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_child_that_holds_the_output_open_is_not_waited_for() {
    let command = format!("sleep 600 & printf '%s' '{{{KEYS}}}'");
    let made = credentials(&command, None).await.unwrap();
    assert_eq!(made.access_key_id(), "AKID");
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
async fn children_and_grandchildren_end_when_nobody_waits_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    let command = family(&file, "wait");
    let asking = credentials(&command, None);
    let started = tokio::select! {
        _ = asking => panic!("it waits for its child"),
        pids = pids(&file) => pids,
    };
    gone(&started).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn children_that_are_left_over_end_with_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    let wait = format!(
        "until [ $(wc -l < {}) = 2 ]; do :; done; exit 3",
        file.display()
    );
    let refused = credentials(&family(&file, &wait), None).await.unwrap_err();
    assert_eq!(refused, "exit status 3. Stderr: ");
    gone(&pids(&file).await).await;
}
