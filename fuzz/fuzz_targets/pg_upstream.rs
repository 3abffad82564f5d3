//! The startup machine towards the real server: whatever the server sends, in whatever pieces.
//!
//! Two machines get the same bytes, one as cut by the fuzzer, one in as few pieces as possible, and
//! must agree on everything. So must two followers.

#![no_main]

use arbitrary::Arbitrary;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pg_handshake::{
    CancelKey, Follower, MAX_AUTH_FRAME, MAX_AUTH_REQUESTS, MAX_ERROR_FRAME, Negotiation,
    ProtocolVersion, ServerError, Startup, Upstream, UpstreamError, UpstreamEvent, UpstreamStage,
};

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
const TOKEN: &[u8] = b"host:5432/?Action=connect&X-Amz-Signature=feed";

#[derive(Debug, Arbitrary)]
struct Scenario<'a> {
    purpose: Purpose,
    direct: bool,
    answers_tls: bool,
    answers_password: bool,
    /// The password, or the client's answer, goes out with the StartupMessage.
    ahead: bool,
    cuts: Vec<u8>,
    steps: Vec<Step<'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Arbitrary)]
enum Purpose {
    Login,
    Passthrough { unbound: bool },
    Cancel,
}

#[derive(Debug, Arbitrary)]
enum Step<'a> {
    /// `S` in answer to SSLRequest, and the handshake after it.
    Tls,
    AuthenticationOk,
    AskPassword,
    Authentication {
        code: u8,
        data: &'a [u8],
    },
    /// AuthenticationSASL, with or without the mechanism that binds to the channel.
    Sasl {
        plus: bool,
        others: Vec<&'a [u8]>,
    },
    Negotiate {
        minor: i32,
        options: Vec<&'a [u8]>,
    },
    ParameterStatus {
        name: &'a [u8],
        value: &'a [u8],
    },
    Key(&'a [u8]),
    Ready(u8),
    /// An ErrorResponse, or a NoticeResponse.
    Fields {
        notice: bool,
        fields: Vec<(u8, &'a [u8])>,
        terminated: bool,
    },
    /// One whose single field makes it about as long as is allowed.
    LongFields {
        notice: bool,
        short_of_limit: i8,
    },
    /// The bare text of a server that could not start a process.
    BareError {
        short_of_limit: Option<i8>,
        text: &'a [u8],
        terminated: bool,
    },
    /// A message whose length word may lie.
    Message {
        tag: u8,
        length: u32,
        body: &'a [u8],
    },
    Raw(&'a [u8]),
    Filler {
        byte: u8,
        count: u16,
    },
    /// The password although nobody asked.
    Password(&'a [u8]),
    /// A message of the client: its frame as it should be, or any bytes.
    ClientMessage {
        framed: bool,
        bytes: &'a [u8],
    },
    /// The caller writes the output and acts on the events.
    Poll,
    Eof,
}

struct Side {
    upstream: Upstream,
    received: Vec<u8>,
    error: Option<UpstreamError>,
    output: Vec<Bytes>,
    events: Vec<UpstreamEvent>,
}

impl Side {
    fn new(scenario: &Scenario<'_>) -> Self {
        let negotiation = match scenario.direct {
            true => Negotiation::Direct,
            false => Negotiation::SslRequest,
        };
        let mut startup = Startup::new(ProtocolVersion::V3_2);
        startup.set("user", b"app").unwrap();
        let upstream = match scenario.purpose {
            Purpose::Login => Upstream::login(startup, negotiation),
            Purpose::Passthrough { unbound } => {
                let upstream = Upstream::passthrough(startup, negotiation);
                match unbound {
                    true => upstream.without_channel_binding(),
                    false => upstream,
                }
            }
            Purpose::Cancel => {
                let key = CancelKey::new(7, Bytes::from_static(b"secret")).unwrap();
                Upstream::cancel(key, negotiation)
            }
        };
        Self {
            upstream,
            received: Vec::new(),
            error: None,
            output: Vec::new(),
            events: Vec::new(),
        }
    }

    fn note(&mut self, outcome: Result<(), UpstreamError>) {
        if let Some(error) = &self.error {
            assert_eq!(outcome.as_ref(), Err(error), "the first error sticks");
        }
        self.error = outcome.err();
    }

    fn feed(&mut self, data: &[u8]) {
        self.received.extend_from_slice(data);
        let outcome = self.upstream.handle_input(data);
        self.note(outcome);
    }

    /// What the driver does between two reads.
    fn poll(&mut self, scenario: &Scenario<'_>) {
        loop {
            while let Some(bytes) = self.upstream.poll_output() {
                assert!(self.error.is_none(), "nothing is written after an error");
                self.output.push(bytes);
            }
            let Some(event) = self.upstream.poll_event() else {
                return;
            };
            assert!(!self.is_over(), "an event after the last one");
            match &event {
                UpstreamEvent::StartTls => {
                    if scenario.direct {
                        assert!(self.output.is_empty(), "nothing before direct TLS");
                        assert!(self.received.is_empty(), "nor was anything accepted");
                    } else {
                        assert_eq!(self.output, [&SSL_REQUEST[..]], "nothing else before TLS");
                    }
                    assert!(self.error.is_none(), "no TLS after an error");
                    if scenario.answers_tls {
                        self.upstream.tls_established();
                        if scenario.ahead {
                            self.answer(scenario.purpose);
                        }
                    }
                }
                UpstreamEvent::AuthRequest { expects_answer, .. } => {
                    assert!(matches!(scenario.purpose, Purpose::Passthrough { .. }));
                    if *expects_answer && scenario.answers_password {
                        self.answer(scenario.purpose);
                    }
                }
                UpstreamEvent::PasswordRequired if scenario.answers_password => {
                    let outcome = self.upstream.password(TOKEN);
                    self.note(outcome);
                }
                UpstreamEvent::Relay(frame) => {
                    check_frame(frame);
                    self.check_request(scenario.purpose, frame);
                }
                _ => {}
            }
            self.events.push(event);
        }
    }

    /// What the caller says when it is asked, or ahead of that.
    fn answer(&mut self, purpose: Purpose) {
        let outcome = match purpose {
            Purpose::Login => self.upstream.password(TOKEN),
            Purpose::Passthrough { .. } => {
                let frame = message(b'p', TOKEN).into();
                self.upstream.client_message(frame)
            }
            Purpose::Cancel => return,
        };
        // An answer to something that was asked before the end of the same bytes comes too late.
        if let Err(error @ UpstreamError::Password(_)) = &outcome
            && self.error.is_none()
        {
            assert!(matches!(
                self.upstream.stage(),
                UpstreamStage::Starting | UpstreamStage::Ready
            ));
            self.error = Some(error.clone());
            return;
        }
        self.note(outcome);
    }

    /// An authentication request is relayed right behind its event, and without the mechanisms that
    /// were to be taken out.
    fn check_request(&self, purpose: Purpose, frame: &Bytes) {
        if frame[0] != b'R' || frame[5..9] == [0; 4] {
            return;
        }
        assert!(matches!(
            self.events.last(),
            Some(UpstreamEvent::AuthRequest { .. })
        ));
        if purpose == (Purpose::Passthrough { unbound: true }) && frame[5..9] == [0, 0, 0, 10] {
            assert!(!frame.windows(6).any(|six| six == b"-PLUS\0"));
        }
    }

    fn is_over(&self) -> bool {
        matches!(
            self.events.last(),
            Some(UpstreamEvent::Ready | UpstreamEvent::CancelSent)
        )
    }

    fn finish(self, purpose: Purpose) {
        let shown = format!("{:?} {:?} {:?}", self.upstream, self.events, self.error);
        assert!(!shown.contains("X-Amz"), "the token is never shown");
        match &self.error {
            Some(UpstreamError::Server(error) | UpstreamError::ServerBeforeTls(error)) => {
                check_server_error(error);
            }
            Some(error) => {
                let _ = error.to_string();
            }
            None => {}
        }
        let relayed: usize = (self.events.iter())
            .map(|event| match event {
                UpstreamEvent::Relay(frame) => frame.len(),
                _ => 0,
            })
            .sum();
        assert!(relayed <= self.received.len(), "more relayed than received");
        let ready = self.upstream.stage() == UpstreamStage::Ready;
        let ok = self.error.is_none();
        let rest = self.upstream.into_remainder();
        assert!(self.received.ends_with(&rest), "not what came last");
        assert!(ok || rest.is_empty(), "kept after an error");
        // Every prefix of a run is a run, so looking at the end is looking at every moment.
        assert!(ready || rest.len() <= MAX_AUTH_FRAME, "{}", rest.len());
        if purpose == Purpose::Login {
            let passwords = self.output.iter().filter(|bytes| bytes[0] == b'p');
            assert!(passwords.count() <= 1, "the password goes out once");
        }
        let request = |event: &&UpstreamEvent| matches!(event, UpstreamEvent::AuthRequest { .. });
        assert!(self.events.iter().filter(request).count() <= MAX_AUTH_REQUESTS);
    }
}

/// A relayed frame is exactly one message.
fn check_frame(frame: &Bytes) {
    let mut follower = Follower::new();
    for at in 0..frame.len() {
        assert!(at == 0 || !follower.at_boundary(), "two messages in one");
        follower.advance(&frame[at..=at]).unwrap();
    }
    assert!(follower.at_boundary(), "part of a message");
}

fn check_server_error(error: &ServerError) {
    let line = error.to_string();
    assert!(!line.chars().any(char::is_control), "{line:?}");
    let _ = (error.sqlstate(), error.severity(), error.message());
    let _ = (error.detail(), error.hint());
    let appended = error.with_appended(Some("our detail"), Some("our hint"));
    let mut longest = error.frame().clone();
    for ours in ["", "x", "long ünicode ".repeat(4000).as_str()] {
        let frame = error.with_appended(Some(ours), Some(ours));
        if frame.len() > longest.len() {
            longest = frame;
        }
    }
    for frame in [error.frame(), &appended, &longest] {
        assert!(frame.len() <= MAX_ERROR_FRAME + 1, "{}", frame.len());
        let parsed = ServerError::parse(frame.clone()).expect("one that clients can read");
        // What the server said stays in front.
        for code in [b'C', b'M', b'D', b'H'] {
            let said = error.field(code).unwrap_or_default();
            assert!(parsed.field(code).unwrap_or_default().starts_with(said));
        }
    }
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    lying(tag, u32::try_from(body.len() + 4).unwrap(), body)
}

fn lying(tag: u8, length: u32, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// A length near the limit.
fn near(limit: usize, short_of_limit: i8) -> usize {
    limit.saturating_add_signed(-isize::from(short_of_limit))
}

fn tag_of_fields(notice: bool) -> u8 {
    if notice { b'N' } else { b'E' }
}

fn bytes_of(step: &Step<'_>) -> Vec<u8> {
    match step {
        Step::Tls => b"S".to_vec(),
        Step::AuthenticationOk => message(b'R', &[0, 0, 0, 0]),
        Step::AskPassword => message(b'R', &[0, 0, 0, 3]),
        Step::Authentication { code, data } => message(b'R', &[&[0, 0, 0, *code], *data].concat()),
        Step::Sasl { plus, others } => {
            let mut list = Vec::new();
            for name in others
                .iter()
                .copied()
                .chain(plus.then_some(&b"SCRAM-SHA-256-PLUS"[..]))
            {
                list.extend_from_slice(name);
                list.push(0);
            }
            message(b'R', &[&[0, 0, 0, 10], &list[..], &[0]].concat())
        }
        Step::Negotiate { minor, options } => {
            let mut body = minor.to_be_bytes().to_vec();
            body.extend(u32::try_from(options.len()).unwrap().to_be_bytes());
            for option in options {
                body.extend_from_slice(option);
                body.push(0);
            }
            message(b'v', &body)
        }
        Step::ParameterStatus { name, value } => {
            message(b'S', &[name, &b"\0"[..], value, &b"\0"[..]].concat())
        }
        Step::Key(secret) => message(b'K', &[&[0, 0, 0, 7], *secret].concat()),
        Step::Ready(status) => message(b'Z', &[*status]),
        Step::Fields {
            notice,
            fields,
            terminated,
        } => {
            let mut body = Vec::new();
            for (code, value) in fields {
                body.push(*code);
                body.extend_from_slice(value);
                body.push(0);
            }
            if *terminated {
                body.push(0);
            }
            message(tag_of_fields(*notice), &body)
        }
        Step::LongFields {
            notice,
            short_of_limit,
        } => {
            let mut body = vec![b'm'; near(MAX_ERROR_FRAME - 4, *short_of_limit)];
            body[0] = b'M';
            let end = body.len() - 2;
            body[end..].fill(0);
            message(tag_of_fields(*notice), &body)
        }
        Step::BareError {
            short_of_limit,
            text,
            terminated,
        } => {
            let mut bytes = b"E".to_vec();
            bytes.extend_from_slice(text);
            if let Some(short) = short_of_limit {
                bytes.resize(near(MAX_ERROR_FRAME, *short), b'x');
            }
            if *terminated {
                bytes.push(0);
            }
            bytes
        }
        Step::Message { tag, length, body } => lying(*tag, *length, body),
        Step::Raw(bytes) => bytes.to_vec(),
        Step::Filler { byte, count } => vec![*byte; usize::from(*count)],
        Step::Password(_) | Step::ClientMessage { .. } | Step::Poll | Step::Eof => Vec::new(),
    }
}

/// An error without what depends on the pieces: a bare text that is too long is given up at different
/// lengths.
fn comparable(error: Option<&UpstreamError>) -> Option<UpstreamError> {
    match error.cloned() {
        Some(UpstreamError::TooLarge {
            tag: b'E', limit, ..
        }) => Some(UpstreamError::TooLarge {
            tag: b'E',
            length: 0,
            limit,
        }),
        other => other,
    }
}

fn run(scenario: &Scenario<'_>) {
    let mut cut = Side::new(scenario);
    let mut whole = Side::new(scenario);
    if scenario.direct {
        cut.poll(scenario); // A driver takes the first event before it reads.
        whole.poll(scenario);
    }
    let mut pending = Vec::new();
    let mut followers = [Follower::new(), Follower::new()];
    for step in scenario.steps.iter().chain([&Step::Poll]) {
        let data = bytes_of(step);
        for piece in pgiam_fuzz::cut(&data, &scenario.cuts) {
            cut.feed(piece);
        }
        pending.extend_from_slice(&data);
        follow(&mut followers, &data);
        if !matches!(
            step,
            Step::Poll
                | Step::Eof
                | Step::Password(_)
                | Step::ClientMessage { .. }
                | Step::Tls
                | Step::AskPassword
        ) {
            continue;
        }
        whole.feed(&std::mem::take(&mut pending));
        for side in [&mut cut, &mut whole] {
            match step {
                Step::Eof => {
                    let outcome = side.upstream.handle_eof();
                    side.note(outcome);
                }
                Step::Password(token) => {
                    let outcome = side.upstream.password(token);
                    side.note(outcome);
                }
                Step::ClientMessage { framed, bytes } => {
                    let frame = if *framed {
                        message(b'p', bytes)
                    } else {
                        bytes.to_vec()
                    };
                    let outcome = side.upstream.client_message(frame.into());
                    side.note(outcome);
                }
                _ => {}
            }
            side.poll(scenario);
        }
        let errors = [&cut, &whole].map(|side| comparable(side.error.as_ref()));
        if errors.contains(&Some(UpstreamError::TooMuchUnread)) {
            break; // This limit is for what comes after the piece with ReadyForQuery in it.
        }
        assert_eq!(errors[0], errors[1]);
        assert_eq!(cut.output, whole.output);
        assert_eq!(cut.events, whole.events);
        assert_eq!(cut.upstream.stage(), whole.upstream.stage());
    }
    cut.finish(scenario.purpose);
    whole.finish(scenario.purpose);
}

/// Feeding at once and byte by byte comes to the same.
fn follow([whole, bytewise]: &mut [Follower; 2], data: &[u8]) {
    let outcome = whole.advance(data);
    let mut last = Ok(());
    for byte in data {
        last = bytewise.advance(std::slice::from_ref(byte));
    }
    if data.is_empty() {
        assert_eq!(bytewise.advance(&[]), outcome);
    } else {
        assert_eq!(last, outcome);
    }
    assert_eq!(whole.at_boundary(), bytewise.at_boundary());
}

fuzz_target!(|scenario: Scenario<'_>| run(&scenario));
