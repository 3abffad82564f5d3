//! The follower on streams with known boundaries.

use super::{Random, message};
use crate::{FollowError, Follower};

#[test]
fn boundaries_are_found_however_the_stream_is_cut() {
    let mut random = Random(11);
    let mut stream = Vec::new();
    let mut boundaries = vec![0];
    for _ in 0..40 {
        let length = [0, 1, 4, 300, 5000][random.below(5)];
        stream.extend(message(b'D', &random.bytes(length)));
        boundaries.push(stream.len());
    }
    let mut by_byte = Follower::new();
    for at in 0..=stream.len() {
        assert_eq!(by_byte.at_boundary(), boundaries.contains(&at), "at {at}");
        if let Some(byte) = stream.get(at) {
            by_byte.advance(&[*byte]).unwrap();
        }
    }
    for _ in 0..50 {
        let mut follower = Follower::new();
        let mut at = 0;
        while at < stream.len() {
            let end = (at + random.below(3000)).min(stream.len());
            follower.advance(&stream[at..end]).unwrap();
            at = end;
            assert_eq!(follower.at_boundary(), boundaries.contains(&at));
        }
    }
}

#[test]
fn impossible_lengths_stick() {
    for length in [0_u32, 3, 0x8000_0000, u32::MAX] {
        let mut follower = Follower::new();
        follower.advance(&message(b'Z', b"I")).unwrap();
        let bad = [&b"X"[..], &length.to_be_bytes()].concat();
        let error = Err(FollowError { tag: b'X', length });
        assert_eq!(follower.advance(&bad), error);
        assert_eq!(follower.advance(&message(b'Z', b"I")), error);
        assert!(!follower.at_boundary());
    }
    let mut follower = Follower::new();
    follower.advance(b"d\x7f\xff\xff\xff").unwrap();
    assert!(!follower.at_boundary());
}

#[test]
fn an_error_that_ends_the_session_is_told_from_others() {
    let fields = |severity: &str, rest: &str| {
        format!("S{severity}\0V{severity}\0C57P01\0M{rest}\0\0").into_bytes()
    };
    let long = "x".repeat(500);
    for (severity, rest, fatal) in [
        ("FATAL", "bye", true),
        ("PANIC", &long, true),
        ("ERROR", "VFATAL", false),
        ("ERROR", &long, false),
    ] {
        let error = message(b'E', &fields(severity, rest));
        for step in [1, 7, error.len()] {
            let mut follower = Follower::new();
            follower.advance(&message(b'E', b"SFATAL\0\0")).unwrap();
            for piece in error.chunks(step) {
                follower.advance(piece).unwrap();
            }
            assert_eq!(follower.last_is_fatal(), fatal, "{severity} by {step}");
            follower.advance(&message(b'Z', b"I")).unwrap();
            assert!(!follower.last_is_fatal());
        }
        let mut cut = Follower::new();
        cut.advance(&error[..error.len() - 1]).unwrap();
        assert!(!cut.last_is_fatal(), "not whole yet");
    }
    // Translated, as servers send it.
    let translated = message(b'E', "SSCHWERWIEGEND\0VFATAL\0C57P01\0\0".as_bytes());
    let mut follower = Follower::new();
    follower.advance(&translated).unwrap();
    assert!(follower.last_is_fatal());
}
