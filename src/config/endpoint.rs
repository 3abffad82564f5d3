//! Host and port of a database, and the information in its name.

use std::fmt;
use std::str::FromStr;

use super::DEFAULT_UPSTREAM_PORT;
use crate::base::partition::Partition;

/// Domain of Aurora DSQL endpoints (Aurora DSQL User Guide, "Managing single-Region clusters").
const DSQL_SUFFIX: &str = ".on.aws";

/// Label in place of a region in the writer endpoint of an Aurora global database.
const NO_REGION: &str = "global";

/// Kind of an endpoint according to its host name (RDS User Guide, "DB instance endpoint"; Aurora
/// User Guide, "Amazon Aurora endpoint connections"; RDS Proxy, "Working with proxy endpoints").
///
/// Blue/green deployments rename instances and clusters (`db-green-abc123`, `db-old1`) and keep the
/// form of the names, so they need no kind of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndpointKind {
    /// One database instance: `NAME.HASH.REGION.rds.amazonaws.com`, and every other name below RDS
    /// that matches none of the kinds below.
    Instance,
    /// The writer of a cluster, `NAME.cluster-HASH.…`, or a shard group of Aurora Limitless,
    /// `NAME.shardgrp-HASH.…`.
    Cluster,
    /// The readers of a cluster: `NAME.cluster-ro-HASH.…`.
    Reader,
    /// Custom endpoint for some instances of a cluster: `NAME.cluster-custom-HASH.…`.
    Custom,
    /// RDS Proxy: `NAME.proxy-HASH.…`, and its additional endpoints `NAME.endpoint.proxy-HASH.…`.
    Proxy,
    /// Aurora DSQL: `ID.dsql.REGION.on.aws`, and through PrivateLink
    /// `ID.dsql-SUFFIX.REGION.on.aws`.
    Dsql,
    /// A name for which no token can be signed: a CNAME of an endpoint, another service's name, or
    /// the writer endpoint of an Aurora global database
    /// (`NAME.global-HASH.global.rds.amazonaws.com`). The latter is a CNAME of the cluster endpoint
    /// in the current writer region, which its name does not contain.
    Other,
}

impl EndpointKind {
    /// Returns the kind of a host name in lower case, without a trailing dot.
    #[must_use]
    pub fn of(host: &str) -> Self {
        if split_dsql_name(host).is_some() {
            return Self::Dsql;
        }
        let Some((labels, _)) = split_rds_name(host) else {
            return Self::Other;
        };
        let Some((name, place)) = labels.rsplit_once('.') else {
            return Self::Other;
        };
        let name = match name.strip_suffix(".endpoint") {
            Some(name) if place.starts_with("proxy-") => name,
            _ => name,
        };
        if name.is_empty() || name.contains('.') || place.is_empty() {
            return Self::Other;
        }
        // The longer prefixes first: all but two begin with `cluster-`.
        const KINDS: [(&str, EndpointKind); 5] = [
            ("cluster-ro-", EndpointKind::Reader),
            ("cluster-custom-", EndpointKind::Custom),
            ("cluster-", EndpointKind::Cluster),
            ("shardgrp-", EndpointKind::Cluster),
            ("proxy-", EndpointKind::Proxy),
        ];
        KINDS
            .iter()
            .find(|(prefix, _)| place.starts_with(prefix))
            .map_or(Self::Instance, |&(_, kind)| kind)
    }
}

/// Returns the region in the host name of a database, in any partition; `None` for names that are
/// not below RDS or DSQL. The host is in lower case, without a trailing dot.
///
/// Most RDS names are `….REGION.rds.amazonaws.com`; China, and some of GovCloud, has
/// `….rds.REGION.amazonaws.com.cn` as well.
#[must_use]
pub fn region_of(host: &str) -> Option<&str> {
    let (_, region) = split_dsql_name(host).or_else(|| split_rds_name(host))?;
    Some(region)
}

/// Returns the part before region and service in an RDS name, and the region.
fn split_rds_name(host: &str) -> Option<(&str, &str)> {
    let name = Partition::labels_of(host)?;
    let (rest, last) = name.rsplit_once('.')?;
    let (labels, before) = rest.rsplit_once('.')?;
    let region = match (before, last) {
        (region, "rds") => region,
        ("rds", region) => region,
        _ => return None,
    };
    (region != NO_REGION).then_some((labels, region))
}

/// Returns the id of a DSQL cluster, and the region.
fn split_dsql_name(host: &str) -> Option<(&str, &str)> {
    let (rest, region) = host.strip_suffix(DSQL_SUFFIX)?.rsplit_once('.')?;
    let (id, service) = rest.split_once('.')?;
    let is_dsql =
        service
            .strip_prefix("dsql")
            .is_some_and(|suffix| match suffix.strip_prefix('-') {
                Some(suffix) => !suffix.is_empty() && !suffix.contains('.'),
                None => suffix.is_empty(),
            });
    (is_dsql && !id.is_empty()).then_some((id, region))
}

/// Host and port of a database, as used for signing, verification and connecting.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// RDS host name, in lower case; for a raw tunnel any name or address.
    pub host: String,
    /// Port of the database.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = match text.rsplit_once(':') {
            // A URL: the check of the name below gives the remedy.
            Some((_, rest)) if rest.starts_with("//") => (text, DEFAULT_UPSTREAM_PORT),
            None => (text, DEFAULT_UPSTREAM_PORT),
            Some((host, port)) => match port.parse() {
                Ok(port) if port != 0 => (host, port),
                _ => {
                    return Err(format!(
                        "\"{port}\" is not a port; expected NAME or NAME:PORT"
                    ));
                }
            },
        };
        // A trailing dot means "no search list" to a resolver, and is not part of the name that is
        // signed and verified.
        let host = host.strip_suffix('.').unwrap_or(host);
        if rustls::pki_types::DnsName::try_from(host).is_err() {
            return Err(
                "expected the DNS name of an RDS or DSQL endpoint, or a CNAME for one; TLS checks the certificate against it"
                    .to_owned(),
            );
        }
        Ok(Self {
            host: host.to_ascii_lowercase(),
            port,
        })
    }
}

impl Endpoint {
    /// Returns the kind of endpoint; [`EndpointKind::Other`] may still be a CNAME of one.
    #[must_use]
    pub fn kind(&self) -> EndpointKind {
        EndpointKind::of(&self.host)
    }

    /// Returns the region in the host's name: see [`region_of`].
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        region_of(&self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::EndpointKind::{Cluster, Custom, Dsql, Instance, Other, Proxy, Reader};
    use super::*;

    /// Names with their kind and region.
    const NAMES: &[(&str, EndpointKind, &str)] = &[
        (
            "db.abc123.eu-central-1.rds.amazonaws.com",
            Instance,
            "eu-central-1",
        ),
        (
            "db-green-ab12cd.abc123.eu-central-1.rds.amazonaws.com",
            Instance,
            "eu-central-1",
        ),
        (
            "db-old1.abc123.eu-central-1.rds.amazonaws.com",
            Instance,
            "eu-central-1",
        ),
        // Names that only look like another kind.
        (
            "cluster-x.abc123.eu-central-1.rds.amazonaws.com",
            Instance,
            "eu-central-1",
        ),
        (
            "proxy-x.abc123.eu-central-1.rds.amazonaws.com",
            Instance,
            "eu-central-1",
        ),
        (
            "rds.abc123.eu-central-1.rds.amazonaws.com",
            Instance,
            "eu-central-1",
        ),
        (
            "x.cluster-abc123.eu-central-1.rds.amazonaws.com",
            Cluster,
            "eu-central-1",
        ),
        (
            "x-old1.cluster-abc123.eu-central-1.rds.amazonaws.com",
            Cluster,
            "eu-central-1",
        ),
        (
            "x.cluster-rob123.eu-central-1.rds.amazonaws.com",
            Cluster,
            "eu-central-1",
        ),
        (
            "x.shardgrp-abc123.us-east-2.rds.amazonaws.com",
            Cluster,
            "us-east-2",
        ),
        (
            "x.cluster-ro-abc123.eu-central-1.rds.amazonaws.com",
            Reader,
            "eu-central-1",
        ),
        (
            "x-green-ab12cd.cluster-ro-abc123.us-east-1.rds.amazonaws.com",
            Reader,
            "us-east-1",
        ),
        (
            "x.cluster-custom-abc123.eu-central-1.rds.amazonaws.com",
            Custom,
            "eu-central-1",
        ),
        (
            "x.proxy-abc123.us-east-1.rds.amazonaws.com",
            Proxy,
            "us-east-1",
        ),
        (
            "x.endpoint.proxy-abc123.us-east-1.rds.amazonaws.com",
            Proxy,
            "us-east-1",
        ),
        (
            "endpoint.proxy-abc123.us-east-1.rds.amazonaws.com",
            Proxy,
            "us-east-1",
        ),
        (
            "db.abc123.rds.cn-north-1.amazonaws.com.cn",
            Instance,
            "cn-north-1",
        ),
        (
            "x.cluster-abc123.rds.cn-northwest-1.amazonaws.com.cn",
            Cluster,
            "cn-northwest-1",
        ),
        (
            "x.cluster-ro-abc123.cn-north-1.rds.amazonaws.com.cn",
            Reader,
            "cn-north-1",
        ),
        (
            "x.proxy-abc123.rds.cn-north-1.amazonaws.com.cn",
            Proxy,
            "cn-north-1",
        ),
        (
            "db.abc123.us-gov-west-1.rds.amazonaws.com",
            Instance,
            "us-gov-west-1",
        ),
        (
            "x.cluster-abc123.rds.us-gov-east-1.amazonaws.com",
            Cluster,
            "us-gov-east-1",
        ),
        (
            "x.endpoint.proxy-abc123.us-gov-west-1.rds.amazonaws.com",
            Proxy,
            "us-gov-west-1",
        ),
        (
            "x.cluster-abc123.us-iso-east-1.rds.c2s.ic.gov",
            Cluster,
            "us-iso-east-1",
        ),
        (
            "db.abc123.eusc-de-east-1.rds.amazonaws.eu",
            Instance,
            "eusc-de-east-1",
        ),
        (
            "abcdefghijklmnopqrst123456.dsql.us-east-1.on.aws",
            Dsql,
            "us-east-1",
        ),
        (
            "abcdefghijklmnopqrst123456.dsql-fnh4.eu-west-1.on.aws",
            Dsql,
            "eu-west-1",
        ),
    ];

    #[test]
    fn kinds_and_regions_of_names() {
        for &(host, kind, region) in NAMES {
            for written in [
                host.to_owned(),
                host.to_uppercase(),
                format!("{host}.:5432"),
            ] {
                let endpoint: Endpoint = written.parse().unwrap();
                assert_eq!(endpoint.kind(), kind, "{written}");
                assert_eq!(endpoint.region(), Some(region), "{written}");
                assert_eq!(endpoint.host, host);
            }
        }
    }

    #[test]
    fn other_names() {
        for host in [
            "orders.db.example.com",
            "localhost",
            "rds.amazonaws.com",
            "rds.eu-central-1.amazonaws.com",
            "ssm.eu-central-1.amazonaws.com",
            "x.cluster-abc123.eu-central-1.rds.amazonaws.com.example.com",
            "x.cluster-abc123.eu-central-1.rds.evilamazonaws.com",
            "x.cluster-abc123.eu-central-1.redshift.amazonaws.com",
            "world.global-abc123.global.rds.amazonaws.com",
            "dsql.us-east-1.on.aws",
            "dsql.us-east-1.api.aws",
            "abc.dsql-.us-east-1.on.aws",
            "abc.dsqlx.us-east-1.on.aws",
            "a.b.dsql.us-east-1.on.aws",
            "abc.lambda-url.us-east-1.on.aws",
            "abc.dsql.us-east-1.on.aws.example.com",
        ] {
            assert_eq!(EndpointKind::of(host), Other, "{host}");
            assert_eq!(region_of(host), None, "{host}");
        }
        // Below RDS, so that the region is known, but not the name of an endpoint.
        for host in [
            "x.eu-central-1.rds.amazonaws.com",
            "a.b.abc123.eu-central-1.rds.amazonaws.com",
            "a.endpoint.cluster-abc123.eu-central-1.rds.amazonaws.com",
            "a.b.endpoint.proxy-abc123.eu-central-1.rds.amazonaws.com",
        ] {
            assert_eq!(EndpointKind::of(host), Other, "{host}");
            assert_eq!(region_of(host), Some("eu-central-1"), "{host}");
        }
        for odd in [
            "",
            ".",
            "..",
            ".on.aws",
            ".dsql.r.on.aws",
            ".abc.r.rds.amazonaws.com",
        ] {
            assert_eq!(EndpointKind::of(odd), Other, "{odd}");
        }
    }
}
