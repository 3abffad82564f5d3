//! A stand-in for the parts of AWS that a connection meets, made to judge the program under test.
//!
//! It behaves like the real service and agent, their faults included, and shares no code with the
//! program: message layout, multiplexer, signatures and certificates are all written a second time.

pub mod aws;
pub mod bench;
pub mod database;
pub mod demo;
pub mod harness;
pub mod network;
pub mod suites;
