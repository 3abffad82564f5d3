//! Passwords on either side of the program, and who may not come in.

use super::{Record, tokens_seen};
use crate::support::{Setup, World, ordinary_config};

#[tokio::test]
async fn passwords_that_are_not_right() {
    let mut record = Record::new("passwords");
    let passthrough = || Some(ordinary_config() + "auth = \"passthrough\"\n");
    let world = World::with(Setup {
        config: passthrough(),
        ..Setup::default()
    })
    .await;
    // As with the server itself, libpq before 17 tries a password again without TLS if it may.
    // The server's own words, in answer to the client's own password.
    let wrong = [
        "-U",
        "scram_only",
        "-d",
        "password=wrong channel_binding=disable sslmode=require",
    ];
    record
        .refused(&world, "a wrong password of the role", &wrong)
        .await;
    record.leave(world).await;

    let local = |config| Setup {
        config,
        env: vec![("PGIAM_LOCAL_PASSWORD", Some("opensesame".to_owned()))],
        ..Setup::default()
    };
    let world = World::with(local(None)).await;
    let wrong = ["-d", "password=wrong sslmode=require"];
    record
        .refused(&world, "a wrong local password", &wrong)
        .await;
    assert_eq!(tokens_seen(&world), 0);
    let right = ["-A", "-t", "-d", "password=opensesame", "-c", "select 1"];
    assert_eq!(world.psql(&right).await.rows(), "1");
    record.leave(world).await;

    let world = World::with(local(passthrough())).await;
    let right = ["-d", "password=opensesame"];
    record.refused(&world, "one password for two", &right).await;
    record.leave(world).await;
    record.compare();
}

#[tokio::test]
async fn replication_cannot_log_in_with_a_token() {
    let mut record = Record::new("replication");
    let world = World::start().await;
    let replication = ["-d", "replication=database"];
    record
        .refused(&world, "logical replication", &replication)
        .await;
    assert_eq!(tokens_seen(&world), 0);
    record.leave(world).await;
    record.compare();
}
