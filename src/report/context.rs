//! What is known about a failed connection besides its error.

use std::time::SystemTime;

use pg_handshake::Startup;

use crate::aws::token::TokenRequest;
use crate::aws::{ClockOffset, Identity};
use crate::config::ResolvedTarget;

/// Context of an error, as far as it is known.
#[derive(Clone, Copy)]
pub struct ErrorContext<'a> {
    /// The target of the connection.
    pub target: &'a ResolvedTarget,
    /// The effective database role.
    pub user: &'a str,
    /// The database has received the token and rejected it.
    pub token_judged: bool,
    /// A token was sent, in this or an earlier attempt of the login.
    pub token_sent: bool,
    /// The facts known about the last token.
    pub evidence: Option<&'a TokenEvidence>,
    /// Number of open connections to the target, including this one.
    pub open_connections: usize,
    /// IAM authentication of the database, if RDS reported it.
    pub iam_login: Option<bool>,
    /// The startup packet as it is sent to the database.
    pub startup: Option<&'a Startup>,
    /// The target's default database, and the error that prevented its use in place of the missing
    /// one.
    pub no_default: Option<&'a str>,
}

impl<'a> ErrorContext<'a> {
    /// Creates a context that holds only the target.
    #[must_use]
    pub fn target(target: &'a ResolvedTarget) -> Self {
        Self {
            target,
            user: "",
            token_judged: false,
            token_sent: false,
            evidence: None,
            open_connections: 0,
            iam_login: target.iam_login,
            startup: None,
            no_default: None,
        }
    }
}

/// Facts known about a token that was sent.
#[derive(Clone, Debug)]
pub struct TokenEvidence {
    /// The request that it was signed for.
    pub request: TokenRequest,
    /// End of its validity.
    pub expires_at: SystemTime,
    /// It came from the cache: an earlier connection had requested it.
    pub from_cache: bool,
    /// It was sent before the database requested it.
    pub early: bool,
    /// Another token had been rejected just before.
    pub second: bool,
    /// Difference between this machine's clock and AWS's; `None` if no answer from AWS has shown
    /// it.
    pub clock: Option<ClockOffset>,
    /// The caller identity behind the credentials, if AWS was asked.
    pub identity: Identity,
}
