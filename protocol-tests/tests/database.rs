//! The sandbox's database, as `psql` meets it: a real server that judges IAM tokens.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers of a test binary are test code too"
)]

use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use protocol_tests::events::{Event, EventLog};
use protocol_tests::iam::{DbEndpoint, Iam, User};
use protocol_tests::pki::Pki;
use protocol_tests::postgres::{Postgres, PostgresOptions, SCRAM_PASSWORD};
use protocol_tests::rds::{RdsDatabase, RdsOptions, ServerCertificate};
use tokio::process::Command;

const HOST: &str = "orders.cluster-abc.eu-central-1.rds.amazonaws.com";
const KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const WHO: &str = "select current_user, ssl, version from pg_stat_ssl where pid = pg_backend_pid()";

struct World {
    dir: tempfile::TempDir,
    pki: Pki,
    iam: Iam,
    events: EventLog,
}

impl World {
    fn new() -> Self {
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

    async fn database(&self, change: impl FnOnce(&mut RdsOptions)) -> RdsDatabase {
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

    fn ca(&self) -> PathBuf {
        self.pki.ca_pem_path().to_owned()
    }
}

/// Makes tokens with the `aws-sigv4` crate.
#[derive(Clone)]
struct TokenFor {
    host: &'static str,
    port: u16,
    user: &'static str,
    region: &'static str,
    age: Duration,
    session_token: Option<String>,
}

impl Default for TokenFor {
    fn default() -> Self {
        Self {
            host: HOST,
            port: 5432,
            user: "db_user",
            region: "eu-central-1",
            age: Duration::ZERO,
            session_token: None,
        }
    }
}

impl TokenFor {
    fn make(self) -> String {
        let secret = User::example("dev", "").secret_access_key;
        let identity = Credentials::new(KEY, secret, self.session_token, None, "test").into();
        let mut settings = SigningSettings::default();
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(Duration::from_secs(900));
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name("rds-db")
            .time(SystemTime::now() - self.age)
            .settings(settings)
            .build()
            .unwrap()
            .into();
        let user = protocol_tests::sigv4::uri_encode(self.user.as_bytes(), false);
        let text = format!(
            "https://{}:{}/?Action=connect&DBUser={user}",
            self.host, self.port
        );
        let request =
            SignableRequest::new("GET", &text, std::iter::empty(), SignableBody::Bytes(b""))
                .unwrap();
        let (instructions, _) = sign(request, &params).unwrap().into_parts();
        let mut signed = http::Request::get(&text).body(()).unwrap();
        instructions.apply_to_request_http1x(&mut signed);
        signed.uri().to_string().replace("https://", "")
    }
}

struct Psql<'a> {
    database: &'a RdsDatabase,
    user: &'a str,
    password: &'a str,
    sslmode: &'a str,
    ca: PathBuf,
}

impl Psql<'_> {
    async fn run(&self, sql: &str) -> Output {
        let endpoint = self.database.endpoint();
        let conninfo = format!(
            "host={} hostaddr=127.0.0.1 port={} dbname=app user='{}' sslmode={} sslrootcert={} \
             gssencmode=disable connect_timeout=20",
            endpoint.host,
            self.database.addr().port(),
            self.user,
            self.sslmode,
            self.ca.display(),
        );
        Command::new(self.database.postgres().bindir().join("psql"))
            .args(["-X", "-A", "-t", "-w", "-d", &conninfo, "-c", sql])
            .env("PGPASSWORD", self.password)
            .env("LC_ALL", "C")
            .output()
            .await
            .unwrap()
    }

    async fn refusal(&self) -> String {
        let output = self.run("select 1").await;
        assert!(!output.status.success(), "login must fail");
        String::from_utf8(output.stderr).unwrap()
    }
}

fn psql<'a>(
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
    }
}

fn tokens(world: &World) -> Vec<(String, Result<String, String>)> {
    let pick = |event| match event {
        Event::DbToken { db_user, outcome } => Some((db_user, outcome)),
        _ => None,
    };
    world.events.all().into_iter().filter_map(pick).collect()
}

#[tokio::test]
async fn a_good_token_logs_in_over_verified_tls() {
    let world = World::new();
    let database = world.database(|_| ()).await;
    let token = TokenFor::default().make();
    let output = psql(&world, &database, "db_user", &token).run(WHO).await;
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "db_user|t|TLSv1.3\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(tokens(&world), [("db_user".to_owned(), Ok(KEY.to_owned()))]);
    database.stop().await.unwrap();
}

#[tokio::test]
async fn odd_names_and_long_tokens_get_through() {
    let world = World::new();
    let database = world.database(|_| ()).await;
    for user in ["odd user@x", "comma,dc=rds"] {
        let token = TokenFor {
            user,
            ..TokenFor::default()
        };
        let output = psql(&world, &database, user, &token.make()).run(WHO).await;
        let shown = String::from_utf8(output.stdout).unwrap();
        assert_eq!(shown, format!("{user}|t|TLSv1.3\n"));
    }
    // Role sessions have tokens of one to two kilobytes; Base64 makes every third character grow.
    let session = "Fw/+".repeat(1_000);
    world
        .iam
        .update(KEY, |u| u.session_token = Some(session.clone()));
    let token = TokenFor {
        session_token: Some(session),
        ..TokenFor::default()
    };
    let token = token.make();
    assert!(token.len() > 8_000);
    let output = psql(&world, &database, "db_user", &token).run(WHO).await;
    assert!(output.status.success());
}

#[tokio::test]
async fn wrong_tokens_are_refused_with_28000() {
    let world = World::new();
    let database = world.database(|_| ()).await;
    let good = TokenFor::default();
    let mut altered = good.clone().make();
    let last = if altered.pop() == Some('0') { '1' } else { '0' };
    altered.push(last);
    let of = |change: fn(&mut TokenFor)| {
        let mut token = TokenFor::default();
        change(&mut token);
        token.make()
    };
    for (what, token, reason) in [
        ("altered", altered, "signature does not match"),
        (
            "expired",
            of(|t| t.age = Duration::from_secs(1_000)),
            "token ended",
        ),
        (
            "host",
            of(|t| t.host = "localhost"),
            "token is for host \"localhost\"",
        ),
        ("port", of(|t| t.port = 5433), "token is for port \"5433\""),
        (
            "user",
            of(|t| t.user = "odd user@x"),
            "token is for database user \"odd user@x\"",
        ),
        (
            "region",
            of(|t| t.region = "us-east-1"),
            "signed for region \"us-east-1\"",
        ),
        ("password", "secret".to_owned(), "malformed token"),
    ] {
        let text = psql(&world, &database, "db_user", &token).refusal().await;
        assert!(
            text.contains("FATAL:  LDAP authentication failed for user \"db_user\""),
            "{what}: {text}"
        );
        let (_, outcome) = tokens(&world).pop().unwrap();
        let refusal = outcome.unwrap_err();
        assert!(
            refusal.starts_with(reason) || refusal.contains(reason),
            "{what}: {refusal}"
        );
    }
    world.iam.update(KEY, |u| u.db_users.clear());
    psql(&world, &database, "db_user", &good.make())
        .refusal()
        .await;
    let (_, outcome) = tokens(&world).pop().unwrap();
    assert!(outcome.unwrap_err().contains("may not rds-db:connect"));
    let log = database.postgres().log_tail();
    assert!(!log.contains("X-Amz-Signature"), "the server logs no token");
}

#[tokio::test]
async fn sqlstates_are_those_of_rds() {
    let world = World::new();
    let database = world
        .database(|o| o.settings = vec![("log_line_prefix".into(), "%e ".into())])
        .await;
    psql(&world, &database, "db_user", "wrong").refusal().await;
    psql(&world, &database, "scram_only", "wrong")
        .refusal()
        .await;
    let log = database.postgres().log_tail();
    for line in [
        "28000 FATAL:  LDAP authentication failed for user \"db_user\"",
        "28P01 FATAL:  password authentication failed for user \"scram_only\"",
    ] {
        assert!(log.contains(line), "{log}");
    }
}

#[tokio::test]
async fn roles_without_rds_iam_are_asked_for_scram() {
    let world = World::new();
    let database = world.database(|_| ()).await;
    let output = psql(&world, &database, "scram_only", SCRAM_PASSWORD)
        .run(WHO)
        .await;
    assert!(output.status.success());
    let token = TokenFor {
        user: "scram_only",
        ..TokenFor::default()
    };
    let text = psql(&world, &database, "scram_only", &token.make())
        .refusal()
        .await;
    assert!(
        text.contains("FATAL:  password authentication failed for user \"scram_only\""),
        "{text}"
    );
    assert_eq!(tokens(&world), [], "no token reached the checker");
}

#[tokio::test]
async fn plain_text_is_refused() {
    let world = World::new();
    let database = world.database(|_| ()).await;
    let mut client = psql(&world, &database, "db_user", "secret");
    client.sslmode = "disable";
    let text = client.refusal().await;
    assert!(
        text.contains(
            "no pg_hba.conf entry for host \"127.0.0.1\", user \"db_user\", database \"app\", no \
             encryption"
        ),
        "{text}"
    );
}

#[tokio::test]
async fn bad_certificates_are_shown_when_asked_for() {
    let world = World::new();
    for (certificate, expected) in [
        (
            ServerCertificate::OtherName,
            "server certificate for \"other-name.rds.amazonaws.com\" does not match host name",
        ),
        (
            ServerCertificate::UnknownAuthority,
            "certificate verify failed",
        ),
        (ServerCertificate::Expired, "certificate verify failed"),
        (
            ServerCertificate::NoTls,
            "server does not support SSL, but SSL was required",
        ),
    ] {
        let database = world.database(|o| o.certificate = certificate).await;
        let token = TokenFor::default().make();
        let text = psql(&world, &database, "db_user", &token).refusal().await;
        assert!(text.contains(expected), "{certificate:?}: {text}");
    }
    assert_eq!(tokens(&world), []);
}

#[tokio::test]
async fn the_clock_that_counts_is_the_service_clock() {
    let world = World::new();
    let database = world.database(|_| ()).await;
    let token = TokenFor::default().make();
    world.iam.set_clock_ahead(1_200);
    psql(&world, &database, "db_user", &token).refusal().await;
    world.iam.set_clock_ahead(0);
    let output = psql(&world, &database, "db_user", &token).run(WHO).await;
    assert!(output.status.success());
}

#[tokio::test]
async fn restart_keeps_port_and_data() {
    let dir = tempfile::tempdir().unwrap();
    let mut postgres = Postgres::start(PostgresOptions::new(dir.path()))
        .await
        .unwrap();
    postgres
        .psql_admin_in("app", "create table t as select 42 as answer")
        .await
        .unwrap();
    let (addr, pid) = (postgres.addr(), postgres.pid());
    postgres.restart().await.unwrap();
    assert_eq!(postgres.addr(), addr);
    assert_ne!(postgres.pid(), pid);
    let answer = postgres.psql_admin_in("app", "select answer from t").await;
    assert_eq!(answer.unwrap(), "42");
    let error = postgres.psql_admin("select nonsense").await.unwrap_err();
    assert!(error.to_string().contains("nonsense"), "{error}");
}

#[tokio::test]
async fn nothing_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    for by_drop in [false, true] {
        let postgres = Postgres::start(PostgresOptions::new(dir.path()))
            .await
            .unwrap();
        let pid = postgres.pid().unwrap();
        if by_drop {
            drop(postgres);
        } else {
            postgres.stop().await.unwrap();
        }
        let process = nix::unistd::Pid::from_raw(pid.cast_signed());
        assert!(
            nix::sys::signal::kill(process, None).is_err(),
            "still there"
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = PostgresOptions::new(dir.path());
    options.hba = Some("hostssl all all 127.0.0.1/32 telepathy".to_owned());
    let error = Postgres::start(options).await.unwrap_err().to_string();
    assert!(
        error.contains("invalid authentication method \"telepathy\""),
        "{error}"
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
