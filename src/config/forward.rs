//! `pgiam tunnel`: a tunnel to any host and port, for any protocol.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::file::unknown_target;
use super::{
    AwsFlags, ConfigError, ConfigFile, DialFlags, Endpoint, ResolvedTarget, TargetLayer,
    TargetSettings, TunnelFlags,
};
use crate::base::names::Region;
use crate::base::names::TargetName;

/// Destination of a raw tunnel: a name or address as resolved by the bastion, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination(pub Endpoint);

impl FromStr for Destination {
    type Err = String;

    /// Parses `NAME:PORT`, `10.0.0.7:PORT` or `[fd00::7]:PORT`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected HOST:PORT, such as db.internal:3306 or [fd00::7]:6379";
        if text.contains("//") {
            return Err(format!("it is a URL; {EXPECTED}"));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(format!("the port is missing; {EXPECTED}"));
        };
        let bracketed = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = match bracketed {
            Some(inside) => inside
                .parse::<Ipv6Addr>()
                .map_err(|_| format!("\"{inside}\" is not an IPv6 address; {EXPECTED}"))?
                .to_string(),
            None if host.contains(':') => {
                return Err(format!("an IPv6 address must be in brackets; {EXPECTED}"));
            }
            None => host.to_ascii_lowercase(),
        };
        if host.parse::<IpAddr>().is_err()
            && rustls::pki_types::DnsName::try_from(host.as_str()).is_err()
        {
            return Err(format!("\"{host}\" is not a host name; {EXPECTED}"));
        }
        match port.parse() {
            Ok(port) if port != 0 => Ok(Self(Endpoint { host, port })),
            _ => Err(format!("\"{port}\" is not a port; {EXPECTED}")),
        }
    }
}

/// Local address of a raw tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// 127.0.0.1 and ::1, the addresses of `localhost`; port 0 lets the system choose.
    Localhost(u16),
    /// One loopback address.
    Address(SocketAddr),
}

impl FromStr for Listen {
    type Err = String;

    /// Parses `PORT`, `localhost:PORT`, `127.0.0.1:PORT` or `[::1]:PORT`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(port) = text.strip_prefix("localhost:").unwrap_or(text).parse() {
            return Ok(Self::Localhost(port));
        }
        let address: SocketAddr = text
            .parse()
            .map_err(|_| "expected PORT, 127.0.0.1:PORT or [::1]:PORT".to_owned())?;
        if address.ip().is_loopback() {
            return Ok(Self::Address(address));
        }
        Err(
            "other machines could use the tunnel without a password; listen on 127.0.0.1 or [::1], \
             and let other machines connect through ssh -L or a proxy with authentication"
                .to_owned(),
        )
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Localhost(port) => write!(f, "{}:{port}", Ipv4Addr::LOCALHOST),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl ConfigFile {
    /// Returns the tunnel to `to`: through the bastion of `flags`, else of the target called
    /// `like`, else of `[defaults]`. Their settings for a database (host, user, port, certificate)
    /// are ignored, as is `via`.
    ///
    /// The region is the first one set by a `region`, by the host name of `like`, or by that of
    /// `to`; `None` leaves it to AWS's own settings. The result is named after its destination.
    ///
    /// # Errors
    /// The first invalid value, see [`ConfigError`].
    pub fn forward(
        self,
        to: Destination,
        like: Option<&str>,
        flags: &TargetLayer,
    ) -> Result<ResolvedTarget, ConfigError> {
        let Destination(endpoint) = to;
        let own = match like {
            None => TargetLayer::default(),
            Some(name) => match self.targets.get(name) {
                Some(layer) => layer.clone(),
                None => return Err(unknown_target(name, &self.targets)),
            },
        };
        let name = TargetName::from(endpoint.to_string());
        let host_of_like = own
            .host
            .as_ref()
            .and_then(|host| host.parse::<Endpoint>().ok());
        // A forward has no database and no login: those keys are not even validated.
        let keys = [TunnelFlags::KEYS, AwsFlags::KEYS, DialFlags::KEYS].concat();
        let layer = TargetLayer {
            port: Some(endpoint.port),
            ..flags.clone().over(own.over(self.defaults)).only(&keys)
        };
        if layer.bastion.is_none() {
            // Without a database there is no VPC by which to choose a bastion.
            return Err(ConfigError::Missing {
                target: name,
                key: "bastion",
                hint: "use --bastion i-0123456789abcdef0 (an instance that Session Manager can reach), --bastion auto or --target NAME (the bastion of a target in the file), \
                       or set bastion = \"i-…\" in [defaults]",
            });
        }
        let region_of_like = host_of_like.as_ref().and_then(Endpoint::region);
        let region = layer.region.clone();
        let region = region.or_else(|| region_of_like.or(endpoint.region()).map(Region::from));
        Ok(ResolvedTarget {
            iam_login: None,
            settings: TargetSettings::from_layer(&name, &layer)?,
            name,
            endpoint,
            region,
        })
    }
}
