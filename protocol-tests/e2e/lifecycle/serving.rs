//! What a started program offers: its ready lines, targets, certificate and log.

use std::process::Stdio;

use protocol_tests::aws::events::Event;
use protocol_tests::harness::program::{self, stop_signal};
use protocol_tests::network::dns::DnsServer;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

use super::AT_ONCE;
use crate::shell::Shell;
use crate::support::{
    BASTION, HOST, PATIENCE, PORT, Setup, World, launch, name_of_this_machine, run,
};

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
    // The name must lead to this machine, and be an alias of the endpoint.
    let Some(near) = name_of_this_machine() else {
        return;
    };
    let dns = DnsServer::start().await.expect("a name server");
    dns.set_cname(&near, HOST);
    let listener = TcpListener::bind((near.as_str(), 0)).await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let world = World::with(Setup {
        endpoint: (HOST, port),
        config: Some(format!(
            "[targets.near]\nhost = \"{near}:{port}\"\nuser = \"db_user\"\ndatabase = \"app\"\n\
             port = 0\nvia = \"direct\"\ndns_server = \"{}\"\n",
            dns.addr()
        )),
        ..Setup::default()
    })
    .await;
    let route = tokio::spawn(route(listener, world.database.addr()));
    let ready = format!(
        "ready  near  psql -h localhost -p {}  → {near}:{port} as db_user via direct",
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
    // Windows has no modes; there both are in the user's profile.
    if program::windows().is_none() {
        assert_eq!(mode(&state.join("server.key")), 0o600);
        assert_eq!(mode(&world.sandbox.dir().join("state")), 0o700);
    }

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
    world.proxy.signal(stop_signal()).expect("pgiam runs");
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
    let ready = one("connection ready");
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
    let ended = one("connection ended");
    assert_eq!(ended["by"], "client");
    assert!(ended["sent"].as_u64() > Some(0) && ended["received"].as_u64() > Some(0));
    let refused = one("connection failed");
    assert_eq!(refused["sqlstate"], "3D000");
    world.stop().await;
}
