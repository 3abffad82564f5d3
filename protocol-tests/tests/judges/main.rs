//! Judges from outside: independent implementations against ours, and our machines together against
//! an agent written for the purpose.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test stops where it fails"
)]

mod bridge;
mod browser;
mod identity;
mod random;
mod smux;
mod tunnel_simulation;
