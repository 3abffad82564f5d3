//! The launcher of servers.

use protocol_tests::database::postgres::{Postgres, PostgresOptions};

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
