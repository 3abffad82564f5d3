//! Login by authorization code with PKCE (RFC 7636) and a redirect to 127.0.0.1 (RFC 8252, 7.3).

use std::convert::Infallible;
use std::time::Duration;

use aws_lc_rs::digest;
use aws_lc_rs::rand;
use aws_smithy_types::base64;
use tokio::time::timeout;
use uuid::Uuid;

use super::callback::{Callback, CallbackListener, CallbackQuery, REDIRECT_PATH};
use super::oidc::{DEFAULT_SCOPE, IssuedToken, Oidc, RegisteredClient, TokenRefusal};
use super::{LoginError, LoginEvent, LoginOptions, SsoLogin, Tell, browser};
use crate::base::quote::percent;
use crate::base::redacted::{Redacted, remember};

/// Redirect URI of the registration. A loopback redirect is registered without its port (RFC 8252,
/// 7.3).
pub(super) const REDIRECT_URI: &str = "http://127.0.0.1/oauth/callback";
/// Time for the user, as in the AWS CLI.
const DEADLINE: Duration = Duration::from_secs(600);
/// Characters of a verifier (RFC 7636, 4.1).
const UNRESERVED: &[u8; 66] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
/// Length of a verifier: between 43 and 128 (RFC 7636, 4.1).
const VERIFIER: usize = 64;

/// The end of a login: its token, and the browser that waits for the last page.
pub(super) struct Returned {
    pub(super) token: Result<IssuedToken, LoginError>,
    pub(super) callback: Option<Callback>,
}

/// Logs in. The caller saves the token and then shows the last page.
pub(super) async fn log_in(
    oidc: &Oidc,
    login: &SsoLogin,
    client: &RegisteredClient,
    (listener, options): (CallbackListener, &LoginOptions),
    tell: Tell<'_>,
) -> Returned {
    let failed = |error| Returned {
        token: Err(error),
        callback: None,
    };
    let verifier = match verifier() {
        Ok(verifier) => verifier,
        Err(error) => return failed(error),
    };
    let state = Uuid::new_v4().to_string();
    let port = listener.port;
    let redirect_uri = format!("http://127.0.0.1:{port}{REDIRECT_PATH}");
    let endpoint = oidc.authorize_url();
    let scopes = login.key().scopes();
    let url = AuthorizeUrl {
        endpoint: endpoint.as_str(),
        client_id: &client.id,
        redirect_uri: &redirect_uri,
        state: &state,
        challenge: &challenge(&verifier),
        scopes: scopes.as_deref(),
    };
    let url = url.build();
    let showing = async {
        tell(LoginEvent::Page {
            url: &url,
            port,
            opens: !options.no_browser,
        });
        if !options.no_browser
            && let Err(reason) = browser::open(&url).await
        {
            tell(LoginEvent::NoBrowser(&reason));
        }
        std::future::pending::<Infallible>().await
    };
    // A browser that runs in the foreground must not delay the end of the login.
    let returned = tokio::select! {
        returned = timeout(DEADLINE, listener.returned(&state)) => returned,
        never = showing => match never {},
    };
    let Ok(callback) = returned else {
        return failed(LoginError::TimedOut(DEADLINE));
    };
    let token = match &callback.query {
        CallbackQuery::Error { code, .. } if code.as_str() == "access_denied" => {
            Err(LoginError::Denied)
        }
        CallbackQuery::Error { code, description } => Err(LoginError::Page {
            code: code.clone(),
            description: description.clone(),
        }),
        CallbackQuery::Code { code } => oidc
            .token_for_code(client, code, &verifier, &redirect_uri)
            .await
            .map_err(in_the_end),
    };
    Returned {
        token,
        callback: Some(callback),
    }
}

/// Returns the error of a refusal that is no reason to wait.
fn in_the_end(refusal: TokenRefusal) -> LoginError {
    let named = |code: &str| LoginError::Call {
        call: "sso-oidc:CreateToken",
        reason: code.into(),
    };
    match refusal {
        TokenRefusal::Unanswered(error) | TokenRefusal::Failed(error) => error,
        TokenRefusal::Pending => named("authorization_pending"),
        TokenRefusal::SlowDown => named("slow_down"),
        TokenRefusal::Expired => named("expired_token"),
    }
}

/// Parts of the page's address.
struct AuthorizeUrl<'a> {
    endpoint: &'a str,
    client_id: &'a str,
    redirect_uri: &'a str,
    state: &'a str,
    challenge: &'a str,
    scopes: Option<&'a [&'a str]>,
}

impl AuthorizeUrl<'_> {
    /// Returns the address. The parameter is `scopes` in AWS's service, separated by `%20`.
    fn build(&self) -> String {
        let scopes = match self.scopes {
            Some(scopes) => scopes.join(" "),
            None => DEFAULT_SCOPE.to_owned(),
        };
        format!(
            "{}?response_type=code&client_id={}&redirect_uri={}&state={}\
             &code_challenge_method=S256&scopes={}&code_challenge={}",
            self.endpoint,
            percent(self.client_id),
            percent(self.redirect_uri),
            percent(self.state),
            percent(&scopes),
            percent(self.challenge),
        )
    }
}

/// Returns a random verifier.
fn verifier() -> Result<Redacted<String>, LoginError> {
    // A byte below the largest multiple of the number of characters selects one evenly.
    const EVEN: usize = 256 / UNRESERVED.len() * UNRESERVED.len();
    let mut text = String::with_capacity(VERIFIER);
    while text.len() < VERIFIER {
        let mut random = [0; VERIFIER];
        rand::fill(&mut random).map_err(|_| LoginError::NoRandom)?;
        let even = random.map(usize::from).into_iter().filter(|at| *at < EVEN);
        let chars = even.filter_map(|at| UNRESERVED.get(at % UNRESERVED.len()));
        text.extend(chars.take(VERIFIER - text.len()).map(|c| char::from(*c)));
    }
    remember(&text);
    Ok(text.into())
}

/// Returns the challenge of a verifier: its SHA-256 digest in base64url without padding (RFC 7636,
/// 4.2).
fn challenge(verifier: &Redacted<String>) -> String {
    let digest = digest::digest(&digest::SHA256, verifier.expose().as_bytes());
    let encoded = base64::encode(digest);
    encoded
        .trim_end_matches('=')
        .replace('+', "-")
        .replace('/', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_that_of_the_standard() {
        // RFC 7636, appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned();
        assert_eq!(
            challenge(&verifier.into()),
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
        );
    }

    #[test]
    fn verifiers_are_random() {
        let one = verifier().unwrap();
        assert_eq!(one.expose().len(), VERIFIER);
        assert!(one.expose().bytes().all(|b| UNRESERVED.contains(&b)));
        assert_ne!(one, verifier().unwrap());
    }

    #[test]
    fn the_address_of_the_page() {
        let scopes = ["sso:account:access", "b"];
        let mut url = AuthorizeUrl {
            endpoint: "https://oidc.eu-west-1.amazonaws.com/authorize",
            client_id: "id+/",
            redirect_uri: "http://127.0.0.1:4711/oauth/callback",
            state: "s",
            challenge: "c-_",
            scopes: Some(&scopes),
        };
        assert_eq!(
            url.build(),
            "https://oidc.eu-west-1.amazonaws.com/authorize?response_type=code&client_id=id%2B%2F\
             &redirect_uri=http%3A%2F%2F127.0.0.1%3A4711%2Foauth%2Fcallback&state=s\
             &code_challenge_method=S256&scopes=sso%3Aaccount%3Aaccess%20b&code_challenge=c-_"
        );
        url.scopes = None;
        assert!(url.build().contains("&scopes=sso%3Aaccount%3Aaccess&"));
    }
}
