//! The channel from outside: the captured sessions, written-out conversations, and a simulated
//! network with an agent at its other end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

mod agent;
mod behaviour;
mod capture;
mod encryption;
mod oldest_only;
mod reconnect;
mod replay;
mod secret;
mod simulation;
mod support;
mod world;
