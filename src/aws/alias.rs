//! Resolves a configured host name to the endpoint name that AWS knows.
//!
//! Users give their databases names of their own: `orders.db.example.com` is a CNAME (RFC 1034,
//! section 3.6.2) of `orders.cluster-abc.eu-central-1.rds.amazonaws.com`, which may itself be a
//! CNAME of an instance. A token must be signed for the RDS name, and the certificate is issued for
//! it. pgiam uses the first name of the chain that is an endpoint. A CNAME of a cluster therefore
//! means the cluster, whichever instance is its writer.
//!
//! The result is used for signing and verification only. The tunnel connects to the configured
//! name, which the bastion resolves in the VPC's own DNS. The two lookups may disagree for the TTL
//! of a record; the login fails then, and nothing worse happens: a forged answer makes pgiam sign
//! for, and insist on, a server that the tunnel does not lead to. Without a tunnel the same DNS
//! gives both name and address, so a forged answer can select any AWS database; the README says so.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use rustls::pki_types::DnsName;
use tokio::time::timeout;

use crate::base::background::TaskStopped;
use crate::base::foreign_text::ForeignText;
use crate::base::single_flight::{Clock, Expiring, Refreshing, system_clock};
use crate::config::EndpointKind;

/// Deadline for a whole chain, retries included. A connection resolves it while the tunnel opens.
const DEADLINE: Duration = Duration::from_secs(5);
/// Timeout of one query to one server, and the number of repetitions. Together they stay below the
/// deadline, so that a second server is tried.
const PATIENCE: Duration = Duration::from_millis(1500);
const REPEATS: usize = 2;
/// Maximum length of a chain. Resolvers follow 8 to 16 CNAMEs; common configurations have one or
/// two.
const MOST_STEPS: usize = 8;

/// Minimum and maximum lifetime of a cached answer, whatever its TTL. RDS has TTLs of 5 s, and a
/// changed CNAME should take effect without hours of waiting.
const SHORTEST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(5 * 60);
/// Time for which a stale answer is used after its TTL while DNS fails or returns no endpoint, and
/// the pause until the next attempt. A VPN that went down takes its names with it, but the tunnel
/// may still work. (RFC 8767, "Serving Stale Data to Improve DNS Resiliency", allows days and
/// suggests 30 s.)
const STALE: Duration = Duration::from_secs(3600);
const PAUSE: Duration = Duration::from_secs(30);
/// Lifetime of a cached failure when there is no older answer, so that the connections of a pool do
/// not each repeat the lookup.
const FAILURE: Duration = Duration::from_secs(5);

/// Reason why no endpoint is known for a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AliasError {
    /// DNS answers, but the name does not lead to an endpoint. Either the configuration is wrong,
    /// or only the DNS of the VPC (a private hosted zone) has the name; then the endpoint itself
    /// must be configured.
    #[error(
        "{host} is not an RDS or DSQL endpoint or a CNAME for one: {}",
        seen(.chain, *.exists)
    )]
    NoAlias {
        /// Name as configured.
        host: String,
        /// Names in the chain, starting with the configured one.
        chain: Vec<ForeignText>,
        /// `true` if the last name of the chain exists.
        exists: bool,
    },
    /// DNS lookup failed, because of the network or the DNS settings of this machine.
    #[error("cannot resolve the CNAME {host}: {reason}")]
    Dns {
        /// Name as configured.
        host: String,
        /// Description of the failure.
        reason: ForeignText,
    },
    /// CNAME loop, or too many CNAMEs. A fault in the zone.
    #[error(
        "CNAME loop at {host}, or more than {MOST_STEPS} CNAMEs: {}",
        joined(.chain)
    )]
    Loop {
        /// Name as configured.
        host: String,
        /// Names in the chain, starting with the configured one.
        chain: Vec<ForeignText>,
    },
}

fn joined(chain: &[ForeignText]) -> String {
    let names: Vec<&str> = chain.iter().map(|name| &**name).collect();
    names.join(" → ")
}

fn seen(chain: &[ForeignText], exists: bool) -> String {
    let ending = match (chain, exists) {
        ([_], true) => "has no CNAME record",
        (_, true) => "is not an endpoint and has no CNAME record",
        (_, false) => "does not exist",
    };
    format!("{} {ending}", joined(chain))
}

/// Endpoints of the configured host names, shared by all connections.
pub struct Aliases {
    dns: Option<SocketAddr>,
    clock: Clock,
    places: Mutex<HashMap<String, Arc<CachedName>>>,
}

impl Aliases {
    /// Creates a resolver that queries the server at `dns`. Without it, each lookup uses the
    /// operating system's servers at that time: a VPN that comes up brings its own. Sends no query
    /// yet.
    #[must_use]
    pub fn new(dns: Option<SocketAddr>) -> Self {
        Self::with_clock(dns, system_clock())
    }

    fn with_clock(dns: Option<SocketAddr>, clock: Clock) -> Self {
        Self {
            dns,
            clock,
            places: Mutex::default(),
        }
    }

    /// Returns the endpoint that `host` is or is a CNAME of, in lower case, without a trailing dot.
    /// Sends no query if `host` itself is an endpoint. Never takes longer than 5 s; cancel-safe.
    ///
    /// Answers are cached for their TTL, but at least 5 s and at most 5 min. Concurrent callers
    /// share one lookup. If the lookup cannot be repeated, the old answer is used for another hour.
    ///
    /// # Errors
    /// See [`AliasError`]. Errors are cached for 5 s.
    pub async fn resolve(&self, host: &str) -> Result<String, AliasError> {
        let host = normal(host);
        if is_endpoint(&host) {
            return Ok(host);
        }
        if host.parse::<IpAddr>().is_ok() {
            return Err(AliasError::NoAlias {
                chain: vec![host.clone().into()],
                host,
                exists: true,
            });
        }
        let place = self.place(&host);
        let make = || {
            let (place, clock) = (place.clone(), self.clock.clone());
            let follow = follow(self.dns, host.clone());
            async move {
                let looked = timeout(DEADLINE, follow).await;
                Ok(place.settle(looked.ok(), clock()))
            }
        };
        match place.kept.get(make).await {
            Ok((lease, _)) => lease.value,
            Err(stopped) => Err(AliasError::Dns {
                reason: stopped.to_string().into(),
                host,
            }),
        }
    }

    /// Discards the cached answer for `host`, after a server turned out to be another one than the
    /// answer says.
    pub fn forget(&self, host: &str) {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places.get(&normal(host)) {
            place.kept.forget();
        }
    }

    fn place(&self, host: &str) -> Arc<CachedName> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            Arc::new(CachedName {
                host: host.to_owned(),
                kept: Refreshing::new(self.clock.clone()),
                good: Mutex::default(),
            })
        };
        places.entry(host.to_owned()).or_insert_with(new).clone()
    }
}

impl fmt::Debug for Aliases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aliases")
            .field("dns", &self.dns)
            .finish_non_exhaustive()
    }
}

/// Cached state of one name.
struct CachedName {
    host: String,
    /// Failures are cached as well, so they are values here.
    kept: Refreshing<Result<String, AliasError>, TaskStopped>,
    /// Last endpoint found, and the time until which it is used when lookups fail.
    good: Mutex<Option<(String, SystemTime)>>,
}

impl CachedName {
    /// Converts the outcome of a lookup (`None`: timed out) to a cached value with its lifetime.
    fn settle(
        &self,
        looked: Option<Result<ResolvedEndpoint, AliasError>>,
        now: SystemTime,
    ) -> Expiring<Result<String, AliasError>> {
        let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        let host = self.host.as_str();
        let looked = looked.unwrap_or_else(|| {
            Err(AliasError::Dns {
                host: host.to_owned(),
                reason: format!("no answer within {} s", DEADLINE.as_secs()).into(),
            })
        });
        let (value, time) = match (looked, good.clone()) {
            (Ok(ResolvedEndpoint { endpoint, ttl }), _) => {
                tracing::debug!(host, endpoint, ?ttl, "resolved a CNAME");
                let ttl = ttl.clamp(SHORTEST, LONGEST);
                *good = Some((endpoint.clone(), now + ttl + STALE));
                (Ok(endpoint), ttl)
            }
            (Err(error), Some((endpoint, until))) if now < until => {
                tracing::warn!(%error, endpoint, "CNAME lookup failed; using the endpoint of the last lookup");
                (Ok(endpoint), PAUSE)
            }
            (Err(error), _) => (Err(error), FAILURE),
        };
        Expiring {
            value,
            made_at: now,
            until: Some(now + time),
        }
    }
}

/// An endpoint and its lifetime.
struct ResolvedEndpoint {
    endpoint: String,
    ttl: Duration,
}

/// Follows CNAMEs until an endpoint is found.
async fn follow(dns: Option<SocketAddr>, host: String) -> Result<ResolvedEndpoint, AliasError> {
    let failed = |error: NetError| AliasError::Dns {
        host: host.clone(),
        reason: error.to_string().into(),
    };
    let resolver = resolver(dns).map_err(failed)?;
    let mut chain = vec![host.clone()];
    let mut ttl = LONGEST;
    while chain.len() <= MOST_STEPS {
        let last = chain.last().map_or("", String::as_str);
        match step(&resolver, last).await.map_err(failed)? {
            QueryStep::Alias { of, ttl: its } => {
                ttl = ttl.min(its);
                if is_endpoint(&of) {
                    return Ok(ResolvedEndpoint { endpoint: of, ttl });
                }
                let is_known = chain.contains(&of);
                chain.push(of);
                if is_known {
                    break;
                }
            }
            QueryStep::End { exists } => {
                return Err(AliasError::NoAlias {
                    host,
                    chain: foreign(chain),
                    exists,
                });
            }
        }
    }
    let chain = foreign(chain);
    Err(AliasError::Loop { host, chain })
}

fn foreign(names: Vec<String>) -> Vec<ForeignText> {
    names.into_iter().map(ForeignText::from).collect()
}

/// Result of the query for one name.
enum QueryStep {
    Alias { of: String, ttl: Duration },
    End { exists: bool },
}

async fn step(resolver: &TokioResolver, name: &str) -> Result<QueryStep, NetError> {
    let Ok(mut query) = Name::from_ascii(name) else {
        // A CNAME target that DNS can carry but that is not a valid host name.
        return Ok(QueryStep::End { exists: false });
    };
    // The name is fully qualified: no search list.
    query.set_fqdn(true);
    let answer = match resolver.lookup(query, RecordType::CNAME).await {
        Ok(answer) => answer,
        Err(NetError::Dns(DnsError::NoRecordsFound(NoRecords { response_code, .. }))) => {
            let exists = response_code != ResponseCode::NXDomain;
            return Ok(QueryStep::End { exists });
        }
        Err(error) => return Err(error),
    };
    let aliases = answer.answers().iter().filter_map(|record| {
        let owner = normal(&record.name.to_ascii());
        match &record.data {
            RData::CNAME(target) if owner == name => Some(QueryStep::Alias {
                of: normal(&target.to_ascii()),
                ttl: Duration::from_secs(record.ttl.into()),
            }),
            _ => None,
        }
    });
    let end = QueryStep::End { exists: true };
    Ok(aliases.into_iter().next().unwrap_or(end))
}

/// Creates a resolver. There is a new one for each lookup: a chain is looked up once in minutes,
/// and reading the system's settings takes little time beside waiting for DNS.
fn resolver(dns: Option<SocketAddr>) -> Result<TokioResolver, NetError> {
    let mut builder = match dns {
        None => TokioResolver::builder_tokio()?,
        Some(server) => {
            let mut config = NameServerConfig::udp_and_tcp(server.ip());
            for connection in &mut config.connections {
                connection.port = server.port();
            }
            let config = ResolverConfig::from_name_servers(vec![config]);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    let options = builder.options_mut();
    options.timeout = PATIENCE;
    options.attempts = REPEATS;
    // This module caches answers itself; /etc/hosts has addresses only.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    builder.build()
}

fn normal(host: &str) -> String {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.to_ascii_lowercase()
}

/// Returns `true` if the name is an endpoint. DNS can carry any byte in a name; an endpoint has
/// letters, digits, hyphens and dots.
fn is_endpoint(host: &str) -> bool {
    EndpointKind::of(host) != EndpointKind::Other && DnsName::try_from(host).is_ok()
}

#[cfg(test)]
mod tests;
