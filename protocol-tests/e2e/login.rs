//! The main job: in without a password, over plain TCP and TLS, as the right role.

mod chosen;

use protocol_tests::aws::events::Event;

use crate::support::{BASTION, HOST, PORT, World};

const WHO: &str = "select current_user, current_database(), ssl, version from pg_stat_ssl \
                   where pid = pg_backend_pid()";

#[tokio::test]
async fn psql_logs_in_without_a_password() {
    let world = World::start().await;

    // No -U, no -d: libpq sends the operating system's user name for both.
    assert_eq!(world.query(WHO).await, "db_user|app|t|TLSv1.3");

    // Plain and TLS clients alike; the hop to the database is TLS either way.
    for (mode, local_tls) in [("disable", "f"), ("require", "t"), ("prefer", "t")] {
        let conninfo = format!("sslmode={mode} gssencmode=disable");
        let ran = world
            .psql(&["-A", "-t", "-d", &conninfo, "-c", WHO, "-c", "\\conninfo"])
            .await;
        assert!(ran.rows().starts_with("db_user|app|t|TLSv1.3"), "{ran:?}");
        let shown = if ran.stdout.contains("SSL connection (protocol: TLSv1.3") {
            "t"
        } else {
            "f"
        };
        assert_eq!(shown, local_tls, "sslmode={mode}: {ran:?}");
    }

    // The certificate made for local clients can be pinned.
    let certificate = world.sandbox.dir().join("state/local-tls/server.crt");
    let pinned = format!("sslmode=verify-full sslrootcert={}", certificate.display());
    let ran = world.psql(&["-A", "-t", "-d", &pinned, "-c", WHO]).await;
    assert_eq!(ran.rows(), "db_user|app|t|TLSv1.3");

    // One session carried all of it, started, signed and dialled as it should be.
    let events = world.sandbox.events();
    let started = |event: &Event| {
        matches!(event, Event::StartSession { target, host, port, .. }
        if target == BASTION && host == HOST && *port == PORT)
    };
    assert_eq!(events.count(started), 1);
    assert_eq!(
        events.count(|event| matches!(event, Event::DbToken { .. })),
        5
    );
    world.stop().await;
}

#[tokio::test]
async fn names_the_client_chose_pass_through() {
    let world = World::start().await;
    let who = "select current_user, current_database(), current_setting('application_name'), \
               current_setting('work_mem')";
    let options =
        "user='odd user@x' dbname=postgres application_name=report options='-c work_mem=7MB'";
    let ran = world.psql(&["-A", "-t", "-d", options, "-c", who]).await;
    assert_eq!(ran.rows(), "odd user@x|postgres|report|7MB");
    world.stop().await;
}
