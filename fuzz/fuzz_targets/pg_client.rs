//! The startup machine towards the local client: whatever the client sends, in whatever pieces.
//!
//! Two machines get the same bytes, one as cut by the fuzzer, one in as few pieces as possible, and
//! must agree on everything.

#![no_main]

use arbitrary::Arbitrary;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pg_handshake::{
    ALPN, CancelKey, Client, ClientError, ClientEvent, MAX_REMAINDER, MAX_STARTUP_PACKET,
    ProtocolVersion, Startup,
};

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
const GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];
const CANCEL_CODE: [u8; 4] = [0x04, 0xd2, 0x16, 0x2e];

#[derive(Debug, Arbitrary)]
struct Scenario<'a> {
    tls_available: bool,
    cuts: Vec<u8>,
    steps: Vec<Step<'a>>,
}

#[derive(Debug, Arbitrary)]
enum Step<'a> {
    Ssl,
    Gss,
    Startup {
        minor: u8,
        params: Vec<(&'a [u8], &'a [u8])>,
        terminated: bool,
    },
    Cancel {
        key: &'a [u8],
    },
    /// A packet whose length word may lie.
    Packet {
        length: u16,
        code: u32,
        body: &'a [u8],
    },
    Raw(&'a [u8]),
    /// Many equal bytes, to reach the limits.
    Filler {
        byte: u8,
        count: u16,
    },
    /// The caller writes the output and looks at the events.
    Poll,
    Tls,
    /// A ClientHello without a request before it.
    Hello(&'a [u8]),
    /// The handshake after it, with the right protocol agreed on, or this one.
    DirectTls(Option<Option<&'a [u8]>>),
}

struct Side {
    client: Client,
    received: Vec<u8>,
    error: Option<ClientError>,
    output: Vec<u8>,
    events: Vec<ClientEvent>,
}

impl Side {
    fn new(tls_available: bool) -> Self {
        Self {
            client: Client::new(tls_available),
            received: Vec::new(),
            error: None,
            output: Vec::new(),
            events: Vec::new(),
        }
    }

    fn feed(&mut self, data: &[u8]) {
        self.received.extend_from_slice(data);
        let outcome = self.client.handle_input(data);
        if let Some(error) = &self.error {
            assert_eq!(outcome.as_ref(), Err(error), "the first error sticks");
        }
        self.error = outcome.err();
    }

    fn poll(&mut self) {
        while let Some(bytes) = self.client.poll_output() {
            assert!(self.error.is_none(), "nothing is written after an error");
            self.output.extend_from_slice(&bytes);
        }
        while let Some(event) = self.client.poll_event() {
            let over = matches!(
                self.events.last(),
                Some(ClientEvent::Startup(_) | ClientEvent::Cancel(_))
            );
            assert!(!over, "an event after the last one");
            self.events.push(event);
        }
    }

    fn direct_tls(&mut self, alpn: Option<&[u8]>) {
        let outcome = self.client.direct_tls_established(alpn);
        if let Some(error) = &self.error {
            assert_eq!(outcome.as_ref(), Err(error), "the first error sticks");
        } else if outcome.is_err() {
            assert!(alpn != Some(ALPN) && self.client.is_tls());
        }
        self.error = outcome.err();
    }

    /// The end of the connection, and what must be true of every one.
    fn finish(mut self, tls_available: bool) {
        let _ = format!("{:?} {:?} {:?}", self.client, self.events, self.error);
        if let Some(error) = &self.error {
            let _ = error.to_string();
        }
        let _ = self.client.handle_eof();
        self.poll();
        let direct = |event: &ClientEvent| matches!(event, ClientEvent::StartDirectTls { .. });
        if self.events.iter().any(direct) {
            assert!(tls_available && direct(&self.events[0]), "it comes first");
            assert!(!self.output.contains(&b'S'), "no TLS inside TLS");
        }
        assert!(
            self.output.len() <= 2,
            "one answer for each kind of request"
        );
        assert!(self.output.iter().all(|b| matches!(b, b'S' | b'N')));
        assert!(tls_available || !self.output.contains(&b'S'));
        let done = matches!(
            self.events.last(),
            Some(ClientEvent::Startup(_) | ClientEvent::Cancel(_))
        );
        let rest = self.client.into_remainder();
        assert!(self.received.ends_with(&rest), "not what came last");
        if !done {
            assert!(rest.len() <= MAX_STARTUP_PACKET + 4, "{}", rest.len());
        }
        for event in self.events {
            match event {
                ClientEvent::StartTls => {}
                ClientEvent::StartDirectTls { received } => {
                    assert_eq!(received.first(), Some(&0x16));
                    assert!(self.received.starts_with(&received), "what came first");
                }
                ClientEvent::Startup(startup) => check_startup(startup, &self.received),
                ClientEvent::Cancel(key) => {
                    let packet = key.encode();
                    assert!(contains(&self.received, &packet));
                    assert_eq!(CancelKey::parse(&packet), Ok(key));
                }
            }
        }
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn check_startup(mut startup: Startup, received: &[u8]) {
    let packet = startup.encode();
    assert!(contains(received, &packet), "not the bytes that came");
    assert_eq!(packet.len(), startup.encoded_len());
    assert_eq!(Startup::parse(&packet).as_ref(), Ok(&startup));
    let before = startup.clone();
    let value = vec![b'v'; received.len() % 3000];
    match startup.set("user", &value) {
        Ok(()) => assert_eq!(startup.get("user"), Some(&value[..])),
        Err(_) => assert_eq!(startup, before),
    }
    assert!(startup.encoded_len() <= MAX_STARTUP_PACKET + 4);
    assert_eq!(Startup::parse(&startup.encode()).as_ref(), Ok(&startup));
    startup.remove("user");
    assert_eq!(startup.get("user"), None);
    check_downgrade(startup);
}

fn check_downgrade(mut startup: Startup) {
    let before = startup.clone();
    let option = |name: &[u8]| name.starts_with(b"_pq_.");
    let options = before.params().filter(|(name, _)| option(name));
    let mut names = Vec::new();
    for (name, _) in options {
        names.extend_from_slice(name);
        names.push(0);
    }
    match startup.downgrade() {
        Some(frame) => {
            assert_eq!(frame[..1], *b"v");
            assert_eq!(
                frame[1..5],
                u32::try_from(frame.len() - 1).unwrap().to_be_bytes()
            );
            assert_eq!(frame[5..9], [0, 3, 0, 0]);
            assert_eq!(frame[13..], names);
            assert_ne!(startup, before);
        }
        None => assert_eq!(startup, before),
    }
    assert_eq!(startup.version(), ProtocolVersion::V3_0);
    assert!(!startup.params().any(|(name, _)| option(name)));
    assert_eq!(startup.downgrade(), None);
}

fn packet(length: usize, code: [u8; 4], body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [&length[..], &code, body].concat()
}

fn bytes_of(step: &Step<'_>) -> Vec<u8> {
    match step {
        Step::Ssl => SSL_REQUEST.to_vec(),
        Step::Gss => GSS_REQUEST.to_vec(),
        Step::Startup {
            minor,
            params,
            terminated,
        } => {
            let mut body = Vec::new();
            for (name, value) in params {
                body.extend_from_slice(name);
                body.push(0);
                body.extend_from_slice(value);
                body.push(0);
            }
            if *terminated {
                body.push(0);
            }
            packet(8 + body.len(), [0, 3, 0, *minor], &body)
        }
        Step::Cancel { key } => packet(8 + key.len(), CANCEL_CODE, key),
        Step::Packet { length, code, body } => {
            packet(usize::from(*length), code.to_be_bytes(), body)
        }
        Step::Raw(bytes) => bytes.to_vec(),
        Step::Filler { byte, count } => vec![*byte; usize::from(*count)],
        Step::Hello(rest) => [&[0x16], *rest].concat(),
        Step::Poll | Step::Tls | Step::DirectTls(_) => Vec::new(),
    }
}

/// The one error that depends on the pieces: the limit behind the startup packet is for what comes
/// after the piece that completed it.
fn piecemeal(side: &Side) -> bool {
    side.error == Some(ClientError::TooMuchPipelined)
}

fn run(scenario: &Scenario<'_>) {
    let mut cut = Side::new(scenario.tls_available);
    let mut whole = Side::new(scenario.tls_available);
    let mut pending = Vec::new();
    for step in scenario.steps.iter().chain([&Step::Poll]) {
        let data = bytes_of(step);
        for piece in pgiam_fuzz::cut(&data, &scenario.cuts) {
            cut.feed(piece);
        }
        pending.extend(data);
        if !matches!(step, Step::Poll | Step::Tls | Step::DirectTls(_)) {
            continue;
        }
        whole.feed(&std::mem::take(&mut pending));
        for side in [&mut cut, &mut whole] {
            side.poll();
            match step {
                Step::Tls => side.client.tls_established(),
                Step::DirectTls(other) => side.direct_tls(other.unwrap_or(Some(ALPN))),
                _ => {}
            }
        }
        if piecemeal(&cut) || piecemeal(&whole) {
            break;
        }
        assert_eq!(cut.error, whole.error);
        assert_eq!(Bytes::from(cut.output.clone()), whole.output);
        assert_eq!(cut.events, whole.events);
    }
    // The cut one never got more than this at once.
    let rest = MAX_REMAINDER + usize::from(u8::MAX);
    let small_pieces = !scenario.cuts.is_empty();
    for (side, limit) in [(&cut, small_pieces), (&whole, false)] {
        let shown = format!("{:?}", side.client);
        let buffered = shown
            .split_once("buffered: ")
            .and_then(|(_, rest)| rest.split_once(','))
            .and_then(|(number, _)| number.parse::<usize>().ok());
        assert!(buffered.is_some(), "{shown}");
        assert!(!limit || buffered <= Some(rest), "{shown}");
    }
    cut.finish(scenario.tls_available);
    whole.finish(scenario.tls_available);
}

fuzz_target!(|scenario: Scenario<'_>| run(&scenario));
