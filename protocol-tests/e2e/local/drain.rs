//! What can still be done while the program waits for its sessions to end.

use std::time::Duration;

use protocol_tests::harness::program;
use tokio::process::Command;

use super::{DB_USER, SLEEP, Wire, startup, told, world_with};
use crate::shell::running;
use crate::support::{PATIENCE, run};

/// Something that is not waited for, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn only_cancels_are_served_and_nobody_late_is_waited_for() {
    let mut world = world_with(&["--drain-timeout", "60"]).await;
    let mut session = Wire::connect(&world).await;
    session.log_in(&startup(0, DB_USER)).await;
    session.query(SLEEP).await;
    world.wait_sql(&running(session.pid, "pg_sleep")).await;

    world
        .proxy
        .signal(program::stop_signal())
        .expect("pgiam runs");
    let draining = "waiting for open connections";
    assert!(world.proxy.wait_log(draining, PATIENCE).await.is_some());

    let mut late = Wire::connect(&world).await;
    late.send(&startup(0, DB_USER)).await;
    let refusal = ("57P03".to_owned(), "pgiam is shutting down".to_owned());
    assert_eq!(late.error().await, refusal);
    assert_eq!(late.rest().await, b"");
    let line = told(&world, 0).await;
    assert_eq!(
        (&line["id"], &line["sqlstate"]),
        (&"server.shutdown".into(), &"57P03".into())
    );
    let own = world.database.postgres().bindir().join("pg_isready");
    let mut probe = Command::new(own);
    program::clean_env(&mut probe, &["PG"]);
    probe.args(["-h", "127.0.0.1", "-p", &world.proxy.port().to_string()]);
    assert_eq!(run(probe).await.code, Some(1), "rejecting");

    session.cancel_over(Wire::connect(&world).await).await;
    assert_eq!(session.error().await.0, "57014");
    session.until(b'Z').await;
    assert_eq!(session.value("select 'alive'").await, "alive");

    let mut silent = Wire::connect(&world).await;
    session.send(b"X\0\0\0\x04").await;
    assert_eq!(session.rest().await, b"");
    let status = world.proxy.wait_end(AT_ONCE).await.expect("pgiam ends");
    assert_eq!(status.code(), Some(0));
    assert_eq!(silent.rest().await, b"");
    world.stop().await;
}
