//! A host of the user's own that is an alias of the endpoint's name.

use std::time::Duration;

use protocol_tests::aws::iam::DbEndpoint;
use protocol_tests::database::front::{FrontOptions, Groups};
use protocol_tests::network::dns::{DnsServer, Manner};

use super::*;
use crate::support::{PORT, REGION};

const OWN: &str = "orders.db.example.com";
/// Another cluster of the same account.
const OTHER: &str = "billing.cluster-xyz.eu-central-1.rds.amazonaws.com";

async fn aliased(dns: &DnsServer) -> World {
    let mut setup = instance(false, None);
    setup.config = Some(config(OWN, &format!("dns_server = \"{}\"", dns.addr())));
    setup.names = vec![OWN];
    setup.line = None;
    World::with(setup).await
}

#[tokio::test]
async fn the_endpoint_behind_it_is_signed_for_and_verified() {
    let dns = DnsServer::start().await.expect("a name server");
    dns.set_cname(OWN, "orders.internal.example.com");
    dns.set_cname("orders.internal.example.com", HOST);
    let world = aliased(&dns).await;
    for _ in 0..2 {
        assert_eq!(world.query("select current_user").await, "db_user");
    }
    assert_eq!(tokens(&world), [true; 2]);
    assert_eq!(direct(&world, HOST), [false; 2]);
    // What the bastion looks up is the name of the configuration.
    let dialled = |event: &Event| matches!(event, Event::Dial { host, .. } if host == OWN);
    assert_eq!(count(&world, dialled), dials(&world));
    assert_eq!(dials(&world), 2);
    world.stop().await;
}

#[tokio::test]
async fn a_name_that_leads_nowhere_is_not_dialled() {
    let dns = DnsServer::start().await.expect("a name server");
    dns.set_addresses(OWN, &[[10, 0, 0, 1].into()]);
    let world = aliased(&dns).await;
    let (said, log) = refused(&world, &[]).await;
    assert_eq!(log["id"], "host.alias", "{said}");
    assert!(
        said.contains(&format!(
            "{OWN} is not an RDS or DSQL endpoint or a CNAME for one"
        )),
        "{said}"
    );
    assert!(said.contains("has no CNAME record"), "{said}");
    assert!(said.contains("HINT:  Set host to"), "{said}");
    assert_eq!(
        world.sandbox.events().all(),
        [],
        "nobody was asked for anything"
    );

    // DNS that does not answer is another matter.
    let world_of_silence = {
        world.stop().await;
        dns.set_manner(Manner::Fails);
        aliased(&dns).await
    };
    let (said, log) = refused(&world_of_silence, &[]).await;
    assert_eq!(log["id"], "host.dns", "{said}");
    assert_eq!(world_of_silence.sandbox.events().all(), []);
    world_of_silence.stop().await;
}

#[tokio::test]
async fn a_changed_alias_is_followed() {
    let dns = DnsServer::start().await.expect("a name server");
    dns.set_ttl(Duration::from_secs(300));
    dns.set_cname(OWN, HOST);
    let world = aliased(&dns).await;
    for _ in 0..2 {
        assert_eq!(world.query("select 1").await, "1");
    }
    // The other cluster, to which the name leads from now on, here and in the VPC.
    let sandbox = &world.sandbox;
    let options = FrontOptions {
        kind: FrontKind::Instance,
        direct: false,
        endpoint: DbEndpoint {
            host: OTHER.to_owned(),
            port: PORT,
            region: REGION.to_owned(),
        },
        backend: world.database.postgres().addr(),
        groups: Groups::P256,
        certificate: Some(sandbox.pki().issue(&[OTHER]).expect("a certificate")),
    };
    let other = RdsFront::start(options, sandbox.iam(), sandbox.events()).await;
    let other = other.expect("the other cluster");
    sandbox.vpc().open(OWN, PORT, other.addr());
    dns.set_cname(OWN, OTHER);

    // The wrong name in the certificate is all that happens, no token leaves, and the alias is looked
    // up again, although its time has not come.
    let seen = tokens(&world).len();
    let (said, log) = refused(&world, &[]).await;
    assert_eq!(log["id"], "tls.name", "{said}");
    assert_eq!(tokens(&world).len(), seen);
    assert_eq!(world.query("select 1").await, "1");
    assert_eq!(tokens(&world)[seen..], [true]);
    world.stop().await;
}
