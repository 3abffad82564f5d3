//! Errors for unusable settings of a target.

use thiserror::Error;

use crate::base::names::TargetName;
use crate::tls::upstream::TrustError;

/// Reason why a target cannot be set up.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The trust roots are unusable.
    #[error(
        "target \"{target}\": {source}{}",
        crate::base::environment::origin_hint("ca_file")
    )]
    Trust {
        /// The target.
        target: TargetName,
        /// The error of the trust roots.
        source: TrustError,
    },
}
