//! A client that closes its sending side and waits for the answer.

use std::time::{Duration, Instant};

use protocol_tests::aws::events::Event;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{PATIENCE, World};

/// Length, version 3.0, and what psql would say for a role and a database.
fn startup() -> Vec<u8> {
    let body = b"\0\x03\0\0user\0db_user\0database\0app\0\0";
    let length = u32::try_from(body.len() + 4).expect("a short packet");
    [&length.to_be_bytes()[..], body].concat()
}

fn query(sql: &str) -> Vec<u8> {
    let length = u32::try_from(sql.len() + 5).expect("a short query");
    [b"Q", &length.to_be_bytes()[..], sql.as_bytes(), b"\0"].concat()
}

/// Everything that is said up to the end, which comes soon.
async fn answers(stream: &mut TcpStream) -> String {
    let began = Instant::now();
    let mut said = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut said)).await;
    read.expect("in time").expect("an end");
    // Nothing waits for the patience with answers that do not come.
    assert!(
        began.elapsed() < Duration::from_secs(25),
        "{:?}",
        began.elapsed()
    );
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test]
async fn the_answer_comes_after_the_client_has_closed_its_sending_side() {
    let world = World::start().await;
    let port = world.proxy.port();
    // All at once, as `printf … | nc -N` does it: the end is there before the login is over.
    let mut all = TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("pgiam");
    let slow = query("select pg_sleep(0.5)::text || 'first'");
    let said = [startup(), slow, query("select 'sec' || 'ond'")].concat();
    all.write_all(&said).await.expect("said");
    all.shutdown().await.expect("the end");
    let heard = answers(&mut all).await;
    assert!(
        heard.contains("first") && heard.contains("second"),
        "{heard}"
    );
    // After the login, while the server works.
    let mut later = TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("pgiam");
    later.write_all(&startup()).await.expect("said");
    let mut heard = Vec::new();
    while !heard.ends_with(b"Z\0\0\0\x05I") {
        assert_ne!(later.read_buf(&mut heard).await.expect("an answer"), 0);
    }
    later
        .write_all(&query("select 'on' || 'ly', pg_sleep(0.5)"))
        .await
        .expect("said");
    later.shutdown().await.expect("the end");
    let heard = answers(&mut later).await;
    assert!(heard.contains("only"), "{heard}");
    // The server's sessions end with them.
    world.wait_no_backends().await;
    let logins = |event: &Event| matches!(event, Event::DbToken { outcome: Ok(_), .. });
    assert_eq!(world.sandbox.events().count(logins), 2);
    world.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_is_not_waited_for() {
    let world = World::start().await;
    let port = world.proxy.port();
    for last in [&b""[..], b"X\0\0\0\x04"] {
        let mut client = TcpStream::connect(("127.0.0.1", port))
            .await
            .expect("pgiam");
        client.write_all(&startup()).await.expect("said");
        let mut heard = Vec::new();
        while !heard.ends_with(b"Z\0\0\0\x05I") {
            assert_ne!(client.read_buf(&mut heard).await.expect("an answer"), 0);
        }
        client.write_all(last).await.expect("said");
        client.shutdown().await.expect("the end");
        assert_eq!(answers(&mut client).await, "");
        world.wait_no_backends().await;
    }
    world.stop().await;
}
