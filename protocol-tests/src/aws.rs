//! AWS: services, message gateway, agent, account.

pub mod agent;
pub mod api;
pub(crate) mod cloud;
pub mod events;
pub(crate) mod gateway;
pub mod iam;
pub mod inventory;
pub mod kms;
pub mod partition;
pub mod preferences;
pub mod sandbox;
pub(crate) mod session;
pub mod sigv4;
pub mod wire;
