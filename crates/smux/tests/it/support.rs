//! Helpers shared by the tests.

use bytes::{Bytes, BytesMut};
use smux::{Frame, Mux, MuxEvent, StreamId};

/// splitmix64: a small generator with a one-word seed, so that a failing seed can be named.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Bytes {
        (0..len)
            .map(|_| self.next() as u8)
            .collect::<Vec<_>>()
            .into()
    }
}

pub(crate) fn id(n: u32) -> StreamId {
    StreamId::new(n)
}

pub(crate) fn wire(frames: &[Frame]) -> Bytes {
    let mut out = BytesMut::new();
    for frame in frames {
        frame.encode(&mut out).unwrap();
    }
    out.freeze()
}

pub(crate) fn psh(n: u32, data: &'static [u8]) -> Frame {
    Frame::Psh {
        id: id(n),
        data: Bytes::from_static(data),
    }
}

/// Returns all that a session has to send, as frames.
pub(crate) fn drain(session: &mut Mux, max: usize) -> Vec<Frame> {
    let mut bytes = BytesMut::new();
    while let Some(packet) = session.poll_transmit(max) {
        assert!(
            !packet.is_empty() && packet.len() <= max,
            "{} > {max}",
            packet.len()
        );
        bytes.extend_from_slice(&packet);
    }
    assert!(!session.has_transmit());
    parse(bytes.freeze())
}

pub(crate) fn parse(mut bytes: Bytes) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(frame) = Frame::decode(&mut bytes).unwrap() {
        frames.push(frame);
    }
    assert!(bytes.is_empty(), "a frame is cut off");
    frames
}

pub(crate) fn events(session: &mut Mux) -> Vec<MuxEvent> {
    std::iter::from_fn(|| session.poll_event()).collect()
}
