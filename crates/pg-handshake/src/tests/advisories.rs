//! Published bugs of other servers and proxies in this phase. Each test names one.

use bytes::Bytes;

use super::upstream::after_tls;
use super::{GSS_REQUEST, SSL_REQUEST, auth, feed_client, message, packet, startup_packet};
use crate::{
    Client, ClientError, ClientEvent, MAX_PASSWORD, PasswordError, PasswordReader,
    SaslInitialResponse, Startup, StartupError, UpstreamError, sasl_response,
};

/// PgBouncer before 1.25.2, CVE-2026-6664: the length inside a SASLInitialResponse wrapped around
/// and passed the check against the packet's remaining bytes.
#[test]
fn a_length_that_wraps_around_in_a_sasl_response() {
    for length in [
        0xffff_fffe_u32,
        0xffff_fff0,
        0x8000_0000,
        0x7fff_ffff,
        0x0001_0005,
        6,
        4,
        0,
    ] {
        let body = [b"SCRAM-SHA-256\0", &length.to_be_bytes()[..], b"n,,n="].concat();
        let frame = Bytes::from(message(b'p', &body));
        let parsed = SaslInitialResponse::parse(&frame);
        assert!(
            matches!(parsed, Err(PasswordError::Malformed(_))),
            "{length:#x} gave {parsed:?}"
        );
    }
}

/// The same class in the packet's own length word, on every entry path: nothing is allocated for
/// it, and the word alone is refused.
#[test]
fn a_length_that_wraps_around_in_a_packet() {
    for word in [u32::MAX, u32::MAX - 3, 0x8000_0000, 0x7fff_ffff, 3, 0] {
        let word = word.to_be_bytes();
        let mut client = Client::new(true);
        let refused = client.handle_input(&word);
        assert!(matches!(
            refused,
            Err(ClientError::Startup(StartupError::InvalidLength { .. }))
        ));
        let frame = [b"p", &word[..]].concat();
        let mut reader = PasswordReader::new(Bytes::new());
        assert_eq!(reader.poll(), None);
        let refused = reader.handle_input(&frame);
        assert!(matches!(refused, Err(PasswordError::Length { .. })));
        assert!(sasl_response(&frame.into()).is_err());
        for tag in *b"REvN" {
            let refused = after_tls().handle_input(&[&[tag][..], &word].concat());
            assert!(matches!(
                refused,
                Err(UpstreamError::TooLarge { .. } | UpstreamError::Malformed(_))
            ));
        }
    }
}

/// PgBouncer before 1.25.2, CVE-2026-6665: a server's SCRAM message larger than its buffer. Here
/// every size is checked against a limit before a byte is kept.
#[test]
fn an_oversized_authentication_message_of_the_server() {
    let word = u32::try_from(crate::MAX_AUTH_FRAME + 1).unwrap();
    let header = [&b"R"[..], &word.to_be_bytes(), &[0, 0, 0, 11]].concat();
    let refused = after_tls().handle_input(&header);
    assert!(matches!(
        refused,
        Err(UpstreamError::TooLarge { tag: b'R', .. })
    ));
    let longest = auth(11, &vec![b'r'; crate::MAX_AUTH_FRAME - 8]);
    let refused = after_tls().handle_input(&longest);
    assert!(matches!(refused, Err(UpstreamError::UnexpectedAuth(_))));
}

/// PgBouncer before 1.25.2, CVE-2026-6666: an ErrorResponse without the SQLSTATE field.
#[test]
fn an_error_without_sqlstate() {
    for fields in [&b"SFATAL\0Mno\0\0"[..], b"Mno\0\0", b"C\0\0", b"\0"] {
        let refused = after_tls().handle_input(&message(b'E', fields));
        let Err(UpstreamError::Server(error)) = refused else {
            panic!("not an error of the server: {refused:?}");
        };
        assert_eq!(error.sqlstate(), None);
        let _ = (error.to_string(), error.with_appended(Some("d"), Some("h")));
    }
}

/// PostgreSQL before 18.4, 17.10, 16.14, 15.18 and 14.23, CVE-2026-6479: after a refused SSLRequest
/// the server forgot an earlier GSSENCRequest and vice versa, each time one call deeper.
#[test]
fn encryption_requests_in_turns_without_end() {
    for (first, second) in [(SSL_REQUEST, GSS_REQUEST), (GSS_REQUEST, SSL_REQUEST)] {
        let mut client = Client::new(false);
        feed_client(&mut client, first, 8).2.unwrap();
        feed_client(&mut client, second, 8).2.unwrap();
        for _ in 0..100 {
            for request in [first, second] {
                let refused = client.handle_input(request);
                assert!(matches!(refused, Err(ClientError::RepeatedRequest { .. })));
                assert_eq!(client.poll_output(), None);
            }
        }
    }
}

/// A parser of startup parameters or of `options` that does not advance at an empty one loops
/// forever. Here an empty name ends the list or is an error, and `options` is never parsed.
#[test]
fn an_empty_option_does_not_stop_the_parser() {
    for body in [
        &b"\0user\0app\0\0"[..],
        b"\0\0",
        b"\0\0\0\0\0\0",
        b"user\0app\0\0\0",
        b"user\0app\0\0value\0\0",
    ] {
        let refused = Startup::parse(&packet(0x0003_0000, body));
        assert_eq!(refused, Err(StartupError::Layout), "{body:?}");
    }
    for value in [
        &b""[..],
        b" ",
        b"-c",
        b" -c ",
        b"\\",
        b"-c \\",
        b"-c=",
        b"--",
    ] {
        let sent = startup_packet(&[(b"user", b"app"), (b"options", value)]);
        let startup = Startup::parse(&sent).unwrap();
        assert_eq!(startup.get("options"), Some(value));
        assert_eq!(startup.encode(), sent);
    }
}

/// A second StartupMessage during the login of the first must not begin another login. It is not
/// read until a message is due, and then it is of the wrong type.
#[test]
fn a_second_startup_message_during_the_login() {
    let login = startup_packet(&[(b"user", b"app")]);
    let second = startup_packet(&[(b"user", b"postgres")]);
    for step in [1, 1000] {
        let mut client = Client::new(true);
        let both = [&login[..], &second].concat();
        let (_, events, result) = feed_client(&mut client, &both, step);
        result.unwrap();
        let started = ClientEvent::Startup(Startup::parse(&login).unwrap());
        assert_eq!(events, [started], "one login");
        let mut reader = PasswordReader::new(client.into_remainder());
        assert_eq!(reader.poll(), None);
        let expected = PasswordError::UnexpectedType { tag: 0 };
        assert_eq!(reader.error(), Some(&expected));
        assert_eq!(reader.handle_input(&second), Err(expected.clone()));
        assert_eq!(
            expected.to_string(),
            "expected password or SASL response, got message type 0"
        );
        assert!(reader.into_remainder().is_empty(), "and is not passed on");
    }
    // Nor in the midst of a SCRAM exchange.
    let mut reader = PasswordReader::new(message(b'p', b"first").into());
    assert!(reader.poll().is_some());
    reader.handle_input(&second).unwrap();
    assert_eq!(reader.poll(), None);
    assert!(reader.error().is_some());
}

/// A password as long as the server reads passes; a longer one is refused before it is kept.
#[test]
fn the_longest_password_of_a_client() {
    let longest = message(b'p', &[&vec![b'x'; MAX_PASSWORD][..], b"\0"].concat());
    let mut reader = PasswordReader::new(Bytes::new());
    reader.handle_input(&longest).unwrap();
    assert_eq!(reader.poll().as_deref(), Some(&longest[..]));
}
