//! General tools that do not depend on AWS services, PostgreSQL or tunnels.

pub mod background;
pub mod count;
pub mod crash;
pub mod environment;
pub mod error_text;
pub(crate) mod event_limit;
pub mod foreign_text;
pub mod jitter;
pub mod local_time;
pub mod markdown;
pub mod names;
pub mod partition;
pub mod pump;
pub mod quote;
pub mod redacted;
pub mod single_flight;
pub mod stream;
pub mod suggest;
pub(crate) mod tls_words;
