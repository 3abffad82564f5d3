//! The seam between a connection and the path to its database.

use std::sync::Arc;

use bytes::Bytes;

use super::{TunnelError, TunnelStats};
use crate::base::stream::{BoxFuture, Stream};

/// Opens byte streams to one target's database.
pub trait Transport: Send + Sync {
    /// Opens a stream to the endpoint the transport was made for, writes `hello` to it, and waits
    /// until the far side has sent something, or with an empty `hello` not at all.
    ///
    /// A tunnel's dial happens on the bastion, and nothing but the far side's first bytes tells that
    /// it worked. When it does not, `hello` is sent again through another session; so it must be
    /// something that may reach the far side more than once, such as an SSLRequest.
    ///
    /// What breaks a stream later shows as an [`io::Error`] that carries a [`TunnelError`], see
    /// [`TunnelError::of`]. The caller sets the deadline. Cancel-safe.
    fn open(&self, hello: Bytes) -> BoxFuture<'_, Result<Stream, TunnelError>>;

    /// The same for a stream that is over in a moment, such as one that carries a CancelRequest: it
    /// takes what is there and starts nothing that is meant to last.
    fn open_briefly(&self, hello: Bytes) -> BoxFuture<'_, Result<Stream, TunnelError>> {
        self.open(hello)
    }

    /// Starts what the first stream would have to wait for, and waits for it; who carries it, where
    /// somebody does. Opens no stream. The caller sets the deadline. Cancel-safe.
    fn prepare(&self) -> BoxFuture<'_, Result<Option<Arc<str>>, TunnelError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Who would be asked to carry the next stream, in order; nobody where it needs nobody. Starts
    /// nothing. Takes no longer than some seconds. Cancel-safe.
    fn carriers(&self) -> BoxFuture<'_, Result<Vec<Carrier>, TunnelError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Whether shutting a stream down closes its sending direction alone, as TCP does. A tunnel's
    /// stream closes both ways.
    fn half_closes(&self) -> bool {
        false
    }

    /// How the way stands at this moment. Starts nothing.
    fn readiness(&self) -> Readiness;

    /// The step that [`Transport::open`] is waiting for at this moment, as a noun; `None` where that
    /// is not known. Starts nothing.
    fn waits_for(&self) -> Option<&'static str> {
        None
    }

    /// What it has done so far, and what it holds open. Starts nothing.
    fn stats(&self) -> TunnelStats {
        TunnelStats::default()
    }

    /// Ends what the transport holds open at AWS. Streams end with an error. The caller sets the
    /// deadline.
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}

/// Somebody who may carry a tunnel: a managed node, or a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carrier {
    /// Its id, as it is configured or was found.
    pub id: String,
    /// What Systems Manager says about it.
    pub state: CarrierState,
}

/// What Systems Manager says about a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CarrierState {
    /// Its agent has reported.
    Known {
        /// It is in touch, as far as is known: it takes minutes to notice that one is not.
        online: bool,
        /// `Online`, `ConnectionLost`, `Inactive`.
        ping: String,
        /// When its agent was last heard of, as in RFC 3339.
        last_ping: Option<String>,
        /// The agent's version.
        agent: Option<String>,
    },
    /// There is no managed node of that id.
    Unlisted,
    /// It does not say: we may not ask, or it is a container.
    Unknown,
}

/// How the way to a database stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// A stream can be opened, as far as is known.
    Up,
    /// Nothing is open, because nobody has needed it; the next stream starts it.
    Idle,
    /// It is being started.
    Starting,
    /// It was there and is lost; it is being tried again.
    Interrupted,
}
