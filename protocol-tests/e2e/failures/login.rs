//! The right database refuses the login.

use std::process::Stdio;
use std::time::Instant;

use protocol_tests::aws::api::ApiFault;
use protocol_tests::aws::events::Event;
use protocol_tests::aws::iam::User;
use protocol_tests::harness::ports::free_port;
use tokio::process::Child;

use super::{Record, refusals, silent_database, tokens_seen};
use crate::support::{PATIENCE, Setup, World, eventually, ordinary_config};

/// Two targets that lead to the same database, behind one port.
fn two_targets() -> String {
    let port = free_port();
    let orders = ordinary_config().replace("port = 0", &format!("port = {port}"));
    let stock = orders.replace("targets.orders", "targets.stock");
    orders + &stock
}

/// A psql that has logged in and waits for something to do.
async fn hold(world: &World, args: &[&str]) -> Child {
    let ready = || world.proxy.log_text().matches("connection ready").count();
    let before = ready();
    let mut command = world.psql_command(args);
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let child = command.kill_on_drop(true).spawn().expect("psql");
    eventually("a session", || (ready() > before).then_some(())).await;
    child
}

/// Lets it end in order.
async fn release(mut held: Child) {
    drop(held.stdin.take());
    let ended = tokio::time::timeout(PATIENCE, held.wait()).await;
    assert!(ended.expect("in time").expect("psql").success());
}

#[tokio::test]
async fn tokens_the_database_refuses() {
    let mut record = Record::new("login-refused");
    let world = World::start().await;
    let (iam, key) = (
        world.sandbox.iam(),
        &world.sandbox.user().access_key_id.clone(),
    );
    iam.update(key, |user| user.db_users = vec!["somebody".to_owned()]);
    record
        .refused(&world, "rds-db:connect is not allowed", &[])
        .await;
    assert_eq!(
        tokens_seen(&world),
        1,
        "a token just made is not tried twice"
    );
    iam.update(key, |user| user.db_users = vec!["*".to_owned()]);
    assert_eq!(world.query("select 1").await, "1");

    record.leave(world).await;
    record.compare();
}

/// The tunnel stands, so nobody has asked AWS for anything since the clock went wrong.
#[tokio::test]
async fn aws_is_asked_for_the_time_when_a_token_is_refused() {
    let mut record = Record::new("clock-unknown");
    let world = World::start().await;
    assert_eq!(world.query("select 1").await, "1");
    // Our clock is behind by more than a token lives.
    let iam = world.sandbox.iam();
    iam.set_clock_ahead(16 * 60);
    record
        .refused(&world, "the clock of this machine is wrong", &[])
        .await;
    assert_eq!(tokens_seen(&world), 3, "the cached one, then a fresh one");
    iam.set_clock_ahead(0);
    assert_eq!(world.query("select 1").await, "1");
    record.leave(world).await;
    record.compare();
}

/// The client's timeout ends before pgiam's, and before the reason is known.
#[tokio::test]
async fn a_client_that_gives_up_is_logged_with_the_step_it_waited_for() {
    let world = World::start().await;
    assert_eq!(world.query("select 1").await, "1");
    let _silent = silent_database(&world).await;
    let mut psql = world.psql_command(&["-c", "select 1"]);
    psql.env("PGCONNECT_TIMEOUT", "2");
    let status = psql.stderr(Stdio::null()).status().await.expect("psql");
    assert!(!status.success());
    let line = eventually("the log line", || {
        refusals(&world)
            .into_iter()
            .find(|line| line["id"] == "client.gone")
    })
    .await;
    let reason = line["reason"].as_str().expect("a reason");
    assert!(
        reason.starts_with("the client disconnected after "),
        "{line}"
    );
    let step = ", while pgiam was waiting for the first bytes of the database through the tunnel";
    assert!(reason.ends_with(step), "{line}");
    assert_eq!(line["level"], "WARN", "{line}");
    assert_eq!(
        line["hint"], "To test each step, run:\n  pgiam check orders",
        "{line}"
    );
    world.stop().await;
}

/// The report waits for a silent AWS, and not for long.
#[tokio::test]
async fn an_unanswered_question_changes_nothing() {
    let mut record = Record::new("aws-is-silent");
    let world = World::start().await;
    assert_eq!(world.query("select 1").await, "1");
    let user = &world.sandbox.user().access_key_id;
    let iam = world.sandbox.iam();
    iam.update(user, |user| user.db_users = vec!["somebody".to_owned()]);
    let api = world.sandbox.api();
    api.fail("GetCallerIdentity", ApiFault::NoAnswer, 100);
    let begun = Instant::now();
    record.refused(&world, "for two seconds", &[]).await;
    let took = begun.elapsed();
    assert!((2..5).contains(&took.as_secs()), "{took:?}");
    api.recover();
    record.leave(world).await;
    record.compare();
}

/// The tunnel of one target stands when the clock goes wrong; what another target asks of AWS shows
/// by how much.
#[tokio::test]
async fn a_clock_that_is_known_to_be_wrong() {
    let mut record = Record::new("clock");
    let world = World::with(Setup {
        config: Some(two_targets()),
        ..Setup::default()
    })
    .await;
    let orders = ["-d", "orders"];
    assert_eq!(
        world.psql(&["-d", "orders", "-c", "select 1"]).await.code,
        Some(0)
    );
    world.sandbox.iam().set_clock_ahead(16 * 60);
    record
        .refused(&world, "the other target asks AWS", &["-d", "stock"])
        .await;
    record
        .refused(&world, "the clock of this machine is wrong", &orders)
        .await;
    record.leave(world).await;
    record.compare();
}

#[tokio::test]
async fn no_more_connections_than_are_allowed() {
    let mut record = Record::new("limits");
    let world = World::with(Setup {
        config: Some(two_targets().replacen("user =", "connection_limit = 1\nuser =", 1)),
        args: ["--max-connections", "2"].map(str::to_owned).into(),
        ..Setup::default()
    })
    .await;
    let first = hold(&world, &["-d", "orders"]).await;
    record
        .refused(
            &world,
            "one more than the target's limit",
            &["-d", "orders"],
        )
        .await;
    let second = hold(&world, &["-d", "stock"]).await;
    record
        .refused(&world, "one more than are served at once", &["-d", "stock"])
        .await;
    for held in [first, second] {
        release(held).await;
    }
    record.leave(world).await;
    record.compare();
}

#[tokio::test]
async fn a_cached_token_that_is_refused_is_replaced_in_silence() {
    let mut record = Record::new("");
    let world = World::with(Setup {
        env: vec![("AWS_ACCESS_KEY_ID", None), ("AWS_SECRET_ACCESS_KEY", None)],
        ..Setup::default()
    })
    .await;
    let credentials = world.sandbox.dir().join("credentials");
    let write = |user: &User| {
        let text = format!(
            "[default]\naws_access_key_id={}\naws_secret_access_key={}\n",
            user.access_key_id, user.secret_access_key
        );
        std::fs::write(&credentials, text).expect("credentials");
    };
    let old = world.sandbox.user().clone();
    write(&old);
    assert_eq!(world.query("select 1").await, "1");

    // The key is rotated: what was signed with the old one is worth nothing any more.
    let mut new = old.clone();
    new.access_key_id = "AKIAROTATEDROTATEDRO".to_owned();
    new.secret_access_key = "rotated".repeat(6);
    record.keep_secret(&new);
    world.sandbox.iam().add(new.clone());
    world.sandbox.iam().remove(&old.access_key_id);
    write(&new);

    let ran = world.psql(&["-A", "-t", "-c", "select 1"]).await;
    assert_eq!((ran.rows(), ran.stderr.as_str()), ("1", ""));
    let events = world.sandbox.events().all();
    let outcomes = events.iter().filter_map(|event| match event {
        Event::DbToken { outcome, .. } => Some(outcome.clone()),
        _ => None,
    });
    let unknown = format!("access key {} is unknown", old.access_key_id);
    let expected = [
        Ok(old.access_key_id.clone()),
        Err(unknown),
        Ok(new.access_key_id),
    ];
    assert_eq!(outcomes.collect::<Vec<_>>(), expected);
    record.leave(world).await;
}

#[tokio::test]
async fn not_even_the_most_talkative_log_holds_a_secret() {
    let mut record = Record::new("");
    let world = World::with(Setup {
        args: ["--log", "trace"].map(str::to_owned).into(),
        env: vec![("AWS_ACCESS_KEY_ID", None), ("AWS_SECRET_ACCESS_KEY", None)],
        ..Setup::default()
    })
    .await;
    let mut user = world.sandbox.user().clone();
    user.access_key_id = "ASIATALKATIVETALKATI".to_owned();
    user.session_token = Some("session-token-of-the-talkative".to_owned());
    record.keep_secret(&user);
    world.sandbox.iam().add(user.clone());
    let text = format!(
        "[default]\naws_access_key_id={}\naws_secret_access_key={}\naws_session_token={}\n",
        user.access_key_id,
        user.secret_access_key,
        user.session_token.as_deref().unwrap_or_default()
    );
    std::fs::write(world.sandbox.dir().join("credentials"), text).expect("credentials");
    assert_eq!(world.query("select 1").await, "1");
    let key = &user.access_key_id;
    world.sandbox.iam().update(key, |user| {
        _ = user.deny.insert("rds-db:connect".to_owned())
    });
    record.refused(&world, "refused", &[]).await;
    // There was something to keep secret, and somebody talking.
    assert_eq!(world.sandbox.token_values().len(), 1);
    let talkers = world.proxy.log_text();
    assert!(talkers.contains("\"target\":\"rustls"), "{talkers}");
    record.leave(world).await;
}

#[tokio::test]
async fn roles_and_databases_that_are_not_there() {
    let mut record = Record::new("roles-and-databases");
    let world = World::start().await;
    for (title, args) in [
        ("a role without rds_iam", ["-U", "scram_only"]),
        ("a role that does not exist", ["-U", "No \"body\""]),
    ] {
        record.refused(&world, title, &args).await;
        assert_eq!(tokens_seen(&world), 0, "{title}");
    }
    record
        .refused(&world, "a database that does not exist", &["-d", "nosuch"])
        .await;
    let admin = world.database.postgres();
    for (title, limit, lift) in [
        (
            "the role's connection limit",
            "alter role db_user connection limit 0",
            "alter role db_user connection limit -1",
        ),
        (
            "no permission to connect",
            "revoke connect on database app from public, db_user",
            "grant connect on database app to public",
        ),
        (
            "no permission to log in",
            "alter role db_user nologin",
            "alter role db_user login",
        ),
    ] {
        admin.psql_admin(limit).await.expect(limit);
        record.refused(&world, title, &[]).await;
        admin.psql_admin(lift).await.expect(lift);
    }

    // As many as the role may have, all through us.
    let (limit, lift) = (
        "alter role db_user connection limit 2",
        "alter role db_user connection limit -1",
    );
    admin.psql_admin(limit).await.expect(limit);
    let held = [hold(&world, &[]).await, hold(&world, &[]).await];
    record
        .refused(&world, "as many as the role may have are open", &[])
        .await;
    for held in held {
        release(held).await;
    }
    admin.psql_admin(lift).await.expect(lift);

    // By now the token goes out before it is asked for.
    assert_eq!(world.query("select 1").await, "1");
    let (revoke, grant) = ("revoke rds_iam from db_user", "grant rds_iam to db_user");
    admin.psql_admin(revoke).await.expect(revoke);
    record
        .refused(&world, "a role that has rds_iam no more", &[])
        .await;
    admin.psql_admin(grant).await.expect(grant);
    assert_eq!(world.query("select 1").await, "1");
    record.leave(world).await;
    record.compare();
}
