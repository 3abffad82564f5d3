//! `auth = "passthrough"`: the client's own password, through tunnel and verified TLS.

use protocol_tests::database::postgres::SCRAM_PASSWORD;
use protocol_tests::database::rds::ServerCertificate;
use protocol_tests::network::vpc::Endpoint;

use super::*;
use crate::support::PORT;

const MORE: &str = "auth = \"passthrough\"";

/// SCRAM for who has such a password, MD5 for who has an older one, and clear text for one.
const HBA: &str = "hostssl all plain 127.0.0.1/32 password\nhostssl all all 127.0.0.1/32 md5";

async fn passthrough(engine: Engine) -> World {
    World::with(Setup {
        config: Some(config(HOST, MORE)),
        engine,
        hba: Some(HBA.to_owned()),
        ..Setup::default()
    })
    .await
}

fn passwords(bindir: Option<PathBuf>) -> Engine {
    Engine::Passwords { bindir }
}

const WHO: &str = "select current_user, ssl, version from pg_stat_ssl where pid = pg_backend_pid()";

/// psql with a password for `user`. A client that names a role names its database, too: the target's
/// own does not take its place here.
fn psql(world: &World, user: &str, password: &str, conninfo: &str) -> Command {
    let mut command = world.psql_command(&["-A", "-t", "-U", user, "-d", conninfo, "-c", WHO]);
    command.env("PGPASSWORD", password).env("PGDATABASE", "app");
    command
}

/// Not IAM, not SSM's business, and TLS all the way that is not this machine.
async fn logs_in(world: &World, user: &str, password: &str, conninfo: &str) {
    let ran = run(psql(world, user, password, conninfo)).await;
    assert_eq!(clean_rows(&ran), format!("{user}|t|TLSv1.3"), "{conninfo}");
}

#[tokio::test]
async fn the_clients_password_decides() {
    for engine in [passwords(None), passwords(Some(eighteen().bindir()))] {
        let world = passthrough(engine).await;
        let old = "set password_encryption = 'md5'; create role old login password 'of old'";
        world.admin(old).await;
        world
            .admin("create role plain login password 'in clear'")
            .await;
        // Twice, because the second time may go by direct TLS.
        for _ in 0..2 {
            logs_in(&world, "scram_only", SCRAM_PASSWORD, "sslmode=disable").await;
            logs_in(&world, "old", "of old", "sslmode=disable").await;
            let unbound = "sslmode=require channel_binding=disable";
            logs_in(&world, "scram_only", SCRAM_PASSWORD, unbound).await;
            logs_in(&world, "old", "of old", "sslmode=require").await;
            logs_in(&world, "plain", "in clear", "sslmode=disable").await;
            logs_in(&world, "plain", "in clear", "sslmode=require").await;
        }
        for (user, conninfo) in [
            ("scram_only", "sslmode=disable"),
            ("old", "sslmode=disable"),
            ("plain", "sslmode=require"),
            ("scram_only", "sslmode=require channel_binding=disable"),
            ("nobody", "sslmode=disable"),
        ] {
            let command = psql(&world, user, "wrong", conninfo);
            let (said, log) = refused_command(&world, command).await;
            let words = format!("FATAL:  password authentication failed for user \"{user}\"\n");
            let (theirs, ours) = said.split_once("HINT:  ").expect("a hint of ours");
            assert!(theirs.ends_with(&words), "nothing of ours in it: {said}");
            assert!(ours.contains("passthrough"), "{said}");
            assert_eq!(log["sqlstate"], "28P01");
        }
        assert_eq!(tokens(&world), [true; 0]);
        world.stop().await;
    }
}

/// What fails after the password was taken, over every kind of local connection.
#[tokio::test]
async fn words_after_the_login_are_the_servers() {
    let world = passthrough(passwords(None)).await;
    let old = "set password_encryption = 'md5'; create role old login password 'of old'";
    world.admin(old).await;
    for conninfo in [
        "dbname=nosuch sslmode=disable",
        "dbname=nosuch sslmode=prefer",
        "dbname=nosuch sslmode=require",
    ] {
        let (said, log) = refused_command(&world, psql(&world, "old", "of old", conninfo)).await;
        assert!(
            said.contains("FATAL:  database \"nosuch\" does not exist\n"),
            "{conninfo}: {said}"
        );
        assert_eq!(log["sqlstate"], "3D000");
    }
    // A client that takes nothing between its password and the refusal of it.
    let mut wrong = psql(&world, "old", "wrong", "sslmode=require require_auth=md5");
    wrong.env("LD_LIBRARY_PATH", eighteen().libdir());
    let (said, _) = refused_command(&world, wrong).await;
    let words = "FATAL:  password authentication failed for user \"old\"\n";
    assert!(said.contains(words), "{said}");
    world.stop().await;
}

/// As the server itself takes it.
#[tokio::test]
async fn queries_need_not_wait_for_the_server_to_be_ready() {
    let world = passthrough(passwords(None)).await;
    world
        .admin("create role plain login password 'in clear'")
        .await;
    let addr = ([127, 0, 0, 1], world.proxy.port()).into();
    let asked = [("user", "plain"), ("database", "app")];
    let mut client = Raw::begin(addr, version(0), &asked).await;
    assert_eq!(client.next().await, (b'R', vec![0, 0, 0, 3]));
    client.send(b"p\0\0\0\x0din clear\0").await;
    client.ask("select 1").await;
    assert_eq!(client.next().await, (b'R', vec![0; 4]));
    client.ask("select 2").await;
    for expected in ["", "1", "2"] {
        let heard = client.hear().await;
        let row = heard.iter().find(|(kind, _)| *kind == b'D');
        let value = row.map(|(_, body)| String::from_utf8_lossy(&body[6..]).into_owned());
        assert_eq!(value.unwrap_or_default(), expected);
    }
    client.leave().await;
    world.stop().await;
}

#[tokio::test]
async fn what_we_add_comes_once_and_in_its_place() {
    let world = World::with(Setup {
        config: Some(config(
            HOST,
            &format!("{MORE}\nignore_startup_parameters = [\"geqo\"]"),
        )),
        engine: passwords(None),
        hba: Some(HBA.to_owned()),
        ..Setup::default()
    })
    .await;
    let mut command = psql(&world, "scram_only", SCRAM_PASSWORD, "sslmode=disable");
    command.env("PGGEQO", "on");
    let ran = run(command).await;
    assert_eq!(ran.rows(), "scram_only|t|TLSv1.3");
    let warning = "WARNING:  pgiam removed startup parameters: geqo\n\
                   HINT:  They are listed in ignore_startup_parameters of the target.\n";
    assert_eq!(ran.stderr, warning);
    world.stop().await;
}

#[tokio::test]
async fn a_client_that_gives_up_gives_back_its_place() {
    let patient =
        format!("{MORE}\nconnection_limit = 1\nconnect_timeout = 300\ndial_timeout = 200");
    let world = World::with(Setup {
        config: Some(config(HOST, &patient)),
        engine: passwords(None),
        hba: Some(HBA.to_owned()),
        ..Setup::default()
    })
    .await;
    let address = world.database.addr();
    world.sandbox.vpc().add(HOST, PORT, Endpoint::Blackhole);
    let asked = [("user", "scram_only"), ("database", "app")];
    let addr = ([127, 0, 0, 1], world.proxy.port()).into();
    let mut one = Raw::begin(addr, version(0), &asked).await;
    let mut two = Raw::begin(addr, version(0), &asked).await;
    // The other one has the place.
    let (kind, body) = tokio::select! {
        heard = one.next() => heard,
        heard = two.next() => heard,
    };
    let said = String::from_utf8_lossy(&body).into_owned();
    assert!(kind == b'E' && said.contains("C53300\0"), "{said}");
    drop((one, two));
    world.sandbox.vpc().add(HOST, PORT, Endpoint::Open(address));
    let third = || psql(&world, "scram_only", SCRAM_PASSWORD, "sslmode=disable");
    let free = async { while run(third()).await.code != Some(0) {} };
    timeout(PATIENCE, free).await.expect("the place is free");
    world.stop().await;
}

#[tokio::test]
async fn a_login_bound_to_local_tls_is_told_what_to_set() {
    let world = passthrough(passwords(None)).await;
    let command = psql(&world, "scram_only", SCRAM_PASSWORD, "sslmode=require");
    let (said, log) = refused_command(&world, command).await;
    assert_eq!(log["id"], "client.channel-binding", "{said}");
    assert!(said.contains("channel_binding=disable"), "{said}");
    assert!(said.contains("sslmode=disable"), "{said}");
    // By default libpq does so itself.
    logs_in(&world, "scram_only", SCRAM_PASSWORD, "sslmode=prefer").await;
    let mut newer = psql(&world, "scram_only", SCRAM_PASSWORD, "sslmode=prefer");
    newer.env("LD_LIBRARY_PATH", eighteen().libdir());
    assert_eq!(run(newer).await.rows(), "scram_only|t|TLSv1.3");
    world.stop().await;
}

#[tokio::test]
async fn ctrl_c_works_as_ever() {
    let world = passthrough(passwords(None)).await;
    let mut command = world.psql_command(&["-U", "scram_only", "-d", "sslmode=disable"]);
    command
        .env("PGPASSWORD", SCRAM_PASSWORD)
        .env("PGDATABASE", "app");
    ctrl_c(&world, command).await;
    world.stop().await;
}

#[tokio::test]
async fn a_server_that_does_not_take_direct_tls_is_asked_once() {
    let mut setup = instance(false, Some(eighteen().bindir()));
    setup.config = Some(config(HOST, MORE));
    let world = World::with(setup).await;
    for _ in 0..3 {
        let who = ["-A", "-t", "-U", "scram_only", "-d", "sslmode=disable"];
        let mut command = world.psql_command(&who);
        command.args(["-c", "select current_user"]);
        command
            .env("PGPASSWORD", SCRAM_PASSWORD)
            .env("PGDATABASE", "app");
        let ran = run(command).await;
        assert_eq!(clean_rows(&ran), "scram_only");
    }
    assert_eq!(direct(&world, HOST), [false; 3]);
    assert_eq!(flights(&world).len(), 4);
    world.stop().await;
}

/// A certificate that proves nothing gets no password either.
#[tokio::test]
async fn no_password_reaches_a_server_that_is_not_verified() {
    let mut setup = instance(false, None);
    setup.config = Some(config(HOST, MORE));
    setup.certificate = ServerCertificate::OtherName;
    let world = World::with(setup).await;
    let command = psql(&world, "scram_only", SCRAM_PASSWORD, "sslmode=disable");
    let (said, log) = refused_command(&world, command).await;
    assert_eq!(log["id"], "tls.name", "{said}");
    assert_eq!(startups(&world), 0);
    world.stop().await;
}
