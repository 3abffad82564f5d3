//! Login tokens: what goes to the database in place of a password.
//!
//! Nothing here knows PostgreSQL.

pub mod cached;
pub mod dsql;
mod presign;
pub mod rds;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use aws_sigv4::http_request::SigningError;

use crate::aws::{AwsContext, Cause, CredentialsError};
use crate::base::background::Stopped;
use crate::base::redacted::Redacted;
use crate::config::EndpointKind;

pub use cached::CachedTokens;
pub use dsql::DsqlTokens;
pub use rds::RdsTokens;

/// The tokens that the endpoint of each request takes, signed with the credentials of `aws` and kept.
///
/// What kind of endpoint it is, its name tells, so an alias must be followed first.
pub fn provider(aws: Arc<AwsContext>) -> CachedTokens {
    CachedTokens::new(ByEndpoint {
        rds: RdsTokens::new(Arc::clone(&aws)),
        dsql: DsqlTokens::new(aws),
    })
}

/// Leaves the signing to whoever knows the endpoint's kind.
struct ByEndpoint {
    rds: RdsTokens,
    dsql: DsqlTokens,
}

impl ByEndpoint {
    fn of(&self, request: &TokenRequest) -> &dyn TokenProvider {
        use EndpointKind::{Cluster, Custom, Dsql, Instance, Other, Proxy, Reader};
        match EndpointKind::of(&request.host) {
            Dsql => &self.dsql,
            Instance | Cluster | Reader | Custom | Proxy | Other => &self.rds,
        }
    }
}

impl TokenProvider for ByEndpoint {
    fn token<'a>(&'a self, request: &'a TokenRequest) -> TokenFuture<'a> {
        self.of(request).token(request)
    }

    fn invalidate(&self, request: &TokenRequest, token: &Token) {
        self.of(request).invalidate(request, token);
    }
}

/// Everything a token depends on: the server checks that it was signed for exactly this. (A token of
/// DSQL holds neither port nor user; see [`dsql`].)
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenRequest {
    /// The RDS or DSQL endpoint, not an alias of it.
    pub host: String,
    /// The port of the database.
    pub port: u16,
    /// The database user.
    pub user: String,
    /// The region of the database.
    pub region: String,
}

/// A token and how long it is good for.
#[derive(Debug, Clone)]
pub struct Token {
    /// To be sent as the password, inside verified TLS only.
    pub value: Redacted<String>,
    /// Logins must begin before: 15 minutes after signing, or when the credentials end.
    pub expires_at: SystemTime,
    /// Whether it was made for an earlier connection. If such a token is rejected, one more try
    /// with a fresh one is worth it; see [`TokenProvider::invalidate`].
    pub from_cache: bool,
}

/// Why there is no token.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TokenError {
    /// There is nothing to sign with.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The request cannot be signed, because it names no real endpoint. A fault of the
    /// configuration.
    #[error("cannot sign a token for {what} {value:?}")]
    BadRequest {
        /// `host`, `port` or `region`.
        what: &'static str,
        /// What it was.
        value: String,
    },
    /// The signer failed. A fault of this program.
    #[error("the token could not be signed")]
    Signing(#[source] Arc<SigningError>),
    /// The signer was not given all it needs, or its task ended. A fault of this program.
    #[error("the token could not be made")]
    Internal(#[source] Cause),
}

impl From<Stopped> for TokenError {
    fn from(stopped: Stopped) -> Self {
        Self::Internal(Arc::new(stopped))
    }
}

/// What [`TokenProvider::token`] returns: a boxed future, so that providers can be trait objects.
pub type TokenFuture<'a> = Pin<Box<dyn Future<Output = Result<Token, TokenError>> + Send + 'a>>;

/// Makes login tokens.
pub trait TokenProvider: Send + Sync {
    /// A token that is valid now. Cancel-safe.
    fn token<'a>(&'a self, request: &'a TokenRequest) -> TokenFuture<'a>;

    /// The database has rejected this token (28000): do not hand it out again, and do not trust
    /// the credentials that signed it.
    fn invalidate(&self, request: &TokenRequest, token: &Token);
}
