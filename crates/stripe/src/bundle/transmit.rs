//! What is sent, in which order, and over which carrier.

use std::time::Duration;

use bytes::BytesMut;

use super::{Bundle, BundleEvent, Role, Transmit, Unsettled};
use crate::frame::{
    Ack, Body, CHUNK, DATA_HEADER, Frame, StreamId, StreamLimit, SubflowAck, encode_limited,
    encode_ping,
};
use crate::outgoing::MAX_QUEUED;
use crate::subflow::Subflow;

/// Bytes of bulk data in the express lane: one carrier stays nearly empty while there are small
/// messages, so that they need not wait behind bulk.
const EXPRESS: u64 = 8 * 1024;
/// Time after a small message for which the lane is kept.
const EXPRESS_TIME: Duration = Duration::from_secs(1);
/// Minimum number of carriers for a lane.
const EXPRESS_OF: usize = 3;
/// A stream with at least this many bytes in flight sends bulk.
const BULK: u64 = 8 * 1024;
/// Bytes beyond the credit of a carrier that are not bulk.
const ALLOWANCE: u64 = 8 * 1024;
/// First and greatest pause between requests for reports.
const FIRST_PING: Duration = Duration::from_millis(300);
const LAST_PING: Duration = Duration::from_secs(10);

impl Bundle {
    /// Returns the next bytes for a carrier, or `None` when there is nothing to send. Streams with
    /// few bytes in flight come first, and a frame goes to the carrier that holds the least.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<Transmit> {
        if self.failed.is_some() {
            return None;
        }
        self.greeting()
            .or_else(|| self.ack_if_due(now))
            .or_else(|| self.queued_frame(now))
            .or_else(|| self.chunk(now))
            .or_else(|| self.tell_of_limit(now))
    }

    /// Tells the client when data has waited for credit for long: by an event, or by a frame.
    fn tell_of_limit(&mut self, now: Duration) -> Option<Transmit> {
        let waits = !self.waiting.is_empty() && self.healthy() > 0;
        if !self.limited.note(waits, now) {
            return None;
        }
        match self.role {
            Role::Client(_) => {
                self.events.push_back(BundleEvent::Limited);
                None
            }
            Role::Relay => {
                let index = self.next_for_acks()?;
                let mut out = BytesMut::new();
                encode_limited(&mut out);
                let bytes = out.freeze();
                Some(Transmit { index, bytes })
            }
        }
    }

    fn greeting(&mut self) -> Option<Transmit> {
        let mut subflows = self.subflows.iter_mut();
        subflows.find_map(|(&index, subflow)| {
            let bytes = subflow.greeting.take()?;
            Some(Transmit { index, bytes })
        })
    }

    fn ack_if_due(&mut self, now: Duration) -> Option<Transmit> {
        if self.acks.due().is_none_or(|due| due > now) {
            return None;
        }
        let asked = self.acks.asked.pop_first();
        let index = asked.filter(|index| self.subflows.contains_key(index));
        let index = index.or_else(|| self.next_for_acks())?;
        let mut out = BytesMut::new();
        self.put_ack(index, &mut out, now);
        let bytes = out.freeze();
        (!bytes.is_empty()).then_some(Transmit { index, bytes })
    }

    /// Returns the carrier after that of the last report, one with progress if possible.
    fn next_for_acks(&self) -> Option<u8> {
        let last = self.acks.last;
        let usable = |stalled| {
            let subflows = self.subflows.iter();
            subflows.filter(move |(_, subflow)| {
                subflow.takes_frames() && (stalled || !subflow.is_stalled)
            })
        };
        [false, true].into_iter().find_map(|stalled| {
            let after = usable(stalled).find(|(index, _)| **index > last);
            after
                .or_else(|| usable(stalled).next())
                .map(|(index, _)| *index)
        })
    }

    /// Appends what is unreported; nothing if everything is reported.
    fn put_ack(&mut self, index: u8, out: &mut BytesMut, now: Duration) {
        let mut ack = Ack::default();
        for (&index, subflow) in &mut self.subflows {
            if subflow.received > subflow.reported {
                subflow.reported = subflow.received;
                ack.subflows.push(SubflowAck {
                    index,
                    generation: subflow.generation,
                    received: subflow.received,
                });
            }
        }
        while ack.streams.len() < Ack::MOST_STREAMS
            && let Some(stream) = self.acks.limits.pop_first()
        {
            if let Some(known) = self.streams.get_mut(&stream) {
                let limit = known.incoming.report();
                ack.streams.push(StreamLimit { stream, limit });
            }
        }
        self.acks.reported();
        if !self.acks.limits.is_empty() || !self.acks.asked.is_empty() {
            self.acks.at_once(now);
        }
        if !ack.subflows.is_empty() || !ack.streams.is_empty() {
            self.acks.last = index;
            ack.encode(out);
        }
    }

    /// Sends a frame that goes before new data.
    fn queued_frame(&mut self, now: Duration) -> Option<Transmit> {
        while let Some(&number) = self.first.front() {
            let queued = self.unsettled.get(&number);
            let Some(length) = queued.and_then(|queued| self.use_of(queued)) else {
                // It has arrived, or its stream is over.
                self.unsettled.remove(&number);
                self.first.pop_front();
                continue;
            };
            let index = self.choose(length, false, now)?;
            self.first.pop_front();
            return self.dispatch(number, index, now);
        }
        None
    }

    /// Returns the length of a frame that is still of use.
    fn use_of(&self, queued: &Unsettled) -> Option<usize> {
        let Frame { stream, body } = &queued.frame;
        let is_of_use = matches!(body, Body::Reset(_)) || self.streams.contains_key(stream);
        is_of_use.then(|| queued.frame.wire_len())
    }

    /// Sends new data of the stream with the fewest bytes in flight.
    fn chunk(&mut self, now: Duration) -> Option<Transmit> {
        let &(in_flight, _, id) = self.waiting.first()?;
        let length = self.streams.get(&id)?.outgoing.chunk_len();
        let is_bulk = in_flight >= BULK;
        let index = self.choose(DATA_HEADER + length, is_bulk, now)?;
        if !is_bulk && self.streams.len() > 1 {
            self.small_message = Some(now);
        }
        let stream = self.streams.get_mut(&id)?;
        let (offset, data) = stream.outgoing.take();
        if stream.outgoing.wants_room && stream.outgoing.room() >= MAX_QUEUED / 2 {
            stream.outgoing.wants_room = false;
            self.events.push_back(BundleEvent::Writable(id));
        }
        let number = self.number(id, Body::Data { offset, data });
        self.turn += 1;
        self.frame_end(id);
        self.wait(id);
        if self.is_blocked(id) {
            self.blocked.insert(id);
            self.ping.get_or_insert((now + FIRST_PING, FIRST_PING));
        }
        self.dispatch(number, index, now)
    }

    fn is_blocked(&self, id: StreamId) -> bool {
        let stream = self.streams.get(&id);
        stream.is_some_and(|stream| stream.outgoing.is_blocked())
    }

    /// Chooses the carrier for a frame: of those that have room, the one that holds the least.
    fn choose(&self, length: usize, is_bulk: bool, now: Duration) -> Option<u8> {
        let healthy = self.healthy();
        let rates = self.subflows.values().filter(|subflow| !subflow.is_stalled);
        let best = rates.filter_map(Subflow::rate).max().unwrap_or(0);
        let usable = self.subflows.iter().filter(|(_, subflow)| {
            let is_left_out = subflow.is_stalled || subflow.is_slow_beside(best, now);
            // The last carrier is never left out because it stalls.
            subflow.takes_frames() && (healthy == 0 || !is_left_out)
        });
        let is_recent = |at: Duration| now.saturating_sub(at) < EXPRESS_TIME;
        let has_lane = healthy >= EXPRESS_OF && self.small_message.is_some_and(is_recent);
        let express = (is_bulk && has_lane).then(|| self.express()).flatten();
        let fits = |(index, subflow): &(&u8, &Subflow)| {
            let most = match is_bulk {
                true if express == Some(**index) => EXPRESS,
                true => subflow.credit(),
                false => subflow.credit() + ALLOWANCE,
            };
            let held = subflow.in_flight();
            held == 0 || held + length as u64 <= most
        };
        let least = usable
            .filter(fits)
            .min_by_key(|(_, subflow)| subflow.in_flight());
        least.map(|(index, _)| *index)
    }

    /// Returns the carrier that bulk data leaves nearly empty: the one with the shortest round trip.
    fn express(&self) -> Option<u8> {
        let healthy = self
            .subflows
            .iter()
            .filter(|(_, subflow)| subflow.takes_frames() && !subflow.is_stalled);
        let shortest =
            healthy.min_by_key(|(_, subflow)| subflow.least_round_trip().unwrap_or(Duration::MAX));
        shortest.map(|(index, _)| *index)
    }

    /// Puts a numbered frame into a carrier, after a report that may join it.
    fn dispatch(&mut self, number: u64, index: u8, now: Duration) -> Option<Transmit> {
        let mut out = BytesMut::with_capacity(CHUNK + DATA_HEADER);
        if self.role == Role::Relay && self.acks.may_join(now) {
            self.put_ack(index, &mut out, now);
        }
        let unsettled = self.unsettled.get_mut(&number)?;
        unsettled.copies = unsettled.copies.saturating_add(1);
        unsettled.is_queued = false;
        unsettled.frame.encode(&mut out);
        let length = unsettled.frame.wire_len();
        self.subflows.get_mut(&index)?.send(number, length, now);
        let bytes = out.freeze();
        Some(Transmit { index, bytes })
    }

    /// Registers a frame that is to be repeated until it has arrived.
    fn number(&mut self, stream: StreamId, body: Body) -> u64 {
        let number = self.next_frame;
        self.next_frame += 1;
        let frame = Frame { stream, body };
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.outgoing.framed(frame.wire_len() as u64);
        }
        self.unsettled.insert(
            number,
            Unsettled {
                frame,
                copies: 0,
                is_queued: false,
            },
        );
        number
    }

    /// Queues a frame that goes before new data.
    pub(super) fn queue_first(&mut self, stream: StreamId, body: Body) {
        let number = self.number(stream, body);
        self.queue_again(number);
    }

    fn queue_again(&mut self, number: u64) {
        if let Some(unsettled) = self.unsettled.get_mut(&number)
            && !unsettled.is_queued
        {
            unsettled.is_queued = true;
            self.first.push_back(number);
        }
    }

    /// Queues the end of a stream whose data is all framed.
    pub(super) fn frame_end(&mut self, id: StreamId) {
        let stream = self.streams.get_mut(&id);
        if let Some(length) = stream.and_then(|stream| stream.outgoing.take_end()) {
            self.queue_first(id, Body::Fin { length });
        }
    }

    /// Puts a stream at its place among those that have data for a frame.
    pub(super) fn wait(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if let Some((in_flight, turn)) = stream.waits_as.take() {
            self.waiting.remove(&(in_flight, turn, id));
        }
        if stream.outgoing.chunk_len() > 0 {
            let key = (stream.outgoing.in_flight, self.turn);
            stream.waits_as = Some(key);
            self.waiting.insert((key.0, key.1, id));
        }
    }

    /// Removes a carrier and queues what only it held.
    pub(super) fn remove(&mut self, index: u8, now: Duration) {
        let Some(subflow) = self.subflows.remove(&index) else {
            return;
        };
        for number in subflow.held() {
            if let Some(unsettled) = self.unsettled.get_mut(&number) {
                unsettled.copies = unsettled.copies.saturating_sub(1);
                if unsettled.copies == 0 {
                    self.queue_again(number);
                }
            }
        }
        self.report_everything(now);
    }

    /// Queues what stalled carriers hold, if another one makes progress.
    pub(super) fn repeat_stalled(&mut self, now: Duration) {
        let due = |subflow: &Subflow| subflow.stalls_at().is_some_and(|at| at <= now);
        let stalled: Vec<u8> = self
            .subflows
            .iter()
            .filter(|(_, subflow)| due(subflow))
            .map(|(index, _)| *index)
            .collect();
        for index in stalled {
            if self.healthy() <= 1 {
                return;
            }
            let Some(subflow) = self.subflows.get_mut(&index) else {
                continue;
            };
            subflow.is_stalled = true;
            let held: Vec<u64> = subflow.held().collect();
            for number in held {
                let copies = self
                    .unsettled
                    .get(&number)
                    .map(|unsettled| unsettled.copies);
                if copies == Some(1) {
                    self.queue_again(number);
                }
            }
        }
    }

    /// Asks for reports when a stream has waited for its window for long: the report may have been
    /// in a carrier that ended or stalls.
    pub(super) fn ask_for_reports(&mut self, now: Duration) {
        let Some((at, pause)) = self.ping else { return };
        if at > now {
            return;
        }
        self.ping = None;
        if self.blocked.is_empty() {
            return;
        }
        let longer = (pause * 2).min(LAST_PING);
        self.ping = Some((now + longer, longer));
        if let Some(index) = self.next_for_acks()
            && let Some(subflow) = self.subflows.get_mut(&index)
        {
            let mut out = BytesMut::new();
            encode_ping(&mut out);
            let ping = out.freeze();
            let before = subflow.greeting.take();
            subflow.greeting = Some(match before {
                Some(greeting) => [greeting, ping].concat().into(),
                None => ping,
            });
            self.acks.last = index;
        }
    }
}
