//! Logins recorded from PostgreSQL 15.18 with `password` in pg_hba.conf (the bytes inside TLS).

use bytes::Bytes;

use super::upstream::after_tls;
use super::{feed_upstream, message};
use crate::{CancelKey, SqlState, Upstream, UpstreamError, UpstreamEvent, UpstreamStage};

const ASKS: &[u8] = b"R\x00\x00\x00\x08\x00\x00\x00\x03";

pub(super) const GRANTED: &[u8] = b"R\x00\x00\x00\x08\x00\x00\x00\x00\
S\x00\x00\x00\x1aapplication_name\x00psql\x00\
S\x00\x00\x00\x19client_encoding\x00UTF8\x00\
S\x00\x00\x00\x17DateStyle\x00ISO, MDY\x00\
S\x00\x00\x00&default_transaction_read_only\x00off\x00\
S\x00\x00\x00\x17in_hot_standby\x00off\x00\
S\x00\x00\x00\x19integer_datetimes\x00on\x00\
S\x00\x00\x00\x1bIntervalStyle\x00postgres\x00\
S\x00\x00\x00\x15is_superuser\x00off\x00\
S\x00\x00\x00\x19server_encoding\x00UTF8\x00\
S\x00\x00\x002server_version\x0015.18 (Debian 15.18-0+deb12u1)\x00\
S\x00\x00\x00\x1esession_authorization\x00app\x00\
S\x00\x00\x00#standard_conforming_strings\x00on\x00\
S\x00\x00\x00\x15TimeZone\x00Etc/UTC\x00\
K\x00\x00\x00\x0c\x00\x00(\x87\xcc\x88X\xc2\
Z\x00\x00\x00\x05I";

/// A SCRAM login at PostgreSQL 15.20 without channel binding, client and server in turn: the offer,
/// the client's first message, the server's, the client's final one.
pub(super) const SCRAM_OFFER: &[u8] =
    b"R\x00\x00\x00*\x00\x00\x00\nSCRAM-SHA-256-PLUS\x00SCRAM-SHA-256\x00\x00";
pub(super) const SCRAM_FIRST: &[u8] =
    b"p\x00\x00\x002SCRAM-SHA-256\x00\x00\x00\x00\x1cn,,n=,r=rOprNGfwEbeRWgbNEkqO";
pub(super) const SCRAM_CHALLENGE: &[u8] = b"R\x00\x00\x00X\x00\x00\x00\x0br=rOprNGfwEbeRWgbNEkqOChb70DndQUs5KYqOwGOLnNF3,s=BSZmQk79jlIc3axIMZNf1w==,i=4096";
pub(super) const SCRAM_FINAL: &[u8] = b"p\x00\x00\x00hc=biws,r=rOprNGfwEbeRWgbNEkqOChb70DndQUs5KYqOwGOLnNF3,p=ZhhdzqHnIXMohj+MtSqFXBJEmLwTMLxYO9omzfaoEYU=";
/// AuthenticationSASLFinal; AuthenticationOk and the rest come in the same flight.
pub(super) const SCRAM_PROOF: &[u8] =
    b"R\x00\x00\x006\x00\x00\x00\x0cv=irF4Y1CUhagbF7TLcud5uHeWNpEDPjhggZywS832aUE=";
/// The answer to a first message that begins with `y,,`.
pub(super) const SCRAM_DOWNGRADE: &[u8] = b"E\x00\x00\x00\xf0SFATAL\x00VFATAL\x00C28000\x00MSCRAM channel binding negotiation error\x00DThe client supports SCRAM channel binding but thinks the server does not.  However, this server does support channel binding.\x00Fauth-scram.c\x00L985\x00Rread_client_first_message\x00\x00";

/// Answer to a startup packet of protocol 3.9999 with the option `_pq_.x`.
pub(super) const NEGOTIATES: &[u8] = b"v\x00\x00\x00\x13\x00\x03\x00\x00\x00\x00\x00\x01_pq_.x\x00";

const NO_DATABASE: &[u8] = b"R\x00\x00\x00\x08\x00\x00\x00\x00E\x00\x00\x00YSFATAL\x00VFATAL\x00C3D000\x00Mdatabase \"nope\" does not exist\x00Fpostinit.c\x00L948\x00RInitPostgres\x00\x00";

pub(super) fn relayed(events: &[UpstreamEvent]) -> Vec<u8> {
    let frames = events.iter().filter_map(|event| match event {
        UpstreamEvent::Relay(frame) => Some(&frame[..]),
        _ => None,
    });
    frames.collect::<Vec<_>>().concat()
}

/// Feeds the server's flights before and after the password; a real server waits for it.
fn run(flights: &[&[u8]], step: usize) -> (Upstream, Vec<Bytes>, Vec<UpstreamEvent>) {
    let mut upstream = after_tls();
    let (mut output, mut events) = (Vec::new(), Vec::new());
    for data in flights {
        let (sent, happened, result) = feed_upstream(&mut upstream, data, step);
        result.unwrap();
        output.extend(sent);
        events.extend(happened);
    }
    (upstream, output, events)
}

#[test]
fn a_login_is_relayed_byte_for_byte_however_it_is_cut() {
    let first = [NEGOTIATES, ASKS].concat();
    let flights: [&[u8]; 2] = [&first, GRANTED];
    let (_, _, whole) = run(&flights, GRANTED.len());
    let frames = 1 + 1 + 13 + 2; // v, R, S…, K and Z
    assert_eq!(
        whole.len(),
        frames + 3,
        "and the password, the key, the end"
    );
    for step in [1, 2, 7, 64, 400] {
        let (upstream, output, events) = run(&flights, step);
        assert_eq!(events, whole, "in pieces of {step}");
        assert_eq!(output, [message(b'p', b"token\0")]);
        assert_eq!(relayed(&events), [NEGOTIATES, GRANTED].concat());
        assert_eq!(upstream.stage(), UpstreamStage::Ready);
        assert!(upstream.into_remainder().is_empty());
    }
    let secret = Bytes::from_static(b"\xcc\x88X\xc2");
    let key = CancelKey::new(0x2887, secret).unwrap();
    let at = whole
        .iter()
        .position(|e| *e == UpstreamEvent::BackendKey(key.clone()));
    let after = whole[at.unwrap() + 1].clone();
    assert!(matches!(after, UpstreamEvent::Relay(frame) if frame[0] == b'K'));
    assert_eq!(whole.last(), Some(&UpstreamEvent::Ready));
}

#[test]
fn a_login_cut_short_gives_no_more_than_its_whole_frames() {
    let (_, _, whole) = run(&[ASKS, GRANTED], GRANTED.len());
    for end in 0..ASKS.len() + GRANTED.len() {
        let (first, second) = (end.min(ASKS.len()), end.saturating_sub(ASKS.len()));
        let (mut upstream, _, events) = run(&[&ASKS[..first], &GRANTED[..second]], 4096);
        assert!(whole.starts_with(&events), "cut at {end}");
        assert!(!events.contains(&UpstreamEvent::Ready));
        let result = upstream.handle_eof();
        assert!(matches!(result, Err(UpstreamError::UnexpectedEof { .. })));
    }
}

#[test]
fn long_keys_of_protocol_3_2_are_kept_whole() {
    let secret = [0x5a; 32];
    let frame = message(b'K', &[&[0, 0, 0, 9][..], &secret].concat());
    let granted = [&GRANTED[..9], &frame, &message(b'Z', b"I")].concat();
    let (_, _, events) = run(&[ASKS, &granted], 5);
    let key = CancelKey::new(9, Bytes::copy_from_slice(&secret)).unwrap();
    assert!(events.contains(&UpstreamEvent::BackendKey(key)));
}

#[test]
fn an_unknown_database_is_the_server_s_own_error() {
    let mut upstream = after_tls();
    let sent = [ASKS, NO_DATABASE].concat();
    let (_, events, result) = feed_upstream(&mut upstream, &sent, 1);
    let Err(UpstreamError::Server(error)) = result else {
        panic!("not an error of the server: {result:?}");
    };
    assert_eq!(error.sqlstate(), Some(SqlState::new(*b"3D000")));
    assert_eq!(error.message(), "database \"nope\" does not exist");
    assert_eq!(error.frame()[..], NO_DATABASE[9..]);
    assert_eq!(relayed(&events), NO_DATABASE[..9]);
}
