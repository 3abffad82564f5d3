//! What lies on its way to one side of a session, and who is there to take it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::network::link::DelayLine;

/// Messages waiting for one side. Beyond it the sender waits while the side is there, and messages
/// are lost while it is away.
const QUEUE: usize = 256;
/// Messages passed on at once.
const BATCH: usize = 64;

/// Everything on its way to one side.
pub(super) struct Lane {
    pub(super) gate: Arc<Gate>,
    pub(super) queue: Arc<tokio::sync::Mutex<mpsc::Receiver<Bytes>>>,
    pub(super) line: OnceLock<DelayLine>,
    pub(super) holder: Mutex<Holder>,
}

#[derive(Default)]
pub(super) struct Holder {
    pub(super) orders: Option<mpsc::UnboundedSender<Order>>,
    pub(super) epoch: u64,
    /// This side was told that the other one is away.
    pub(super) paused: bool,
}

pub(super) struct Gate {
    pub(super) queue: mpsc::Sender<Bytes>,
    pub(super) attached: AtomicBool,
    /// Some connection was attached before.
    pub(super) known: AtomicBool,
}

/// What may be done to an attached connection from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// Drop the transport without a word.
    Cut,
    /// Close frame with code and reason.
    Close(u16, String),
    /// A newer connection of the same side takes over.
    Replaced,
}

impl Lane {
    pub(super) fn new() -> Self {
        let (queue, output) = mpsc::channel(QUEUE);
        Self {
            gate: Arc::new(Gate {
                queue,
                attached: AtomicBool::new(false),
                known: AtomicBool::new(false),
            }),
            queue: Arc::new(tokio::sync::Mutex::new(output)),
            line: OnceLock::new(),
            holder: Mutex::new(Holder::default()),
        }
    }
}

impl Gate {
    pub(super) async fn deliver(&self, message: Bytes) {
        if self.attached.load(Ordering::Acquire) {
            // Fails only when the session is gone, and then nobody wants the message.
            let _ = self.queue.send(message).await;
        } else {
            let _ = self.queue.try_send(message);
        }
    }

    /// The same for many messages; leaves `messages` empty.
    pub(super) async fn deliver_all(&self, messages: &mut Vec<Bytes>) {
        let mut rest = messages.drain(..);
        while rest.len() > 0 && self.attached.load(Ordering::Acquire) {
            let Ok(permits) = self.queue.reserve_many(rest.len().min(BATCH)).await else {
                return;
            };
            for (permit, message) in permits.zip(rest.by_ref()) {
                permit.send(message);
            }
        }
        for message in rest {
            let _ = self.queue.try_send(message);
        }
    }

    /// Whether this side was there once and is not now.
    pub(super) fn is_deserted(&self) -> bool {
        !self.attached.load(Ordering::Acquire) && self.known.load(Ordering::Acquire)
    }
}
