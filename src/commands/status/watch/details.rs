//! The details of a row, which Enter shows.

use crate::admin::document::{
    ConnectionDocument, FailureDocument, ProcessDocument, SessionDocument, TargetDocument,
};
use crate::base::count::counted;
use crate::commands::status::show::{age, bytes};

/// Returns the whole text of an error.
pub(super) fn error_details(process: &ProcessDocument, failure: &FailureDocument) -> Vec<String> {
    let pid = process.pid;
    let state = failure
        .sqlstate
        .as_deref()
        .map(|state| format!(", SQLSTATE {state}"));
    let times = match failure.count {
        1 => "once".to_owned(),
        count => format!("{count} times, most recently"),
    };
    let mut details = vec![
        failure.message.clone(),
        String::new(),
        format!("{}{}", failure.id, state.unwrap_or_default()),
        format!(
            "{times} {} ago, at {}",
            age(failure.age_seconds),
            failure.at
        ),
        format!("process {pid}"),
    ];
    for text in failure.detail.iter().chain(&failure.hint) {
        details.push(String::new());
        details.extend(text.lines().map(str::to_owned));
    }
    details
}

/// Returns the configuration and the state of a target.
pub(super) fn target_details(process: &ProcessDocument, target: &TargetDocument) -> Vec<String> {
    let mut lines = vec![
        format!("target {} is {}", target.name, target.state),
        format!("endpoint {}", target.endpoint),
        format!("local port {}", target.port),
    ];
    let socket = target.socket.as_ref();
    lines.extend(socket.map(|path| format!("Unix socket {}", path.display())));
    lines.push(match &target.bastion {
        Some(bastion) => format!("via {}, bastion {bastion}", target.via),
        None => format!("via {}", target.via),
    });
    let user = target
        .user
        .as_ref()
        .map(|user| format!(", default role {user}"));
    lines.push(format!("login {}{}", target.auth, user.unwrap_or_default()));
    if let Some(identity) = &target.identity {
        let left = identity
            .expires_in_seconds
            .map(|left| format!(", {} left", age(left)));
        lines.push(format!(
            "AWS identity {}{}",
            identity.source,
            left.unwrap_or_default()
        ));
        lines.push(format!("({})", identity.reason));
    }
    lines.push(format!(
        "{} logins, {} in the last 15 minutes",
        target.logins.count, target.logins.recent
    ));
    lines.push(format!(
        "{} to the database, {} from it",
        bytes(target.bytes_up),
        bytes(target.bytes_down)
    ));
    lines.push(format!("process {}", process.pid));
    for session in &target.sessions {
        lines.push(String::new());
        lines.extend(session_lines(session));
    }
    if let Some(error) = &target.last_error {
        lines.push(String::new());
        lines.push(format!(
            "last error, {} ago: {}",
            age(error.age_seconds),
            error.id
        ));
        lines.push(error.message.clone());
        let hint = error.hint.iter().flat_map(|hint| hint.lines());
        lines.extend(hint.map(str::to_owned));
    }
    lines
}

fn session_lines(session: &SessionDocument) -> [String; 3] {
    let id = session.id.as_deref().unwrap_or("that is starting");
    let bastion = session.bastion.as_deref().unwrap_or("-");
    let trip = session
        .round_trip_seconds
        .map_or_else(|| "-".to_owned(), milliseconds);
    let ready = match session.ready {
        0 => String::new(),
        ready => format!(" + {ready} ready"),
    };
    [
        format!("session {id}"),
        format!(
            "  {} on {bastion} for {}, round trip {trip}",
            session.state,
            age(session.age_seconds)
        ),
        format!(
            "  {}{ready}, {} up, {} down, resumed {}",
            counted(session.streams, "stream"),
            bytes(session.bytes_up),
            bytes(session.bytes_down),
            counted(session.resumes, "time")
        ),
    ]
}

/// Returns the facts about a connection.
pub(super) fn connection_details(
    process: &ProcessDocument,
    target: &TargetDocument,
    client: &ConnectionDocument,
) -> Vec<String> {
    let or_none = |text: &str| {
        if text.is_empty() {
            "-".to_owned()
        } else {
            text.to_owned()
        }
    };
    vec![
        format!("program {}", or_none(&client.program)),
        format!("role {}", or_none(&client.user)),
        format!("database {}", or_none(&client.database)),
        format!("target {}", target.name),
        format!("from {}", client.peer),
        format!("{} for {}", client.state, age(client.age_seconds)),
        format!(
            "{} to the database, {} from it",
            bytes(client.bytes_up),
            bytes(client.bytes_down)
        ),
        format!("process {}", process.pid),
    ]
}

/// Returns the number of sessions that count towards the maximum.
pub(super) fn in_use(sessions: &[SessionDocument]) -> usize {
    sessions
        .iter()
        .filter(|session| session.state != "leaving")
        .count()
}

/// Formats a short time.
pub(super) fn milliseconds(seconds: f64) -> String {
    match seconds * 1000.0 {
        ms if ms < 9.95 => format!("{ms:.1} ms"),
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        _ => format!("{seconds:.1} s"),
    }
}
