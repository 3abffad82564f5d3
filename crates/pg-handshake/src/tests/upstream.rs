//! The login and the cancel request against a scripted server.

use bytes::Bytes;

use super::{SSL_REQUEST, auth, feed_upstream, message, startup_packet};
use crate::server_error::MAX_BARE_TEXT;
use crate::{
    AuthMethod, CancelKey, MAX_AUTH_FRAME, MAX_ERROR_FRAME, MAX_PASSWORD, MAX_REMAINDER,
    MalformedMessage, Negotiation, ServerError, Startup, Upstream, UpstreamError, UpstreamEvent,
    UpstreamStage,
};

pub(super) fn startup() -> Startup {
    Startup::parse(&startup_packet(&[(b"user", b"app")])).unwrap()
}

/// Returns a login that has passed TLS; SSLRequest and StartupMessage are checked and removed.
pub(super) fn after_tls() -> Upstream {
    let mut upstream = Upstream::login(startup(), Negotiation::SslRequest);
    assert_eq!(upstream.poll_output().as_deref(), Some(SSL_REQUEST));
    upstream.handle_input(b"S").unwrap();
    assert_eq!(upstream.poll_event(), Some(UpstreamEvent::StartTls));
    assert_eq!(upstream.poll_output(), None, "nothing before TLS");
    upstream.tls_established();
    assert_eq!(upstream.poll_output(), Some(startup().encode()));
    assert_eq!(upstream.poll_output(), None);
    upstream
}

/// Returns a login after AuthenticationOk.
fn starting() -> Upstream {
    let mut upstream = after_tls();
    feed_upstream(&mut upstream, &auth(3, b""), 100).2.unwrap();
    feed_upstream(&mut upstream, &auth(0, b""), 100).2.unwrap();
    assert_eq!(upstream.poll_event(), None);
    assert_eq!(upstream.stage(), UpstreamStage::Starting);
    upstream
}

/// Feeds bytes that must be refused, whole and byte by byte; the error must be the same and stick.
pub(super) fn refused(fresh: impl Fn() -> Upstream, data: &[u8]) -> UpstreamError {
    let mut errors = Vec::new();
    for step in [1, data.len().max(1)] {
        let mut upstream = fresh();
        let error = feed_upstream(&mut upstream, data, step).2.unwrap_err();
        assert_eq!(upstream.handle_input(&auth(0, b"")), Err(error.clone()));
        assert_eq!(upstream.handle_eof(), Err(error.clone()));
        assert_eq!(upstream.password(b"token"), Err(error.clone()));
        upstream.tls_established();
        assert_eq!(upstream.poll_output(), None, "nothing goes out any more");
        errors.push(error);
    }
    assert_eq!(errors[0], errors[1], "however the bytes are cut");
    errors.remove(0)
}

fn before_tls() -> Upstream {
    let mut upstream = Upstream::login(startup(), Negotiation::SslRequest);
    upstream.poll_output().unwrap();
    upstream
}

#[test]
fn cancel_goes_out_after_tls_and_nothing_comes_back() {
    let key = CancelKey::new(5, Bytes::from_static(&[9; 32])).unwrap();
    let mut upstream = Upstream::cancel(key.clone(), Negotiation::SslRequest);
    assert_eq!(upstream.poll_output().as_deref(), Some(SSL_REQUEST));
    upstream.handle_input(b"S").unwrap();
    assert_eq!(upstream.poll_event(), Some(UpstreamEvent::StartTls));
    assert_eq!(
        (upstream.poll_output(), upstream.poll_event()),
        (None, None)
    );
    upstream.tls_established();
    assert_eq!(upstream.poll_output(), Some(key.encode()));
    assert_eq!(upstream.poll_event(), Some(UpstreamEvent::CancelSent));
    upstream.handle_input(b"anything").unwrap();
    assert_eq!(upstream.handle_eof(), Ok(()));
    assert_eq!(upstream.buffered(), 0);
}

#[test]
fn refusals_before_tls() {
    assert_eq!(refused(before_tls, b"N"), UpstreamError::TlsRefused);
    for tag in [b'G', b'R', b'H', 0, 0x15, 0xff] {
        let stage = UpstreamStage::TlsAnswer;
        let expected = UpstreamError::UnexpectedMessage { tag, stage };
        assert_eq!(refused(before_tls, &[tag]), expected);
    }
}

#[test]
fn servers_of_other_protocols_are_told_by_their_first_bytes() {
    use crate::OtherProtocol as O;
    for (bytes, other) in [
        (&b"SSH-2.0-OpenSSH_9.6\r\n"[..], O::Ssh),
        (b"HTTP/1.1 400 Bad Request\r\n", O::Http),
        (b"J\0\0\0\x0a8.0.36\0", O::MySql),
        // A greeting with a length byte equal to the letter of an answer.
        (b"S\0\0\0\x0a8.0.36-extended\0", O::MySql),
        (b"N\0\0\0\x0a5.7.44\0", O::MySql),
        (b"E\0\0\0\xffHost is blocked", O::MySql),
        (b"-ERR Protocol error\r\n", O::Redis),
        (b"220 mail.example.com ESMTP\r\n", O::MailOrFtp),
        (b"554-no service\r\n", O::MailOrFtp),
        (b"\x15\x03\x03\0\x02\x02\x0a", O::Tls),
    ] {
        let refused = Err(UpstreamError::NotPostgres(other));
        assert_eq!(before_tls().handle_input(bytes), refused, "{other}");
    }
    // In any split of its first bytes, except a lone S, which is an answer.
    for cut in 2..4 {
        let mut upstream = before_tls();
        upstream.handle_input(&b"SSH-2.0"[..cut]).unwrap();
        assert_eq!(upstream.poll_event(), None, "no TLS is begun");
        let refused = Err(UpstreamError::NotPostgres(O::Ssh));
        assert_eq!(upstream.handle_input(&b"SSH-2.0"[cut..]), refused);
    }
    let mut upstream = before_tls();
    upstream.handle_input(b"SS").unwrap();
    assert_eq!(
        upstream.handle_input(b"L"),
        Err(UpstreamError::BytesBeforeTls)
    );
}

#[test]
fn bytes_between_s_and_tls_are_refused() {
    let mut upstream = before_tls();
    let stuffed = [b"S", &auth(0, b"")[..]].concat();
    let refused = Err(UpstreamError::BytesBeforeTls);
    assert_eq!(upstream.handle_input(&stuffed), refused);
    assert_eq!(upstream.poll_event(), None, "no TLS is begun");
    let mut upstream = before_tls();
    upstream.handle_input(b"S").unwrap();
    assert_eq!(upstream.handle_input(b"R"), refused);
    assert_eq!(upstream.poll_event(), None);
    upstream.tls_established();
    assert_eq!(upstream.poll_output(), None);
}

#[test]
fn an_error_before_tls_is_marked_as_untrusted() {
    let frame = message(b'E', b"SFATAL\0C53300\0Mtoo many\0\0");
    let expected = ServerError::parse(frame.clone().into()).unwrap();
    assert_eq!(
        refused(before_tls, &frame),
        UpstreamError::ServerBeforeTls(expected)
    );
    // The form of protocol 2, as a postmaster without memory for a process sends it.
    let bare = b"Ecould not fork new process for connection: Cannot allocate memory\n\0";
    let UpstreamError::ServerBeforeTls(error) = refused(before_tls, bare) else {
        panic!("not an error of the server");
    };
    assert_eq!(
        error.message(),
        "could not fork new process for connection: Cannot allocate memory"
    );
    assert_eq!(error.sqlstate(), None);
    assert_eq!(ServerError::parse(error.frame().clone()), Ok(error));
    // Without its terminator it ends with the connection.
    let mut upstream = before_tls();
    upstream.handle_input(b"Eout of mem").unwrap();
    let result = upstream.handle_eof();
    assert!(
        matches!(result, Err(UpstreamError::ServerBeforeTls(e)) if e.message() == "out of mem")
    );
}

#[test]
fn an_error_before_tls_cannot_grow_without_end() {
    // The longest bare text becomes the longest frame, in any split and with any end.
    let bare = vec![b'E'; 1 + MAX_BARE_TEXT];
    let mut cut_off = before_tls();
    cut_off.handle_input(&bare).unwrap();
    let terminated = refused(before_tls, &[&bare[..], b"\0"].concat());
    assert_eq!(cut_off.handle_eof().unwrap_err(), terminated);
    let UpstreamError::ServerBeforeTls(error) = terminated else {
        panic!("not an error of the server");
    };
    assert_eq!(error.frame().len() - 1, MAX_ERROR_FRAME);
    let expected = UpstreamError::TooLarge {
        tag: b'E',
        length: MAX_BARE_TEXT + 1,
        limit: MAX_BARE_TEXT,
    };
    for end in [&b"E"[..], b"E\0"] {
        let longer = [&bare, end].concat();
        assert_eq!(refused(before_tls, &longer), expected);
        let mut upstream = before_tls();
        upstream.handle_input(&bare).unwrap();
        assert_eq!(upstream.handle_input(end), Err(expected.clone()));
        assert_eq!(upstream.buffered(), 0);
    }
    let expected = UpstreamError::TooLarge {
        tag: b'E',
        length: 30_001,
        limit: 30_000,
    };
    assert_eq!(refused(before_tls, &[b'E', 0, 0, 0x75, 0x31]), expected);
}

#[test]
fn other_ways_to_authenticate_are_named() {
    let scram = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
    let mechanisms = vec!["SCRAM-SHA-256-PLUS".to_owned(), "SCRAM-SHA-256".to_owned()];
    let cases = [
        (auth(2, b""), AuthMethod::KerberosV5),
        (auth(5, b"salt"), AuthMethod::Md5),
        (auth(6, b""), AuthMethod::ScmCredential),
        (auth(7, b""), AuthMethod::Gss),
        (auth(8, b"data"), AuthMethod::Gss),
        (auth(9, b""), AuthMethod::Sspi),
        (auth(10, scram), AuthMethod::Sasl { mechanisms }),
        (auth(11, b"r=1"), AuthMethod::SaslContinuation),
        (auth(12, b""), AuthMethod::SaslContinuation),
        (auth(13, b"?"), AuthMethod::Unknown(13)),
        (auth(-1, b""), AuthMethod::Unknown(-1)),
    ];
    for (frame, method) in cases {
        assert_eq!(
            refused(after_tls, &frame),
            UpstreamError::UnexpectedAuth(method)
        );
    }
    let shown = refused(after_tls, &auth(10, scram)).to_string();
    assert_eq!(
        shown,
        "the server requests SASL (SCRAM-SHA-256-PLUS, SCRAM-SHA-256) instead of a clear-text password"
    );
}

#[test]
fn short_and_overlong_bodies_are_errors_not_panics() {
    let cases: [(Vec<u8>, u8); 14] = [
        (message(b'R', b""), b'R'),
        (auth(5, b""), b'R'),
        (auth(5, b"sal"), b'R'),
        (auth(0, b"x"), b'R'),
        (auth(3, b"x"), b'R'),
        (auth(10, b""), b'R'),
        (auth(10, b"SCRAM"), b'R'),
        (auth(10, b"SCRAM\0\0x"), b'R'),
        (message(b'v', b"\0\x03\0\0\0\0\0"), b'v'),
        (message(b'v', b"\0\x03\0\0\0\0\0\x02_pq_.a\0"), b'v'),
        (message(b'v', b"\0\x03\0\0\0\0\0\x01_pq_.a\0more\0"), b'v'),
        (message(b'E', b""), b'E'),
        (message(b'E', b"Mtext\0\0Hmore\0\0"), b'E'),
        (message(b'N', b"Mtext without end"), b'N'),
    ];
    for (frame, tag) in cases {
        let error = refused(after_tls, &frame);
        assert!(
            matches!(&error, UpstreamError::Malformed(m) if m.tag == tag),
            "{frame:?} gave {error:?}"
        );
    }
    for count in [0x7fff_ffff_u32, u32::MAX] {
        let body = [&[0, 3, 0, 0][..], &count.to_be_bytes()].concat();
        let error = refused(after_tls, &message(b'v', &body));
        assert!(matches!(error, UpstreamError::Malformed(_)));
    }
    let cases: [(Vec<u8>, u8); 8] = [
        (message(b'K', b""), b'K'),
        (message(b'K', b"\0\0\0\x01"), b'K'),
        (message(b'K', b"\0\0\0\x01abc"), b'K'),
        (message(b'S', b""), b'S'),
        (message(b'S', b"nm\0"), b'S'),
        (message(b'S', b"nm\0va"), b'S'),
        (message(b'S', b"nm\0va\0more\0"), b'S'),
        (message(b'Z', b"X"), b'Z'),
    ];
    for (frame, tag) in cases {
        let error = refused(starting, &frame);
        assert!(
            matches!(&error, UpstreamError::Malformed(m) if m.tag == tag),
            "{frame:?} gave {error:?}"
        );
    }
    for length in [0_u32, 1, 3] {
        let frame = [&b"R"[..], &length.to_be_bytes()].concat();
        let expected = MalformedMessage {
            tag: b'R',
            what: "the message is too short",
        };
        assert_eq!(refused(after_tls, &frame), expected.into());
    }
}

#[test]
fn sizes_are_refused_from_the_header_alone() {
    let cases = [
        (b'R', MAX_AUTH_FRAME),
        (b'v', MAX_AUTH_FRAME),
        (b'E', MAX_ERROR_FRAME),
        (b'N', MAX_ERROR_FRAME),
    ];
    for (tag, limit) in cases {
        for length in [limit + 1, 0x7fff_ffff, 0xffff_ffff] {
            let word = u32::try_from(length).unwrap().to_be_bytes();
            let error = refused(after_tls, &[&[tag][..], &word].concat());
            assert_eq!(error, UpstreamError::TooLarge { tag, length, limit });
        }
    }
    for (tag, limit) in [(b'K', 264), (b'Z', 5), (b'S', MAX_AUTH_FRAME)] {
        let length = limit + 1;
        let word = u32::try_from(length).unwrap().to_be_bytes();
        let error = refused(starting, &[&[tag][..], &word].concat());
        assert_eq!(error, UpstreamError::TooLarge { tag, length, limit });
    }
}

#[test]
fn order_of_messages_is_checked() {
    let negotiate = message(b'v', b"\0\x03\0\0\0\0\0\0");
    let key = message(b'K', &[1; 8]);
    let unexpected = |tag, stage| UpstreamError::UnexpectedMessage { tag, stage };
    for tag in *b"SKZTDCAXGp" {
        let stage = UpstreamStage::Authentication;
        assert_eq!(refused(after_tls, &[tag]), unexpected(tag, stage));
    }
    let mut twice = negotiate.clone();
    twice.push(b'v');
    assert_eq!(
        refused(after_tls, &twice),
        unexpected(b'v', UpstreamStage::Authentication)
    );
    for tag in *b"RvTDCAGp" {
        assert_eq!(
            refused(starting, &[tag]),
            unexpected(tag, UpstreamStage::Starting)
        );
    }
    let twice = [&key[..], b"K"].concat();
    assert_eq!(
        refused(starting, &twice),
        unexpected(b'K', UpstreamStage::Starting)
    );
    // AuthenticationOk while the requested password has not been given.
    let mut upstream = after_tls();
    upstream.handle_input(&auth(3, b"")).unwrap();
    let result = upstream.handle_input(&auth(0, b""));
    assert_eq!(result, Err(unexpected(b'R', UpstreamStage::PasswordWanted)));
    // The password requested twice, before and after it was given.
    let twice = [auth(3, b""), auth(3, b"")].concat();
    assert_eq!(
        refused(after_tls, &twice),
        UpstreamError::PasswordAskedTwice
    );
}

#[test]
fn the_password_can_go_ahead_of_the_request() {
    let mut upstream = after_tls();
    upstream.password(b"token").unwrap();
    assert_eq!(
        upstream.poll_output().as_deref(),
        Some(&b"p\0\0\0\x0atoken\0"[..])
    );
    upstream.handle_input(&auth(3, b"")).unwrap();
    assert_eq!(upstream.poll_event(), None, "it is answered already");
    assert_eq!(upstream.stage(), UpstreamStage::PasswordSent);
    assert!(upstream.password_asked());
    let again = upstream.handle_input(&auth(3, b""));
    assert_eq!(again, Err(UpstreamError::PasswordAskedTwice));
}

/// Every answer to a password sent early, and to one sent on request.
#[test]
fn an_early_password_ends_like_a_later_one() {
    let refusal = message(b'E', b"SFATAL\0C28000\0MPAM authentication failed\0\0");
    let refused = UpstreamError::Server(ServerError::parse(refusal.clone().into()).unwrap());
    let md5 = UpstreamError::UnexpectedAuth(AuthMethod::Md5);
    let scram = UpstreamError::UnexpectedAuth(AuthMethod::Sasl {
        mechanisms: vec!["SCRAM-SHA-256".to_owned()],
    });
    let ask = auth(3, b"");
    let ready = [auth(0, b""), message(b'Z', b"I")].concat();
    let cases: [(Vec<u8>, Result<(), UpstreamError>, bool); 6] = [
        ([&ask[..], &ready].concat(), Ok(()), true),
        ([&ask[..], &refusal].concat(), Err(refused.clone()), true),
        (refusal, Err(refused), false),
        (auth(5, b"salt"), Err(md5.clone()), false),
        ([&ask[..], &auth(5, b"salt")].concat(), Err(md5), true),
        (auth(10, b"SCRAM-SHA-256\0\0"), Err(scram), false),
    ];
    for (sent, outcome, asked) in cases {
        for (early, step) in [(true, 1), (true, 1000), (false, 1)] {
            let mut upstream = after_tls();
            if early {
                upstream.password(b"token").unwrap();
                let frame = message(b'p', b"token\0");
                assert_eq!(upstream.poll_output(), Some(frame.into()));
            }
            assert!(!upstream.password_asked());
            let (output, events, result) = feed_upstream(&mut upstream, &sent, step);
            assert_eq!(result, outcome);
            assert_eq!(upstream.password_asked(), asked);
            let event = UpstreamEvent::PasswordRequired;
            assert_eq!(events.contains(&event), asked && !early);
            assert_eq!(output.len(), usize::from(asked && !early), "sent once");
            assert_eq!(upstream.stage() == UpstreamStage::Ready, outcome.is_ok());
        }
    }
}

/// Seen on 15.20 with `trust`: the server reads the password as the session's first message, and
/// sends FATAL 08P01 "invalid frontend message type 112" right after ReadyForQuery.
#[test]
fn a_session_in_which_the_password_lies_unread_is_refused() {
    let early = || {
        let mut upstream = after_tls();
        upstream.password(b"token").unwrap();
        upstream.poll_output().unwrap();
        upstream
    };
    let sent = [auth(0, b""), message(b'Z', b"I")].concat();
    assert_eq!(refused(early, &sent), UpstreamError::PasswordNotAsked);
    let mut upstream = early();
    let _ = upstream.handle_input(&sent);
    assert_eq!(
        upstream.poll_event(),
        None,
        "the client is told of no success"
    );
    assert!(!upstream.password_asked());
}

#[test]
fn a_server_may_ask_for_nothing() {
    let mut upstream = after_tls();
    let sent = [auth(0, b""), message(b'Z', b"I")].concat();
    let (output, events, result) = feed_upstream(&mut upstream, &sent, 100);
    result.unwrap();
    assert_eq!(output, Vec::<Bytes>::new());
    assert_eq!(events.last(), Some(&UpstreamEvent::Ready));
}

#[test]
fn the_password_goes_nowhere_else() {
    let problem = |result| matches!(result, Err(UpstreamError::Password(_)));
    let mut upstream = Upstream::login(startup(), Negotiation::SslRequest);
    assert!(problem(upstream.password(b"token")), "before TLS");
    assert_eq!(upstream.poll_output(), None);
    let mut upstream = before_tls();
    upstream.handle_input(b"S").unwrap();
    assert!(problem(upstream.password(b"token")), "during TLS");
    assert!(problem(starting().password(b"token")), "after the login");
    let mut twice = after_tls();
    twice.password(b"token").unwrap();
    assert!(problem(twice.password(b"token")), "a second time");
    let mut cancel = Upstream::cancel(
        CancelKey::new(1, Bytes::from_static(b"1234")).unwrap(),
        Negotiation::SslRequest,
    );
    cancel.handle_input(b"S").unwrap();
    cancel.tls_established();
    assert!(problem(cancel.password(b"token")), "with a cancel request");
    for bad in [&b""[..], b"to\0ken", &vec![b'x'; MAX_PASSWORD + 1]] {
        assert!(problem(after_tls().password(bad)));
    }
}

#[test]
fn the_longest_password_fits_the_server_s_limit() {
    let token = vec![b'x'; MAX_PASSWORD];
    let mut upstream = after_tls();
    upstream.password(&token).unwrap();
    let frame = upstream.poll_output().unwrap();
    assert_eq!(frame[..5], [b'p', 0, 0, 0xff, 0xff]);
    assert_eq!(frame, message(b'p', &[&token[..], b"\0"].concat()));
}

#[test]
fn neither_password_nor_keys_are_in_debug() {
    let mut upstream = after_tls();
    upstream.password(b"hunter2-token").unwrap();
    let debug = format!("{upstream:?}");
    assert!(!debug.contains("hunter2"), "{debug}");
    let relay = UpstreamEvent::Relay(message(b'K', b"\0\0\0\x01hush").into());
    assert_eq!(format!("{relay:?}"), "Relay('K', 13 bytes)");
    let mut upstream = after_tls();
    let error = upstream.password(b"hunter2\0token").unwrap_err();
    assert!(!format!("{error} {error:?} {upstream:?}").contains("hunter2"));
}

#[test]
fn a_server_s_refusal_is_reported_at_every_stage() {
    let frame = message(b'E', b"SFATAL\0C28000\0MPAM authentication failed\0\0");
    let expected = UpstreamError::Server(ServerError::parse(frame.clone().into()).unwrap());
    assert_eq!(refused(after_tls, &frame), expected);
    assert_eq!(refused(starting, &frame), expected);
    let mut wanted = after_tls();
    wanted.handle_input(&auth(3, b"")).unwrap();
    assert_eq!(wanted.handle_input(&frame), Err(expected.clone()));
    // Earlier events in the same bytes are not lost.
    let mut upstream = after_tls();
    let result = upstream.handle_input(&[&auth(0, b"")[..], &frame].concat());
    assert_eq!(result, Err(expected));
    let relay = UpstreamEvent::Relay(auth(0, b"").into());
    assert_eq!(upstream.poll_event(), Some(relay));
}

#[test]
fn notices_wait_for_authentication_ok() {
    let notice = message(b'N', b"SNOTICE\0Mhello\0\0");
    let relay = |frame: &[u8]| UpstreamEvent::Relay(Bytes::copy_from_slice(frame));
    let mut upstream = after_tls();
    upstream.handle_input(&notice).unwrap();
    assert_eq!(upstream.poll_event(), None);
    upstream.handle_input(&auth(0, b"")).unwrap();
    upstream.handle_input(&notice).unwrap();
    let events: Vec<_> = std::iter::from_fn(|| upstream.poll_event()).collect();
    assert_eq!(
        events,
        [relay(&auth(0, b"")), relay(&notice), relay(&notice)]
    );
    // They are not kept without limit.
    let mut upstream = after_tls();
    let many = notice.repeat(MAX_AUTH_FRAME / notice.len());
    upstream.handle_input(&many).unwrap();
    let error = upstream.handle_input(&notice).unwrap_err();
    assert!(matches!(error, UpstreamError::TooLarge { tag: b'N', .. }));
    assert_eq!(upstream.buffered(), 0);
}

#[test]
fn end_of_the_connection_names_the_stage() {
    let eof = |mut upstream: Upstream| upstream.handle_eof();
    let unexpected = |stage| Err(UpstreamError::UnexpectedEof { stage });
    assert_eq!(eof(before_tls()), unexpected(UpstreamStage::TlsAnswer));
    assert_eq!(eof(after_tls()), unexpected(UpstreamStage::Authentication));
    assert_eq!(eof(starting()), unexpected(UpstreamStage::Starting));
    let mut wanted = after_tls();
    wanted.handle_input(&auth(3, b"")).unwrap();
    wanted.password(b"token").unwrap();
    assert_eq!(eof(wanted), unexpected(UpstreamStage::PasswordSent));
    let mut tls = before_tls();
    tls.handle_input(b"S").unwrap();
    assert_eq!(eof(tls), unexpected(UpstreamStage::TlsHandshake));
    let mut inside = after_tls();
    inside.handle_input(&auth(3, b"")[..7]).unwrap();
    assert_eq!(eof(inside), unexpected(UpstreamStage::Authentication));
    let mut ready = starting();
    ready.handle_input(&message(b'Z', b"I")).unwrap();
    assert_eq!(eof(ready), Ok(()));
}

#[test]
fn bytes_behind_ready_for_query_are_kept_up_to_a_limit() {
    let mut upstream = starting();
    let sent = [&message(b'Z', b"I")[..], b"T\0\0\0"].concat();
    upstream.handle_input(&sent).unwrap();
    upstream.handle_input(&vec![7; MAX_REMAINDER - 4]).unwrap();
    let kept = upstream.buffered();
    assert_eq!(kept, MAX_REMAINDER);
    let over = upstream.handle_input(b"x");
    assert_eq!(over, Err(UpstreamError::TooMuchUnread));
    let mut upstream = starting();
    upstream.handle_input(&sent).unwrap();
    assert_eq!(upstream.into_remainder(), &b"T\0\0\0"[..]);
}
