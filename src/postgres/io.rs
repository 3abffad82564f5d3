//! Reads and writes before the splice.

use std::io;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;

use crate::base::stream::Duplex;

/// Read size before the splice: startup packets and login messages are small.
pub(crate) const READ: usize = 4 * 1024;

/// Writes all chunks, and flushes once.
pub(crate) async fn write_all(
    stream: &mut dyn Duplex,
    chunks: impl Iterator<Item = Bytes>,
) -> io::Result<()> {
    let mut wrote = false;
    for chunk in chunks {
        stream.write_all(&chunk).await?;
        wrote = true;
    }
    if wrote { stream.flush().await } else { Ok(()) }
}
