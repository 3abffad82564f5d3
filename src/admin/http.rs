//! HTTP around the answers.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
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
        let host = request.headers().get(HOST);
        let response = match control || is_meant(&context, host) {
            true => response(context.answer(&asked)),
            false => response(Answer::misdirected()),
        };
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

/// Whether a request is for us. On the loopback interface, a website whose name leads there (DNS
/// rebinding) could have a browser ask for what it may not see; its requests have its own name.
fn is_meant(context: &Context, host: Option<&HeaderValue>) -> bool {
    if !context
        .http
        .is_some_and(|address| address.ip().is_loopback())
    {
        return true; // Whatever name it has there.
    }
    let Some(host) = host.and_then(|host| host.to_str().ok()) else {
        return host.is_none(); // Programs that speak HTTP/1.0, and no browser.
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let is_local = |ip: IpAddr| ip.to_canonical().is_loopback();
    name.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(is_local)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::admin::{Controls, Kind};
    use crate::observe::Observed;

    #[test]
    fn names_of_others_are_not_answered_on_the_loopback() {
        let context = |address: &str| Context {
            kind: Kind::Serve,
            config: None,
            http: Some(address.parse().unwrap()),
            observed: Arc::new(Observed::new(1)),
            controls: Controls::default(),
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
