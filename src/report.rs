//! Error → message for the client and log line. SQLSTATEs are defined only here.
//!
//! Every cause has a stable identifier, which the log line contains. The message names the target,
//! the Detail quotes the other side, and the Hint gives a command to type. An error from the server
//! keeps its text; Detail and Hint are appended.
//!
//! SQLSTATE classes follow from how clients react. Pools retry on class 08 and on 57P0x but not on
//! class 28, so a tunnel fault is never 28000 and expired credentials are never 08xxx.

mod after_login;
mod api;
mod aws;
mod before_login;
mod client;
mod context;
mod database;
mod descriptors;
mod discovery;
mod error_document;
mod error_search;
mod explain;
mod hint;
mod iam_refusal;
mod ids;
mod message;
mod phrases;
mod relay;
mod role;
mod server;
mod server_text;
mod ssm_end;
mod token_evidence;
mod tunnel;

#[cfg(test)]
mod tests;

pub use after_login::{ConnectionLoss, after_login, log_forward};
pub use before_login::before_login;
pub use context::{ErrorContext, TokenEvidence};
pub use discovery::explain_lookup;
pub use error_document::{Answer, ErrorEntry, error_entries, error_entry};
pub use error_search::{FoundErrors, find_errors};
pub use explain::{
    Explanation, explain, explain_clock, explain_credentials, explain_iam_off, explain_status,
};
pub(crate) use hint::with_id;
pub use ids::IDS;
pub use message::{Report, WARNING};
pub(crate) use phrases::{add_statement, reload_command};
pub(crate) use role::allow_only_tokens;
