//! `via = "direct"`: plain TCP from here, for a database that can be reached already (inside the
//! VPC, over a VPN, over peering).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{BoxFuture, Readiness, Stream, Transport, TunnelError};
use crate::config::Endpoint;

/// Silence after which the kernel probes a TCP peer. Well below the 350 s after which AWS network
/// load balancers and NAT gateways forget an idle flow.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(60);

/// Opens TCP connections to one endpoint.
#[derive(Debug)]
pub struct Direct {
    endpoint: Endpoint,
}

impl Direct {
    /// Nothing is opened until the first stream is.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint }
    }
}

impl Transport for Direct {
    /// A TCP handshake tells that the far side is there, so its first bytes are not waited for.
    fn open(&self, hello: Bytes) -> BoxFuture<'_, Result<Stream, TunnelError>> {
        Box::pin(async move {
            let failed = |source| TunnelError::Direct {
                endpoint: self.endpoint.clone(),
                source: Arc::new(source),
            };
            let mut stream = connect(&self.endpoint).await.map_err(failed)?;
            stream.write_all(&hello).await.map_err(failed)?;
            Ok(Box::new(stream) as Stream)
        })
    }

    /// There is nothing between us and the database to know about.
    fn readiness(&self) -> Readiness {
        Readiness::Up
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

async fn connect(endpoint: &Endpoint) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
    tune(&stream)?;
    Ok(stream)
}

/// No Nagle delay (a query is one small write that must leave at once) and keepalive probes.
///
/// # Errors
/// Whatever the socket answers.
pub(crate) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE);
    socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
