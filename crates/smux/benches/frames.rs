//! Measures the multiplexer's cost per KiB: `cargo bench -p smux`.
//!
//! Prints the best of several rounds in nanoseconds for one packet of 1,024 bytes, the size in
//! which the tunnel carries the byte stream.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement reads the clock, prints, and stops when it cannot go on"
)]

use std::hint::black_box;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use smux::{Frame, Mux, MuxEvent, MuxRole, StreamId};

const PACKET: usize = 1024;
const PACKETS: usize = 32 * 1024;

fn main() {
    for (name, round) in [
        ("receive, 32 KiB frames", receive_large as fn() -> f64),
        ("receive, a frame per packet", receive_small),
        ("receive, 50 streams in turn", receive_many),
        ("send, one bulk stream", || send(1, 64 * 1024)),
        ("send, one stream, 1 KiB writes", || send(1, PACKET)),
        ("send, 50 bulk streams", || send(50, 64 * 1024)),
        ("send, 8 streams, 100 byte writes", || send(8, 100)),
        ("one query and its answer", query),
    ] {
        let best = (0..7).map(|_| round()).fold(f64::INFINITY, f64::min);
        println!("{name:34} {best:7.0} ns");
    }
}

/// Returns nanoseconds per packet since `start`.
fn per_packet(start: Instant, packets: usize) -> f64 {
    start.elapsed().as_nanos() as f64 / packets as f64
}

/// Returns the byte stream of an agent that answers on `streams` streams with frames of `frame`
/// bytes, cut into packets as they come out of the channel: each a buffer of its own.
fn packets(streams: u32, frame: usize) -> Vec<Bytes> {
    let mut wire = BytesMut::new();
    let mut id = 3;
    while wire.len() < PACKETS * PACKET {
        let data = Bytes::from(vec![7; frame]);
        let frame = Frame::Psh {
            id: StreamId::new(id),
            data,
        };
        frame.encode(&mut wire).unwrap();
        id = if id > 2 * streams { 3 } else { id + 2 };
    }
    let packets = wire.chunks_exact(PACKET).take(PACKETS);
    packets.map(|packet| packet.to_vec().into()).collect()
}

fn receive(streams: u32, frame: usize) -> f64 {
    let input = packets(streams, frame);
    let mut session = Mux::new(MuxRole::Client);
    for _ in 0..streams {
        session.open().unwrap();
    }
    while session.poll_transmit(PACKET).is_some() {}
    let mut bytes = 0;
    let start = Instant::now();
    for packet in input {
        session.handle_input(packet).unwrap();
        while let Some(event) = session.poll_event() {
            if let MuxEvent::Data { data, .. } = black_box(event) {
                bytes += data.len();
            }
        }
    }
    let took = per_packet(start, PACKETS);
    assert!(bytes > PACKETS * PACKET * 9 / 10);
    took
}

fn receive_large() -> f64 {
    receive(1, 32_768)
}

fn receive_small() -> f64 {
    receive(1, PACKET - 8)
}

fn receive_many() -> f64 {
    receive(50, PACKET - 8)
}

fn send(streams: usize, write: usize) -> f64 {
    let mut session = Mux::new(MuxRole::Client);
    let ids: Vec<_> = (0..streams).map(|_| session.open().unwrap()).collect();
    let data = Bytes::from(vec![7; write]);
    let mut packets = 0;
    let start = Instant::now();
    while packets < PACKETS {
        for id in &ids {
            while session.queued(*id) < 4 * PACKET {
                session.send(*id, data.clone()).unwrap();
            }
        }
        for _ in 0..2 * streams {
            black_box(session.poll_transmit(PACKET).unwrap());
            packets += 1;
        }
    }
    per_packet(start, packets)
}

/// Sends a hundred bytes there and back on one of 50 open streams.
fn query() -> f64 {
    const ROUNDS: usize = 100_000;
    let mut session = Mux::new(MuxRole::Client);
    let ids: Vec<_> = (0..50).map(|_| session.open().unwrap()).collect();
    while session.poll_transmit(PACKET).is_some() {}
    let data = Bytes::from(vec![7; 100]);
    let start = Instant::now();
    for round in 0..ROUNDS {
        let id = ids[round % ids.len()];
        session.send(id, data.clone()).unwrap();
        let packet = session.poll_transmit(PACKET).unwrap();
        assert!(!session.has_transmit());
        // The answer has the same form as the request.
        session.handle_input(packet).unwrap();
        black_box(session.poll_event().unwrap());
    }
    per_packet(start, ROUNDS)
}
