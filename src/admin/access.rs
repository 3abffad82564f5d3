//! Decision which HTTP requests get the page and `/status`: those of pgiam's own user, from programs
//! that a website cannot steer.
//!
//! The rule for the owner is the one of database clients. A client that pgiam would ask for the
//! local password is refused, because HTTP has no such step here.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{HOST, HeaderName, HeaderValue, ORIGIN};
use hyper::http::uri::Uri;
use hyper::{HeaderMap, Method};
use thiserror::Error;

use super::{AdminContext, page_url, reachable};
use crate::admission::{Arrival, Refusal};
use crate::platform::user::UserId;

/// Fetch Metadata Request Headers, 2.3.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Rights of a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access<'a> {
    /// The control socket: everything.
    Control,
    /// A program of pgiam's user on TCP: the page and `/status`, which change nothing.
    Page,
    /// Health endpoints and metrics only, with the reason.
    Denied(&'a Denial),
    /// Not decided, because the path has no private information.
    Public,
}

/// Reason why a request gets public information only.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum Denial {
    /// The client belongs to another user.
    #[error("the client runs as user id {peer}, and pgiam as {own}")]
    Foreign {
        /// User of the client.
        peer: UserId,
        /// User of pgiam.
        own: UserId,
    },
    /// The owner of the client was not found.
    #[error("{0}")]
    Unknown(String),
    /// The client is on another machine.
    #[error("the client {peer} is not known to be a program of pgiam's user on this machine")]
    Elsewhere {
        /// Address of the client.
        peer: IpAddr,
        /// A port that SSH forwards leads to the page.
        forward: bool,
    },
    /// Database clients authenticate with a password.
    #[error("pgiam does not know the owner of the client, and database clients need a password")]
    Password,
    /// The request is addressed to another host.
    #[error("the request is addressed to another host name")]
    OtherHost,
    /// The request is addressed to `localhost`. A browser may get the page of that name from `::1`,
    /// where another user listens, and then send the requests of that page to 127.0.0.1.
    #[error("the request is addressed to localhost, where another program may answer as well")]
    Localhost,
    /// Another website made the browser send the request.
    #[error("another website made this browser send the request")]
    OtherSite,
}

impl Denial {
    /// Returns the rule that the request breaks.
    pub(super) fn rule(&self) -> &'static str {
        match self {
            Self::OtherHost | Self::Localhost => "pgiam answers requests to its own address only",
            Self::OtherSite => "pgiam does not show its status to other websites",
            _ => "pgiam shows its status to its own user only",
        }
    }

    /// Returns the remedy, with its command on a line of its own.
    pub(super) fn remedy(&self, address: Option<SocketAddr>) -> String {
        match self {
            Self::Foreign { .. } => {
                "Open it as the user that runs pgiam, or run as that user:\n  pgiam status --watch\n"
                    .to_owned()
            }
            Self::Unknown(_) | Self::Password => {
                "Run as the user that runs pgiam:\n  pgiam status --watch\n".to_owned()
            }
            Self::Elsewhere { forward: true, .. } => forwarded(address),
            Self::Elsewhere { forward: false, .. } => {
                "Run this command, with the machine of pgiam as HOST:\n  \
                 ssh -t HOST pgiam status --watch\n"
                    .to_owned()
            }
            Self::OtherHost | Self::Localhost => match address {
                Some(address) => format!("Open {}\n", page_url(address)),
                None => String::new(),
            },
            Self::OtherSite => {
                "Type the address into the address bar of the browser.\n".to_owned()
            }
        }
    }
}

fn forwarded(address: Option<SocketAddr>) -> String {
    let Some(address) = address else {
        return String::new();
    };
    let (port, place) = (address.port(), reachable(address));
    format!(
        "Open http://127.0.0.1:{port}/ in your browser while this command runs, with the machine \
         of pgiam as HOST:\n  ssh -N -L {port}:{place} HOST\n"
    )
}

/// Decides about a TCP client by its owner.
pub(super) fn judge_owner(
    context: &AdminContext,
    owner: Result<bool, Refusal>,
    arrival: Arrival,
) -> Result<(), Denial> {
    match (owner, arrival) {
        (Ok(true), _) => Ok(()),
        (Err(Refusal::Foreign { peer, own }), _) => Err(Denial::Foreign { peer, own }),
        (Err(other), _) => Err(Denial::Unknown(other.to_string())),
        (Ok(false), Arrival::Tcp { peer, .. }) if !arrival.is_of_this_machine() => {
            // The forwarded client has an owner, or is at least one of this machine.
            let local = context
                .http
                .is_some_and(|http| reachable(http).ip().is_loopback());
            Err(Denial::Elsewhere {
                peer: peer.ip().to_canonical(),
                forward: context.knows_owners || (local && !context.has_password),
            })
        }
        (Ok(false), _) if context.has_password => Err(Denial::Password),
        (Ok(false), _) => Ok(()),
    }
}

/// Returns `true` if a request is addressed to a server with this `address`. A website with a name
/// that resolves to a loopback address (DNS rebinding) could make a browser send requests that
/// expose private data; they contain the website's own name.
pub(super) fn is_meant(address: Option<SocketAddr>, headers: &HeaderMap, uri: &Uri) -> bool {
    match address {
        Some(address) if address.ip().is_loopback() => {
            names(headers, uri).all(|name| name.is_some_and(|name| is_ours(&[address.ip()], name)))
        }
        _ => true, // Any name is accepted there, for health and metrics.
    }
}

/// Decides about the headers of a request for private information.
pub(super) fn judge_headers(
    address: Option<SocketAddr>,
    arrival: Arrival,
    (method, headers, uri): (&Method, &HeaderMap, &Uri),
) -> Result<(), Denial> {
    let mut own: Vec<IpAddr> = address.iter().map(SocketAddr::ip).collect();
    if let Arrival::Tcp { ours, .. } = arrival {
        own.push(ours.ip().to_canonical());
    }
    for name in names(headers, uri) {
        match name {
            Some(name) if is_localhost(name) => return Err(Denial::Localhost),
            Some(name) if is_ours(&own, name) => {}
            _ => return Err(Denial::OtherHost),
        }
    }
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
    let mut origins = headers.get_all(ORIGIN).iter();
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let is_ours = |origin: &HeaderValue| {
        let origin = origin.to_str().ok();
        let origin = origin.and_then(|origin| origin.strip_prefix("http://"));
        origin.is_some() && origin == host
    };
    // "none": the user typed the address.
    let same_site = sites.all(|site| site == "same-origin" || site == "none");
    match (same_site || is_link(method, headers, uri)) && origins.all(is_ours) {
        true => Ok(()),
        false => Err(Denial::OtherSite),
    }
}

/// Returns `true` if the browser opens the page in a window of its own, such as by a link. The page
/// itself contains no data, and other websites cannot read or frame it.
fn is_link(method: &Method, headers: &HeaderMap, uri: &Uri) -> bool {
    let is = |name, expected| {
        let mut values = headers.get_all(name).iter();
        values.next().is_some_and(|value| value == expected) && values.next().is_none()
    };
    method == Method::GET
        && uri.path() == "/"
        && is(SEC_FETCH_MODE, "navigate")
        && is(SEC_FETCH_DEST, "document")
}

/// Returns the names of the server in a request, without the port; `None`: not text. Programs that
/// speak HTTP/1.0 name none; browsers always do.
fn names<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> impl Iterator<Item = Option<&'a str>> {
    let hosts = headers.get_all(HOST).iter().map(|host| host.to_str().ok());
    let authority = uri.authority().map(|authority| Some(authority.as_str()));
    hosts.chain(authority).map(|host| host.map(without_port))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

fn is_localhost(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
}

/// Returns `true` if `name` is `localhost`, a loopback address, or one of `own`.
fn is_ours(own: &[IpAddr], name: &str) -> bool {
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let is_own = |ip: IpAddr| {
        let ip = ip.to_canonical();
        ip.is_loopback() || (own.contains(&ip) && !ip.is_unspecified())
    };
    is_localhost(name) || address.parse().is_ok_and(is_own)
}

#[cfg(test)]
mod tests;
