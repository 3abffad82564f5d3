//! Every legal order of the client's packets, and every refusal.

use bytes::Bytes;

use super::{GSS_REQUEST, SSL_REQUEST, feed_client, packet, startup_packet};
use crate::{
    CancelKey, Client, ClientError, ClientEvent, EncryptionRequest, MAX_REMAINDER, ProtocolVersion,
    Startup, StartupError,
};

fn login() -> Vec<u8> {
    startup_packet(&[(b"user", b"app"), (b"database", b"orders")])
}

fn login_event() -> ClientEvent {
    ClientEvent::Startup(Startup::parse(&login()).unwrap())
}

fn key() -> CancelKey {
    CancelKey::new(99, Bytes::from_static(&[1, 2, 3, 4])).unwrap()
}

/// Sends packets in sequence, each in pieces of `step` bytes; performs TLS where it is offered.
fn converse(tls: bool, packets: &[&[u8]], step: usize) -> (Vec<u8>, Vec<ClientEvent>) {
    let mut client = Client::new(tls);
    let (mut answers, mut events) = (Vec::new(), Vec::new());
    for packet in packets {
        let (output, happened, result) = feed_client(&mut client, packet, step);
        result.unwrap();
        answers.extend(output.concat());
        if happened.contains(&ClientEvent::StartTls) {
            client.tls_established();
            assert!(client.is_tls());
        }
        events.extend(happened);
    }
    assert_eq!(client.handle_eof(), Ok(()));
    (answers, events)
}

#[test]
fn all_legal_orders() {
    let login = login();
    let cancel = key().encode();
    let (ssl, gss) = (SSL_REQUEST, GSS_REQUEST);
    let cases: [(bool, &[&[u8]], &str, bool); 6] = [
        (true, &[], "", false),
        (true, &[ssl], "S", true),
        (true, &[gss, ssl], "NS", true),
        (true, &[gss], "N", false),
        (false, &[ssl, gss], "NN", false),
        (false, &[gss, ssl], "NN", false),
    ];
    for (tls, requests, answers, starts_tls) in cases {
        for (last, event) in [
            (&login[..], login_event()),
            (&cancel[..], ClientEvent::Cancel(key())),
        ] {
            let packets = [requests, &[last]].concat();
            let mut expected = vec![event];
            if starts_tls {
                expected.insert(0, ClientEvent::StartTls);
            }
            for step in [1, 3, 10_000] {
                let (got, events) = converse(tls, &packets, step);
                assert_eq!(got, answers.as_bytes());
                assert_eq!(events, expected);
            }
        }
    }
}

#[test]
fn a_client_may_leave_between_packets_only() {
    let login = login();
    for end in 0..login.len() {
        let mut client = Client::new(true);
        client.handle_input(&login[..end]).unwrap();
        assert_eq!(client.poll_event(), None, "no event before the last byte");
        let expected = match end {
            0 => Ok(()),
            _ => Err(ClientError::UnexpectedEof),
        };
        assert_eq!(client.handle_eof(), expected, "closed after {end} bytes");
        assert_eq!(client.handle_input(b"x").is_err(), end > 0, "it sticks");
    }
    // After `S`, a client that rejects the certificate closes like this.
    let mut client = Client::new(true);
    client.handle_input(SSL_REQUEST).unwrap();
    assert_eq!(client.handle_eof(), Ok(()));
}

#[test]
fn pipelined_bytes_are_kept() {
    let sent = [&login()[..], b"Q\0\0\0\x0dselect 1\0"].concat();
    for step in [1, sent.len()] {
        let mut client = Client::new(true);
        let (_, events, result) = feed_client(&mut client, &sent, step);
        result.unwrap();
        assert_eq!(events, [login_event()]);
        assert_eq!(client.into_remainder(), &b"Q\0\0\0\x0dselect 1\0"[..]);
    }
}

#[test]
fn pipelining_has_a_limit() {
    let mut client = Client::new(true);
    client.handle_input(&login()).unwrap();
    client.handle_input(&vec![0; MAX_REMAINDER]).unwrap();
    let refused = client.handle_input(b"x");
    assert_eq!(refused, Err(ClientError::TooMuchPipelined));
    assert_eq!(client.buffered(), 0);
}

/// Feeds packets like `converse` and expects the last one to be refused.
fn refused(tls: bool, packets: &[&[u8]]) -> ClientError {
    let mut errors = Vec::new();
    for step in [1, 20_000] {
        let mut client = Client::new(tls);
        let (last, first) = packets.split_last().unwrap();
        for packet in first {
            let (_, events, result) = feed_client(&mut client, packet, step);
            result.unwrap();
            if events == [ClientEvent::StartTls] {
                client.tls_established();
            }
        }
        let (output, events, result) = feed_client(&mut client, last, step);
        let error = result.unwrap_err();
        assert_eq!((output, events), (Vec::new(), Vec::new()));
        assert_eq!(
            client.handle_input(&login()),
            Err(error.clone()),
            "it sticks"
        );
        assert_eq!(client.handle_eof(), Err(error.clone()));
        assert_eq!(client.poll_event(), None);
        errors.push(error);
    }
    assert_eq!(errors[0], errors[1], "however the bytes are cut");
    errors.remove(0)
}

#[test]
fn requests_twice_or_inside_tls_are_refused() {
    let (ssl, gss) = (SSL_REQUEST, GSS_REQUEST);
    let again = |request| ClientError::RepeatedRequest { request };
    assert_eq!(refused(false, &[ssl, ssl]), again(EncryptionRequest::Ssl));
    assert_eq!(refused(true, &[gss, gss]), again(EncryptionRequest::Gss));
    assert_eq!(
        refused(false, &[ssl, gss, ssl]),
        again(EncryptionRequest::Ssl)
    );
    assert_eq!(refused(true, &[ssl, ssl]), again(EncryptionRequest::Ssl));
    assert_eq!(refused(true, &[ssl, gss]), again(EncryptionRequest::Gss));
}

#[test]
fn lengths_outside_the_limits_are_refused_from_the_length_word_alone() {
    for length in [0_u32, 4, 7, 10_005, 0x0100_0000, u32::MAX] {
        let expected = StartupError::InvalidLength {
            length: length as usize,
        };
        assert_eq!(refused(true, &[&length.to_be_bytes()]), expected.into());
    }
}

#[test]
fn the_longest_packet_a_server_takes_is_taken() {
    let fixed = startup_packet(&[(b"options", b"")]).len();
    let value = vec![b'x'; 10_004 - fixed];
    let sent = startup_packet(&[(b"options", &value)]);
    assert_eq!(sent.len(), 10_004);
    let (_, events) = converse(true, &[&sent], 1000);
    assert_eq!(
        events,
        [ClientEvent::Startup(Startup::parse(&sent).unwrap())]
    );
}

#[test]
fn other_protocols_are_refused_from_the_first_eight_bytes() {
    for (code, major, minor) in [
        (0x0002_0000_u32, 2, 0),
        (0x0004_0000, 4, 0),
        (80_877_105, 1234, 5681),
        (0, 0, 0),
    ] {
        let head = [&300_u32.to_be_bytes()[..], &code.to_be_bytes()].concat();
        let version = ProtocolVersion { major, minor };
        let expected = StartupError::UnsupportedProtocol(version);
        assert_eq!(refused(true, &[&head]), expected.into());
    }
    // An HTTP request is not a startup packet either: "GET " is its length word.
    let error = refused(true, &[b"GET "]);
    assert!(matches!(
        error,
        ClientError::Startup(StartupError::InvalidLength { .. })
    ));
}

#[test]
fn direct_tls_is_named_only_where_it_can_be() {
    assert_eq!(refused(false, &[&[0x16]]), ClientError::DirectTls);
    let later = refused(false, &[SSL_REQUEST, &[0x16, 3, 1, 2]]);
    assert!(matches!(
        later,
        ClientError::Startup(StartupError::InvalidLength { .. })
    ));
}

#[test]
fn malformed_packets_are_refused() {
    let layout = ClientError::from(StartupError::Layout);
    for body in [
        &b""[..],
        b"user",
        b"user\0",
        b"user\0app",
        b"user\0app\0",
        b"\0\0",
    ] {
        assert_eq!(refused(true, &[&packet(0x0003_0000, body)]), layout);
    }
    let short_key = packet(80_877_102, b"\0\0\0\x01abc");
    let expected = StartupError::CancelKeyLength { length: 3 };
    assert_eq!(refused(true, &[&short_key]), expected.into());
    let long_request = packet(80_877_103, b"more");
    let expected = ClientError::RequestLength {
        request: EncryptionRequest::Ssl,
        length: 12,
    };
    assert_eq!(refused(true, &[&long_request[..8]]), expected);
}

#[test]
fn bytes_sent_ahead_of_our_answer_are_refused() {
    for (tls, sent, request) in [
        (true, SSL_REQUEST, EncryptionRequest::Ssl),
        (false, SSL_REQUEST, EncryptionRequest::Ssl),
        (true, GSS_REQUEST, EncryptionRequest::Gss),
    ] {
        let expected = Err(ClientError::UnencryptedData { request });
        // In one piece.
        let mut client = Client::new(tls);
        assert_eq!(client.handle_input(&[sent, &login()].concat()), expected);
        assert_eq!(client.poll_output(), None, "neither S nor N");
        assert_eq!(client.poll_event(), None);
        // In a second piece, before the answer is polled.
        let mut client = Client::new(tls);
        client.handle_input(sent).unwrap();
        assert_eq!(client.handle_input(b"\0"), expected);
        assert_eq!((client.poll_output(), client.poll_event()), (None, None));
    }
    // Plain bytes while TLS is being set up.
    let mut client = Client::new(true);
    feed_client(&mut client, SSL_REQUEST, 8).2.unwrap();
    assert!(client.handle_input(&login()).is_err());
    client.tls_established();
    assert!(!client.is_tls(), "an error is final");
}

#[test]
fn tls_cannot_be_declared_without_being_asked_for() {
    let mut client = Client::new(true);
    client.tls_established();
    assert!(!client.is_tls());
    feed_client(&mut client, SSL_REQUEST, 8).2.unwrap();
    assert!(!client.is_tls());
}
