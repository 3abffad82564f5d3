//! A database as RDS runs it: a real server whose IAM logins are judged by recomputing the signature.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::aws::events::{Event, EventLog};
use crate::aws::iam::{DbEndpoint, Iam, TokenRefusal, User};
use crate::database::front::{FrontKind, FrontOptions, Groups, RdsFront};
use crate::database::ldap::LdapServer;
use crate::database::postgres::{Postgres, PostgresOptions};
use crate::harness::pki::{IssuedCert, Pki, Signer, Validity};
use crate::network::line::{Line, LineOptions};

/// What certificate the server shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServerCertificate {
    /// For the endpoint's name, by the authority that AWS would use there.
    #[default]
    Right,
    /// For another name.
    OtherName,
    /// By an authority nobody trusts.
    UnknownAuthority,
    /// Its time is over.
    Expired,
    /// None: the server has TLS switched off and answers `N` to an SSLRequest.
    NoTls,
}

/// What answers at the endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Engine {
    /// The server itself, with TLS and the `ldap` method of its own. It says "LDAP authentication
    /// failed" where RDS says "PAM", which is the only difference a client sees.
    #[default]
    Ldap,
    /// The server itself, with TLS and passwords only: versions whose packages come without LDAP.
    Passwords {
        /// Directory with the programs of the server; `None` is the installed one.
        bindir: Option<PathBuf>,
    },
    /// An [`RdsFront`] before a server that listens without TLS.
    Front {
        /// What the front plays.
        kind: FrontKind,
        /// Takes TLS without an SSLRequest, as from PostgreSQL 17 on.
        direct: bool,
        /// Directory with the programs of the server behind; `None` is the installed one.
        bindir: Option<PathBuf>,
    },
}

impl Engine {
    /// A front that takes direct TLS, before the installed PostgreSQL.
    pub fn front(kind: FrontKind) -> Self {
        Self::Front {
            kind,
            direct: true,
            bindir: None,
        }
    }
}

/// How the database is to be.
#[derive(Debug, Clone)]
pub struct RdsOptions {
    /// An existing directory to live below.
    pub dir: PathBuf,
    /// The name and port clients sign for. The server itself listens on a port of 127.0.0.1.
    pub endpoint: DbEndpoint,
    /// What certificate to show.
    pub certificate: ServerCertificate,
    /// Replaces the rules for TCP connections in `pg_hba.conf`.
    pub hba: Option<String>,
    /// Leave nothing behind that would make the next start faster.
    pub fresh: bool,
    /// Further `postgresql.conf` settings.
    pub settings: Vec<(String, String)>,
    /// What answers at the endpoint.
    pub engine: Engine,
    /// A wire between the VPC and the endpoint that delays or counts flights.
    pub line: Option<LineOptions>,
}

impl RdsOptions {
    /// A well-behaved database below `dir`.
    pub fn new(dir: impl Into<PathBuf>, endpoint: DbEndpoint) -> Self {
        Self {
            dir: dir.into(),
            endpoint,
            certificate: ServerCertificate::Right,
            hba: None,
            fresh: false,
            settings: Vec::new(),
            engine: Engine::default(),
            line: None,
        }
    }
}

/// A running database.
#[derive(Debug)]
pub struct RdsDatabase {
    // Field order matters: the way to the server goes before the server.
    line: Option<Line>,
    front: Option<RdsFront>,
    postgres: Postgres,
    endpoint: DbEndpoint,
    _checker: Option<LdapServer>,
}

/// Rules for connections from a front: members of `rds_iam` are let in, because the front has asked
/// them for a token; the others have a password, for replication too.
const FRONT_HBA: &str = "\
host all +rds_iam 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256";

impl RdsDatabase {
    /// Starts the server and what checks tokens for it. Each checked token becomes an
    /// [`Event::DbToken`]; the time that counts is [`Iam::now`].
    pub async fn start(
        options: RdsOptions,
        pki: &Pki,
        iam: &Iam,
        events: &EventLog,
    ) -> anyhow::Result<Self> {
        let (line, endpoint) = (options.line, options.endpoint.clone());
        let mut database = match options.engine.clone() {
            Engine::Ldap => Self::start_ldap(options, pki, iam, events).await?,
            Engine::Passwords { bindir } => Self::start_alone(options, pki, None, bindir).await?,
            Engine::Front {
                kind,
                direct,
                bindir,
            } => {
                let certificate = certificate(pki, &options)?;
                let postgres = start_behind_front(options, kind, bindir).await?;
                let front = FrontOptions {
                    kind,
                    direct,
                    groups: groups(kind, &postgres),
                    endpoint: endpoint.clone(),
                    backend: postgres.addr(),
                    certificate,
                };
                Self {
                    line: None,
                    front: Some(RdsFront::start(front, iam, events).await?),
                    postgres,
                    endpoint,
                    _checker: None,
                }
            }
        };
        if let Some(line) = line {
            database.line = Some(Line::start(database.addr(), line, events).await?);
        }
        Ok(database)
    }

    async fn start_ldap(
        options: RdsOptions,
        pki: &Pki,
        iam: &Iam,
        events: &EventLog,
    ) -> anyhow::Result<Self> {
        let checker = {
            let (iam, events) = (iam.clone(), events.clone());
            let endpoint = options.endpoint.clone();
            LdapServer::start(Arc::new(move |db_user: &str, token: &str| {
                let verdict = iam.verify_db_token(token, &endpoint, db_user, iam.now());
                events.push(token_event(db_user, &verdict));
                verdict.is_ok()
            }))
            .await?
        };
        Self::start_alone(options, pki, Some(checker), None).await
    }

    async fn start_alone(
        options: RdsOptions,
        pki: &Pki,
        checker: Option<LdapServer>,
        bindir: Option<PathBuf>,
    ) -> anyhow::Result<Self> {
        let postgres = Postgres::start(PostgresOptions {
            tls: certificate(pki, &options)?.map(|c| (c.cert_path, c.key_path)),
            dir: options.dir,
            ldap: checker.as_ref().map(LdapServer::addr),
            hba: options.hba,
            fresh: options.fresh,
            settings: options.settings,
            bindir,
        })
        .await?;
        Ok(Self {
            line: None,
            front: None,
            postgres,
            endpoint: options.endpoint,
            _checker: checker,
        })
    }

    /// Where the endpoint really listens: what the VPC resolves its name to.
    pub fn addr(&self) -> SocketAddr {
        let line = self.line.as_ref().map(Line::addr);
        let front = self.front.as_ref().map(RdsFront::addr);
        line.or(front).unwrap_or(self.postgres.addr())
    }

    /// The front, with [`Engine::Front`].
    pub fn front(&self) -> Option<&RdsFront> {
        self.front.as_ref()
    }

    /// The wire before the endpoint, with [`RdsOptions::line`].
    pub fn line(&self) -> Option<&Line> {
        self.line.as_ref()
    }

    /// The name and port clients sign for.
    pub fn endpoint(&self) -> &DbEndpoint {
        &self.endpoint
    }

    /// The server.
    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// The server, to restart or halt it.
    pub fn postgres_mut(&mut self) -> &mut Postgres {
        &mut self.postgres
    }

    /// Stops everything and removes the files.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.postgres.stop().await
    }
}

pub(crate) fn token_event(db_user: &str, verdict: &Result<User, TokenRefusal>) -> Event {
    Event::DbToken {
        db_user: db_user.to_owned(),
        outcome: match verdict {
            Ok(user) => Ok(user.access_key_id.clone()),
            Err(refusal) => Err(refusal.to_string()),
        },
    }
}

async fn start_behind_front(
    options: RdsOptions,
    kind: FrontKind,
    bindir: Option<PathBuf>,
) -> anyhow::Result<Postgres> {
    let postgres = Postgres::start(PostgresOptions {
        tls: None,
        dir: options.dir,
        ldap: None,
        hba: Some(options.hba.unwrap_or_else(|| FRONT_HBA.to_owned())),
        fresh: options.fresh,
        settings: options.settings,
        bindir,
    })
    .await?;
    if kind == FrontKind::Dsql {
        // The role every cluster has.
        let sql = "create role admin login in role rds_iam";
        postgres.psql_admin(sql).await?;
    }
    Ok(postgres)
}

/// The groups that AWS's own endpoints take, or the ones of this version of PostgreSQL.
fn groups(kind: FrontKind, postgres: &Postgres) -> Groups {
    match kind {
        FrontKind::Instance if postgres.major() < 18 => Groups::P256,
        _ => Groups::X25519,
    }
}

/// The certificate the options ask for; `None` without TLS.
fn certificate(pki: &Pki, options: &RdsOptions) -> anyhow::Result<Option<IssuedCert>> {
    let right = match options.engine {
        Engine::Ldap | Engine::Passwords { .. } => Signer::Sandbox,
        Engine::Front { kind, .. } => kind.signer(),
    };
    let (signer, validity) = match options.certificate {
        ServerCertificate::NoTls => return Ok(None),
        ServerCertificate::Right | ServerCertificate::OtherName => (right, Validity::Current),
        ServerCertificate::UnknownAuthority => (Signer::Stranger, Validity::Current),
        ServerCertificate::Expired => (right, Validity::Expired),
    };
    let name = match options.certificate {
        ServerCertificate::OtherName => "other-name.rds.amazonaws.com",
        _ => &options.endpoint.host,
    };
    Ok(Some(pki.issue_with(&[name], signer, validity)?))
}
