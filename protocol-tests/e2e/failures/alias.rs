//! A database that is configured by a name of one's own.

use protocol_tests::network::dns::{DnsServer, Manner};

use super::{Record, tokens_seen};
use crate::support::{HOST, PORT, Setup, World, ordinary_config};

const ALIAS: &str = "orders.db.example.com";

/// A world whose target has the name [`ALIAS`], in the DNS of `dns`.
async fn world(dns: &DnsServer, env: Vec<(&'static str, Option<String>)>) -> World {
    let config = ordinary_config().replace(HOST, ALIAS);
    let config = format!("{config}dns_server = \"{}\"\n", dns.addr());
    let world = World::with(Setup {
        config: Some(config),
        env,
        ..Setup::default()
    })
    .await;
    let vpc = world.sandbox.vpc();
    vpc.open(ALIAS, PORT, world.database.addr());
    world
}

#[tokio::test]
async fn names_that_lead_nowhere() {
    let mut record = Record::new("alias");
    let dns = DnsServer::start().await.expect("DNS");
    dns.set_cname("loop.db.example.com", ALIAS);
    dns.set_cname("shop.example.net", "gone.example.net");
    for (title, cname) in [
        ("it does not exist", None),
        ("an alias of something else", Some("shop.example.net")),
        ("an alias of itself in the end", Some("loop.db.example.com")),
    ] {
        match cname {
            Some(cname) => dns.set_cname(ALIAS, cname),
            None => dns.remove(ALIAS),
        }
        // Each of its own: an answer is kept for a while.
        let world = world(&dns, Vec::new()).await;
        record.refused(&world, title, &[]).await;
        assert_eq!(tokens_seen(&world), 0);
        record.leave(world).await;
    }
    dns.set_manner(Manner::Fails);
    let world = world(&dns, Vec::new()).await;
    record.refused(&world, "DNS fails", &[]).await;
    record.text = record.text.replace(&dns.addr().to_string(), "DNS");
    record.leave(world).await;
    record.compare();
}

#[tokio::test]
async fn the_region_of_an_alias_is_not_in_its_name() {
    let mut record = Record::new("no-region");
    let dns = DnsServer::start().await.expect("DNS");
    dns.set_cname(ALIAS, HOST);
    let world = world(&dns, vec![("AWS_REGION", None)]).await;
    record.refused(&world, "no region anywhere", &[]).await;
    record.leave(world).await;
    record.compare();
}
