//! Sessions that a pgiam which was killed has left open.

use std::path::PathBuf;

use nix::sys::signal::Signal;
use protocol_tests::aws::events::Event;

use super::started;
use crate::support::{PATIENCE, Setup, World, eventually, launch};

/// The notes of open sessions of a world's programs.
fn notes(world: &World) -> Vec<PathBuf> {
    let run = world.sandbox.dir().join("state").join("run");
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("pgiam"));
    let dirs = [Some(run), runtime].into_iter().flatten();
    let files = dirs.flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten().flatten());
    let paths = files.map(|file| file.path());
    let url = world.sandbox.endpoint_url();
    let ours = |path: &PathBuf| {
        path.extension().is_some_and(|end| end == "session")
            && std::fs::read_to_string(path).is_ok_and(|text| text.contains(&url))
    };
    paths.filter(ours).collect()
}

fn terminated(world: &World, id: &str) -> bool {
    let is_end =
        |e: &Event| matches!(e, Event::TerminateSession { session_id } if session_id == id);
    world.sandbox.events().count(is_end) > 0
}

#[tokio::test]
async fn the_next_start_ends_the_sessions_of_a_program_that_was_killed() {
    let mut world = World::start().await;
    assert_eq!(world.query("select 1").await, "1");
    let id = started(&world).pop().expect("a session");
    let notes_of_first = notes(&world);
    assert_eq!(notes_of_first.len(), 1);
    let text = std::fs::read_to_string(&notes_of_first[0]).expect("the note");
    assert!(text.contains(&id), "{text}");
    for token in world.sandbox.token_values() {
        assert!(!text.contains(&token), "the note has the session's token");
    }

    // A second program does not touch what the first one has open.
    let setup = Setup::default();
    let mut beside = launch(&world.sandbox, &setup);
    beside.wait_ready(PATIENCE).await.expect("pgiam is ready");
    assert!(!terminated(&world, &id));
    beside.stop().await.expect("pgiam ends on SIGTERM");
    assert_eq!(notes(&world), notes_of_first);

    world.proxy.signal(Signal::SIGKILL).expect("it runs");
    world.proxy.wait_end(PATIENCE).await.expect("it ends");
    assert_eq!(world.sandbox.open_sessions(), std::slice::from_ref(&id));
    world.proxy = launch(&world.sandbox, &setup);
    world
        .proxy
        .wait_ready(PATIENCE)
        .await
        .expect("pgiam is ready");
    eventually("the session is ended", || {
        (terminated(&world, &id) && notes(&world).is_empty()).then_some(())
    })
    .await;
    let told = "ended a session that an earlier process left open";
    let told = world.proxy.wait_log(told, PATIENCE).await;
    told.expect("the log says so");
    assert_eq!(world.query("select 2").await, "2");
    world.stop().await;
}

#[tokio::test]
async fn what_cannot_be_ended_now_is_ended_by_a_later_start() {
    let mut world = World::start().await;
    assert_eq!(world.query("select 1").await, "1");
    let id = started(&world).pop().expect("a session");
    world.proxy.signal(Signal::SIGKILL).expect("it runs");
    world.proxy.wait_end(PATIENCE).await.expect("it ends");

    let user = &world.sandbox.user().access_key_id;
    let iam = world.sandbox.iam();
    iam.update(user, |user| {
        user.deny.insert("ssm:TerminateSession".to_owned());
    });
    let setup = Setup::default();
    let mut second = launch(&world.sandbox, &setup);
    second.wait_ready(PATIENCE).await.expect("pgiam is ready");
    let tried = second.wait_log(
        "cannot end a session that an earlier process left open; pgiam retries at the next start",
        PATIENCE,
    );
    tried.await.expect("it was tried");
    second.stop().await.expect("pgiam ends on SIGTERM");
    assert!(!terminated(&world, &id));
    assert_eq!(notes(&world).len(), 1);

    iam.update(user, |user| user.deny.clear());
    world.proxy = launch(&world.sandbox, &setup);
    world
        .proxy
        .wait_ready(PATIENCE)
        .await
        .expect("pgiam is ready");
    eventually("the session is ended", || {
        terminated(&world, &id).then_some(())
    })
    .await;
    eventually("its note is gone", || {
        notes(&world).is_empty().then_some(())
    })
    .await;
    world.stop().await;
}
