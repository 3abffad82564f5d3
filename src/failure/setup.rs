//! Settings of a target that can never work.

use thiserror::Error;

use crate::tls::upstream::TrustError;

/// Why the rooms of a target cannot be set up.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The trust roots.
    #[error(
        "target \"{target}\": {source}{}",
        crate::base::environment::origin_hint("ca_file")
    )]
    Trust {
        /// The target.
        target: String,
        /// What is wrong.
        source: TrustError,
    },
}
