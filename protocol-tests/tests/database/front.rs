//! What plays RDS, RDS Proxy and Aurora DSQL before a server that cannot judge tokens.

use protocol_tests::aws::events::Event;
use protocol_tests::database::front::{Fault, FrontKind, RdsFront, ServerError};
use protocol_tests::database::postgres::SCRAM_PASSWORD;
use protocol_tests::database::rds::{Engine, RdsDatabase, RdsOptions, ServerCertificate};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{
    KEY, PATIENCE, Psql, TokenFor, World, connector, message, name, psql, read_message,
    read_to_ready, startup, tokens,
};

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];
const DSQL_HOST: &str = "abc123.dsql.eu-central-1.on.aws";

fn engine(kind: FrontKind) -> impl FnOnce(&mut RdsOptions) {
    move |options| options.engine = Engine::front(kind)
}

fn front(database: &RdsDatabase) -> &RdsFront {
    database.front().unwrap()
}

/// Returns when somebody runs `pg_sleep`.
pub(crate) async fn until_asleep(database: &RdsDatabase) {
    let asleep = "select count(*) from pg_stat_activity where query ~ '^select pg_sleep'";
    let begin = std::time::Instant::now();
    while database.postgres().psql_admin(asleep).await.unwrap() != "1" {
        assert!(begin.elapsed() < PATIENCE, "it never slept");
    }
}

fn refusals(world: &World) -> Vec<String> {
    let pick = |event| match event {
        Event::FrontRefused { code, message, .. } => Some(format!("{code} {message}")),
        _ => None,
    };
    world.events.all().into_iter().filter_map(pick).collect()
}

#[tokio::test]
async fn an_instance_asks_members_of_rds_iam_for_tokens() {
    let world = World::new();
    let database = world.database(engine(FrontKind::Instance)).await;
    let token = TokenFor::default().make();
    let good = psql(&world, &database, "db_user", &token);
    assert_eq!(good.rows("select current_user").await, "db_user");
    assert_eq!(tokens(&world), [("db_user".to_owned(), Ok(KEY.to_owned()))]);
    let text = psql(&world, &database, "db_user", "wrong").refusal().await;
    assert!(
        text.contains("FATAL:  PAM authentication failed for user \"db_user\""),
        "{text}"
    );
    assert_eq!(
        refusals(&world),
        ["28000 PAM authentication failed for user \"db_user\""]
    );
    let asked = world
        .events
        .count(|e| matches!(e, Event::FrontAuthRequest { request: 3, .. }));
    assert_eq!(asked, 2);
    database.stop().await.unwrap();
}

#[tokio::test]
async fn others_get_what_the_server_says() {
    let world = World::new();
    let database = world.database(engine(FrontKind::Instance)).await;
    let scram = psql(&world, &database, "scram_only", SCRAM_PASSWORD);
    assert_eq!(scram.rows("select current_user").await, "scram_only");
    let text = psql(&world, &database, "nobody", "secret").refusal().await;
    assert!(
        text.contains("password authentication failed for user \"nobody\""),
        "{text}"
    );
    let sasl = |e: &Event| matches!(e, Event::FrontAuthRequest { request: 10, .. });
    assert_eq!(world.events.count(sasl), 2);
    assert_eq!(tokens(&world), []);
    let token = TokenFor::default().make();
    let mut client = psql(&world, &database, "db_user", &token);
    client.dbname = "missing";
    let text = client.refusal().await;
    assert!(
        text.contains("FATAL:  database \"missing\" does not exist"),
        "{text}"
    );
    // A role that becomes a member while the front runs.
    let sql = "grant rds_iam to scram_only";
    database.postgres().psql_admin(sql).await.unwrap();
    let text = psql(&world, &database, "scram_only", SCRAM_PASSWORD)
        .refusal()
        .await;
    assert!(text.contains("PAM authentication failed"), "{text}");
    client = psql(&world, &database, "db_user", &token);
    client.sslmode = "disable";
    let text = client.refusal().await;
    assert!(text.contains("no pg_hba.conf entry for host"), "{text}");
}

#[tokio::test]
async fn direct_tls_needs_alpn_and_a_server_that_knows_it() {
    let world = World::new();
    for direct in [true, false] {
        let database = world
            .database(|o| {
                o.engine = Engine::Front {
                    kind: FrontKind::Instance,
                    direct,
                    bindir: None,
                };
            })
            .await;
        for (alpn, expected) in [(&[&b"postgresql"[..]][..], direct), (&[], false)] {
            let socket = TcpStream::connect(database.addr()).await.unwrap();
            let connected = connector(&world, alpn).connect(name(), socket).await;
            let logged_in = match connected {
                Ok(mut stream) => {
                    let hello = startup((3, 2), &[("user", "db_user"), ("database", "app")]);
                    let _ = stream.write_all(&hello).await;
                    let mut first = timeout(PATIENCE, read_message(&mut stream)).await.unwrap();
                    // A server that knows 3.0 only says so first.
                    if matches!(first, Some((b'v', _))) {
                        first = read_message(&mut stream).await;
                    }
                    first == Some((b'R', vec![0, 0, 0, 3]))
                }
                Err(_) => false,
            };
            assert_eq!(logged_in, expected, "{direct} {alpn:?}");
        }
    }
    let seen = Event::FrontTls {
        connection: 1,
        direct: true,
        alpn: Some("postgresql".to_owned()),
        server_name: Some(crate::support::HOST.to_owned()),
        version: "TLSv1.3",
    };
    assert_eq!(world.events.count(|e| *e == seen), 1);
    assert_eq!(refusals(&world).len(), 2, "both by the older server");
}

#[tokio::test]
async fn preludes_are_answered_in_any_legal_order() {
    let world = World::new();
    let database = world.database(engine(FrontKind::Instance)).await;
    for gss_first in [true, false] {
        let mut socket = TcpStream::connect(database.addr()).await.unwrap();
        let mut answer = [0];
        if gss_first {
            socket.write_all(&GSSENC_REQUEST).await.unwrap();
            socket.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, *b"N");
        }
        socket.write_all(&SSL_REQUEST).await.unwrap();
        socket.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, *b"S");
        let mut tls = connector(&world, &[])
            .connect(name(), socket)
            .await
            .unwrap();
        // Startup and password in one flight.
        let mut hello = startup((3, 0), &[("user", "db_user"), ("database", "app")]);
        let token = TokenFor::default().make() + "\0";
        hello.extend(message(b'p', token.as_bytes()));
        tls.write_all(&hello).await.unwrap();
        let kinds = timeout(PATIENCE, read_to_ready(&mut tls)).await.unwrap();
        assert!(kinds.starts_with("RR") && kinds.ends_with("KZ"), "{kinds}");
    }
    // Bytes that somebody has slipped in before TLS.
    let mut socket = TcpStream::connect(database.addr()).await.unwrap();
    socket
        .write_all(&[&SSL_REQUEST[..], b"\x16\x03\x01"].concat())
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, socket.read_to_end(&mut answer))
        .await
        .unwrap();
    assert_eq!(
        refusals(&world),
        ["08P01 received unencrypted data after SSL request"]
    );
    assert!(!answer.starts_with(b"S"), "{answer:?}");
}

#[tokio::test]
async fn a_cancel_request_is_handed_on() {
    let world = World::new();
    let database = world.database(engine(FrontKind::Instance)).await;
    let token = TokenFor::default().make();
    let mut sleeper = psql(&world, &database, "db_user", &token)
        .command("select pg_sleep(60)")
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    until_asleep(&database).await;
    let pid = nix::unistd::Pid::from_raw(sleeper.id().unwrap().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let mut said = String::new();
    let stderr = sleeper.stderr.as_mut().unwrap();
    timeout(PATIENCE, stderr.read_to_string(&mut said))
        .await
        .unwrap()
        .unwrap();
    assert!(
        said.contains("canceling statement due to user request"),
        "{said}"
    );
    // libpq before version 17 cancels in clear.
    let cancel = |e: &Event| {
        matches!(
            e,
            Event::FrontCancel {
                tls: false,
                key_length: 4,
                ..
            }
        )
    };
    assert_eq!(world.events.count(cancel), 1);
}

#[tokio::test]
async fn rds_proxy_has_a_public_certificate_and_words_of_its_own() {
    let world = World::new();
    let database = world.database(engine(FrontKind::RdsProxy)).await;
    let token = TokenFor::default().make();
    let text = psql(&world, &database, "db_user", &token).refusal().await;
    assert!(text.contains("certificate verify failed"), "{text}");
    let with = |password, more| Psql {
        ca: world.pki.public_ca_pem_path().to_owned(),
        more,
        ..psql(&world, &database, "db_user", password)
    };
    assert_eq!(with(&token, "").rows("select 1").await, "1");
    for (password, more, expected) in [
        (
            "wrong",
            "",
            "The IAM authentication failed for the role db_user. Check",
        ),
        (
            &token,
            "options='-c search_path=x'",
            "Feature not supported: RDS Proxy currently doesn\u{2019}t support command-line options.",
        ),
        (
            &token,
            "replication=database",
            "support streaming replication mode.",
        ),
    ] {
        let text = with(password, more).refusal().await;
        assert!(text.contains(expected), "{text}");
    }
    let mut plain = psql(&world, &database, "db_user", &token);
    plain.sslmode = "disable";
    let text = plain.refusal().await;
    assert!(
        text.contains("This RDS Proxy requires TLS connections."),
        "{text}"
    );
}

#[tokio::test]
async fn dsql_wants_tokens_of_its_own() {
    let world = World::new();
    let database = world
        .database(|o| {
            engine(FrontKind::Dsql)(o);
            o.endpoint.host = DSQL_HOST.to_owned();
        })
        .await;
    let token = |action| {
        TokenFor {
            host: DSQL_HOST,
            service: "dsql",
            action: Some(action),
            ..TokenFor::default()
        }
        .make()
    };
    let (admin, custom) = (token("DbConnectAdmin"), token("DbConnect"));
    let with = |user, password, more| Psql {
        ca: world.pki.public_ca_pem_path().to_owned(),
        dbname: "postgres",
        more,
        ..psql(&world, &database, user, password)
    };
    assert_eq!(
        with("admin", &admin, "").rows("select current_user").await,
        "admin"
    );
    let set = with("db_user", &custom, "options='-c search_path=pg_catalog'");
    assert_eq!(set.rows("show search_path").await, "pg_catalog");
    let denied = "unable to accept connection, access denied";
    let rds = TokenFor::default().make();
    for (user, password, more, expected) in [
        (
            "admin",
            &custom,
            "",
            "Wrong user to action mapping. user: admin, action: DbConnect",
        ),
        ("db_user", &admin, "", "action: DbConnectAdmin"),
        ("db_user", &rds, "", "The request signature we calculated"),
        (
            "admin",
            &admin,
            "options='-c work_mem=1MB'",
            "setting configuration parameter \"work_mem\" not supported",
        ),
    ] {
        let text = with(user, password, more).refusal().await;
        assert!(text.contains(expected), "{text}");
        assert_eq!(text.contains(denied), more.is_empty(), "{text}");
    }
    world.iam.update(KEY, |user| {
        let cluster = "arn:aws:dsql:eu-central-1:123456789012:cluster/abc123";
        user.deny.insert(format!("dsql:DbConnectAdmin {cluster}"));
        user.db_users.clear();
    });
    let text = with("admin", &admin, "").refusal().await;
    assert!(text.contains("HINT:  User: arn:aws:iam::123456789012:user/dev is not authorized to perform: dsql:DbConnectAdmin"), "{text}");
    let text = with("db_user", &custom, "").refusal().await;
    assert!(text.contains(denied) && !text.contains("HINT"), "{text}");
    let codes: Vec<_> = refusals(&world).iter().map(|r| r[..5].to_owned()).collect();
    assert_eq!(
        codes,
        ["08006", "08006", "08006", "0A000", "08006", "28000"]
    );
}

#[tokio::test]
async fn faults_happen_as_often_as_armed() {
    let world = World::new();
    let database = world.database(engine(FrontKind::Instance)).await;
    let token = TokenFor::default().make();
    let client = psql(&world, &database, "db_user", &token);
    for (fault, expected) in [
        (
            Fault::RefuseTls,
            "server does not support SSL, but SSL was required",
        ),
        (
            Fault::InjectAfterS(b"E".to_vec()),
            "received unencrypted data after SSL response",
        ),
        (Fault::CloseAfterStartup, "EOF detected"),
        (
            Fault::AtStartup(ServerError::starting_up()),
            "the database system is starting up",
        ),
        (
            Fault::AtStartup(ServerError::too_many_clients()),
            "sorry, too many clients already",
        ),
        (
            Fault::AtStartupWithReset(ServerError::too_many_clients()),
            "sorry, too many clients already",
        ),
        (
            Fault::AtToken(ServerError::pam("db_user")),
            "PAM authentication failed",
        ),
    ] {
        front(&database).arm(fault.clone(), 2);
        for _ in 0..2 {
            let text = client.refusal().await;
            assert!(text.contains(expected), "{fault:?}: {text}");
        }
        assert_eq!(client.rows("select 1").await, "1", "{fault:?} is over");
    }
    front(&database).arm(Fault::SilentAfterStartup, 1);
    let mut silent = psql(&world, &database, "db_user", &token);
    silent.more = "connect_timeout=2";
    let text = silent.refusal().await;
    assert!(text.contains("timeout expired"), "{text}");
    front(&database).arm(Fault::RefuseTls, 9);
    front(&database).disarm();
    assert_eq!(client.rows("select 1").await, "1");
}

#[tokio::test]
async fn a_reset_meets_who_has_sent_the_password_unasked() {
    let world = World::new();
    let database = world.database(engine(FrontKind::Instance)).await;
    let fault = Fault::AtStartupWithReset(ServerError::too_many_clients());
    front(&database).arm(fault, 1);
    let socket = TcpStream::connect(database.addr()).await.unwrap();
    let connector = connector(&world, &[b"postgresql"]);
    let mut tls = connector.connect(name(), socket).await.unwrap();
    let hello = startup((3, 0), &[("user", "db_user")]);
    tls.write_all(&hello).await.unwrap();
    let (kind, body) = timeout(PATIENCE, read_message(&mut tls))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(kind, b'E');
    assert!(String::from_utf8_lossy(&body).contains("C53300\0"));
    // The server waits for this before it closes, and does not read it.
    let _ = tls.write_all(&message(b'p', b"token\0")).await;
    let error = timeout(PATIENCE, tls.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
}

#[tokio::test]
async fn a_front_shows_bad_certificates_too() {
    let world = World::new();
    for (certificate, expected) in [
        (ServerCertificate::OtherName, "does not match host name"),
        (
            ServerCertificate::UnknownAuthority,
            "certificate verify failed",
        ),
        (ServerCertificate::NoTls, "server does not support SSL"),
    ] {
        let database = world
            .database(|o| {
                engine(FrontKind::Instance)(o);
                o.certificate = certificate;
            })
            .await;
        let text = psql(&world, &database, "db_user", "x").refusal().await;
        assert!(text.contains(expected), "{certificate:?}: {text}");
    }
    assert_eq!(tokens(&world), []);
}

#[tokio::test]
async fn a_restart_of_the_server_is_seen_through_the_front() {
    let world = World::new();
    let mut database = world.database(engine(FrontKind::Instance)).await;
    let socket = TcpStream::connect(database.addr()).await.unwrap();
    let connector = connector(&world, &[b"postgresql"]);
    let mut tls = connector.connect(name(), socket).await.unwrap();
    let mut hello = startup((3, 0), &[("user", "db_user"), ("database", "app")]);
    let token = TokenFor::default().make() + "\0";
    hello.extend(message(b'p', token.as_bytes()));
    tls.write_all(&hello).await.unwrap();
    assert!(
        timeout(PATIENCE, read_to_ready(&mut tls))
            .await
            .unwrap()
            .ends_with('Z')
    );
    database.postgres_mut().restart().await.unwrap();
    let (kind, body) = timeout(PATIENCE, read_message(&mut tls))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(kind, b'E');
    assert!(String::from_utf8_lossy(&body).contains("C57P01\0"));
    assert_eq!(
        timeout(PATIENCE, read_message(&mut tls)).await.unwrap(),
        None
    );
    let token = TokenFor::default().make();
    let client = psql(&world, &database, "db_user", &token);
    assert_eq!(client.rows("select 1").await, "1");
}
