//! The health endpoints and the metrics.

use std::time::{Duration, Instant};

use protocol_tests::aws::api::ApiFault;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::exposition::read;
use super::{get, http, request, status, until, world};
use crate::shell::Shell;

#[tokio::test]
async fn health_is_told_and_nothing_else() {
    let world = world().await;
    let address = http(&world).await;
    assert!(address.ip().is_loopback());
    for (path, body) in [
        ("/startup", "started\n"),
        ("/liveness", "alive\n"),
        ("/readiness", "ready\norders: idle\n"),
    ] {
        let answer = get(address, path).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, body), "{path}");
        assert!(
            answer.head.contains("content-type: text/plain"),
            "{answer:?}"
        );
    }
    for path in ["/stop", "/reload"] {
        assert_eq!(get(address, path).await.status, 404, "{path}");
        let asked = request(address, "POST", path).await;
        assert_eq!(asked.status, 405, "{path}");
    }
    assert!(
        world.sandbox.events().all().is_empty(),
        "asking costs nothing"
    );
    assert_eq!(world.query("select 'still here'").await, "still here");
    world.stop().await;
}

/// Silent connections, and ones that stop in the middle of a request, keep nobody from an answer.
#[tokio::test]
async fn silence_at_the_health_port_keeps_nobody_waiting() {
    const SILENT: usize = 500;
    let world = world().await;
    let address = http(&world).await;
    let mut silent = Vec::new();
    for n in 0..SILENT {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        if n % 2 == 0 {
            let sent = stream.write_all(b"GET /liveness HTTP/1.1\r\n").await;
            sent.expect("it is taken");
        }
        silent.push(stream);
    }
    let begun = Instant::now();
    for _ in 0..3 {
        let answer = get(address, "/liveness").await;
        assert_eq!((answer.status, &*answer.body), (200, "alive\n"));
    }
    let took = begun.elapsed();
    // A moment; one that waits for the silent ones takes more than 4 s.
    assert!(took < Duration::from_secs(2), "{took:?}");
    drop(silent);
    world.stop().await;
}

#[tokio::test]
async fn a_target_that_cannot_be_reached_shows() {
    let world = world().await;
    let address = http(&world).await;
    let denied = ApiFault::Refused {
        status: 400,
        code: "AccessDeniedException",
        message: "not authorized to perform: ssm:StartSession",
    };
    world.sandbox.api().fail("StartSession", denied, 1);
    let ran = world.psql(&["-c", "select 1"]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let answer = get(address, "/readiness").await;
    assert_eq!(answer.status, 503);
    let expected =
        "not ready: 0 of 1 targets can be reached\norders: failing [ssm.access-denied]\n";
    assert_eq!(answer.body, expected);
    assert_eq!(get(address, "/liveness").await.status, 200);

    let process = status(&world).await;
    let target = &process["targets"][0];
    assert_eq!(
        (&target["state"], &target["ready"]),
        (&"failing".into(), &false.into())
    );
    let error = &target["last_error"];
    assert_eq!(
        (&error["id"], &error["count"]),
        (&"ssm.access-denied".into(), &1.into())
    );
    assert_eq!(error["sqlstate"], "08004");
    assert!(
        error["hint"].as_str().is_some_and(|hint| !hint.is_empty()),
        "{error}"
    );

    assert_eq!(world.query("select 'again'").await, "again");
    assert_eq!(get(address, "/readiness").await.status, 200);
    let samples = read(&get(address, "/metrics").await.body);
    let errors = "pgiam_errors_total{target=\"orders\",id=\"ssm.access-denied\"}";
    assert_eq!(samples[errors], 1.0);
    assert_eq!(
        samples["pgiam_tunnel_sessions_failed_total{target=\"orders\"}"],
        1.0
    );
    world.stop().await;
}

#[tokio::test]
async fn logins_and_bytes_are_counted() {
    let world = world().await;
    let address = http(&world).await;
    let answer = get(address, "/metrics").await;
    assert!(
        answer.head.contains("application/openmetrics-text"),
        "{answer:?}"
    );
    let before = read(&answer.body);
    assert_eq!(before["pgiam_logins_total{target=\"orders\"}"], 0.0);
    assert_eq!(
        before["pgiam_tunnel_sessions{target=\"orders\",state=\"up\"}"],
        0.0
    );

    for _ in 0..2 {
        world.query("select repeat('x', 100000)").await;
    }
    let mut psql = Shell::open(&world, "");
    psql.backend().await;
    let after = read(&get(address, "/metrics").await.body);
    let of = |name: &str, labels: &str| {
        let labels = match labels {
            "" => String::new(),
            labels => format!(",{labels}"),
        };
        after[&format!("pgiam_{name}{{target=\"orders\"{labels}}}")]
    };
    assert_eq!(of("logins_total", ""), 3.0);
    assert_eq!(of("connections", "state=\"open\""), 1.0);
    assert_eq!(of("token_fetches_total", "source=\"fresh\""), 1.0);
    assert_eq!(of("token_fetches_total", "source=\"cache\""), 2.0);
    for stage in ["startup", "token", "tunnel", "tls", "login", "total"] {
        let labels = format!("stage=\"{stage}\"");
        assert_eq!(of("login_duration_seconds_count", &labels), 3.0, "{stage}");
    }
    assert!(of("login_duration_seconds_sum", "stage=\"total\"") > 0.0);
    let down = of("transferred_bytes_total", "direction=\"down\"");
    assert!((200_000.0..210_000.0).contains(&down), "{down}");
    let up = of("transferred_bytes_total", "direction=\"up\"");
    assert!((50.0..1_000.0).contains(&up), "{up}");
    assert!(of("tunnel_transferred_bytes_total", "direction=\"down\"") > down);
    assert_eq!(of("tunnel_sessions", "state=\"up\""), 1.0);
    assert_eq!(of("tunnel_sessions_started_total", ""), 1.0);
    assert_eq!(of("tunnel_streams", ""), 1.0);
    assert_eq!(of("target_ready", ""), 1.0);
    assert!(of("tunnel_round_trip_seconds", "") > 0.0);
    assert_eq!(after["pgiam_connections_limit"], 400.0);
    drop(psql);
    until(&world, "the connection is gone", |target| {
        target["connections"].as_array().is_some_and(Vec::is_empty)
    })
    .await;
    world.stop().await;
}

#[tokio::test]
async fn a_path_that_dies_is_counted_where_nobody_else_notices() {
    let world = world().await;
    let address = http(&world).await;
    let mut psql = Shell::open(&world, "");
    psql.backend().await;
    let of = async |name: &str| {
        let samples = read(&get(address, "/metrics").await.body);
        samples[&format!("pgiam_tunnel_{name}_total{{target=\"orders\"}}")]
    };
    assert_eq!(of("resumes").await, 0.0);
    let before = of("retransmissions").await;
    // From now on this connection's bytes go nowhere, and nobody says so.
    world.sandbox.link().strand();
    // Long enough away for somebody to see it.
    let api = world.sandbox.api();
    api.fail("ResumeSession", ApiFault::InternalError, 10_000);
    psql.say("select 'answered';").await;
    until(&world, "the tunnel is interrupted", |target| {
        target["state"] == "interrupted"
    })
    .await;
    assert_eq!(get(address, "/readiness").await.status, 503);
    api.recover();
    assert_eq!(psql.hear().await, "answered");
    assert_eq!(of("resumes").await, 1.0);
    assert!(of("retransmissions").await > before);
    assert_eq!(of("sessions_started").await, 1.0);
    let target = until(&world, "the tunnel is back", |target| {
        target["state"] == "ready"
    })
    .await;
    assert_eq!(target["sessions"][0]["resumes"], 1);
    drop(psql);
    world.stop().await;
}
