//! pgiam: a local PostgreSQL proxy with transparent AWS IAM login.
//!
//! A client connects to localhost without a password; the proxy logs it in to a private Amazon RDS
//! or Aurora database with the user's AWS identity, over verified TLS, through a Session Manager
//! tunnel. `session.rs` shows one connection's way; `docs/ARCHITECTURE.md` draws it.

pub mod admin;
pub mod admission;
pub mod alias;
pub mod aws;
mod background;
pub mod cancel;
pub mod check;
pub mod cli;
pub mod commands;
pub mod config;
pub mod crash;
pub mod discover;
pub mod environment;
pub mod exit;
mod flood;
pub mod foreign_text;
pub mod forward;
mod jitter;
mod kept;
pub mod local_password;
pub mod logging;
pub mod nearest;
pub mod observe;
pub mod platform;
pub mod quote;
pub mod report;
pub mod route;
pub mod scram;
pub mod secret;
pub mod server;
pub mod session;
pub mod setup;
pub mod splice;
pub mod terminal;
pub mod tls;
pub mod token;
pub mod tunnel;
