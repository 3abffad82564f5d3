//! What a session sends first, to an agent that says it is ready before it is.

use std::time::{Duration, Instant};

use protocol_tests::aws::agent::AgentSettings;
use protocol_tests::aws::events::Event;

use super::{dialled, started, world_with};
use crate::support::{BASTION, World};

/// How many stream messages were acknowledged and thrown away, and how many dropped.
fn too_early(world: &World) -> (usize, usize) {
    let events = world.sandbox.events();
    (
        events.count(|e| matches!(e, Event::InputDiscarded { .. })),
        events.count(|e| matches!(e, Event::InputDropped { .. })),
    )
}

/// A world whose agent has these races and no others, and what its first login took.
async fn first_login(change: impl FnOnce(&mut AgentSettings)) -> (World, Duration) {
    let world = world_with("sessions = 1").await;
    world.sandbox.agent(BASTION).update(|s| {
        s.races = None;
        change(s);
    });
    let began = Instant::now();
    assert_eq!(world.query("select 'first'").await, "first");
    (world, began.elapsed())
}

#[tokio::test]
async fn a_first_message_that_is_thrown_away_costs_nothing() {
    let (world, _) = first_login(|s| s.discard_messages = 1).await;
    assert_eq!(too_early(&world), (1, 0));
    assert_eq!((started(&world).len(), dialled(&world).len()), (1, 1));
    world.stop().await;
}

#[tokio::test]
async fn a_first_dial_that_is_thrown_away_is_made_again() {
    // Longer than the first data are held back: the SSLRequest is lost, for good.
    let (world, took) = first_login(|s| s.discard_for = Duration::from_millis(300)).await;
    assert!(too_early(&world).0 >= 2, "{:?}", too_early(&world));
    assert_eq!((started(&world).len(), dialled(&world).len()), (1, 1));
    assert!(took < Duration::from_secs(8), "{took:?}");
    world.stop().await;
}

#[tokio::test]
async fn messages_dropped_without_a_word_are_sent_again() {
    let (world, _) = first_login(|s| s.not_ready_messages = 3).await;
    assert_eq!(too_early(&world), (0, 3));
    assert_eq!((started(&world).len(), dialled(&world).len()), (1, 1));
    world.stop().await;
}

/// Prints how the first logins of many sessions fared: `--no-capture` shows it.
#[tokio::test]
async fn few_first_logins_pay_a_retransmission_timeout() {
    const LOGINS: usize = 40;
    let world = world_with("sessions = 1").await;
    let mut times = Vec::new();
    for n in 1..=LOGINS {
        let began = Instant::now();
        assert_eq!(world.query("select 1").await, "1");
        times.push(began.elapsed());
        // The next one is the first of another session.
        let id = started(&world).pop().expect("a session");
        assert!(world.sandbox.terminate_session(&id));
        let ended = || {
            let log = world.proxy.log_text();
            (log.matches("\"SSM session ended\"").count() >= n).then_some(())
        };
        crate::support::eventually("the session is over", ended).await;
    }
    assert_eq!(started(&world).len(), LOGINS);
    let (discarded, dropped) = too_early(&world);
    assert!(discarded > 0 && dropped > 0, "{discarded} {dropped}");
    times.sort_unstable();
    let median = times[LOGINS / 2];
    let slow = |limit: u64| {
        let limit = median + Duration::from_millis(limit);
        times.iter().filter(|time| **time >= limit).count()
    };
    println!(
        "first logins: median {median:?}, {} of {LOGINS} later than that by 150 ms, {} by 900 ms, \
         {discarded} messages discarded, {dropped} dropped",
        slow(150),
        slow(900)
    );
    // Not one lost its first bytes for good; a busy machine makes some slow.
    assert!(slow(900) <= LOGINS / 8, "{times:?}");
    world.stop().await;
}
