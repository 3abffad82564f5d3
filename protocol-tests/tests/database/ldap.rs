//! The server that judges tokens by way of LDAP.

use std::time::Duration;

use protocol_tests::database::postgres::SCRAM_PASSWORD;
use protocol_tests::database::rds::ServerCertificate;

use crate::support::{KEY, TokenFor, WHO, World, psql, tokens};

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
