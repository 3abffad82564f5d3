//! Address of a data channel: AWS's answer, checked, or the one in the user's settings.

use url::{Host, Url};

use crate::aws::Endpoints;
use crate::base::names::Region;
use crate::base::partition::Partition;
use crate::tunnel::TunnelError;

/// The gateway's name in front of the region.
const GATEWAY: &str = "ssmmessages";
/// The gateway with validated cryptography. The SSM agent's manual names it for us-east-1,
/// us-east-2, us-west-1, us-west-2 and ca-west-1 (Systems Manager User Guide, "SSM Agent technical
/// details").
const FIPS_GATEWAY: &str = "ssmmessages-fips";
/// Longest DNS name in bytes (RFC 1035, 2.3.4, without the final dot and the length in front).
const LONGEST_HOST: usize = 253;
/// Partition with validated cryptography for SSM under its plain name: the endpoint rules of the
/// SDK give `ssm.REGION.amazonaws.com` there with FIPS as well as without.
const ALWAYS_FIPS: &str = "aws-us-gov";

/// Returns the address of the data channel for the `StreamUrl` that AWS answered in `region`.
///
/// It comes from AWS over verified TLS, but a token is sent to it. So it must be `wss` and a name
/// of the region's own partition, or the host of the endpoint set by the user. The user's endpoint
/// for `SSMMESSAGES` replaces host and port, whatever they were; path and query identify the
/// session and are kept. With FIPS on, the FIPS gateway replaces the plain one; if there is none,
/// the connection fails.
///
/// # Errors
/// [`TunnelError::IncompleteAnswer`] for an invalid URL, [`TunnelError::BadAnswer`] for one that no
/// data channel has, [`TunnelError::ForeignStreamUrl`].
pub(super) fn data_channel(
    text: &str,
    region: &Region,
    endpoints: &Endpoints,
) -> Result<Url, TunnelError> {
    let url = Url::parse(text).map_err(|_| TunnelError::IncompleteAnswer("a valid StreamUrl"))?;
    let host = url.host_str().unwrap_or_default().to_owned();
    let foreign = || TunnelError::ForeignStreamUrl { host: host.clone() };
    if let Some(reason) = flaw(&url) {
        return Err(TunnelError::BadAnswer {
            operation: "StartSession",
            reason: reason.into(),
        });
    }
    if let Some(instead) = &endpoints.data_channel {
        let there = instead.host_str().map(|host| (host, instead.port()));
        return moved(url, there).ok_or_else(foreign);
    }
    if endpoints.configured.iter().any(|own| is_at(own, &url)) {
        return Ok(url);
    }
    let partition = Partition::of(region);
    // An IP address is not a name, whatever it ends with.
    if !matches!(url.host(), Some(Host::Domain(_))) || !partition.owns(&host) {
        return Err(foreign());
    }
    match fips_gateway(&host, region, partition) {
        Some(fips) if endpoints.fips => {
            let port = url.port();
            moved(url, Some((&fips, port))).ok_or_else(foreign)
        }
        _ => Ok(url),
    }
}

/// Returns the part of the URL that no data channel has, on any host.
fn flaw(url: &Url) -> Option<String> {
    if url.scheme() != "wss" {
        let scheme = url.scheme();
        return Some(format!("StreamUrl begins with {scheme}://, not wss://"));
    }
    // Its content may be a secret.
    if !url.username().is_empty() || url.password().is_some() {
        return Some("StreamUrl contains a user name or password".to_owned());
    }
    let length = url.host_str().unwrap_or_default().len();
    (length > LONGEST_HOST).then(|| {
        format!("the host name in StreamUrl has {length} bytes, more than the 253 of a DNS name")
    })
}

/// Returns true if an endpoint set by the user is the host and port of `url`.
fn is_at(endpoint: &Url, url: &Url) -> bool {
    endpoint.host_str() == url.host_str()
        && endpoint.port_or_known_default() == url.port_or_known_default()
}

/// Returns the same path and query at another host and port; port `None` is the scheme's default.
fn moved(mut url: Url, there: Option<(&str, Option<u16>)>) -> Option<Url> {
    let (host, port) = there?;
    url.set_host(Some(host)).ok()?;
    url.set_port(port).ok()?;
    Some(url)
}

/// Returns the FIPS gateway to use in place of `host`, if that is the plain one of the region.
fn fips_gateway(host: &str, region: &Region, partition: &Partition) -> Option<String> {
    let suffix = host.strip_prefix(&format!("{GATEWAY}.{region}."))?;
    let plain_is_fips = partition.name == ALWAYS_FIPS && suffix == partition.dns_suffix;
    let is_gateway = suffix == partition.dns_suffix || suffix == partition.dual_stack_suffix;
    (is_gateway && !plain_is_fips).then(|| format!("{FIPS_GATEWAY}.{region}.{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/v1/data-channel/me-0?role=publish_subscribe";

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn at(host: &str, region: &Region, endpoints: &Endpoints) -> Result<String, TunnelError> {
        data_channel(&format!("wss://{host}{PATH}"), region, endpoints).map(String::from)
    }

    #[test]
    fn names_of_the_regions_partition_are_taken_as_they_are() {
        for (region, host) in [
            ("eu-central-1", "ssmmessages.eu-central-1.amazonaws.com"),
            ("eu-central-1", "ssmmessages.eu-central-1.api.aws"),
            (
                "eu-central-1",
                "vpce-0a.ssmmessages.eu-central-1.vpce.amazonaws.com",
            ),
            ("cn-north-1", "ssmmessages.cn-north-1.amazonaws.com.cn"),
            (
                "cn-north-1",
                "ssmmessages.cn-north-1.api.amazonwebservices.com.cn",
            ),
            ("us-gov-west-1", "ssmmessages.us-gov-west-1.amazonaws.com"),
            ("us-iso-east-1", "ssmmessages.us-iso-east-1.c2s.ic.gov"),
            ("us-isob-east-1", "ssmmessages.us-isob-east-1.sc2s.sgov.gov"),
            ("eusc-de-east-1", "ssmmessages.eusc-de-east-1.amazonaws.eu"),
        ] {
            let same = at(host, &region.into(), &Endpoints::default()).unwrap();
            assert_eq!(same, format!("wss://{host}{PATH}"));
        }
    }

    #[test]
    fn other_names_are_refused() {
        for foreign in [
            "wss://ssmmessages.amazonaws.com.example.org/v1",
            "wss://evilamazonaws.com/v1",
            "wss://amazonaws.com/v1",
            "wss://ssmmessages.cn-north-1.amazonaws.com.cn/v1",
            "wss://127.0.0.1/v1",
            "wss://[::1]/v1",
        ] {
            let error = data_channel(foreign, &"eu-central-1".into(), &Endpoints::default());
            assert!(
                matches!(error, Err(TunnelError::ForeignStreamUrl { .. })),
                "{foreign}: {error:?}"
            );
        }
        assert!(matches!(
            data_channel("nonsense", &"eu-central-1".into(), &Endpoints::default()),
            Err(TunnelError::IncompleteAnswer(_))
        ));
    }

    #[test]
    fn other_flaws_are_not_the_hosts() {
        let long = format!("wss://{}.amazonaws.com/v1", "h".repeat(900_000));
        for (url, said) in [
            (
                "ws://ssmmessages.eu-central-1.amazonaws.com/v1",
                "StreamUrl begins with ws://, not wss://",
            ),
            (
                "https://ssmmessages.eu-central-1.amazonaws.com/v1",
                "StreamUrl begins with https://, not wss://",
            ),
            (
                "wss://me:pw@ssmmessages.eu-central-1.amazonaws.com/v1",
                "StreamUrl contains a user name or password",
            ),
            (
                &long,
                "the host name in StreamUrl has 900014 bytes, more than the 253 of a DNS name",
            ),
        ] {
            let error = data_channel(url, &"eu-central-1".into(), &Endpoints::default());
            let error = error.unwrap_err().to_string();
            let expected = format!("invalid answer to StartSession: {said}");
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn the_hosts_of_the_users_endpoints_are_admitted() {
        let endpoints = Endpoints {
            configured: vec![url("https://localhost:4566"), url("https://ssm.corp")],
            ..Endpoints::default()
        };
        for host in ["localhost:4566", "ssm.corp"] {
            assert!(
                at(host, &"eu-central-1".into(), &endpoints).is_ok(),
                "{host}"
            );
        }
        for host in ["localhost:4567", "ssm.corp:8443", "x.ssm.corp"] {
            assert!(
                at(host, &"eu-central-1".into(), &endpoints).is_err(),
                "{host}"
            );
        }
    }

    #[test]
    fn an_endpoint_for_ssmmessages_replaces_host_and_port() {
        for (set, expected) in [
            (
                "https://vpce-1.ssmmessages.eu-central-1.vpce.amazonaws.com",
                "wss://vpce-1.ssmmessages.eu-central-1.vpce.amazonaws.com",
            ),
            (
                "https://gateway.corp:8443/ignored?q",
                "wss://gateway.corp:8443",
            ),
            ("wss://[::1]:9000", "wss://[::1]:9000"),
        ] {
            let endpoints = Endpoints {
                data_channel: Some(url(set)),
                // A user's endpoint overrides the FIPS setting as well.
                fips: true,
                ..Endpoints::default()
            };
            for answered in ["ssmmessages.eu-central-1.amazonaws.com", "odd.host:1234"] {
                assert_eq!(
                    at(answered, &"eu-central-1".into(), &endpoints).unwrap(),
                    format!("{expected}{PATH}")
                );
            }
            let plain = data_channel(
                "ws://x.amazonaws.com/v1",
                &"eu-central-1".into(),
                &endpoints,
            );
            assert!(matches!(plain, Err(TunnelError::BadAnswer { .. })));
        }
    }

    #[test]
    fn fips_replaces_the_plain_gateway() {
        let endpoints = Endpoints {
            fips: true,
            ..Endpoints::default()
        };
        for (region, answered, expected) in [
            (
                "us-east-1",
                "ssmmessages.us-east-1.amazonaws.com",
                "ssmmessages-fips.us-east-1.amazonaws.com",
            ),
            (
                "us-east-1",
                "ssmmessages.us-east-1.api.aws",
                "ssmmessages-fips.us-east-1.api.aws",
            ),
            (
                "us-east-1",
                "ssmmessages-fips.us-east-1.amazonaws.com",
                "ssmmessages-fips.us-east-1.amazonaws.com",
            ),
            (
                "us-gov-west-1",
                "ssmmessages.us-gov-west-1.amazonaws.com",
                "ssmmessages.us-gov-west-1.amazonaws.com",
            ),
            (
                "us-gov-west-1",
                "ssmmessages.us-gov-west-1.api.aws",
                "ssmmessages-fips.us-gov-west-1.api.aws",
            ),
            (
                "us-east-1",
                "vpce-1.ssmmessages.us-east-1.vpce.amazonaws.com",
                "vpce-1.ssmmessages.us-east-1.vpce.amazonaws.com",
            ),
        ] {
            assert_eq!(
                at(answered, &region.into(), &endpoints).unwrap(),
                format!("wss://{expected}{PATH}")
            );
        }
    }
}
