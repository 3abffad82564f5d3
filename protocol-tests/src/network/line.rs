//! The wire between a bastion and a database: a relay in the way of the connections that delays
//! bytes, and counts how often the talk changed sides.
//!
//! # Flights
//!
//! A *flight* is what one side says until it has to hear the other. The line counts an up flight when
//! the first client byte arrives after server bytes have been handed to the client (or at the very
//! beginning), and a down flight when server bytes are handed out after client bytes have arrived. So
//! `down` is the number of round trips the client has waited for, and a login over TLS 1.3 that has
//! reached ReadyForQuery in the shortest way counts 3 up and 3 down: SSLRequest and `S`; ClientHello
//! and the server's handshake; Finished with startup and password, and all the answers to these.
//!
//! A client that sends the startup and the password together does not wait for the request between
//! them, although a quick server has sent that one before it has read the password. Counting reads and
//! writes would call these two flights. Therefore the line holds what the server says until the client
//! has been quiet for [`LineOptions::hold`]: a client that needs the answer is quiet, and one that does
//! not has said all by then. What counts is thus what the client waits for, however its bytes are cut
//! up on the way. Fewer flights than there were are never counted, because a byte that answers what
//! the line has handed out comes after it. Too many are counted only when the client pauses within a
//! flight for longer than the hold.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::aws::events::{Event, EventLog};
use crate::harness::sync::lock;

/// Pieces under way in one direction, of up to [`PIECE`] bytes; then the sender waits.
const LINE_CAPACITY: usize = 64;
const PIECE: usize = 65_536;

/// How a line is to be. The default delays nothing and counts nothing useful: see
/// [`LineOptions::counting`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LineOptions {
    /// One-way delay from the client to the server.
    pub up: Duration,
    /// One-way delay from the server to the client.
    pub down: Duration,
    /// How long the client must have been quiet before it gets to hear something.
    pub hold: Duration,
}

impl LineOptions {
    /// For counting flights: each answer is held for 50 ms, longer than a program on a busy machine
    /// takes between two writes.
    pub fn counting() -> Self {
        Self {
            hold: Duration::from_millis(50),
            ..Self::default()
        }
    }

    /// For measuring: half of `round_trip` in each direction.
    pub fn round_trip(round_trip: Duration) -> Self {
        Self {
            up: round_trip / 2,
            down: round_trip / 2,
            ..Self::default()
        }
    }
}

/// How often each side has begun to talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flights {
    /// The client.
    pub up: u32,
    /// The server: the round trips a client has waited for.
    pub down: u32,
}

/// A running relay on a free port of 127.0.0.1; dropping it cuts all its connections.
pub struct Line {
    addr: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    server: SocketAddr,
    options: Mutex<LineOptions>,
    connections: Mutex<Vec<Flights>>,
    events: EventLog,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line")
            .field("addr", &self.addr)
            .field("server", &self.shared.server)
            .finish_non_exhaustive()
    }
}

impl Line {
    /// Starts listening; each connection goes on to `server`. An ended connection becomes an
    /// [`Event::LineClosed`].
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(
        server: SocketAddr,
        options: LineOptions,
        events: &EventLog,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("listening as a line to a database")?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            server,
            options: Mutex::new(options),
            connections: Mutex::default(),
            events: events.clone(),
        });
        let task = tokio::spawn(accept(listener, shared.clone()));
        Ok(Self { addr, shared, task })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Changes the line for the connections that come from now on.
    pub fn set(&self, options: LineOptions) {
        *lock(&self.shared.options) = options;
    }

    /// The flights of each connection so far, in the order they were accepted. Read it when the
    /// client has got what it waited for: what is under way is not counted yet.
    pub fn flights(&self) -> Vec<Flights> {
        lock(&self.shared.connections).clone()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropping the set with the task ends the connections too.
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((client, _)) = accepted {
                let mut connections = lock(&shared.connections);
                let index = connections.len();
                connections.push(Flights::default());
                drop(connections);
                open.spawn(relay(client, shared.clone(), index));
            },
            Some(_) = open.join_next() => {}
        }
    }
}

/// One connection, both ways.
async fn relay(mut client: TcpStream, shared: Arc<Shared>, index: usize) {
    let options = *lock(&shared.options);
    let count = Count {
        shared: &shared,
        index,
        state: Mutex::new(State {
            talking: None,
            quiet_since: Instant::now(),
        }),
    };
    // A reset on one side is a reset on the other.
    let result = match TcpStream::connect(shared.server).await {
        Ok(mut server) => {
            let result = both_ways(&mut client, &mut server, options, &count).await;
            if result.is_err() {
                let _ = server.set_zero_linger();
            }
            result
        }
        Err(error) => Err(error),
    };
    if result.is_err() {
        let _ = client.set_zero_linger();
    }
    let Flights { up, down } = lock(&shared.connections)[index];
    shared.events.push(Event::LineClosed {
        connection: u64::try_from(index + 1).unwrap_or(u64::MAX),
        up,
        down,
    });
}

async fn both_ways(
    client: &mut TcpStream,
    server: &mut TcpStream,
    options: LineOptions,
    count: &Count<'_>,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (client_in, client_out) = client.split();
    let (server_in, server_out) = server.split();
    let (up_in, up_out) = mpsc::channel(LINE_CAPACITY);
    let (down_in, down_out) = mpsc::channel(LINE_CAPACITY);
    let hold = Some((count, options.hold));
    tokio::try_join!(
        listen(client_in, up_in, options.up, Some(count)),
        hand_out(server_out, up_out, None),
        listen(server_in, down_in, options.down, None),
        hand_out(client_out, down_out, hold),
    )?;
    Ok(())
}

/// Something under way, and when it arrives.
type Piece = (Instant, Said);

enum Said {
    Bytes(Bytes),
    End,
    /// The connection broke, with this error where it was noticed.
    Broken(io::Error),
}

/// Takes up what one side says; the client's bytes are counted.
async fn listen(
    mut from: ReadHalf<'_>,
    line: mpsc::Sender<Piece>,
    delay: Duration,
    count: Option<&Count<'_>>,
) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        let said = match from.read(&mut buffer).await {
            Ok(0) => Said::End,
            Ok(n) => Said::Bytes(Bytes::copy_from_slice(&buffer[..n])),
            Err(error) => Said::Broken(error),
        };
        let last = !matches!(said, Said::Bytes(_));
        if let Some(count) = count.filter(|_| !last) {
            count.client_talks();
        }
        if line.send((Instant::now() + delay, said)).await.is_err() || last {
            return Ok(());
        }
    }
}

/// Tells it to the other side when it is due; to the client, when that has been quiet for so long.
async fn hand_out(
    mut to: WriteHalf<'_>,
    mut line: mpsc::Receiver<Piece>,
    hold: Option<(&Count<'_>, Duration)>,
) -> io::Result<()> {
    let mut gone = false;
    while let Some((due, said)) = line.recv().await {
        sleep_until(due).await;
        if let Some((count, hold)) = hold {
            count.quiet(hold).await;
            // The end of the stream is no talk.
            if matches!(said, Said::Bytes(_)) {
                count.server_is_heard();
            }
        }
        match said {
            // Who does not take anything any more may still have something to say, so what was
            // meant for it is dropped without a word, as on a network.
            Said::Bytes(bytes) => gone = gone || to.write_all(&bytes).await.is_err(),
            Said::End => {
                let _ = to.shutdown().await;
            }
            Said::Broken(error) => return Err(error),
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

/// The count of one connection.
struct Count<'a> {
    shared: &'a Shared,
    index: usize,
    state: Mutex<State>,
}

struct State {
    /// Who was heard last.
    talking: Option<Side>,
    /// When the client's last bytes arrived.
    quiet_since: Instant,
}

impl Count<'_> {
    fn client_talks(&self) {
        let mut state = lock(&self.state);
        state.quiet_since = Instant::now();
        if state.talking.replace(Side::Client) != Some(Side::Client) {
            lock(&self.shared.connections)[self.index].up += 1;
        }
    }

    fn server_is_heard(&self) {
        let mut state = lock(&self.state);
        if state.talking.replace(Side::Server) != Some(Side::Server) {
            lock(&self.shared.connections)[self.index].down += 1;
        }
    }

    /// Returns when the client has said nothing for this long.
    async fn quiet(&self, hold: Duration) {
        loop {
            let end = lock(&self.state).quiet_since + hold;
            if Instant::now() >= end {
                return;
            }
            sleep_until(end).await;
        }
    }
}
