//! The tunnel as its users meet it: connections that break and come back, several sessions, dials
//! that fail, clients that do not read.

mod dials;
mod endings;
mod first_bytes;
mod leftovers;
mod names;
mod pool;
mod reach;
mod relay;
mod resume;
mod silence;

use protocol_tests::aws::events::Event;

use crate::support::{Setup, World, ordinary_config};

/// A world whose target has further settings, one per line as in the file.
async fn world_with(settings: &str) -> World {
    World::with(Setup {
        config: Some(format!("{}{settings}\n", ordinary_config())),
        ..Setup::default()
    })
    .await
}

/// Ids of the sessions that were started, oldest first.
fn started(world: &World) -> Vec<String> {
    let all = world.sandbox.events().all();
    let ids = all.into_iter().filter_map(|event| match event {
        Event::StartSession { session_id, .. } => Some(session_id),
        _ => None,
    });
    ids.collect()
}

/// How often AWS was asked to resume a session, and granted it.
fn resumed(world: &World) -> usize {
    let granted = |e: &Event| matches!(e, Event::ResumeSession { granted: true, .. });
    world.sandbox.events().count(granted)
}

/// The sessions that streams went through, in the order of the agent's dials.
fn dialled(world: &World) -> Vec<String> {
    let all = world.sandbox.events().all();
    let ids = all.into_iter().filter_map(|event| match event {
        Event::Dial { session_id, .. } => Some(session_id),
        _ => None,
    });
    ids.collect()
}
