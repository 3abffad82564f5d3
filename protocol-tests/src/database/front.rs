//! What stands before the database at AWS, as a TLS server of its own: an RDS instance that asks for
//! IAM tokens, an RDS Proxy, an Aurora DSQL endpoint.
//!
//! PostgreSQL packages with direct TLS (17 and later) come without PAM and LDAP, so such a server
//! cannot judge tokens itself. The front ends the TLS connection, asks for the token, has it judged
//! by [`Iam`], and from then on hands every byte through to a real server that listens without TLS
//! on loopback. Whom that server lets in unasked (`trust` in its `pg_hba.conf`) is asked for a token
//! here; every other answer of its own, as the SCRAM exchange, is handed through.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::kx_group;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::aws::events::EventLog;
use crate::aws::iam::{DbEndpoint, Iam, TokenRefusal, User};
use crate::harness::pki::{IssuedCert, Signer};
use crate::harness::sync::lock;

mod connection;
mod refusal;
mod startup;
mod wire;

use connection::Connection;
pub use refusal::ServerError;

/// ALPN name of the PostgreSQL protocol (registered with IANA; PostgreSQL manual, "SSL Session
/// Encryption").
const ALPN: &[u8] = b"postgresql";

/// Which of AWS's endpoints the front plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FrontKind {
    /// An instance of RDS, or of an Aurora cluster.
    #[default]
    Instance,
    /// RDS Proxy: protocol 3.0 only, few startup parameters, no replication, errors of its own.
    RdsProxy,
    /// Aurora DSQL: tokens for the service `dsql`, few settings, errors of its own.
    Dsql,
}

impl FrontKind {
    /// What listens under this name at AWS.
    pub fn of_host(host: &str) -> Self {
        if host.contains(".proxy-") {
            Self::RdsProxy
        } else if host.contains(".dsql.") {
            Self::Dsql
        } else {
            Self::Instance
        }
    }

    /// Who signs its certificate: AWS Certificate Manager for these two, so the bundle of RDS does
    /// not help.
    pub(crate) fn signer(self) -> Signer {
        match self {
            Self::Instance => Signer::Sandbox,
            Self::RdsProxy | Self::Dsql => Signer::Public,
        }
    }
}

/// Which groups a server takes for the key exchange of TLS.
///
/// A TLS 1.3 client guesses one; a wrong guess costs a round trip more (HelloRetryRequest, RFC 8446
/// section 4.1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Groups {
    /// secp256r1 and no other: PostgreSQL before version 18 (`ssl_ecdh_curve = prime256v1`).
    P256,
    /// X25519 and secp256r1: PostgreSQL 18 (`ssl_groups`).
    #[default]
    X25519,
}

/// How a front is to be.
pub struct FrontOptions {
    /// What it plays.
    pub kind: FrontKind,
    /// Take a TLS handshake without an SSLRequest, and ALPN, as PostgreSQL does from version 17 on.
    /// An older one closes such a connection.
    pub direct: bool,
    /// The name and port clients sign for.
    pub endpoint: DbEndpoint,
    /// The real server, without TLS.
    pub backend: SocketAddr,
    /// Groups for the key exchange.
    pub groups: Groups,
    /// Certificate; `None` answers `N` to every SSLRequest.
    pub certificate: Option<IssuedCert>,
}

/// Something that goes wrong with the next connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The SSLRequest is answered with `N`.
    RefuseTls,
    /// These bytes follow the `S` in clear, as from somebody in between (CVE-2021-23222).
    InjectAfterS(Vec<u8>),
    /// The answer to the startup is this error, and the server closes as it should.
    AtStartup(ServerError),
    /// The answer to the startup is this error, and the socket closes although the client may have
    /// sent its password already: it meets a reset (RFC 1122 section 4.2.2.13).
    AtStartupWithReset(ServerError),
    /// The socket closes after the startup, without a word.
    CloseAfterStartup,
    /// Nothing comes after the startup, and the connection stays open.
    SilentAfterStartup,
    /// A ClientHello without an SSLRequest is taken for the beginning of something long, of which the
    /// rest is waited for: what a pooler may do that does not know direct TLS.
    SwallowClientHello,
    /// The connection is closed on a ClientHello without an SSLRequest, as while a server restarts.
    CloseAtClientHello,
    /// Whatever the token is, this error answers it.
    AtToken(ServerError),
}

/// A running front on a free port of 127.0.0.1; dropping it closes all its connections.
pub struct RdsFront {
    addr: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// What all connections of a front know.
struct Shared {
    kind: FrontKind,
    endpoint: DbEndpoint,
    backend: SocketAddr,
    iam: Iam,
    events: EventLog,
    /// With an SSLRequest before it; `None` without a certificate.
    tls: Option<Arc<ServerConfig>>,
    /// Without; `None` when the front plays a server before version 17.
    direct: Option<Arc<ServerConfig>>,
    faults: Mutex<Vec<(Fault, u32)>>,
}

impl fmt::Debug for RdsFront {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RdsFront")
            .field("addr", &self.addr)
            .field("kind", &self.shared.kind)
            .finish_non_exhaustive()
    }
}

impl RdsFront {
    /// Starts listening. Each judged token becomes an [`Event::DbToken`](crate::aws::events::Event), what
    /// clients ask for the `Front…` events.
    ///
    /// # Errors
    /// When no port is free, or the certificate does not fit TLS.
    pub async fn start(
        options: FrontOptions,
        iam: &Iam,
        events: &EventLog,
    ) -> anyhow::Result<Self> {
        let config = |alpn: &[&[u8]]| -> anyhow::Result<Option<Arc<ServerConfig>>> {
            let made = options
                .certificate
                .as_ref()
                .map(|c| server_config(c, options.groups, alpn));
            made.transpose()
        };
        let direct = if options.direct {
            config(&[ALPN])?
        } else {
            None
        };
        let tls = if options.direct {
            direct.clone()
        } else {
            config(&[])?
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("listening as a database endpoint")?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            kind: options.kind,
            endpoint: options.endpoint,
            backend: options.backend,
            iam: iam.clone(),
            events: events.clone(),
            tls,
            direct,
            faults: Mutex::default(),
        });
        let task = tokio::spawn(accept(listener, shared.clone()));
        Ok(Self { addr, shared, task })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it plays.
    pub fn kind(&self) -> FrontKind {
        self.shared.kind
    }

    /// Lets a fault happen to the next `times` connections that come to its place. Faults of the
    /// same place happen in the order they were armed.
    pub fn arm(&self, fault: Fault, times: u32) {
        lock(&self.shared.faults).push((fault, times));
    }

    /// No faults any more.
    pub fn disarm(&self) {
        lock(&self.shared.faults).clear();
    }
}

impl Drop for RdsFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    /// The first armed fault that `wanted` takes; it counts as having happened.
    fn fault(&self, wanted: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let mut faults = lock(&self.faults);
        let at = faults
            .iter()
            .position(|(fault, left)| *left > 0 && wanted(fault))?;
        faults[at].1 -= 1;
        let fault = faults[at].0.clone();
        faults.retain(|(_, left)| *left > 0);
        Some(fault)
    }

    fn judge(&self, db_user: &str, token: &str) -> Result<User, TokenRefusal> {
        let now = self.iam.now();
        match self.kind {
            FrontKind::Instance | FrontKind::RdsProxy => {
                self.iam
                    .verify_db_token(token, &self.endpoint, db_user, now)
            }
            FrontKind::Dsql => self
                .iam
                .verify_dsql_token(token, &self.endpoint, db_user, now),
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropping the set with the task ends the connections too.
    let mut open = JoinSet::new();
    let mut number = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((socket, _)) = accepted {
                number += 1;
                let connection = Connection::new(number, shared.clone());
                open.spawn(async move {
                    if let Err(error) = connection.serve(socket).await {
                        tracing::debug!(number, %error, "connection to the front ended");
                    }
                });
            },
            Some(_) = open.join_next() => {}
        }
    }
}

/// Like PostgreSQL: no session is kept for resumption, by ticket or by id (`be_tls_init`), so
/// nothing follows the handshake unasked.
fn server_config(
    certificate: &IssuedCert,
    groups: Groups,
    alpn: &[&[u8]],
) -> anyhow::Result<Arc<ServerConfig>> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups = match groups {
        Groups::P256 => vec![kx_group::SECP256R1],
        Groups::X25519 => vec![kx_group::X25519, kx_group::SECP256R1],
    };
    let mut config = certificate.server_config_with(provider, alpn)?;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Arc::new(config))
}
