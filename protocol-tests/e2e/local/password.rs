//! The local password.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use protocol_tests::database::postgres::postgres18;

use super::peer::interface_address;
use super::reached;
use crate::failures::refusals;
use crate::support::{PATIENCE, Ran, Setup, World, eventually, launch, run};

const PASSWORD: &str = "a l\u{f6}cal secret";

async fn world_with_password(args: &[&str]) -> World {
    World::with(Setup {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec![("PGIAM_LOCAL_PASSWORD", Some(PASSWORD.to_owned()))],
        ..Setup::default()
    })
    .await
}

async fn with(world: &World, conninfo: &str, password: Option<&str>, libpq18: bool) -> Ran {
    let args = ["-A", "-t", "-d", conninfo, "-c", "select current_user"];
    let mut command = world.psql_command(&args);
    if let Some(password) = password {
        command.env("PGPASSWORD", password);
    }
    if libpq18 {
        command.env("LD_LIBRARY_PATH", postgres18().expect("18").libdir());
    }
    run(command).await
}

/// The secret is nowhere but where the test has put it.
fn kept(world: &World) {
    let log = world.proxy.log_text();
    assert!(!log.contains(PASSWORD) && !log.contains("cal secret"));
}

#[tokio::test]
async fn clients_log_in_with_scram_bound_to_tls_or_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("sockets").display().to_string();
    let world = world_with_password(&["--socket-dir", &path]).await;
    for (conninfo, libpq18) in [
        ("sslmode=disable", false),
        ("sslmode=require", false),
        ("sslmode=require channel_binding=require", false),
        ("sslmode=require channel_binding=disable", false),
        (
            "sslmode=require channel_binding=require require_auth=scram-sha-256",
            true,
        ),
        ("sslmode=disable require_auth=scram-sha-256", true),
        (
            "sslmode=require sslnegotiation=direct channel_binding=require",
            true,
        ),
    ] {
        let ran = with(&world, conninfo, Some(PASSWORD), libpq18).await;
        assert_eq!(ran.rows(), "db_user", "{conninfo}");
    }
    let before = reached(&world);
    // Clients that would take a login that succeeds by itself for an attack.
    for (conninfo, libpq18) in [
        ("sslmode=require channel_binding=require", false),
        ("sslmode=require require_auth=scram-sha-256", true),
    ] {
        let ran = with(&world, conninfo, Some("wrong"), libpq18).await;
        let said = "FATAL:  password authentication failed for pgiam";
        assert!(ran.stderr.contains(said), "{ran:?}");
    }
    let ran = with(&world, "sslmode=prefer", Some("wrong"), false).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let said = "FATAL:  password authentication failed for pgiam";
    assert!(ran.stderr.contains(said), "{ran:?}");
    let wrong = eventually("it is logged", || {
        let mut log = refusals(&world).into_iter();
        log.rfind(|line| line["id"] == "password.wrong")
    });
    assert_eq!(wrong.await["sqlstate"], "28P01");
    let ran = with(&world, "", None, false).await;
    assert!(ran.stderr.contains("no password supplied"), "{ran:?}");
    assert_eq!(
        reached(&world),
        before,
        "a guess costs the database nothing"
    );

    let host = format!("host={path}");
    let ran = with(&world, &host, None, false).await;
    assert_eq!(ran.rows(), "db_user", "the socket's users are known");
    kept(&world);
    world.stop().await;
}

#[tokio::test]
async fn without_one_a_client_that_insists_says_so_itself() {
    let world = World::start().await;
    let ran = with(
        &world,
        "sslmode=require channel_binding=require",
        None,
        false,
    )
    .await;
    assert!(ran.stderr.contains("channel binding required"), "{ran:?}");
    let asks = "sslmode=require require_auth=scram-sha-256";
    let ran = with(&world, asks, None, true).await;
    assert!(ran.stderr.contains("scram-sha-256"), "{ran:?}");
    assert!(ran.stderr.contains("requirement"), "{ran:?}");
    world.stop().await;
}

#[tokio::test]
async fn other_addresses_need_one() {
    let world = world_with_password(&["--address", "0.0.0.0"]).await;
    let mut addresses: Vec<String> = vec!["127.0.0.1".into(), "127.0.0.2".into()];
    match interface_address(Ipv4Addr::LOCALHOST.into()) {
        Some(address) => addresses.push(address.to_string()),
        None => println!("skipped: this machine has no address but the loopback's"),
    }
    for address in addresses {
        let conninfo = format!("host={address} sslmode=require channel_binding=require");
        let ran = with(&world, &conninfo, Some(PASSWORD), false).await;
        assert_eq!(ran.rows(), "db_user", "{address}");
        let ran = with(&world, &format!("host={address}"), None, false).await;
        assert!(ran.stderr.contains("no password supplied"), "{ran:?}");
    }
    kept(&world);

    let setup = Setup {
        args: vec!["--address".into(), "0.0.0.0".into()],
        ..Setup::default()
    };
    let said = refused(&world, &setup).await;
    assert!(said.contains("0.0.0.0"), "{said}");
    assert!(said.contains("password_file"), "{said}");
    world.stop().await;
}

/// What a program that does not start says.
async fn refused(world: &World, setup: &Setup) -> String {
    let mut second = launch(&world.sandbox, setup);
    let refused = second.wait_ready(PATIENCE).await;
    let said = refused.expect_err("it must not start").to_string();
    assert!(said.contains("exit status: "), "{said}");
    said
}

fn with_file(path: &Path) -> Setup {
    Setup {
        args: vec!["--password-file".into(), path.display().to_string()],
        ..Setup::default()
    }
}

#[tokio::test]
async fn a_file_holds_it_that_is_closed_to_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("password");
    std::fs::write(&file, format!("{PASSWORD}\nsecond line\n")).expect("the file");
    let allow = |mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&file, mode).expect("its mode");
    };
    allow(0o600);
    let world = World::with(with_file(&file)).await;
    let ran = with(&world, "", Some(PASSWORD), false).await;
    assert_eq!(ran.rows(), "db_user");
    kept(&world);

    for mode in [0o644, 0o640, 0o602] {
        allow(mode);
        let said = refused(&world, &with_file(&file)).await;
        assert!(said.contains("is accessible to other users"), "{said}");
        assert!(said.contains("chmod 600"), "{said}");
        assert!(!said.contains(PASSWORD), "{said}");
    }
    std::fs::write(&file, "").expect("the file");
    allow(0o600);
    let said = refused(&world, &with_file(&file)).await;
    assert!(said.contains("is empty"), "{said}");
    let twice = Setup {
        env: vec![("PGIAM_LOCAL_PASSWORD", Some(PASSWORD.to_owned()))],
        ..with_file(&file)
    };
    let said = refused(&world, &twice).await;
    assert!(said.contains("the local password is set twice"), "{said}");
    assert!(!said.contains(PASSWORD), "{said}");
    world.stop().await;
}
