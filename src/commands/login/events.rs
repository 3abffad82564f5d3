//! Progress of a login on the terminal.

use std::fmt::Write as _;

use crate::base::count::counted;
use crate::base::quote::printable;
use crate::cli::terminal::{self, DIM, HEADING, Progress, styled};
use crate::login::browser::NoBrowser;
use crate::login::{LoginEvent, qr_code};

/// Shows the events of a login on standard error, which is not redirected with the results.
pub(super) struct ShownEvents {
    /// Command line of this login.
    again: String,
    /// Port that the login page leads back to, if it does.
    port: Option<u16>,
    progress: Option<Progress>,
}

impl ShownEvents {
    pub(super) fn new(again: &str) -> Self {
        Self {
            again: again.to_owned(),
            port: None,
            progress: None,
        }
    }

    pub(super) fn show(&mut self, event: &LoginEvent<'_>) {
        self.progress = None;
        if let LoginEvent::Page { port, .. } = event {
            self.port = Some(*port);
        }
        let text = self.text(event, terminal::stderr_width());
        // The login goes on: the browser may be open.
        _ = terminal::tell(text.trim_end());
        self.progress = Some(Progress::start("waiting for the login; Ctrl-C stops"));
    }

    fn text(&self, event: &LoginEvent<'_>, width: Option<usize>) -> String {
        match event {
            LoginEvent::Page { url, opens, .. } => {
                let what = match opens {
                    true => "Opening the login page in your browser:",
                    false => "Open the login page in a browser on this machine:",
                };
                format!("{what}\n  {}\n", printable(url))
            }
            LoginEvent::DeviceCode {
                code,
                url,
                complete_url,
                expires_in,
                ..
            } => {
                let address = complete_url.unwrap_or(url);
                let mut text = format!(
                    "Open the login page on any device, and compare the code:\n  {}\n  code {}\n",
                    printable(address),
                    styled(HEADING, printable(code)),
                );
                if let Some(drawn) = width.and_then(|width| qr_code(address, width)) {
                    text.push_str(&drawn);
                    text.push('\n');
                }
                let minutes = expires_in.as_secs() / 60;
                let note = format!("The code is valid for {}.", counted(minutes, "minute"));
                // Writing to a String cannot fail.
                _ = writeln!(text, "{}", styled(DIM, note));
                text
            }
            LoginEvent::NoBrowser(reason) => self.no_browser(reason),
        }
    }

    fn no_browser(&self, reason: &NoBrowser) -> String {
        let mut text = format!("{}.\n", printable(&reason.to_string()));
        let Some(port) = self.port else {
            return text;
        };
        let again = &self.again;
        let more = match reason {
            NoBrowser::Ssh => format!(
                "Log in with another device:\n  {again} --device-code\nor forward the port from your machine, and open the page there:\n  ssh -L {port}:127.0.0.1:{port} HOST\n"
            ),
            NoBrowser::NoDisplay => {
                format!("Log in with another device:\n  {again} --device-code\n")
            }
            NoBrowser::Failed(_) => format!(
                "Open the page yourself, or log in with another device:\n  {again} --device-code\n"
            ),
        };
        text.push_str(&more);
        text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn plain(shown: &ShownEvents, event: &LoginEvent<'_>) -> String {
        let text = shown.text(event, Some(80));
        anstream::adapter::strip_str(&text).to_string()
    }

    #[test]
    fn each_event_says_what_to_do() {
        let mut shown = ShownEvents::new("pgiam login dev");
        shown.port = Some(4711);
        let url = "https://oidc.eu-west-1.amazonaws.com/authorize?x=1";
        let page = |opens| LoginEvent::Page {
            url,
            port: 4711,
            opens,
        };
        let failed = NoBrowser::Failed("no program".to_owned());
        let texts: Vec<String> = [
            page(true),
            page(false),
            LoginEvent::NoBrowser(&NoBrowser::Ssh),
            LoginEvent::NoBrowser(&NoBrowser::NoDisplay),
            LoginEvent::NoBrowser(&failed),
            LoginEvent::DeviceCode {
                code: "ABCD-EFGH",
                url: "https://device.example/",
                complete_url: Some("https://device.example/?user_code=ABCD-EFGH"),
                expires_in: Duration::from_secs(600),
                opens: true,
            },
        ]
        .iter()
        .map(|event| plain(&shown, event))
        .collect();
        insta::assert_snapshot!(texts.join("---\n"));
    }
}
