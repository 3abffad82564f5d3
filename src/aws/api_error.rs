//! Errors returned by AWS services.

use super::ClockOffset;
use crate::base::foreign_text::ForeignText;

/// Error returned by the SSM API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiAnswer {
    /// AWS error code, such as `AccessDeniedException`.
    pub code: ForeignText,
    /// AWS error message.
    pub message: ForeignText,
    /// Request id, for a support case.
    pub request_id: Option<ForeignText>,
    /// Offset of the local clock from AWS's, according to the answer.
    pub clock: Option<ClockOffset>,
}
