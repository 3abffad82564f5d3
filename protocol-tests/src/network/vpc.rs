//! The network behind the bastion: which names resolve there, and what each address and port does.
//!
//! The database's RDS name resolves here and nowhere else, so a proxy that dialled it directly would
//! fail, as it would on a laptop.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::harness::sync::lock;

/// How long Linux tries to connect to a silent address with its default of six SYN retries.
pub const SILENT_DIAL: Duration = Duration::from_secs(127);

/// What a dial to one port of one address meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// A listener at this real address.
    Open(SocketAddr),
    /// Nobody listens: an immediate refusal.
    Refused,
    /// Packets vanish, as behind a security group that does not allow them.
    Blackhole,
}

/// How the resolver that bastions ask treats them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resolver {
    /// It answers.
    #[default]
    Answers,
    /// It says that it has failed.
    Misbehaves,
    /// It says nothing.
    Silent,
}

/// The resolver's address, as Go names it.
const RESOLVER: &str = "10.0.0.2:53";

/// Name and route table; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Vpc(Arc<Mutex<Tables>>);

#[derive(Debug, Default)]
struct Tables {
    names: HashMap<String, Vec<IpAddr>>,
    resolver: Resolver,
    ports: HashMap<(IpAddr, u16), Endpoint>,
    handed_out: u32,
}

impl Vpc {
    /// An empty network: no name resolves.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes `host` resolve (to a private address of its own) and `port` there behave as `endpoint`.
    /// A second call changes the endpoint and keeps the address.
    pub fn add(&self, host: &str, port: u16, endpoint: Endpoint) -> IpAddr {
        let mut tables = lock(&self.0);
        let address = match literal(host).or_else(|| tables.find(host)) {
            Some(known) => known,
            None => {
                tables.handed_out += 1;
                let address = IpAddr::V4(Ipv4Addr::from(0x0A00_0100 + tables.handed_out));
                let name = host.to_ascii_lowercase();
                tables.names.insert(name, vec![address]);
                address
            }
        };
        tables.ports.insert((address, port), endpoint);
        address
    }

    /// Shorthand for [`Self::add`] with [`Endpoint::Open`].
    pub fn open(&self, host: &str, port: u16, real: SocketAddr) -> IpAddr {
        self.add(host, port, Endpoint::Open(real))
    }

    /// Makes a name point to another address, as a failover does. Sessions that have resolved the
    /// name before do not notice.
    pub fn point(&self, host: &str, address: IpAddr) {
        self.point_to_all(host, &[address]);
    }

    /// The same with several addresses, which the agent tries in this order.
    pub fn point_to_all(&self, host: &str, addresses: &[IpAddr]) {
        let name = host.to_ascii_lowercase();
        lock(&self.0).names.insert(name, addresses.to_vec());
    }

    /// How the resolver treats lookups from now on.
    pub fn set_resolver(&self, resolver: Resolver) {
        lock(&self.0).resolver = resolver;
    }

    /// A failover: `host` resolves to a new private address from now on, whose `port` behaves as
    /// `endpoint`, while the old address stays what it is. Sessions that have resolved the name
    /// before keep dialling the old one; new sessions get the new one.
    pub fn repoint(&self, host: &str, port: u16, endpoint: Endpoint) -> IpAddr {
        self.forget(host);
        self.add(host, port, endpoint)
    }

    /// Makes a name unknown; its old address keeps working for who has it.
    pub fn forget(&self, host: &str) {
        lock(&self.0).names.remove(&host.to_ascii_lowercase());
    }

    /// The first address of a name. Address literals resolve to themselves.
    pub fn resolve(&self, host: &str) -> Option<IpAddr> {
        literal(host).or_else(|| lock(&self.0).find(host))
    }

    /// A DNS lookup on the bastion: all addresses of the name.
    ///
    /// # Errors
    /// The words of Go's resolver, which the real agent uses.
    pub fn lookup(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        if let Some(address) = literal(host) {
            return Ok(vec![address]);
        }
        let tables = lock(&self.0);
        let found = tables.names.get(&host.to_ascii_lowercase()).cloned();
        let failed = |why: &str| Err(format!("lookup {host} on {RESOLVER}: {why}"));
        match (tables.resolver, found) {
            (Resolver::Misbehaves, _) => failed("server misbehaving"),
            (Resolver::Silent, _) => failed(&format!(
                "read udp 10.0.0.10:48721->{RESOLVER}: i/o timeout"
            )),
            (Resolver::Answers, Some(addresses)) if !addresses.is_empty() => Ok(addresses),
            (Resolver::Answers, _) => failed("no such host"),
        }
    }

    /// Dials from the bastion. Ports without an entry refuse.
    pub async fn dial(&self, address: IpAddr, port: u16) -> io::Result<TcpStream> {
        let endpoint = lock(&self.0).ports.get(&(address, port)).copied();
        match endpoint {
            Some(Endpoint::Open(real)) => {
                let socket = TcpStream::connect(real).await?;
                // Go's dialer, which the real agent uses, turns Nagle off.
                socket.set_nodelay(true)?;
                Ok(socket)
            }
            Some(Endpoint::Blackhole) => {
                tokio::time::sleep(SILENT_DIAL).await;
                let text = format!("dial tcp {address}:{port}: connect: connection timed out");
                Err(io::Error::new(io::ErrorKind::TimedOut, text))
            }
            Some(Endpoint::Refused) | None => {
                let text = format!("dial tcp {address}:{port}: connect: connection refused");
                Err(io::Error::new(io::ErrorKind::ConnectionRefused, text))
            }
        }
    }
}

impl Tables {
    fn find(&self, host: &str) -> Option<IpAddr> {
        let addresses = self.names.get(&host.to_ascii_lowercase())?;
        addresses.first().copied()
    }
}

/// The address that a text is, or that every node's own hosts file has for it.
fn literal(host: &str) -> Option<IpAddr> {
    match host {
        "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
        other => other.parse().ok(),
    }
}

/// Whether the agent refuses to forward to this address: instance metadata and the VPC's resolver,
/// in both address families.
pub fn is_forbidden(address: IpAddr) -> bool {
    const V4: [Ipv4Addr; 2] = [
        Ipv4Addr::new(169, 254, 169, 253),
        Ipv4Addr::new(169, 254, 169, 254),
    ];
    const V6: [Ipv6Addr; 2] = [
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x253),
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    ];
    match address {
        IpAddr::V4(v4) => V4.contains(&v4),
        IpAddr::V6(v6) => {
            V6.contains(&v6) || v6.to_ipv4_mapped().is_some_and(|v4| V4.contains(&v4))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_are_private_and_ports_are_closed_unless_opened() {
        let vpc = Vpc::new();
        assert_eq!(vpc.resolve("db.internal"), None);
        let unknown = vpc.lookup("db.internal").unwrap_err();
        assert_eq!(unknown, "lookup db.internal on 10.0.0.2:53: no such host");
        let ip = vpc.add("DB.internal", 5432, Endpoint::Refused);
        assert_eq!(vpc.resolve("db.internal"), Some(ip));
        for port in [5432, 1] {
            let error = vpc.dial(ip, port).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        vpc.open("db.internal", 5432, listener.local_addr().unwrap());
        assert_eq!(vpc.resolve("db.internal"), Some(ip));
        vpc.dial(ip, 5432).await.unwrap();
        let moved = vpc.repoint("db.internal", 5432, Endpoint::Refused);
        assert_ne!(moved, ip);
        assert_eq!(vpc.resolve("DB.internal"), Some(moved));
        assert!(vpc.dial(moved, 5432).await.is_err());
        vpc.dial(ip, 5432).await.unwrap();
        vpc.forget("db.internal");
        assert_eq!(vpc.resolve("db.internal"), None);
        vpc.dial(ip, 5432).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_blackhole_costs_two_minutes() {
        let vpc = Vpc::new();
        let ip = vpc.add("db.internal", 5432, Endpoint::Blackhole);
        let begin = tokio::time::Instant::now();
        let error = vpc.dial(ip, 5432).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begin.elapsed() >= SILENT_DIAL);
    }

    #[test]
    fn metadata_and_resolver_are_forbidden() {
        for text in [
            "169.254.169.254",
            "169.254.169.253",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
        ] {
            assert!(is_forbidden(text.parse().unwrap()), "{text}");
        }
        assert!(!is_forbidden("10.0.0.2".parse().unwrap()));
    }
}
