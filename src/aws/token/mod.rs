//! Login tokens: the values sent to the database in place of a password.
//!
//! This module does not depend on PostgreSQL.

pub mod cached;
pub mod dsql;
mod presign;
pub mod rds;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use aws_sigv4::http_request::SigningError;

use crate::aws::{AwsContext, CredentialsError, SharedCause};
use crate::base::background::TaskStopped;
use crate::base::names::Region;
use crate::base::redacted::Redacted;
use crate::config::EndpointKind;

pub use cached::CachedTokens;
use presign::Signer;

/// Creates a provider of tokens for RDS and DSQL endpoints, signed with the credentials of `aws`
/// and cached.
///
/// The kind of token depends on the endpoint's name, so a CNAME must be resolved first.
pub fn provider(aws: Arc<AwsContext>) -> CachedTokens {
    CachedTokens::new(ByEndpoint {
        rds: Signer::new(Arc::clone(&aws), rds::sign),
        dsql: Signer::new(aws, dsql::sign),
    })
}

/// Selects the signer by the kind of the endpoint.
struct ByEndpoint {
    rds: Signer,
    dsql: Signer,
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

    fn invalidate(&self, request: &TokenRequest, token: &IamToken) {
        self.of(request).invalidate(request, token);
    }
}

/// Inputs of a token: the server checks that it was signed for exactly these. (A token of DSQL
/// contains neither port nor user; see [`dsql`].)
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenRequest {
    /// RDS or DSQL endpoint, not a CNAME of it.
    pub host: String,
    /// Port of the database.
    pub port: u16,
    /// Database user.
    pub user: String,
    /// Region of the database.
    pub region: Region,
}

/// A token and its expiry.
#[derive(Debug, Clone)]
pub struct IamToken {
    /// The token, to be sent as the password inside verified TLS only.
    pub value: Redacted<String>,
    /// Time by which logins must begin: 15 minutes after signing, or the expiry of the credentials.
    pub expires_at: SystemTime,
    /// `true` if the token was made for an earlier connection. If it is rejected, retry once with a
    /// fresh one; see [`TokenProvider::invalidate`].
    pub from_cache: bool,
}

/// Reason why there is no token.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TokenError {
    /// There are no credentials to sign with.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The request cannot be signed, because it names no real endpoint. An error in the
    /// configuration.
    #[error("cannot sign a token for {what} {value:?}")]
    BadRequest {
        /// `host`, `port` or `region`.
        what: &'static str,
        /// Its value.
        value: String,
    },
    /// The signer failed. A bug in pgiam.
    #[error("cannot sign the token")]
    Signing(#[source] Arc<SigningError>),
    /// The signer's inputs were incomplete, or its task ended. A bug in pgiam.
    #[error("cannot create the token")]
    Internal(#[source] SharedCause),
}

impl From<TaskStopped> for TokenError {
    fn from(stopped: TaskStopped) -> Self {
        Self::Internal(Arc::new(stopped))
    }
}

/// Result of [`TokenProvider::token`]: a boxed future, so that providers can be trait objects.
pub type TokenFuture<'a> = Pin<Box<dyn Future<Output = Result<IamToken, TokenError>> + Send + 'a>>;

/// Creates login tokens.
pub trait TokenProvider: Send + Sync {
    /// Returns a token that is valid now. Cancel-safe.
    fn token<'a>(&'a self, request: &'a TokenRequest) -> TokenFuture<'a>;

    /// Discards a token that the database has rejected (28000), and the credentials that signed it.
    fn invalidate(&self, request: &TokenRequest, token: &IamToken);
}
