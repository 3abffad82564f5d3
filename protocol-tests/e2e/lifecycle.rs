//! Starting, stopping, and what happens to open sessions when a part of the way goes.

use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use protocol_tests::events::Event;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

use crate::shell::{Shell, running};
use crate::support::{
    BASTION, HOST, PATIENCE, PORT, REGION, Setup, World, eventually, launch, run,
};

/// Something that is not waited for, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(10);
const SLEEP: &str = "select pg_sleep(600)";
const DRAINING: &str = "waiting for open connections";
/// What psql shows when a session ends under it, in the server's own format.
const SHUTTING_DOWN: &str =
    "FATAL:  57P01: target \"orders\": terminating connection because pgiam is shutting down\n";

/// A world with further arguments of `pgiam serve`.
async fn world_with(args: &[&str]) -> World {
    World::with(Setup {
        args: args.iter().map(ToString::to_string).collect(),
        ..Setup::default()
    })
    .await
}

/// Ids of the sessions that were started, oldest first.
fn started(world: &World) -> Vec<String> {
    let all = world.sandbox.events().all();
    let ids = all.into_iter().filter_map(|event| match event {
        Event::StartSession { session_id, .. } => Some(session_id),
        _ => None,
    });
    ids.collect()
}

fn was_terminated(world: &World, id: &str) -> bool {
    let events = world.sandbox.events();
    events.count(|e| matches!(e, Event::TerminateSession { session_id } if session_id == id)) == 1
}

/// A psql that sleeps at the server.
async fn sleeper(world: &World) -> Shell {
    let mut psql = Shell::open(world, "application_name=sleeper");
    let pid = psql.backend().await;
    psql.say(&format!("{SLEEP};")).await;
    world.wait_sql(&running(pid, "pg_sleep")).await;
    psql
}

/// What an idle psql says when it finds its session gone.
async fn last_words(mut psql: Shell) -> String {
    psql.say("select 'anybody there?';").await;
    let ran = psql.end().await;
    assert_eq!(ran.stdout, "");
    assert_eq!(ran.code, Some(2), "psql lost its connection: {ran:?}");
    ran.stderr
}

#[tokio::test]
async fn sigterm_without_connections_ends_at_once() {
    let mut world = world_with(&["--drain-timeout", "60"]).await;
    world.query("select 1").await;
    world.wait_no_backends().await;
    let begun = Instant::now();
    world.proxy.signal(Signal::SIGTERM).expect("pgiam runs");
    let status = world.proxy.wait_end(PATIENCE).await.expect("pgiam ends");
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert_eq!(status.code(), Some(0));
    let sessions = started(&world);
    assert_eq!(sessions.len(), 1);
    assert!(was_terminated(&world, &sessions[0]));
    world.stop().await;
}

#[tokio::test]
async fn a_proxy_nobody_used_asks_nothing_of_aws() {
    let mut world = World::start().await;
    world.proxy.signal(Signal::SIGINT).expect("pgiam runs");
    let status = world.proxy.wait_end(AT_ONCE).await.expect("pgiam ends");
    assert_eq!(status.code(), Some(0));
    assert!(world.sandbox.events().all().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn open_sessions_are_told_that_the_proxy_stops() {
    let mut world = world_with(&["--drain-timeout", "1"]).await;
    let mut idle = Shell::open(&world, "sslmode=disable");
    idle.backend().await;
    let mut idle_tls = Shell::open(&world, "sslmode=require");
    idle_tls.backend().await;
    let asleep = sleeper(&world).await;

    world.proxy.signal(Signal::SIGTERM).expect("pgiam runs");
    // It is told without having to ask.
    let ran = asleep.end().await;
    assert!(ran.stderr.starts_with(SHUTTING_DOWN), "{ran:?}");
    assert_eq!(ran.code, Some(2), "psql lost its connection");
    let status = world.proxy.wait_end(AT_ONCE).await.expect("pgiam ends");
    assert_eq!(status.code(), Some(0));
    for psql in [idle, idle_tls] {
        let said = last_words(psql).await;
        assert!(said.starts_with(SHUTTING_DOWN), "{said}");
    }
    assert!(was_terminated(&world, &started(&world)[0]));
    // The sleeping backend notices when it next looks at its socket; nothing idle is left.
    let left = "select count(*) = 0 from pg_stat_activity \
                where client_addr is not null and state <> 'active'";
    world.wait_sql(left).await;
    world.stop().await;
}

#[tokio::test]
async fn a_session_that_ends_by_itself_ends_the_drain() {
    let mut world = world_with(&["--drain-timeout", "60"]).await;
    let mut admin = Shell::admin(&world);
    admin.ask("select pg_advisory_lock(1);").await;
    let waits = "select pg_advisory_lock(1), 'done'";
    let psql = tokio::spawn(run(world.psql_command(&["-A", "-t", "-c", waits])));
    let waiting = "select exists (select from pg_stat_activity where wait_event = 'advisory')";
    world.wait_sql(waiting).await;

    world.proxy.signal(Signal::SIGTERM).expect("pgiam runs");
    assert!(world.proxy.wait_log(DRAINING, PATIENCE).await.is_some());
    let port = world.proxy.port();
    eventually("the port is closed", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).err()
    })
    .await;
    admin.ask("select pg_advisory_unlock(1);").await;
    assert_eq!(psql.await.expect("psql runs").rows(), "|done");
    let status = world.proxy.wait_end(AT_ONCE).await.expect("pgiam ends");
    assert_eq!(status.code(), Some(0));
    drop(admin);
    world.stop().await;
}

#[tokio::test]
async fn a_second_signal_cuts_the_drain_short() {
    let mut world = world_with(&["--drain-timeout", "60"]).await;
    let asleep = sleeper(&world).await;
    world.proxy.signal(Signal::SIGINT).expect("pgiam runs");
    assert!(world.proxy.wait_log(DRAINING, PATIENCE).await.is_some());
    world.proxy.signal(Signal::SIGINT).expect("pgiam waits");
    let status = world.proxy.wait_end(AT_ONCE).await.expect("pgiam ends");
    assert_eq!(status.code(), Some(0));
    let ran = asleep.end().await;
    assert!(ran.stderr.starts_with(SHUTTING_DOWN), "{ran:?}");
    assert!(was_terminated(&world, &started(&world)[0]));
    world.stop().await;
}

#[tokio::test]
async fn a_lost_session_is_named_and_the_next_connection_gets_another() {
    let world = World::start().await;
    let lost = "FATAL:  08006: target \"orders\": the connection to the database was lost\n\
                DETAIL:  ";
    let hint = "HINT:  Reconnect: pgiam opens a new tunnel when it has to.\n";
    let reason = "Session ended by an administrator";
    for (number, how) in ["cut", "ended"].into_iter().enumerate() {
        let mut psql = Shell::open(&world, "");
        psql.backend().await;
        let sessions = started(&world);
        assert_eq!(sessions.len(), number + 1);
        let id = &sessions[number];
        let detail = if how == "cut" {
            assert!(world.sandbox.cut_client(id));
            "the connection to the SSM service was lost: ".to_owned()
        } else {
            assert!(world.sandbox.end_session(id, reason));
            format!("the SSM session ended: {reason}.\n")
        };
        // The proxy knows before psql asks.
        eventually("the session has ended", || {
            let log = world.proxy.log_text();
            let ends = log.lines().filter(|l| l.contains("\"session ended\""));
            (ends.count() == number + 1).then_some(())
        })
        .await;
        let said = last_words(psql).await;
        assert!(
            said.starts_with(&format!("{lost}{detail}")),
            "{how}: {said}"
        );
        assert!(said.contains(hint), "{how}: {said}");
    }
    assert_eq!(world.query("select 'back'").await, "back");
    let sessions = started(&world);
    assert_eq!(sessions.len(), 3);
    world.stop().await;
}

#[tokio::test]
async fn a_server_restart_reaches_the_client_in_the_servers_words() {
    let mut world = World::start().await;
    let mut psql = Shell::open(&world, "");
    psql.backend().await;
    world
        .database
        .postgres_mut()
        .restart()
        .await
        .expect("restart");
    let ended = world.proxy.wait_log("session ended", PATIENCE).await;
    assert_eq!(ended.expect("the session ends")["by"], "server");
    let said = last_words(psql).await;
    let words = "FATAL:  57P01: terminating connection due to administrator command\n";
    assert!(said.starts_with(words), "{said}");
    assert!(!said.contains("orders"), "nothing of ours: {said}");
    // The tunnel stands; only the stream had to go.
    assert_eq!(world.query("select 'back'").await, "back");
    assert_eq!(started(&world).len(), 1);
    world.stop().await;
}

/// Listens where a name of this machine leads to, and passes on to the database: the network of
/// somebody inside of the VPC.
async fn route(listener: TcpListener, database: std::net::SocketAddr) {
    while let Ok((mut near, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut far = TcpStream::connect(database).await.expect("the database");
            // How a connection ends is its ends' business.
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
    }
}

#[tokio::test]
async fn a_direct_target_needs_no_session() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let world = World::with(Setup {
        endpoint: ("localhost", port),
        config: Some(format!(
            "[targets.near]\nhost = \"localhost:{port}\"\nregion = \"{REGION}\"\nuser = \"db_user\"\n\
             database = \"app\"\nport = 0\nvia = \"direct\"\n"
        )),
        ..Setup::default()
    })
    .await;
    let route = tokio::spawn(route(listener, world.database.addr()));
    let ready = format!(
        "ready  near  psql -h localhost -p {}  → localhost:{port} as db_user via direct",
        world.proxy.port()
    );
    assert_eq!(world.proxy.ready_line(), ready);
    let who = "select current_user, current_database(), ssl from pg_stat_ssl \
               where pid = pg_backend_pid()";
    assert_eq!(world.query(who).await, "db_user|app|t");
    // The token was checked; nothing else was asked of AWS.
    let events = world.sandbox.events().all();
    let [Event::DbToken { outcome: Ok(_), .. }] = &events[..] else {
        panic!("{events:?}");
    };
    world.stop().await;
    route.abort();
}

#[tokio::test]
async fn two_targets_have_a_port_and_a_session_each() {
    let other = "i-0fedcba9876543210";
    let config = format!(
        "[defaults]\nhost = \"{HOST}\"\nport = 0\n\n\
         [targets.orders]\nuser = \"db_user\"\ndatabase = \"app\"\nbastion = \"{BASTION}\"\n\n\
         [targets.reports]\ndatabase = \"postgres\"\nbastion = \"{other}\"\n"
    );
    let mut world = World::with(Setup {
        config: Some(config),
        ..Setup::default()
    })
    .await;
    world.sandbox.agent(other).set_pacing(false);
    let orders = world.proxy.port();
    assert_eq!(
        world.proxy.ready_line(),
        format!(
            "ready  orders  psql -h localhost -p {orders}  → {HOST}:{PORT} as db_user via ssm {BASTION}"
        )
    );
    world
        .proxy
        .wait_ready(PATIENCE)
        .await
        .expect("the second line");
    let reports = world.proxy.port();
    assert_eq!(
        world.proxy.ready_line(),
        format!("ready  reports  psql -h localhost -p {reports}  → {HOST}:{PORT} via ssm {other}")
    );
    assert_ne!(orders, reports);

    let who = "select current_user, current_database();";
    let mut first = Shell::open_port(&world, orders);
    assert_eq!(first.ask(who).await, "db_user|app");
    let mut second = Shell::open(&world, "user='odd user@x' dbname=''");
    assert_eq!(second.ask(who).await, "odd user@x|postgres");
    let events = world.sandbox.events().all();
    let targets: Vec<&str> = events
        .iter()
        .filter_map(|event| match event {
            Event::StartSession { target, .. } => Some(target.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(targets, [BASTION, other]);
    for psql in [first, second] {
        assert_eq!(psql.end().await.code, Some(0));
    }
    world.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_the_certificate_that_clients_pinned() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut world = World::start().await;
    let state = world.sandbox.dir().join("state/local-tls");
    let pinned = world.sandbox.dir().join("pinned.crt");
    std::fs::copy(state.join("server.crt"), &pinned).expect("the certificate is kept");
    let mode = |path: &std::path::Path| {
        let metadata = std::fs::metadata(path).expect("it exists");
        metadata.permissions().mode() & 0o777
    };
    assert_eq!(mode(&state.join("server.key")), 0o600);
    assert_eq!(mode(&world.sandbox.dir().join("state")), 0o700);

    let conninfo = format!("sslmode=verify-full sslrootcert={}", pinned.display());
    for round in 1..=2 {
        let ran = world
            .psql(&["-A", "-t", "-d", &conninfo, "-c", "select 1"])
            .await;
        assert_eq!(ran.rows(), "1", "round {round}");
        let mut new = launch(&world.sandbox, &Setup::default());
        new.wait_ready(PATIENCE).await.expect("pgiam is ready");
        let old = std::mem::replace(&mut world.proxy, new);
        old.stop().await.expect("pgiam ends");
    }
    world.stop().await;
}

#[tokio::test]
async fn every_log_line_is_json() {
    let mut world = World::start().await;
    world.query("select 1").await;
    let mut refused = world.psql_command(&["-d", "nosuch", "-c", "select 1"]);
    assert_eq!(
        run({
            refused.stderr(Stdio::null());
            refused
        })
        .await
        .code,
        Some(2)
    );
    world.proxy.signal(Signal::SIGTERM).expect("pgiam runs");
    world.proxy.wait_end(AT_ONCE).await.expect("pgiam ends");
    assert!(world.proxy.wait_log("stopped", PATIENCE).await.is_some());

    let log = world.proxy.log_text();
    let mut messages = Vec::new();
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        for field in ["timestamp", "level", "target", "message"] {
            assert!(line[field].is_string(), "no {field}: {line}");
        }
        messages.push(line);
    }
    let one = |message: &str| {
        let found = messages.iter().find(|m| m["message"] == message);
        found.unwrap_or_else(|| panic!("no {message:?} in\n{log}"))
    };
    // A session says which it was and what its parts took.
    let ready = one("session ready");
    for (field, value) in [
        ("target", "orders"),
        ("user", "db_user"),
        ("database", "app"),
    ] {
        assert_eq!(ready["span"][field], value, "{ready}");
    }
    for field in [
        "startup_ms",
        "token_ms",
        "tunnel_ms",
        "tls_ms",
        "login_ms",
        "total_ms",
    ] {
        assert!(ready[field].is_number(), "no {field}: {ready}");
    }
    let ended = one("session ended");
    assert_eq!(ended["by"], "client");
    assert!(ended["sent"].as_u64() > Some(0) && ended["received"].as_u64() > Some(0));
    let refused = one("no session");
    assert_eq!(refused["sqlstate"], "3D000");
    world.stop().await;
}
