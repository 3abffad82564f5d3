//! PostgreSQL 18: direct TLS and protocol 3.2, with its own client library.

use protocol_tests::aws::events::Event;
use protocol_tests::database::front::FrontKind;
use protocol_tests::database::postgres::{SCRAM_PASSWORD, postgres18};
use protocol_tests::database::rds::Engine;
use protocol_tests::network::line::LineOptions;
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use crate::support::{KEY, PATIENCE, Psql, TokenFor, WHO, World, psql, tokens};

/// What libpq 18 can do and older ones cannot.
const MODERN: &str = "sslnegotiation=direct min_protocol_version=3.2 max_protocol_version=3.2";

#[tokio::test]
async fn the_server_takes_direct_tls_and_protocol_3_2_itself() {
    let world = World::new();
    let found = postgres18().unwrap();
    let bindir = Some(found.bindir());
    let database = world
        .database(|o| o.engine = Engine::Passwords { bindir })
        .await;
    assert_eq!(database.postgres().major(), 18);
    let client = Psql {
        more: MODERN,
        libdir: Some(found.libdir()),
        ..psql(&world, &database, "scram_only", SCRAM_PASSWORD)
    };
    assert_eq!(client.rows(WHO).await, "scram_only|t|TLSv1.3");
    // The installed client, which knows neither, gets in too.
    let old = psql(&world, &database, "scram_only", SCRAM_PASSWORD);
    assert_eq!(old.rows("select 1").await, "1");
    database.stop().await.unwrap();
}

#[tokio::test]
async fn a_token_logs_in_through_the_front_in_few_round_trips() {
    let world = World::new();
    let found = postgres18().unwrap();
    let database = world
        .database(|o| {
            o.engine = Engine::Front {
                kind: FrontKind::Instance,
                direct: true,
                bindir: Some(found.bindir()),
            };
            o.line = Some(LineOptions::counting());
        })
        .await;
    let token = TokenFor::default().make();
    let client = Psql {
        more: MODERN,
        libdir: Some(found.libdir()),
        ..psql(&world, &database, "db_user", &token)
    };
    assert_eq!(client.rows("select current_user").await, "db_user");
    assert_eq!(tokens(&world), [("db_user".to_owned(), Ok(KEY.to_owned()))]);
    let startup = |e: &Event| {
        matches!(
            e,
            Event::FrontStartup {
                protocol: (3, 2),
                tls: true,
                ..
            }
        )
    };
    assert_eq!(world.events.count(startup), 1);
    let direct = |e: &Event| {
        matches!(
            e,
            Event::FrontTls {
                direct: true,
                alpn: Some(_),
                ..
            }
        )
    };
    assert_eq!(world.events.count(direct), 1);
    let ended = |e: &Event| matches!(e, Event::LineClosed { .. });
    let Some(Event::LineClosed { up, .. }) = world.events.wait_for(ended, PATIENCE).await else {
        panic!("the connection never ended");
    };
    // ClientHello, startup, password; the query; the farewell.
    assert_eq!(up, 5);
}

#[tokio::test]
async fn long_cancel_keys_are_handed_on() {
    let world = World::new();
    let found = postgres18().unwrap();
    let database = world
        .database(|o| {
            o.engine = Engine::Front {
                kind: FrontKind::Instance,
                direct: true,
                bindir: Some(found.bindir()),
            };
        })
        .await;
    let token = TokenFor::default().make();
    let client = Psql {
        more: MODERN,
        libdir: Some(found.libdir()),
        ..psql(&world, &database, "db_user", &token)
    };
    let mut sleeper = client
        .command("select pg_sleep(60)")
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    crate::front::until_asleep(&database).await;
    let pid = nix::unistd::Pid::from_raw(sleeper.id().unwrap().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let mut said = String::new();
    let stderr = sleeper.stderr.as_mut().unwrap();
    let read = timeout(PATIENCE, stderr.read_to_string(&mut said)).await;
    read.unwrap().unwrap();
    assert!(
        said.contains("canceling statement due to user request"),
        "{said}"
    );
    let cancel = |e: &Event| matches!(e, Event::FrontCancel { key_length: 32, .. });
    assert_eq!(world.events.count(cancel), 1);
}

#[tokio::test]
async fn rds_proxy_does_not_know_protocol_3_2() {
    let world = World::new();
    let found = postgres18().unwrap();
    let database = world
        .database(|o| o.engine = Engine::front(FrontKind::RdsProxy))
        .await;
    let client = Psql {
        more: MODERN,
        libdir: Some(found.libdir()),
        ca: world.pki.public_ca_pem_path().to_owned(),
        ..psql(&world, &database, "db_user", "never asked for")
    };
    let text = client.refusal().await;
    assert!(
        text.contains(
            "Feature not supported: RDS Proxy supports only version 3.0 of the PostgreSQL messaging \
             protocol."
        ),
        "{text}"
    );
}
