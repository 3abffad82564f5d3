//! Answers of the HTTP paths.

use std::borrow::Cow;
use std::fmt::Write;

use hyper::{Method, StatusCode};
use serde::Serialize;
use tracing::debug;

use super::access::{Access, Denial};
use super::document::ProcessDocument;
use super::page::{Explanation, PlottedLogins, Resource};
use super::{AdminContext, TargetStop};
use crate::base::foreign_text::{visible, visible_json};
use crate::observe::{Observed, Phase, TargetStatus};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// OpenMetrics 1.0, "Text Format".
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Paths for all clients.
const INDEX: &str = "\
/startup    200 after pgiam listens on all ports
/readiness  200 while all targets are reachable; ?min-ready=N: while at least N are
/liveness   200 while pgiam accepts connections
/metrics    metrics for Prometheus
";

/// Paths of the control socket, with the method of each. At the port they do not exist.
const CONTROL: [(&str, Method); 3] = [
    ("/stop", Method::POST),
    ("/stop-target", Method::POST),
    ("/reload", Method::POST),
];

/// A request.
pub(super) struct AdminRequest<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    pub(super) access: Access<'a>,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AdminResponse {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    pub(super) body: Cow<'static, str>,
    /// Methods of the path, if the request's is not among them.
    pub(super) allow: Option<&'static str>,
}

impl AdminResponse {
    fn text(status: StatusCode, body: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            content_type: TEXT,
            body: body.into(),
            allow: None,
        }
    }

    fn ok(content_type: &'static str, body: impl Into<Cow<'static, str>>) -> Self {
        Self {
            content_type,
            ..Self::text(StatusCode::OK, body)
        }
    }

    fn not_allowed(wanted: &Method) -> Self {
        let body = format!("method not allowed; use {wanted}\n");
        let allow = match *wanted {
            Method::POST => "POST",
            _ => "GET, HEAD",
        };
        Self {
            allow: Some(allow),
            ..Self::text(StatusCode::METHOD_NOT_ALLOWED, body)
        }
    }
}

impl AdminContext {
    /// Returns the answer to a request.
    pub(super) fn answer(&self, asked: &AdminRequest<'_>) -> AdminResponse {
        let get = &Method::GET;
        let control = CONTROL.iter().find(|(path, _)| *path == asked.path);
        let control = control.filter(|_| matches!(asked.access, Access::Control));
        let wanted = control.map_or(get, |(_, method)| method);
        let head = wanted == get && asked.method == Method::HEAD;
        if asked.method != wanted && !head {
            return AdminResponse::not_allowed(wanted);
        }
        let observed = &*self.observed;
        match asked.path {
            "/startup" => startup(observed),
            "/liveness" => liveness(observed),
            "/readiness" => readiness(observed, asked.query),
            "/metrics" => metrics(observed),
            "/stop" if control.is_some() => {
                self.controls.stop.cancel();
                AdminResponse::text(StatusCode::ACCEPTED, "stopping\n")
            }
            "/stop-target" if control.is_some() => self.stop_target(asked.query),
            "/reload" if control.is_some() => self.reload(),
            path => self.answer_private(path, asked.access),
        }
    }

    /// Returns the answer to a request for the page and its data, or for an unknown path.
    fn answer_private(&self, path: &str, access: Access<'_>) -> AdminResponse {
        match (Resource::of(path), access) {
            (None, _) | (Some(_), Access::Public) => {
                let body = "not found; the paths are / and /status, and for all clients:\n";
                AdminResponse::text(StatusCode::NOT_FOUND, format!("{body}{INDEX}"))
            }
            (Some(_), Access::Denied(denial)) => self.deny(denial),
            (Some(resource), Access::Page | Access::Control) => match resource {
                Resource::File(file) => AdminResponse::ok(file.content_type, file.text),
                Resource::Status => json(&ProcessDocument::of(self)),
                Resource::Logins => json(&PlottedLogins::of(&self.observed)),
                Resource::Explanation(entry) => json(&Explanation::of(entry)),
            },
        }
    }

    /// Returns the refusal of a request, with its remedy.
    pub(super) fn deny(&self, denial: &Denial) -> AdminResponse {
        debug!(reason = %denial, "refused a request");
        let status = match denial {
            Denial::OtherHost | Denial::Localhost => StatusCode::MISDIRECTED_REQUEST,
            _ => StatusCode::FORBIDDEN,
        };
        let (rule, remedy) = (denial.rule(), denial.remedy(self.http));
        let body = format!("{rule}: {denial}\n{remedy}\nPaths for all clients:\n{INDEX}");
        AdminResponse::text(status, body)
    }

    /// Stops the target in `name`; with `now=1`, closes its connections at once. A separate path,
    /// because an older pgiam would stop as a whole if it ignored the query.
    fn stop_target(&self, query: Option<&str>) -> AdminResponse {
        let pairs = || url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        let now = pairs().any(|(key, value)| key == "now" && value == "1");
        let name = pairs().find_map(|(key, value)| (key == "name").then_some(value));
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return AdminResponse::text(StatusCode::BAD_REQUEST, "missing name=TARGET\n");
        };
        let Some(stop) = &self.controls.stop_target else {
            let kind = self.kind.as_str();
            let body = format!("pgiam {kind} has one target; stop the process instead\n");
            return AdminResponse::text(StatusCode::CONFLICT, body);
        };
        let targets = self.observed.targets();
        if !targets
            .iter()
            .any(|t| t.source.status().target.name == *name)
        {
            let body = format!("there is no target \"{}\"\n", visible(&name));
            return AdminResponse::text(StatusCode::NOT_FOUND, body);
        }
        let request = TargetStop {
            name: name.as_ref().into(),
            now,
        };
        match stop.try_send(request) {
            Ok(()) => AdminResponse::text(StatusCode::ACCEPTED, "stopping the target\n"),
            Err(_) => AdminResponse::text(StatusCode::SERVICE_UNAVAILABLE, "busy; try again\n"),
        }
    }

    fn reload(&self) -> AdminResponse {
        let Some(reload) = &self.controls.reload else {
            let body = format!(
                "pgiam {} has no configuration to reload\n",
                self.kind.as_str()
            );
            return AdminResponse::text(StatusCode::CONFLICT, body);
        };
        // A full channel means that a reload is about to begin, which is enough.
        _ = reload.try_send(());
        AdminResponse::text(StatusCode::ACCEPTED, "reloading the configuration\n")
    }
}

fn json(document: &impl Serialize) -> AdminResponse {
    match serde_json::to_string(document) {
        Ok(body) => AdminResponse::ok(JSON, visible_json(&body).into_owned()),
        Err(error) => internal(&error),
    }
}

fn internal(error: &dyn std::error::Error) -> AdminResponse {
    AdminResponse::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
}

fn startup(observed: &Observed) -> AdminResponse {
    match observed.phase() {
        Phase::Starting => AdminResponse::text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Phase::Serving | Phase::Draining => AdminResponse::ok(TEXT, "started\n"),
    }
}

fn liveness(observed: &Observed) -> AdminResponse {
    match observed.dead_loops() {
        0 => AdminResponse::ok(TEXT, "alive\n"),
        dead => {
            let body = format!("{dead} listeners no longer accept connections\n");
            AdminResponse::text(StatusCode::SERVICE_UNAVAILABLE, body)
        }
    }
}

fn metrics(observed: &Observed) -> AdminResponse {
    match observed.exposition() {
        Ok(body) => AdminResponse::ok(METRICS, body),
        Err(error) => internal(&error),
    }
}

fn readiness(observed: &Observed, query: Option<&str>) -> AdminResponse {
    let Ok(least) = min_ready(query) else {
        let body = "invalid min-ready: expected a number of targets, 1 or more\n";
        return AdminResponse::text(StatusCode::BAD_REQUEST, body);
    };
    let targets = observed.targets();
    let statuses: Vec<TargetStatus> = targets.iter().map(|t| t.source.status()).collect();
    let against = against(observed, &statuses, least);
    let mut body = match &against {
        Some(reason) => format!("not ready: {reason}\n"),
        None => "ready\n".to_owned(),
    };
    for status in &statuses {
        let why = status
            .failing()
            .map(|id| format!(" [{id}]"))
            .unwrap_or_default();
        // Writing to a String cannot fail.
        _ = writeln!(body, "{}: {}{why}", status.target.name, status.state());
    }
    let status = match against {
        Some(_) => StatusCode::SERVICE_UNAVAILABLE,
        None => StatusCode::OK,
    };
    AdminResponse::text(status, body)
}

/// Parses `min-ready=N` in a query; `None`: all targets.
fn min_ready(query: Option<&str>) -> Result<Option<usize>, ()> {
    let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let mut least = None;
    for (key, value) in pairs {
        if key == "min-ready" {
            least = Some(value.parse().ok().filter(|n| *n > 0).ok_or(())?);
        }
    }
    Ok(least)
}

/// Returns the reason why new connections should not be sent here, if there is one.
fn against(observed: &Observed, statuses: &[TargetStatus], least: Option<usize>) -> Option<String> {
    match observed.phase() {
        Phase::Starting => return Some("pgiam is starting".to_owned()),
        Phase::Draining => return Some("pgiam is stopping".to_owned()),
        Phase::Serving => {}
    }
    let limit = observed.limit();
    if observed.open() >= limit {
        return Some(match limit {
            1 => "the only connection is in use".to_owned(),
            _ => format!("all {limit} connections are in use"),
        });
    }
    if statuses.is_empty() {
        return Some("no target is served".to_owned());
    }
    let ready = statuses.iter().filter(|status| status.is_ready()).count();
    // Its owner stopped the others.
    let all = statuses
        .iter()
        .filter(|status| status.stopped.is_none())
        .count();
    if all == 0 {
        return Some("every target is stopped".to_owned());
    }
    let wanted = least.unwrap_or(all);
    let left_out = observed.left_out().targets.len();
    if left_out > 0 && least.is_none() {
        return Some(format!(
            "{left_out} of the configured targets cannot be served"
        ));
    }
    (ready < wanted).then(|| format!("{ready} of {all} targets can be reached"))
}

#[cfg(test)]
pub(super) mod tests;
