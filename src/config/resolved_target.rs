//! A target with a known endpoint.

use super::{Endpoint, TargetSettings};
use crate::base::names::{Region, TargetName};

/// One database that clients can reach through pgiam.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedTarget {
    /// Name in the file.
    pub name: TargetName,
    /// Database endpoint.
    pub endpoint: Endpoint,
    /// Region for token signatures and the tunnel; `None`: the AWS default region.
    pub region: Option<Region>,
    /// IAM authentication as RDS reported it at the lookup; `None` if it was not looked up.
    pub iam_login: Option<bool>,
    /// Settings that do not depend on the endpoint.
    pub settings: TargetSettings,
}
