//! The client's answers, and the requests they answer.

use bytes::{Bytes, BytesMut};
use pgwire::messages::startup::Authentication;
use pgwire::messages::{DecodeContext, Message};

use super::transcript::{SCRAM_FINAL, SCRAM_FIRST};
use super::{auth, message};
use crate::{
    AUTHENTICATION_OK, MAX_AUTH_FRAME, MAX_REMAINDER, PasswordError, PasswordReader,
    SaslInitialResponse, authentication_sasl, authentication_sasl_continue,
    authentication_sasl_final, gs2_says_unsupported, sasl_response,
};

fn initial(mechanism: &[u8], data: Option<&[u8]>) -> Bytes {
    let length = data.map_or(-1, |data| i32::try_from(data.len()).unwrap());
    let data = data.unwrap_or_default();
    let body = [mechanism, b"\0", &length.to_be_bytes(), data].concat();
    message(b'p', &body).into()
}

/// Returns all frames a reader cuts from these bytes, fed in pieces, requesting each in turn.
fn read(data: &[u8], step: usize) -> (Vec<Bytes>, PasswordReader) {
    let mut reader = PasswordReader::new(Bytes::new());
    let mut frames = Vec::new();
    for piece in data.chunks(step) {
        if reader.handle_input(piece).is_err() {
            break;
        }
        frames.extend(std::iter::from_fn(|| reader.poll()));
    }
    (frames, reader)
}

#[test]
fn a_recorded_exchange_is_cut_and_read() {
    let sent = [SCRAM_FIRST, SCRAM_FINAL].concat();
    for step in [1, 2, 7, 57, sent.len()] {
        let (frames, reader) = read(&sent, step);
        assert_eq!(frames, [SCRAM_FIRST, SCRAM_FINAL], "in pieces of {step}");
        assert_eq!(reader.error(), None);
        assert!(reader.into_remainder().is_empty());
    }
    let first = SaslInitialResponse::parse(&Bytes::from_static(SCRAM_FIRST)).unwrap();
    assert_eq!(first.mechanism, "SCRAM-SHA-256");
    assert_eq!(first.data.as_deref(), Some(&SCRAM_FIRST[23..]));
    assert!(first.data.unwrap().starts_with(b"n,,n=,r="));
    let last = sasl_response(&Bytes::from_static(SCRAM_FINAL)).unwrap();
    assert_eq!(last, &SCRAM_FINAL[5..]);
}

#[test]
fn a_query_behind_the_last_answer_is_not_an_answer() {
    let query = message(b'Q', b"select 1\0");
    let sent = [&message(b'p', b"token\0")[..], &query].concat();
    for split in 0..=sent.len() {
        let mut reader = PasswordReader::new(Bytes::copy_from_slice(&sent[..split]));
        let early = reader.poll();
        reader.handle_input(&sent[split..]).unwrap();
        let frame = early.or_else(|| reader.poll()).unwrap();
        assert_eq!(frame, message(b'p', b"token\0"));
        assert_eq!(reader.error(), None, "nothing more was due");
        assert_eq!(reader.into_remainder(), query, "split at {split}");
    }
    // It is refused once another frame is due.
    let mut reader = PasswordReader::new(sent.into());
    assert!(reader.poll().is_some());
    assert_eq!(reader.poll(), None);
    let expected = PasswordError::UnexpectedType { tag: b'Q' };
    assert_eq!(reader.error(), Some(&expected));
    assert_eq!(reader.handle_input(b""), Err(expected), "it sticks");
    assert_eq!(reader.poll(), None);
}

#[test]
fn other_messages_in_place_of_an_answer_are_refused_from_their_first_byte() {
    for tag in (0..=255_u8).filter(|tag| *tag != b'p') {
        let expected = PasswordError::UnexpectedType { tag };
        let mut waiting = PasswordReader::new(Bytes::new());
        assert_eq!(waiting.poll(), None);
        assert_eq!(waiting.handle_input(&[tag]), Err(expected.clone()));
        let mut there = PasswordReader::new(vec![tag].into());
        assert_eq!(there.poll(), None);
        assert_eq!(there.error(), Some(&expected));
    }
}

#[test]
fn lengths_are_refused_from_five_bytes() {
    let limit = MAX_AUTH_FRAME;
    for length in [0, 1, 3, limit + 1, 0x7fff_ffff, 0xffff_ffff] {
        let word = u32::try_from(length).unwrap().to_be_bytes();
        let header = [b"p", &word[..]].concat();
        for step in [1, 5] {
            let (frames, reader) = read(&header, step);
            assert!(frames.is_empty());
            assert_eq!(reader.error(), Some(&PasswordError::Length { length }));
        }
    }
    let empty = message(b'p', b"");
    assert_eq!(read(&empty, 1).0, std::slice::from_ref(&empty));
    assert_eq!(sasl_response(&empty.into()), Ok(Bytes::new()));
    let longest = message(b'p', &vec![b'x'; limit - 4]);
    assert_eq!(read(&longest, 1000).0, std::slice::from_ref(&longest));
}

#[test]
fn no_more_is_kept_than_a_frame_and_the_usual_rest() {
    let longest = message(b'p', &vec![b'x'; MAX_AUTH_FRAME - 4]);
    let mut reader = PasswordReader::new(longest.into());
    reader.handle_input(&vec![b'Q'; MAX_REMAINDER]).unwrap();
    let over = reader.handle_input(b"Q");
    assert_eq!(over, Err(PasswordError::TooMuchPipelined));
    assert_eq!(reader.poll(), None, "an error ends it");
    assert!(reader.into_remainder().is_empty());
}

#[test]
fn initial_responses_round_trip() {
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "OAUTHBEARER", ""] {
        for data in [
            None,
            Some(&b""[..]),
            Some(b"n,,n=,r=\0\xff"),
            Some(&[b'x'; 9000]),
        ] {
            let parsed = SaslInitialResponse::parse(&initial(mechanism.as_bytes(), data)).unwrap();
            assert_eq!(parsed.mechanism, mechanism);
            assert_eq!(parsed.data.as_deref(), data);
        }
    }
}

#[test]
fn cut_or_longer_responses_are_refused() {
    for whole in [
        Bytes::from_static(SCRAM_FIRST),
        initial(b"EXTERNAL", None),
        initial(b"X", Some(b"")),
    ] {
        for end in 0..whole.len() {
            let cut = whole.slice(..end);
            assert!(SaslInitialResponse::parse(&cut).is_err(), "cut at {end}");
            assert!(sasl_response(&cut).is_err());
            if end >= 5 {
                // With a consistent length word, the content is too short.
                let consistent = message(b'p', &whole[5..end]).into();
                let refused = SaslInitialResponse::parse(&consistent);
                assert!(matches!(refused, Err(PasswordError::Malformed(_))), "{end}");
            }
        }
        let longer = Bytes::from([&whole[..], b"x"].concat());
        assert!(SaslInitialResponse::parse(&longer).is_err());
        assert!(sasl_response(&longer).is_err());
        let consistent = message(b'p', &longer[5..]).into();
        assert!(SaslInitialResponse::parse(&consistent).is_err());
    }
    let other = Bytes::from(message(b'Q', b"SCRAM-SHA-256\0\xff\xff\xff\xff"));
    let expected = PasswordError::UnexpectedType { tag: b'Q' };
    assert_eq!(SaslInitialResponse::parse(&other), Err(expected.clone()));
    assert_eq!(sasl_response(&other), Err(expected));
    let not_text = SaslInitialResponse::parse(&initial(b"SCR\xffM", None));
    assert!(matches!(not_text, Err(PasswordError::Malformed(_))));
}

#[test]
fn a_client_that_thinks_the_server_cannot_bind_is_found() {
    let says = |mechanism: &[u8], data: Option<&[u8]>| {
        gs2_says_unsupported(&SaslInitialResponse::parse(&initial(mechanism, data)).unwrap())
    };
    assert!(says(b"SCRAM-SHA-256", Some(b"y,,n=,r=x")));
    assert!(says(b"SCRAM-SHA-256", Some(b"y,a=admin,n=,r=x")));
    for data in [
        &b"n,,n=,r=y,"[..],
        b"p=tls-server-end-point,,n=,r=x",
        b"",
        b"y",
        b"yes",
    ] {
        assert!(!says(b"SCRAM-SHA-256", Some(data)), "{data:?}");
    }
    assert!(!says(b"SCRAM-SHA-256", None));
    assert!(!says(b"PLAIN", Some(b"y,,")), "no gs2-header");
}

#[test]
fn requests_are_what_the_server_sends() {
    let both = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"];
    let expected = b"R\0\0\0*\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
    assert_eq!(authentication_sasl(&both), &expected[..]);
    assert_eq!(authentication_sasl(&["", "a\0b"]), auth(10, b"\0"));
    assert_eq!(authentication_sasl_continue(b"r=1"), auth(11, b"r=1"));
    assert_eq!(authentication_sasl_final(b""), auth(12, b""));
    assert_eq!(AUTHENTICATION_OK[..], auth(0, b""));
}

#[test]
fn pgwire_reads_our_requests() {
    let decoded = |frame: &[u8]| {
        let mut frame = BytesMut::from(frame);
        let read = Authentication::decode(&mut frame, &DecodeContext::default()).unwrap();
        assert!(frame.is_empty());
        read.unwrap()
    };
    assert!(matches!(decoded(&AUTHENTICATION_OK), Authentication::Ok));
    let offered = decoded(&authentication_sasl(&["SCRAM-SHA-256"]));
    assert!(matches!(offered, Authentication::SASL(names) if names == ["SCRAM-SHA-256"]));
    let next = decoded(&authentication_sasl_continue(b"r=1"));
    assert!(matches!(next, Authentication::SASLContinue(data) if data == "r=1"));
    let last = decoded(&authentication_sasl_final(b"v=1"));
    assert!(matches!(last, Authentication::SASLFinal(data) if data == "v=1"));
}

#[test]
fn nothing_of_an_answer_is_shown() {
    let frame = initial(b"OAUTHBEARER", Some(b"n,,auth=Bearer hunter2"));
    let parsed = SaslInitialResponse::parse(&frame).unwrap();
    let mut reader = PasswordReader::new(frame);
    let before = format!("{reader:?}");
    reader.handle_input(b"hunter2").unwrap();
    reader.poll();
    reader.poll();
    let error = reader.error().unwrap();
    let shown = format!("{before} {reader:?} {error} {error:?} {parsed:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("OAUTHBEARER"));
}
