//! pgiam: a local PostgreSQL proxy with transparent AWS IAM login.
//!
//! A client connects to localhost without a password; the proxy logs it in to a private Amazon RDS
//! or Aurora database with the user's AWS identity, over verified TLS, through a Session Manager
//! tunnel. `postgres/connection.rs` shows the stages of one connection; `docs/ARCHITECTURE.md` draws
//! them.

#[cfg(test)]
mod architecture_tests;

pub mod admin;
pub mod admission;
pub mod aws;
pub mod base;
pub mod check;
pub mod cli;
pub mod commands;
pub mod config;
pub mod failure;
pub mod forward;
pub mod login;
pub mod observe;
pub mod platform;
pub mod postgres;
pub mod relay;
pub mod report;
pub mod serving;
pub mod setup;
pub mod striping;
pub mod targets;
pub mod tls;
pub mod tunnel;
