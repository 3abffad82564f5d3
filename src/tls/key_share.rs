//! Key exchange group of the first key share sent to a database.
//!
//! A TLS 1.3 client sends a share for one group and lists the others; a server that does not accept
//! that group asks again, which costs a round trip (HelloRetryRequest, RFC 8446, section 4.1.4).
//! PostgreSQL before version 18 accepts only secp256r1 (`ssl_ecdh_curve`, default `prime256v1`),
//! and version 18 accepts it beside X25519 (`ssl_groups`), so with secp256r1 no version asks again.
//! The endpoints of RDS Proxy and Aurora DSQL are not PostgreSQL servers; there the order of
//! preference decides, with the hybrid post-quantum group first. Only the share differs: every
//! server is offered all groups in their order.

use rustls::NamedGroup;
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;

use crate::config::EndpointKind;

/// Maximum number of servers in the cache, more than any configuration has targets.
const SERVERS: usize = 256;

/// Results of earlier handshakes, and a guess for the first one.
#[derive(Debug)]
pub(super) struct KeyShareMemory {
    seen: ClientSessionMemoryCache,
}

impl KeyShareMemory {
    /// Creates an empty cache.
    pub(super) fn new() -> Self {
        Self {
            seen: ClientSessionMemoryCache::new(SERVERS),
        }
    }
}

fn guess(server: &str) -> Option<NamedGroup> {
    match EndpointKind::of(server) {
        EndpointKind::Proxy | EndpointKind::Dsql => None,
        _ => Some(NamedGroup::secp256r1),
    }
}

impl ClientSessionStore for KeyShareMemory {
    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.seen.set_kx_hint(server, group);
    }

    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        let seen = self.seen.kx_hint(server);
        seen.or_else(|| guess(&server.to_str()))
    }

    fn set_tls12_session(&self, server: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.seen.set_tls12_session(server, value);
    }

    fn tls12_session(&self, server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.seen.tls12_session(server)
    }

    fn remove_tls12_session(&self, server: &ServerName<'static>) {
        self.seen.remove_tls12_session(server);
    }

    fn insert_tls13_ticket(&self, server: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.seen.insert_tls13_ticket(server, value);
    }

    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.seen.take_tls13_ticket(server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_guess_gives_way_to_what_was_seen() {
        let guessing = KeyShareMemory::new();
        let name = |host: &str| ServerName::try_from(host.to_owned()).unwrap();
        let hint = |host: &str| guessing.kx_hint(&name(host));
        let cluster = "orders.cluster-abc.eu-central-1.rds.amazonaws.com";
        let postgres = Some(NamedGroup::secp256r1);
        assert_eq!(hint(cluster), postgres);
        assert_eq!(hint("db.example.com"), postgres);
        assert_eq!(hint("p.proxy-abc.eu-central-1.rds.amazonaws.com"), None);
        assert_eq!(hint("abc.dsql.eu-central-1.on.aws"), None);
        guessing.set_kx_hint(name(cluster), NamedGroup::X25519);
        assert_eq!(hint(cluster), Some(NamedGroup::X25519));
    }
}
