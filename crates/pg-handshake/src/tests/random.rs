//! Bytes that no PostgreSQL sends: no panic, and buffers that stay small.

use bytes::Bytes;

use super::transcript::{GRANTED, SCRAM_FIRST};
use super::upstream::{after_tls, startup};
use super::{
    GSS_REQUEST, Random, SSL_REQUEST, feed_client, feed_upstream, message, startup_packet,
};
use crate::{
    ALPN, Client, ClientEvent, Follower, MAX_AUTH_FRAME, MAX_REMAINDER, Negotiation,
    PasswordReader, SaslInitialResponse, Upstream, sasl_response,
};

const ROUNDS: u64 = 3000;
const PIECE: usize = 512;
/// An unfinished message, held notices, and the piece just fed.
const BOUND: usize = MAX_AUTH_FRAME + MAX_REMAINDER + PIECE;

/// Mostly small numbers as length words, so that the bytes pass the first check.
fn plausible(random: &mut Random, tags: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    for _ in 0..random.below(8) {
        let body = random.below(40);
        let said = if random.below(4) == 0 {
            random.below(70_000)
        } else {
            body + 4
        };
        data.push(tags[random.below(tags.len())]);
        data.extend_from_slice(&u32::try_from(said).unwrap().to_be_bytes());
        let code = [0, 3, 5, 7, 10, 11, 12, random.next() as i32][random.below(8)];
        let mut bytes = random.bytes(body);
        bytes
            .iter_mut()
            .for_each(|b| *b = if *b & 3 == 0 { 0 } else { *b });
        let head = body.min(4);
        bytes[..head].copy_from_slice(&code.to_be_bytes()[..head]);
        data.extend(bytes);
    }
    data
}

/// Returns `data` with a few bytes changed, dropped or doubled.
fn mutated(random: &mut Random, data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(data.len());
        match random.below(4) {
            0 => data[at] = random.next() as u8,
            1 => data[at] ^= 1 << random.below(8),
            2 => data.truncate(at + 1),
            _ => data.insert(at, data[at]),
        }
    }
    data
}

#[test]
fn client_survives() {
    let good = [
        SSL_REQUEST.to_vec(),
        GSS_REQUEST.to_vec(),
        startup_packet(&[(b"user", b"app"), (b"options", b"-c x=y")]),
        vec![0x16, 3, 1, 0, 0],
    ];
    let mut finished = 0;
    for seed in 0..ROUNDS {
        let mut random = Random(seed);
        let mut client = Client::new(seed % 2 == 0);
        for _ in 0..6 {
            let data = match random.below(3) {
                0 => {
                    let length = random.below(PIECE);
                    random.bytes(length)
                }
                1 => good[random.below(good.len())].clone(),
                _ => {
                    let which = random.below(good.len());
                    mutated(&mut random, &good[which])
                }
            };
            let step = 1 + random.below(PIECE);
            let (_, events, _) = feed_client(&mut client, &data, step);
            if events.contains(&ClientEvent::StartTls) && random.below(4) > 0 {
                client.tls_established();
            }
            let direct = |event: &ClientEvent| matches!(event, ClientEvent::StartDirectTls { .. });
            if events.iter().any(direct) && random.below(4) > 0 {
                let alpn = (random.below(4) > 0).then_some(ALPN);
                let _ = client.direct_tls_established(alpn);
            }
            finished += usize::from(matches!(events.last(), Some(ClientEvent::Startup(_))));
            assert!(client.buffered() <= BOUND, "seed {seed}");
        }
        let _ = client.handle_eof();
    }
    assert!(finished > 100, "the inputs must reach the end: {finished}");
}

#[test]
fn upstream_survives() {
    let mut ready = 0;
    for seed in 0..ROUNDS {
        let mut random = Random(seed);
        let mut upstream = match seed % 8 {
            0 => Upstream::login(startup(), Negotiation::SslRequest),
            1..=3 => {
                let mut upstream = Upstream::passthrough(startup(), Negotiation::Direct);
                upstream.tls_established();
                upstream.without_channel_binding()
            }
            _ => after_tls(),
        };
        for _ in 0..6 {
            let data = match random.below(4) {
                0 => {
                    let length = random.below(PIECE);
                    random.bytes(length)
                }
                1 => mutated(&mut random, GRANTED),
                2 => b"RRENv".iter().copied().take(random.below(2)).collect(),
                _ => plausible(&mut random, b"RRRENSKZvS"),
            };
            let step = 1 + random.below(PIECE);
            let _ = feed_upstream(&mut upstream, &data, step);
            if random.below(3) == 0 {
                upstream.tls_established();
                let answer = Bytes::from(message(b'p', b"token\0"));
                let _ = upstream.client_message(answer);
            } else if random.below(3) == 0 {
                let _ = upstream.password(b"token");
            }
            assert!(upstream.buffered() <= BOUND, "seed {seed}");
        }
        ready += usize::from(upstream.stage() == crate::UpstreamStage::Ready);
        let _ = upstream.handle_eof();
    }
    assert!(ready > 10, "the inputs must reach the end: {ready}");
}

#[test]
fn password_reader_survives() {
    let mut read = 0;
    for seed in 0..ROUNDS {
        let mut random = Random(seed);
        let mut reader = PasswordReader::new(Bytes::new());
        for _ in 0..6 {
            let data = match random.below(3) {
                0 => mutated(&mut random, SCRAM_FIRST),
                1 => SCRAM_FIRST.to_vec(),
                _ => plausible(&mut random, b"ppppppQ"),
            };
            let step = 1 + random.below(PIECE);
            for piece in data.chunks(step) {
                let _ = reader.handle_input(piece);
            }
            while let Some(frame) = reader.poll() {
                read += usize::from(SaslInitialResponse::parse(&frame).is_ok());
                assert_eq!(sasl_response(&frame).unwrap(), &frame[5..]);
            }
        }
        assert!(reader.into_remainder().len() <= BOUND, "seed {seed}");
    }
    assert!(read > 1000, "the inputs must reach the end: {read}");
}

#[test]
fn follower_survives() {
    for seed in 0..ROUNDS {
        let mut random = Random(seed);
        let mut follower = Follower::new();
        for _ in 0..6 {
            let data = plausible(&mut random, b"DTZ");
            let result = follower.advance(&data);
            assert!(result.is_ok() || !follower.at_boundary());
        }
    }
}
