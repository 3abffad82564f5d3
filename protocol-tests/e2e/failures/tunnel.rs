//! The session stands, or nearly, and the way to the database does not.

use std::time::{Duration, Instant};

use protocol_tests::aws::events::Event;
use protocol_tests::harness::ports::free_port;
use protocol_tests::network::vpc::Endpoint;

use super::{Record, silent_database, tokens_seen};
use crate::support::{BASTION, HOST, PATIENCE, PORT, Setup, World, eventually};

#[tokio::test]
async fn the_bastion_cannot_reach_the_database() {
    let mut record = Record::new("dial");
    // Names are looked up once per session, and a failure stands for a while: two worlds.
    let world = World::start().await;
    world.sandbox.vpc().forget(HOST);
    record
        .refused(&world, "the name does not resolve in the VPC", &[])
        .await;
    record.leave(world).await;
    let world = World::start().await;
    let vpc = world.sandbox.vpc();
    vpc.add(HOST, PORT, Endpoint::Refused);
    record.refused(&world, "nobody listens", &[]).await;
    // A client that prefers TLS, as above, would ask again without it if the report came too early.
    let plain = ["-d", "sslmode=disable"];
    record
        .refused(&world, "the same to a client without TLS", &plain)
        .await;
    vpc.open(HOST, PORT, world.database.addr());
    // The open session has looked the name up for good; a fresh one is started for it at most every
    // few seconds.
    let begun = Instant::now();
    while world.psql(&["-c", "select 1"]).await.code != Some(0) {
        assert!(begun.elapsed() < PATIENCE, "it never came back");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    record.leave(world).await;
    record.compare();
}

#[tokio::test]
async fn agents_that_do_not_serve() {
    let mut record = Record::new("agent");
    let world = World::start().await;
    let agent = world.sandbox.agent(BASTION);
    let usual = agent.settings();

    agent.update(|s| s.version = "3.1.1320.0".to_owned());
    record
        .refused(&world, "an agent that is too old", &[])
        .await;
    let key = world.sandbox.kms().create_key();
    agent.update(|s| {
        s.version = usual.version;
        s.kms_key = Some(key.clone());
    });
    let user = &world.sandbox.user().access_key_id;
    world.sandbox.iam().update(user, |user| {
        _ = user.deny.insert("kms:GenerateDataKey".to_owned());
    });
    record
        .refused(&world, "the user may not use the KMS key of sessions", &[])
        .await;
    record.text = record.text.replace(&key, "KEY");

    // What the agent gives as its reason when it ends the session.
    agent.update(|s| {
        s.kms_key = None;
        s.mute = true;
    });
    for (nth, title, reason) in [
        (
            3,
            "the agent's handshake times out",
            "Handshake timed out. Please ensure that you have the latest version of the session \
             manager plugin.",
        ),
        (
            4,
            "the agent may not use the KMS key",
            "KMSEncryption failed on agent with status 2 error: AccessDeniedException",
        ),
    ] {
        let reason = format!(
            "----------ERROR-------\nEncountered error while initiating handshake. {reason}"
        );
        let end = async {
            let joined = |event: &Event| matches!(event, Event::GatewayConnected { .. });
            let events = world.sandbox.events();
            let event = events.wait_for_nth(nth, joined, PATIENCE).await;
            let event = event.expect("the program joins its session");
            let id = event.session_id().expect("its id").to_owned();
            assert!(world.sandbox.end_session(&id, &reason));
        };
        tokio::join!(record.refused(&world, title, &[]), end);
    }
    agent.update(|s| s.mute = false);

    let vpc = world.sandbox.vpc();
    let address = vpc.resolve(HOST).expect("its address");
    vpc.point(HOST, "169.254.169.254".parse().expect("an address"));
    record
        .refused(&world, "a name that leads to the instance metadata", &[])
        .await;
    vpc.point(HOST, address);
    assert_eq!(world.query("select 1").await, "1");
    assert_eq!(tokens_seen(&world), 1);
    record.leave(world).await;
    record.compare();
}

#[tokio::test]
async fn the_tunnel_breaks_during_the_login() {
    let mut record = Record::new("broken-tunnel");
    let world = World::start().await;
    let silent = silent_database(&world).await;
    let ended = silent.end_sessions(&world, |id| format!("Session: {id} timed out."));
    let (_, held) = tokio::join!(record.refused(&world, "AWS ends the session", &[]), ended);
    drop(held);

    world.sandbox.vpc().open(HOST, PORT, world.database.addr());
    assert_eq!(world.query("select 1").await, "1");
    record.leave(world).await;
    record.compare();
}

#[tokio::test]
async fn the_tunnel_breaks_during_a_session() {
    let mut record = Record::new("session-lost");
    let world = World::start().await;
    let query = ["-c", "select pg_sleep(60)"];
    let end = async {
        world
            .wait_sql("exists (select from pg_stat_activity where query like 'select pg_sleep%')")
            .await;
        for id in world.sandbox.open_sessions() {
            let reason = format!("Session: {id} timed out.");
            assert!(world.sandbox.end_session(&id, &reason));
        }
    };
    let (ran, ()) = tokio::join!(world.psql(&query), end);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let log = eventually("the log knows", || {
        let log = world.proxy.log_text();
        let mut lines = log
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.find(|line| line["message"] == "connection ended" && line["by"].is_string())
    })
    .await;
    assert_eq!(
        (&log["id"], &log["level"]),
        (&"session.lost".into(), &"WARN".into())
    );
    let said = super::clean(&ran.stderr, &world);
    record.add(
        "AWS ends the session",
        &format!("$ psql {}\n{said}", query.join(" ")),
    );
    record.leave(world).await;
    record.compare();
}

#[tokio::test]
async fn without_a_tunnel() {
    let mut record = Record::new("direct");
    let port = free_port();
    let config = format!(
        "[targets.near]\nhost = \"localhost:{port}\"\nuser = \"db_user\"\ndatabase = \"app\"\n\
         port = 0\nvia = \"direct\"\nauth = \"passthrough\"\n"
    );
    let setup = Setup {
        config: Some(config),
        ..Setup::default()
    };
    let world = World::with(setup).await;
    record.refused(&world, "nobody listens", &[]).await;
    record.text = record
        .text
        .replace(&format!(":{port}"), ":CLOSED")
        .replace(&format!(" {port}\n"), " CLOSED\n");
    record.leave(world).await;
    record.compare();
}

/// Takes a quarter of a minute of waiting: two deadlines, side by side.
#[tokio::test]
async fn silence_is_told_from_refusal() {
    let (mute, filtered) = tokio::join!(World::start(), World::start());
    filtered.sandbox.vpc().add(HOST, PORT, Endpoint::Blackhole);
    let mut record = Record::new("silence");
    let mut other = Record::new("silence");
    mute.sandbox.agent(BASTION).update(|s| {
        s.mute = true;
        // The real agent gives up after as long as we do; here we are to be first.
        s.handshake_limit = PATIENCE;
    });
    tokio::join!(
        record.refused(&mute, "the handshake does not begin", &[]),
        other.refused(&filtered, "the database's port is filtered", &[]),
    );
    // What is abandoned is ended at AWS.
    let terminated = |event: &Event| matches!(event, Event::TerminateSession { .. });
    let events = mute.sandbox.events();
    assert!(events.wait_for(terminated, PATIENCE).await.is_some());
    record.leave(mute).await;
    other.leave(filtered).await;
    record.text += &other.text;
    record.compare();
}
