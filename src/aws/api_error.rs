//! Refusals of AWS services.

use super::ClockOffset;
use crate::base::foreign_text::ForeignText;

/// What the SSM API answered when it refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiAnswer {
    /// AWS's error code, such as `AccessDeniedException`.
    pub code: ForeignText,
    /// AWS's words.
    pub message: ForeignText,
    /// For a support case.
    pub request_id: Option<ForeignText>,
    /// How far this machine's clock is from AWS's, as the answer told.
    pub clock: Option<ClockOffset>,
}
