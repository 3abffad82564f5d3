//! TLS without an SSLRequest: where it is tried, and what happens where it does not work.

use protocol_tests::database::front::{Fault, FrontOptions, Groups};
use protocol_tests::harness::pki::{Signer, Validity};
use protocol_tests::network::vpc::Endpoint;

use super::*;
use crate::support::PORT;

#[tokio::test]
async fn a_server_that_does_not_take_it_is_asked_once() {
    // As behind a pooler: the version is the server's, the TLS is not.
    let world = World::with(instance(false, Some(eighteen().bindir()))).await;
    for _ in 0..4 {
        let ran = world.psql(&["-A", "-t", "-c", "select 1"]).await;
        assert_eq!(clean_rows(&ran), "1");
    }
    assert_eq!(direct(&world, HOST), [false; 4]);
    assert_eq!(tokens(&world), [true; 4]);
    // The first login learns the version, the second tries and falls back, and that was it.
    let closed = |event: &Event| {
        matches!(event, Event::FrontRefused { message, .. }
            if message == "invalid length of startup packet")
    };
    assert_eq!(count(&world, closed), 1);
    assert_eq!(flights(&world).len(), 5, "{:?}", flights(&world));
    assert_eq!(refusals(&world), Vec::<Value>::new());
    world.stop().await;
}

#[tokio::test]
async fn one_that_never_answers_is_asked_once_too() {
    let mut setup = instance(false, Some(eighteen().bindir()));
    setup.config = Some(config(HOST, "connect_timeout = 20\ndial_timeout = 1"));
    let world = World::with(setup).await;
    front(&world).arm(Fault::SwallowClientHello, 9);
    let mut connections = Vec::new();
    for _ in 0..4 {
        let ran = world.psql(&["-A", "-t", "-c", "select 1"]).await;
        assert_eq!(clean_rows(&ran), "1");
        connections.push(flights(&world).len());
    }
    assert_eq!(direct(&world, HOST), [false; 4]);
    // The second one tries it, in vain; those after it do not.
    let [first, second, third, fourth] = connections[..] else {
        panic!("{connections:?}");
    };
    assert!(second > first + 1, "{connections:?}");
    assert_eq!((third, fourth), (second + 1, second + 2));
    world.stop().await;
}

#[tokio::test]
async fn a_server_that_fails_in_every_way_has_not_refused_it() {
    let world = World::with(instance(true, Some(eighteen().bindir()))).await;
    assert_eq!(world.query("select 1").await, "1");
    front(&world).arm(Fault::CloseAtClientHello, 1);
    front(&world).arm(Fault::RefuseTls, 1);
    let (said, log) = refused(&world, &[]).await;
    assert_eq!(log["id"], "database.no-tls", "{said}");
    assert_eq!(world.query("select 1").await, "1");
    assert_eq!(direct(&world, HOST), [false, true]);
    world.stop().await;
}

/// A second way to the same server, which shows what it is told to.
async fn impostor(world: &World, name: &str, signer: Signer, validity: Validity) -> RdsFront {
    let sandbox = &world.sandbox;
    let certificate = sandbox.pki().issue_with(&[name], signer, validity);
    let options = FrontOptions {
        kind: FrontKind::Instance,
        direct: true,
        endpoint: world.database.endpoint().clone(),
        backend: world.database.postgres().addr(),
        groups: Groups::X25519,
        certificate: Some(certificate.expect("a certificate")),
    };
    let front = RdsFront::start(options, sandbox.iam(), sandbox.events()).await;
    front.expect("a second front")
}

#[tokio::test]
async fn a_certificate_that_proves_nothing_ends_the_login_there() {
    let world = World::with(Setup {
        line: None,
        ..instance(true, Some(eighteen().bindir()))
    })
    .await;
    for _ in 0..2 {
        assert_eq!(world.query("select 1").await, "1");
    }
    assert_eq!(direct(&world, HOST), [false, true]);
    let vpc = world.sandbox.vpc();
    for (id, name, signer, validity) in [
        ("tls.name", "other", Signer::Sandbox, Validity::Current),
        ("tls.issuer", HOST, Signer::Stranger, Validity::Current),
        ("tls.validity", HOST, Signer::Sandbox, Validity::Expired),
    ] {
        let impostor = impostor(&world, name, signer, validity).await;
        let address = vpc.resolve(HOST).expect("the endpoint's address");
        vpc.open(HOST, PORT, impostor.addr());
        assert_eq!(vpc.resolve(HOST), Some(address), "the same to the bastion");
        let (dialled, started, seen) = (dials(&world), startups(&world), tokens(&world).len());
        let (said, log) = refused(&world, &[]).await;
        assert_eq!(log["id"], id, "{said}");
        assert!(said.contains("No token was sent."), "{said}");
        // Not asked again in another way, and told nothing.
        assert_eq!(dials(&world) - dialled, 1, "{id}");
        assert_eq!((startups(&world), tokens(&world).len()), (started, seen));
    }
    vpc.add(HOST, PORT, Endpoint::Open(world.database.addr()));
    // Direct TLS as before: nothing has been forgotten because of them.
    assert_eq!(world.query("select 1").await, "1");
    assert_eq!(direct(&world, HOST), [false, true, true]);
    world.stop().await;
}

#[tokio::test]
async fn ctrl_c_goes_the_same_way() {
    let world = World::with(instance(true, Some(eighteen().bindir()))).await;
    assert_eq!(world.query("select 1").await, "1");
    ctrl_c(&world, world.psql_command(&[])).await;
    let cancelled = |event: &Event| matches!(event, Event::FrontCancel { tls: true, .. });
    assert_eq!(count(&world, cancelled), 1);
    assert_eq!(direct(&world, HOST), [false, true, true]);
    world.stop().await;
}
