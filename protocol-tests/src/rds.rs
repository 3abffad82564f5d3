//! A database as RDS runs it: a real server whose IAM logins are judged by recomputing the signature.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::events::{Event, EventLog};
use crate::iam::{DbEndpoint, Iam, TokenRefusal, User};
use crate::ldap::LdapServer;
use crate::pki::{Pki, Signer, Validity};
use crate::postgres::{Postgres, PostgresOptions};

/// What certificate the server shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServerCertificate {
    /// For the endpoint's name, by the sandbox authority.
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
        }
    }
}

/// A running database.
#[derive(Debug)]
pub struct RdsDatabase {
    postgres: Postgres,
    endpoint: DbEndpoint,
    _checker: LdapServer,
}

impl RdsDatabase {
    /// Starts the server and the checker behind it. Each checked token becomes an
    /// [`Event::DbToken`]; the time that counts is [`Iam::now`].
    pub async fn start(
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
        let postgres = Postgres::start(PostgresOptions {
            tls: certificate_files(pki, &options)?,
            dir: options.dir,
            ldap: Some(checker.addr()),
            hba: options.hba,
            fresh: options.fresh,
            settings: options.settings,
        })
        .await?;
        Ok(Self {
            postgres,
            endpoint: options.endpoint,
            _checker: checker,
        })
    }

    /// Where the server really listens: what the VPC resolves the endpoint to.
    pub fn addr(&self) -> SocketAddr {
        self.postgres.addr()
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

fn token_event(db_user: &str, verdict: &Result<User, TokenRefusal>) -> Event {
    Event::DbToken {
        db_user: db_user.to_owned(),
        outcome: match verdict {
            Ok(user) => Ok(user.access_key_id.clone()),
            Err(refusal) => Err(refusal.to_string()),
        },
    }
}

/// Certificate and key files as the options ask for; `None` without TLS.
fn certificate_files(
    pki: &Pki,
    options: &RdsOptions,
) -> anyhow::Result<Option<(PathBuf, PathBuf)>> {
    let (signer, validity) = match options.certificate {
        ServerCertificate::NoTls => return Ok(None),
        ServerCertificate::Right | ServerCertificate::OtherName => {
            (Signer::Sandbox, Validity::Current)
        }
        ServerCertificate::UnknownAuthority => (Signer::Stranger, Validity::Current),
        ServerCertificate::Expired => (Signer::Sandbox, Validity::Expired),
    };
    let name = match options.certificate {
        ServerCertificate::OtherName => "other-name.rds.amazonaws.com",
        _ => &options.endpoint.host,
    };
    let issued = pki.issue_with(&[name], signer, validity)?;
    Ok(Some((issued.cert_path, issued.key_path)))
}
