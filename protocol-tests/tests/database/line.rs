//! The line that counts flights, with scripted talks and with real logins.

use std::time::Duration;

use protocol_tests::aws::events::{Event, EventLog};
use protocol_tests::database::front::FrontKind;
use protocol_tests::database::rds::Engine;
use protocol_tests::network::line::{Flights, Line, LineOptions};
use rustls::crypto::aws_lc_rs::kx_group;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::support::{
    PATIENCE, TokenFor, World, connector_guessing, message, name, psql, read_to_ready, startup,
};

/// A server that answers each letter at once with three of it.
async fn triple() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                while let Ok(letter) = socket.read_u8().await {
                    socket.write_all(&[letter; 3]).await.unwrap();
                }
            });
        }
    });
    addr
}

#[tokio::test]
async fn what_is_said_without_waiting_is_one_flight() {
    let events = EventLog::new();
    let line = Line::start(triple().await, LineOptions::counting(), &events)
        .await
        .unwrap();
    let mut socket = TcpStream::connect(line.addr()).await.unwrap();
    let mut answer = [0; 9];
    // Three letters in three packets: the server answers the first before it has the last.
    for letter in *b"abc" {
        socket.write_all(&[letter]).await.unwrap();
        tokio::task::yield_now().await;
    }
    socket.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, *b"aaabbbccc");
    assert_eq!(line.flights(), [Flights { up: 1, down: 1 }]);
    // Three letters, each after the answer to the one before.
    for n in 2..5 {
        socket.write_all(b"x").await.unwrap();
        socket.read_exact(&mut answer[..3]).await.unwrap();
        assert_eq!(line.flights(), [Flights { up: n, down: n }]);
    }
    drop(socket);
    let closed = Event::LineClosed {
        connection: 1,
        up: 4,
        down: 4,
    };
    events.wait_for(|e| *e == closed, PATIENCE).await.unwrap();
    let mut second = TcpStream::connect(line.addr()).await.unwrap();
    second.write_all(b"x").await.unwrap();
    second.read_exact(&mut answer[..3]).await.unwrap();
    assert_eq!(line.flights()[1], Flights { up: 1, down: 1 });
}

#[tokio::test]
async fn delays_are_kept_and_do_not_add_up() {
    let round_trip = Duration::from_millis(40);
    let options = LineOptions::round_trip(round_trip);
    let line = Line::start(triple().await, options, &EventLog::new())
        .await
        .unwrap();
    let mut socket = TcpStream::connect(line.addr()).await.unwrap();
    let begin = std::time::Instant::now();
    socket.write_all(&[b'x'; 30_000]).await.unwrap();
    let mut answer = vec![0; 90_000];
    socket.read_exact(&mut answer[..1]).await.unwrap();
    assert!(begin.elapsed() >= round_trip);
    timeout(PATIENCE, socket.read_exact(&mut answer[1..]))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.iter().all(|b| *b == b'x'));
}

#[tokio::test]
async fn ends_and_resets_travel_in_their_place() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = LineOptions::counting();
    let server = listener.local_addr().unwrap();
    let line = Line::start(server, options, &EventLog::new())
        .await
        .unwrap();
    for reset in [false, true] {
        let mut client = TcpStream::connect(line.addr()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        client.write_all(b"x").await.unwrap();
        server.read_u8().await.unwrap();
        server.write_all(b"last words").await.unwrap();
        if reset {
            server.set_zero_linger().unwrap();
        }
        drop(server);
        // Nobody listens to this any more.
        let _ = client.write_all(b"x").await;
        let mut words = [0; 10];
        timeout(PATIENCE, client.read_exact(&mut words))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&words, b"last words");
        let end = timeout(PATIENCE, client.read(&mut words)).await.unwrap();
        match end {
            Ok(n) => assert_eq!((n, reset), (0, false)),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
                assert!(reset);
            }
        }
    }
}

/// Round trips of a login that says all it can as early as it can.
#[tokio::test]
async fn the_shortest_login_takes_three_round_trips_or_two() {
    let world = World::new();
    let database = world
        .database(|o| {
            o.engine = Engine::front(FrontKind::Instance);
            o.line = Some(LineOptions::counting());
        })
        .await;
    let (right, wrong) = (kx_group::SECP256R1, kx_group::X25519);
    // PostgreSQL before 18 knows one group only, and sends back who guesses another.
    let sent_back = u32::from(database.postgres().major() < 18);
    for (direct, guess, expected) in [
        (false, right, 3),
        (true, right, 2),
        (false, wrong, 3 + sent_back),
    ] {
        let mut socket = TcpStream::connect(database.addr()).await.unwrap();
        if !direct {
            socket
                .write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f])
                .await
                .unwrap();
            assert_eq!(socket.read_u8().await.unwrap(), b'S');
        }
        let connector = connector_guessing(&world, &[b"postgresql"], &[guess, right]);
        let mut tls = connector.connect(name(), socket).await.unwrap();
        // In pieces, as a tunnel cuts them up.
        let hello = startup((3, 0), &[("user", "db_user"), ("database", "app")]);
        let token = TokenFor::default().make() + "\0";
        for piece in [hello, message(b'p', token.as_bytes())] {
            tls.write_all(&piece).await.unwrap();
            tls.flush().await.unwrap();
            tokio::task::yield_now().await;
        }
        assert!(
            timeout(PATIENCE, read_to_ready(&mut tls))
                .await
                .unwrap()
                .ends_with('Z')
        );
        let flights = database.line().unwrap().flights().pop().unwrap();
        assert_eq!((flights.up, flights.down), (expected, expected));
    }
}

#[tokio::test]
async fn psql_takes_one_more() {
    let world = World::new();
    for (nth, engine) in [(1, Engine::Ldap), (2, Engine::front(FrontKind::Instance))] {
        let database = world
            .database(|o| {
                o.engine = engine.clone();
                o.line = Some(LineOptions::counting());
            })
            .await;
        let token = TokenFor::default().make();
        let client = psql(&world, &database, "db_user", &token);
        assert_eq!(client.rows("select 1").await, "1");
        let ended = |e: &Event| matches!(e, Event::LineClosed { .. });
        let Some(Event::LineClosed { up, .. }) =
            world.events.wait_for_nth(nth, ended, PATIENCE).await
        else {
            panic!("the connection never ended");
        };
        // SSLRequest, ClientHello, startup, password; the query; the farewell. And a ClientHello
        // more, because OpenSSL's first guess is X25519.
        let sent_back = u32::from(database.postgres().major() < 18);
        assert_eq!(up, 6 + sent_back, "{engine:?}");
    }
}
