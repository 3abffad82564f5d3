//! Opens a page in the user's browser.

use std::env;
use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;
use tracing::debug;

/// Time in which a program that cannot open a page usually fails. A browser in the foreground runs
/// longer.
const SETTLED: Duration = Duration::from_secs(3);
/// Longest wait for the system to open a page.
const DEADLINE: Duration = Duration::from_secs(10);

/// Reason why the browser did not open. The user can still open the page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoBrowser {
    /// A browser here would open on a screen that the user does not see.
    #[error("this is an SSH session, so pgiam did not open a browser")]
    Ssh,
    /// The system has no screen.
    #[error("this machine has no display, so pgiam did not open a browser")]
    NoDisplay,
    /// The browser failed to start.
    #[error("cannot open a browser: {0}")]
    Failed(String),
}

/// Opens a page in the browser that `BROWSER` names, else in the system's. The browser runs without
/// this terminal, and stays when pgiam ends. Takes at most some seconds; a browser may still open
/// after that.
///
/// # Errors
/// [`NoBrowser`].
pub async fn open(url: &str) -> Result<(), NoBrowser> {
    if let Some(browsers) = browser_variable() {
        return open_with(&browsers, url).await;
    }
    if let Some(reason) = unseen_here() {
        return Err(reason);
    }
    #[cfg(all(unix, not(target_os = "macos")))]
    if run("xdg-open", &[url]).await.is_ok() {
        return Ok(());
    }
    let url = url.to_owned();
    let opening = tokio::task::spawn_blocking(move || webbrowser::open(&url));
    match timeout(DEADLINE, opening).await {
        Ok(Ok(Err(error))) => Err(NoBrowser::Failed(error.to_string())),
        Ok(Err(error)) => Err(NoBrowser::Failed(error.to_string())),
        Ok(Ok(Ok(()))) | Err(_) => Ok(()),
    }
}

/// Returns the reason why [`open`] would not open a browser here.
#[must_use]
pub fn unseen_here() -> Option<NoBrowser> {
    let is_set = |value: Option<OsString>| value.is_some_and(|value| !value.is_empty());
    let surroundings = Surroundings {
        has_display: is_set(env::var_os("DISPLAY")) || is_set(env::var_os("WAYLAND_DISPLAY")),
        is_wsl: is_set(env::var_os("WSL_DISTRO_NAME")),
        is_ssh: is_set(env::var_os("SSH_CONNECTION")) || is_set(env::var_os("SSH_TTY")),
    };
    match browser_variable() {
        Some(_) => None,
        None => surroundings.unseen(),
    }
}

fn browser_variable() -> Option<OsString> {
    env::var_os("BROWSER").filter(|value| !value.is_empty())
}

/// Facts that decide about a browser's visibility.
#[derive(Clone, Copy, Debug, Default)]
struct Surroundings {
    has_display: bool,
    /// WSL opens the browser of Windows.
    is_wsl: bool,
    is_ssh: bool,
}

impl Surroundings {
    /// Returns the reason why the user would not see a browser.
    fn unseen(self) -> Option<NoBrowser> {
        let is_x11 = cfg!(all(unix, not(target_os = "macos")));
        match (self.is_ssh, is_x11 && !self.is_wsl && !self.has_display) {
            (true, _) => Some(NoBrowser::Ssh),
            (false, true) => Some(NoBrowser::NoDisplay),
            (false, false) => None,
        }
    }
}

/// Tries the commands of `BROWSER` in order. They are separated like the directories of `PATH`; `%s`
/// stands for the address, which is otherwise the last argument (Python, `webbrowser`).
async fn open_with(browsers: &OsString, url: &str) -> Result<(), NoBrowser> {
    let mut reason = "BROWSER names no program".to_owned();
    for command in env::split_paths(browsers) {
        let command = command.to_string_lossy();
        let mut has_url = false;
        let mut words: Vec<String> = Vec::new();
        for word in command.split_whitespace() {
            has_url |= word.contains("%s");
            words.push(word.replace("%s", url));
        }
        if !has_url {
            words.push(url.to_owned());
        }
        let Some((program, arguments)) = words.split_first().filter(|(_, rest)| !rest.is_empty())
        else {
            continue;
        };
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match run(program, &arguments).await {
            Ok(()) => return Ok(()),
            Err(error) => reason = format!("{program} (from BROWSER): {error}"),
        }
    }
    Err(NoBrowser::Failed(reason))
}

/// Starts a program without this terminal. A failure counts if it comes within some seconds.
async fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // Ctrl-C for pgiam must not end the browser.
    #[cfg(unix)]
    command.process_group(0);
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    match timeout(SETTLED, child.wait()).await {
        Ok(Ok(status)) if !status.success() => Err(status.to_string()),
        Ok(Ok(_)) | Err(_) => Ok(()),
        Ok(Err(error)) => {
            debug!(%error, "cannot wait for the browser");
            Ok(())
        }
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;

    fn script(dir: &tempfile::TempDir, name: &str, text: &str) -> String {
        use std::os::unix::fs::PermissionsExt;
        let path = dir.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_browser_that_is_not_seen_is_not_opened() {
        let none = Surroundings::default();
        let has_display = true;
        for (surroundings, expected) in [
            (
                Surroundings {
                    has_display,
                    ..none
                },
                None,
            ),
            (
                Surroundings {
                    is_wsl: true,
                    ..none
                },
                None,
            ),
            (
                Surroundings {
                    has_display,
                    is_ssh: true,
                    ..none
                },
                Some(NoBrowser::Ssh),
            ),
            (none, Some(NoBrowser::NoDisplay)),
        ] {
            assert_eq!(surroundings.unseen(), expected, "{surroundings:?}");
        }
    }

    #[tokio::test]
    async fn the_programs_of_the_variable_are_tried_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let seen = dir.path().join("seen");
        let fails = script(&dir, "fails", "exit 3");
        let opens = script(&dir, "opens", &format!("echo \"$@\" >> {}", seen.display()));
        let url = "https://example.com/?a=1&b=%20";
        for (browsers, expected) in [
            (
                format!("{fails}:{opens} --new %s -x"),
                "--new https://example.com/?a=1&b=%20 -x\n",
            ),
            (
                format!("/nonexistent:{opens}"),
                "https://example.com/?a=1&b=%20\n",
            ),
            (opens.clone(), "https://example.com/?a=1&b=%20\n"),
        ] {
            _ = std::fs::remove_file(&seen);
            assert_eq!(open_with(&browsers.clone().into(), url).await, Ok(()));
            assert_eq!(std::fs::read_to_string(&seen).unwrap(), expected);
        }
        let failed = open_with(&fails.clone().into(), url).await;
        assert_eq!(
            failed,
            Err(NoBrowser::Failed(format!(
                "{fails} (from BROWSER): exit status: 3"
            )))
        );
        assert!(open_with(&":".into(), url).await.is_err());
    }
}
