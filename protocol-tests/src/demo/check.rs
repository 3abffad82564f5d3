//! One query through everything, and what each hop has to say about it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use tokio::time::timeout;

use super::{BASTION, FarSide, HOST, PORT};
use crate::aws::events::{Event, EventLog, Logged};
use crate::harness::program;
use crate::harness::program::Proxy;

/// How long the one query may take, tunnel included.
const QUERY_DEADLINE: Duration = Duration::from_secs(60);
/// How long pgiam's log line may come after the query's answer.
const LOG_DEADLINE: Duration = Duration::from_secs(5);

/// One row: role, TLS, its version and cipher, database, server version.
const EVIDENCE: &str = "select current_user, ssl, s.version, s.cipher, current_database(), \
                        split_part(current_setting('server_version'), ' ', 1) from pg_stat_ssl s \
                        join pg_stat_activity using (pid) where pid = pg_backend_pid()";

/// What was seen, to be printed once the session has been ended too.
pub(super) struct Report {
    /// When psql was started.
    began: Instant,
    /// From psql's start to its end.
    whole: Duration,
    row: Vec<String>,
    timings: Value,
    command: String,
}

pub(super) async fn run(far_side: &FarSide, proxy: &Proxy) -> anyhow::Result<Report> {
    let port = proxy.port();
    let psql = far_side.psql();
    let mut command = program::psql(&psql, port);
    command.args(["-A", "-t", "-c", EVIDENCE]);
    let began = Instant::now();
    let output = timeout(QUERY_DEADLINE, command.output())
        .await
        .with_context(|| format!("psql did not end within {QUERY_DEADLINE:?}"))?
        .with_context(|| program::starting(&psql))?;
    let whole = began.elapsed();
    if !output.status.success() {
        bail!(
            "psql failed:\n{}\npgiam's log:\n{}\nthe server's log:\n{}",
            String::from_utf8_lossy(&output.stderr).trim(),
            proxy.log_text(),
            far_side.database.postgres().log_tail(),
        );
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let row: Vec<String> = text.trim().split('|').map(str::to_owned).collect();
    ensure!(row.len() == 6, "the query answered {text:?}");
    ensure!(row[0] == "db_user", "logged in as {}, not db_user", row[0]);
    ensure!(row[1] == "t", "the connection to the database is not TLS");
    ensure!(row[4] == "app", "connected to {}, not app", row[4]);
    let timings = proxy
        .wait_log("connection ready", LOG_DEADLINE)
        .await
        .with_context(|| format!("no timings in pgiam's log:\n{}", proxy.log_text()))?;
    Ok(Report {
        began,
        whole,
        row,
        timings,
        command: format!("psql -h localhost -p {port}"),
    })
}

/// A line of the table; the time is empty when the hop has none of its own.
struct Hop {
    name: String,
    evidence: String,
    millis: String,
}

/// Prints the table.
///
/// # Errors
/// When a hop left no trace: then the query came another way than it should have.
pub(super) fn print(report: &Report, events: &EventLog) -> anyhow::Result<()> {
    let hops = hops(report, &events.logged())?;
    let rows: Vec<[&str; 3]> = hops
        .iter()
        .map(|hop| [&*hop.name, &*hop.evidence, &*hop.millis])
        .collect();
    let total = format!("{:.1}", report.whole.as_secs_f64() * 1e3);
    let mut rows = rows;
    rows.push(["all", "from psql's start to its end", &total]);
    super::say(&format!(
        "\n$ {} -c \"…\"\n{}\n\n{}\nok",
        report.command,
        report.row.join(" | "),
        super::table(&["hop", "evidence", "ms"], &rows)
    ))?;
    Ok(())
}

/// What a step left in the event log, in words.
type Describe = fn(&Event) -> Option<String>;

/// The steps of the tunnel, in their order.
const TUNNEL: [(&str, Describe); 4] = [
    ("StartSession", |event| match event {
        Event::StartSession {
            target,
            host,
            port,
            user_arn,
            ..
        } if target == BASTION => Some(format!("{target} → {host}:{port}, asked by {user_arn}")),
        _ => None,
    }),
    ("data channel", |event| match event {
        Event::GatewayConnected { signed_by, .. } => {
            Some(format!("WebSocket signed by {signed_by}"))
        }
        _ => None,
    }),
    ("handshake", |event| match event {
        Event::HandshakeComplete { client_version, .. } => {
            Some(format!("client version {client_version}"))
        }
        _ => None,
    }),
    ("dial", |event| match event {
        Event::Dial {
            host,
            port,
            result: Ok(()),
            ..
        } if host == HOST && *port == PORT => Some(format!("{BASTION} → {host}:{port}")),
        _ => None,
    }),
];

fn accepted_token(event: &Event) -> Option<String> {
    match event {
        Event::DbToken {
            db_user,
            outcome: Ok(key),
        } => Some(format!(
            "for {db_user}, signed by {key}, accepted by the database"
        )),
        _ => None,
    }
}

fn goodbye(event: &Event) -> Option<String> {
    match event {
        Event::TerminateSession { session_id } => Some(format!("TerminateSession {session_id}")),
        _ => None,
    }
}

/// The first event `describe` has words for, with its moment.
fn find(
    events: &[Logged],
    what: &str,
    describe: impl Fn(&Event) -> Option<String>,
) -> anyhow::Result<(Instant, String)> {
    let mut found = events
        .iter()
        .filter_map(|logged| Some((logged.at, describe(&logged.event)?)));
    found
        .next()
        .with_context(|| format!("the sandbox has seen no trace of this step: {what}"))
}

fn hops(report: &Report, events: &[Logged]) -> anyhow::Result<Vec<Hop>> {
    let own = |field: &str| match report.timings[field].as_f64() {
        Some(millis) => format!("{millis:.1}"),
        None => String::new(),
    };
    let hop = |name: &str, evidence: &str, millis: String| Hop {
        name: name.to_owned(),
        evidence: evidence.to_owned(),
        millis,
    };
    let row = &report.row;
    let (_, token) = find(events, "token", accepted_token)?;
    let mut hops = vec![
        hop("local accept", "psql, no password asked", own("startup_ms")),
        hop("token", &token, own("token_ms")),
        hop(
            "tunnel",
            "beside the token; its steps, each since the one before:",
            own("tunnel_ms"),
        ),
    ];
    let mut previous = report.began;
    for (name, describe) in TUNNEL {
        let (at, evidence) = find(events, name, describe)?;
        let took = at.saturating_duration_since(previous).as_secs_f64() * 1e3;
        hops.push(hop(&format!("  {name}"), &evidence, format!("{took:.1}")));
        previous = at;
    }
    let query =
        report.whole.as_secs_f64() * 1e3 - report.timings["total_ms"].as_f64().unwrap_or_default();
    let tls = format!("{} {}, certificate for {HOST}", row[2], row[3]);
    let login = format!("{} in {}, PostgreSQL {}", row[0], row[4], row[5]);
    let (_, ended) = find(events, "end of the session", goodbye)?;
    hops.extend([
        hop("TLS", &tls, own("tls_ms")),
        hop("login", &login, own("login_ms")),
        hop(
            "query",
            "one row; psql's own start and end",
            format!("{query:.1}"),
        ),
        hop("end", &ended, String::new()),
    ]);
    Ok(hops)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete() -> Vec<Event> {
        let session_id = "dev-0123".to_owned();
        vec![
            Event::StartSession {
                session_id: session_id.clone(),
                target: BASTION.to_owned(),
                host: HOST.to_owned(),
                port: PORT,
                user_arn: "arn:aws:iam::123456789012:user/dev".to_owned(),
            },
            Event::GatewayConnected {
                session_id: session_id.clone(),
                signed_by: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            },
            Event::HandshakeComplete {
                session_id: session_id.clone(),
                client_version: "1.2.764.0".to_owned(),
            },
            Event::Dial {
                session_id: session_id.clone(),
                stream: 3,
                host: HOST.to_owned(),
                port: PORT,
                result: Ok(()),
            },
            Event::DbToken {
                db_user: "db_user".to_owned(),
                outcome: Ok("AKIAIOSFODNN7EXAMPLE".to_owned()),
            },
            Event::TerminateSession { session_id },
        ]
    }

    fn judge(events: Vec<Event>) -> anyhow::Result<Vec<Hop>> {
        let began = Instant::now();
        let logged: Vec<Logged> = (1..)
            .zip(events)
            .map(|(n, event)| Logged {
                at: began + Duration::from_millis(10 * n),
                event,
            })
            .collect();
        let row = ["db_user", "t", "TLSv1.3", "X", "app", "15.18"];
        let report = Report {
            began,
            whole: Duration::from_millis(100),
            row: row.map(str::to_owned).into(),
            timings: serde_json::json!({"tls_ms": 2.25, "total_ms": 75.0}),
            command: "psql".to_owned(),
        };
        hops(&report, &logged)
    }

    #[test]
    fn every_hop_has_its_evidence_and_time() {
        let hops = judge(complete()).unwrap();
        let millis: Vec<&str> = hops.iter().map(|h| h.millis.as_str()).collect();
        let expected = [
            "", "", "", "10.0", "10.0", "10.0", "10.0", "2.2", "", "25.0", "",
        ];
        assert_eq!(millis, expected);
        assert!(hops.iter().all(|h| !h.evidence.is_empty()));
    }

    #[test]
    fn a_hop_without_a_trace_fails_the_check() {
        for missing in 0..complete().len() {
            let mut events = complete();
            let event = events.remove(missing);
            assert!(judge(events).is_err(), "without {event:?}");
        }
        let mut refused = complete();
        refused[4] = Event::DbToken {
            db_user: "db_user".to_owned(),
            outcome: Err("no".to_owned()),
        };
        assert!(judge(refused).is_err());
    }
}
