//! What AWS's own endpoints say, as the sandbox's fronts play them: RDS Proxy, Aurora DSQL, and an
//! instance that starts, stops or is full.

use protocol_tests::aws::iam::DbEndpoint;
use protocol_tests::aws::sandbox::Sandbox;
use protocol_tests::database::front::{Fault, FrontKind, ServerError};
use protocol_tests::database::rds::{Engine, RdsDatabase, RdsOptions};

use super::Record;
use crate::support::{BASTION, HOST, PATIENCE, PORT, REGION, Setup, World, launch};

const RDS_PROXY: &str = "orders.proxy-abc.eu-central-1.rds.amazonaws.com";
const DSQL: &str = "abcdefghijklmnopqrstuvwxyz.dsql.eu-central-1.on.aws";

/// A world whose database has a front at `host`.
async fn world(kind: FrontKind, host: &str) -> World {
    let sandbox = Sandbox::builder().region(REGION).start().await;
    let sandbox = sandbox.expect("sandbox");
    sandbox.agent(BASTION).set_pacing(false);
    let endpoint = DbEndpoint {
        host: host.to_owned(),
        port: PORT,
        region: REGION.to_owned(),
    };
    let mut options = RdsOptions::new(sandbox.dir(), endpoint);
    options.engine = Engine::front(kind);
    let database = RdsDatabase::start(options, sandbox.pki(), sandbox.iam(), sandbox.events());
    let database = database.await.expect("database");
    sandbox.vpc().open(host, PORT, database.addr());
    let authority = match kind {
        FrontKind::Instance => sandbox.pki().ca_pem_path(),
        FrontKind::RdsProxy | FrontKind::Dsql => sandbox.pki().public_ca_pem_path(),
    };
    let config = format!(
        "[targets.orders]\nhost = \"{host}\"\nuser = \"db_user\"\ndatabase = \"app\"\nport = 0\nbastion = \"{BASTION}\"\nca_file = \"{}\"\n",
        authority.display()
    );
    let setup = Setup {
        config: Some(config),
        built_in_roots: true,
        ..Setup::default()
    };
    let mut proxy = launch(&sandbox, &setup);
    proxy.wait_ready(PATIENCE).await.expect("pgiam is ready");
    World {
        proxy,
        database,
        sandbox,
    }
}

/// One login that fails with what `fault` makes of it.
async fn fails(record: &mut Record, world: &World, title: &str, fault: Fault) {
    let front = world.database.front().expect("a front");
    // A cached token is tried once more with a fresh one.
    front.arm(fault, 2);
    record.refused(world, title, &[]).await;
    front.disarm();
}

#[tokio::test]
async fn an_instance_that_is_not_ready() {
    let mut record = Record::new("instance");
    let world = world(FrontKind::Instance, HOST).await;
    let stopping = || {
        ServerError::new(
            "57P01",
            "terminating connection due to administrator command",
        )
    };
    let reserved = "remaining connection slots are reserved for roles with privileges of the \"rds_reserved\" role";
    for (title, error) in [
        ("it starts", ServerError::starting_up()),
        ("it stops", stopping()),
        ("it is full", ServerError::too_many_clients()),
        (
            "all but the reserved connections are in use",
            ServerError::new("53300", reserved),
        ),
    ] {
        fails(&mut record, &world, title, Fault::AtStartup(error)).await;
    }
    for (title, error) in [
        ("PAM refuses", ServerError::pam("db_user")),
        (
            "IAM does not answer in time",
            ServerError::new("57014", "canceling authentication due to timeout"),
        ),
        (
            "the token is taken for a password",
            ServerError::new(
                "28P01",
                "password authentication failed for user \"db_user\"",
            ),
        ),
    ] {
        fails(&mut record, &world, title, Fault::AtToken(error)).await;
    }
    assert_eq!(world.query("select 1").await, "1");
    record.leave(world).await;
    record.compare();
}

#[tokio::test]
async fn rds_proxy_in_its_own_words() {
    let mut record = Record::new("rds-proxy");
    let world = world(FrontKind::RdsProxy, RDS_PROXY).await;
    // The front's own answers.
    let options = ["-d", "options='-c geqo=off'"];
    record.refused(&world, "options", &options).await;
    let key = &world.sandbox.user().access_key_id;
    let iam = world.sandbox.iam();
    iam.update(key, |user| user.db_users.clear());
    record
        .refused(&world, "rds-db:connect is not allowed", &[])
        .await;
    iam.update(key, |user| user.db_users = vec!["*".to_owned()]);
    assert_eq!(world.query("select 1").await, "1");
    // Those that no login brings about here (RDS User Guide, "Troubleshooting for RDS Proxy").
    for (title, code, text) in [
        (
            "TLS that ends elsewhere",
            "28000",
            "IAM authentication is allowed only with SSL connections.",
        ),
        (
            "a role that the proxy has no secret for",
            "28000",
            "This RDS proxy has no credentials for the role db_user. Check the credentials for this role and try again.",
        ),
        (
            "an unknown method",
            "28000",
            "RDS supports only IAM, MD5, or SCRAM authentication.",
        ),
        (
            "too many new connections for IAM",
            "28000",
            "The IAM authentication failed because of too many competing requests.",
        ),
        (
            "too many connections",
            "53300",
            "The maximum number of client connections to the proxy exceeded.",
        ),
        (
            "too many new connections",
            "53300",
            "Rate of connection to proxy exceeded.",
        ),
        (
            "no free connection to the database",
            "08006",
            "Timed-out waiting to acquire database connection.",
        ),
    ] {
        let error = ServerError::new(code, text);
        fails(&mut record, &world, title, Fault::AtStartup(error)).await;
    }
    assert_eq!(world.query("select 1").await, "1");
    record.leave(world).await;
    record.compare();
}

#[tokio::test]
async fn dsql_in_its_own_words() {
    let mut record = Record::new("dsql");
    let world = world(FrontKind::Dsql, DSQL).await;
    let options = ["-d", "options='-c statement_timeout=1s'"];
    record
        .refused(&world, "a parameter that it does not know", &options)
        .await;
    let key = &world.sandbox.user().access_key_id;
    let iam = world.sandbox.iam();
    iam.update(key, |user| user.db_users.clear());
    record.refused(&world, "the role is not linked", &[]).await;
    iam.update(key, |user| user.db_users = vec!["*".to_owned()]);
    let rate = ServerError::new("53400", "Unable to accept connection, rate exceeded.");
    fails(
        &mut record,
        &world,
        "too many new connections",
        Fault::AtStartup(rate),
    )
    .await;
    assert_eq!(world.query("select 1").await, "1");
    record.leave(world).await;
    record.compare();
}
