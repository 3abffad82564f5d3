//! The real program between a real psql and a real PostgreSQL server, through the sandbox AWS.
#![expect(
    clippy::expect_used,
    reason = "the helpers of a test binary are test code too"
)]

mod cancel;
mod check;
mod clients;
mod completions;
mod daily;
mod deploy;
mod discovery;
mod failures;
mod forward;
mod generated;
mod identity;
mod lifecycle;
mod load;
mod local;
mod login;
mod login_aws;
mod machine;
mod relay;
mod running;
mod servers;
mod setup;
mod shell;
mod support;
mod tunnel;
mod upstream;
mod windows;
