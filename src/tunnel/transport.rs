//! The interface between a connection and the path to its database.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;

use super::{TunnelError, TunnelStats};
use crate::base::names::NodeId;
use crate::base::stream::{BoxFuture, Stream};

/// Opens byte streams to one target's database.
pub trait Transport: Send + Sync {
    /// Opens a stream to the transport's endpoint, writes `hello` to it, and waits until the far
    /// side has sent data; with an empty `hello` it does not wait.
    ///
    /// A tunnel's dial happens on the bastion, and only the far side's first bytes prove that it
    /// worked. If it fails, `hello` is sent again through another session. So `hello` must be data
    /// that may reach the far side more than once, such as an SSLRequest.
    ///
    /// A later failure of the stream is an [`io::Error`](std::io::Error) that carries a [`TunnelError`], see
    /// [`TunnelError::of`]. The caller sets the deadline. Cancel-safe.
    fn open(&self, hello: Bytes) -> BoxFuture<'_, Result<Stream, TunnelError>>;

    /// Opens a short-lived stream, such as one for a CancelRequest: it uses existing sessions and
    /// starts nothing long-lived.
    fn open_briefly(&self, hello: Bytes) -> BoxFuture<'_, Result<Stream, TunnelError>> {
        self.open(hello)
    }

    /// Opens a stream that is kept for a later connection. It uses existing sessions, and starts
    /// nothing. A tunnel ends it when its session leaves, unless a connection has taken it.
    fn open_spare(
        &self,
        hello: Bytes,
        mark: SpareMark,
    ) -> BoxFuture<'_, Result<Stream, TunnelError>> {
        _ = mark;
        self.open(hello)
    }

    /// Takes a kept stream for a connection. Returns `false` if another stream is better: then a
    /// mark that is still kept says that this one may suit later.
    fn take_spare(&self, mark: &SpareMark) -> bool {
        mark.take()
    }

    /// Opens a stream for this purpose.
    fn open_for(
        &self,
        purpose: StreamPurpose,
        hello: Bytes,
    ) -> BoxFuture<'_, Result<Stream, TunnelError>> {
        match purpose {
            StreamPurpose::Connection => self.open(hello),
            StreamPurpose::Brief => self.open_briefly(hello),
            StreamPurpose::Spare(mark) => self.open_spare(hello, mark),
        }
    }

    /// Starts everything that the first stream would wait for, and waits for it. Returns the
    /// bastion in use, if there is one. Opens no stream. The caller sets the deadline. Cancel-safe.
    fn prepare(&self) -> BoxFuture<'_, Result<Option<NodeId>, TunnelError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Returns the bastions for the next stream, in order; empty without a bastion. Starts nothing.
    /// Takes no longer than some seconds. Cancel-safe.
    fn carriers(&self) -> BoxFuture<'_, Result<Vec<BastionCandidate>, TunnelError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Returns true if shutting a stream down closes only its sending direction, as in TCP. A
    /// tunnel's stream closes both ways.
    fn half_closes(&self) -> bool {
        false
    }

    /// Returns the current state of the path. Starts nothing.
    fn readiness(&self) -> Readiness;

    /// Returns the step that [`Transport::open`] is waiting for now, as a noun; `None` if unknown.
    /// Starts nothing.
    fn waits_for(&self) -> Option<&'static str> {
        None
    }

    /// Returns totals and open sessions. Starts nothing.
    fn stats(&self) -> TunnelStats {
        TunnelStats::default()
    }

    /// Ends all sessions at AWS. Streams end with an error. The caller sets the deadline.
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}

/// Purpose of a stream.
#[derive(Clone, Debug)]
pub enum StreamPurpose {
    /// A connection: see [`Transport::open`].
    Connection,
    /// A short-lived stream: see [`Transport::open_briefly`].
    Brief,
    /// A stream for a later connection: see [`Transport::open_spare`].
    Spare(SpareMark),
}

/// Mark of a stream that is kept for a later connection, shared by its keeper and the transport.
/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct SpareMark(Arc<AtomicU8>);

/// States of a mark.
const KEPT: u8 = 0;
const TAKEN: u8 = 1;
const RELEASED: u8 = 2;

impl SpareMark {
    /// Takes the stream for a connection. Returns `false` if the transport has released it.
    pub fn take(&self) -> bool {
        self.change(TAKEN)
    }

    /// Releases the stream. Returns `false` if a connection has taken it.
    pub fn release(&self) -> bool {
        self.change(RELEASED)
    }

    /// Returns true while no connection uses the stream and the transport has not released it.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.0.load(Ordering::Acquire) == KEPT
    }

    /// Returns true if the transport has released the stream.
    #[must_use]
    pub fn is_released(&self) -> bool {
        self.0.load(Ordering::Acquire) == RELEASED
    }

    /// Returns true if a connection has taken the stream.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.0.load(Ordering::Acquire) == TAKEN
    }

    /// Moves a kept stream to `state`, once.
    fn change(&self, state: u8) -> bool {
        self.0
            .compare_exchange(KEPT, state, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Returns true if both mark the same stream.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A possible bastion: a managed node, or a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BastionCandidate {
    /// Its id, as configured or found.
    pub id: NodeId,
    /// Systems Manager's information about it.
    pub state: BastionState,
}

/// Systems Manager's information about a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BastionState {
    /// Its agent has reported.
    Known {
        /// It is in contact, as far as known: Systems Manager takes minutes to notice a loss.
        online: bool,
        /// `Online`, `ConnectionLost`, `Inactive`.
        ping: String,
        /// Last contact of its agent, as in RFC 3339.
        last_ping: Option<String>,
        /// The agent's version.
        agent: Option<String>,
    },
    /// There is no managed node of that id.
    Unlisted,
    /// No information: the caller lacks permission, or it is a container.
    Unknown,
}

/// State of the path to a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// A stream can be opened, as far as known.
    Up,
    /// Nothing is open, because it was not needed yet; the next stream starts it.
    Idle,
    /// It is being started.
    Starting,
    /// It was open and is lost; it is being retried.
    Interrupted,
}
