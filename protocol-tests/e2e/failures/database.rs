//! The database at the end of the tunnel is not the right one: not a byte of token for it.

use protocol_tests::database::rds::ServerCertificate;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{Record, tokens_seen};
use crate::support::{HOST, PORT, Setup, World};

#[tokio::test]
async fn certificates_that_prove_nothing() {
    use ServerCertificate::{Expired, NoTls, OtherName, Right, UnknownAuthority};
    let mut record = Record::new("certificate");
    for (title, certificate, built_in_roots) in [
        ("the server has no TLS", NoTls, false),
        ("a certificate for another name", OtherName, false),
        (
            "a certificate of an authority that is not in the CA file",
            UnknownAuthority,
            false,
        ),
        (
            "a certificate of an authority that is not built in",
            Right,
            true,
        ),
        ("a certificate whose time is over", Expired, false),
    ] {
        let setup = Setup {
            certificate,
            built_in_roots,
            ..Setup::default()
        };
        let world = World::with(setup).await;
        record.refused(&world, title, &[]).await;
        assert_eq!(tokens_seen(&world), 0, "{title}");
        record.leave(world).await;
    }
    record.compare();
}

/// What `words` answers whoever asks for TLS, before it hangs up.
async fn impostor(world: &World, words: &'static [u8]) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("its address");
    world.sandbox.vpc().open(HOST, PORT, addr);
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("the agent dials");
        let mut request = [0; 8];
        _ = socket.read_exact(&mut request).await;
        _ = socket.write_all(words).await;
        // Until the program has had enough of it.
        if !words.is_empty() {
            _ = socket.read(&mut request).await;
        }
    });
}

#[tokio::test]
async fn servers_that_are_not_postgresql() {
    let mut record = Record::new("impostor");
    let world = World::start().await;
    let cases: [(&str, &[u8]); 5] = [
        ("it hangs up", b""),
        (
            "a web server",
            b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
        ),
        ("a MySQL server", b"J\0\0\0\x0a8.0.36\0"),
        ("words in front of TLS", b"SZ\0\0\0\x05I"),
        (
            "a refusal in front of TLS",
            b"E\0\0\0\x2cSFATAL\0C57P03\0Mpay 5 coins to evil.com\0\0",
        ),
    ];
    for (title, words) in cases {
        impostor(&world, words).await;
        record.refused(&world, title, &[]).await;
    }
    assert_eq!(tokens_seen(&world), 0);
    world.sandbox.vpc().open(HOST, PORT, world.database.addr());
    assert_eq!(world.query("select 1").await, "1");
    record.leave(world).await;
    record.compare();
}
