//! HTTP transport of the answers.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::AdminContext;
use super::access::{self, Access, Denial};
use super::answer::{AdminRequest, AdminResponse};
use super::page::Resource;
use crate::admission::{Admitted, Arrival, Entrance, Guard, Listens, Refusal, Verdict};

/// Maximum number of concurrent connections on each of the two entrances. The usual clients are a
/// Prometheus, a kubelet and a person. When more connect, the oldest connection that has not sent
/// its request is closed.
const MOST: usize = 128;
/// Timeout of one connection, from its first byte to the last of the answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Timeout for the head of the request.
const HEAD_DEADLINE: Duration = Duration::from_secs(1);
/// Maximum bytes of a request's head. Browsers send the cookies of every server of a host, whatever
/// its port; other development servers accept 8 to 16 KiB.
const HEAD: usize = 32 * 1024;

/// Kind of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntranceKind {
    /// The control socket.
    Control,
    /// The port for health, metrics and the page.
    Tcp,
}

/// Serves admitted clients. Runs until dropped.
pub(super) async fn answer(
    mut entrance: Entrance<impl Listens>,
    at: EntranceKind,
    context: Arc<AdminContext>,
) {
    let mut crowd = Crowd::default();
    let guard = entrance.guard();
    loop {
        match entrance.next().await {
            Verdict::Admitted(client) => {
                crowd.make_room();
                let heard = Arc::new(AtomicBool::new(false));
                let visitor = Visitor {
                    arrival: client.arrival(),
                    is_control: at == EntranceKind::Control && client.is_owners(),
                    guard: Arc::clone(&guard),
                };
                let conversation =
                    converse(client, (visitor, Arc::clone(&context)), Arc::clone(&heard));
                let task = tokio::spawn(conversation).abort_handle();
                crowd.0.push_back(Guest { task, heard });
            }
            Verdict::Refused(client) if client.is_quiet() => {}
            Verdict::Refused(client) => match client.refusal() {
                Refusal::Foreign { peer, .. } => warn!(
                    uid = peer.uid(),
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
    (visitor, context): (Visitor, Arc<AdminContext>),
    heard: Arc<AtomicBool>,
) {
    let service = service_fn(async |request: Request<Incoming>| {
        heard.store(true, Ordering::Relaxed);
        Ok::<_, Infallible>(response(visitor.answer(&context, &request).await))
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

/// A client after admission.
struct Visitor {
    arrival: Arrival,
    /// A program of pgiam's user, at the control socket.
    is_control: bool,
    guard: Arc<Guard>,
}

impl Visitor {
    async fn answer<B>(&self, context: &AdminContext, request: &Request<B>) -> AdminResponse {
        if self.is_control {
            return answer_with(context, request, Access::Control);
        }
        let owner = self.guard.is_owners(self.arrival);
        answer_client(context, (self.arrival, owner), request).await
    }
}

fn answer_with<B>(
    context: &AdminContext,
    request: &Request<B>,
    access: Access<'_>,
) -> AdminResponse {
    context.answer(&AdminRequest {
        method: request.method(),
        path: request.uri().path(),
        query: request.uri().query(),
        access,
    })
}

/// Returns the answer to a client of the port. Its `owner` is looked up for private information
/// only: health checks and metrics neither wait for a lookup nor fail with it.
async fn answer_client<B>(
    context: &AdminContext,
    (arrival, owner): (Arrival, impl Future<Output = Result<bool, Refusal>>),
    request: &Request<B>,
) -> AdminResponse {
    let (method, headers, uri) = (request.method(), request.headers(), request.uri());
    if !access::is_meant(context.http, headers, uri) {
        return context.deny(&Denial::OtherHost);
    }
    if Resource::of(uri.path()).is_none() {
        return answer_with(context, request, Access::Public);
    }
    let judged = match access::judge_headers(context.http, arrival, (method, headers, uri)) {
        Ok(()) => access::judge_owner(context, owner.await, arrival),
        denied => denied,
    };
    match &judged {
        Ok(()) => answer_with(context, request, Access::Page),
        Err(denial) => answer_with(context, request, Access::Denied(denial)),
    }
}

/// Headers of each answer. They keep browsers from storing, guessing, framing and sharing it, the
/// page from loading anything from elsewhere, and a website that opens it from its window.
const HEADERS: [(HeaderName, &str); 6] = [
    (CACHE_CONTROL, "no-store"),
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];
/// Content Security Policy Level 3, and Trusted Types: no text becomes markup or a script.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

fn response(answer: AdminResponse) -> Response<Full<Bytes>> {
    let body = match answer.body {
        Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
        Cow::Owned(text) => Bytes::from(text),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    if let Some(allow) = answer.allow {
        headers.insert(ALLOW, HeaderValue::from_static(allow));
    }
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests;
