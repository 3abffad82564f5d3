//! Opens the data channel: TCP, TLS to the service's name, WebSocket upgrade signed with SigV4
//! (service `ssmmessages`), which AWS asks of clients since plugin 1.2.764.

use std::sync::Arc;
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, handshake::client::Request};
use url::Url;

use super::socket::WebSocket;
use crate::tunnel::{Stream, TunnelError, chain, direct};

/// The service name in the signature's scope.
const SERVICE: &str = "ssmmessages";
/// The largest WebSocket message we take. Agent messages are 1 KiB of payload and 120 bytes of
/// header; the handshake and `channel_closed` texts stay far below this, too.
const MAX_MESSAGE: usize = 1024 * 1024;
/// Bytes read from the socket at a time: a full TLS record.
const READ_BUFFER: usize = 16 * 1024;
/// Bytes collected before a write to the socket: about one TLS record.
const WRITE_BUFFER: usize = 16 * 1024;

/// The AWS partitions' domains; a stream URL must be in one of them.
const AWS_SUFFIXES: [&str; 6] = [
    ".amazonaws.com",
    ".amazonaws.com.cn",
    ".api.aws",
    ".c2s.ic.gov",
    ".sc2s.sgov.gov",
    ".amazonaws.eu",
];

/// The parsed and checked address of a data channel.
///
/// It comes from AWS over verified TLS, and still: a token goes there, so it must be `wss` and an
/// AWS name, or the host the user has set as endpoint.
///
/// # Errors
/// [`TunnelError::IncompleteAnswer`] for what is no URL, [`TunnelError::ForeignStreamUrl`].
pub(super) fn stream_url(text: &str, endpoints: &[Url]) -> Result<Url, TunnelError> {
    let url = Url::parse(text).map_err(|_| TunnelError::IncompleteAnswer("a usable StreamUrl"))?;
    let host = url.host_str().unwrap_or_default().to_owned();
    let of_user = |endpoint: &Url| {
        endpoint.host_str() == Some(&host)
            && endpoint.port_or_known_default() == url.port_or_known_default()
    };
    let trusted =
        AWS_SUFFIXES.iter().any(|suffix| host.ends_with(suffix)) || endpoints.iter().any(of_user);
    if url.scheme() != "wss" || !trusted {
        return Err(TunnelError::ForeignStreamUrl { host });
    }
    Ok(url)
}

/// Opens the WebSocket at `url`. The caller sets the deadline.
///
/// # Errors
/// [`TunnelError::ChannelConnect`], [`TunnelError::ChannelRefused`].
pub(super) async fn connect(
    url: &Url,
    region: &str,
    credentials: &Credentials,
    roots: Arc<RootCertStore>,
) -> Result<WebSocket, TunnelError> {
    let host = url.host_str().unwrap_or_default().to_owned();
    let failed = |reason: String| TunnelError::ChannelConnect {
        host: host.clone(),
        reason,
    };

    let request = signed_request(url, region, credentials).map_err(&failed)?;
    let port = url.port_or_known_default().unwrap_or(443);
    let tcp = TcpStream::connect((host.trim_matches(['[', ']']), port))
        .await
        .map_err(|error| failed(chain(&error)))?;
    direct::tune(&tcp).map_err(|error| failed(chain(&error)))?;
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .map_err(|error| failed(chain(&error)))?;
    let tls = tls(roots).map_err(|error| failed(chain(&error)))?;
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
    match client_async_with_config(request, stream, Some(config)).await {
        Ok((socket, _)) => Ok(socket),
        Err(WsError::Http(response)) => Err(TunnelError::ChannelRefused {
            host,
            status: response.status().as_u16(),
        }),
        Err(error) => Err(failed(chain(&error))),
    }
}

fn tls(roots: Arc<RootCertStore>) -> Result<TlsConnector, rustls::Error> {
    let config = ClientConfig::builder_with_provider(crate::tls::provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The upgrade request with its SigV4 headers: empty body, only `host` signed beside the date (and
/// the session token), as the service accepts it from its own clients.
fn signed_request(url: &Url, region: &str, credentials: &Credentials) -> Result<Request, String> {
    let mut request = url
        .as_str()
        .into_client_request()
        .map_err(|error| chain(&error))?;
    let host = request
        .headers()
        .get("host")
        .and_then(|host| host.to_str().ok())
        .ok_or("the stream URL has no host")?
        .to_owned();
    let identity = credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(SERVICE)
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| chain(&error))?
        .into();
    // SigV4 is over the https form of the URL; the WebSocket scheme is no part of it.
    let signable = url.as_str().replacen("wss://", "https://", 1);
    let signable = SignableRequest::new(
        "GET",
        signable,
        [("host", host.as_str())].into_iter(),
        SignableBody::Bytes(&[]),
    )
    .map_err(|error| chain(&error))?;
    // At trace level the signer logs what it signs, session token and all.
    let silent = tracing::Dispatch::none();
    let signed = tracing::dispatcher::with_default(&silent, || sign(signable, &params));
    let (instructions, _) = signed.map_err(|error| chain(&error))?.into_parts();
    instructions.apply_to_request_http1x(&mut request);
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_urls_must_be_aws_or_the_users_endpoint() {
        let endpoint = [Url::parse("https://localhost:4566").unwrap()];
        let ok = |text| stream_url(text, &endpoint).is_ok();
        assert!(ok(
            "wss://ssmmessages.eu-central-1.amazonaws.com/v1/data-channel/x?role=publish_subscribe"
        ));
        assert!(ok(
            "wss://ssmmessages.cn-north-1.amazonaws.com.cn/v1/data-channel/x"
        ));
        assert!(ok("wss://localhost:4566/v1/data-channel/x"));
        for foreign in [
            "ws://ssmmessages.eu-central-1.amazonaws.com/v1/data-channel/x",
            "wss://ssmmessages.amazonaws.com.example.org/v1",
            "wss://evilamazonaws.com/v1",
            "wss://localhost:4567/v1",
            "wss://example.org/v1",
        ] {
            assert!(
                matches!(
                    stream_url(foreign, &endpoint),
                    Err(TunnelError::ForeignStreamUrl { .. })
                ),
                "{foreign}"
            );
        }
        assert!(matches!(
            stream_url("nonsense", &[]),
            Err(TunnelError::IncompleteAnswer(_))
        ));
    }
}
