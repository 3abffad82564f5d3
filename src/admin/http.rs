//! HTTP around the answers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::Context;
use super::answer::{Answer, Asked};
use crate::platform::socket::UnixSocket;

/// Connections at a time, on each of the two ways in; more of them wait in the kernel. Those who ask
/// are a Prometheus, a kubelet and a person.
const MOST: usize = 64;
/// How long one of them may take, from its first byte to the last of the answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long it may take to say what it wants: who is silent must not keep others out.
const HEAD_DEADLINE: Duration = Duration::from_secs(1);
/// Most bytes of a request's head. (The least that the library takes.)
const HEAD: usize = 8 * 1024;
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers whoever comes. Ends by being dropped.
pub(super) async fn over_tcp(listener: TcpListener, context: Arc<Context>) {
    let places = Arc::new(Semaphore::new(MOST));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(converse(stream, Arc::clone(&context), false, place));
            }
            Err(error) => {
                debug!(%error, "accept failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers the user `own`, and nobody else. Ends by being dropped.
pub(super) async fn over_unix(socket: UnixSocket, context: Arc<Context>, own: Option<u32>) {
    let places = Arc::new(Semaphore::new(MOST));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match socket.accept().await {
            Ok((stream, uid)) if Some(uid) == own => {
                tokio::spawn(converse(stream, Arc::clone(&context), true, place));
            }
            Ok((_, uid)) => warn!(
                uid,
                "somebody else asked at the control socket; not answered"
            ),
            Err(error) => {
                debug!(%error, "accept failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One request, one answer.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    context: Arc<Context>,
    control: bool,
    _place: OwnedSemaphorePermit,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let asked = Asked {
            method: request.method(),
            path: request.uri().path(),
            query: request.uri().query(),
            control,
        };
        let response = response(context.answer(&asked));
        async move { Ok::<_, Infallible>(response) }
    });
    let mut server = http1::Builder::new();
    server
        .keep_alive(false)
        .max_buf_size(HEAD)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE);
    let conversation = server.serve_connection(TokioIo::new(stream), service);
    match timeout(DEADLINE, conversation).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "an HTTP client did not get its answer"),
        Err(_) => debug!("an HTTP client was too slow"),
    }
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let Answer {
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
