//! Two streams, spliced: copies bytes in both directions with backpressure, and counts them, until
//! one side ends.
//!
//! Only the lengths of the server's messages are parsed, to know whether the client is at a message
//! boundary, where it can receive one last ErrorResponse.

use crate::failure::{ConnectionEnd, EndedBy};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pg_handshake::{ASKS_FOR_READY, Follower, READY_FOR_QUERY};
use tokio::time::{Instant, Sleep};

use crate::base::pump::{Pump, PumpEnd, UNANSWERED};
use crate::base::stream::Duplex;
use crate::observe::Traffic;

/// Time limit for the last messages of a server that accepts no more data.
const LAST_WORDS_DEADLINE: Duration = Duration::from_secs(10);
/// The Terminate message of a client (PostgreSQL docs, "Message Formats").
pub(crate) const TERMINATE: [u8; 5] = *b"X\0\0\0\x04";

/// First bytes of each direction.
#[derive(Clone, Copy, Debug)]
pub struct InitialBytes<'a> {
    /// Bytes that the client sent before the server was ready.
    pub up: &'a [u8],
    /// Bytes that the server sent before the splice, from a message boundary on.
    pub down: &'a [u8],
}

/// Splices `client` and `server` until one of them ends or `stop` resolves. Counts bytes in
/// `traffic` as they are copied.
///
/// A client that closes its sending side after a query gets the answer first. The SSM agent cannot
/// close a single direction, so the client's end is passed on when the expected number of
/// ReadyForQuery has arrived, or after `UNANSWERED` without data. A client that has sent
/// Terminate, or expects no answer, ends at once.
///
/// When the client ends, the caller closes the server side. When the server ends, the client stays
/// open, so that the caller can send the reason. Dropping the future loses only the bytes in its
/// buffers.
pub async fn splice(
    client: &mut dyn Duplex,
    server: &mut dyn Duplex,
    first: InitialBytes<'_>,
    traffic: &Traffic,
    stop: impl Future<Output = ()>,
) -> ConnectionEnd {
    let (mut up, mut down) = (Pump::new(first.up), Pump::new(first.down));
    let mut follower = Follower::counting(READY_FOR_QUERY);
    let mut asked = Follower::counting(ASKS_FOR_READY);
    // The ReadyForQuery of the login answers no request.
    let mut login = Follower::counting(READY_FOR_QUERY);
    _ = login.advance(first.down);
    let unasked = login.counted();
    let mut said_last = [0; TERMINATE.len()];
    let mut waiting: Option<ServerWait> = None;
    let both = poll_fn(|cx| {
        if waiting.is_none()
            && let Poll::Ready(stopped) = up.poll(cx, client, server, |bytes| {
                keep_last(&mut said_last, bytes);
                // Its error is permanent, and then nothing more is counted.
                _ = asked.advance(bytes);
                traffic.sent(bytes.len());
            })
        {
            match stopped {
                // The client has sent a request and no more: it waits for the answer.
                PumpEnd::Read(None)
                    if said_last != TERMINATE && unasked + asked.counted() > follower.counted() =>
                {
                    waiting = Some(ServerWait::new(None, UNANSWERED));
                }
                PumpEnd::Read(error) => return Poll::Ready((EndedBy::Client, error)),
                // The server accepts no more data, but its last messages may still arrive.
                PumpEnd::Write(error) => {
                    waiting = Some(ServerWait::new(Some(error), LAST_WORDS_DEADLINE))
                }
            }
        }
        // Its error is permanent: after losing the framing a follower never reports a boundary
        // again.
        let follow = |bytes: &[u8]| {
            _ = follower.advance(bytes);
            traffic.received(bytes.len());
        };
        let copied = down.copied;
        let stopped = match (down.poll(cx, server, client, follow), &mut waiting) {
            (Poll::Ready(stopped), _) => stopped,
            (Poll::Pending, None) => return Poll::Pending,
            // The client may take its time.
            (Poll::Pending, Some(_)) if down.is_held_up() => return Poll::Pending,
            (Poll::Pending, Some(waiting)) => {
                let by_client = waiting.refused.is_none();
                let answered =
                    follower.at_boundary() && unasked + asked.counted() <= follower.counted();
                if by_client && answered {
                    return Poll::Ready((EndedBy::Client, None));
                }
                ready!(waiting.poll(cx, down.copied > copied));
                if by_client {
                    return Poll::Ready((EndedBy::Client, None));
                }
                PumpEnd::Read(None)
            }
        };
        let refused = || waiting.take().and_then(|waiting| waiting.refused);
        Poll::Ready(match stopped {
            PumpEnd::Read(error) => (EndedBy::Server, error.or_else(refused)),
            PumpEnd::Write(error) => (EndedBy::Client, Some(error)),
        })
    });
    let (by, mut error) = tokio::select! {
        ended = both => ended,
        () = stop => (EndedBy::Shutdown, None),
    };
    let at_boundary = follower.at_boundary() && !down.is_held_up();
    let said_why = follower.last_is_fatal();
    // If a replication stream ends with the server, its last message is CommandComplete.
    let in_order = said_why || said_last == TERMINATE || follower.last_type() == Some(b'C');
    let is_eof = |error: &io::Error| error.kind() == io::ErrorKind::UnexpectedEof;
    if by == EndedBy::Server && error.as_ref().is_none_or(is_eof) {
        let early = || io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed it early");
        // Many servers close without the close_notify of TLS.
        error = (!in_order).then(early);
    }
    ConnectionEnd {
        by,
        error,
        sent: up.copied,
        received: down.copied,
        at_boundary: at_boundary && !said_why,
    }
}

/// Wait for the server's answer or its last messages, once no more data goes up.
struct ServerWait {
    /// The error of the server's side; `None` if the client sends no more.
    refused: Option<io::Error>,
    /// Maximum silence of the server.
    patience: Duration,
    /// Timer since its last bytes.
    quiet: Pin<Box<Sleep>>,
}

impl ServerWait {
    fn new(refused: Option<io::Error>, patience: Duration) -> Self {
        let quiet = Box::pin(tokio::time::sleep(patience));
        Self {
            refused,
            patience,
            quiet,
        }
    }

    /// Ready when the server has been silent for too long. `moved` means that it has just sent
    /// something.
    fn poll(&mut self, cx: &mut Context<'_>, moved: bool) -> Poll<()> {
        if moved {
            self.quiet.as_mut().reset(Instant::now() + self.patience);
        }
        self.quiet.as_mut().poll(cx)
    }
}

/// Keeps the last bytes of a stream; `bytes` are the next ones.
fn keep_last<const N: usize>(last: &mut [u8; N], bytes: &[u8]) {
    let new = bytes.len().min(N);
    last.rotate_left(new);
    last[N - new..].copy_from_slice(&bytes[bytes.len() - new..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{
        AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
    };

    /// The far ends of a spliced pair, and the splice itself as a task.
    struct Pair {
        client: DuplexStream,
        server: DuplexStream,
        splice: tokio::task::JoinHandle<ConnectionEnd>,
    }

    fn spliced(
        up: &'static [u8],
        down: &'static [u8],
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Pair {
        // Far smaller than the data: both directions have to wait many times.
        let (client, mut near_client) = duplex(64);
        let (server, mut near_server) = duplex(64);
        let splice = tokio::spawn(async move {
            let (first, traffic) = (InitialBytes { up, down }, Traffic::default());
            splice(&mut near_client, &mut near_server, first, &traffic, stop).await
        });
        Pair {
            client,
            server,
            splice,
        }
    }

    /// Returns a DataRow-like message with a body of `length` bytes.
    fn message(length: u8) -> Vec<u8> {
        [
            &b"D\0\0\0"[..],
            &[length + 4],
            &vec![b'x'; usize::from(length)],
        ]
        .concat()
    }

    #[tokio::test]
    async fn both_ways_at_once_with_what_came_first_in_front() {
        let Pair {
            client,
            server,
            splice,
        } = spliced(b"early", b"R\0\0\0\x08\0\0\0\0", std::future::pending());
        let (mut client_in, mut client_out) = tokio::io::split(client);
        let (mut server_in, mut server_out) = tokio::io::split(server);
        let query: Vec<u8> = (0..100_000u32).map(|n| n.to_le_bytes()[0]).collect();
        let rows = message(200).repeat(1000);
        let (sent, answered) = (query.clone(), rows.clone());
        let writers = tokio::spawn(async move {
            tokio::try_join!(client_out.write_all(&sent), server_out.write_all(&answered)).unwrap();
            (client_out, server_out) // Kept: dropping one would end the connection.
        });
        let mut at_server = vec![0; 5 + query.len()];
        let mut at_client = vec![0; 9 + rows.len()];
        tokio::try_join!(
            server_in.read_exact(&mut at_server),
            client_in.read_exact(&mut at_client)
        )
        .unwrap();
        assert!(at_server == [b"early", &query[..]].concat());
        assert!(at_client[..9] == *b"R\0\0\0\x08\0\0\0\0" && at_client[9..] == rows);
        let halves = writers.await.unwrap();
        drop((halves, client_in));
        let end = splice.await.unwrap();
        assert_eq!((end.by, end.error.is_none()), (EndedBy::Client, true));
        assert_eq!((end.sent, end.received), (100_005, 9 + 205_000));
    }

    #[tokio::test]
    async fn a_server_that_ends_says_where_the_client_stands() {
        for (cut, at_boundary) in [(0, true), (1, false)] {
            let Pair {
                mut client,
                mut server,
                splice,
            } = spliced(b"", b"", std::future::pending());
            let bytes = message(20);
            server.write_all(&bytes[..bytes.len() - cut]).await.unwrap();
            drop(server);
            let mut received = vec![0; bytes.len() - cut];
            client.read_exact(&mut received).await.unwrap();
            let end = splice.await.unwrap();
            assert_eq!(
                (end.by, end.at_boundary),
                (EndedBy::Server, at_boundary),
                "{cut} cut off"
            );
            let reason = end.error.expect("it has not said why").to_string();
            assert_eq!(reason, "the server closed it early");
        }
    }

    #[tokio::test]
    async fn what_the_server_said_last_is_the_reason() {
        let Pair {
            mut client,
            mut server,
            splice,
        } = spliced(b"", b"", std::future::pending());
        let mut fatal = b"E\0\0\0\x13SFATAL\0VFATAL\0\0".to_vec();
        server.write_all(&fatal).await.unwrap();
        drop(server);
        client.read_exact(&mut fatal).await.unwrap();
        let end = splice.await.unwrap();
        assert_eq!((end.by, end.at_boundary), (EndedBy::Server, false));
        assert!(end.error.is_none(), "{:?}", end.error);
    }

    #[tokio::test]
    async fn the_end_of_a_replication_stream_is_in_order() {
        let Pair {
            mut client,
            mut server,
            splice,
        } = spliced(b"", b"", std::future::pending());
        let mut last = b"C\0\0\0\x0bCOPY 0\0".to_vec();
        server.write_all(&last).await.unwrap();
        drop(server);
        client.read_exact(&mut last).await.unwrap();
        let end = splice.await.unwrap();
        assert_eq!(end.by, EndedBy::Server);
        assert!(end.error.is_none(), "{:?}", end.error);
    }

    #[tokio::test]
    async fn a_client_that_has_taken_leave_is_told_nothing() {
        let Pair {
            mut client,
            mut server,
            splice,
        } = spliced(b"", b"", std::future::pending());
        client.write_all(b"Q\0\0\0\x06;\0X\0\0").await.unwrap();
        client.write_all(b"\0\x04").await.unwrap();
        let mut taken = [0; 12];
        server.read_exact(&mut taken).await.unwrap();
        drop(server);
        let end = splice.await.unwrap();
        assert_eq!(end.by, EndedBy::Server);
        assert!(end.error.is_none(), "{:?}", end.error);
        drop(client);
    }

    #[tokio::test]
    async fn stopping_leaves_both_sides_open_for_the_last_words() {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let wait = async { _ = stopped.await };
        let Pair {
            client,
            server,
            splice,
        } = spliced(b"", b"", wait);
        stop.send(()).unwrap();
        let end = splice.await.unwrap();
        assert_eq!(
            (end.by, end.at_boundary, end.error.is_none()),
            (EndedBy::Shutdown, true, true)
        );
        drop((client, server));
    }

    /// A server that accepts no more data.
    struct Deaf(DuplexStream);
    impl AsyncRead for Deaf {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }
    impl AsyncWrite for Deaf {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn last_words_of_a_server_that_takes_no_more_still_arrive() {
        // A server that is terminated writes its reason and closes; the client is still sending.
        let (mut server, near_server) = duplex(4096);
        let (mut client, mut near_client) = duplex(4096);
        let mut near_server = Deaf(near_server);
        client.write_all(b"insert").await.unwrap();
        let reason = message(30);
        let (words, first) = (reason.clone(), InitialBytes { up: b"", down: b"" });
        let splicing = tokio::spawn(async move {
            splice(
                &mut near_client,
                &mut near_server,
                first,
                &Traffic::default(),
                std::future::pending(),
            )
            .await
        });
        tokio::task::yield_now().await;
        server.write_all(&words).await.unwrap();
        drop(server);
        let mut received = vec![0; reason.len()];
        client.read_exact(&mut received).await.unwrap();
        let end = splicing.await.unwrap();
        assert_eq!((end.by, end.at_boundary), (EndedBy::Server, true));
        assert_eq!(end.error.unwrap().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test(start_paused = true)]
    async fn they_are_not_waited_for_without_end() {
        let (_server, near_server) = duplex(4096);
        let (mut client, mut near_client) = duplex(4096);
        let mut near_server = Deaf(near_server);
        client.write_all(b"insert").await.unwrap();
        let first = InitialBytes { up: b"", down: b"" };
        let stop = std::future::pending();
        let traffic = Traffic::default();
        let end = splice(&mut near_client, &mut near_server, first, &traffic, stop).await;
        assert_eq!((end.by, end.at_boundary), (EndedBy::Server, true));
        assert_eq!(end.error.unwrap().kind(), io::ErrorKind::BrokenPipe);
    }

    const QUERY: &[u8] = b"Q\0\0\0\x06;\0";
    const READY: &[u8] = b"Z\0\0\0\x05I";

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_no_more_gets_its_answers() {
        // Two simple queries, and one by the extended protocol (Parse, Sync), each sent separately.
        let asked: &[u8] = b"Q\0\0\0\x06;\0Q\0\0\0\x06;\0P\0\0\0\x08\0\0\0\0S\0\0\0\x04";
        let Pair {
            mut client,
            mut server,
            splice,
        } = spliced(asked, READY, std::future::pending());
        client.shutdown().await.unwrap();
        client.read_exact(&mut [0; READY.len()]).await.unwrap();
        let mut taken = vec![0; asked.len()];
        server.read_exact(&mut taken).await.unwrap();
        let mut answers = 0;
        for _ in 0..3 {
            tokio::time::sleep(UNANSWERED - Duration::from_secs(1)).await;
            let answer = [&message(20)[..], READY].concat();
            server.write_all(&answer).await.unwrap();
            let mut received = vec![0; answer.len()];
            client.read_exact(&mut received).await.unwrap();
            answers += 1;
        }
        let began = Instant::now();
        let end = splice.await.unwrap();
        assert_eq!(
            (answers, end.by, end.error.is_none()),
            (3, EndedBy::Client, true)
        );
        assert!(
            began.elapsed() < Duration::from_millis(1),
            "nothing is left to wait for"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_come_is_not_waited_for_without_end() {
        let Pair {
            mut client,
            server,
            splice,
        } = spliced(QUERY, b"", std::future::pending());
        client.shutdown().await.unwrap();
        let began = Instant::now();
        let end = splice.await.unwrap();
        assert_eq!(end.by, EndedBy::Client);
        let waited = began.elapsed();
        assert!((UNANSWERED..UNANSWERED * 2).contains(&waited), "{waited:?}");
        drop(server);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_waits_for_nothing_ends_at_once() {
        for said in [
            &b""[..],
            b"Q\0\0\0\x06;\0X\0\0\0\x04",
            b"P\0\0\0\x08\0\0\0\0",
            // Execute, Sync, CopyDone, Sync: the server ignores the first Sync, and has answered.
            b"E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04c\0\0\0\x04S\0\0\0\x04",
        ] {
            let answered: &[u8] = if said.starts_with(b"E") { READY } else { b"" };
            let Pair {
                mut client,
                mut server,
                splice,
            } = spliced(said, b"", std::future::pending());
            server.write_all(answered).await.unwrap();
            client.shutdown().await.unwrap();
            let began = Instant::now();
            let end = splice.await.unwrap();
            assert_eq!((end.by, end.error.is_none()), (EndedBy::Client, true));
            assert!(began.elapsed() < Duration::from_millis(1), "{said:?}");
            drop(server);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_gone_is_noticed_with_the_first_words_to_it() {
        let Pair {
            client,
            mut server,
            splice,
        } = spliced(QUERY, b"", std::future::pending());
        drop(client);
        server.write_all(&message(20)).await.unwrap();
        let end = splice.await.unwrap();
        assert_eq!((end.by, end.error.is_some()), (EndedBy::Client, true));
    }
}
