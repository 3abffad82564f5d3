//! The smux machine from outside: transcripts, the captured session, and random traffic.

mod capture;
mod fairness;
mod simulation;
mod support;
mod transcripts;
