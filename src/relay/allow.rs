//! The allow list of a relay: patterns of host and port, and the rules for addresses.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::base::partition::Partition;
use crate::config::{DEFAULT_UPSTREAM_PORT, Endpoint, EndpointKind};

/// Ports that RDS and Aurora accept for a database (Amazon RDS API Reference, `CreateDBInstance`,
/// "Port": 1150-65535).
const RDS_PORTS: std::ops::RangeInclusive<u16> = 1150..=65535;
/// The metadata service's addresses beside those that are link-local (EC2 User Guide, "IMDS").
const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// A pattern of the allow list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowPattern {
    /// The names of RDS, Aurora, RDS Proxy and Aurora DSQL endpoints, in all partitions.
    Rds,
    /// An address, as the client names it.
    Address(IpAddr, AllowedPort),
    /// A name in lower case, whose labels may be `*`.
    Name(String, AllowedPort),
}

/// Port of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowedPort {
    /// This port.
    One(u16),
    /// Every port.
    Any,
}

impl AllowedPort {
    fn allows(self, port: u16) -> bool {
        match self {
            Self::One(allowed) => allowed == port,
            Self::Any => true,
        }
    }
}

impl FromStr for AllowPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "rds" {
            return Ok(Self::Rds);
        }
        let (host, port) = split(text);
        let port = match port {
            None => AllowedPort::One(DEFAULT_UPSTREAM_PORT),
            Some("*") => AllowedPort::Any,
            Some(port) => match port.parse() {
                Ok(port @ 1..) => AllowedPort::One(port),
                _ => {
                    return Err(format!(
                        "\"{port}\" is not a port; expected HOST, HOST:PORT or HOST:*"
                    ));
                }
            },
        };
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical(), port));
        }
        let host = normal(host);
        let is_label = |label: &str| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            label == "*" || (!label.is_empty() && label.len() <= 63 && label.chars().all(is_plain))
        };
        if !host.split('.').all(is_label) {
            return Err("expected a host name, in which * stands for one label, or an address (IPv6 in brackets)".to_owned());
        }
        if host.split('.').all(|label| label == "*") {
            return Err(
                "a name of * alone would allow every host; add a domain, such as *.internal"
                    .to_owned(),
            );
        }
        Ok(Self::Name(host, port))
    }
}

impl fmt::Display for AllowPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = match self {
            Self::Rds => return f.write_str("RDS, Aurora, RDS Proxy and DSQL endpoints"),
            Self::Address(IpAddr::V6(address), port) => {
                write!(f, "[{address}]")?;
                port
            }
            Self::Address(address, port) => {
                write!(f, "{address}")?;
                port
            }
            Self::Name(name, port) => {
                f.write_str(name)?;
                port
            }
        };
        match port {
            AllowedPort::One(port) => write!(f, ":{port}"),
            AllowedPort::Any => f.write_str(":*"),
        }
    }
}

/// Splits `HOST[:PORT]`; an IPv6 address with a port is in brackets.
fn split(text: &str) -> (&str, Option<&str>) {
    if let Some(rest) = text.strip_prefix('[')
        && let Some((host, port)) = rest.split_once(']')
    {
        return (host, port.strip_prefix(':'));
    }
    match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => (text, None),
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    }
}

/// Returns a host name in lower case, without the dot that ends a full name.
fn normal(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// A target as a client names it: `HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RelayTarget {
    /// A name in lower case, or an address.
    pub(super) host: String,
    pub(super) port: u16,
}

impl RelayTarget {
    /// Parses a target.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (host, port) = split(text);
        let port = port?.parse().ok().filter(|port| *port != 0)?;
        let host = normal(host);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
        let is_host = !host.is_empty() && host.len() <= 255 && host.chars().all(is_plain);
        is_host.then_some(Self { host, port })
    }

    pub(super) fn address(&self) -> Option<IpAddr> {
        self.host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
    }
}

impl fmt::Display for RelayTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = (self.host.clone(), self.port);
        Endpoint { host, port }.fmt(f)
    }
}

/// The patterns of a relay.
#[derive(Clone, Debug)]
pub struct AllowList(Vec<AllowPattern>);

impl AllowList {
    /// Creates a list; without patterns it is that of RDS.
    #[must_use]
    pub fn new(patterns: Vec<AllowPattern>) -> Self {
        match patterns.is_empty() {
            true => Self(vec![AllowPattern::Rds]),
            false => Self(patterns),
        }
    }

    /// Returns true if a target may be dialled. Asks no name server.
    pub(super) fn allows(&self, target: &RelayTarget) -> bool {
        let port = target.port;
        let address = target.address();
        self.0.iter().any(|pattern| match (pattern, address) {
            (AllowPattern::Address(allowed, ports), Some(address)) => {
                *allowed == address && ports.allows(port)
            }
            (AllowPattern::Name(name, ports), None) => {
                matches(name, &target.host) && ports.allows(port)
            }
            (AllowPattern::Rds, None) => is_rds(&target.host) && RDS_PORTS.contains(&port),
            _ => false,
        })
    }

    /// Returns true if a name may lead to this address. Addresses of the node itself and of its
    /// metadata service must be in the list.
    pub(super) fn allows_address(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        !is_of_node(ip)
            || self.0.iter().any(|pattern| match pattern {
                AllowPattern::Address(allowed, ports) => {
                    *allowed == ip && ports.allows(address.port())
                }
                _ => false,
            })
    }
}

impl fmt::Display for AllowList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, pattern) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{pattern}")?;
        }
        Ok(())
    }
}

/// Compares a name with a pattern, label by label.
fn matches(pattern: &str, name: &str) -> bool {
    let mut labels = name.split('.');
    let mut wanted = pattern.split('.');
    loop {
        match (wanted.next(), labels.next()) {
            (None, None) => return true,
            (Some("*"), Some(label)) if !label.is_empty() => {}
            (Some(wanted), Some(label)) if wanted == label => {}
            _ => return false,
        }
    }
}

fn is_rds(host: &str) -> bool {
    // The writer of a global database has no region in its name.
    let is_global = || {
        let labels =
            Partition::labels_of(host).and_then(|labels| labels.strip_suffix(".global.rds"));
        labels.is_some_and(|labels| labels.split('.').count() == 2)
    };
    EndpointKind::of(host) != EndpointKind::Other || is_global()
}

/// Returns true for addresses of the node itself and of its metadata service, and for those that
/// name no host.
fn is_of_node(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            ip.is_loopback()
                || ip.is_link_local()
                || ip.octets()[0] == 0
                || ip.is_broadcast()
                || ip.is_multicast()
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unicast_link_local()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip == METADATA
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(patterns: &[&str]) -> AllowList {
        AllowList::new(patterns.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn allows(list: &AllowList, target: &str) -> bool {
        RelayTarget::parse(target).is_some_and(|target| list.allows(&target))
    }

    #[test]
    fn the_default_is_every_endpoint_of_rds_and_nothing_else() {
        let default = list(&[]);
        for target in [
            "db.abc123.eu-central-1.rds.amazonaws.com:5432",
            "DB.abc123.eu-central-1.RDS.amazonaws.com.:5432",
            "db.cluster-abc123.us-gov-west-1.rds.amazonaws.com:6000",
            "db.abc123.rds.cn-north-1.amazonaws.com.cn:1150",
            "p.endpoint.proxy-abc123.eu-central-1.rds.amazonaws.com:5432",
            "g.global-abc123.global.rds.amazonaws.com:5432",
            "abcdef.dsql.eu-central-1.on.aws:5432",
        ] {
            assert!(allows(&default, target), "{target}");
        }
        for target in [
            "db.abc123.eu-central-1.rds.amazonaws.com:443",
            "db.abc123.eu-central-1.rds.amazonaws.com.evil.example:5432",
            "s3.eu-central-1.amazonaws.com:5432",
            "evil.global.rds.amazonaws.com:5432",
            "localhost:5432",
            "10.0.0.1:5432",
            "[::1]:5432",
            "169.254.169.254:80",
            "2852039166:5432",
            "db.internal:5432",
            "db.internal",
            "",
            ":5432",
            "a b.rds.amazonaws.com:5432",
        ] {
            assert!(!allows(&default, target), "{target}");
        }
    }

    #[test]
    fn patterns_stand_for_whole_labels_and_one_port() {
        let list = list(&[
            "*.abc123.eu-central-1.rds.amazonaws.com",
            "db.*.internal:6432",
            "cache.internal:*",
            "10.0.3.7:5432",
            "[2001:db8::7]:5432",
        ]);
        for target in [
            "x.abc123.eu-central-1.rds.amazonaws.com:5432",
            "db.eu.internal:6432",
            "Cache.Internal:6379",
            "10.0.3.7:5432",
            "[::ffff:10.0.3.7]:5432",
            "[2001:db8:0::7]:5432",
        ] {
            assert!(allows(&list, target), "{target}");
        }
        for target in [
            "x.abc123.eu-central-1.rds.amazonaws.com:5433",
            "y.x.abc123.eu-central-1.rds.amazonaws.com:5432",
            ".abc123.eu-central-1.rds.amazonaws.com:5432",
            "db..internal:6432",
            "db.internal:6432",
            "10.0.3.7:22",
            "10.0.3.8:5432",
            "2001:db8::7:5432",
        ] {
            assert!(!allows(&list, target), "{target}");
        }
    }

    #[test]
    fn addresses_of_the_node_must_be_named() {
        let node = [
            "127.0.0.1:5432",
            "127.8.8.8:5432",
            "0.0.0.0:5432",
            "169.254.169.254:5432",
            "169.254.170.2:5432",
            "224.0.0.1:5432",
            "255.255.255.255:5432",
            "[::1]:5432",
            "[::]:5432",
            "[fe80::1]:5432",
            "[ff02::1]:5432",
            "[fd00:ec2::254]:5432",
            "[::ffff:127.0.0.1]:5432",
        ];
        let default = list(&[]);
        for address in node {
            assert!(
                !default.allows_address(address.parse().unwrap()),
                "{address}"
            );
        }
        for address in ["10.0.3.7:5432", "[fd12::7]:5432", "192.0.2.1:5432"] {
            assert!(
                default.allows_address(address.parse().unwrap()),
                "{address}"
            );
        }
        let named = list(&["db.internal", "127.0.0.1:5432"]);
        assert!(named.allows_address(node[0].parse().unwrap()));
        assert!(named.allows_address(node[12].parse().unwrap()));
        assert!(!named.allows_address("127.0.0.1:5433".parse().unwrap()));
        assert!(!named.allows_address(node[1].parse().unwrap()));
    }

    #[test]
    fn patterns_are_shown_as_written_and_wrong_ones_are_refused() {
        for text in [
            "db.internal:5432",
            "*.internal:*",
            "10.0.0.1:22",
            "[::1]:5432",
        ] {
            assert_eq!(text.parse::<AllowPattern>().unwrap().to_string(), text);
        }
        assert_eq!(
            "Db.internal.".parse::<AllowPattern>().unwrap().to_string(),
            "db.internal:5432"
        );
        for text in [
            "",
            "*",
            "*:5432",
            "*.*",
            "d*b.internal",
            "db:0",
            "db:x",
            "db:65536",
            "a..b",
            "http://db",
            "[::1",
        ] {
            assert!(text.parse::<AllowPattern>().is_err(), "{text}");
        }
        assert_eq!(
            list(&["rds", "db:1"]).to_string(),
            "RDS, Aurora, RDS Proxy and DSQL endpoints, db:1"
        );
    }
}
