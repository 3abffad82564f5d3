use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::mpsc;

use super::*;
use crate::admin::page;
use crate::admin::{ControlRequests, ProcessKind};
use crate::observe::tests::{Stands, failed, failure, new_connection, observed, used};
use crate::observe::{ListedTarget, Stage};
use crate::tunnel::Readiness;

pub(in crate::admin) fn context(statuses: Vec<TargetStatus>) -> AdminContext {
    let observed = observed(statuses);
    observed.started();
    AdminContext {
        kind: ProcessKind::Serve,
        config: None,
        http: None,
        has_password: false,
        knows_owners: true,
        log: None,
        observed,
        controls: ControlRequests::default(),
    }
}

const ELSEWHERE: Denial = Denial::Elsewhere {
    peer: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)),
    forward: true,
};
const DENIED: Access<'_> = Access::Denied(&ELSEWHERE);

fn asked(
    context: &AdminContext,
    (method, access): (Method, Access<'_>),
    path: &str,
) -> AdminResponse {
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    context.answer(&AdminRequest {
        method: &method,
        path,
        query,
        access,
    })
}

fn get(context: &AdminContext, path: &str) -> (u16, String) {
    let answer = asked(context, (Method::GET, DENIED), path);
    (answer.status.as_u16(), answer.body.into_owned())
}

fn failing(name: &str) -> TargetStatus {
    TargetStatus {
        failed: Some(failed("aws.expired")),
        ..used(name)
    }
}

#[test]
fn a_program_that_starts_is_alive_and_not_started_nor_ready() {
    let context = AdminContext {
        observed: observed(vec![used("orders")]),
        ..context(Vec::new())
    };
    assert_eq!(get(&context, "/liveness"), (200, "alive\n".to_owned()));
    assert_eq!(get(&context, "/startup"), (503, "starting\n".to_owned()));
    let (status, body) = get(&context, "/readiness");
    assert_eq!(status, 503);
    assert_eq!(body, "not ready: pgiam is starting\norders: ready\n");
    context.observed.started();
    assert_eq!(get(&context, "/startup"), (200, "started\n".to_owned()));
    assert_eq!(
        get(&context, "/readiness"),
        (200, "ready\norders: ready\n".to_owned())
    );
}

#[test]
fn a_program_that_drains_has_started_and_wants_nobody() {
    let context = context(vec![used("orders")]);
    context.observed.drains();
    assert_eq!(get(&context, "/startup").0, 200);
    assert_eq!(get(&context, "/liveness").0, 200);
    let (status, body) = get(&context, "/readiness");
    assert_eq!(status, 503);
    assert!(body.starts_with("not ready: pgiam is stopping\n"), "{body}");
}

#[test]
fn as_many_targets_as_are_asked_for_must_be_there() {
    let interrupted = TargetStatus {
        readiness: Readiness::Interrupted,
        ..used("reports")
    };
    let context = context(vec![used("a"), failing("orders"), interrupted]);
    let (status, body) = get(&context, "/readiness");
    assert_eq!(status, 503);
    assert_eq!(
        body,
        "not ready: 1 of 3 targets can be reached\na: ready\norders: failing [aws.expired]\nreports: interrupted\n"
    );
    assert_eq!(get(&context, "/readiness?min-ready=1").0, 200);
    assert_eq!(get(&context, "/readiness?min-ready=2").0, 503);
    for wrong in ["0", "-1", "all", ""] {
        let path = format!("/readiness?min-ready={wrong}");
        assert_eq!(get(&context, &path).0, 400, "{wrong:?}");
    }
}

#[test]
fn a_target_that_its_owner_stopped_is_not_required() {
    let stopped = |name| TargetStatus {
        stopped: Some(std::time::SystemTime::now()),
        ..used(name)
    };
    let context = context(vec![used("orders"), stopped("reports")]);
    let (code, body) = get(&context, "/readiness");
    assert_eq!(code, 200, "{body}");
    assert!(body.contains("reports: stopped\n"), "{body}");
    assert_eq!(get(&context, "/readiness?min-ready=2").0, 503);
    let all = self::context(vec![stopped("orders"), stopped("reports")]);
    let (code, body) = get(&all, "/readiness");
    assert_eq!(code, 503);
    assert!(
        body.starts_with("not ready: every target is stopped\n"),
        "{body}"
    );
}

#[test]
fn a_program_that_is_full_wants_nobody() {
    let observed = Arc::new(Observed::new(1));
    observed.started();
    let context = AdminContext {
        observed: Arc::clone(&observed),
        ..context(Vec::new())
    };
    let nothing = get(&context, "/readiness");
    assert_eq!(
        nothing,
        (503, "not ready: no target is served\n".to_owned())
    );
    observed.show(vec![ListedTarget {
        port: 5433,
        addresses: Vec::new(),
        by_name: false,
        socket: None,
        source: Arc::new(Stands(used("orders"))),
    }]);
    assert_eq!(get(&context, "/readiness").0, 200);
    let connection = observed.admit(new_connection(&"orders".into(), b"psql"));
    let (status, body) = get(&context, "/readiness");
    assert_eq!(status, 503);
    assert!(
        body.starts_with("not ready: the only connection is in use\n"),
        "{body}"
    );
    drop(connection);
    assert_eq!(get(&context, "/readiness").0, 200);
}

#[tokio::test]
async fn a_dead_accept_loop_shows() {
    let context = context(Vec::new());
    let dies = context.observed.accepting();
    dies.watch(async { Some(()) }).await;
    let (status, body) = get(&context, "/liveness");
    assert_eq!(status, 503);
    assert_eq!(body, "1 listeners no longer accept connections\n");
}

#[test]
fn the_port_gives_nothing_but_health_and_metrics() {
    let context = context(vec![used("orders")]);
    for access in [DENIED, Access::Public, Access::Page] {
        for path in [
            "/stop",
            "/reload",
            "/else",
            "/page",
            "//",
            "/explain/",
            "/explain/no.such",
        ] {
            let answer = asked(&context, (Method::GET, access), path);
            assert_eq!(answer.status.as_u16(), 404, "{path}");
            let answer = asked(&context, (Method::POST, access), path);
            let found = (answer.status.as_u16(), answer.allow);
            assert_eq!(found, (405, Some("GET, HEAD")), "{path}");
        }
    }
    assert!(!context.controls.stop.is_cancelled());
    for path in page::paths().chain(["/status", "/logins", "/explain/aws.expired"]) {
        let (status, body) = get(&context, path);
        assert_eq!(status, 403, "{path}");
        assert!(
            body.contains("10.0.0.9") && !body.contains("orders"),
            "{body}"
        );
    }
    let answer = asked(&context, (Method::GET, DENIED), "/metrics");
    assert_eq!(
        (answer.status.as_u16(), answer.content_type),
        (200, METRICS)
    );
    let answer = asked(&context, (Method::POST, DENIED), "/metrics");
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    let answer = asked(&context, (Method::HEAD, DENIED), "/liveness");
    assert_eq!(answer.status, StatusCode::OK);
}

#[test]
fn the_owner_gets_the_page_and_the_status() {
    let context = context(vec![used("orders")]);
    for (path, content_type, part) in [
        ("/", "text/html; charset=utf-8", "<title>pgiam</title>"),
        ("/page/main.js", "text/javascript; charset=utf-8", "import "),
        ("/page/page.css", "text/css; charset=utf-8", "color-scheme"),
        ("/status", JSON, "\"orders\""),
        (
            "/explain/aws.expired",
            JSON,
            "{\"topic\":\"AWS credentials\",\"answers\":[{",
        ),
        (
            "/logins",
            JSON,
            "{\"targets\":[{\"name\":\"orders\",\"logins\":[]}]}",
        ),
    ] {
        for access in [Access::Page, Access::Control] {
            let answer = asked(&context, (Method::GET, access), path);
            let found = (answer.status.as_u16(), answer.content_type);
            assert_eq!(found, (200, content_type), "{path}");
            assert!(answer.body.contains(part), "{path}");
            let answer = asked(&context, (Method::POST, access), path);
            assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        }
    }
}

#[test]
fn a_request_for_another_host_is_misdirected() {
    let context = context(Vec::new());
    let answer = context.deny(&Denial::OtherHost);
    assert_eq!(answer.status.as_u16(), 421);
    // Also at /metrics, which is for all users.
    let expected = "pgiam answers requests to its own address only: \
                    the request is addressed to another host name\n";
    assert!(answer.body.starts_with(expected), "{answer:?}");
}

#[test]
fn the_control_socket_stops_and_loads_anew() {
    let mut context = context(vec![used("orders")]);
    let status = |context: &AdminContext, method: Method, path| {
        asked(context, (method, Access::Control), path)
            .status
            .as_u16()
    };
    assert_eq!(status(&context, Method::GET, "/stop"), 405);
    assert_eq!(status(&context, Method::POST, "/reload"), 409);
    let (sender, mut receiver) = mpsc::channel(1);
    context.controls.reload = Some(sender);
    assert_eq!(status(&context, Method::POST, "/reload"), 202);
    assert_eq!(status(&context, Method::POST, "/reload"), 202);
    assert!(receiver.try_recv().is_ok() && receiver.try_recv().is_err());
    assert!(!context.controls.stop.is_cancelled());
    assert_eq!(status(&context, Method::POST, "/stop"), 202);
    assert!(context.controls.stop.is_cancelled());
}

#[test]
fn the_control_socket_stops_a_target_that_is_there() {
    let mut context = context(vec![used("orders"), used("ré ports")]);
    let status = |context: &AdminContext, asked_by: (Method, Access<'_>), path| {
        asked(context, asked_by, path).status.as_u16()
    };
    let (owner, other) = ((Method::POST, Access::Control), (Method::POST, DENIED));
    let path = "/stop-target?name=r%C3%A9+ports";
    assert_eq!(
        status(&context, owner.clone(), path),
        409,
        "a single command"
    );
    let (sender, mut receiver) = mpsc::channel(1);
    context.controls.stop_target = Some(sender);
    assert_eq!(status(&context, other, path), 405);
    assert_eq!(status(&context, (Method::GET, Access::Control), path), 405);
    assert_eq!(status(&context, (Method::GET, DENIED), path), 404);
    assert_eq!(status(&context, owner.clone(), "/stop-target"), 400);
    assert_eq!(status(&context, owner.clone(), "/stop-target?name=or"), 404);
    assert!(receiver.try_recv().is_err());
    assert_eq!(status(&context, owner.clone(), path), 202);
    assert_eq!(status(&context, owner.clone(), path), 503, "one at a time");
    let request = |now| TargetStop {
        name: "ré ports".into(),
        now,
    };
    assert_eq!(receiver.try_recv().unwrap(), request(false));
    let now = format!("{path}&now=1");
    assert_eq!(status(&context, owner, &now), 202);
    assert_eq!(receiver.try_recv().unwrap(), request(true));
    assert!(!context.controls.stop.is_cancelled());
}

#[test]
fn a_failure_that_no_client_has_met_is_a_recent_error() {
    let context = context(vec![failing("orders"), failing("reports")]);
    let observed = &context.observed;
    observed.failed(Some(&"orders".into()), failure("tls.alpn", true));
    let answer = asked(&context, (Method::GET, Access::Control), "/status");
    let all: Value = serde_json::from_str(&answer.body).unwrap();
    let recent = all["recent_errors"].as_array().unwrap().iter();
    let mut recent: Vec<_> = recent.map(|it| (&it["target"], &it["id"])).collect();
    assert_eq!(
        recent[0],
        (&"orders".into(), &"tls.alpn".into()),
        "the newest"
    );
    recent[1..].sort_by_key(|(target, _)| target.as_str());
    let standing = |target| {
        (
            &all["targets"][target]["name"],
            &all["targets"][target]["failing"],
        )
    };
    assert_eq!(recent[1..], [standing(0), standing(1)]);
    assert_eq!(all["targets"][1]["last_error"], Value::Null);
}

#[test]
fn the_status_has_all_that_is_known() {
    let context = context(vec![used("reports"), failing("orders")]);
    let observed = &context.observed;
    observed.failed(Some(&"orders".into()), failure("aws.expired", true));
    observed.logged_in(&"reports".into(), &[(Stage::Total, 0.25)]);
    let connection = observed.admit(new_connection(&"reports".into(), b"DBeaver"));
    connection.opened();
    connection.traffic().sent(5);
    connection.traffic().received(7);
    let answer = asked(&context, (Method::GET, Access::Control), "/status");
    assert_eq!((answer.status.as_u16(), answer.content_type), (200, JSON));
    let all: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(all["pid"], std::process::id());
    assert_eq!(
        (&all["kind"], &all["state"]),
        (&"serve".into(), &"serving".into())
    );
    assert_eq!(
        (&all["open_connections"], &all["max_connections"]),
        (&1.into(), &400.into())
    );
    let [orders, reports] = [0, 1].map(|n| &all["targets"][n]);
    assert_eq!(
        (&orders["name"], &orders["ready"]),
        (&"orders".into(), &false.into())
    );
    let error = &orders["last_error"];
    assert_eq!(
        (&error["id"], &error["count"]),
        (&"aws.expired".into(), &1.into())
    );
    assert_eq!(error["sqlstate"], "08001");
    assert!(
        error["at"].as_str().is_some_and(|at| at.ends_with('Z')),
        "{error}"
    );
    assert_eq!(reports["last_error"], Value::Null);
    let recent = all["recent_errors"].as_array().unwrap();
    assert_eq!(recent.len(), 1, "a failure that a client has met");
    assert_eq!(
        (&recent[0]["target"], &recent[0]["id"]),
        (&"orders".into(), &"aws.expired".into())
    );
    assert_eq!(
        (&reports["bytes_up"], &reports["bytes_down"]),
        (&5.into(), &7.into())
    );
    assert_eq!(
        (&reports["round_trip_seconds"], &reports["max_sessions"]),
        (&0.012.into(), &Value::Null)
    );
    assert_eq!(reports["logins"]["count"], 1);
    assert_eq!(reports["logins"]["p99_seconds"], 0.25);
    assert_eq!(orders["logins"]["p50_seconds"], Value::Null);
    let client = &reports["connections"][0];
    assert_eq!(
        (&client["program"], &client["state"]),
        (&"DBeaver".into(), &"open".into())
    );
    assert_eq!(
        (&client["bytes_up"], &client["bytes_down"]),
        (&5.into(), &7.into())
    );
    let session = &reports["sessions"][0];
    assert_eq!(
        (&session["state"], &session["resumes"]),
        (&"up".into(), &1.into())
    );
    assert_eq!(session["round_trip_seconds"], 0.012);
    assert_eq!(reports["sessions"][1]["id"], Value::Null);
    assert_eq!(reports["sessions"][1]["state"], "starting");
}
