//! AWS: services, message gateway, agent, account.

pub mod agent;
pub mod api;
pub(crate) mod cloud;
pub mod console;
pub mod events;
pub(crate) mod gateway;
pub mod iam;
pub mod identity_center;
pub mod inventory;
pub mod kms;
pub mod mfa;
pub mod partition;
pub mod preferences;
pub mod roles;
pub mod sandbox;
pub(crate) mod session;
pub mod sigv4;
pub mod wire;
