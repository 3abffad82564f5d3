//! The smux machine from outside: transcripts, the captured session, and random traffic.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

mod capture;
mod fairness;
mod simulation;
mod support;
mod transcripts;
mod wire;
