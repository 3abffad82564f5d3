//! Startup packets and cancel keys: raw bytes in, the same bytes out.

use bytes::{Bytes, BytesMut};
use pgwire::messages::cancel::CancelRequest;
use pgwire::messages::startup::{
    NegotiateProtocolVersion, SecretKey, SslRequest, Startup as PgwireStartup,
};
use pgwire::messages::{DecodeContext, Message};

use super::{packet, startup_packet};
use crate::{CancelKey, MAX_STARTUP_PACKET, ProtocolVersion, Startup, StartupError, UpstreamEvent};

/// psql 15 to PostgreSQL 15, recorded.
const PSQL: &[u8] = b"\x00\x00\x00:\x00\x03\x00\x00user\x00app\x00database\x00postgres\x00application_name\x00psql\x00\x00";

#[test]
fn recorded_packet_reads_and_encodes_to_itself() {
    let startup = Startup::parse(PSQL).unwrap();
    assert_eq!(startup.version(), ProtocolVersion::V3_0);
    assert_eq!(startup.get("user"), Some(&b"app"[..]));
    assert_eq!(startup.get("database"), Some(&b"postgres"[..]));
    assert_eq!(startup.get("options"), None);
    assert_eq!(startup.params().len(), 3);
    assert_eq!(startup.encode(), PSQL);
    assert_eq!(startup.encoded_len(), PSQL.len());
}

#[test]
fn order_duplicates_bytes_and_minor_survive() {
    let body = b"zeta\0last\0user\0f\xfcr\0_pq_.grease\0\xff\xfe\0user\0second\0empty\0\0\0";
    for version in [0x0003_0000, 0x0003_0002, 0x0003_270f] {
        let sent = packet(version, body);
        let startup = Startup::parse(&sent).unwrap();
        assert_eq!(startup.encode(), sent);
        assert_eq!(u32::from(startup.version().minor), version & 0xffff);
        assert_eq!(startup.get("user"), Some(&b"second"[..]), "the last counts");
        assert_eq!(startup.get("empty"), Some(&b""[..]));
        let names: Vec<&[u8]> = startup.params().map(|(name, _)| name).collect();
        let expected: [&[u8]; 5] = [b"zeta", b"user", b"_pq_.grease", b"user", b"empty"];
        assert_eq!(names, expected);
    }
}

#[test]
fn truncated_or_longer_packets_are_refused() {
    for end in 0..PSQL.len() {
        let cut = &PSQL[..end];
        let length = StartupError::InvalidLength { length: end };
        assert_eq!(Startup::parse(cut), Err(length), "cut at {end}");
        // With a consistent length word the error is the layout.
        if end >= 8 {
            let consistent = packet(0x0003_0000, &PSQL[8..end]);
            // Cut after a whole value, the list only lacks its terminator; every cut is refused.
            assert_eq!(Startup::parse(&consistent), Err(StartupError::Layout));
        }
    }
    assert!(Startup::parse(&[PSQL, b"\0"].concat()).is_err());
    let trailing = packet(0x0003_0000, b"user\0app\0\0\0");
    assert_eq!(Startup::parse(&trailing), Err(StartupError::Layout));
    let no_value = packet(0x0003_0000, b"user\0");
    assert_eq!(Startup::parse(&no_value), Err(StartupError::Layout));
}

#[test]
fn an_empty_list_is_fine_and_other_majors_are_not() {
    let empty = Startup::parse(&packet(0x0003_0000, b"\0")).unwrap();
    assert_eq!(empty, Startup::new(ProtocolVersion::V3_0));
    for (code, major, minor) in [(0x0002_0000, 2, 0), (0x0004_0001, 4, 1)] {
        let version = ProtocolVersion { major, minor };
        let refused = Startup::parse(&packet(code, b"user\0a\0\0"));
        assert_eq!(refused, Err(StartupError::UnsupportedProtocol(version)));
    }
}

#[test]
fn set_replaces_in_place_and_leaves_the_rest() {
    let sent = startup_packet(&[
        (b"a", b"1"),
        (b"user", b"x"),
        (b"b", b"2"),
        (b"user", b"y"),
        (b"b", b"3"),
    ]);
    let mut startup = Startup::parse(&sent).unwrap();
    startup.set("user", b"db_user").unwrap();
    startup.set("database", b"app").unwrap();
    let expected = startup_packet(&[
        (b"a", b"1"),
        (b"user", b"db_user"),
        (b"b", b"2"),
        (b"b", b"3"),
        (b"database", b"app"),
    ]);
    assert_eq!(startup.encode(), expected);
    assert!(startup.remove("b"));
    assert!(!startup.remove("b"));
    assert_eq!(startup.params().len(), 3);
}

#[test]
fn set_cannot_smuggle_a_parameter_or_outgrow_the_limit() {
    let mut startup = Startup::new(ProtocolVersion::V3_0);
    startup.set("user", b"app").unwrap();
    for (name, value) in [("", &b"x"[..]), ("a\0b", b"x"), ("user", b"x\0options\0-c")] {
        assert_eq!(
            startup.set(name, value),
            Err(StartupError::InvalidParameter)
        );
    }
    let room = MAX_STARTUP_PACKET + 4 - startup.encoded_len() - "options".len() - 2;
    let too_long = vec![b'x'; room + 1];
    let refused = startup.set("options", &too_long);
    let length = MAX_STARTUP_PACKET + 5;
    assert_eq!(refused, Err(StartupError::TooLarge { length }));
    assert_eq!(startup.params().len(), 1);
    startup.set("options", &too_long[1..]).unwrap();
    assert_eq!(startup.encoded_len(), MAX_STARTUP_PACKET + 4);
    // Replacing a value does not count the old one.
    startup.set("options", &too_long[1..]).unwrap();
    assert_eq!(Startup::parse(&startup.encode()).unwrap(), startup);
}

#[test]
fn pgwire_reads_our_startup_packet() {
    let mut startup = Startup::new(ProtocolVersion::V3_2);
    startup.set("user", b"app").unwrap();
    let mut packet = BytesMut::from(&startup.encode()[..]);
    let read = PgwireStartup::decode(&mut packet, &DecodeContext::default());
    let read = read.unwrap().unwrap();
    assert_eq!(
        (read.protocol_number_major, read.protocol_number_minor),
        (3, 2)
    );
    assert_eq!(read.parameters.get("user").map(String::as_str), Some("app"));
    assert!(packet.is_empty());
    assert!(SslRequest::is_ssl_request_packet(super::SSL_REQUEST));
}

#[test]
fn cancel_requests_round_trip_and_agree_with_pgwire() {
    for length in [4, 5, 32, 255, 256] {
        let secret = Bytes::from(vec![0xa5; length]);
        let key = CancelKey::new(4_000_000_000, secret.clone()).unwrap();
        let encoded = key.encode();
        let parsed = CancelKey::parse(&encoded).unwrap();
        assert_eq!(parsed, key);
        assert_eq!(
            (parsed.pid(), parsed.secret()),
            (4_000_000_000, &secret[..])
        );
        let mut judged = BytesMut::new();
        CancelRequest::new(4_000_000_000_u32.cast_signed(), SecretKey::Bytes(secret))
            .encode(&mut judged)
            .unwrap();
        assert_eq!(encoded, judged);
        for end in 0..encoded.len() {
            assert!(CancelKey::parse(&encoded[..end]).is_err(), "cut at {end}");
        }
    }
}

#[test]
fn cancel_keys_outside_the_limits_are_refused() {
    for length in [0, 1, 3, 257, 1000] {
        let body = vec![0; 4 + length];
        let refused = CancelKey::parse(&packet(80_877_102, &body));
        assert_eq!(refused, Err(StartupError::CancelKeyLength { length }));
    }
    let no_pid = CancelKey::parse(&packet(80_877_102, b"abc"));
    assert_eq!(no_pid, Err(StartupError::InvalidLength { length: 11 }));
    let other = CancelKey::parse(&packet(80_877_103, b"pid_key_"));
    assert_eq!(other, Err(StartupError::NotCancelRequest));
}

#[test]
fn debug_of_a_cancel_key_hides_the_secret() {
    let key = CancelKey::new(7, Bytes::from_static(b"hush")).unwrap();
    assert_eq!(format!("{key:?}"), "CancelKey { pid: 7, .. }");
}

/// Answer of 15.20 to 3.9999 with the same option twice, recorded.
const NEGOTIATES_TWO: &[u8] =
    b"v\x00\x00\x00\x1a\x00\x03\x00\x00\x00\x00\x00\x02_pq_.a\x00_pq_.a\x00";

#[test]
fn a_downgrade_takes_out_what_3_0_does_not_know_and_says_so() {
    let sent = packet(
        0x0003_270f,
        b"_pq_.a\x001\0user\0app\0_pq_.a\x002\0_pq_\0x\0\0",
    );
    let mut startup = Startup::parse(&sent).unwrap();
    let told = startup.downgrade().unwrap();
    assert_eq!(told, NEGOTIATES_TWO);
    let kept = startup_packet(&[(b"user", b"app"), (b"_pq_", b"x")]);
    assert_eq!(startup.encode(), kept, "an ordinary name stays");
    assert_eq!(startup.downgrade(), None, "once is enough");
    assert_eq!(startup.encode(), kept);
}

/// `pqGetNegotiateProtocolVersion3` of libpq 18 accepts a version from 3.0 up to the requested one
/// except 3.1, only names that begin with `_pq_.`, and no message that requests no change.
#[test]
fn a_downgrade_is_what_libpq_accepts() {
    let names: [&[&str]; 3] = [&[], &["_pq_.x"], &["_pq_.", "_pq_.\u{e9}", "_pq_.x"]];
    for minor in [0_u16, 1, 2, 3, 9999, u16::MAX] {
        for names in names {
            let version = ProtocolVersion { major: 3, minor };
            let mut startup = Startup::new(version);
            startup.set("user", b"app").unwrap();
            for name in names {
                startup.set(name, b"on").unwrap();
            }
            let before = startup.clone();
            let Some(frame) = startup.downgrade() else {
                assert!(minor == 0 && names.is_empty());
                assert_eq!(startup, before);
                continue;
            };
            assert!(minor > 0 || !names.is_empty());
            assert_eq!(startup.version(), ProtocolVersion::V3_0);
            assert_eq!(startup.params().len(), 1);
            let message = NegotiateProtocolVersion::decode(
                &mut BytesMut::from(&frame[..]),
                &DecodeContext::default(),
            );
            let message = message.unwrap().unwrap();
            assert_eq!(frame[5..9], [0, 3, 0, 0], "the whole version number");
            assert_eq!(message.unsupported_options, names);
            // The machine towards the server accepts it, too.
            let mut upstream = super::upstream::after_tls();
            upstream.handle_input(&frame).unwrap();
            assert_eq!(upstream.poll_event(), Some(UpstreamEvent::Relay(frame)));
        }
    }
}
