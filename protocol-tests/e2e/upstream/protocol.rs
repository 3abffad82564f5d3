//! Protocol 3.2 of PostgreSQL 18, from the client's library to the server.

use super::*;

const NEWEST: &str = "min_protocol_version=3.2";

async fn eighteenth() -> World {
    let mut setup = instance(true, Some(eighteen().bindir()));
    setup.line = None;
    World::with(setup).await
}

/// Interrupts a psql, and gives the length of the cancel key that got through.
async fn cancel_key(world: &World, conninfo: &str) -> usize {
    ctrl_c(world, psql18(world, &["-d", conninfo])).await;
    let all = world.sandbox.events().all();
    let mut keys = all.into_iter().rev().filter_map(|event| match event {
        Event::FrontCancel { key_length, .. } => Some(key_length),
        _ => None,
    });
    keys.next().expect("a cancel request")
}

#[tokio::test]
async fn long_cancel_keys_work() {
    let world = eighteenth().await;
    let who = "select current_user, 'alive'";
    let ran = run(psql18(&world, &["-A", "-t", "-d", NEWEST, "-c", who])).await;
    assert_eq!(clean_rows(&ran), "db_user|alive");
    assert_eq!(last_startup(&world).0, (3, 2));
    assert_eq!(cancel_key(&world, NEWEST).await, 32);
    // The same library in the manner of old.
    assert_eq!(cancel_key(&world, "max_protocol_version=3.0").await, 4);
    assert_eq!(last_startup(&world).0, (3, 0));
    world.stop().await;
}

/// A version that will never exist asks whether servers decline politely.
#[tokio::test]
async fn what_the_server_says_about_a_version_of_the_future_arrives_unaltered() {
    let world = eighteenth().await;
    let grease = version(9999);
    let asked = [
        ("user", "db_user"),
        ("database", "app"),
        ("_pq_.test_protocol_negotiation", ""),
    ];
    let own = world.database.postgres().addr();
    let expected = Raw::with_version(own, grease, &asked).await;
    let through = ([127, 0, 0, 1], world.proxy.port()).into();
    // Once with the token on request, once early.
    for _ in 0..2 {
        let mut client = Raw::with_version(through, grease, &asked).await;
        assert_eq!(client.told(b'v'), expected.told(b'v'));
        assert_eq!(client.greeting[0].0, b'v', "before all else");
        assert_eq!(client.told(b'K').len(), 4 + 32);
        assert_eq!(last_startup(&world), ((3, 9999), owned(&asked)));
        assert_eq!(client.query("select 1").await, b"TDCZ");
        client.leave().await;
    }
    assert_eq!(direct(&world, HOST), [false, true]);
    expected.leave().await;
    world.stop().await;
}

fn owned(parameters: &[(&str, &str)]) -> Vec<(String, String)> {
    let pairs = parameters.iter();
    pairs
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}
