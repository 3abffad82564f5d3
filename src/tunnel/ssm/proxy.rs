//! Connections to AWS, direct or through the HTTP proxy of the environment.
//!
//! The code that reads the variables (`HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`, each also in lower
//! case) is the one used by the SDK's HTTP client, so calls and data channels take the same path.

use std::fmt;
use std::sync::Arc;

use http::{StatusCode, Uri};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::base::error_text::{chain, plain};
use crate::base::stream::Stream;
use crate::tunnel::{TunnelError, direct};

/// Longest accepted answer to CONNECT: the SDK's HTTP client has the same limit.
const LARGEST_HEAD: usize = 8 * 1024;
/// The port of AWS's endpoints.
const HTTPS: u16 = 443;
/// End of the head of an HTTP answer.
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// The proxies of the environment, and the hosts reached without them. Cheap to clone.
#[derive(Clone)]
pub(super) struct ProxySettings(Arc<Matcher>);

impl ProxySettings {
    /// Reads the current environment.
    pub(super) fn from_env() -> Self {
        Self(Arc::new(Matcher::from_env()))
    }

    /// Opens a TCP connection to `host` (IPv6 addresses in brackets) and `port`, directly or
    /// through a proxy. `tls` verifies a proxy that itself uses TLS; the caller protects the data
    /// on the connection, and sets the deadline.
    ///
    /// # Errors
    /// [`TunnelError::ChannelConnect`], [`TunnelError::Proxy`].
    pub(super) async fn dial(
        &self,
        host: &str,
        port: u16,
        tls: &TlsConnector,
    ) -> Result<Stream, TunnelError> {
        let Some(intercept) = self.proxy_for(host, port) else {
            return match tcp(host, port).await {
                Ok(tcp) => Ok(Box::new(tcp)),
                Err(reason) => Err(TunnelError::ChannelConnect {
                    host: host.to_owned(),
                    port,
                    reason: reason.into(),
                }),
            };
        };
        through(&intercept, host, port, tls)
            .await
            .map_err(|reason| TunnelError::Proxy {
                proxy: place(&intercept),
                host: host.to_owned(),
                reason: reason.into(),
            })
    }

    /// Returns the error of a call to `host` that failed with this text of the SDK's HTTP client,
    /// if its proxy refused it.
    pub(super) fn blamed_for(&self, host: &str, words: &str) -> Option<TunnelError> {
        let intercept = self.proxy_for(host, HTTPS)?;
        if !words.contains("tunnel error") {
            return None;
        }
        let reason = if words.contains("proxy authorization required") {
            "it requires authentication (HTTP status 407)".to_owned()
        } else {
            words.to_owned()
        };
        Some(TunnelError::Proxy {
            proxy: place(&intercept),
            host: host.to_owned(),
            reason: reason.into(),
        })
    }

    /// Returns the proxy for TLS connections to `host`.
    fn proxy_for(&self, host: &str, port: u16) -> Option<Intercept> {
        let destination: Uri = format!("https://{host}:{port}/").parse().ok()?;
        self.0.intercept(&destination)
    }
}

impl fmt::Debug for ProxySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The matcher's Debug leaves the credentials out.
        self.0.fmt(f)
    }
}

/// Returns host and port of a proxy, as far as its URL has them; the matcher has removed the
/// credentials.
fn place(proxy: &Intercept) -> String {
    let authority = proxy.uri().authority();
    authority.map(ToString::to_string).unwrap_or_default()
}

async fn tcp(host: &str, port: u16) -> Result<TcpStream, String> {
    let tcp = TcpStream::connect((bare(host), port)).await;
    let tcp = tcp.map_err(|error| chain(&error).into_string())?;
    direct::tune(&tcp).map_err(|error| chain(&error).into_string())?;
    Ok(tcp)
}

/// Returns a host without the brackets that a URL puts around an IPv6 address.
pub(super) fn bare(host: &str) -> &str {
    host.trim_matches(['[', ']'])
}

/// Opens a tunnel to `host` through `proxy`.
async fn through(
    proxy: &Intercept,
    host: &str,
    port: u16,
    tls: &TlsConnector,
) -> Result<Stream, String> {
    let uri = proxy.uri();
    let proxy_host = uri.host().unwrap_or_default();
    let stream: Stream = match uri.scheme_str() {
        Some("http") => Box::new(tcp(proxy_host, uri.port_u16().unwrap_or(80)).await?),
        Some("https") => {
            let name = ServerName::try_from(bare(proxy_host).to_owned());
            let name = name.map_err(|error| chain(&error).into_string())?;
            let tcp = tcp(proxy_host, uri.port_u16().unwrap_or(443)).await?;
            let secured = tls.connect(name, tcp).await;
            Box::new(
                secured.map_err(|error| format!("TLS to the proxy failed: {}", plain(&error)))?,
            )
        }
        scheme => {
            return Err(format!(
                "{} proxies are not supported; HTTPS_PROXY must begin with http:// or https://",
                scheme.unwrap_or("such")
            ));
        }
    };
    ask(stream, proxy, host, port).await
}

/// Sends CONNECT (RFC 9110, section 9.3.6) on a connection to the proxy.
async fn ask(
    mut stream: Stream,
    proxy: &Intercept,
    host: &str,
    port: u16,
) -> Result<Stream, String> {
    let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
    if let Some(credentials) = proxy.basic_auth().and_then(|value| value.to_str().ok()) {
        request.push_str(&format!("Proxy-Authorization: {credentials}\r\n"));
    }
    request.push_str("\r\n");
    let broken = |error: std::io::Error| plain(&error).into_string();
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;

    let (status, rest) = read_head(&mut stream).await?;
    // The reason phrase is left out: it is untrusted text of the proxy.
    match status {
        status if status.is_success() => Ok(with_rest(stream, rest)),
        StatusCode::PROXY_AUTHENTICATION_REQUIRED if proxy.basic_auth().is_none() => Err(format!(
            "it answered {status}; set the user name and password in HTTPS_PROXY (http://USER:PASSWORD@HOST:PORT)"
        )),
        status => Err(format!("it answered {status}")),
    }
}

/// Returns the status of an HTTP answer, and the bytes after its head.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Result<(StatusCode, Vec<u8>), String> {
    let mut read = Vec::with_capacity(LARGEST_HEAD);
    let end = loop {
        if let Some(at) = find(&read, END_OF_HEAD) {
            break at + END_OF_HEAD.len();
        }
        let room = LARGEST_HEAD - read.len();
        if room == 0 {
            return Err(format!("its answer is longer than {LARGEST_HEAD} bytes"));
        }
        let mut limited = (&mut *stream).take(room as u64);
        let count = limited.read_buf(&mut read).await;
        if count.map_err(|error| plain(&error).into_string())? == 0 {
            return Err("it closed the connection without an answer".to_owned());
        }
    };
    let status = status(&read[..end]).ok_or("its answer is not HTTP")?;
    Ok((status, read.split_off(end)))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// Returns the status of `HTTP/1.1 200 Connection established` (RFC 9112, section 4).
fn status(head: &[u8]) -> Option<StatusCode> {
    let line = head.strip_prefix(b"HTTP/1.")?;
    let digits = line.get(2..5)?;
    let is_separated = line.get(1) == Some(&b' ') && !line.get(5)?.is_ascii_digit();
    StatusCode::from_bytes(digits).ok().filter(|_| is_separated)
}

/// Returns a stream that yields `rest` before its own data. A TLS server waits for its client, so
/// `rest` is usually empty, and the stream is returned unchanged.
fn with_rest(stream: Stream, rest: Vec<u8>) -> Stream {
    if rest.is_empty() {
        return stream;
    }
    let (reader, writer) = tokio::io::split(stream);
    let reader = std::io::Cursor::new(rest).chain(reader);
    Box::new(tokio::io::join(reader, writer))
}

#[cfg(test)]
mod tests;
