//! TLS as the first thing on a connection, and the order of requests, by the server's
//! `ProcessSSLStartup` and `ProcessStartupPacket` (`backend_startup.c`, PostgreSQL 17 and 18).

use bytes::Bytes;

use super::{GSS_REQUEST, SSL_REQUEST, feed_client, packet, startup_packet};
use crate::{
    ALPN, CancelKey, Client, ClientError, ClientEvent, EncryptionRequest, MAX_REMAINDER, Startup,
    StartupError,
};

/// Start of a ClientHello: a handshake record of TLS 1.0 with 512 bytes.
const HELLO: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];

fn login() -> Vec<u8> {
    startup_packet(&[(b"user", b"app")])
}

/// Returns a client inside direct TLS.
fn inside() -> Client {
    let mut client = Client::new(true);
    client.handle_input(HELLO).unwrap();
    let received = Bytes::from_static(HELLO);
    assert_eq!(
        client.poll_event(),
        Some(ClientEvent::StartDirectTls { received })
    );
    assert_eq!(client.poll_output(), None, "no answer outside TLS");
    client.direct_tls_established(Some(ALPN)).unwrap();
    assert!(client.is_tls());
    client
}

#[test]
fn the_first_bytes_go_to_the_acceptor() {
    for step in [1, 4, HELLO.len()] {
        let mut client = Client::new(true);
        for piece in HELLO.chunks(step) {
            client.handle_input(piece).unwrap();
        }
        let received = Bytes::from_static(HELLO);
        assert_eq!(
            client.poll_event(),
            Some(ClientEvent::StartDirectTls { received }),
            "in pieces of {step}"
        );
        assert_eq!((client.poll_event(), client.poll_output()), (None, None));
        assert_eq!(client.handle_eof(), Ok(()), "the acceptor sees that itself");
        assert_eq!(client.buffered(), 0);
    }
}

#[test]
fn what_comes_before_the_event_is_taken_is_bounded() {
    let mut client = Client::new(true);
    let mut hello = vec![0; MAX_REMAINDER];
    hello[0] = 0x16;
    client.handle_input(&hello).unwrap();
    let more = client.handle_input(b"x");
    assert_eq!(more, Err(ClientError::TooMuchPipelined));
    assert_eq!(client.buffered(), 0);
    assert_eq!(client.poll_event(), None);
}

#[test]
fn plain_bytes_after_the_handover_are_refused() {
    let mut client = Client::new(true);
    client.handle_input(&HELLO[..1]).unwrap();
    client.poll_event().unwrap();
    assert_eq!(client.handle_input(&login()), Err(ClientError::DirectTls));
    let established = client.direct_tls_established(Some(ALPN));
    assert_eq!(established, Err(ClientError::DirectTls), "it sticks");
    assert!(!client.is_tls());
}

/// `ProcessSSLStartup` closes on TLS without ALPN; the protocol itself is compared in the TLS layer.
#[test]
fn alpn_must_be_postgresql() {
    for alpn in [
        None,
        Some(&b""[..]),
        Some(b"postgres"),
        Some(b"postgresql2"),
        Some(b"POSTGRESQL"),
        Some(b"http/1.1"),
    ] {
        let mut client = Client::new(true);
        client.handle_input(HELLO).unwrap();
        client.poll_event().unwrap();
        let error = ClientError::DirectTlsWithoutAlpn;
        assert_eq!(client.direct_tls_established(alpn), Err(error.clone()));
        assert!(client.is_tls(), "an ErrorResponse can be read");
        assert_eq!(client.handle_input(&login()), Err(error.clone()));
        assert_eq!(client.handle_eof(), Err(error.clone()));
        let again = client.direct_tls_established(Some(ALPN));
        assert_eq!(again, Err(error), "it sticks");
        assert_eq!((client.poll_event(), client.poll_output()), (None, None));
    }
}

#[test]
fn direct_tls_cannot_be_declared_without_being_begun() {
    let mut client = Client::new(true);
    assert_eq!(client.direct_tls_established(None), Ok(()));
    assert!(!client.is_tls());
    client.handle_input(HELLO).unwrap();
    client.direct_tls_established(Some(ALPN)).unwrap();
    assert!(!client.is_tls(), "the acceptor has no byte yet");
    client.tls_established();
    assert!(!client.is_tls(), "that is for SSLRequest");
    let mut asked = Client::new(true);
    feed_client(&mut asked, SSL_REQUEST, 8).2.unwrap();
    assert_eq!(asked.direct_tls_established(None), Ok(()));
    assert!(!asked.is_tls(), "ALPN is not needed after SSLRequest");
    asked.tls_established();
    assert!(asked.is_tls());
}

/// After direct TLS `ProcessStartupPacket` begins anew, with neither request counted: SSLRequest
/// gets `N` because `ssl_in_use` is set, GSSENCRequest the server's normal answer (here `N`).
#[test]
fn inside_direct_tls_a_login_a_cancel_and_refused_requests() {
    let login = login();
    let key = CancelKey::new(7, Bytes::from_static(&[3; 32])).unwrap();
    let cancel = key.encode();
    let started = ClientEvent::Startup(Startup::parse(&login).unwrap());
    let (ssl, gss) = (SSL_REQUEST, GSS_REQUEST);
    let requests: [(&[&[u8]], &str); 5] = [
        (&[], ""),
        (&[ssl], "N"),
        (&[gss], "N"),
        (&[ssl, gss], "NN"),
        (&[gss, ssl], "NN"),
    ];
    for (requests, answers) in requests {
        for (last, event) in [
            (&login[..], &started),
            (&cancel, &ClientEvent::Cancel(key.clone())),
        ] {
            for step in [1, 3, 10_000] {
                let mut client = inside();
                let mut answered = Vec::new();
                for request in requests {
                    let (output, events, result) = feed_client(&mut client, request, step);
                    result.unwrap();
                    assert_eq!(events, [], "no TLS inside TLS");
                    answered.extend(output.concat());
                }
                assert_eq!(answered, answers.as_bytes());
                let (_, events, result) = feed_client(&mut client, last, step);
                result.unwrap();
                assert_eq!(events, std::slice::from_ref(event));
            }
        }
    }
}

#[test]
fn inside_direct_tls_no_request_twice_and_nothing_ahead() {
    for (first, second, request) in [
        (SSL_REQUEST, GSS_REQUEST, EncryptionRequest::Ssl),
        (GSS_REQUEST, SSL_REQUEST, EncryptionRequest::Gss),
    ] {
        for between in [&[][..], &[second]] {
            let mut client = inside();
            for packet in [&[first], between].concat() {
                feed_client(&mut client, packet, 8).2.unwrap();
            }
            let again = client.handle_input(first);
            assert_eq!(again, Err(ClientError::RepeatedRequest { request }));
        }
        let mut client = inside();
        let ahead = client.handle_input(&[first, &login()].concat());
        assert_eq!(ahead, Err(ClientError::UnencryptedData { request }));
        assert_eq!(client.poll_output(), None);
    }
    let mut client = inside();
    let length = u32::from_be_bytes([0x16, 3, 1, 2]) as usize;
    let expected = StartupError::InvalidLength { length };
    assert_eq!(
        client.handle_input(HELLO),
        Err(expected.into()),
        "TLS in TLS"
    );
}

/// `ProcessSSLStartup` examines only the connection's first byte.
#[test]
fn tls_without_a_request_comes_first_or_not_at_all() {
    for requests in [
        &[SSL_REQUEST][..],
        &[GSS_REQUEST],
        &[GSS_REQUEST, SSL_REQUEST],
    ] {
        let mut client = Client::new(false);
        for request in requests {
            feed_client(&mut client, request, 8).2.unwrap();
        }
        let refused = client.handle_input(HELLO);
        assert!(matches!(
            refused,
            Err(ClientError::Startup(StartupError::InvalidLength { .. }))
        ));
    }
    let mut none = Client::new(false);
    assert_eq!(none.handle_input(HELLO), Err(ClientError::DirectTls));
    assert_eq!((none.poll_event(), none.poll_output()), (None, None));
}

/// `ssl_done` and `gss_done` of `ProcessStartupPacket`: an accepted request settles both, a refused
/// one only itself. Seen on 15.20: after `N`, a second SSLRequest is "unsupported frontend protocol
/// 1234.5679", while a GSSENCRequest is answered.
#[test]
fn each_request_once_in_either_order() {
    let orders: [(bool, &[EncryptionRequest], usize); 8] = {
        use EncryptionRequest::{Gss, Ssl};
        [
            (false, &[Ssl, Gss], 2),
            (false, &[Gss, Ssl], 2),
            (false, &[Ssl, Ssl], 1),
            (false, &[Gss, Gss], 1),
            (false, &[Ssl, Gss, Ssl], 2),
            (false, &[Gss, Ssl, Gss], 2),
            (true, &[Ssl, Ssl], 1),
            (true, &[Ssl, Gss], 1),
        ]
    };
    for (tls, order, answered) in orders {
        let mut client = Client::new(tls);
        for (at, request) in order.iter().copied().enumerate() {
            let sent = match request {
                EncryptionRequest::Ssl => SSL_REQUEST,
                EncryptionRequest::Gss => GSS_REQUEST,
            };
            let (output, events, result) = feed_client(&mut client, sent, 8);
            if at < answered {
                assert_eq!((output.len(), &result), (1, &Ok(())));
            } else {
                assert_eq!(result, Err(ClientError::RepeatedRequest { request }));
                assert!(output.is_empty());
            }
            if events == [ClientEvent::StartTls] {
                client.tls_established();
            }
        }
    }
}

/// The server takes a request of any length and ignores the rest (seen on 15.20); "Message Formats"
/// says 8, and this crate requires 8.
#[test]
fn a_request_is_eight_bytes_long() {
    for (code, request) in [
        (80_877_103, EncryptionRequest::Ssl),
        (80_877_104, EncryptionRequest::Gss),
    ] {
        for mut client in [Client::new(true), inside()] {
            let refused = client.handle_input(&packet(code, b"more"));
            let length = 12;
            assert_eq!(refused, Err(ClientError::RequestLength { request, length }));
        }
    }
}
