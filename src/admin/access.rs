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

use super::{page_url, reachable};
use crate::admission::{Admitted, Arrival, Refusal};

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
    Public(&'a Denial),
}

/// Reason why a request gets public information only.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum Denial {
    /// The client belongs to another user.
    #[error("the client runs as user id {peer}, and pgiam as {own}")]
    Foreign {
        /// User id of the client.
        peer: u32,
        /// User id of pgiam.
        own: u32,
    },
    /// The owner of the client was not found.
    #[error("{0}")]
    Unknown(String),
    /// The client is on another machine.
    #[error("the client {0} is not known to be a program of pgiam's user on this machine")]
    Elsewhere(IpAddr),
    /// Database clients authenticate with a password.
    #[error("pgiam does not know the owner of the client, and database clients need a password")]
    Password,
    /// The request is addressed to another host.
    #[error("the request is addressed to another host name")]
    OtherHost,
    /// Another website made the browser send the request.
    #[error("another website made this browser send the request")]
    OtherSite,
}

impl Denial {
    /// Returns the rule that the request breaks.
    pub(super) fn rule(&self) -> &'static str {
        match self {
            Self::OtherHost => "pgiam answers requests to its own address only",
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
            Self::Elsewhere(_) => elsewhere(address),
            Self::OtherHost => match address {
                Some(address) => format!("Open {}\n", page_url(address)),
                None => String::new(),
            },
            Self::OtherSite => {
                "Type the address into the address bar of the browser.\n".to_owned()
            }
        }
    }
}

fn elsewhere(address: Option<SocketAddr>) -> String {
    let Some(address) = address else {
        return String::new();
    };
    let (port, place) = (address.port(), reachable(address));
    format!(
        "Open http://127.0.0.1:{port}/ in your browser while this command runs, with the machine \
         of pgiam as HOST:\n  ssh -N -L {port}:{place} HOST\n"
    )
}

/// Decides about a TCP client. `has_password`: database clients must give one.
pub(super) fn judge<S>(client: &Admitted<S>, has_password: bool) -> Result<(), Denial> {
    if client.is_owners() {
        return Ok(());
    }
    judge_unowned(client.objection(), client.arrival(), has_password)
}

fn judge_unowned(
    objection: Option<&Refusal>,
    arrival: Arrival,
    has_password: bool,
) -> Result<(), Denial> {
    match (objection, arrival) {
        (Some(Refusal::Foreign { peer, own }), _) => Err(Denial::Foreign {
            peer: *peer,
            own: *own,
        }),
        (Some(other), _) => Err(Denial::Unknown(other.to_string())),
        (None, Arrival::Tcp { peer, .. }) if !arrival.is_of_this_machine() => {
            Err(Denial::Elsewhere(peer.ip().to_canonical()))
        }
        (None, _) if has_password => Err(Denial::Password),
        (None, _) => Ok(()),
    }
}

/// Returns `true` if a request is addressed to a server with this `address`. A website with a name
/// that resolves to a loopback address (DNS rebinding) could make a browser send requests that
/// expose private data; they contain the website's own name.
pub(super) fn is_meant(address: Option<SocketAddr>, headers: &HeaderMap, uri: &Uri) -> bool {
    match address {
        Some(address) if address.ip().is_loopback() => names_us(&[address.ip()], headers, uri),
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
    if !names_us(&own, headers, uri) {
        return Err(Denial::OtherHost);
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

/// Returns `true` if each name of the server in a request is `localhost`, a loopback address, or
/// one of `own`. Programs that speak HTTP/1.0 name none; browsers always do.
fn names_us(own: &[IpAddr], headers: &HeaderMap, uri: &Uri) -> bool {
    let hosts = headers.get_all(HOST).iter().map(|host| host.to_str().ok());
    let authority = uri.authority().map(|authority| Some(authority.as_str()));
    let mut names = hosts.chain(authority);
    names.all(|host| host.is_some_and(|host| is_name_of(own, host)))
}

fn is_name_of(own: &[IpAddr], host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let is_own = |ip: IpAddr| {
        let ip = ip.to_canonical();
        ip.is_loopback() || (own.contains(&ip) && !ip.is_unspecified())
    };
    name.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(is_own)
}

#[cfg(test)]
mod tests;
