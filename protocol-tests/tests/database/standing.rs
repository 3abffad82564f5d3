//! Databases of a sandbox that runs by itself, before servers that somebody else has started.

use protocol_tests::aws::iam::User;
use protocol_tests::database::front::FrontKind;
use protocol_tests::database::rds::Engine;
use protocol_tests::demo::standing::{Route, Standing, StandingOptions};
use tokio::process::Command;

use crate::support::{HOST, TokenFor, World};

#[tokio::test]
async fn tokens_are_judged_before_a_server_of_somebody_elses() {
    let world = World::new();
    // Its own front is not used: what counts is the server behind it.
    let engine = Engine::front(FrontKind::Instance);
    let database = world.database(|options| options.engine = engine).await;
    let behind = database.postgres().addr();
    let route = format!("{HOST}:5432=localhost:{}", behind.port());
    let standing = Standing::start(StandingOptions {
        databases: vec![route.parse::<Route>().unwrap()],
        ..StandingOptions::default()
    });
    let standing = standing.await.unwrap();
    let sandbox = standing.sandbox();
    let account = sandbox.iam().account();
    sandbox.iam().add(User::example("dev", account));
    let address = sandbox.vpc().resolve(HOST).unwrap();
    sandbox.vpc().dial(address, 5432).await.unwrap();
    let login = async |token: &str| {
        let conninfo = format!(
            "host={HOST} hostaddr=127.0.0.1 port={} dbname=app user=db_user sslmode=verify-full \
             sslrootcert={} gssencmode=disable connect_timeout=20",
            standing.fronts()[0].addr().port(),
            sandbox.pki().ca_pem_path().display(),
        );
        let mut command = Command::new(database.postgres().psql_program());
        command.args([
            "-X",
            "-A",
            "-t",
            "-w",
            "-d",
            &conninfo,
            "-c",
            "select current_user",
        ]);
        let output = command.env("PGPASSWORD", token).output().await.unwrap();
        let text = if output.status.success() {
            output.stdout
        } else {
            output.stderr
        };
        String::from_utf8(text).unwrap()
    };
    let good = login(&TokenFor::default().make()).await;
    assert_eq!(good.trim_end(), "db_user");
    let refused = login("wrong").await;
    assert!(refused.contains("PAM authentication failed"), "{refused}");
    let found = sandbox.inventory().clone();
    assert!(found.update_cluster("orders", |cluster| assert_eq!(cluster.host, HOST)));
    standing.stop().await;
    database.stop().await.unwrap();
}
