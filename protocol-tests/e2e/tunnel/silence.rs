//! Agents that die without a word, while the service answers for them.

use std::time::{Duration, Instant};

use protocol_tests::aws::agent::AgentEnd;
use protocol_tests::aws::events::Event;

use super::reach::refused;
use super::{resumed, started};
use crate::shell::Shell;
use crate::support::{BASTION, Setup, World, eventually, ordinary_config};

const OTHER: &str = "i-0bbbbbbbbbbbbbbbb";

/// A world with these bastions, and further settings of its target.
async fn world_through(bastions: &str, settings: &str) -> World {
    let config = ordinary_config().replace(&format!("\"{BASTION}\""), bastions);
    World::with(Setup {
        config: Some(format!("{config}{settings}\n")),
        ..Setup::default()
    })
    .await
}

#[tokio::test]
async fn new_connections_leave_a_bastion_whose_agent_has_died() {
    let bastions = format!("[\"{BASTION}\", \"{OTHER}\"]");
    let world = world_through(&bastions, "sessions = 1\ndial_timeout = 2").await;
    world.sandbox.agent(OTHER).set_pacing(false);
    let mut beside = Shell::open(&world, "");
    beside.backend().await;
    world.sandbox.agent(BASTION).stop(AgentEnd::Silent);

    let begun = Instant::now();
    assert_eq!(world.query("select 'elsewhere'").await, "elsewhere");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert_eq!(resumed(&world), 0, "the path was never lost");
    let is_through = |e: &Event| matches!(e, Event::StartSession { target, .. } if target == OTHER);
    assert_eq!(world.sandbox.events().count(is_through), 1);
    let log = world.proxy.log_text();
    assert!(log.contains("\"ssm.agent-silent\""), "{log}");
    // The next one does not wait for it again.
    let begun = Instant::now();
    assert_eq!(world.query("select 'at once'").await, "at once");
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    drop(beside);
    for id in world.sandbox.open_sessions() {
        world.sandbox.end_session(&id, "");
    }
    world.stop().await;
}

#[tokio::test]
async fn an_agent_that_does_not_come_back_is_named() {
    let world = world_through(&format!("\"{BASTION}\""), "sessions = 1\ndial_timeout = 1").await;
    assert_eq!(world.query("select 'alive'").await, "alive");
    let agent = world.sandbox.agent(BASTION);
    agent.stop(AgentEnd::Silent);
    // The old session is left after a second; the handshake of the next one never begins.
    let begun = Instant::now();
    let (said, log) = refused(&world).await;
    let took = begun.elapsed();
    assert_eq!(log["id"], "ssm.handshake-timeout", "{said}");
    assert!(
        said.contains(&format!("the SSM agent on {BASTION}")),
        "{said}"
    );
    assert!(!said.contains("connect_timeout"), "{said}");
    assert!(took < Duration::from_secs(28), "{took:?}");

    agent.set_online(true);
    assert_eq!(world.query("select 'back'").await, "back");
    assert_eq!(started(&world).len(), 3);
    // What was given up is ended at AWS.
    eventually("one session is left", || {
        (world.sandbox.open_sessions().len() == 1).then_some(())
    })
    .await;
    world.stop().await;
}
