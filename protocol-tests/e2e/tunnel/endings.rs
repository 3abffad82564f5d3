//! Sessions that others end: what their clients read, and that the next client notices nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use protocol_tests::aws::agent::AgentEnd;
use protocol_tests::aws::events::Event;

use super::reach::refused;
use super::{dialled, resumed, started, world_with};
use crate::load::{contents, copy_out, make_tables};
use crate::shell::{Shell, numbered, running};
use crate::support::{BASTION, PATIENCE, World, eventually};

/// Values of a field of the log lines with this message.
fn logged(world: &World, message: &str, field: &str) -> Vec<String> {
    let log = world.proxy.log_text();
    let lines = log.lines().filter_map(|l| serde_json::from_str(l).ok());
    lines
        .filter(|line: &serde_json::Value| line["message"] == message)
        .map(|line| line[field].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Waits until the program knows of so many sessions that others have ended; their reasons.
async fn ends_known(world: &World, count: usize) -> Vec<String> {
    eventually("the program knows of the end", || {
        let reasons = logged(world, "SSM session ended", "reason");
        (reasons.len() >= count).then_some(reasons)
    })
    .await
}

/// Two clients that are connected and want nothing.
async fn two_clients(world: &World) -> [Shell; 2] {
    let mut clients = [Shell::open(world, ""), Shell::open(world, "")];
    for psql in &mut clients {
        psql.backend().await;
    }
    clients
}

/// What psql, which has been connected all the time, says when it is used again.
async fn last_words(mut psql: Shell) -> String {
    psql.say("select 'anybody there';").await;
    let ran = psql.end().await;
    assert!(!ran.stdout.contains("anybody there"), "{ran:?}");
    ran.stderr
}

#[tokio::test]
async fn three_ends_by_the_service_are_told_apart() {
    let world = world_with("sessions = 1").await;
    let limits = world.sandbox.preferences();
    let usual = limits.limits();
    let short = Some(Duration::from_secs(2));
    // What the client reads in each case, and in no other.
    let words = [
        "reached its idle timeout",
        "maximum duration",
        "session was terminated",
    ];
    for (nth, expected) in words.into_iter().enumerate() {
        match nth {
            0 => limits.update(|l| l.idle = short),
            1 => limits.update(|l| l.maximum = short),
            _ => {}
        }
        // A new session each time, without a word about the one before.
        let clients = two_clients(&world).await;
        limits.update(|l| *l = usual);
        assert_eq!(started(&world).len(), nth + 1);
        if nth == 2 {
            assert!(world.sandbox.terminate_session(&started(&world)[nth]));
        }
        // Not once for each of its connections.
        assert_eq!(ends_known(&world, nth + 1).await.len(), nth + 1);
        for psql in clients {
            let said = last_words(psql).await;
            assert!(said.contains("FATAL:  08006:"), "{said}");
            let detail = said.lines().find(|l| l.starts_with("DETAIL:"));
            let detail = detail.expect("a detail");
            let found = words.map(|words| detail.contains(words));
            assert_eq!(found, words.map(|words| words == expected), "{said}");
        }
    }
    // The service's own words, where it has any.
    let reasons = ends_known(&world, 3).await;
    assert!(reasons[0].contains("due to inactivity"), "{reasons:?}");
    assert!(reasons[1].contains("maximum duration"), "{reasons:?}");
    assert_eq!(world.query("select 'and on'").await, "and on");
    world.stop().await;
}

#[tokio::test]
async fn the_log_names_an_end_by_its_identifier_once() {
    let world = world_with("sessions = 1").await;
    let clients = two_clients(&world).await;
    assert!(world.sandbox.terminate_session(&started(&world)[0]));
    ends_known(&world, 1).await;
    for psql in clients {
        last_words(psql).await;
    }
    eventually("both connections are over", || {
        (logged(&world, "connection ended", "by").len() == 2).then_some(())
    })
    .await;
    let log = world.proxy.log_text();
    world.stop().await;
    let endings: Vec<&str> = log.lines().filter(|l| l.contains(" ended\"")).collect();
    let named = log.matches("\"ssm.terminated\"").count();
    assert_eq!(named, 1, "{endings:#?}");
}

#[tokio::test]
async fn a_node_that_shuts_down_in_order_ends_its_connections_at_once() {
    let world = World::start().await;
    let agent = world.sandbox.agent(BASTION);
    let mut busy = Shell::open(&world, "");
    let pid = busy.backend().await;
    busy.say("select pg_sleep(600);").await;
    world.wait_sql(&running(pid, "pg_sleep")).await;
    let begun = Instant::now();
    agent.stop(AgentEnd::Graceful);
    let said = busy.end().await.stderr;
    assert!(said.contains("FATAL:  08006:"), "{said}");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");

    let (said, log) = refused(&world).await;
    assert_eq!(log["id"], "ssm.target-not-connected", "{said}");
    assert_eq!(log["sqlstate"], "08001");
    assert!(said.contains(BASTION), "{said}");
    agent.set_online(true);
    assert_eq!(world.query("select 'back'").await, "back");
    assert_eq!(started(&world).len(), 2);
    world.stop().await;
}

/// Of a node that dies, the service says no more than `pause_publication`, and it answers our pings:
/// there is a path, and perhaps an agent at its end again soon. So a statement under way waits until
/// the session's idle timeout, and nobody else has to.
#[tokio::test]
async fn a_node_that_dies_holds_nobody_up_but_its_own_connections() {
    const IDLE: Duration = Duration::from_secs(10);
    let world = world_with("sessions = 1\ndial_timeout = 1").await;
    world.sandbox.preferences().update(|l| l.idle = Some(IDLE));
    let agent = world.sandbox.agent(BASTION);
    let mut busy = Shell::open(&world, "");
    let pid = busy.backend().await;
    busy.say("select pg_sleep(600);").await;
    world.wait_sql(&running(pid, "pg_sleep")).await;
    let begun = Instant::now();
    agent.stop(AgentEnd::Crash);

    // The dead session is tried for as long as a dial may take; then there is no other.
    let (said, log) = refused(&world).await;
    assert_eq!(log["id"], "ssm.target-not-connected", "{said}");
    agent.set_online(true);
    let back = Instant::now();
    assert_eq!(world.query("select 'back'").await, "back");
    let took = back.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(started(&world).len(), 2);
    assert_eq!(resumed(&world), 0, "the path was never lost");

    let said = busy.end().await.stderr;
    let took = begun.elapsed();
    assert!(said.contains("FATAL:  08006:"), "{said}");
    assert!(said.contains("reached its idle timeout"), "{said}");
    assert!(took < 2 * IDLE, "{took:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_that_live_300_ms_carry_a_copy_of_3_s() {
    const ROWS: u32 = 2_200;
    let world = World::start().await;
    world.sandbox.agent(BASTION).set_pacing(true);
    let mut psql = Shell::open(&world, "");
    psql.backend().await;
    // The session's first socket has no end of its own, and those that replace it do.
    let life = Duration::from_millis(300);
    let limits = world.sandbox.preferences();
    limits.update(|l| l.close_sockets_after = Some(life));
    assert!(world.sandbox.cut_client(&started(&world)[0]));

    let begun = Instant::now();
    psql.say(&format!("copy ({}) to stdout;", numbered(ROWS)))
        .await;
    for row in 1..=ROWS {
        let line = psql.hear().await;
        assert!(line == format!("{row:016}").repeat(64), "{row}: {line}");
    }
    let took = begun.elapsed();
    let replaced = resumed(&world);
    limits.update(|l| l.close_sockets_after = None);
    assert!(took >= Duration::from_secs(3), "{took:?}");
    assert!(replaced >= 5, "{replaced} in {took:?}");
    assert!(took < Duration::from_secs(30), "{replaced} in {took:?}");
    assert_eq!(psql.ask("select 'unnoticed';").await, "unnoticed");
    assert_eq!(started(&world).len(), 1);
    drop(psql);
    world.stop().await;
}

/// The contexts of one KMS operation, in order, for one key.
fn contexts(world: &World, wanted: &str, key: &str) -> Vec<BTreeMap<String, String>> {
    let all = world.sandbox.events().all();
    let found = all.into_iter().filter_map(|event| match event {
        Event::KmsCall {
            operation,
            key_arn,
            context,
            ..
        } if operation == wanted && key_arn == key => Some(context),
        _ => None,
    });
    found.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encrypted_sessions_carry_the_same_bytes() {
    let world = world_with("sessions = 1").await;
    let kms = world.sandbox.kms();
    let key = kms.create_key();
    assert!(kms.alias("alias/sessions", &key));
    make_tables(&world, 1_000).await;
    let out = world.sandbox.dir().join("out");
    let file = out.display();
    // A key by its ARN and with a challenge, as agents send one today; by its alias and without.
    for (nth, challenge) in [true, false].into_iter().enumerate() {
        world.sandbox.agent(BASTION).update(|s| {
            let name = if challenge { &key } else { "alias/sessions" };
            s.kms_key = Some(name.to_owned());
            s.kms_challenge = challenge;
            s.kms_challenge_required = challenge;
        });
        let back = format!("\\copy target from '{file}' (format binary)");
        for command in [&copy_out("source", &out), &back] {
            world.psql(&["-q", "-c", command]).await.rows();
        }
        assert_eq!(
            contents(&world, "target").await,
            contents(&world, "source").await
        );
        world.admin("truncate target").await;
        let id = &started(&world)[nth];
        assert_eq!(started(&world).len(), nth + 1);

        let asked = contexts(&world, "GenerateDataKey", &key);
        assert_eq!(asked.len(), nth + 1, "{asked:?}");
        let context = &asked[nth];
        assert_eq!(context["aws:ssm:SessionId"], *id);
        assert_eq!(context["aws:ssm:TargetId"], BASTION);
        let bound = context.contains_key("aws:ssm:RandomChallenge");
        assert_eq!((bound, context.len()), (challenge, 2 + usize::from(bound)));
        // The agent has got the key by its own permission and the same context.
        assert_eq!(contexts(&world, "Decrypt", &key), asked);
        assert!(world.sandbox.terminate_session(id));
        ends_known(&world, nth + 1).await;
    }
    world.stop().await;
}

#[tokio::test]
async fn refusals_of_kms_name_action_and_key() {
    let world = World::start().await;
    let iam = world.sandbox.iam();
    let kms = world.sandbox.kms();
    let key = kms.create_key();
    let agent = world.sandbox.agent(BASTION);
    agent.update(|s| s.kms_key = Some(key.clone()));
    let user = &world.sandbox.user().access_key_id;

    iam.update(user, |user| {
        user.deny.insert("kms:GenerateDataKey".to_owned());
    });
    let (said, log) = refused(&world).await;
    assert_eq!(log["id"], "kms.denied", "{said}");
    assert_eq!(log["sqlstate"], "08004");
    assert!(said.contains("\"kms:GenerateDataKey\""), "{said}");
    assert!(said.contains(&format!("\"{key}\"")), "{said}");
    iam.update(user, |user| user.deny.clear());

    assert!(kms.set_disabled(&key, true));
    let (said, log) = refused(&world).await;
    assert_eq!(log["id"], "kms.data-key", "{said}");
    assert_eq!(log["sqlstate"], "08001");
    assert!(said.contains(&key), "{said}");
    assert!(kms.set_disabled(&key, false));

    assert_eq!(world.query("select 'allowed'").await, "allowed");
    world.stop().await;
}

#[tokio::test]
async fn a_bastion_that_may_not_decrypt_is_told_what_it_needs() {
    let world = World::start().await;
    let iam = world.sandbox.iam();
    let key = world.sandbox.kms().create_key();
    let agent = world.sandbox.agent(BASTION);
    agent.update(|s| s.kms_key = Some(key.clone()));
    let role = &world.sandbox.node_role().access_key_id;
    iam.update(role, |role| {
        role.deny.insert("kms:Decrypt".to_owned());
    });
    let (said, log) = refused(&world).await;
    iam.update(role, |role| role.deny.clear());
    assert_eq!(world.query("select 'allowed'").await, "allowed");
    world.stop().await;
    assert_eq!(log["id"], "kms.handshake", "{said}");
    assert_eq!(log["sqlstate"], "08004");
    let hint = said.lines().find(|l| l.starts_with("HINT:"));
    assert!(hint.is_some_and(|h| h.contains("kms:Decrypt")), "{said}");
}

#[tokio::test]
async fn agents_too_old_for_different_reasons_are_told_apart() {
    let world = World::start().await;
    let agent = world.sandbox.agent(BASTION);
    let current = agent.settings().version;
    for (version, id, words) in [
        (
            "3.0.100.0",
            "ssm.no-multiplexing",
            "does not support multiplexing",
        ),
        ("3.1.1000.0", "ssm.agent-old", "older than 3.1.1374"),
    ] {
        agent.update(|s| version.clone_into(&mut s.version));
        let (said, log) = refused(&world).await;
        assert_eq!(log["id"], id, "{said}");
        assert_eq!(log["sqlstate"], "08001");
        assert!(said.contains(words) && said.contains(version), "{said}");
    }
    // Nothing of such a session is left for the next client to meet.
    let events = world.sandbox.events();
    let ended = |e: &Event| matches!(e, Event::SessionEnded { .. });
    assert!(events.wait_for_nth(2, ended, PATIENCE).await.is_some());
    agent.update(|s| s.version = current);
    assert_eq!(world.query("select 'updated'").await, "updated");
    // An agent that cannot multiplex dials by itself; this one would have, had it got a stream.
    let too_old = &started(&world)[1];
    assert!(!dialled(&world).contains(too_old));
    world.stop().await;
}
