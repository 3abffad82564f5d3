//! Sentences for the events of level info and above.
//!
//! The message of an event names its kind, for the machine-readable formats. Here it becomes a
//! sentence with the fields in it. A test compares this table with the events in `src/`.

use super::event::{FieldValue, Fields};

/// Mark in front of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Good,
    Note,
    Warning,
    Bad,
}

/// Sentence of an event.
pub(super) struct Sentence {
    /// Message of the event.
    pub(super) message: &'static str,
    /// Mark; that of the level if `None`.
    pub(super) mark: Option<Mark>,
    /// Text with `{field}`; `[…]` is left out if a field in it is missing; `{field:s}` is the
    /// plural's ending.
    pub(super) form: &'static str,
}

const fn good(message: &'static str, form: &'static str) -> Sentence {
    marked(Mark::Good, message, form)
}

const fn marked(mark: Mark, message: &'static str, form: &'static str) -> Sentence {
    Sentence {
        message,
        mark: Some(mark),
        form,
    }
}

const fn plain(message: &'static str, form: &'static str) -> Sentence {
    Sentence {
        message,
        mark: None,
        form,
    }
}

/// Messages whose reason is an error of a command, with its hint on a line of its own.
pub(super) const WITH_COMMAND_ERROR: [&str; 3] = [
    "ignored an invalid target; serving the others",
    "cannot reload the configuration; keeping the running configuration",
    "the login failed",
];

/// Fields that every event may have: they get their own places in the lines.
pub(super) const PLACED: [&str; 9] = [
    "message", "reason", "error", "problem", "id", "sqlstate", "detail", "hint", "target",
];

/// Fields that identify something at AWS for a search there. Only `-v` shows them.
pub(super) const FOR_SEARCHES: [&str; 1] = ["session_id"];

pub(super) const SENTENCES: &[Sentence] = &[
    // The program.
    plain(
        "ignored variables that an orchestrator sets for a service named pgiam",
        "ignored variables that an orchestrator sets for a service named pgiam: {variables}",
    ),
    plain(
        "ignored unknown variables",
        "ignored unknown variables: {variables}",
    ),
    plain(
        "dropped log lines, because standard error was not read",
        "dropped {lines} log line{lines:s}, because standard error was not read",
    ),
    plain("stopping", "stopping[ ({signal})]"),
    plain(
        "waiting for open connections",
        "waiting up to {grace_s} for {connections} open connection{connections:s}",
    ),
    plain(
        "open connections did not close in time",
        "{connections} open connection{connections:s} did not close in time",
    ),
    plain(
        "the configuration has changed; reloading it",
        "{file} has changed; reloading the configuration",
    ),
    plain(
        "using the configuration file of a parent directory",
        "using the configuration file of a parent directory, {file}",
    ),
    good(
        "reloaded the configuration",
        "reloaded the configuration: {targets} target{targets:s}, {kept} unchanged",
    ),
    plain(
        "serving the status page, health endpoints and metrics",
        "serving the status page, health endpoints and metrics at {url}",
    ),
    plain(
        "login = \"browser\" has no effect; log in with: pgiam login",
        "login = \"browser\" has no effect ({reason}); log in with: pgiam login",
    ),
    plain(
        "the certificate for local TLS is in memory only: clients that verify it \
         (sslrootcert) need the new one after each start; set a writable directory with \
         --state-dir",
        "the certificate for local TLS is in memory only ({reason}): clients that verify it \
         (sslrootcert) need the new one after each start; set a writable directory with \
         --state-dir",
    ),
    good("connection test passed", "connection test passed"),
    // The relay.
    good("client connected", "a client has connected ({clients} now)"),
    plain(
        "client gone",
        "a client has gone after {seconds}: {connections} connection{connections:s}, {sent} to databases, {received} from them",
    ),
    plain("refused", "refused {endpoint} ({code})"),
    plain(
        "suppressed lines about refusals",
        "suppressed {lines} line{lines:s} about refusals",
    ),
    // Clients.
    plain(
        "refused a request of another user at the control socket",
        "refused a request of another user (uid {uid}) at the control socket",
    ),
    plain(
        "suppressed lines about connections that ended before they chose a target",
        "suppressed {lines} line{lines:s} about connections that ended before they chose a target",
    ),
    plain(
        "closed more refused connections without an answer",
        "closed {connections} more refused connection{connections:s} without an answer",
    ),
    plain(
        "out of file descriptors; new connections wait until one is free",
        "out of file descriptors (limit {limit}); new connections wait until one is free: {error}",
    ),
    plain(
        "ignored a cancel request that matches no open connection",
        "ignored a cancel request that matches no open connection (server process {pid})",
    ),
    good(
        "delivered a cancel request",
        "delivered a cancel request (server process {pid})",
    ),
    plain(
        "cannot deliver a cancel request",
        "cannot deliver a cancel request (server process {pid}): {reason}",
    ),
    plain(
        "delivering a cancel request timed out",
        "delivering a cancel request timed out after {seconds} (server process {pid})",
    ),
    plain(
        "the database named like the role does not exist; using the target's database",
        "role {role} has no database of its own name ({named}); using the target's database {database}",
    ),
    // Targets.
    good("the target is ready again", "ready again"),
    marked(
        Mark::Bad,
        "the target is not ready; retrying",
        "not ready; retrying: {reason}",
    ),
    plain(
        "AWS lookups are slow; clients wait until the lookups are complete",
        "AWS lookups take longer than {seconds}; clients wait until the lookups are complete",
    ),
    plain(
        "CNAME lookup failed; using the endpoint of the last lookup",
        "CNAME lookup failed; using the endpoint of the last lookup, {endpoint}: {error}",
    ),
    // Logins to AWS.
    good(
        "the credential_process has printed credentials; the next connection uses them",
        "the credential_process[ of profile {profile}] ({program}) printed credentials after {seconds}; the next connection uses them",
    ),
    plain(
        "the credential_process failed",
        "the credential_process[ of profile {profile}] ({program}) failed after {seconds}: {error}",
    ),
    good(
        "refreshed the SSO token",
        "refreshed the SSO token, which is now valid for {expires_in}",
    ),
    plain(
        "opening the browser for a login to AWS",
        "opening the browser for a login to the SSO session {session}",
    ),
    plain(
        "the login to AWS failed",
        "the login to the SSO session {session} failed: {error}",
    ),
    plain(
        "cannot open the browser; log in with: pgiam login",
        "cannot open the browser for the SSO session {session} ({reason}); log in with: pgiam login",
    ),
    plain(
        "compare the code on the page",
        "compare the code on the page of the SSO session {session}: {code}",
    ),
    good(
        "logged in to AWS",
        "logged in to the SSO session {session} until {until}",
    ),
    marked(
        Mark::Warning,
        "the SSO session ends soon",
        "the SSO session {session} ends at {at}",
    ),
    // Sessions.
    good(
        "SSM session established",
        "opened a session through {bastion} in {start_ms}",
    ),
    marked(
        Mark::Warning,
        "SSM session ended",
        "the session through {bastion} ended: {reason}",
    ),
    good(
        "SSM session resumed",
        "resumed the session through {bastion} after {after_ms}",
    ),
    plain(
        "connection to the SSM service lost; resuming the session",
        "connection to the SSM service lost; resuming the session through {bastion}: {reason}",
    ),
    plain(
        "resuming the SSM session failed; retrying",
        "resuming the session through {bastion} failed; retrying: {reason}",
    ),
    good(
        "connections use the relay of the bastion",
        "connections use the relay on port {port} of {bastion}, over up to {sessions} session{sessions:s}",
    ),
    plain(
        "cannot use the relay; using sessions to the database",
        "cannot use the relay: {reason}; using sessions to the database. To use it, {remedy}; otherwise set relay = false",
    ),
    plain(
        "found no relay; using sessions to the database",
        "found no relay: {reason}; using sessions to the database. To use one, {remedy}",
    ),
    plain(
        "lost a session to the relay",
        "lost a session to the relay on {bastion}, {left} left: {reason}",
    ),
    plain(
        "cannot open a session through this bastion",
        "cannot open a session through {bastion}: {reason}",
    ),
    plain(
        "cannot open another session; new connections share the open ones",
        "cannot open another session; new connections share the {sessions} open one{sessions:s}: {error}",
    ),
    plain(
        "the SSM agent does not answer; new connections use other sessions",
        "the SSM agent on {bastion} has not answered for {after_s}; new connections use other sessions",
    ),
    plain(
        "the machine was suspended; probing the connection",
        "the machine was suspended for {slept_s}; probing the session through {bastion}",
    ),
    plain(
        "dropped messages of the SSM agent: too many are queued behind a missing one; the agent resends them slowly",
        "dropped {dropped} message{dropped:s} of the SSM agent on {bastion}: too many are queued behind a missing one; the agent resends them slowly",
    ),
    plain(
        "a client does not read its result and blocks the other connections of its session",
        "a client does not read its result and blocks the other connections of its session through {bastion} ({streams} in all)",
    ),
    plain(
        "ending a connection whose client does not read, to unblock the other connections",
        "ending a connection through {bastion} whose client does not read, to unblock the other connections",
    ),
    plain(
        "giving up on a session that an earlier process left open",
        "giving up on the session {session_id}, which an earlier process left open",
    ),
    good(
        "ended a session that an earlier process left open",
        "ended the session {session_id}, which an earlier process left open",
    ),
    good(
        "found a bastion",
        "found the bastion {id}[ ({name})]: {why}[; others: {others}]",
    ),
];

/// Returns the sentence of a message.
pub(super) fn sentence(message: &str) -> Option<&'static Sentence> {
    SENTENCES.iter().find(|known| known.message == message)
}

/// Fills in a form. Returns the text and the fields that it shows; `None` if a field is missing.
pub(super) fn fill(form: &'static str, fields: &Fields) -> Option<(String, Vec<&'static str>)> {
    let (mut text, mut used) = (String::new(), Vec::new());
    let mut rest = form;
    while let Some(at) = rest.find(['{', '[']) {
        text.push_str(&rest[..at]);
        let (open, inner) = rest[at..].split_at(1);
        let end = inner.find(if open == "{" { '}' } else { ']' })?;
        let (inner, after) = (&inner[..end], &inner[end + 1..]);
        rest = after;
        if open == "[" {
            if let Some((part, names)) = fill(inner, fields) {
                text.push_str(&part);
                used.extend(names);
            }
            continue;
        }
        let (name, is_ending) = match inner.split_once(':') {
            Some((name, _)) => (name, true),
            None => (inner, false),
        };
        let value = fields.get(name)?;
        match is_ending {
            true if value.text == "1" => {}
            true => text.push('s'),
            false => {
                text.push_str(&in_words(name, value));
                used.push(name);
            }
        }
    }
    text.push_str(rest);
    Some((text, used))
}

/// Returns a value with its unit, which its name tells.
pub(super) fn in_words(name: &str, value: &FieldValue) -> String {
    let Some(number) = value.number else {
        return value.text.clone();
    };
    let is_seconds = matches!(name, "seconds" | "expires_in") || name.ends_with("_s");
    if name == "ms" || name.ends_with("_ms") {
        milliseconds(number)
    } else if is_seconds {
        seconds(number)
    } else if matches!(name, "sent" | "received") {
        bytes(number)
    } else {
        value.text.clone()
    }
}

/// Formats a duration as `31 ms`, `1.2 s` or `2 min 5 s`.
pub(super) fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms < 1.0 => "1 ms".to_owned(),
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        ms if ms < 59_950.0 => format!("{:.1} s", ms / 1000.0),
        ms => seconds(ms / 1000.0),
    }
}

/// Formats a duration as `5 s`, `2 min 5 s` or `3 h 10 min`.
pub(super) fn seconds(all: f64) -> String {
    let all = all.round();
    let pair = |large: f64, name: &str, small: f64, rest: &str| match small {
        0.0 => format!("{large:.0} {name}"),
        small => format!("{large:.0} {name} {small:.0} {rest}"),
    };
    match all {
        s if s < 60.0 => format!("{s:.0} s"),
        s if s < 3600.0 => pair((s / 60.0).floor(), "min", s % 60.0, "s"),
        s => pair(
            (s / 3600.0).floor(),
            "h",
            ((s % 3600.0) / 60.0).floor(),
            "min",
        ),
    }
}

/// Formats a byte count with a decimal unit.
fn bytes(mut count: f64) -> String {
    for unit in ["B", "kB", "MB", "GB"] {
        if count < 999.5 {
            return match unit == "B" || count >= 99.95 {
                true => format!("{count:.0} {unit}"),
                false => format!("{count:.1} {unit}"),
            };
        }
        count /= 1000.0;
    }
    format!("{count:.1} TB")
}
