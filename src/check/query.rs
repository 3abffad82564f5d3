//! Queries on an authenticated session, by the simple query protocol, for a few short queries of
//! the check ("Simple Query" in the chapter "Message Flow" of the PostgreSQL documentation).

use std::io;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use pg_handshake::ServerError;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::base::error_text::plain;
use crate::base::foreign_text::ForeignText;
use crate::base::stream::Stream;
use crate::postgres::database::login_steps::ReadyConnection;

/// Size of type byte and length word.
const HEADER: usize = 5;
/// Longest accepted message. Answers to the check's queries are single lines.
const LONGEST: usize = 256 * 1024;
/// Read size. Also used to measure throughput.
const READ: usize = 64 * 1024;
/// Timeout for Terminate.
const GOODBYE: Duration = Duration::from_secs(1);

/// Error of a query.
#[derive(Debug, Error)]
pub(super) enum SqlQueryError {
    /// The server refused it.
    #[error("{}", ForeignText::new(&.0.message()))]
    Server(ServerError),
    /// The connection broke.
    #[error("the connection was lost: {}", plain(.0))]
    Lost(#[from] io::Error),
    /// The server violates the protocol.
    #[error("unexpected answer from the server: {0}")]
    Odd(&'static str),
    /// No answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    Slow(Duration),
}

/// A row: each column as text, `None` for null.
pub(super) type Row = Vec<Option<String>>;

/// Rate of the rows of a result.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RowRate {
    /// Bytes in rows, except for the first one, which starts the clock.
    pub(super) bytes: usize,
    /// Time from the first row to the last.
    pub(super) took: Duration,
}

/// A session for queries, one after the other.
pub(super) struct QueryClient {
    stream: Stream,
    unread: BytesMut,
}

impl QueryClient {
    pub(super) fn new(session: ReadyConnection) -> Self {
        Self {
            stream: session.stream,
            unread: BytesMut::from(&session.unread[..]),
        }
    }

    /// Returns the rows of `sql`, within `limit`. After an error other than [`SqlQueryError::Server`]
    /// the session is unusable.
    pub(super) async fn rows(
        &mut self,
        sql: &str,
        limit: Duration,
    ) -> Result<Vec<Row>, SqlQueryError> {
        let mut rows = Vec::new();
        let mut each = |body: Bytes| rows.push(row(body));
        timeout(limit, self.ask(sql, &mut each))
            .await
            .map_err(|_| SqlQueryError::Slow(limit))??;
        let rows: Option<Vec<Row>> = rows.into_iter().collect();
        rows.ok_or(SqlQueryError::Odd("malformed row"))
    }

    /// Measures the rate of the rows of `sql`.
    pub(super) async fn flow(
        &mut self,
        sql: &str,
        limit: Duration,
    ) -> Result<RowRate, SqlQueryError> {
        let (mut flow, mut first) = (RowRate::default(), None);
        let mut each = |body: Bytes| match first {
            None => first = Some(Instant::now()),
            Some(began) => {
                flow.bytes += HEADER + body.len();
                flow.took = Instant::now() - began;
            }
        };
        let asked = timeout(limit, self.ask(sql, &mut each)).await;
        asked.map_err(|_| SqlQueryError::Slow(limit))??;
        Ok(flow)
    }

    /// Sends Terminate, if possible.
    pub(super) async fn close(mut self) {
        let goodbye = async {
            self.stream.write_all(b"X\0\0\0\x04").await?;
            self.stream.shutdown().await
        };
        // A peer that does not take it notices the closed connection.
        _ = timeout(GOODBYE, goodbye).await;
    }

    /// Sends a query and passes the body of every row to `each` until the server is ready for the
    /// next query.
    async fn ask(
        &mut self,
        sql: &str,
        each: &mut (dyn FnMut(Bytes) + Send),
    ) -> Result<(), SqlQueryError> {
        self.stream.write_all(&question(sql)).await?;
        self.stream.flush().await?;
        let mut refused = None;
        loop {
            let (tag, body) = self.message().await?;
            match tag {
                b'D' => each(body),
                b'Z' => return refused.map_or(Ok(()), |error| Err(SqlQueryError::Server(error))),
                b'E' => refused = Some(server_error(&body)?),
                // RowDescription, CommandComplete, EmptyQueryResponse; notices and status messages.
                b'T' | b'C' | b'I' | b'N' | b'S' | b'A' => {}
                _ => return Err(SqlQueryError::Odd("unexpected message type")),
            }
        }
    }

    /// Returns the type and body of the next message.
    async fn message(&mut self) -> Result<(u8, Bytes), SqlQueryError> {
        loop {
            if let Some(message) = cut(&mut self.unread)? {
                return Ok(message);
            }
            self.unread.reserve(READ);
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return Err(SqlQueryError::Lost(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

/// Builds a Query message.
fn question(sql: &str) -> BytesMut {
    let mut message = BytesMut::with_capacity(HEADER + sql.len() + 1);
    message.put_u8(b'Q');
    // The check's own queries are short.
    message.put_u32(u32::try_from(4 + sql.len() + 1).unwrap_or(u32::MAX));
    message.put_slice(sql.as_bytes());
    message.put_u8(0);
    message
}

/// Cuts one whole message off the front; `None` when more bytes are needed. Its length is checked
/// before the rest is awaited.
fn cut(unread: &mut BytesMut) -> Result<Option<(u8, Bytes)>, SqlQueryError> {
    let Some(&[tag, a, b, c, d]) = unread.first_chunk() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if !(4..=LONGEST).contains(&length) {
        return Err(SqlQueryError::Odd("invalid message length"));
    }
    if unread.len() < length + 1 {
        return Ok(None);
    }
    let mut message = unread.split_to(length + 1).freeze();
    message.advance(HEADER);
    Ok(Some((tag, message)))
}

/// Returns the columns of a DataRow; `None` when it contradicts itself.
fn row(mut body: Bytes) -> Option<Row> {
    let columns = body.try_get_u16().ok()?;
    let mut row = Vec::new();
    for _ in 0..columns {
        let length = body.try_get_i32().ok()?;
        row.push(match usize::try_from(length) {
            Err(_) => None, // -1 is null.
            Ok(length) if length <= body.remaining() => {
                Some(String::from_utf8_lossy(&body.split_to(length)).into_owned())
            }
            Ok(_) => return None,
        });
    }
    body.is_empty().then_some(row)
}

fn server_error(body: &Bytes) -> Result<ServerError, SqlQueryError> {
    let mut frame = BytesMut::with_capacity(HEADER + body.len());
    frame.put_u8(b'E');
    frame.put_u32(u32::try_from(4 + body.len()).unwrap_or(u32::MAX));
    frame.put_slice(body);
    ServerError::parse(frame.freeze()).map_err(|_| SqlQueryError::Odd("malformed error message"))
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);
    const READY: &[u8] = b"Z\0\0\0\x05I";

    fn questions(unread: &'static [u8]) -> (QueryClient, DuplexStream) {
        let (near, far) = duplex(1024 * 1024);
        let session = ReadyConnection {
            stream: Box::new(near),
            unread: Bytes::from_static(unread),
            server_version: None,
            unasked: false,
        };
        (QueryClient::new(session), far)
    }

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag][..], &length.to_be_bytes(), body].concat()
    }

    #[tokio::test]
    async fn rows_come_as_text_and_nothing() {
        // A notice from before the query.
        let (mut questions, mut far) = questions(b"N\0\0\0\x05\0");
        let body = b"\0\x02\0\0\0\x02ab\xff\xff\xff\xff";
        for part in [
            message(b'T', b"\0\0"),
            message(b'D', body),
            message(b'C', b"SELECT 1\0"),
            READY.to_vec(),
        ] {
            far.write_all(&part).await.unwrap();
        }
        let rows = questions.rows("select", LIMIT).await.unwrap();
        assert_eq!(rows, [vec![Some("ab".to_owned()), None]]);
        let mut asked = [0; 12];
        far.read_exact(&mut asked).await.unwrap();
        assert_eq!(&asked, b"Q\0\0\0\x0bselect\0");
        questions.close().await;
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"X\0\0\0\x04");
    }

    #[tokio::test]
    async fn a_refusal_leaves_the_session_usable() {
        let (mut questions, mut far) = questions(b"");
        let error = message(b'E', b"SERROR\0C42501\0Mno\0\0");
        far.write_all(&[&error[..], READY, READY].concat())
            .await
            .unwrap();
        match questions.rows("select", LIMIT).await {
            Err(SqlQueryError::Server(error)) => assert_eq!(error.message(), "no"),
            other => panic!("{other:?}"),
        }
        assert_eq!(questions.rows("select", LIMIT).await.unwrap().len(), 0);
    }

    #[tokio::test]
    async fn every_cut_of_an_answer_waits_for_the_rest() {
        let body = b"\0\x01\0\0\0\x01a";
        let whole = [message(b'D', body), READY.to_vec()].concat();
        for end in 0..whole.len() {
            let (mut questions, mut far) = questions(b"");
            far.write_all(&whole[..end]).await.unwrap();
            drop(far);
            let lost = questions.rows("select", LIMIT).await;
            assert!(
                matches!(lost, Err(SqlQueryError::Lost(_))),
                "{end}: {lost:?}"
            );
        }
    }

    #[tokio::test]
    async fn nonsense_is_not_waited_for() {
        for nonsense in [
            &b"D\0\0\0\x03"[..],
            b"D\x7f\xff\xff\xff",
            b"G\0\0\0\x04",
            b"D\0\0\0\x07\0\x01a",
            b"E\0\0\0\x05x",
        ] {
            let (mut questions, mut far) = questions(b"");
            far.write_all(&[nonsense, READY].concat()).await.unwrap();
            let answer = questions.rows("select", LIMIT).await;
            assert!(matches!(answer, Err(SqlQueryError::Odd(_))), "{nonsense:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_has_an_end() {
        let (mut questions, _far) = questions(b"");
        let slow = questions.rows("select", LIMIT).await.unwrap_err();
        assert_eq!(slow.to_string(), "no answer within 5 s");
    }

    #[tokio::test]
    async fn flow_counts_what_came_after_the_first_row() {
        let (mut questions, mut far) = questions(b"");
        let row = message(b'D', &[0; 100]);
        far.write_all(&[&row[..], &row, &row, READY].concat())
            .await
            .unwrap();
        let flow = questions.flow("select", LIMIT).await.unwrap();
        assert_eq!(flow.bytes, 2 * row.len());
    }
}
