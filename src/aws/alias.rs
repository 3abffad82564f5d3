//! From the name a user has configured to the name AWS knows.
//!
//! People give their databases names of their own: `orders.db.example.com` is an alias (a CNAME
//! record, RFC 1034, section 3.6.2) of `orders.cluster-abc.eu-central-1.rds.amazonaws.com`, which may
//! itself be an alias of an instance. A token must be signed for the RDS name, and the certificate is
//! made out for it, so the first name of the chain that is an endpoint is the one to use: the alias
//! of a cluster means the cluster, whichever instance writes at the moment.
//!
//! Only signing and verification use the answer. What is dialled is the configured name, and who
//! looks it up is the bastion, in the VPC's own DNS. The two may disagree for as long as a record
//! lives; the login fails then, and nothing worse: whoever forges our answers makes us sign for,
//! and insist on, a server that the tunnel does not lead to. Without a tunnel the same DNS gives name
//! and address, and who forges it chooses among all of AWS's databases; the README says so.

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

use crate::base::background::Stopped;
use crate::base::foreign_text::ForeignText;
use crate::base::single_flight::{Clock, Kept, Lease, system_clock};
use crate::config::EndpointKind;

/// For a whole chain, retries included: a connection waits for it beside the tunnel.
const DEADLINE: Duration = Duration::from_secs(5);
/// For one question to one server, and how often it is repeated: together less than the deadline, so
/// that a second server gets its turn.
const PATIENCE: Duration = Duration::from_millis(1500);
const REPEATS: usize = 2;
/// The longest chain. Resolvers follow 8 to 16 aliases; people use one or two.
const MOST_STEPS: usize = 8;

/// How long an answer is used, whatever its TTL: RDS has TTLs of 5 s, and after a change of the
/// alias nobody should have to wait for hours.
const SHORTEST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(5 * 60);
/// How long it is used beyond its TTL while DNS does not answer, or not with an endpoint: a VPN that
/// went down takes its names with it, but the tunnel may well go on. And how long until the next try.
/// (RFC 8767, "Serving Stale Data to Improve DNS Resiliency", allows days and suggests 30 s.)
const STALE: Duration = Duration::from_secs(3600);
const PAUSE: Duration = Duration::from_secs(30);
/// For how long a failure is remembered when there is no older answer: each connection of a pool
/// must not ask anew.
const FAILURE: Duration = Duration::from_secs(5);

/// Why no endpoint is known for a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AliasError {
    /// DNS answers, and the name does not lead to an endpoint. The user's configuration, or a name
    /// that only the DNS of the VPC (a private hosted zone) has: the endpoint itself must be
    /// configured then.
    #[error(
        "{host} is no RDS or DSQL endpoint, and no alias of one in the DNS of this machine: {}",
        seen(.chain, *.exists)
    )]
    NoAlias {
        /// The name as configured.
        host: String,
        /// The names that were seen, the configured one first.
        chain: Vec<ForeignText>,
        /// Whether the last of them exists at all.
        exists: bool,
    },
    /// DNS does not answer, or cannot. A fault of the network, or of this machine's settings.
    #[error("the endpoint behind {host} is not known, because DNS did not tell: {reason}")]
    Dns {
        /// The name as configured.
        host: String,
        /// What went wrong.
        reason: ForeignText,
    },
    /// The aliases lead back to one of them, or there are too many. A fault in the zone.
    #[error(
        "the aliases of {host} go round in a circle, or further than {MOST_STEPS} steps: {}",
        joined(.chain)
    )]
    Loop {
        /// The name as configured.
        host: String,
        /// The names that were seen, the configured one first.
        chain: Vec<ForeignText>,
    },
}

fn joined(chain: &[ForeignText]) -> String {
    let names: Vec<&str> = chain.iter().map(|name| &**name).collect();
    names.join(" → ")
}

fn seen(chain: &[ForeignText], exists: bool) -> String {
    let ending = match (chain, exists) {
        ([_], true) => "is no alias at all",
        (_, true) => "is no alias any more",
        (_, false) => "does not exist",
    };
    format!("{} {ending}", joined(chain))
}

/// The endpoints behind the names of this program's databases. Shared by all connections.
pub struct Aliases {
    dns: Option<SocketAddr>,
    clock: Clock,
    places: Mutex<HashMap<String, Arc<Place>>>,
}

impl Aliases {
    /// Asks the server at `dns`, or else the servers of the operating system as they are when asked:
    /// a VPN that comes up brings its own. Nothing is asked yet.
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

    /// The endpoint that `host` is or is an alias of, in lower case, without a trailing dot. Asks
    /// nobody when it is one. Never takes longer than 5 s; cancel-safe.
    ///
    /// Answers are kept as long as DNS says, but at least 5 s and at most 5 min; callers that come at
    /// the same time share one lookup. When it cannot be repeated, the old answer holds for another
    /// hour.
    ///
    /// # Errors
    /// See [`AliasError`]. They are remembered for 5 s.
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

    /// The next call asks again: a server was found to be another one than the answer for `host` says.
    pub fn forget(&self, host: &str) {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places.get(&normal(host)) {
            place.kept.forget();
        }
    }

    fn place(&self, host: &str) -> Arc<Place> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            Arc::new(Place {
                host: host.to_owned(),
                kept: Kept::new(self.clock.clone()),
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

/// What is known about one name.
struct Place {
    host: String,
    /// Failures are kept as well, so they are values here.
    kept: Kept<Result<String, AliasError>, Stopped>,
    /// The last endpoint that was found, and until when it is good enough if no other is.
    good: Mutex<Option<(String, SystemTime)>>,
}

impl Place {
    /// What to make of a lookup's outcome (`None`: it took too long), and for how long.
    fn settle(
        &self,
        looked: Option<Result<Found, AliasError>>,
        now: SystemTime,
    ) -> Lease<Result<String, AliasError>> {
        let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        let host = self.host.as_str();
        let looked = looked.unwrap_or_else(|| {
            Err(AliasError::Dns {
                host: host.to_owned(),
                reason: format!("no answer in {} s", DEADLINE.as_secs()).into(),
            })
        });
        let (value, time) = match (looked, good.clone()) {
            (Ok(Found { endpoint, ttl }), _) => {
                tracing::debug!(host, endpoint, ?ttl, "followed an alias");
                let ttl = ttl.clamp(SHORTEST, LONGEST);
                *good = Some((endpoint.clone(), now + ttl + STALE));
                (Ok(endpoint), ttl)
            }
            (Err(error), Some((endpoint, until))) if now < until => {
                tracing::warn!(%error, endpoint, "the endpoint behind an alias is still taken for what it was");
                (Ok(endpoint), PAUSE)
            }
            (Err(error), _) => (Err(error), FAILURE),
        };
        Lease {
            value,
            made_at: now,
            until: Some(now + time),
        }
    }
}

/// An endpoint, and for how long it is the one.
struct Found {
    endpoint: String,
    ttl: Duration,
}

/// Goes from alias to alias until there is an endpoint.
async fn follow(dns: Option<SocketAddr>, host: String) -> Result<Found, AliasError> {
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
            Step::Alias { of, ttl: its } => {
                ttl = ttl.min(its);
                if is_endpoint(&of) {
                    return Ok(Found { endpoint: of, ttl });
                }
                let is_known = chain.contains(&of);
                chain.push(of);
                if is_known {
                    break;
                }
            }
            Step::End { exists } => {
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

/// What DNS says about one name.
enum Step {
    Alias { of: String, ttl: Duration },
    End { exists: bool },
}

async fn step(resolver: &TokioResolver, name: &str) -> Result<Step, NetError> {
    let Ok(mut query) = Name::from_ascii(name) else {
        // A target that DNS can carry and no host can have.
        return Ok(Step::End { exists: false });
    };
    // The name stands for itself: no search list.
    query.set_fqdn(true);
    let answer = match resolver.lookup(query, RecordType::CNAME).await {
        Ok(answer) => answer,
        Err(NetError::Dns(DnsError::NoRecordsFound(NoRecords { response_code, .. }))) => {
            let exists = response_code != ResponseCode::NXDomain;
            return Ok(Step::End { exists });
        }
        Err(error) => return Err(error),
    };
    let aliases = answer.answers().iter().filter_map(|record| {
        let owner = normal(&record.name.to_ascii());
        match &record.data {
            RData::CNAME(target) if owner == name => Some(Step::Alias {
                of: normal(&target.to_ascii()),
                ttl: Duration::from_secs(record.ttl.into()),
            }),
            _ => None,
        }
    });
    let end = Step::End { exists: true };
    Ok(aliases.into_iter().next().unwrap_or(end))
}

/// Made for every lookup: a chain is looked up once in minutes, and reading the system's settings is
/// nothing beside waiting for DNS.
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
    // Answers are kept here; /etc/hosts knows addresses only.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    builder.build()
}

fn normal(host: &str) -> String {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.to_ascii_lowercase()
}

/// DNS can carry any byte in a name; an endpoint's has letters, digits, hyphens and dots.
fn is_endpoint(host: &str) -> bool {
    EndpointKind::of(host) != EndpointKind::Other && DnsName::try_from(host).is_ok()
}

#[cfg(test)]
mod tests;
