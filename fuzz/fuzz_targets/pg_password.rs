//! The reader of the client's answers: whatever the client sends instead, in whatever pieces.
//!
//! Two readers get the same bytes, one as cut by the fuzzer, one in as few pieces as possible, and
//! must agree on everything.

#![no_main]

use arbitrary::Arbitrary;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pg_handshake::{
    MAX_AUTH_FRAME, MAX_REMAINDER, PasswordError, PasswordReader, SaslInitialResponse,
    gs2_says_unsupported, sasl_response,
};

#[derive(Debug, Arbitrary)]
struct Scenario<'a> {
    /// Sent behind the startup packet.
    first: &'a [u8],
    cuts: Vec<u8>,
    steps: Vec<Step<'a>>,
}

#[derive(Debug, Arbitrary)]
enum Step<'a> {
    Answer(&'a [u8]),
    Initial {
        mechanism: &'a [u8],
        /// How far the length is off; none: no data, length -1.
        off: Option<i32>,
        data: &'a [u8],
    },
    /// A message whose length word may lie.
    Message {
        tag: u8,
        length: u32,
        body: &'a [u8],
    },
    Raw(&'a [u8]),
    /// A long answer, to reach the limits.
    Long(u16),
    Filler {
        byte: u8,
        count: u16,
    },
    /// The caller wants the next answer.
    Poll,
}

struct Side {
    reader: PasswordReader,
    error: Option<PasswordError>,
    frames: Vec<Bytes>,
}

impl Side {
    fn new(first: &[u8]) -> Self {
        Self {
            reader: PasswordReader::new(Bytes::copy_from_slice(first)),
            error: None,
            frames: Vec::new(),
        }
    }

    fn feed(&mut self, data: &[u8]) {
        let outcome = self.reader.handle_input(data);
        if let Some(error) = &self.error {
            assert_eq!(outcome.as_ref(), Err(error), "the first error sticks");
        }
        self.error = outcome.err();
        assert_eq!(self.reader.error(), self.error.as_ref());
    }

    fn poll(&mut self) {
        let frame = self.reader.poll();
        assert!(
            self.error.is_none() || frame.is_none(),
            "not after an error"
        );
        self.error = self.reader.error().cloned();
        self.frames.extend(frame);
    }
}

fn check_frame(frame: &Bytes) {
    assert_eq!(frame[0], b'p');
    assert!((5..=MAX_AUTH_FRAME + 1).contains(&frame.len()));
    let data = sasl_response(frame).expect("a whole frame");
    assert_eq!(data, frame[5..]);
    match SaslInitialResponse::parse(frame) {
        Ok(initial) => {
            let said = gs2_says_unsupported(&initial);
            let length = initial.data.as_ref().map_or(-1, |data| data.len() as i32);
            let mut again = initial.mechanism.clone().into_bytes();
            again.push(0);
            again.extend(length.to_be_bytes());
            again.extend_from_slice(initial.data.as_deref().unwrap_or_default());
            assert_eq!(again, frame[5..], "all of it, and nothing else");
            assert!(!said || initial.data.is_some_and(|data| data[0] == b'y'));
        }
        Err(error) => assert!(matches!(error, PasswordError::Malformed(_))),
    }
    assert!(sasl_response(&frame.slice(..frame.len() - 1)).is_err());
}

fn message(tag: u8, length: u32, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

fn answer(body: &[u8]) -> Vec<u8> {
    message(b'p', u32::try_from(body.len() + 4).unwrap(), body)
}

fn bytes_of(step: &Step<'_>) -> Vec<u8> {
    match step {
        Step::Answer(body) => answer(body),
        Step::Initial {
            mechanism,
            off,
            data,
        } => {
            let length = off.map_or(-1, |off| (data.len() as i32).wrapping_add(off));
            answer(&[mechanism, &b"\0"[..], &length.to_be_bytes(), data].concat())
        }
        Step::Message { tag, length, body } => message(*tag, *length, body),
        Step::Raw(bytes) => bytes.to_vec(),
        Step::Long(count) => answer(&vec![b'x'; usize::from(*count)]),
        Step::Filler { byte, count } => vec![*byte; usize::from(*count)],
        Step::Poll => Vec::new(),
    }
}

fn run(scenario: &Scenario<'_>) {
    let mut cut = Side::new(scenario.first);
    let mut whole = Side::new(scenario.first);
    let mut received = scenario.first.to_vec();
    let mut pending = Vec::new();
    for step in scenario.steps.iter().chain([&Step::Poll]) {
        let data = bytes_of(step);
        for piece in pgiam_fuzz::cut(&data, &scenario.cuts) {
            cut.feed(piece);
        }
        received.extend_from_slice(&data);
        pending.extend(data);
        if !matches!(step, Step::Poll) {
            continue;
        }
        whole.feed(&std::mem::take(&mut pending));
        for side in [&mut cut, &mut whole] {
            side.poll();
        }
        let errors = [&cut.error, &whole.error];
        if errors.contains(&&Some(PasswordError::TooMuchPipelined)) {
            break; // Whether that or what is wrong in front is found first depends on the pieces.
        }
        assert_eq!(cut.error, whole.error);
        assert_eq!(cut.frames, whole.frames);
    }
    for side in [cut, whole] {
        side.frames.iter().for_each(check_frame);
        let _ = format!("{:?} {:?}", side.reader, side.error);
        let rest = side.reader.into_remainder();
        assert!(rest.len() <= scenario.first.len().max(MAX_AUTH_FRAME + 1 + MAX_REMAINDER));
        assert!(
            side.error.is_none() || rest.is_empty(),
            "kept after an error"
        );
        let given = side.frames.concat();
        assert!(received.starts_with(&given), "in the order it came");
        let left = &received[given.len()..];
        assert!(left.starts_with(&rest), "and then the rest");
    }
}

fuzz_target!(|scenario: Scenario<'_>| run(&scenario));
