//! Tests through the public interface, except for the sizes of buffers.

mod advisories;
mod client;
mod direct;
mod errors;
mod follow;
mod packets;
mod passthrough;
mod password;
mod random;
mod transcript;
mod upstream;

use bytes::Bytes;

use crate::{Client, ClientError, ClientEvent, Upstream, UpstreamError, UpstreamEvent};

const SSL_REQUEST: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 47];
const GSS_REQUEST: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 48];

/// SplitMix64: draws the same inputs from a seed on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

/// Builds a message with type byte and a correct length word.
fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

fn auth(code: i32, data: &[u8]) -> Vec<u8> {
    message(b'R', &[&code.to_be_bytes()[..], data].concat())
}

/// Builds a packet of the startup phase with a correct length word.
fn packet(code: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 8).unwrap();
    [&length.to_be_bytes()[..], &code.to_be_bytes(), body].concat()
}

fn startup_packet(params: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in params {
        body.extend_from_slice(&[name, &b"\0"[..], value, b"\0"].concat());
    }
    body.push(0);
    packet(0x0003_0000, &body)
}

/// Feeds a client machine in pieces of `step` bytes and drains it after each, like a driver.
fn feed_client(
    client: &mut Client,
    data: &[u8],
    step: usize,
) -> (Vec<Bytes>, Vec<ClientEvent>, Result<(), ClientError>) {
    let (mut output, mut events) = (Vec::new(), Vec::new());
    for piece in data.chunks(step) {
        let result = client.handle_input(piece);
        output.extend(std::iter::from_fn(|| client.poll_output()));
        events.extend(std::iter::from_fn(|| client.poll_event()));
        if result.is_err() {
            return (output, events, result);
        }
    }
    (output, events, Ok(()))
}

/// Feeds an upstream machine the same way; gives the password when requested.
fn feed_upstream(
    upstream: &mut Upstream,
    data: &[u8],
    step: usize,
) -> (Vec<Bytes>, Vec<UpstreamEvent>, Result<(), UpstreamError>) {
    let (mut output, mut events) = (Vec::new(), Vec::new());
    for piece in data.chunks(step) {
        let result = upstream.handle_input(piece);
        while let Some(event) = upstream.poll_event() {
            if event == UpstreamEvent::PasswordRequired && result.is_ok() {
                upstream.password(b"token").unwrap();
            }
            events.push(event);
        }
        output.extend(std::iter::from_fn(|| upstream.poll_output()));
        if result.is_err() {
            return (output, events, result);
        }
    }
    (output, events, Ok(()))
}
