//! The bytes below the protocol: a client's side of a connection, and the splice.

use std::io;
use std::pin::pin;
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A client's side, in clear or in TLS.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {
    fn tcp(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Wire for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// Who gets through to the splice: the client and its server, with the bytes the client gets first.
pub(super) struct LoggedIn<W> {
    pub(super) client: W,
    pub(super) backend: TcpStream,
    pub(super) first: Vec<u8>,
}

/// Whether the client has sent more than was read, as far as has arrived.
pub(super) async fn has_unread(socket: &TcpStream) -> bool {
    let mut byte = [0];
    let mut peek = pin!(socket.peek(&mut byte));
    std::future::poll_fn(|context| {
        let seen = peek.as_mut().poll(context);
        Poll::Ready(matches!(seen, Poll::Ready(Ok(1))))
    })
    .await
}

/// Moves bytes until the server is done, or both are.
pub(super) async fn splice<W: Wire>(logged_in: LoggedIn<W>) -> io::Result<()> {
    let LoggedIn {
        mut client,
        mut backend,
        first,
    } = logged_in;
    client.write_all(&first).await?;
    client.flush().await?;
    let (mut client_in, mut client_out) = tokio::io::split(client);
    let (mut backend_in, mut backend_out) = backend.split();
    let up = async {
        let copied = carry(&mut client_in, &mut backend_out).await;
        let _ = backend_out.shutdown().await;
        // The server has the last word, unless the client is gone.
        match copied {
            Ok(()) => std::future::pending().await,
            Err(error) => Err(error),
        }
    };
    let down = async {
        carry(&mut backend_in, &mut client_out).await?;
        client_out.shutdown().await
    };
    tokio::select! {
        ended = up => ended,
        ended = down => ended,
    }
}

async fn carry(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    let mut buffer = vec![0; 65_536];
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..n]).await?;
        to.flush().await?;
    }
}
