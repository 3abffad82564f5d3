//! Logins in which the client itself answers, and both kinds of TLS negotiation with the server.

use bytes::Bytes;

use super::transcript::{
    GRANTED, NEGOTIATES, SCRAM_CHALLENGE, SCRAM_DOWNGRADE, SCRAM_FINAL, SCRAM_FIRST, SCRAM_OFFER,
    SCRAM_PROOF, relayed,
};
use super::upstream::{refused, startup};
use super::{SSL_REQUEST, auth, feed_upstream, message};
use crate::{
    AuthMethod, CancelKey, MAX_AUTH_REQUESTS, Negotiation, ServerError, Upstream, UpstreamError,
    UpstreamEvent, UpstreamStage,
};

fn after_tls(mut upstream: Upstream) -> Upstream {
    assert_eq!(upstream.poll_event(), Some(UpstreamEvent::StartTls));
    assert_eq!(upstream.poll_output(), None, "nothing before TLS");
    upstream.tls_established();
    assert_eq!(upstream.poll_output(), Some(startup().encode()));
    assert_eq!(upstream.poll_output(), None);
    upstream
}

/// Returns a passthrough inside direct TLS.
fn passthrough() -> Upstream {
    after_tls(Upstream::passthrough(startup(), Negotiation::Direct))
}

/// Returns a passthrough without channel binding, after SSLRequest.
fn unbound() -> Upstream {
    let mut upstream =
        Upstream::passthrough(startup(), Negotiation::SslRequest).without_channel_binding();
    assert_eq!(upstream.poll_output().as_deref(), Some(SSL_REQUEST));
    upstream.handle_input(b"S").unwrap();
    after_tls(upstream)
}

fn asked(method: AuthMethod, expects_answer: bool) -> UpstreamEvent {
    UpstreamEvent::AuthRequest {
        method,
        expects_answer,
    }
}

fn sasl(names: &[&str]) -> AuthMethod {
    let mechanisms = names.iter().map(|name| (*name).to_owned()).collect();
    AuthMethod::Sasl { mechanisms }
}

/// Feeds the server's flights; answers each with the client's next message.
fn converse(
    upstream: &mut Upstream,
    flights: &[&[u8]],
    answers: &[&'static [u8]],
    step: usize,
) -> Vec<UpstreamEvent> {
    let mut events = Vec::new();
    let mut answers = answers.iter();
    for flight in flights {
        let (output, happened, result) = feed_upstream(upstream, flight, step);
        result.unwrap();
        assert!(output.is_empty(), "the machine says nothing of its own");
        events.extend(happened);
        if let Some(answer) = answers.next() {
            assert_eq!(upstream.stage(), UpstreamStage::PasswordWanted);
            upstream.client_message(Bytes::from_static(answer)).unwrap();
            assert_eq!(upstream.poll_output().as_deref(), Some(*answer));
            assert_eq!(upstream.stage(), UpstreamStage::PasswordSent);
        }
    }
    events
}

#[test]
fn direct_tls_is_asked_for_at_once_and_nothing_is_said_outside_it() {
    let key = CancelKey::new(5, Bytes::from_static(&[9; 4])).unwrap();
    let kinds: [fn(CancelKey) -> Upstream; 3] = [
        |_| Upstream::login(startup(), Negotiation::Direct),
        |_| Upstream::passthrough(startup(), Negotiation::Direct),
        |key| Upstream::cancel(key, Negotiation::Direct),
    ];
    for fresh in kinds {
        let fresh = || fresh(key.clone());
        assert_eq!(fresh().stage(), UpstreamStage::TlsHandshake);
        // No byte is accepted, not even an answer to an SSLRequest.
        for plain in [&b"S"[..], b"N", b"E", b"\x15\x03\x01"] {
            let mut upstream = fresh();
            let refused = upstream.handle_input(plain);
            assert_eq!(refused, Err(UpstreamError::BytesBeforeTls));
            assert_eq!(upstream.poll_event(), None, "no TLS is begun");
            upstream.tls_established();
            assert_eq!(upstream.poll_output(), None);
        }
        let stage = UpstreamStage::TlsHandshake;
        let closed = fresh().handle_eof();
        assert_eq!(closed, Err(UpstreamError::UnexpectedEof { stage }));
        let mut upstream = fresh();
        assert_eq!(upstream.poll_output(), None, "no SSLRequest");
        assert_eq!(upstream.poll_event(), Some(UpstreamEvent::StartTls));
        assert_eq!(upstream.poll_event(), None, "once");
        upstream.tls_established();
        assert!(upstream.poll_output().is_some());
        upstream.tls_established();
        assert_eq!(upstream.poll_output(), None, "once");
    }
    let mut cancel = Upstream::cancel(key.clone(), Negotiation::Direct);
    cancel.tls_established();
    assert_eq!(cancel.poll_output(), Some(key.encode()));
    assert_eq!(cancel.stage(), UpstreamStage::CancelSent);
}

#[test]
fn a_login_inside_direct_tls_goes_on_as_ever() {
    for step in [1, 1000] {
        let mut upstream = after_tls(Upstream::login(startup(), Negotiation::Direct));
        let (output, _, result) = feed_upstream(&mut upstream, &auth(3, b""), step);
        result.unwrap();
        assert_eq!(output, [message(b'p', b"token\0")]);
        let (_, events, result) = feed_upstream(&mut upstream, GRANTED, step);
        result.unwrap();
        assert_eq!(relayed(&events), GRANTED);
        assert_eq!(upstream.stage(), UpstreamStage::Ready);
    }
}

#[test]
fn a_scram_login_passes_byte_for_byte() {
    let first = [NEGOTIATES, SCRAM_OFFER].concat();
    let last = [SCRAM_PROOF, GRANTED].concat();
    let flights: [&[u8]; 3] = [&first, SCRAM_CHALLENGE, &last];
    let answers = [SCRAM_FIRST, SCRAM_FINAL];
    let whole = converse(&mut passthrough(), &flights, &answers, 4096);
    assert_eq!(relayed(&whole), flights.concat());
    let asks: Vec<_> = (whole.iter())
        .filter(|event| matches!(event, UpstreamEvent::AuthRequest { .. }))
        .cloned()
        .collect();
    let expected = [
        asked(sasl(&["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]), true),
        asked(AuthMethod::SaslContinuation, true),
        asked(AuthMethod::SaslContinuation, false),
    ];
    assert_eq!(asks, expected);
    for step in [1, 2, 7, 64] {
        let mut upstream = passthrough();
        let events = converse(&mut upstream, &flights, &answers, step);
        assert_eq!(events, whole, "in pieces of {step}");
        assert_eq!(upstream.stage(), UpstreamStage::Ready);
        assert!(!upstream.password_asked(), "that is for clear text");
    }
}

#[test]
fn each_request_is_announced_just_before_its_frame() {
    let mut upstream = passthrough();
    upstream.handle_input(SCRAM_OFFER).unwrap();
    let method = sasl(&["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]);
    assert_eq!(upstream.poll_event(), Some(asked(method, true)));
    let frame = Bytes::from_static(SCRAM_OFFER);
    assert_eq!(upstream.poll_event(), Some(UpstreamEvent::Relay(frame)));
    assert_eq!(upstream.poll_event(), None);
}

#[test]
fn other_ways_to_authenticate_pass_too() {
    let cases = [
        (auth(2, b""), AuthMethod::KerberosV5),
        (auth(3, b""), AuthMethod::CleartextPassword),
        (auth(5, b"salt"), AuthMethod::Md5),
        (auth(7, b""), AuthMethod::Gss),
        (auth(8, b"data"), AuthMethod::Gss),
        (auth(9, b""), AuthMethod::Sspi),
        (auth(99, b"?"), AuthMethod::Unknown(99)),
    ];
    for (frame, method) in cases {
        for mut upstream in [passthrough(), unbound()] {
            let clear = method == AuthMethod::CleartextPassword;
            let events = converse(&mut upstream, &[&frame], &[b"p\0\0\0\x05\0"], 3);
            let relay = UpstreamEvent::Relay(frame.clone().into());
            assert_eq!(events, [asked(method.clone(), true), relay]);
            assert_eq!(upstream.password_asked(), clear);
            let (_, events, result) = feed_upstream(&mut upstream, GRANTED, 5);
            result.unwrap();
            assert_eq!(events.last(), Some(&UpstreamEvent::Ready));
        }
    }
    // No authentication request at all (`trust`).
    let events = converse(&mut passthrough(), &[GRANTED], &[], 1000);
    assert_eq!(relayed(&events), GRANTED);
}

#[test]
fn malformed_requests_do_not_pass() {
    let whole = [SCRAM_OFFER, SCRAM_CHALLENGE, SCRAM_PROOF];
    for frame in whole {
        for end in 0..frame.len() {
            let mut upstream = passthrough();
            let (_, events, result) = feed_upstream(&mut upstream, &frame[..end], 4096);
            assert_eq!((result, events), (Ok(()), vec![]), "cut at {end}");
        }
    }
    for frame in [
        auth(10, b"SCRAM-SHA-256"),
        auth(10, b"SCRAM-SHA-256\0\0x"),
        auth(5, b"sal"),
        auth(0, b"x"),
        message(b'R', b"\0\0\0"),
    ] {
        let error = refused(unbound, &frame);
        assert!(matches!(error, UpstreamError::Malformed(_)), "{error:?}");
    }
}

/// RFC 5802 section 6: a proxy that ends TLS cannot forward mechanisms bound to the channel behind
/// it.
#[test]
fn channel_binding_is_taken_out_of_the_offer() {
    let plus = "SCRAM-SHA-256-PLUS";
    let cases: [(&[&str], &[&str]); 5] = [
        (&[plus, "SCRAM-SHA-256"], &["SCRAM-SHA-256"]),
        (&["SCRAM-SHA-256", plus], &["SCRAM-SHA-256"]),
        (&["OAUTHBEARER"], &["OAUTHBEARER"]),
        (
            &["X-PLUSX", "SCRAM-SHA-512-PLUS", "-PLU"],
            &["X-PLUSX", "-PLU"],
        ),
        (&[], &[]),
    ];
    for (offered, left) in cases {
        let frame = crate::authentication_sasl(offered);
        for step in [1, 100] {
            let mut upstream = unbound();
            let (_, events, result) = feed_upstream(&mut upstream, &frame, step);
            result.unwrap();
            let relay = UpstreamEvent::Relay(crate::authentication_sasl(left));
            let expected = [asked(sasl(offered), true), relay];
            assert_eq!(events, expected, "the event names all of them");
        }
    }
    let only = crate::authentication_sasl(&[plus]);
    assert_eq!(refused(unbound, &only), UpstreamError::OnlyChannelBinding);
    // Without the builder call, and in a password login, nothing is removed.
    let events = converse(&mut passthrough(), &[&only], &[], 3);
    assert_eq!(relayed(&events), only);
    let mut login =
        after_tls(Upstream::login(startup(), Negotiation::Direct).without_channel_binding());
    let expected = UpstreamError::UnexpectedAuth(sasl(&[plus]));
    assert_eq!(login.handle_input(&only), Err(expected));
}

#[test]
fn a_server_that_asks_for_ever_is_left() {
    let flight = auth(8, b"token").repeat(MAX_AUTH_REQUESTS);
    let mut upstream = passthrough();
    let (_, events, result) = feed_upstream(&mut upstream, &flight, 50);
    result.unwrap();
    assert_eq!(events.len(), 2 * MAX_AUTH_REQUESTS);
    let more = upstream.handle_input(&auth(8, b"token"));
    assert_eq!(more, Err(UpstreamError::TooManyAuthRequests));
    // AuthenticationOk is not one of them.
    let mut upstream = passthrough();
    let (_, events, result) = feed_upstream(&mut upstream, &[&flight, GRANTED].concat(), 500);
    result.unwrap();
    assert_eq!(events.last(), Some(&UpstreamEvent::Ready));
}

#[test]
fn what_may_come_when() {
    let unexpected = |tag, stage| UpstreamError::UnexpectedMessage { tag, stage };
    for tag in *b"SKZTDCAXGp" {
        let stage = UpstreamStage::Authentication;
        assert_eq!(refused(passthrough, &[tag]), unexpected(tag, stage));
        let sent = [SCRAM_OFFER, &[tag]].concat();
        let stage = UpstreamStage::PasswordWanted;
        assert_eq!(refused(passthrough, &sent), unexpected(tag, stage));
    }
    for tag in *b"Rv" {
        let stage = UpstreamStage::Starting;
        let sent = [&auth(0, b""), &[tag][..]].concat();
        assert_eq!(refused(passthrough, &sent), unexpected(tag, stage));
    }
    let twice = [NEGOTIATES, b"v"].concat();
    let stage = UpstreamStage::Authentication;
    assert_eq!(refused(passthrough, &twice), unexpected(b'v', stage));
    // A refusal at any point is forwarded as the server's own.
    let error = ServerError::parse(Bytes::from_static(SCRAM_DOWNGRADE)).unwrap();
    for before in [&b""[..], SCRAM_OFFER, GRANTED.split_at(9).0] {
        let sent = [before, SCRAM_DOWNGRADE].concat();
        let expected = UpstreamError::Server(error.clone());
        assert_eq!(refused(passthrough, &sent), expected);
    }
}

#[test]
fn notices_wait_here_as_well() {
    let notice = message(b'N', b"SNOTICE\0Mhello\0\0");
    let mut upstream = passthrough();
    let flights: [&[u8]; 2] = [&[&notice[..], SCRAM_OFFER].concat(), &auth(0, b"")];
    let events = converse(&mut upstream, &flights, &[SCRAM_FIRST], 1);
    let expected = [SCRAM_OFFER, &auth(0, b""), &notice].concat();
    assert_eq!(relayed(&events), expected);
}

#[test]
fn the_client_s_answers_go_nowhere_else() {
    let answer = || Bytes::from_static(SCRAM_FIRST);
    let problem = |mut upstream: Upstream, frame: Bytes| {
        let refused = upstream.client_message(frame);
        assert!(
            matches!(refused, Err(UpstreamError::Password(_))),
            "{refused:?}"
        );
        assert_eq!(upstream.client_message(answer()), refused, "it sticks");
        assert_eq!(upstream.poll_output(), None);
    };
    problem(
        Upstream::passthrough(startup(), Negotiation::Direct),
        answer(),
    );
    let mut before = Upstream::passthrough(startup(), Negotiation::SslRequest);
    before.poll_output();
    problem(before, answer());
    problem(
        after_tls(Upstream::login(startup(), Negotiation::Direct)),
        answer(),
    );
    let mut granted = passthrough();
    granted.handle_input(&auth(0, b"")).unwrap();
    problem(granted, answer());
    // The client may send only whole `p` frames: no query may be appended.
    for bad in [
        &b""[..],
        b"p",
        b"p\0\0\0\x03",
        b"p\0\0\0\x05",
        b"Q\0\0\0\x04",
        b"p\0\0\0\x04Q\0\0\0\x04",
        b"\0\0\0\x08\x04\xd2\x16\x2f",
    ] {
        problem(passthrough(), Bytes::copy_from_slice(bad));
    }
    let own = passthrough().password(b"token");
    assert!(matches!(own, Err(UpstreamError::Password(_))));
}

#[test]
fn the_client_may_answer_ahead() {
    let mut upstream = passthrough();
    upstream
        .client_message(message(b'p', b"secret\0").into())
        .unwrap();
    assert!(upstream.poll_output().is_some());
    assert!(!format!("{upstream:?}").contains("secret"));
    let events = converse(&mut upstream, &[&auth(3, b""), GRANTED], &[], 9);
    assert_eq!(events.last(), Some(&UpstreamEvent::Ready));
    assert!(upstream.password_asked());
}

#[test]
fn end_of_the_connection_names_the_stage() {
    let eof = |mut upstream: Upstream| upstream.handle_eof();
    let unexpected = |stage| Err(UpstreamError::UnexpectedEof { stage });
    assert_eq!(
        eof(passthrough()),
        unexpected(UpstreamStage::Authentication)
    );
    let mut asked = passthrough();
    asked.handle_input(SCRAM_OFFER).unwrap();
    assert_eq!(eof(asked), unexpected(UpstreamStage::PasswordWanted));
    let mut answered = passthrough();
    converse(&mut answered, &[SCRAM_OFFER], &[SCRAM_FIRST], 100);
    assert_eq!(eof(answered), unexpected(UpstreamStage::PasswordSent));
}
