//! A desktop notification before a session ends that is not renewed.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_profile::{CacheDir, SsoToken};
use tokio::process::Command;
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use super::background::sso_login;
use super::{SsoLogin, seconds};
use crate::aws::AwsContext;
use crate::aws::cache_files::CacheFiles;
use crate::aws::sso::SsoPortal;
use crate::base::local_time::local;
use crate::base::single_flight::{Clock, system_clock};

/// Remaining time of a session at the notification.
const NOTICE: i64 = 5 * 60;
/// Pause between two looks at the token files.
const LOOK: Duration = Duration::from_secs(60);
/// Timeout of the program that shows a notification.
const DEADLINE: Duration = Duration::from_secs(5);

/// Watches the sessions of these contexts, and shows a notification five minutes before one ends
/// that is not renewed. Runs until dropped.
pub async fn watch(contexts: Vec<Arc<AwsContext>>) {
    // End of the session that was announced last, by its name.
    let mut announced: HashMap<String, i64> = HashMap::new();
    loop {
        for aws in &contexts {
            let Some((name, ends)) = ending(aws).await else {
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

/// Returns the name and the end of a context's session, if it ends within five minutes and is not
/// renewed.
async fn ending(aws: &AwsContext) -> Option<(String, i64)> {
    let login = sso_login(aws.profile()).await?;
    let config = aws.sdk_config().await.ok()?;
    let files = CacheFiles::of_environment();
    let ends = unrenewed_end(&login, config, files, system_clock()).await?;
    Some((login.name().to_owned(), ends))
}

/// Returns the end of a session's token if it is near, after an attempt to renew it. A token that
/// looks renewable may be the last one: only the attempt shows that the session at AWS has ended.
async fn unrenewed_end(
    login: &SsoLogin,
    config: SdkConfig,
    files: CacheFiles,
    clock: Clock,
) -> Option<i64> {
    let is_near =
        |token: &SsoToken| (1..=NOTICE).contains(&(token.expires_at - seconds((clock)())));
    let key = login.key();
    let file = key.token_file();
    let token = files.read(CacheDir::Sso, &file, SsoToken::parse).await;
    let token = token.ok().flatten().filter(is_near)?;
    let portal = SsoPortal::new(config, files, clock.clone());
    // It may have expired during the attempt.
    let token = portal.token(&key).await.unwrap_or(token);
    is_near(&token).then_some(token.expires_at)
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

#[cfg(test)]
mod tests {
    use super::super::tests::{Service, refused, session, token};
    use super::*;
    use aws_profile::SecretText;
    use serde_json::json;

    /// Returns the result for a token with this remaining time, and the number of refreshes.
    async fn noted(left: i64, refresh: bool, answer: (u16, serde_json::Value)) -> (bool, usize) {
        let service = Service::start(vec![answer]).await;
        let (login, now) = (session(), seconds(SystemTime::now()));
        let mut file = json!({
            "startUrl": login.start_url,
            "region": login.region,
            "accessToken": "access-token-0",
            "expiresAt": aws_profile::format_date(now + left),
            "clientId": "client-1",
            "clientSecret": "secret-of-the-client",
            "registrationExpiresAt": "2100-01-01T00:00:00Z",
        });
        if refresh {
            file["refreshToken"] = json!("refresh-token-0");
        }
        let file = SecretText::new(file.to_string());
        let name = login.key().token_file();
        let files = service.files();
        files.write(CacheDir::Sso, &name, file).await.unwrap();
        let ends = unrenewed_end(&login, service.config.clone(), files, system_clock()).await;
        assert!(ends.is_none_or(|ends| ends == now + left), "{ends:?}");
        (ends.is_some(), service.calls("/token").len())
    }

    #[tokio::test]
    async fn the_end_of_a_session_is_noted_unless_its_token_is_renewed() {
        for (left, refresh, answer, expected) in [
            (240, false, token(), (true, 0)),
            (240, true, refused("invalid_grant"), (true, 1)),
            (240, true, token(), (false, 1)),
            (1200, true, refused("invalid_grant"), (false, 0)),
            (-5, false, token(), (false, 0)),
        ] {
            let is_noted = noted(left, refresh, answer).await;
            assert_eq!(is_noted, expected, "{left} s, refresh token: {refresh}");
        }
    }
}
