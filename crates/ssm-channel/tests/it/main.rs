//! The channel from outside: the captured sessions, written-out conversations, and a simulated
//! network with an agent at its other end.

mod agent;
mod behaviour;
mod capture;
mod replay;
mod simulation;
mod support;
