//! A desktop notification before a session ends that cannot be renewed.

use std::collections::HashMap;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use aws_profile::{CacheDir, SsoToken};
use tokio::process::Command;
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use super::background::sso_login;
use super::seconds;
use crate::aws::cache_files::CacheFiles;
use crate::base::local_time::local;

/// Remaining time of a session at the notification.
const NOTICE: i64 = 5 * 60;
/// Pause between two looks at the token files.
const LOOK: Duration = Duration::from_secs(60);
/// Timeout of the program that shows a notification.
const DEADLINE: Duration = Duration::from_secs(5);

/// Watches the sessions of profiles, and shows a notification five minutes before one ends that
/// cannot be renewed. Runs until dropped.
pub async fn watch(profiles: Vec<Option<String>>) {
    // End of the session that was announced last, by its name.
    let mut announced: HashMap<String, i64> = HashMap::new();
    loop {
        for profile in &profiles {
            let Some((name, ends)) = ending(profile.as_deref()).await else {
                continue;
            };
            if announced.insert(name.clone(), ends) == Some(ends) {
                continue;
            }
            let at = Duration::from_secs(ends.try_into().unwrap_or_default());
            let at = local(SystemTime::UNIX_EPOCH + at, SystemTime::now());
            info!(session = name, at, "the SSO session ends soon");
            show(&format!("The SSO session {name} ends at {at}.")).await;
        }
        sleep(LOOK).await;
    }
}

/// Returns the name and the end of a profile's session, if it ends within five minutes and cannot be
/// renewed.
async fn ending(profile: Option<&str>) -> Option<(String, i64)> {
    let login = sso_login(profile).await?;
    let files = CacheFiles::of_environment();
    let file = login.key().token_file();
    let token = files.read(CacheDir::Sso, &file, SsoToken::parse).await;
    let token = token.ok().flatten()?;
    let now = seconds(SystemTime::now());
    let is_renewable = login.session.is_some() && token.refresh_grant(now).is_ok();
    let ends = token.expires_at;
    let is_near = (1..=NOTICE).contains(&(ends - now));
    (is_near && !is_renewable).then(|| (login.name().to_owned(), ends))
}

/// Shows a notification, if the system has a program for it.
async fn show(text: &str) {
    let mut command = if cfg!(target_os = "macos") {
        // The text is an argument of the script, not a part of it.
        let script =
            "on run argv\ndisplay notification (item 1 of argv) with title \"pgiam\"\nend run";
        let mut command = Command::new("osascript");
        command.args(["-e", script, text]);
        command
    } else if cfg!(unix) {
        let mut command = Command::new("notify-send");
        command.args(["--app-name=pgiam", "pgiam", text]);
        command
    } else {
        return;
    };
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    match timeout(DEADLINE, command.status()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => debug!(%error, "cannot show a desktop notification"),
        Err(_) => debug!("the program for desktop notifications timed out"),
    }
}
