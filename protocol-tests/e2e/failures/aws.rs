//! No credentials, ended credentials, and what AWS refuses.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use protocol_tests::aws::api::ApiFault;
use protocol_tests::aws::events::Event;
use protocol_tests::aws::iam::User;
use tokio::time::timeout;

use super::{Record, tokens_seen};
use crate::support::{BASTION, PATIENCE, Setup, World, by_shell, ordinary_config};

/// Nothing but the AWS files, which are empty at first.
pub(crate) fn no_keys() -> Vec<(&'static str, Option<String>)> {
    vec![
        ("AWS_ACCESS_KEY_ID", None),
        ("AWS_SECRET_ACCESS_KEY", None),
        // So that no cached SSO token of whoever runs the tests is found.
        ("HOME", Some("/nonexistent".to_owned())),
    ]
}

fn write(world: &World, file: &str, text: &str) {
    std::fs::write(world.sandbox.dir().join(file), text).expect(file);
}

/// Keys in the credentials file, as a login tool leaves them there.
pub(crate) fn write_keys(world: &World, user: &User) {
    let mut text = format!(
        "[default]\naws_access_key_id={}\naws_secret_access_key={}\n",
        user.access_key_id, user.secret_access_key
    );
    if let Some(token) = &user.session_token {
        text += &format!("aws_session_token={token}\n");
    }
    write(world, "credentials", &text);
}

/// A role's session, known to the sandbox, that ends at `expires`.
fn temporary(world: &World, letter: char, expires: SystemTime) -> User {
    let run = |length| letter.to_string().repeat(length);
    let user = User {
        name: "dev".to_owned(),
        arn: "arn:aws:sts::123456789012:assumed-role/Developer/dev".to_owned(),
        access_key_id: format!("ASIA{}", run(16)),
        secret_access_key: format!("secret{}", run(34)),
        session_token: Some(format!("session{}", run(40))),
        expires: Some(expires),
        deny: BTreeSet::new(),
        db_users: vec!["*".to_owned()],
        mfa: false,
    };
    world.sandbox.iam().add(user.clone());
    user
}

const SSO: &str = "\
[profile dev]
sso_session = corp
sso_account_id = 123456789012
sso_role_name = Developer
[sso-session corp]
sso_region = eu-central-1
sso_start_url = https://corp.example.com/start
";

#[tokio::test]
async fn without_usable_credentials() {
    let mut record = Record::new("credentials");
    let world = World::with(Setup {
        env: no_keys(),
        ..Setup::default()
    })
    .await;
    record.refused(&world, "no credentials anywhere", &[]).await;
    record.leave(world).await;

    let world = World::with(Setup {
        env: no_keys(),
        config: Some(ordinary_config() + "profile = \"dev\"\n"),
        ..Setup::default()
    })
    .await;
    write(&world, "config", "[profile prod]\nregion = eu-west-1\n");
    record
        .refused(&world, "a profile that does not exist", &[])
        .await;
    let process = |line: &str| {
        let line = by_shell(line);
        format!("[profile dev]\ncredential_process = {line}\n")
    };
    let over = r#"printf '{"Version":1,"AccessKeyId":"ASIAX","SecretAccessKey":"kept-quiet","SessionToken":"kept-quiet","Expiration":"2020-01-01T00:00:00Z"}'"#;
    for (title, config) in [
        (
            "a profile without credentials",
            "[profile dev]\nregion = eu-central-1\n",
        ),
        ("a configuration that cannot be read", "[profile dev\n"),
        (
            "a credential_process that fails",
            &process("sh -c 'echo login first >&2; exit 3'"),
        ),
        (
            "a credential_process that answers nonsense",
            &process("echo '{\"SecretAccessKey\":\"kept-quiet\"}'"),
        ),
        (
            "a credential_process whose credentials are over",
            &process(over),
        ),
        ("no SSO session", SSO),
    ] {
        write(&world, "config", config);
        record.refused(&world, title, &[]).await;
    }
    record.secrets.push("kept-quiet".to_owned());
    // None of it was for ever.
    let user = world.sandbox.user();
    let keys = format!(
        "printf '{{\"Version\":1,\"AccessKeyId\":\"{}\",\"SecretAccessKey\":\"{}\"}}'",
        user.access_key_id, user.secret_access_key
    );
    write(&world, "config", &process(&keys));
    assert_eq!(world.query("select current_user").await, "db_user");
    record.leave(world).await;
    record.compare();
}

#[tokio::test]
async fn credentials_that_end_are_renewed_without_a_restart() {
    let mut record = Record::new("expired");
    let world = World::with(Setup {
        env: no_keys(),
        ..Setup::default()
    })
    .await;
    let now = SystemTime::now();
    let (past, later) = (
        now - Duration::from_secs(60),
        now + Duration::from_secs(3600),
    );
    let [first, second, third] =
        [('A', past), ('B', later), ('C', later)].map(|(l, end)| temporary(&world, l, end));
    for user in [&first, &second, &third] {
        record.keep_secret(user);
    }

    write_keys(&world, &first);
    record
        .refused(&world, "AWS says that the credentials have ended", &[])
        .await;
    assert_eq!(tokens_seen(&world), 0);
    write_keys(&world, &second);
    assert_eq!(world.query("select 1").await, "1");

    // The end comes while the tunnel stands, so the database is the first to notice.
    world
        .sandbox
        .iam()
        .update(&second.access_key_id, |user| user.expires = Some(past));
    record
        .refused(&world, "credentials that end while the tunnel stands", &[])
        .await;
    write_keys(&world, &third);
    // Right after a refusal no other token is tried, for a moment.
    let lets_in = async { while world.psql(&["-c", "select 1"]).await.code != Some(0) {} };
    let renewed = timeout(PATIENCE, lets_in).await;
    renewed.expect("the new keys are used");
    record.leave(world).await;
    record.compare();
}

#[tokio::test]
async fn sessions_that_aws_refuses() {
    let mut record = Record::new("refused-by-aws");
    let world = World::with(Setup {
        config: Some(ordinary_config() + "connect_timeout = 20\n"),
        ..Setup::default()
    })
    .await;
    let (iam, key) = (
        world.sandbox.iam(),
        &world.sandbox.user().access_key_id.clone(),
    );

    world.sandbox.agent(BASTION).set_online(false);
    record.refused(&world, "the bastion is offline", &[]).await;
    world.sandbox.agent(BASTION).set_online(true);

    for (title, action) in [
        (
            "StartSession is not allowed on the node",
            "ssm:StartSession",
        ),
        (
            "StartSession is not allowed with the document",
            "ssm:StartSession:document",
        ),
        (
            "the organisation forbids StartSession",
            "scp:ssm:StartSession",
        ),
        (
            "the data channel is not allowed",
            "ssmmessages:OpenDataChannel",
        ),
    ] {
        iam.update(key, |user| _ = user.deny.insert(action.to_owned()));
        record.refused(&world, title, &[]).await;
        iam.update(key, |user| user.deny.clear());
    }

    for (title, fault) in [
        ("the service fails", ApiFault::InternalError),
        (
            "the service answers without a word",
            ApiFault::EmptyBadRequest,
        ),
    ] {
        world.sandbox.api().fail("StartSession", fault, 100);
        record.refused(&world, title, &[]).await;
        world.sandbox.api().recover();
    }

    let right = world.sandbox.user().secret_access_key.clone();
    iam.update(key, |user| user.secret_access_key = "another".to_owned());
    record.refused(&world, "a wrong secret key", &[]).await;
    iam.update(key, |user| user.secret_access_key = right);
    let user = iam.remove(key).expect("the first user");
    record
        .refused(&world, "an access key that is gone", &[])
        .await;
    iam.add(user);

    iam.set_clock_ahead(20 * 60);
    record
        .refused(
            &world,
            "the clock of this machine is 20 minutes behind",
            &[],
        )
        .await;
    // The SDK corrects its own signatures, so there is a session to end, by the same clock.
    let ended = |event: &Event| matches!(event, Event::TerminateSession { .. });
    let events = world.sandbox.events();
    assert!(events.wait_for_nth(2, ended, PATIENCE).await.is_some());
    iam.set_clock_ahead(0);

    let throttled = ApiFault::Throttled;
    world.sandbox.api().fail("StartSession", throttled, 100);
    let title = "StartSession is throttled";
    record.refused(&world, title, &[]).await;
    world.sandbox.api().recover();
    assert_eq!(tokens_seen(&world), 0);
    // AWS is left alone for a few seconds, during which its answer stands.
    let begun = Instant::now();
    while world.psql(&["-c", "select 1"]).await.code != Some(0) {
        assert!(begun.elapsed() < PATIENCE, "it never came back");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    record.leave(world).await;
    record.compare();
}

#[tokio::test]
async fn aws_that_cannot_be_reached() {
    let mut record = Record::new("unreachable-aws");
    // A socket that does not listen keeps the port from other tests.
    let closed = tokio::net::TcpSocket::new_v4().expect("a socket");
    let any = "127.0.0.1:0".parse().expect("an address");
    closed.bind(any).expect("a port");
    let nobody = closed.local_addr().expect("its address").port();
    let set = |name, value: &str| vec![(name, Some(value.to_owned()))];
    for (title, env) in [
        (
            "nobody answers",
            set("AWS_ENDPOINT_URL", &format!("https://localhost:{nobody}")),
        ),
        (
            "a certificate of an unknown authority",
            vec![("AWS_CA_BUNDLE", None)],
        ),
        (
            "an AWS_CA_BUNDLE that does not exist",
            set("AWS_CA_BUNDLE", "/nonexistent/ca.pem"),
        ),
        (
            "an AWS_CA_BUNDLE without certificates",
            set("AWS_CA_BUNDLE", "/dev/null"),
        ),
    ] {
        let setup = Setup {
            env,
            ..Setup::default()
        };
        let world = World::with(setup).await;
        record.refused(&world, title, &[]).await;
        record.text = record.text.replace(&nobody.to_string(), "CLOSED");
        let endpoint = world.sandbox.endpoint_url();
        let endpoint = endpoint.trim_start_matches("https://");
        record.text = record.text.replace(endpoint, "localhost:API");
        record.leave(world).await;
    }

    let world = World::with(Setup {
        config: Some(ordinary_config() + "connect_timeout = 1\n"),
        ..Setup::default()
    })
    .await;
    world
        .sandbox
        .api()
        .fail("StartSession", ApiFault::NoAnswer, 1);
    record
        .refused(&world, "no answer within connect_timeout", &[])
        .await;
    record.leave(world).await;
    record.compare();
}
