//! The right database refuses the login.

use protocol_tests::events::Event;
use protocol_tests::iam::User;

use super::{Record, tokens_seen};
use crate::support::{Setup, World};

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

    // Our clock is behind by more than a token lives; the tunnel was there before.
    iam.set_clock_ahead(16 * 60);
    record
        .refused(&world, "the clock of this machine is wrong", &[])
        .await;
    assert_eq!(tokens_seen(&world), 4, "the cached one, then a fresh one");
    iam.set_clock_ahead(0);
    assert_eq!(world.query("select 1").await, "1");
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
    ] {
        admin.psql_admin(limit).await.expect(limit);
        record.refused(&world, title, &[]).await;
        admin.psql_admin(lift).await.expect(lift);
    }
    assert_eq!(world.query("select 1").await, "1");
    record.leave(world).await;
    record.compare();
}
