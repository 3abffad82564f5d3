//! ErrorResponse, made here and by the server.

use bytes::{Bytes, BytesMut};
use pgwire::messages::response::ErrorResponse;
use pgwire::messages::{DecodeContext, Message};

use super::message;
use crate::{ErrorReply, MAX_ERROR_FRAME, ServerError, SqlState};

/// PostgreSQL 15, wrong password, recorded.
const REFUSED: &[u8] = b"E\x00\x00\x00cSFATAL\x00VFATAL\x00C28P01\x00Mpassword authentication failed for user \"app\"\x00Fauth.c\x00L334\x00Rauth_failed\x00\x00";

fn pgwire_fields(frame: &[u8]) -> Vec<(u8, String)> {
    let mut buf = BytesMut::from(frame);
    let read = ErrorResponse::decode(&mut buf, &DecodeContext::default());
    assert!(buf.is_empty());
    read.unwrap().unwrap().fields
}

fn owned(fields: &[(u8, &str)]) -> Vec<(u8, String)> {
    let fields = fields.iter();
    fields
        .map(|(code, text)| (*code, (*text).to_owned()))
        .collect()
}

#[test]
fn a_reply_has_the_fields_in_order() {
    let reply = ErrorReply::fatal(SqlState::new(*b"08001"), "cannot reach \"orders\"")
        .with_detail("port refused")
        .with_hint("check the security group");
    let expected = [
        (b'S', "FATAL"),
        (b'V', "FATAL"),
        (b'C', "08001"),
        (b'M', "cannot reach \"orders\""),
        (b'D', "port refused"),
        (b'H', "check the security group"),
    ];
    assert_eq!(pgwire_fields(&reply.encode()), owned(&expected));
    let read = ServerError::parse(reply.encode()).unwrap();
    assert_eq!(read.severity(), "FATAL");
    assert_eq!(read.detail().as_deref(), Some("port refused"));
    let short = ErrorReply {
        hint: Some(String::new()),
        detail: None,
        ..reply
    };
    let expected = [
        (b'S', "FATAL"),
        (b'V', "FATAL"),
        (b'C', "08001"),
        (b'M', "cannot reach \"orders\""),
    ];
    assert_eq!(pgwire_fields(&short.encode()), owned(&expected));
}

#[test]
fn a_reply_cannot_break_its_frame_or_outgrow_libpq() {
    let reply = ErrorReply::fatal(SqlState::new(*b"XX000"), "a\0b").with_detail("\0");
    assert_eq!(ServerError::parse(reply.encode()).unwrap().message(), "ab");
    assert_eq!(ServerError::parse(reply.encode()).unwrap().detail(), None);
    let long = "ü€".repeat(20_000);
    let reply = ErrorReply::fatal(SqlState::new(*b"XX000"), long.clone())
        .with_detail(long.clone())
        .with_hint(long);
    let frame = reply.encode();
    assert!(frame.len() - 1 <= MAX_ERROR_FRAME);
    for (code, text) in pgwire_fields(&frame) {
        let whole = matches!(code, b'S' | b'V' | b'C');
        assert!(whole || text.ends_with('…'), "{}", code as char);
        assert!(!text.contains('\u{fffd}'), "cut inside a character");
    }
}

#[test]
fn sqlstates() {
    assert_eq!(SqlState::parse(b"28P01"), Some(SqlState::new(*b"28P01")));
    for bad in [&b"28p01"[..], b"2800", b"280000", b"28 01", b""] {
        assert_eq!(SqlState::parse(bad), None);
    }
    let code = SqlState::new(*b"57P03");
    assert_eq!(code.as_str(), "57P03");
    assert_eq!(format!("{code} {code:?}"), "57P03 SqlState(57P03)");
}

#[test]
fn a_recorded_error_is_read() {
    let error = ServerError::parse(Bytes::from_static(REFUSED)).unwrap();
    assert_eq!(error.sqlstate(), Some(SqlState::new(*b"28P01")));
    assert_eq!(
        error.message(),
        "password authentication failed for user \"app\""
    );
    assert_eq!(
        (error.severity(), error.detail(), error.hint()),
        ("FATAL".into(), None, None)
    );
    assert_eq!(error.field(b'R'), Some(&b"auth_failed"[..]));
    assert_eq!(error.frame(), REFUSED);
    assert_eq!(
        error.with_appended(None, Some("")),
        REFUSED,
        "nothing to add"
    );
    assert_eq!(
        error.to_string(),
        "FATAL: password authentication failed for user \"app\" (28P01)"
    );
}

#[test]
fn appending_keeps_the_server_s_bytes_and_order() {
    // Latin-1 text, an unknown field, and a duplicate.
    let body = b"Sfatal\0C28000\0Mf\xfcr\0Dold\0Xodd\0Dsecond\0\0";
    let error = ServerError::parse(message(b'E', body).into()).unwrap();
    let both = error.with_appended(Some("our detail"), Some("our hint\0"));
    let expected = b"Sfatal\0C28000\0Mf\xfcr\0Dold\nour detail\0Xodd\0Dsecond\0Hour hint\0\0";
    assert_eq!(both, message(b'E', expected));
    assert_eq!(error.severity(), "fatal", "S where there is no V");
    assert_eq!(error.message(), "f\u{fffd}r");
    let again = ServerError::parse(both).unwrap();
    assert_eq!(again.detail().as_deref(), Some("old\nour detail"));
    assert_eq!(again.hint().as_deref(), Some("our hint"));
}

#[test]
fn appending_stays_within_what_libpq_reads() {
    let ours = "y".repeat(40_000);
    for size in [0, 100, 15_000, 29_900, 29_980, 29_984, 29_985, 29_986] {
        let body = [b"SFATAL\0M", &vec![b'x'; size][..], b"\0\0"].concat();
        let error = ServerError::parse(message(b'E', &body).into()).unwrap();
        let frame = error.with_appended(Some(&ours), Some(&ours));
        assert!(
            frame.len() - 1 <= MAX_ERROR_FRAME,
            "{size}: {}",
            frame.len()
        );
        let read = ServerError::parse(frame).unwrap();
        assert_eq!(read.message().len(), size, "the server's words stay whole");
    }
}

#[test]
fn truncated_and_overlong_errors_are_refused() {
    for end in 0..REFUSED.len() {
        let cut = Bytes::copy_from_slice(&REFUSED[..end]);
        assert!(ServerError::parse(cut).is_err(), "cut at {end}");
        if end >= 5 && end < REFUSED.len() - 1 {
            let consistent = message(b'E', &REFUSED[5..end]);
            let result = ServerError::parse(consistent.into());
            assert!(result.is_err(), "consistent length, cut at {end}");
        }
    }
    assert!(ServerError::parse(message(b'E', b"Mx\0\0\0").into()).is_err());
    assert!(ServerError::parse(message(b'N', b"Mx\0\0").into()).is_err());
    let long = vec![b'x'; MAX_ERROR_FRAME];
    let long = message(b'E', &[b"M", &long[..], b"\0\0"].concat());
    assert!(ServerError::parse(long.into()).is_err());
    let bare = ServerError::parse(message(b'E', b"\0").into()).unwrap();
    assert_eq!((bare.sqlstate(), bare.message().as_ref()), (None, ""));
}

#[test]
fn control_characters_do_not_reach_a_terminal() {
    let body = b"SFATAL\0C08006\0Mline\nnext\x1b[31m\0\0";
    let error = ServerError::parse(message(b'E', body).into()).unwrap();
    let shown = error.to_string();
    assert_eq!(shown, "FATAL: line\\nnext\\u{1b}[31m (08006)");
}
