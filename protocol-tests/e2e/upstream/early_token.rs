//! The token that goes out before it is asked for: to whom, and what if that was wrong.

use protocol_tests::database::front::{Fault, ServerError};

use super::*;

/// A database that has asked `db_user` for a token, so that the next one goes early.
async fn acquainted() -> World {
    let world = World::with(instance(false, None)).await;
    assert_eq!(round_trips(&world, "db_user").await, 4);
    assert_eq!(round_trips(&world, "db_user").await, 3);
    world
}

#[tokio::test]
async fn a_role_that_has_lost_rds_iam_is_told_so_and_asked_first_from_then_on() {
    let world = acquainted().await;
    let seen = tokens(&world).len();
    world.admin("revoke rds_iam from db_user").await;
    let (said, log) = refused(&world, &[]).await;
    assert_eq!(log["id"], "database.no-rds-iam", "{said}");
    assert!(
        said.contains("role \"db_user\" is not set up for IAM login"),
        "{said}"
    );
    assert!(said.contains("GRANT rds_iam TO \"db_user\""), "{said}");
    assert!(!said.contains("No token was sent"), "one was: {said}");
    // The second time nothing is sent any more, and the report says so.
    let (said, _) = refused(&world, &[]).await;
    assert!(said.contains("No token was sent"), "{said}");
    assert_eq!(tokens(&world).len(), seen);
    world.admin("grant rds_iam to db_user").await;
    assert_eq!(round_trips(&world, "db_user").await, 4);
    assert_eq!(round_trips(&world, "db_user").await, 3);
    world.stop().await;
}

#[tokio::test]
async fn a_refusal_that_a_reset_may_overtake_still_arrives() {
    let world = acquainted().await;
    let full = "FATAL:  sorry, too many clients already";
    // Both times, because either the words arrive or the reset does.
    let fault = Fault::AtStartupWithReset(ServerError::too_many_clients());
    front(&world).arm(fault, 2);
    let (said, log) = refused(&world, &[]).await;
    assert!(said.contains(full), "{said}");
    assert_eq!(log["sqlstate"], "53300");
    front(&world).disarm();
    assert_eq!(world.query("select 1").await, "1");

    // A server that is gone without a word, and has one the second time.
    assert_eq!(round_trips(&world, "db_user").await, 3);
    front(&world).arm(Fault::CloseAfterStartup, 1);
    front(&world).arm(Fault::AtStartup(ServerError::too_many_clients()), 1);
    let (started, seen) = (startups(&world), tokens(&world).len());
    let (said, log) = refused(&world, &[]).await;
    assert!(said.contains(full), "{said}");
    assert_eq!(log["sqlstate"], "53300");
    assert_eq!(startups(&world) - started, 2);
    assert_eq!(tokens(&world).len(), seen);
    world.stop().await;
}

#[tokio::test]
async fn a_server_that_only_closes_is_tried_once_more_and_no_further() {
    let world = acquainted().await;
    front(&world).arm(Fault::CloseAfterStartup, 5);
    let started = startups(&world);
    let (said, log) = refused(&world, &[]).await;
    assert_eq!(log["id"], "database.lost", "{said}");
    assert_eq!(startups(&world) - started, 2);
    front(&world).disarm();
    assert_eq!(world.query("select 1").await, "1");
    world.stop().await;
}

#[tokio::test]
async fn a_server_that_lets_in_without_asking_is_no_failure() {
    let world = World::with(Setup {
        line: Some(LineOptions::counting()),
        ..Setup::default()
    })
    .await;
    assert_eq!(round_trips(&world, "db_user").await, 4);
    assert_eq!(round_trips(&world, "db_user").await, 3);
    let file = world.admin("show hba_file").await;
    let rules = "local all postgres trust\nhostssl all all 127.0.0.1/32 trust\n";
    std::fs::write(&file, rules).expect(&file);
    assert_eq!(world.admin("select pg_reload_conf()").await, "t");
    let loaded = "select exists (select from pg_hba_file_rules where type = 'hostssl' \
                  and auth_method = 'trust') and pg_conf_load_time() > pg_postmaster_start_time()";
    world.wait_sql(loaded).await;
    let (known, seen) = (flights(&world).len(), tokens(&world).len());
    for _ in 0..3 {
        let ran = world.psql(&["-A", "-t", "-c", "select current_user"]).await;
        assert_eq!(clean_rows(&ran), "db_user");
    }
    assert_eq!(tokens(&world).len(), seen);
    // The first tries twice; then it is known that nobody asks.
    assert_eq!(flights(&world).len() - known, 4);
    world.stop().await;
}

#[tokio::test]
async fn a_cached_token_that_is_refused_is_replaced_once() {
    let world = acquainted().await;
    let refusal = || Fault::AtToken(ServerError::pam("db_user"));
    front(&world).arm(refusal(), 1);
    let (started, seen) = (startups(&world), tokens(&world).len());
    let ran = world.psql(&["-A", "-t", "-c", "select 1"]).await;
    assert_eq!(clean_rows(&ran), "1");
    assert_eq!(startups(&world) - started, 2);
    assert_eq!(tokens(&world).len() - seen, 2);

    front(&world).arm(refusal(), 5);
    let (started, seen) = (startups(&world), tokens(&world).len());
    let (said, log) = refused(&world, &[]).await;
    let words = "FATAL:  PAM authentication failed for user \"db_user\"";
    assert!(said.contains(words), "{said}");
    assert_eq!(log["id"], "database.login-refused");
    assert_eq!(log["sqlstate"], "28000");
    assert_eq!(startups(&world) - started, 2);
    assert_eq!(tokens(&world).len() - seen, 2);
    front(&world).disarm();
    assert_eq!(world.query("select 1").await, "1");
    world.stop().await;
}

#[tokio::test]
async fn nothing_goes_early_before_tls_is_verified() {
    let world = acquainted().await;
    let (started, seen) = (startups(&world), tokens(&world).len());
    for (id, fault) in [
        ("database.no-tls", Fault::RefuseTls),
        (
            "database.injected",
            Fault::InjectAfterS(b"R\0\0\0\x08\0\0\0\0".to_vec()),
        ),
    ] {
        front(&world).arm(fault, 1);
        let known = flights(&world).len();
        let (said, log) = refused(&world, &[]).await;
        assert_eq!(log["id"], id, "{said}");
        assert!(said.contains("No token was sent."), "{said}");
        assert_eq!(flights(&world).len() - known, 1, "not tried in another way");
    }
    assert_eq!((startups(&world), tokens(&world).len()), (started, seen));
    world.stop().await;
}
