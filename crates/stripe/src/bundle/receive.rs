//! What arrives: frames of streams, and reports about what this side has sent.

use std::time::Duration;

use super::{Bundle, BundleEvent, MAX_STREAMS, Role, StripedStream};
use crate::error::{StripeError, Violation};
use crate::frame::{Ack, Body, Frame, Received, StreamId};
use crate::hello::HelloReply;
use crate::subflow::SubflowState;

impl Bundle {
    /// Takes bytes of a carrier, split in any way; at the relay those after the hello.
    ///
    /// # Errors
    /// [`StripeError::NotAttached`]; [`StripeError::Magic`] or [`StripeError::Version`] if the
    /// carrier does not lead to a relay of this version, after which the driver closes the carrier;
    /// or [`StripeError::Peer`], which ends the bundle.
    pub fn handle_input(
        &mut self,
        index: u8,
        bytes: &[u8],
        now: Duration,
    ) -> Result<(), StripeError> {
        self.check()?;
        let subflow = self.subflows.get_mut(&index);
        let subflow = subflow.ok_or(StripeError::NotAttached(index))?;
        subflow.parser.push(bytes);
        match subflow.state {
            SubflowState::Refused => return Ok(()),
            SubflowState::Ready => {}
            SubflowState::Starting | SubflowState::Hasty => {
                let Some((reply, length)) = HelloReply::decode(subflow.parser.buffered())? else {
                    return Ok(());
                };
                subflow.parser.skip(length);
                if let HelloReply::Refused(reason) = reply {
                    subflow.state = SubflowState::Refused;
                    self.events
                        .push_back(BundleEvent::Refused { index, reason });
                    return Ok(());
                }
                subflow.state = SubflowState::Ready;
                self.events.push_back(BundleEvent::Ready(index));
            }
        }
        let outcome = self.read(index, now);
        outcome.map_err(|violation| {
            let error = StripeError::Peer { index, violation };
            self.failed = Some(error.clone());
            error
        })
    }

    fn read(&mut self, index: u8, now: Duration) -> Result<(), Violation> {
        loop {
            let Some(subflow) = self.subflows.get_mut(&index) else {
                return Ok(());
            };
            match subflow.parser.next()? {
                None => return Ok(()),
                Some(Received::Ping) => {
                    self.acks.asked.insert(index);
                    self.report_everything(now);
                    self.acks.at_once(now);
                }
                Some(Received::Ack(ack)) => self.handle_ack(&ack, now)?,
                Some(Received::Limited) => self.events.push_back(BundleEvent::Limited),
                Some(Received::Frame(frame)) => {
                    subflow.received += frame.wire_len() as u64;
                    let unreported = subflow.received - subflow.reported;
                    self.acks.received(unreported, now);
                    self.handle_frame(frame, now)?;
                }
            }
        }
    }

    fn handle_frame(
        &mut self,
        Frame { stream: id, body }: Frame,
        now: Duration,
    ) -> Result<(), Violation> {
        if !self.knows(id, now)? {
            return Ok(());
        }
        if let Body::Reset(reason) = body {
            let was_open = self.streams.get(&id).is_some_and(|stream| stream.is_open);
            self.forget(id);
            if was_open {
                self.events.push_back(BundleEvent::Reset { id, reason });
            }
            return Ok(());
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        match body {
            Body::Data { offset, data } => stream.incoming.accept(id, offset, data)?,
            Body::Fin { length } => stream.incoming.set_end(id, length)?,
            Body::Open(target) if !stream.is_open => {
                stream.is_open = true;
                self.events.push_back(BundleEvent::Opened { id, target });
            }
            Body::Open(_) | Body::Reset(_) => {}
        }
        if stream.is_open {
            while let Some(data) = stream.incoming.take() {
                self.events.push_back(BundleEvent::Data { id, data });
            }
            if stream.incoming.take_end() {
                self.events.push_back(BundleEvent::Finished(id));
                self.forget_if_over(id);
            }
        }
        Ok(())
    }

    /// Returns true if frames of this stream are of use. At the relay the first of them creates the
    /// stream: its OPEN may be late.
    fn knows(&mut self, id: StreamId, now: Duration) -> Result<bool, Violation> {
        if self.streams.contains_key(&id) {
            return Ok(true);
        }
        if self.finished.contains(id.0) {
            return Ok(false);
        }
        match self.role {
            Role::Client(_) => Err(Violation::ForeignStream(id)),
            Role::Relay if id.0 == 0 => Err(Violation::ForeignStream(id)),
            Role::Relay if self.streams.len() >= MAX_STREAMS => Err(Violation::Streams),
            Role::Relay => {
                self.streams.insert(id, StripedStream::new(false, now));
                Ok(true)
            }
        }
    }

    fn handle_ack(&mut self, ack: &Ack, now: Duration) -> Result<(), Violation> {
        for entry in &ack.subflows {
            let subflow = self.subflows.get_mut(&entry.index);
            let current = subflow.filter(|subflow| subflow.generation == entry.generation);
            // A report about a carrier that was replaced.
            let Some(subflow) = current else { continue };
            let (received, sent) = (entry.received, subflow.sent());
            if received > sent {
                return Err(Violation::Acknowledged { received, sent });
            }
            for number in subflow.report(received, now) {
                self.settle(number);
            }
        }
        for entry in &ack.streams {
            let Some(stream) = self.streams.get_mut(&entry.stream) else {
                continue;
            };
            if stream.outgoing.raise_limit(entry.limit) {
                self.blocked.remove(&entry.stream);
                self.ping = None;
                self.wait(entry.stream);
            }
        }
        Ok(())
    }

    /// Notes that a frame has arrived.
    fn settle(&mut self, number: u64) {
        let Some(settled) = self.unsettled.remove(&number) else {
            return;
        };
        let id = settled.frame.stream;
        if let Some(stream) = self.streams.get_mut(&id) {
            let length = settled.frame.wire_len() as u64;
            stream.outgoing.settled(length);
            self.wait(id);
            self.forget_if_over(id);
        }
    }
}
