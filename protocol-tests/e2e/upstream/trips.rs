//! Round trips of a login between the bastion and the database, by counting flights.

use std::net::SocketAddr;

use protocol_tests::network::dns::DnsServer;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;
use crate::support::name_of_this_machine;

/// Everybody is let in who has TLS.
const TRUST: &str = "hostssl all all 127.0.0.1/32 trust";

/// First login, the role's second one, and a third.
async fn first_and_later(world: &World) -> [u32; 3] {
    let mut counted = [0; 3];
    for trips in &mut counted {
        *trips = round_trips(world, "db_user").await;
    }
    counted
}

#[tokio::test]
async fn a_known_role_needs_three_and_with_direct_tls_two() {
    let world = World::with(instance(false, None)).await;
    // SSLRequest; TLS; startup; token. Later the last two are one.
    assert_eq!(first_and_later(&world).await, [4, 3, 3]);
    assert_eq!(direct(&world, HOST), [false; 3]);
    // What is known of one role says nothing about another.
    assert_eq!(round_trips(&world, "odd user@x").await, 4);
    assert_eq!(round_trips(&world, "odd user@x").await, 3);
    assert_eq!(tokens(&world), [true; 5]);
    world.stop().await;

    let world = World::with(instance(true, Some(eighteen().bindir()))).await;
    // The front's TLS library insists on the group its client likes best, and so asks again at the
    // first time; what PostgreSQL's does is below.
    assert_eq!(first_and_later(&world).await, [5, 2, 2]);
    assert_eq!(direct(&world, HOST), [false, true, true]);
    assert_eq!(round_trips(&world, "odd user@x").await, 3);
    assert_eq!(round_trips(&world, "odd user@x").await, 2);
    assert_eq!(tokens(&world), [true; 5]);
    world.stop().await;
}

/// The front's part is played by PostgreSQL itself here, with a TLS library that is not ours.
#[tokio::test]
async fn the_server_itself_counts_like_its_front() {
    let world = World::with(Setup {
        line: Some(LineOptions::counting()),
        ..Setup::default()
    })
    .await;
    assert_eq!(first_and_later(&world).await, [4, 3, 3]);
    world.stop().await;
}

/// A server that asks for nothing shows what TLS costs: no version's own TLS asks for another group,
/// not even the first time.
#[tokio::test]
async fn a_server_that_does_not_ask_costs_a_round_trip_less() {
    let versions = [(None, [3, 3, 3]), (Some(eighteen().bindir()), [3, 2, 2])];
    for (bindir, expected) in versions {
        let world = World::with(Setup {
            line: Some(LineOptions::counting()),
            engine: Engine::Passwords { bindir },
            hba: Some(TRUST.to_owned()),
            ..Setup::default()
        })
        .await;
        assert_eq!(first_and_later(&world).await, expected);
        world.stop().await;
    }
}

/// Passes on what comes to a port that is known before the database's: a machine inside of the VPC.
async fn route(listener: TcpListener, database: SocketAddr) {
    while let Ok((mut near, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut far = TcpStream::connect(database).await.expect("the database");
            near.set_nodelay(true).expect("an option");
            far.set_nodelay(true).expect("an option");
            // How a connection ends is its ends' business.
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
    }
}

/// A world that is reached without a tunnel, by a name that leads to this machine, and what takes
/// its connections.
async fn nearby(name: &str, more: &str, setup: Setup) -> (World, JoinHandle<()>) {
    let listener = TcpListener::bind((name, 0)).await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let (host, _) = setup.endpoint;
    let world = World::with(Setup {
        endpoint: (host, port),
        config: Some(format!(
            "[targets.near]\nhost = \"{name}:{port}\"\nuser = \"db_user\"\ndatabase = \"app\"\n\
             port = 0\nvia = \"direct\"\n{more}\n"
        )),
        ..setup
    })
    .await;
    let route = tokio::spawn(route(listener, world.database.addr()));
    (world, route)
}

#[tokio::test]
async fn without_a_tunnel_it_is_the_same() {
    // Systems whose hosts file has no such name have the test below.
    let Some(name) = name_of_this_machine() else {
        return;
    };
    let dns = DnsServer::start().await.expect("a name server");
    dns.set_cname(&name, HOST);
    let more = format!("dns_server = \"{}\"", dns.addr());
    for (expected, setup) in [
        ([4, 3, 3], instance(false, None)),
        ([5, 2, 2], instance(true, Some(eighteen().bindir()))),
    ] {
        let (world, route) = nearby(&name, &more, setup).await;
        assert_eq!(first_and_later(&world).await, expected);
        assert_eq!(tokens(&world), [true; 3]);
        assert_eq!(
            world.sandbox.events().count(|e| e.session_id().is_some()),
            0
        );
        world.stop().await;
        route.abort();
    }
}

#[tokio::test]
async fn nor_does_a_client_with_a_password_of_its_own_wait_for_more() {
    let trusting = |bindir| Setup {
        endpoint: ("localhost", 0),
        line: Some(LineOptions::counting()),
        engine: Engine::Passwords { bindir },
        hba: Some(TRUST.to_owned()),
        ..Setup::default()
    };
    for (expected, setup) in [
        ([3, 3, 3], trusting(None)),
        ([3, 2, 2], trusting(Some(eighteen().bindir()))),
    ] {
        let (world, route) = nearby("localhost", "auth = \"passthrough\"", setup).await;
        assert_eq!(first_and_later(&world).await, expected);
        assert_eq!(
            world.sandbox.events().count(|e| e.session_id().is_some()),
            0
        );
        world.stop().await;
        route.abort();
    }
}
