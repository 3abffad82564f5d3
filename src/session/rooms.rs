//! What connections share: the whole program's part, and each target's.

use std::path::Path;
use std::sync::Arc;

use thiserror::Error;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::aws::{AwsContext, AwsOptions};
use crate::cancel::CancelKeys;
use crate::config::{Target, Via};
use crate::tls::local::{self, LocalTlsError};
use crate::tls::upstream::{TrustError, UpstreamTls};
use crate::token::TokenProvider;
use crate::token::cached::CachedTokens;
use crate::token::rds::RdsTokens;
use crate::tunnel::Transport;
use crate::tunnel::direct::Direct;
use crate::tunnel::ssm::supervisor::SsmTransport;

/// What all connections share.
pub struct Proxy {
    pub(super) os_user: Option<String>,
    pub(super) acceptor: TlsAcceptor,
    pub(super) cancel_keys: CancelKeys,
    /// Cancelled when the remaining connections must end.
    pub stop: CancellationToken,
}

impl Proxy {
    /// Loads or makes the local certificate below `state_dir`.
    ///
    /// # Errors
    /// [`LocalTlsError`].
    pub fn new(state_dir: &Path, os_user: Option<String>) -> Result<Self, LocalTlsError> {
        let (tls, certificate) = local::load_or_create(state_dir)?;
        debug!(certificate = %certificate.display(), "certificate for local TLS clients");
        Ok(Self {
            os_user,
            acceptor: TlsAcceptor::from(tls),
            cancel_keys: CancelKeys::default(),
            stop: CancellationToken::new(),
        })
    }
}

/// What one target needs: where it is, who signs, how to get there, whom to trust.
pub struct Rooms {
    /// The target.
    pub target: Arc<Target>,
    /// The way to it.
    pub transport: Arc<dyn Transport>,
    pub(super) tokens: Arc<dyn TokenProvider>,
    pub(super) tls: UpstreamTls,
    pub(super) aws: Arc<AwsContext>,
}

/// Why the rooms of a target cannot be set up.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The trust roots.
    #[error("target \"{target}\": {source}")]
    Trust {
        /// The target.
        target: String,
        /// What is wrong.
        source: TrustError,
    },
}

/// Sets up every target; targets with the same profile and region share their AWS context.
///
/// # Errors
/// [`SetupError`] for settings that can never work. Nothing is asked of AWS here.
pub fn rooms(targets: Vec<Target>) -> Result<Vec<Arc<Rooms>>, SetupError> {
    let mut contexts: Vec<(Option<String>, Option<String>, Arc<AwsContext>)> = Vec::new();
    let mut rooms = Vec::new();
    for target in targets {
        let name = || target.name.clone();
        let (profile, region) = (target.profile.clone(), target.region.clone());
        let known = contexts
            .iter()
            .find(|(p, r, _)| *p == profile && *r == region);
        let aws = match known {
            Some((_, _, aws)) => Arc::clone(aws),
            None => {
                let aws = Arc::new(AwsContext::new(AwsOptions {
                    profile: profile.clone(),
                    region: region.clone(),
                    ..AwsOptions::default()
                }));
                contexts.push((profile, region, Arc::clone(&aws)));
                aws
            }
        };
        let tls =
            UpstreamTls::new(target.ca_file.as_deref()).map_err(|source| SetupError::Trust {
                target: name(),
                source,
            })?;
        let transport: Arc<dyn Transport> = match &target.via {
            Via::Direct => Arc::new(Direct::new(target.endpoint.clone())),
            Via::Ssm(settings) => Arc::new(SsmTransport::new(
                Arc::clone(&aws),
                target.region.clone(),
                settings.clone(),
                target.endpoint.clone(),
            )),
        };
        let tokens = Arc::new(CachedTokens::new(RdsTokens::new(Arc::clone(&aws))));
        rooms.push(Arc::new(Rooms {
            target: Arc::new(target),
            transport,
            tokens,
            tls,
            aws,
        }));
    }
    Ok(rooms)
}
