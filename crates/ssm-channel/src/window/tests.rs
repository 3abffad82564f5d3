//! The control on a model of the path: a fixed delay each way, an agent that takes messages one
//! after the other at a fixed rate, and loss. The sending half around it is the real one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::Bytes;

use super::*;
use crate::id::SequenceNumber;
use crate::send::SendBuffer;

const CAP: usize = 4096;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn us(us: u64) -> Duration {
    Duration::from_micros(us)
}

struct Path {
    one_way: Duration,
    /// The agent's time per message.
    service: Duration,
    /// Losses per 1,000 messages.
    loss: u64,
}

struct Model {
    path: Path,
    out: SendBuffer,
    now: Duration,
    /// Time at which the agent has processed all messages sent so far.
    busy: Duration,
    /// Acknowledgements on their way to the sender.
    acks: BinaryHeap<Reverse<(Duration, u64)>>,
    delivered: u64,
    sent: u64,
    repeated: u64,
    longest_queue: Duration,
    random: u64,
    /// The next message is lost.
    lose_next: bool,
}

impl Model {
    fn new(path: Path) -> Self {
        Self {
            path,
            out: SendBuffer::new(SendWindow::new(CAP)),
            now: ms(0),
            busy: ms(0),
            acks: BinaryHeap::new(),
            delivered: 0,
            sent: 0,
            repeated: 0,
            longest_queue: ms(0),
            random: 1,
            lose_next: false,
        }
    }

    fn lost(&mut self) -> bool {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005) + 1_442_695;
        let unlucky = (self.random >> 33) % 1000 < self.path.loss;
        unlucky || std::mem::take(&mut self.lose_next)
    }

    /// Sends as many messages as allowed.
    fn fill(&mut self) {
        loop {
            if self.out.room() > 0 {
                self.out
                    .push(Bytes::from(self.out.next_number().to_string()));
            }
            let Some(outbound) = self.out.next_outbound(self.now) else {
                break;
            };
            self.sent += 1;
            self.repeated += u64::from(outbound.repeated);
            if self.lost() {
                continue;
            }
            let number = std::str::from_utf8(&outbound.message).unwrap().parse();
            let arrival = self.now + self.path.one_way;
            let begin = self.busy.max(arrival);
            self.longest_queue = self.longest_queue.max(begin - arrival);
            self.busy = begin + self.path.service;
            let ack = (self.busy + self.path.one_way, number.unwrap());
            self.acks.push(Reverse(ack));
        }
    }

    /// Runs for `time`; returns the messages delivered in that time.
    fn run(&mut self, time: Duration) -> u64 {
        let (end, before) = (self.now + time, self.delivered);
        loop {
            self.fill();
            let ack = self.acks.peek().map(|Reverse((at, _))| *at);
            let next = ack.into_iter().chain(self.out.next_due()).min().unwrap();
            if next > end {
                self.now = end;
                return self.delivered - before;
            }
            self.now = next;
            while let Some(Reverse((at, number))) = self.acks.peek().copied()
                && at <= self.now
            {
                self.acks.pop();
                let first = self.out.acknowledge(self.now, SequenceNumber::new(number));
                self.delivered += u64::from(first);
            }
            self.out.expire(self.now);
            let size = self.out.window().size();
            assert!((SMALLEST..=CAP).contains(&size), "{size}");
        }
    }

    fn size(&self) -> usize {
        self.out.window().size()
    }
}

#[test]
fn both_limits_hold() {
    let window = SendWindow::new(10);
    assert_eq!(window.room(0, 0), 10);
    assert_eq!(window.room(4, 4), 6);
    assert_eq!(window.room(11, 11), 0);
    assert_eq!(window.room(1, MAX_SPAN - 2), 2);
    assert_eq!(window.room(1, MAX_SPAN + 1), 0);
    assert_eq!(SendWindow::new(CAP).room(0, 0), INITIAL);
    assert_eq!(SendWindow::new(0).room(0, 0), 0);
    assert!(SendWindow::new(0).may_hand_out(0), "the handshake");
}

#[test]
fn a_fast_agent_gets_all_it_takes() {
    for one_way in [us(100), ms(1), ms(5), ms(25)] {
        let service = us(25);
        let mut model = Model::new(Path {
            one_way,
            service,
            loss: 0,
        });
        model.run(ms(2000));
        let (took, sent) = (model.run(ms(8000)), model.sent);
        let possible = 8_000_000 / 25;
        assert!(took > possible * 98 / 100, "{one_way:?}: {took}");
        assert!(sent >= took && model.repeated == 0, "{one_way:?}");
        assert!(model.longest_queue < ms(110), "{:?}", model.longest_queue);
    }
}

/// For more than a minute: the standing queue must not be mistaken for the path.
#[test]
fn a_slow_agent_has_little_queued_and_is_never_idle() {
    for service in [us(300), us(1430), ms(5), ms(20)] {
        let mut model = Model::new(Path {
            one_way: ms(1),
            service,
            loss: 0,
        });
        // The slowest takes a while to process the first window.
        model.run(ms(20_000));
        model.longest_queue = ms(0);
        let took = model.run(ms(65_000));
        let possible = (ms(65_000).as_micros() / service.as_micros()) as u64;
        assert!(
            took > possible * 97 / 100,
            "{service:?}: {took} of {possible}"
        );
        let bound = ms(75) + service * 8;
        assert!(
            model.longest_queue < bound,
            "{service:?}: {:?}",
            model.longest_queue
        );
        assert!(model.repeated < 200, "{service:?}: {}", model.repeated);
    }
}

#[test]
fn a_long_path_opens_the_window_to_the_cap() {
    let mut model = Model::new(Path {
        one_way: ms(150),
        service: us(25),
        loss: 0,
    });
    model.run(ms(4000));
    assert_eq!(model.size(), CAP);
    assert!(model.repeated <= 32, "{}", model.repeated);
    let took = model.run(ms(60_000));
    assert!(took > CAP as u64 * 200 * 99 / 100, "{took}");
}

#[test]
fn some_loss_costs_little() {
    for (loss, share) in [(10, 95), (20, 90), (50, 80)] {
        let mut model = Model::new(Path {
            one_way: ms(5),
            service: us(200),
            loss,
        });
        model.run(ms(3000));
        let took = model.run(ms(10_000));
        assert!(took > 50_000 * share / 100, "{loss}: {took}");
    }
}

/// The agent drops messages before its port handler is ready.
#[test]
fn one_loss_at_the_start_changes_nothing() {
    let path = || Path {
        one_way: ms(5),
        service: us(50),
        loss: 0,
    };
    let mut spared = Model::new(path());
    spared.run(ms(500));
    let mut hit = Model::new(path());
    hit.out.push(Bytes::from("0"));
    hit.fill();
    hit.lose_next = true;
    hit.run(ms(500));
    assert!(hit.repeated > 0);
    let (spared, hit) = (spared.run(ms(500)), hit.run(ms(500)));
    assert!(hit > spared * 95 / 100, "{hit} instead of {spared}");
}

#[test]
fn nothing_is_flooded_while_an_agent_is_stuck_and_it_is_fast_again_soon() {
    let mut model = Model::new(Path {
        one_way: ms(5),
        service: us(50),
        loss: 0,
    });
    model.run(ms(2000));
    assert!(model.size() > 500, "{}", model.size());
    model.path.loss = 1000;
    model.sent = 0;
    model.run(ms(30_000));
    assert_eq!(model.size(), SMALLEST);
    assert!(model.sent < 15_000, "{}", model.sent);
    model.path.loss = 0;
    model.run(ms(4000));
    let took = model.run(ms(1000));
    assert!(took > 18_000, "{took}");
}

#[test]
fn a_path_that_becomes_longer_is_learnt() {
    let mut model = Model::new(Path {
        one_way: ms(5),
        service: us(50),
        loss: 0,
    });
    model.run(ms(2000));
    assert!(model.out.window().base().unwrap() < ms(12));
    model.path.one_way = ms(100);
    model.run(ms(30_000));
    let base = model.out.window().base().unwrap();
    assert!(base > ms(200) && base < ms(215), "{base:?}");
    let took = model.run(ms(10_000));
    assert!(took > 180_000, "{took}");
}

#[test]
fn a_session_at_rest_keeps_its_window() {
    let mut model = Model::new(Path {
        one_way: ms(5),
        service: us(50),
        loss: 0,
    });
    model.run(ms(300));
    let before = model.size();
    // One message at a time from here on.
    for _ in 0..1000 {
        model.now += ms(100);
        while let Some(Reverse((_, number))) = model.acks.pop() {
            model
                .out
                .acknowledge(model.now, SequenceNumber::new(number));
        }
        model
            .out
            .push(Bytes::from(model.out.next_number().to_string()));
        model.out.next_outbound(model.now).unwrap();
        let number = SequenceNumber::new(model.out.next_number().get() - 1);
        model.now += ms(10);
        model.out.acknowledge(model.now, number);
    }
    assert!(model.size() >= before * 7 / 8, "{}", model.size());
}

#[test]
fn a_new_connection_starts_small() {
    let mut model = Model::new(Path {
        one_way: ms(50),
        service: us(25),
        loss: 0,
    });
    model.run(ms(3000));
    let in_flight = model.out.in_flight();
    assert!(in_flight > 1000);
    model.out.disconnect();
    model.acks.clear();
    model.busy = model.now;
    assert_eq!(model.out.next_due(), None);
    assert_eq!((model.out.room(), model.size()), (0, INITIAL));
    (model.sent, model.repeated) = (0, 0);
    model.fill();
    assert_eq!((model.sent, model.repeated), (32, 32));
    model.run(ms(2000));
    assert_eq!(model.repeated, in_flight as u64);
    assert_eq!(model.size(), CAP);
}
