//! From streams of bytes to paced messages.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::AgentControl;
use super::outgoing::Outgoing;
use super::pace::Pacer;
use crate::aws::wire::payload;

/// Messages made at once when there is no pace to keep.
const BATCH: usize = 64;

/// Cuts the frames' bytes into messages without regard to their borders, and keeps the pace, which
/// all streams of the session share.
pub(super) async fn send_payloads(
    outgoing: Arc<Outgoing>,
    control: AgentControl,
    mut frames: mpsc::Receiver<Bytes>,
) {
    let mut held = BytesMut::new();
    let mut pacer = Pacer::new();
    loop {
        outgoing.active().await;
        let mut idle = false;
        if held.is_empty() {
            let frame = match frames.try_recv() {
                Ok(frame) => Some(frame),
                Err(_) => {
                    idle = true;
                    frames.recv().await
                }
            };
            let Some(frame) = frame else { return };
            take(&mut held, frame);
        }
        let (size, pace) = control.read(|s| (s.payload_size.max(1), s.pace));
        let count = if pace.is_some() { 1 } else { BATCH };
        while held.len() < size * count {
            let Ok(frame) = frames.try_recv() else { break };
            take(&mut held, frame);
        }
        outgoing
            .send_parts(payload::OUTPUT, &mut held, size, count)
            .await;
        match pace {
            Some(pace) => pacer.pause(pace, idle).await,
            // Without a pause this loop could keep everybody else from running.
            None => tokio::task::consume_budget().await,
        }
    }
}

fn take(held: &mut BytesMut, frame: Bytes) {
    if held.is_empty() {
        // Not copied when nobody else holds the frame.
        *held = BytesMut::from(frame);
    } else {
        held.extend_from_slice(&frame);
    }
}
