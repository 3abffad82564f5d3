//! Host and port of a database.

use std::fmt;
use std::str::FromStr;

use super::DEFAULT_UPSTREAM_PORT;

/// What the AWS partitions' names end in: commercial and GovCloud, China, the isolated ones in the
/// order of their partition names, the European sovereign cloud.
const DNS_SUFFIXES: [&str; 7] = [
    ".amazonaws.com",
    ".amazonaws.com.cn",
    ".c2s.ic.gov",
    ".sc2s.sgov.gov",
    ".cloud.adc-e.uk",
    ".csp.hci.ic.gov",
    ".amazonaws.eu",
];

/// Host and port of a database, as it is signed, verified and dialled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The RDS host name, in lower case; for a raw tunnel any name or address.
    pub host: String,
    /// The port the database listens on.
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
            // A URL: the check of the name below says what to write instead.
            Some((_, rest)) if rest.starts_with("//") => (text, DEFAULT_UPSTREAM_PORT),
            None => (text, DEFAULT_UPSTREAM_PORT),
            Some((host, port)) => match port.parse() {
                Ok(port) if port != 0 => (host, port),
                _ => return Err(format!("\"{port}\" is not a port; write NAME or NAME:5432")),
            },
        };
        if rustls::pki_types::DnsName::try_from(host).is_err() {
            return Err(
                "write the endpoint's DNS name as RDS shows it; the certificate is checked against it"
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
    /// The region an RDS endpoint name carries, in any partition: the label before or after `rds`.
    /// Most names are `….REGION.rds.amazonaws.com`; China, and some of GovCloud, has
    /// `….rds.REGION.amazonaws.com.cn` as well. `None` for other names.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        let name = DNS_SUFFIXES
            .iter()
            .find_map(|suffix| self.host.strip_suffix(suffix))?;
        let (rest, last) = name.rsplit_once('.')?;
        match rest.rsplit_once('.') {
            Some((_, region)) if last == "rds" => Some(region),
            Some((_, "rds")) => Some(last),
            _ => None,
        }
    }
}
