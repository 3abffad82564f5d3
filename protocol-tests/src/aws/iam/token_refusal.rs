//! The reasons for which a login token is refused.

use crate::aws::sigv4::ParseError;

/// Why a token does not open the door. No variant carries any part of the token that is secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// It does not have the shape of a token at all.
    #[error("malformed token: {0}")]
    Malformed(&'static str),
    /// Made for another host.
    #[error("token is for host {signed:?}, this is {expected:?}")]
    WrongHost {
        /// What the token says.
        signed: String,
        /// What this database is.
        expected: String,
    },
    /// Made for another port.
    #[error("token is for port {signed:?}, this is {expected}")]
    WrongPort {
        /// What the token says.
        signed: String,
        /// What this database has.
        expected: u16,
    },
    /// `Action` is not the one of this database and user.
    #[error("token is for action {signed:?}, not {expected:?}")]
    WrongAction {
        /// What the token says.
        signed: String,
        /// What this login needs.
        expected: &'static str,
    },
    /// Made for another database user.
    #[error("token is for database user {signed:?}, the login is for {login:?}")]
    WrongUser {
        /// What the token says.
        signed: String,
        /// Who wants to log in.
        login: String,
    },
    /// Signed for another service.
    #[error("token is signed for service {signed:?}, not {expected:?}")]
    WrongService {
        /// What the token says.
        signed: String,
        /// What this database is.
        expected: &'static str,
    },
    /// Signed for another region.
    #[error("token is signed for region {signed:?}, this is {expected:?}")]
    WrongRegion {
        /// What the token says.
        signed: String,
        /// Where this database is.
        expected: String,
    },
    /// The day of the credential scope is not the day of `X-Amz-Date`.
    #[error("credential scope and X-Amz-Date name different days")]
    WrongDay,
    /// No user has this access key.
    #[error("access key {0} is unknown")]
    UnknownKey(String),
    /// The key is temporary and the token carries no session token.
    #[error("session token is missing")]
    SessionTokenMissing,
    /// The session token is not the one of this key.
    #[error("session token does not belong to the access key")]
    SessionTokenWrong,
    /// `X-Amz-Expires` is nothing, or above what the service allows.
    #[error("token asks for {asked} s of life, not for 1 to {most}")]
    LifeTooLong {
        /// Seconds in the token.
        asked: u64,
        /// Seconds allowed.
        most: u64,
    },
    /// Its time is over.
    #[error("token ended {0} s ago")]
    Expired(u64),
    /// It is dated more than 15 minutes ahead.
    #[error("token is dated {0} s in the future")]
    NotYetValid(u64),
    /// The signature is not what the key's owner would have made.
    #[error("signature does not match")]
    SignatureMismatch,
    /// The credentials that signed it have ended, whatever the token says.
    #[error("the credentials that signed the token have expired")]
    CredentialsExpired,
    /// The signer is known but lacks `rds-db:connect`, `dsql:DbConnect` or `dsql:DbConnectAdmin`.
    #[error("{arn} may not {action} as {db_user:?}")]
    NotAuthorized {
        /// The signer.
        arn: String,
        /// The action of IAM.
        action: String,
        /// Who wants to log in.
        db_user: String,
    },
    /// The signer may connect to the cluster of Aurora DSQL, but is not associated with the role
    /// (`AWS IAM GRANT`).
    #[error("{arn} is not associated with the role {db_user:?}")]
    NotAssociated {
        /// The signer.
        arn: String,
        /// Who wants to log in.
        db_user: String,
    },
}

impl From<ParseError> for TokenRefusal {
    fn from(error: ParseError) -> Self {
        Self::Malformed(error.0)
    }
}
