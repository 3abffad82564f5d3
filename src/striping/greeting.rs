//! First bytes of a carrier at the relay.

use std::io;

use bytes::BytesMut;
use stripe::{Hello, StripeError};
use tokio::io::{AsyncRead, AsyncReadExt};

/// A carrier that does not begin with a hello.
#[derive(Debug)]
pub enum NoHello {
    /// It ended before its first byte.
    Silent,
    /// It ended within the hello, or reading has failed.
    Lost(io::Error),
    /// Its first bytes are no hello, or one of another version.
    Invalid(StripeError),
}

/// Reads the hello. Returns it with the bytes that came behind it. The caller sets the deadline.
///
/// # Errors
/// [`NoHello`].
pub async fn read_hello(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<(Hello, BytesMut), NoHello> {
    let mut begin = BytesMut::with_capacity(64);
    loop {
        let read = stream.read_buf(&mut begin).await.map_err(NoHello::Lost)?;
        if read == 0 {
            return Err(match begin.is_empty() {
                true => NoHello::Silent,
                false => NoHello::Lost(io::ErrorKind::UnexpectedEof.into()),
            });
        }
        if let Some((hello, length)) = Hello::decode(&begin).map_err(NoHello::Invalid)? {
            let rest = begin.split_off(length);
            return Ok((hello, rest));
        }
    }
}
