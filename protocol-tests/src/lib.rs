//! A stand-in for the parts of AWS that a connection meets, made to judge the program under test.
//!
//! It behaves like the real service and agent, their faults included, and shares no code with the
//! program: message layout, multiplexer, signatures and certificates are all written a second time.

pub mod agent;
pub mod api;
pub mod bench;
mod cloud;
pub mod demo;
pub mod dns;
pub mod events;
pub mod front;
mod gateway;
pub mod iam;
pub mod inventory;
pub mod kms;
pub mod ldap;
pub mod line;
pub mod link;
pub mod partition;
pub mod pki;
pub mod postgres;
pub mod preferences;
pub mod program;
pub mod proxy;
pub mod rds;
pub mod sandbox;
mod session;
pub mod sigv4;
pub mod standing;
pub mod suites;
mod sync;
pub mod vpc;
pub mod wire;
