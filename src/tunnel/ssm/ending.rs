//! Classifies the text of a `channel_closed` message.
//!
//! The service and the agent write the text for users, and AWS does not document it. So only
//! observed or unambiguous texts get a name; all others stay [`EndCause::Other`], and the user sees
//! the text itself.

use std::time::Duration;

use super::state::EARLY;
use crate::base::foreign_text::ForeignText;
use crate::tunnel::EndCause;

/// Texts of a failure on the agent's side: its plugin failed, its worker died, it could not open
/// its own end. They are those of the agent's source (`sessionplugin.go`, `port.go`, `outofproc`)
/// and of the Systems Manager User Guide, "Troubleshooting Session Manager".
const AGENT: [&str; 7] = [
    "error-------",
    "worker",
    "plugin with name",
    "setting up data channel",
    "initiating handshake",
    "ssm agent",
    "session properties",
];

/// Returns the cause in `text`, the `Output` of a `channel_closed`.
///
/// An empty text means `TerminateSession`: the agent's port plugin then reports success without
/// text (`port.go`), and the AWS CLI prints only "Exiting session". (A port session does not end by
/// itself; an agent that fails sends a text.)
pub(super) fn classify(text: &str) -> EndCause {
    let text = text.trim().to_lowercase();
    let says = |words: &str| text.contains(words);
    let of_length = says("duration") || says("session time") || says("session length");
    if text.is_empty() {
        EndCause::Terminated
    } else if AGENT.iter().any(|words| says(words)) {
        // Before the others: "document worker timed out" is no idle timeout, and the agent quotes
        // the text of any error it failed with.
        EndCause::Agent
    } else if (says("maximum") || says("max ")) && of_length {
        EndCause::MaximumDuration
    } else if says("inactivity") || says("idle") || says("timed out") {
        EndCause::IdleTimeout
    } else if says("terminated by") || says("already terminated") || says("terminatesession") {
        EndCause::Terminated
    } else {
        EndCause::Other
    }
}

/// Classifies the end of a session of this `age`: a limit of the account cannot have ended one that
/// has only just begun, unless the text says so.
pub(super) fn classify_at(text: &str, age: Duration) -> EndCause {
    match classify(text) {
        EndCause::Other if age < EARLY => EndCause::AtStart,
        cause => cause,
    }
}

/// Returns the text in one line, without the banner that the agent adds to its own.
pub(super) fn words(text: &str) -> ForeignText {
    let words = text.trim_start_matches(BANNER);
    let words = words.strip_prefix("ERROR").unwrap_or(words);
    ForeignText::folded(words.trim_start_matches(BANNER))
}

/// Characters around `ERROR` in the agent's text.
const BANNER: fn(char) -> bool = |c| c == '-' || c.is_whitespace();

/// Returns true if `text` reports that the agent could not look up `host`. The agent looks it up
/// once, when the session starts, and ends the session with the error of Go's `net` package:
/// `lookup NAME on SERVER: no such host`, `server misbehaving`, `i/o timeout`; without ` on SERVER`
/// if the system's resolver was used.
///
/// Some agents have a text of their own: "unable to resolve host NAME".
///
/// A failed lookup of another name does not count if the agent names its purpose, such as the
/// endpoints of AWS.
pub(super) fn is_failed_lookup(text: &str, host: &str) -> bool {
    let (text, host) = (text.to_lowercase(), host.to_lowercase());
    let host = host.trim_end_matches('.');
    let words = text.trim_start_matches(BANNER).trim_start_matches("error");
    let words = words.trim_start_matches(BANNER);
    let asked = format!("lookup {host}");
    let names_it = text.split(&asked).skip(1).any(|rest| {
        let rest = rest.trim_start_matches('.');
        rest.is_empty() || rest.starts_with([' ', ':'])
    });
    let without_an_address = text.trim_end().ends_with("missing address");
    let cannot = "unable to resolve host";
    let cannot = words.starts_with(cannot) || text.contains(&format!("{cannot} {host}"));
    names_it || cannot || words.starts_with("lookup ") || without_an_address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_lookups_of_the_database_are_told_from_others() {
        const HOST: &str = "Orders.abc.eu-central-1.rds.amazonaws.com";
        for (is_one, text) in [
            (true, "lookup HOST on 10.0.0.2:53: no such host"),
            (true, "lookup HOST on 10.0.0.2:53: server misbehaving"),
            (true, "lookup HOST. on 127.0.0.53:53: no such host\n"),
            (
                true,
                "lookup HOST on 10.0.0.2:53: read udp 10.0.1.9:4711->10.0.0.2:53: i/o timeout",
            ),
            (true, "lookup HOST: Temporary failure in name resolution"),
            (
                true,
                "----------ERROR-------\nlookup HOST on 10.0.0.2:53: no such host",
            ),
            (
                true,
                "Unable to connect to specified port: dial tcp: lookup HOST: no such host",
            ),
            (
                true,
                "lookup elsewhere.internal on 10.0.0.2:53: no such host",
            ),
            (true, "dial tcp: missing address"),
            (true, "Unable to resolve host HOST: \u{1b}[31m"),
            (true, "Unable to resolve host elsewhere.internal"),
            (true, "Port plugin failed: unable to resolve host HOST"),
            (
                false,
                "Setting up data channel failed: unable to resolve host ssmmessages.amazonaws.com",
            ),
            (
                false,
                "----------ERROR-------\nSetting up data channel with id me-0 failed: dial tcp: \
                 lookup ssmmessages.eu-central-1.amazonaws.com on 10.0.0.2:53: no such host",
            ),
            (false, "lookupHOST"),
            (false, "the lookup HOSTile.example failed"),
            (
                false,
                "Forwarding to IP address 169.254.169.254 is forbidden.",
            ),
            (false, ""),
        ] {
            let text = text.replace("HOST", "orders.abc.eu-central-1.rds.amazonaws.com");
            assert_eq!(is_failed_lookup(&text, HOST), is_one, "{text:?}");
        }
    }

    #[test]
    fn the_banner_is_left_out_and_nothing_acts_on_a_terminal() {
        for (said, shown) in [
            (
                "\n----------ERROR-------\nAgent is\n  shutting down.",
                "Agent is shutting down.",
            ),
            ("", ""),
            ("-- \u{1b}]0;x\u{7}\r\nforged", "\\u{1b}]0;x\\u{7} forged"),
        ] {
            assert_eq!(words(said), shown);
        }
    }

    #[test]
    fn words_and_their_meaning() {
        for (text, cause) in [
            // aws/amazon-ssm-agent issue 261, by several users: 20 minutes or the account's value.
            (
                "Your session timed out due to inactivity and has been terminated.",
                EndCause::IdleTimeout,
            ),
            // Printed by the session-manager-plugin; the text of the other limit is unambiguous.
            (
                "Session: dev-0123456789abcdef0 timed out.",
                EndCause::IdleTimeout,
            ),
            // aws/aws-cli issue 5149: an external terminate-session ends the plugin, which prints
            // "Exiting session", its text for an empty Output.
            ("", EndCause::Terminated),
            (" \n", EndCause::Terminated),
            // aws/session-manager-plugin issue 135: the service's text for a terminated session.
            ("Session is already terminated", EndCause::Terminated),
            // aws/amazon-ssm-agent issue 214.
            (
                "Plugin with name Port is not supported by this version of ssm agent, please \
                 update to latest version. Step name: Port",
                EndCause::Agent,
            ),
            // aws/amazon-ssm-agent issue 522; the session has not ended by its duration.
            (
                "----------ERROR-------\nSetting up data channel with id me-0 failed: failed to \
                 sign the request: shared credentials are already expired",
                EndCause::Agent,
            ),
            // Systems Manager User Guide, "Troubleshooting Session Manager".
            (
                "document process failed unexpectedly: document worker timed out, check \
                 [ssm-document-worker]/[ssm-session-worker] log for crash reason",
                EndCause::Agent,
            ),
            // amazon-ssm-agent, sessionplugin.go; aws/session-manager-plugin, KMS reports.
            (
                "----------ERROR-------\nEncountered error while initiating handshake. Handshake \
                 timed out. Please ensure that you have the latest version of the session manager \
                 plugin.",
                EndCause::Agent,
            ),
            // amazon-ssm-agent, port.go.
            (
                "Unable to remarshal session properties. unexpected end of JSON input",
                EndCause::Agent,
            ),
            // No report of the exact texts was found; these are likely texts for the maximum
            // duration (User Guide: "maximum session duration") and for an administrator.
            (
                "Your session has reached the maximum session duration and has been terminated.",
                EndCause::MaximumDuration,
            ),
            (
                "Your session has reached its maximum duration and has been terminated.",
                EndCause::MaximumDuration,
            ),
            (
                "Session terminated: max session duration exceeded",
                EndCause::MaximumDuration,
            ),
            (
                "Session was terminated by arn:aws:iam::111122223333:user/admin",
                EndCause::Terminated,
            ),
            // amazon-ssm-agent, port validation: neither a failure nor a time limit.
            (
                "Forwarding to IP address 169.254.169.254 is forbidden.",
                EndCause::Other,
            ),
            ("Something new", EndCause::Other),
            ("The maximum number of sessions is reached", EndCause::Other),
        ] {
            assert_eq!(classify(text), cause, "{text:?}");
            let young = classify_at(text, EARLY / 2);
            let expected = match cause {
                EndCause::Other => EndCause::AtStart,
                cause => cause,
            };
            assert_eq!(young, expected, "{text:?}");
            assert_eq!(classify_at(text, EARLY), cause, "{text:?}");
        }
    }
}
