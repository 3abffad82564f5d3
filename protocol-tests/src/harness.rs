//! Tools of tests: certificates, the program under test, shared state.

pub mod browser;
pub mod judge;
pub mod person;
pub mod pki;
pub mod ports;
pub mod program;
pub(crate) mod sync;
