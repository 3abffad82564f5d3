//! RDS Proxy: version 3.0 of the protocol, few startup parameters, certificates of another authority.

use protocol_tests::network::dns::DnsServer;

use super::*;

const PROXY: &str = "orders.proxy-abc.eu-central-1.rds.amazonaws.com";

async fn proxy() -> World {
    World::with(Setup {
        endpoint: (PROXY, crate::support::PORT),
        config: Some(config(PROXY, "")),
        engine: Engine::front(FrontKind::RdsProxy),
        ..Setup::default()
    })
    .await
}

const WHO: &str = "select current_user, current_database()";

#[tokio::test]
async fn clients_of_all_versions_get_one_it_knows() {
    let world = proxy().await;
    let ran = world.psql(&["-A", "-t", "-c", WHO]).await;
    assert_eq!(clean_rows(&ran), "db_user|app");
    assert_eq!(last_startup(&world).0, (3, 0));

    let newest = ["-A", "-t", "-d", "max_protocol_version=3.2", "-c", WHO];
    let ran = run(psql18(&world, &newest)).await;
    assert_eq!(clean_rows(&ran), "db_user|app");
    assert_eq!(last_startup(&world).0, (3, 0));
    assert_eq!(tokens(&world), [true; 2]);

    // Who insists hears so from libpq, as from any server of that age.
    let insisting = ["-d", "min_protocol_version=3.2", "-c", WHO];
    let ran = run(psql18(&world, &insisting)).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let words =
        "server only supports protocol version 3.0, but \"min_protocol_version\" was set to 3.2";
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
    world.stop().await;
}

#[tokio::test]
async fn so_do_those_of_an_alias() {
    let own = "pool.db.example.com";
    let dns = DnsServer::start().await.expect("a name server");
    dns.set_cname(own, PROXY);
    let world = World::with(Setup {
        endpoint: (PROXY, crate::support::PORT),
        config: Some(config(own, &format!("dns_server = \"{}\"", dns.addr()))),
        engine: Engine::front(FrontKind::RdsProxy),
        names: vec![own],
        ..Setup::default()
    })
    .await;
    let newest = ["-A", "-t", "-d", "max_protocol_version=3.2", "-c", WHO];
    let ran = run(psql18(&world, &newest)).await;
    assert_eq!(clean_rows(&ran), "db_user|app");
    assert_eq!(last_startup(&world).0, (3, 0));
    world.stop().await;
}

/// The same where the client answers for itself.
#[tokio::test]
async fn they_are_told_once() {
    let world = World::with(Setup {
        endpoint: (PROXY, crate::support::PORT),
        config: Some(config(PROXY, "auth = \"passthrough\"")),
        engine: Engine::front(FrontKind::RdsProxy),
        ..Setup::default()
    })
    .await;
    let addr = ([127, 0, 0, 1], world.proxy.port()).into();
    let asked = [("user", "scram_only"), ("database", "app")];
    let mut client = Raw::begin(addr, version(2), &asked).await;
    let mut kinds = Vec::new();
    for _ in 0..2 {
        kinds.push(client.next().await.0);
    }
    assert_eq!(kinds, b"vR");
    client.send(b"p\0\0\0\x0anonsense\0").await;
    assert_eq!(client.next().await.0, b'E');
    assert_eq!(last_startup(&world).0, (3, 0));
    world.stop().await;
}

#[tokio::test]
async fn protocol_options_are_declined_by_name() {
    let world = proxy().await;
    let addr = ([127, 0, 0, 1], world.proxy.port()).into();
    let asked = [
        ("user", "db_user"),
        ("database", "app"),
        ("_pq_.later", "1"),
    ];
    let mut client = Raw::with_version(addr, version(2), &asked).await;
    // Newest minor version; one option; its name.
    let told = client.told(b'v');
    assert_eq!(told, b"\0\x03\0\0\0\0\0\x01_pq_.later\0");
    assert_eq!(client.greeting[0].0, b'v', "before all else");
    assert_eq!(client.query("select 1").await, b"TDCZ");
    client.leave().await;
    let (asked, parameters) = last_startup(&world);
    assert_eq!(asked, (3, 0));
    assert!(parameters.iter().all(|(name, _)| !name.starts_with("_pq_")));
    world.stop().await;
}

#[tokio::test]
async fn what_it_refuses_is_told_in_its_own_words() {
    let world = proxy().await;
    let (said, log) = refused(&world, &["-d", "options='-c work_mem=7MB'"]).await;
    let words = "FATAL:  Feature not supported: RDS Proxy currently doesn\u{2019}t support \
                 command-line options.";
    assert!(said.contains(words), "{said}");
    assert_eq!(log["sqlstate"], "0A000");
    assert_eq!(tokens(&world), [true; 0]);
    world.stop().await;
}
