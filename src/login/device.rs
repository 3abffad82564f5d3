//! Login by device code (RFC 8628), for machines without a browser.

use std::time::Duration;

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::oidc::{IssuedToken, Oidc, RegisteredClient, TokenRefusal};
use super::{LoginError, LoginEvent, LoginOptions, Tell, browser};

/// Lifetime of a code if the answer has none.
const LIFETIME: Duration = Duration::from_secs(600);
/// Pause between requests if the answer has none (RFC 8628, 3.2), and its limits.
const INTERVAL: Duration = Duration::from_secs(5);
const LONGEST_INTERVAL: Duration = Duration::from_secs(60);
/// Addition to the pause after `slow_down` (RFC 8628, 3.5).
const SLOWER: Duration = Duration::from_secs(5);

/// Logs in. Takes as long as the code is valid.
///
/// # Errors
/// [`LoginError`].
pub(super) async fn log_in(
    oidc: &Oidc,
    client: &RegisteredClient,
    start_url: &str,
    options: &LoginOptions,
    tell: Tell<'_>,
) -> Result<IssuedToken, LoginError> {
    let code = oidc.device_code(client, start_url).await?;
    let or = |given: Duration, default| if given.is_zero() { default } else { given };
    let lifetime = or(code.expires_in, LIFETIME);
    let end = Instant::now() + lifetime;
    let mut interval = or(code.interval, INTERVAL).min(LONGEST_INTERVAL);
    // A client may be authorized already.
    let mut told = false;
    loop {
        let asked = Instant::now();
        match oidc.token_for_device(client, &code.device_code).await {
            Ok(token) => return Ok(token),
            Err(TokenRefusal::Pending) => {}
            Err(TokenRefusal::SlowDown) => interval += SLOWER,
            Err(TokenRefusal::Expired) => return Err(LoginError::CodeExpired(lifetime)),
            // The user may be about to enter the code; the next request may succeed.
            Err(TokenRefusal::Unanswered(error)) if told && Instant::now() < end => {
                debug!(%error, "cannot ask for the token of a device code; asking again");
            }
            Err(TokenRefusal::Unanswered(error) | TokenRefusal::Failed(error)) => {
                return Err(error);
            }
        }
        if !told {
            told = true;
            tell(LoginEvent::DeviceCode {
                code: &code.user_code,
                url: &code.url,
                complete_url: code.complete_url.as_deref(),
                expires_in: lifetime,
                opens: !options.no_browser,
            });
            let url = code.complete_url.as_ref().unwrap_or(&code.url);
            if !options.no_browser
                && let Err(reason) = browser::open(url).await
            {
                tell(LoginEvent::NoBrowser(&reason));
            }
        }
        let next = asked + interval;
        if next >= end {
            sleep_until(end).await;
            return Err(LoginError::CodeExpired(lifetime));
        }
        sleep_until(next).await;
    }
}

/// Draws the QR code of a text, at most `width` columns wide; `None` if it is wider.
#[must_use]
pub fn qr_code(text: &str, width: usize) -> Option<String> {
    let code = QrCode::new(text).ok()?;
    // Readers need the quiet zone. Terminals are usually dark.
    let drawn = code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .quiet_zone(true)
        .build();
    let columns = drawn.lines().map(|line| line.chars().count()).max()?;
    (columns <= width).then_some(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_that_is_too_wide_is_not_drawn() {
        let url = "https://device.sso.eu-west-1.amazonaws.com/?user_code=ABCD-EFGH";
        let drawn = qr_code(url, 80).unwrap();
        let columns = drawn.lines().next().unwrap().chars().count();
        assert!(qr_code(url, columns).is_some());
        assert!(qr_code(url, columns - 1).is_none());
        assert!(qr_code(&"x".repeat(10_000), usize::MAX).is_none());
    }
}
