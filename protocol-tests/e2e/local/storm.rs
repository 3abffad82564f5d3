//! Two hundred sessions that are cancelled all at once.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use super::{DB_USER, SLEEP, Wire, reached, startup};
use crate::shell::{numbered, streaming};
use crate::support::{BASTION, PATIENCE, Setup, World};

const SESSIONS: usize = 200;
/// Far more than 200 short connections need at the agent's pace, and less than what a test may
/// take.
const ALL: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_cancels_at_once_each_hit_their_own() {
    let world = World::with(Setup {
        settings: vec![("max_connections", "230")],
        ..Setup::default()
    })
    .await;
    let mut sessions = Vec::new();
    // In batches, because the server's processes have two cores to start on.
    for _ in 0..SESSIONS / 20 {
        let batch = (0..20).map(|_| async {
            let mut wire = Wire::connect(&world).await;
            wire.log_in(&startup(0, DB_USER)).await;
            wire.query(SLEEP).await;
            wire
        });
        sessions.extend(join_all(batch).await);
    }
    let asleep = |count: usize| {
        format!(
            "select count(*) = {count} from pg_stat_activity \
             where usename = 'db_user' and wait_event = 'PgSleep'"
        )
    };
    world.wait_sql(&asleep(SESSIONS)).await;
    let mut pids: Vec<u32> = sessions.iter().map(|wire| wire.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), SESSIONS, "each has a process of its own");

    // Somebody downloads meanwhile, as fast as the real agent sends.
    world.sandbox.agent(BASTION).set_pacing(true);
    let mut bulk = streaming(&world, "application_name=bulk", &numbered(200_000));
    let mut output = bulk.stdout.take().expect("psql's output");
    let mut some = vec![0; 256 * 1024];
    let read = timeout(PATIENCE, output.read_exact(&mut some)).await;
    read.expect("in time").expect("the download runs");
    let downloading = tokio::spawn(async move {
        let (mut buffer, mut bytes) = (vec![0; 64 * 1024], 0);
        while let Ok(n @ 1..) = output.read(&mut buffer).await {
            bytes += n;
        }
        bytes
    });

    // One of four is left alone, so that a cancel which went astray would be seen.
    let before = reached(&world);
    let (spared, hit): (Vec<_>, Vec<_>) = sessions
        .into_iter()
        .enumerate()
        .partition(|(nth, _)| nth % 4 == 3);
    let cancels = join_all(hit.iter().map(|(_, wire)| async {
        wire.cancel_over(Wire::connect(&world).await).await;
    }));
    timeout(ALL, cancels).await.expect("all are processed");
    let answers = join_all(hit.into_iter().map(|(nth, mut wire)| async move {
        assert_eq!(wire.error().await.0, "57014", "{nth}");
        wire.until(b'Z').await;
        // Nothing follows that would cancel this one.
        assert_eq!(
            wire.value(&format!("select 'n{nth}'")).await,
            format!("n{nth}")
        );
    }));
    timeout(ALL, answers).await.expect("all are cancelled");
    world.wait_sql(&asleep(spared.len())).await;
    assert_eq!(reached(&world) - before, SESSIONS / 4 * 3, "one dial each");

    assert!(bulk.try_wait().expect("psql").is_none(), "it still loads");
    bulk.kill().await.expect("psql ends");
    let more = downloading.await.expect("the reader");
    assert!(more > 0, "the download went on");
    world.sandbox.agent(BASTION).set_pacing(false);
    let log = world.proxy.log_text();
    assert_eq!(
        log.matches("\"delivered a cancel request\"").count(),
        SESSIONS / 4 * 3
    );
    assert!(!log.contains("cannot deliver a cancel request"));

    let rest = join_all(spared.into_iter().map(|(nth, mut wire)| {
        let world = &world;
        async move {
            wire.cancel_over(Wire::connect(world).await).await;
            assert_eq!(wire.error().await.0, "57014", "{nth}");
        }
    }));
    timeout(ALL, rest)
        .await
        .expect("the rest are cancelled, too");
    world.stop().await;
}
