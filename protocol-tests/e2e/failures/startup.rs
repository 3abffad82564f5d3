//! Clients that do not speak the protocol, too many clients, and targets that share a port.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use protocol_tests::harness::ports::free_port;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Record, refusals};
use crate::support::{PATIENCE, Ran, Setup, World, eventually, ordinary_config};

const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
const GSS_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x30";

/// A startup packet of protocol `major`.`minor`.
fn startup(major: u8, minor: u8, parameters: &[u8]) -> Vec<u8> {
    let length = u8::try_from(8 + parameters.len()).expect("a short packet");
    [&[0, 0, 0, length, 0, major, 0, minor], parameters].concat()
}

async fn connect(world: &World) -> TcpStream {
    TcpStream::connect((Ipv4Addr::LOCALHOST, world.proxy.port()))
        .await
        .expect("it listens")
}

/// Sends `parts` one after the other, each after the answer to the one before has begun, and gives
/// back all that was answered until the proxy closed.
async fn converse(world: &World, parts: &[&[u8]]) -> Vec<u8> {
    let mut socket = connect(world).await;
    let mut heard = Vec::new();
    let talk = async {
        for (at, part) in parts.iter().enumerate() {
            if at > 0 {
                heard.push(socket.read_u8().await.expect("an answer"));
            }
            socket.write_all(part).await.expect("it listens");
        }
        // Whether it closes in order or resets: what it said is what counts.
        _ = socket.read_to_end(&mut heard).await;
    };
    timeout(PATIENCE, talk).await.expect("it closes");
    heard
}

/// An answer in letters: an ErrorResponse field by field, single bytes before it as they are.
fn letters(answer: &[u8]) -> String {
    let begins = |at: &usize| answer[*at] == b'E' && answer.len() > at + 5;
    let Some(error) = (0..answer.len()).find(begins) else {
        return format!("{}(closed)", answer.escape_ascii());
    };
    let mut text = answer[..error].escape_ascii().to_string();
    for field in answer[error + 5..].split(|byte| *byte == 0) {
        if let Some((code, value)) = field.split_first() {
            let (code, value) = (char::from(*code), String::from_utf8_lossy(value));
            let _ = writeln!(text, "{code}: {value}");
        }
    }
    text
}

/// What becomes of a client that says this.
async fn raw(record: &mut Record, world: &World, title: &str, parts: &[&[u8]]) {
    let known = refusals(world).len();
    let ran = Ran {
        code: None,
        stdout: letters(&converse(world, parts).await),
        stderr: String::new(),
    };
    let shown: Vec<String> = parts.iter().map(|p| p.escape_ascii().to_string()).collect();
    record
        .note(world, title, &shown.join(" … "), &ran, known)
        .await;
}

#[tokio::test]
async fn packets_that_are_no_startup() {
    let mut record = Record::new("startup");
    let world = World::start().await;
    let tls_hello = [0x16, 3, 1, 0, 100, 1, 0, 0, 96, 3, 3];
    let two_zero = startup(2, 0, b"\0");
    let unended = startup(3, 0, b"user\0ana");
    let latin = startup(3, 0, b"user\0j\xf6rg\0\0");
    let after_ssl = [SSL_REQUEST, &latin].concat();
    let cases: [(&str, &[&[u8]]); 12] = [
        (
            "a web browser",
            &[b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"],
        ),
        ("a packet of four bytes", &[b"\0\0\0\x04"]),
        ("a packet longer than any", &[b"\0\0\x27\x15\0\x03\0\0"]),
        ("protocol 2.0", &[&two_zero]),
        ("parameters without an end", &[&unended]),
        ("a user name that is not UTF-8", &[&latin]),
        ("SSLRequest, and more in the same breath", &[&after_ssl]),
        ("SSLRequest, and then no TLS", &[SSL_REQUEST, &latin]),
        (
            "SSLRequest of nine bytes",
            &[b"\0\0\0\x09\x04\xd2\x16\x2f\0"],
        ),
        ("GSSENCRequest twice", &[GSS_REQUEST, GSS_REQUEST]),
        ("TLS without SSLRequest", &[&tls_hello]),
        ("SSH", &[b"SSH-2.0-OpenSSH_9.6\r\n"]),
    ];
    for (title, parts) in cases {
        raw(&mut record, &world, title, parts).await;
    }

    // Half a packet, and the client is gone: nobody to tell, and no harm done.
    let known = refusals(&world).len();
    let mut socket = connect(&world).await;
    socket.write_all(b"\0\0\0\x29\0\x03").await.expect("sent");
    drop(socket);
    let line = eventually("half a packet", || refusals(&world).into_iter().nth(known)).await;
    assert_eq!(line["level"], "INFO", "{line}");

    assert_eq!(world.query("select 1").await, "1");
    record.leave(world).await;
    record.compare();
}

/// Connections that have not said yet what they want (`server::MAX_STARTUPS`).
#[cfg(target_os = "linux")]
const STARTUPS: usize = 128;

#[cfg(target_os = "linux")]
fn descriptors(world: &World) -> usize {
    let pid = world.proxy.pid().expect("it runs");
    let folder = std::fs::read_dir(format!("/proc/{pid}/fd"));
    folder.expect("its descriptors").count()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_thousand_connections_leave_nothing_behind() {
    let mut record = Record::new("");
    let world = World::start().await;
    assert_eq!(world.query("select 1").await, "1");
    eventually("the first session's end", || {
        let log = world.proxy.log_text();
        log.contains("connection ended").then_some(())
    })
    .await;
    // Its sockets are closed right after that line.
    let mut last = (usize::MAX, 0);
    let before = eventually("the descriptors stay the same", || {
        let now = descriptors(&world);
        last = (now, if now == last.0 { last.1 + 1 } else { 0 });
        (last.1 == 5).then_some(now)
    })
    .await;
    let hundred = || async {
        for _ in 0..100 {
            drop(connect(&world).await);
        }
    };
    futures_util::future::join_all((0..10).map(|_| hundred())).await;
    let settled = || (descriptors(&world) <= before).then_some(());
    eventually("all descriptors are back", settled).await;
    assert_eq!(world.query("select 1").await, "1");

    // As many as may be silent at once: a client that speaks has to wait until one of them goes.
    let mut held = Vec::new();
    for _ in 0..STARTUPS {
        held.push(connect(&world).await);
    }
    eventually("all are taken in", || {
        (descriptors(&world) >= before + held.len()).then_some(())
    })
    .await;
    drop(held);
    eventually("all descriptors are back", settled).await;
    assert_eq!(world.query("select 1").await, "1");
    record.leave(world).await;
}

#[tokio::test]
async fn targets_that_share_a_port() {
    let mut record = Record::new("targets");
    let port = free_port();
    let orders = ordinary_config().replace("port = 0", &format!("port = {port}"));
    let stock = orders
        .replace("targets.orders", "targets.stock")
        .replace("user = \"db_user\"\n", "");
    let world = World::with(Setup {
        config: Some(orders + &stock),
        ..Setup::default()
    })
    .await;
    record.refused(&world, "no target named", &[]).await;
    for (title, name) in [
        ("a target that is not there", "nosuch"),
        ("a target that is not there, with a database", "nosuch/app"),
    ] {
        record.refused(&world, title, &["-d", name]).await;
    }
    let nobody = startup(3, 0, b"database\0stock\0\0");
    raw(&mut record, &world, "no user anywhere", &[&nobody]).await;

    let who = "select current_user, current_database()";
    for (conninfo, answer) in [
        ("dbname=orders", "db_user|app"),
        ("dbname=orders/postgres", "db_user|postgres"),
        (
            "dbname=stock/postgres user='odd user@x'",
            "odd user@x|postgres",
        ),
    ] {
        let ran = world.psql(&["-A", "-t", "-d", conninfo, "-c", who]).await;
        assert_eq!(ran.rows(), answer, "{conninfo}");
    }
    record.leave(world).await;
    record.compare();
}
