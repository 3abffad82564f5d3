//! What comes before the startup packet.

use protocol_tests::database::front::FrontKind;
use protocol_tests::database::postgres::postgres18;
use protocol_tests::database::rds::Engine;
use rustls::version::{TLS12, TLS13};
use tokio::process::Command;

use super::{
    DB_USER, GSS_REQUEST, POSTGRESQL, SLEEP, SSL_REQUEST, Wire, cancel_request, certificate,
    startup, trusting,
};
use crate::failures::refusals;
use crate::shell::running;
use crate::support::{PATIENCE, Setup, World, eventually, run};

const ALIVE: &str = "select 'alive'";

/// TLS after an SSLRequest.
async fn asked(world: &World) -> Wire {
    let mut wire = Wire::connect(world).await;
    wire.send(SSL_REQUEST).await;
    assert_eq!(wire.byte().await, b'S');
    let config = trusting(world, &[POSTGRESQL], &[&TLS13]);
    wire.tls(config).await.expect("TLS")
}

/// TLS from the first byte.
async fn direct(world: &World) -> Wire {
    let config = trusting(world, &[POSTGRESQL], &[&TLS13]);
    Wire::connect(world).await.tls(config).await.expect("TLS")
}

/// The session works.
async fn works(mut wire: Wire) {
    wire.log_in(&startup(0, DB_USER)).await;
    assert_eq!(wire.value(ALIVE).await, "alive");
    wire.send(b"X\0\0\0\x04").await;
    wire.rest().await;
}

#[tokio::test]
async fn tls_of_both_versions_with_and_without_asking_first() {
    let world = World::start().await;
    for version in [&TLS12, &TLS13] {
        let config = || trusting(&world, &[POSTGRESQL], &[version]);
        works(
            Wire::connect(&world)
                .await
                .tls(config())
                .await
                .expect("TLS"),
        )
        .await;
        for first in [&[SSL_REQUEST][..], &[GSS_REQUEST, SSL_REQUEST]] {
            let mut wire = Wire::connect(&world).await;
            for request in first {
                wire.send(request).await;
                let expected = if *request == SSL_REQUEST { b'S' } else { b'N' };
                assert_eq!(wire.byte().await, expected);
            }
            works(wire.tls(config()).await.expect("TLS")).await;
        }
        // Clients before libpq 17 offer no protocol; that is asked for only where TLS comes first.
        let mut wire = Wire::connect(&world).await;
        wire.send(SSL_REQUEST).await;
        assert_eq!(wire.byte().await, b'S');
        let plain = trusting(&world, &[], &[version]);
        works(wire.tls(plain).await.expect("TLS")).await;
    }
    let mut gss = Wire::connect(&world).await;
    gss.send(GSS_REQUEST).await;
    assert_eq!(gss.byte().await, b'N');
    works(gss).await;

    // Inside direct TLS both may be asked, as of the server, and both are refused.
    let mut inside = direct(&world).await;
    for request in [SSL_REQUEST, GSS_REQUEST] {
        inside.send(request).await;
        assert_eq!(inside.byte().await, b'N');
    }
    works(inside).await;
    world.stop().await;
}

#[tokio::test]
async fn preludes_that_are_out_of_order_are_told_so() {
    let world = World::start().await;
    // Direct TLS that has not agreed on the protocol.
    let config = trusting(&world, &[], &[&TLS13]);
    let wire = Wire::connect(&world).await.tls(config).await;
    let (code, said) = wire.expect("TLS stands").error().await;
    assert_eq!(code, "08P01");
    assert!(said.contains("ALPN"), "{said}");
    let config = trusting(&world, &[b"http/1.1"], &[&TLS13]);
    let wrong = Wire::connect(&world).await.tls(config).await;
    let wrong = wrong.err().expect("no TLS with a web browser").to_string();
    assert!(wrong.contains("NoApplicationProtocol"), "{wrong}");

    // A request inside the TLS that one began.
    for request in [SSL_REQUEST, GSS_REQUEST] {
        let mut wire = asked(&world).await;
        wire.send(request).await;
        let (code, said) = wire.error().await;
        assert_eq!(code, "08P01");
        assert!(said.contains("inside TLS"), "{said}");
    }
    // The same request twice, in the clear.
    let mut twice = Wire::connect(&world).await;
    for _ in 0..2 {
        twice.send(GSS_REQUEST).await;
        assert!(matches!(twice.byte().await, b'N' | b'E'));
    }
    twice.rest().await;
    let mut twice = Wire::connect(&world).await;
    twice.send(SSL_REQUEST).await;
    assert_eq!(twice.byte().await, b'S');
    twice.send(SSL_REQUEST).await;
    let answer = twice.rest().await;
    // TLS is owed now, so the answer is an alert: content type 21.
    assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");

    // Words put in behind a request by somebody in the middle.
    for request in [SSL_REQUEST, GSS_REQUEST] {
        let mut wire = Wire::connect(&world).await;
        wire.send(&[request, &startup(0, DB_USER)].concat()).await;
        let (code, said) = wire.error().await;
        assert_eq!(code, "08P01");
        assert!(said.contains("unencrypted data"), "{said}");
    }
    let log = eventually("all are logged", || {
        let log = refusals(&world);
        (log.len() >= 8).then_some(log)
    })
    .await;
    assert_eq!(log.len(), 8, "{log:?}");
    let count = |id: &str| log.iter().filter(|line| line["id"] == id).count();
    assert_eq!(
        (count("client.startup"), count("client.tls")),
        (6, 2),
        "{log:?}"
    );
    assert_eq!(world.query("select 1").await, "1");
    world.stop().await;
}

#[tokio::test]
async fn the_longest_startup_packet_is_the_servers() {
    let world = World::start().await;
    // MAX_STARTUP_PACKET_LENGTH of pqcomm.h is 10,000 without the length word.
    let packet = |length: usize| {
        let name = b"application_name\0";
        let rest = length - startup(0, &[DB_USER, name, b"\0"].concat()).len();
        let value = vec![b'x'; rest];
        startup(0, &[DB_USER, name, &value, b"\0"].concat())
    };
    let mut longest = Wire::connect(&world).await;
    assert_eq!(packet(10_004).len(), 10_004);
    longest.log_in(&packet(10_004)).await;
    assert_eq!(longest.value(ALIVE).await, "alive");
    let mut wire = Wire::connect(&world).await;
    wire.send(&packet(10_005)).await;
    assert_eq!(wire.error().await.0, "08P01");
    drop(longest);
    world.stop().await;
}

/// Every way a CancelRequest can come.
async fn carriers(world: &World) -> [Wire; 3] {
    [
        Wire::connect(world).await,
        asked(world).await,
        direct(world).await,
    ]
}

async fn cancelled_by_every_carrier(world: &World, session: &mut Wire) {
    for carrier in carriers(world).await {
        session.query(SLEEP).await;
        world.wait_sql(&running(session.pid, "pg_sleep")).await;
        session.cancel_over(carrier).await;
        assert_eq!(session.error().await.0, "57014");
        session.until(b'Z').await;
        assert_eq!(session.value(ALIVE).await, "alive");
    }
}

#[tokio::test]
async fn cancel_requests_come_in_the_clear_after_asking_and_in_direct_tls() {
    let world = World::start().await;
    let mut session = Wire::connect(&world).await;
    session.log_in(&startup(0, DB_USER)).await;
    assert_eq!(session.key.len(), 4);
    cancelled_by_every_carrier(&world, &mut session).await;

    // The longest key there can be is read, and is nobody's.
    let ignored = "ignored a cancel request that matches no open connection";
    let count = || world.proxy.log_text().matches(ignored).count();
    for (nth, mut carrier) in carriers(&world).await.into_iter().enumerate() {
        let request = cancel_request(session.pid, &[7; 256]);
        carrier.send(&request).await;
        assert_eq!(carrier.rest().await, b"");
        eventually("it is read", || (count() == nth + 1).then_some(())).await;
    }
    let mut too_long = Wire::connect(&world).await;
    too_long.send(&cancel_request(session.pid, &[7; 257])).await;
    assert!(!too_long.rest().await.is_empty(), "it is told");
    assert_eq!(count(), 3);
    assert_eq!(session.value(ALIVE).await, "alive");
    drop(session);
    world.stop().await;
}

/// PostgreSQL 18, which gives long keys to clients that speak protocol 3.2.
async fn eighteen() -> World {
    let eighteen = postgres18().expect("PostgreSQL 18");
    let engine = Engine::Front {
        kind: FrontKind::Instance,
        direct: true,
        bindir: Some(eighteen.bindir()),
    };
    World::with(Setup {
        engine,
        ..Setup::default()
    })
    .await
}

#[tokio::test]
async fn long_cancel_keys_come_by_every_way_too() {
    let world = eighteen().await;
    let mut session = direct(&world).await;
    session.log_in(&startup(2, DB_USER)).await;
    assert_eq!(session.key.len(), 32, "what PostgreSQL 18 gives");
    cancelled_by_every_carrier(&world, &mut session).await;
    drop(session);
    world.stop().await;
}

/// psql with the client library of PostgreSQL 18.
fn psql18(world: &World, conninfo: &str) -> Command {
    let sql = "select 'alive'";
    let mut command = world.psql_command(&["-A", "-t", "-d", conninfo, "-c", sql]);
    command.env("LD_LIBRARY_PATH", postgres18().expect("18").libdir());
    command
}

#[tokio::test]
async fn libpq_verifies_our_certificate_and_needs_not_ask_first() {
    let world = World::start().await;
    let root = certificate(&world);
    let root = root.display();
    let full = format!("sslmode=verify-full sslrootcert={root}");
    let sql = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    let ran = world
        .psql(&["-A", "-t", "-d", &full, "-c", sql, "-c", "\\conninfo"])
        .await;
    assert!(ran.rows().starts_with("t\n"), "{ran:?}");
    assert!(ran.rows().contains("SSL connection"), "{ran:?}");
    let other = format!("{full} host=127.0.0.1");
    let ran = world.psql(&["-A", "-t", "-d", &other, "-c", ALIVE]).await;
    assert_eq!(ran.rows(), "alive");

    for conninfo in [
        "sslmode=require sslnegotiation=direct".to_owned(),
        format!("{full} sslnegotiation=direct"),
        "sslmode=disable".to_owned(),
        "sslmode=require max_protocol_version=3.2".to_owned(),
    ] {
        let ran = run(psql18(&world, &conninfo)).await;
        assert_eq!(ran.rows(), "alive", "{conninfo}");
    }
    let log = "connection ready";
    assert!(world.proxy.wait_log(log, PATIENCE).await.is_some());
    world.stop().await;
}
