//! HTTP transport of the answers.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::AdminContext;
use super::answer::{AdminRequest, AdminResponse};
use crate::admission::{Admitted, Entrance, Listens, Refusal, Verdict};

/// Maximum number of concurrent connections on each of the two entrances. The usual clients are a
/// Prometheus, a kubelet and a person. When more connect, the oldest connection that has not sent
/// its request is closed.
const MOST: usize = 128;
/// Timeout of one connection, from its first byte to the last of the answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Timeout for the head of the request.
const HEAD_DEADLINE: Duration = Duration::from_secs(1);
/// Maximum bytes of a request's head. (The minimum that the library accepts.)
const HEAD: usize = 8 * 1024;
/// Serves admitted clients; private paths only if every client is the owner's. Runs until dropped.
pub(super) async fn answer(mut entrance: Entrance<impl Listens>, context: Arc<AdminContext>) {
    let mut crowd = Crowd::default();
    loop {
        match entrance.next().await {
            Verdict::Admitted(client) => {
                crowd.make_room();
                let heard = Arc::new(AtomicBool::new(false));
                let conversation = converse(client, Arc::clone(&context), Arc::clone(&heard));
                let task = tokio::spawn(conversation).abort_handle();
                crowd.0.push_back(Guest { task, heard });
            }
            Verdict::Refused(client) if client.is_quiet() => {}
            Verdict::Refused(client) => match client.refusal() {
                Refusal::Foreign { peer: uid, .. } => warn!(
                    uid,
                    "refused a request of another user at the control socket"
                ),
                refusal => warn!(reason = %refusal, "refused a connection"),
            },
        }
    }
}

/// Open connections, oldest first.
#[derive(Default)]
struct Crowd(VecDeque<Guest>);

struct Guest {
    task: AbortHandle,
    /// Set once the request has been read.
    heard: Arc<AtomicBool>,
}

impl Crowd {
    /// Makes room for one more connection: silent ones must not keep others out.
    fn make_room(&mut self) {
        self.0.retain(|guest| !guest.task.is_finished());
        while self.0.len() >= MOST {
            let is_silent = |guest: &Guest| !guest.heard.load(Ordering::Relaxed);
            let oldest = self.0.iter().position(is_silent).unwrap_or(0);
            if let Some(guest) = self.0.remove(oldest) {
                guest.task.abort();
            }
        }
    }
}

/// Serves one request.
async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send>(
    client: Admitted<S>,
    context: Arc<AdminContext>,
    heard: Arc<AtomicBool>,
) {
    let is_owners = client.is_owners();
    let service = service_fn(|request: Request<Incoming>| {
        heard.store(true, Ordering::Relaxed);
        let asked = AdminRequest {
            method: request.method(),
            path: request.uri().path(),
            query: request.uri().query(),
            is_owners,
        };
        let host = request.headers().get(HOST);
        let response = match is_owners || is_meant(&context, host) {
            true => response(context.answer(&asked)),
            false => response(AdminResponse::misdirected()),
        };
        async move { Ok::<_, Infallible>(response) }
    });
    let mut server = http1::Builder::new();
    server
        .keep_alive(false)
        .max_buf_size(HEAD)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE);
    let conversation = server.serve_connection(TokioIo::new(client.into_stream()), service);
    match timeout(DEADLINE, conversation).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "cannot answer an HTTP client"),
        Err(_) => debug!("an HTTP request timed out"),
    }
}

/// Returns `true` if a request is addressed to this server. A website with a name that resolves to
/// a loopback address (DNS rebinding) could make a browser send requests that expose private data;
/// they contain the website's own name.
fn is_meant(context: &AdminContext, host: Option<&HeaderValue>) -> bool {
    if !context
        .http
        .is_some_and(|address| address.ip().is_loopback())
    {
        return true; // Any name is accepted there.
    }
    let Some(host) = host.and_then(|host| host.to_str().ok()) else {
        return host.is_none(); // Programs that speak HTTP/1.0, but no browser.
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let is_local = |ip: IpAddr| ip.to_canonical().is_loopback();
    name.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(is_local)
}

fn response(answer: AdminResponse) -> Response<Full<Bytes>> {
    let AdminResponse {
        status,
        content_type,
        body,
    } = answer;
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::admin::{ControlRequests, ProcessKind};
    use crate::observe::Observed;

    #[test]
    fn names_of_others_are_not_answered_on_the_loopback() {
        let context = |address: &str| AdminContext {
            kind: ProcessKind::Serve,
            config: None,
            http: Some(address.parse().unwrap()),
            observed: Arc::new(Observed::new(1)),
            controls: ControlRequests::default(),
        };
        let meant = |address: &str, host: &'static str| {
            is_meant(&context(address), Some(&HeaderValue::from_static(host)))
        };
        for host in [
            "localhost:9801",
            "LOCALHOST",
            "127.0.0.1:9801",
            "127.0.0.1",
            "[::1]:9801",
            "[::1]",
        ] {
            assert!(meant("127.0.0.1:9801", host), "{host}");
        }
        for host in [
            "attacker.example:9801",
            "attacker.example",
            "localhost.attacker.example",
            "10.0.0.1",
            "",
        ] {
            assert!(!meant("127.0.0.1:9801", host), "{host}");
            assert!(meant("10.0.0.7:9801", host), "{host}");
        }
        assert!(is_meant(&context("[::1]:9801"), None));
    }
}
