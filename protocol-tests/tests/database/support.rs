//! A small AWS with a database, tokens made by the `aws-sigv4` crate, and `psql`.

use std::path::PathBuf;
use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use protocol_tests::aws::events::{Event, EventLog};
use protocol_tests::aws::iam::{DbEndpoint, Iam, User};
use protocol_tests::database::rds::{RdsDatabase, RdsOptions};
use protocol_tests::harness::pki::Pki;
use rustls::crypto::SupportedKxGroup;
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio_rustls::TlsConnector;

pub(crate) const HOST: &str = "orders.cluster-abc.eu-central-1.rds.amazonaws.com";
/// For what happens at once on a quiet machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const KEY: &str = "AKIAIOSFODNN7EXAMPLE";
pub(crate) const WHO: &str =
    "select current_user, ssl, version from pg_stat_ssl where pid = pg_backend_pid()";

pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) pki: Pki,
    pub(crate) iam: Iam,
    pub(crate) events: EventLog,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::new(dir.path()).unwrap();
        let iam = Iam::new("eu-central-1", "123456789012");
        iam.add(User::example("dev", iam.account()));
        Self {
            dir,
            pki,
            iam,
            events: EventLog::new(),
        }
    }

    pub(crate) async fn database(&self, change: impl FnOnce(&mut RdsOptions)) -> RdsDatabase {
        let endpoint = DbEndpoint {
            host: HOST.to_owned(),
            port: 5432,
            region: "eu-central-1".to_owned(),
        };
        let mut options = RdsOptions::new(self.dir.path(), endpoint);
        change(&mut options);
        RdsDatabase::start(options, &self.pki, &self.iam, &self.events)
            .await
            .unwrap()
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.pki.ca_pem_path().to_owned()
    }
}

/// Makes tokens with the `aws-sigv4` crate.
#[derive(Clone)]
pub(crate) struct TokenFor {
    pub(crate) host: &'static str,
    pub(crate) port: u16,
    pub(crate) user: &'static str,
    pub(crate) region: &'static str,
    pub(crate) service: &'static str,
    /// Of the query, before the signature.
    pub(crate) action: Option<&'static str>,
    pub(crate) age: Duration,
    pub(crate) session_token: Option<String>,
}

impl Default for TokenFor {
    fn default() -> Self {
        Self {
            host: HOST,
            port: 5432,
            user: "db_user",
            region: "eu-central-1",
            service: "rds-db",
            action: None,
            age: Duration::ZERO,
            session_token: None,
        }
    }
}

impl TokenFor {
    pub(crate) fn make(self) -> String {
        let secret = User::example("dev", "").secret_access_key;
        let identity = Credentials::new(KEY, secret, self.session_token, None, "test").into();
        let mut settings = SigningSettings::default();
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(Duration::from_secs(900));
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name(self.service)
            .time(SystemTime::now() - self.age)
            .settings(settings)
            .build()
            .unwrap()
            .into();
        let user = protocol_tests::aws::sigv4::uri_encode(self.user.as_bytes(), false);
        let text = match self.action {
            Some(action) => format!("https://{}/?Action={action}", self.host),
            None => format!(
                "https://{}:{}/?Action=connect&DBUser={user}",
                self.host, self.port
            ),
        };
        let request =
            SignableRequest::new("GET", &text, std::iter::empty(), SignableBody::Bytes(b""))
                .unwrap();
        let (instructions, _) = sign(request, &params).unwrap().into_parts();
        let mut signed = http::Request::get(&text).body(()).unwrap();
        instructions.apply_to_request_http1x(&mut signed);
        signed.uri().to_string().replace("https://", "")
    }
}

pub(crate) struct Psql<'a> {
    pub(crate) database: &'a RdsDatabase,
    pub(crate) user: &'a str,
    pub(crate) password: &'a str,
    pub(crate) sslmode: &'a str,
    pub(crate) ca: PathBuf,
    pub(crate) dbname: &'a str,
    /// Further parameters of the connection string.
    pub(crate) more: &'a str,
    /// Where another libpq is.
    pub(crate) libdir: Option<PathBuf>,
}

impl Psql<'_> {
    /// The command, which runs the SQL and ends.
    pub(crate) fn command(&self, sql: &str) -> Command {
        let endpoint = self.database.endpoint();
        let conninfo = format!(
            "host={} hostaddr=127.0.0.1 port={} dbname={} user='{}' sslmode={} sslrootcert={} \
             gssencmode=disable connect_timeout=20 {}",
            endpoint.host,
            self.database.addr().port(),
            self.dbname,
            self.user,
            self.sslmode,
            self.ca.display(),
            self.more,
        );
        let mut command = Command::new(self.database.postgres().psql_program());
        command
            .args(["-X", "-A", "-t", "-w", "-d", &conninfo, "-c", sql])
            .env("PGPASSWORD", self.password)
            .env("LC_ALL", "C")
            .kill_on_drop(true);
        if let Some(libdir) = &self.libdir {
            command.env("LD_LIBRARY_PATH", libdir);
        }
        command
    }

    pub(crate) async fn run(&self, sql: &str) -> Output {
        self.command(sql).output().await.unwrap()
    }

    /// The rows of a query that has to work.
    pub(crate) async fn rows(&self, sql: &str) -> String {
        let output = self.run(sql).await;
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{complaint}");
        String::from_utf8(output.stdout)
            .unwrap()
            .trim_end()
            .to_owned()
    }

    pub(crate) async fn refusal(&self) -> String {
        let output = self.run("select 1").await;
        assert!(!output.status.success(), "login must fail");
        String::from_utf8(output.stderr).unwrap()
    }
}

pub(crate) fn psql<'a>(
    world: &World,
    database: &'a RdsDatabase,
    user: &'a str,
    password: &'a str,
) -> Psql<'a> {
    Psql {
        database,
        user,
        password,
        sslmode: "verify-full",
        ca: world.ca(),
        dbname: "app",
        more: "",
        libdir: None,
    }
}

pub(crate) fn tokens(world: &World) -> Vec<(String, Result<String, String>)> {
    let pick = |event| match event {
        Event::DbToken { db_user, outcome } => Some((db_user, outcome)),
        _ => None,
    };
    world.events.all().into_iter().filter_map(pick).collect()
}

/// A TLS client that knows the sandbox's authority, with these protocols for ALPN. Its guess for the
/// key exchange is right everywhere.
pub(crate) fn connector(world: &World, alpn: &[&[u8]]) -> TlsConnector {
    connector_guessing(world, alpn, &[kx_group::SECP256R1, kx_group::X25519])
}

/// The same with a choice of groups; the first is the guess.
pub(crate) fn connector_guessing(
    world: &World,
    alpn: &[&[u8]],
    groups: &[&'static dyn SupportedKxGroup],
) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(world.pki.ca_der().clone()).unwrap();
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups = groups.to_vec();
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

/// The name of the endpoint for TLS.
pub(crate) fn name() -> ServerName<'static> {
    ServerName::try_from(HOST).unwrap()
}

/// A StartupMessage.
pub(crate) fn startup(version: (u16, u16), parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = [version.0.to_be_bytes(), version.1.to_be_bytes()].concat();
    for (name, value) in parameters {
        body.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap();
    [&length.to_be_bytes()[..], &body].concat()
}

/// A message with a type byte.
pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

/// Reads one message; `None` when the server has closed.
pub(crate) async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> Option<(u8, Vec<u8>)> {
    let kind = stream.read_u8().await.ok()?;
    let length = stream.read_u32().await.ok()?;
    let mut body = vec![0; usize::try_from(length).unwrap() - 4];
    stream.read_exact(&mut body).await.ok()?;
    Some((kind, body))
}

/// Reads to ReadyForQuery and returns the kinds of messages on the way.
pub(crate) async fn read_to_ready(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut kinds = String::new();
    while let Some((kind, _)) = read_message(stream).await {
        kinds.push(char::from(kind));
        if kind == b'Z' {
            break;
        }
    }
    kinds
}
