//! Names that the bastion cannot resolve.

use std::time::{Duration, Instant};

use protocol_tests::aws::events::Event;
use protocol_tests::network::vpc::Resolver;

use super::reach::refused;
use super::{dialled, started, world_with};
use crate::support::{BASTION, HOST, PATIENCE, PORT, Setup, World, ordinary_config};

#[tokio::test]
async fn a_name_that_cannot_be_resolved_costs_one_session_not_one_per_attempt() {
    let world = World::start().await;
    let vpc = world.sandbox.vpc();
    vpc.forget(HOST);
    for _ in 0..3 {
        let (said, log) = refused(&world).await;
        assert_eq!(log["id"], "tunnel.name", "{said}");
        assert_eq!(log["sqlstate"], "08001");
        assert!(
            said.contains(BASTION) && said.contains("no such host"),
            "{said}"
        );
        assert!(said.contains("private hosted zone"), "{said}");
    }
    assert_eq!(started(&world).len(), 1);
    assert_eq!(dialled(&world).len(), 0);

    // It recovers by itself once the name is there.
    vpc.open(HOST, PORT, world.database.addr());
    let begun = Instant::now();
    while world.psql(&["-c", "select 1"]).await.code != Some(0) {
        assert!(begun.elapsed() < PATIENCE, "it never came back");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(started(&world).len(), 2);
    world.stop().await;
}

#[tokio::test]
async fn a_resolver_that_fails_or_is_silent_is_named_in_its_words() {
    for (resolver, words) in [
        (Resolver::Misbehaves, "server misbehaving"),
        (Resolver::Silent, "i/o timeout"),
    ] {
        let world = World::start().await;
        world.sandbox.vpc().set_resolver(resolver);
        let (said, log) = refused(&world).await;
        assert_eq!(log["id"], "tunnel.name", "{said}");
        assert!(said.contains(words), "{said}");
        assert!(!said.contains("idle"), "{said}");
        world.stop().await;
    }
}

#[tokio::test]
async fn each_of_several_bastions_is_asked_once() {
    const OTHER: &str = "i-0bbbbbbbbbbbbbbbb";
    let config = ordinary_config().replace(
        &format!("\"{BASTION}\""),
        &format!("[\"{BASTION}\", \"{OTHER}\"]"),
    );
    let world = World::with(Setup {
        config: Some(config),
        ..Setup::default()
    })
    .await;
    world.sandbox.agent(OTHER);
    world.sandbox.vpc().forget(HOST);
    for _ in 0..3 {
        let ran = world.psql(&["-c", "select 1"]).await;
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(
            ran.stderr.contains("no such host") || ran.stderr.contains("cannot resolve"),
            "{ran:?}"
        );
    }
    let targets = world
        .sandbox
        .events()
        .all()
        .into_iter()
        .filter_map(|e| match e {
            Event::StartSession { target, .. } => Some(target),
            _ => None,
        });
    assert_eq!(targets.collect::<Vec<_>>(), [BASTION, OTHER]);
    world.stop().await;
}

#[tokio::test]
async fn an_open_session_goes_on_with_the_address_it_knows() {
    let world = world_with("sessions = 1").await;
    assert_eq!(world.query("select 'before'").await, "before");
    world.sandbox.vpc().forget(HOST);
    assert_eq!(world.query("select 'still'").await, "still");
    assert_eq!(started(&world).len(), 1);
    world.stop().await;
}
