//! A target with a known endpoint.

use super::{Endpoint, TargetSettings};

/// One database that clients can reach through pgiam.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedTarget {
    /// Name in the file.
    pub name: String,
    /// Database endpoint.
    pub endpoint: Endpoint,
    /// Region for token signatures and the tunnel; `None`: the AWS default region.
    pub region: Option<String>,
    /// Settings that do not depend on the endpoint.
    pub settings: TargetSettings,
}
