//! Opens the data channel: TCP or a proxy's tunnel, TLS to the service's name, WebSocket upgrade
//! signed with SigV4 (service `ssmmessages`), which AWS requires from clients since plugin 1.2.764.

use std::sync::Arc;
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use http::header::DATE;
use http::{HeaderMap, Response, StatusCode};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, handshake::client::Request};
use url::Url;

use super::proxy::{self, ProxySettings};
use super::socket::WebSocket;
use crate::aws::{ClockWatch, difference, signable};
use crate::base::error_text::chain;
use crate::base::foreign_text::ForeignText;
use crate::base::names::Region;
use crate::base::stream::Stream;
use crate::tunnel::TunnelError;

/// The service name in the signature's scope.
const SERVICE: &str = "ssmmessages";
/// Largest accepted WebSocket message. Agent messages are 1 KiB of payload and 120 bytes of header;
/// the handshake and `channel_closed` texts stay far below this, too.
const MAX_MESSAGE: usize = 1024 * 1024;
/// Bytes read from TLS at a time. With messages of 1.2 KB, sizes from 16 to 128 KiB differ by a
/// tenth, and all of them carry many times what an agent sends (1.1 to 1.4 GB/s on loopback).
const READ_BUFFER: usize = 64 * 1024;
/// Bytes collected before a write to TLS: two records. More was no faster.
const WRITE_BUFFER: usize = 32 * 1024;
/// Tolerated clock error in seconds: AWS accepts signatures that are up to five minutes old or
/// early (IAM User Guide, "Signature Version 4").
const TOLERATED_SKEW: i64 = 5 * 60;

/// Means to reach AWS, except for the URL and the credentials.
pub(super) struct NetworkPath<'a> {
    /// Trusted roots.
    pub(super) roots: Arc<RootCertStore>,
    /// HTTP proxies of the environment.
    pub(super) proxies: &'a ProxySettings,
    /// Receiver of the time in the gateway's answer.
    pub(super) watch: &'a ClockWatch,
}

/// Opens the WebSocket at `url`, through a proxy if need be. The caller sets the deadline.
///
/// # Errors
/// [`TunnelError::ChannelConnect`], [`TunnelError::ChannelRefused`], [`TunnelError::Proxy`].
pub(super) async fn connect(
    url: &Url,
    region: &Region,
    credentials: &Credentials,
    way: NetworkPath<'_>,
) -> Result<WebSocket, TunnelError> {
    let host = url.host_str().unwrap_or_default().to_owned();
    let port = port_of(url);
    let failed = |reason: ForeignText| TunnelError::ChannelConnect {
        host: host.clone(),
        port,
        reason,
    };

    let request =
        signed_request(url, region, credentials).map_err(|reason| failed(reason.into()))?;
    let NetworkPath {
        roots,
        proxies,
        watch,
    } = way;
    let tls = tls(roots).map_err(|error| failed(chain(&error)))?;
    let name = ServerName::try_from(proxy::bare(&host).to_owned())
        .map_err(|error| failed(chain(&error)))?;
    let tcp = proxies.dial(&host, port, &tls).await?;
    let stream: Stream = Box::new(
        tls.connect(name, tcp)
            .await
            .map_err(|error| failed(chain(&error)))?,
    );

    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER);
    let asked = watch.now();
    match client_async_with_config(request, stream, Some(config)).await {
        Ok((socket, response)) => {
            watch.answered(date(response.headers()), asked);
            Ok(socket)
        }
        Err(WsError::Http(response)) => {
            watch.answered(date(response.headers()), asked);
            Err(refused((host, region), &response, watch.now()))
        }
        Err(error) => Err(failed(chain(&error))),
    }
}

/// Returns the port of a data channel.
pub(super) fn port_of(url: &Url) -> u16 {
    const HTTPS: u16 = 443;
    url.port_or_known_default().unwrap_or(HTTPS)
}

fn date(headers: &HeaderMap) -> Option<&str> {
    headers.get(DATE)?.to_str().ok()
}

/// Returns the gateway's refusal as an error. It answers 403 to a signature it does not accept;
/// only the time in its answer reveals a wrong clock as the reason.
fn refused<T>(
    (host, region): (String, &str),
    response: &Response<T>,
    now: SystemTime,
) -> TunnelError {
    let status = response.status();
    let skew = skew(response.headers(), now).filter(|_| status == StatusCode::FORBIDDEN);
    TunnelError::ChannelRefused {
        host,
        region: region.to_owned().into(),
        status: status.as_u16(),
        skew,
    }
}

/// Returns the seconds by which the local clock is ahead of a `Date` header (negative: behind), if
/// that is more than a signature tolerates.
fn skew(headers: &HeaderMap, now: SystemTime) -> Option<i64> {
    let ahead = -difference(date(headers)?, now)?;
    (ahead.abs() > TOLERATED_SKEW).then_some(ahead)
}

fn tls(roots: Arc<RootCertStore>) -> Result<TlsConnector, rustls::Error> {
    let config = ClientConfig::builder_with_details(crate::tls::provider(), crate::tls::clock())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Returns the upgrade request with its SigV4 headers: empty body, only `host` signed beside the
/// date (and the session token), as the service accepts it from its own clients.
fn signed_request(
    url: &Url,
    region: &Region,
    credentials: &Credentials,
) -> Result<Request, String> {
    let mut request = url
        .as_str()
        .into_client_request()
        .map_err(|error| chain(&error).into_string())?;
    // A URL that already carries a signature would be refused with a second one.
    let is_signed = |name: &str| name.eq_ignore_ascii_case("X-Amz-Signature");
    if url.query_pairs().any(|(name, _)| is_signed(&name)) {
        return Ok(request);
    }
    let host = request
        .headers()
        .get("host")
        .and_then(|host| host.to_str().ok())
        .ok_or("the stream URL has no host")?
        .to_owned();
    let now = signable(SystemTime::now()).map_err(|era| era.to_string())?;
    let identity = credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(SERVICE)
        .time(now)
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| chain(&error).into_string())?
        .into();
    // SigV4 signs the https form of the URL, not the WebSocket scheme.
    let signable = url.as_str().replacen("wss://", "https://", 1);
    let signable = SignableRequest::new(
        "GET",
        signable,
        [("host", host.as_str())].into_iter(),
        SignableBody::Bytes(&[]),
    )
    .map_err(|error| chain(&error).into_string())?;
    // At trace level the signer logs the signed text, including the session token.
    let silent = tracing::Dispatch::none();
    let signed = tracing::dispatcher::with_default(&silent, || sign(signable, &params));
    let (instructions, _) = signed
        .map_err(|error| chain(&error).into_string())?
        .into_parts();
    instructions.apply_to_request_http1x(&mut request);
    Ok(request)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

    use super::*;
    use crate::aws::{AwsContext, AwsOptions};
    use crate::tls::testing::self_signed_server;

    const ROLE: &str = "wss://ssmmessages.eu-central-1.amazonaws.com/v1/data-channel/me-0?role=x";

    #[test]
    fn the_upgrade_is_signed_for_the_host_it_goes_to() {
        let credentials = Credentials::new("AKID", "secret", Some("session".into()), None, "test");
        let signature = |url: &str| {
            let url = Url::parse(url).unwrap();
            let request = signed_request(&url, &"eu-central-1".into(), &credentials).unwrap();
            let header = |name| request.headers()[name].to_str().unwrap().to_owned();
            assert_eq!(header("x-amz-security-token"), "session");
            assert_eq!(request.uri().query(), Some("role=x"));
            (header("host"), header("authorization"))
        };
        let (host, authorization) = signature(ROLE);
        assert_eq!(host, "ssmmessages.eu-central-1.amazonaws.com");
        assert!(
            authorization.contains("/eu-central-1/ssmmessages/aws4_request, SignedHeaders=host;"),
            "{authorization}"
        );
        let moved = ROLE.replace("ssmmessages.eu-central-1.amazonaws.com", "vpce-1.x:8443");
        let (host, of_moved) = signature(&moved);
        assert_eq!(host, "vpce-1.x:8443");
        let signature_of = |text: &str| text.rsplit_once("Signature=").unwrap().1.to_owned();
        assert_ne!(signature_of(&authorization), signature_of(&of_moved));
    }

    /// Starts a gateway that answers one upgrade with `head`; returns its URL and the roots that
    /// verify it.
    async fn gateway(head: &'static str) -> (Url, Arc<RootCertStore>) {
        let (acceptor, certificate) = self_signed_server();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut tls = acceptor.accept(tcp).await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                assert_ne!(tls.read_buf(&mut request).await.unwrap(), 0);
            }
            let request = String::from_utf8(request).unwrap();
            let key = request
                .lines()
                .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
            let accept = derive_accept_key(key.unwrap().as_bytes());
            let answer = format!("HTTP/1.1 {head}\r\nSec-WebSocket-Accept: {accept}\r\n\r\n");
            tls.write_all(answer.as_bytes()).await.unwrap();
            tls.shutdown().await.unwrap();
        });
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let url = format!("wss://localhost:{port}/v1/data-channel/me-0");
        (Url::parse(&url).unwrap(), Arc::new(roots))
    }

    #[tokio::test]
    async fn the_gateways_time_is_noted_whatever_it_answers() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        for (head, offset) in [
            (
                "101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Date: Mon, 21 Sep 2026 14:20:20 GMT",
                Some(420),
            ),
            (
                "403 Forbidden\r\nContent-Length: 0\r\nDate: Mon, 21 Sep 2026 14:03:20 GMT",
                Some(-600),
            ),
            ("503 Busy\r\nContent-Length: 0", None),
        ] {
            let (url, roots) = gateway(head).await;
            let aws = AwsContext::new(AwsOptions {
                clock: Arc::new(move || now),
                ..AwsOptions::default()
            });
            let credentials = Credentials::new("AKID", "secret", None, None, "test");
            let way = NetworkPath {
                roots,
                proxies: &ProxySettings::from_env(),
                watch: &aws.clock_watch(),
            };
            let connected = connect(&url, &"eu-central-1".into(), &credentials, way).await;
            assert_eq!(connected.is_ok(), head.starts_with("101"), "{head}");
            if let Err(TunnelError::ChannelRefused { skew, status, .. }) = connected {
                assert_eq!(skew, (status == 403).then_some(600), "{head}");
            }
            let seen = aws.clock_offset().map(|offset| offset.seconds);
            assert_eq!(seen, offset, "{head}");
        }
    }

    #[test]
    fn a_wrong_clock_is_told_from_other_refusals() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        let refusal = |status: u16, date: Option<&str>| {
            let mut response = Response::builder().status(status);
            if let Some(date) = date {
                response = response.header("Date", date);
            }
            match refused(("x".to_owned(), "r"), &response.body(()).unwrap(), now) {
                TunnelError::ChannelRefused { skew, .. } => skew,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(refusal(403, Some("Mon, 21 Sep 2026 14:13:20 GMT")), None);
        assert_eq!(refusal(403, Some("Mon, 21 Sep 2026 14:08:20 GMT")), None);
        let ahead = refusal(403, Some("Mon, 21 Sep 2026 14:08:19 GMT"));
        assert_eq!(ahead, Some(301));
        let behind = refusal(403, Some("Mon, 21 Sep 2026 15:13:20 GMT"));
        assert_eq!(behind, Some(-3600));
        assert_eq!(refusal(500, Some("Mon, 21 Sep 2026 15:13:20 GMT")), None);
        assert_eq!(refusal(403, Some("yesterday")), None);
        assert_eq!(refusal(403, None), None);
    }
}
