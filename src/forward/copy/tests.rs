use super::*;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;

use crate::config::Endpoint;

/// The far ends of two streams that are copied, and the copying.
struct Pair {
    client: DuplexStream,
    server: DuplexStream,
    stop: CancellationToken,
    copying: JoinHandle<CopyResult>,
}

fn pair() -> Pair {
    pair_with(false)
}

fn pair_with(half_closes: bool) -> Pair {
    // Far smaller than the transferred data: both directions have to wait many times.
    let (client, mut near_client) = duplex(64);
    let (server, mut near_server) = duplex(64);
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let copying = tokio::spawn(async move {
        let traffic = Traffic::default();
        if half_closes {
            copy_half_closing(&mut near_client, &mut near_server, &traffic, &stopped).await
        } else {
            copy(&mut near_client, &mut near_server, &traffic, &stopped).await
        }
    });
    Pair {
        client,
        server,
        stop,
        copying,
    }
}

async fn read_to_end(stream: &mut DuplexStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    all
}

async fn read(stream: &mut DuplexStream, n: usize) -> Vec<u8> {
    let mut some = vec![0; n];
    stream.read_exact(&mut some).await.unwrap();
    some
}

#[tokio::test(start_paused = true)]
async fn both_ways_at_once() {
    let Pair {
        client,
        server,
        copying,
        ..
    } = pair();
    let bytes: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let (up, down) = (bytes.clone(), bytes.repeat(2));
    let (mut client_in, mut client_out) = tokio::io::split(client);
    let (mut server_in, mut server_out) = tokio::io::split(server);
    let (mut at_server, mut at_client) = (vec![0; up.len()], vec![0; down.len()]);
    let moved = tokio::try_join!(
        client_out.write_all(&up),
        server_out.write_all(&down),
        server_in.read_exact(&mut at_server),
        client_in.read_exact(&mut at_client),
    );
    moved.unwrap();
    assert!(at_server == up && at_client == down);
    server_out.shutdown().await.unwrap();
    drop((server_in, server_out));
    assert_eq!(client_in.read(&mut [0]).await.unwrap(), 0);
    drop((client_in, client_out));
    let copied = copying.await.unwrap();
    assert!(matches!(copied.end, ForwardEnd::Server), "{copied:?}");
    assert_eq!((copied.sent, copied.received), (100_000, 200_000));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_only_finished_asking_gets_its_answer() {
    let mut pair = pair();
    pair.client.write_all(b"GET /").await.unwrap();
    pair.client.shutdown().await.unwrap();
    assert_eq!(read(&mut pair.server, 5).await, b"GET /");
    // A slow page, with pauses longer than the time for a client that is gone.
    for part in [b"slow", b"page"] {
        tokio::time::sleep(UNANSWERED - Duration::from_secs(1)).await;
        pair.server.write_all(part).await.unwrap();
    }
    let mut byte = [0];
    let passed_on = timeout(Duration::from_secs(5), pair.server.read(&mut byte)).await;
    assert!(passed_on.is_err(), "the end was passed on: {passed_on:?}");
    drop(pair.server);
    assert_eq!(read_to_end(&mut pair.client).await, b"slowpage");
    assert!(matches!(
        pair.copying.await.unwrap().end,
        ForwardEnd::Server
    ));
}

/// Like a server that waits for another request, or for the end: Redis, HTTP with keep-alive, echo.
#[tokio::test(start_paused = true)]
async fn a_far_side_that_stays_open_after_its_answer_does_not_hold_the_client_up() {
    let mut pair = pair();
    pair.client.write_all(b"PING").await.unwrap();
    pair.client.shutdown().await.unwrap();
    assert_eq!(read(&mut pair.server, 4).await, b"PING");
    tokio::time::sleep(Duration::from_millis(200)).await;
    pair.server.write_all(b"PONG").await.unwrap();
    assert_eq!(read(&mut pair.client, 4).await, b"PONG");
    let answered = Instant::now();
    assert_eq!(read_to_end(&mut pair.server).await, b"");
    assert_eq!(answered.elapsed().as_secs(), ANSWERING.as_secs());
    assert_eq!(read_to_end(&mut pair.client).await, b"");
    assert!(matches!(
        pair.copying.await.unwrap().end,
        ForwardEnd::Client
    ));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_the_client_takes_its_time_to_read_is_whole() {
    let mut pair = pair();
    pair.client.write_all(b"GET /").await.unwrap();
    pair.client.shutdown().await.unwrap();
    assert_eq!(read(&mut pair.server, 5).await, b"GET /");
    let page = vec![b'x'; 10_000];
    let sent = page.clone();
    let answering = tokio::spawn(async move {
        pair.server.write_all(&sent).await.unwrap();
        pair.server
    });
    // A pager without a reader.
    tokio::time::sleep(10 * UNANSWERED).await;
    assert!(read(&mut pair.client, page.len()).await == page);
    let mut server = answering.await.unwrap();
    assert_eq!(read_to_end(&mut server).await, b"");
    assert!(matches!(
        pair.copying.await.unwrap().end,
        ForwardEnd::Client
    ));
}

#[tokio::test(start_paused = true)]
async fn an_end_is_passed_on_at_once_where_one_direction_can_close_alone() {
    let mut pair = pair_with(true);
    pair.client.write_all(b"report").await.unwrap();
    pair.client.shutdown().await.unwrap();
    let began = Instant::now();
    assert_eq!(read_to_end(&mut pair.server).await, b"report");
    assert_eq!(began.elapsed(), Duration::ZERO);
    // The far side has received the end, so it may take any time.
    for part in [b"slow", b"page"] {
        tokio::time::sleep(20 * UNANSWERED).await;
        pair.server.write_all(part).await.unwrap();
    }
    drop(pair.server);
    assert_eq!(read_to_end(&mut pair.client).await, b"slowpage");
    assert!(matches!(
        pair.copying.await.unwrap().end,
        ForwardEnd::Server
    ));
}

#[tokio::test(start_paused = true)]
async fn a_far_side_that_ignores_an_end_is_left_at_last() {
    let mut pair = pair_with(true);
    pair.client.shutdown().await.unwrap();
    let began = Instant::now();
    assert_eq!(read_to_end(&mut pair.client).await, b"");
    assert_eq!(began.elapsed().as_secs(), PASSED_ON.as_secs());
    drop(pair.server);
    assert!(matches!(
        pair.copying.await.unwrap().end,
        ForwardEnd::Client
    ));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_left_after_its_answer_is_soon_let_go() {
    let mut pair = pair();
    pair.client.write_all(b"PING").await.unwrap();
    assert_eq!(read(&mut pair.server, 4).await, b"PING");
    pair.server.write_all(b"PONG").await.unwrap();
    assert_eq!(read(&mut pair.client, 4).await, b"PONG");
    let left = Instant::now();
    drop(pair.client);
    assert_eq!(read_to_end(&mut pair.server).await, b"");
    assert_eq!(left.elapsed().as_secs(), ANSWERED.as_secs());
    drop(pair.server);
    let copied = pair.copying.await.unwrap();
    assert!(matches!(copied.end, ForwardEnd::Client), "{copied:?}");
    assert_eq!((copied.sent, copied.received), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn an_end_that_nobody_answers_is_passed_on_at_last() {
    let mut pair = pair();
    pair.client.write_all(b"archive").await.unwrap();
    pair.client.shutdown().await.unwrap();
    let began = Instant::now();
    assert_eq!(read_to_end(&mut pair.server).await, b"archive");
    assert_eq!(began.elapsed().as_secs(), UNANSWERED.as_secs());
    assert_eq!(read_to_end(&mut pair.client).await, b"");
    assert!(matches!(
        pair.copying.await.unwrap().end,
        ForwardEnd::Client
    ));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_hears_the_greeting() {
    let mut pair = pair();
    pair.client.shutdown().await.unwrap();
    tokio::time::sleep(SILENT - Duration::from_secs(1)).await;
    pair.server.write_all(b"SSH-2.0").await.unwrap();
    assert_eq!(read(&mut pair.client, 7).await, b"SSH-2.0");
    // A client that only probed the port is closed.
    let looked = Instant::now();
    assert_eq!(read_to_end(&mut pair.server).await, b"");
    assert_eq!(looked.elapsed().as_secs(), SILENT.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_far_side_that_closes_while_it_is_written_to_is_heard_to_its_end() {
    let mut pair = pair();
    pair.server.write_all(b"413 too large").await.unwrap();
    pair.server.shutdown().await.unwrap();
    let answer = async {
        let (mut input, mut output) = tokio::io::split(pair.client);
        let upload = tokio::spawn(async move {
            let sent = output.write_all(&[b'x'; 100_000]).await;
            (output, sent)
        });
        let mut answer = Vec::new();
        input.read_to_end(&mut answer).await.unwrap();
        let (_output, sent) = upload.await.unwrap();
        (answer, sent)
    };
    let (answer, sent) = answer.await;
    assert_eq!(answer, b"413 too large");
    assert!(sent.is_ok(), "what came too late is taken and forgotten");
    assert!(matches!(
        pair.copying.await.unwrap().end,
        ForwardEnd::Server
    ));
}

#[tokio::test(start_paused = true)]
async fn a_stop_leaves_the_client_to_the_caller() {
    let pair = pair();
    pair.stop.cancel();
    let copied = pair.copying.await.unwrap();
    assert!(matches!(copied.end, ForwardEnd::Stopped), "{copied:?}");
}

/// A far side that fails after some bytes.
struct Breaks(&'static [u8]);

impl tokio::io::AsyncRead for Breaks {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.0.is_empty() {
            let refused = TunnelError::DialRefused {
                bastion: "i-1".to_owned(),
                endpoint: Endpoint {
                    host: "db".to_owned(),
                    port: 1,
                },
            };
            return Poll::Ready(Err(refused.into_io()));
        }
        buf.put_slice(std::mem::take(&mut self.0));
        Poll::Ready(Ok(()))
    }
}

impl tokio::io::AsyncWrite for Breaks {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_tunnel_keeps_its_reason_and_is_no_end_of_file() {
    let (mut client, mut near) = duplex(64);
    let copied = copy(
        &mut near,
        &mut Breaks(b"half"),
        &Traffic::default(),
        &CancellationToken::new(),
    )
    .await;
    let ForwardEnd::ServerLost(error) = copied.end else {
        panic!("{copied:?}");
    };
    assert!(
        matches!(
            TunnelError::of(&error),
            Some(TunnelError::DialRefused { .. })
        ),
        "{error:?}"
    );
    assert_eq!(copied.received, 4);
    assert_eq!(read(&mut client, 4).await, b"half");
    let more = timeout(Duration::from_secs(60), client.read(&mut [0])).await;
    assert!(more.is_err(), "the caller resets it: {more:?}");
}
