//! Connecting to the database of a stream.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use super::allow::{AllowList, RelayTarget};
use crate::base::error_text::plain;
use crate::striping::{Refusal, RefusalKind};
use crate::tunnel::DirectFailure;
use crate::tunnel::direct;

/// Timeout for name lookup and connection together.
const DEADLINE: Duration = Duration::from_secs(10);

/// Dials the targets of an allow list.
pub(super) struct Dialer {
    pub(super) allow: AllowList,
    /// Addresses that take the place of a lookup, by name in lower case.
    pub(super) resolve: HashMap<String, IpAddr>,
    /// [`DEADLINE`], or less in tests.
    pub(super) deadline: Duration,
}

impl Dialer {
    pub(super) fn new(allow: AllowList, resolve: HashMap<String, IpAddr>) -> Self {
        Self {
            allow,
            resolve,
            deadline: DEADLINE,
        }
    }

    /// Connects to `target`, the text of a client.
    ///
    /// # Errors
    /// The refusal for the client.
    pub(super) async fn dial(&self, target: &str) -> Result<TcpStream, Refusal> {
        let target = RelayTarget::parse(target)
            .ok_or_else(|| Refusal::new(RefusalKind::Other, "the target is not HOST:PORT"))?;
        if !self.allow.allows(&target) {
            let words = format!(
                "{target} is not in the allow list of this relay; add it there: pgiam relay --allow {target}"
            );
            return Err(Refusal::new(RefusalKind::NotAllowed, words));
        }
        let until = Instant::now() + self.deadline;
        let addresses = self.addresses(&target, until).await?;
        let connected = direct::race(addresses, TcpStream::connect, until).await;
        let tuned = connected.and_then(|stream| match direct::tune(&stream) {
            Ok(()) => Ok(stream),
            Err(error) => Err(Some(error)),
        });
        tuned.map_err(|error| match error {
            Some(error) if direct::failure(&error) == DirectFailure::Refused => Refusal::new(
                RefusalKind::Refused,
                format!("{target} refused the connection"),
            ),
            Some(error) if error.kind() != io::ErrorKind::TimedOut => {
                let words = format!("cannot connect to {target}: {}", plain(&error));
                Refusal::new(RefusalKind::Other, words)
            }
            _ => self.no_answer(&format!("no answer from {target}")),
        })
    }

    async fn addresses(
        &self,
        target: &RelayTarget,
        until: Instant,
    ) -> Result<Vec<SocketAddr>, Refusal> {
        let RelayTarget { host, port } = target;
        if let Some(ip) = target.address().or(self.resolve.get(host).copied()) {
            return Ok(vec![SocketAddr::new(ip, *port)]);
        }
        let found = timeout_at(until, lookup_host((host.as_str(), *port))).await;
        let found =
            found.map_err(|_| self.no_answer(&format!("no answer from DNS about {host}")))?;
        let found: Vec<SocketAddr> = match found {
            Ok(found) => found.collect(),
            Err(error) => {
                let words = format!("the bastion cannot resolve {host}: {}", plain(&error));
                return Err(Refusal::new(RefusalKind::UnknownName, words));
            }
        };
        let (allowed, others): (Vec<SocketAddr>, Vec<SocketAddr>) = found
            .into_iter()
            .partition(|address| self.allow.allows_address(*address));
        match others.first() {
            Some(address) if allowed.is_empty() => {
                let words = format!(
                    "{host} resolves to {}, an address of the bastion itself or of its metadata service; to allow it, add: --allow {address}",
                    address.ip()
                );
                Err(Refusal::new(RefusalKind::NotAllowed, words))
            }
            _ => Ok(allowed),
        }
    }

    fn no_answer(&self, missing: &str) -> Refusal {
        let words = format!("{missing} within {} s", self.deadline.as_secs_f32());
        Refusal::new(RefusalKind::Timeout, words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialer(allow: &[&str], resolve: &[(&str, &str)]) -> Dialer {
        let allow = allow.iter().map(|text| text.parse().unwrap()).collect();
        let resolve = resolve
            .iter()
            .map(|(name, address)| ((*name).to_owned(), address.parse().unwrap()));
        Dialer::new(AllowList::new(allow), resolve.collect())
    }

    #[tokio::test]
    async fn refusals_have_kinds_and_words() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap().port();
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shut = closed.local_addr().unwrap().port();
        drop(closed);
        let long = "x".repeat(64);
        let patterns = [
            format!("localhost:{open}"),
            format!("127.0.0.1:{shut}"),
            "db.internal:*".to_owned(),
            format!("a.{}:*", &long[..63]),
        ];
        let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
        let dialer = dialer(&patterns, &[("db.internal", "127.0.0.1")]);
        assert!(dialer.dial(&format!("db.internal:{open}")).await.is_ok());
        for (target, kind, words) in [
            (
                "db.example:5432".to_owned(),
                RefusalKind::NotAllowed,
                "add it there: pgiam relay --allow db.example:5432",
            ),
            (
                format!("localhost:{open}"),
                RefusalKind::NotAllowed,
                "an address of the bastion itself",
            ),
            (
                format!("127.0.0.1:{open}"),
                RefusalKind::NotAllowed,
                "not in the allow list",
            ),
            (
                format!("127.0.0.1:{shut}"),
                RefusalKind::Refused,
                "refused the connection",
            ),
            (
                format!("db.internal:{shut}"),
                RefusalKind::Refused,
                "refused the connection",
            ),
            // Two labels of which the system asks no name server.
            (
                format!("a.{}:5432", &long[..63]),
                RefusalKind::UnknownName,
                "the bastion cannot resolve a.",
            ),
            (
                "db internal:1".to_owned(),
                RefusalKind::Other,
                "not HOST:PORT",
            ),
        ] {
            let refusal = dialer.dial(&target).await.unwrap_err();
            assert_eq!(refusal.kind, kind, "{target}: {refusal}");
            assert!(refusal.words.contains(words), "{target}: {refusal}");
        }
    }
}
