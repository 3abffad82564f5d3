//! Our multiplexer talks to `async_smux`, an implementation of the same protocol that has nothing
//! in common with it, in both roles.
//!
//! The two agree on every byte of the wire. They differ in what a FIN means: `async_smux` closes
//! one direction, ours (as `xtaci/smux`, whose reader of a FIN refuses to write from then on, and
//! whose writer of one drops what still comes) both. [`ends`] pins down that this difference costs
//! nothing but bytes nobody could read.

mod ends;
mod exchange;
mod ours;
mod pressure;
mod transfers;

use std::num::{NonZeroU64, NonZeroUsize};

use async_smux::{MuxAcceptor, MuxBuilder, MuxConnector};
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;

use ours::Ours;
use smux::MuxRole;

/// What connects the two, bytes it can hold.
const CARRIER: usize = 64 * 1024;
/// The product's packet.
const PACKET: usize = 1024;

/// The other side: all handles of one `async_smux` session.
struct Theirs {
    connector: MuxConnector<DuplexStream>,
    acceptor: MuxAcceptor<DuplexStream>,
    worker: JoinHandle<()>,
}

impl Drop for Theirs {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

struct Setup {
    /// Our role; theirs is the other.
    ours: MuxRole,
    carrier: usize,
    packet: usize,
    /// Frames they hold before they stop reading the carrier.
    their_frames: usize,
    /// Seconds between their keepalives.
    keep_alive: Option<u64>,
}

impl Setup {
    fn new(ours: MuxRole) -> Self {
        Self {
            ours,
            carrier: CARRIER,
            packet: PACKET,
            their_frames: 1024,
            keep_alive: None,
        }
    }

    /// Two sessions that face each other.
    fn start(self) -> (Ours, Theirs) {
        let (near, far) = tokio::io::duplex(self.carrier);
        let mut builder = match self.ours {
            MuxRole::Client => MuxBuilder::server(),
            MuxRole::Server => MuxBuilder::client(),
        };
        builder.with_max_rx_queue(NonZeroUsize::new(self.their_frames).unwrap());
        if let Some(seconds) = self.keep_alive {
            builder.with_keep_alive_interval(NonZeroU64::new(seconds).unwrap());
        }
        let (connector, acceptor, worker) = builder.with_connection(far).build();
        let theirs = Theirs {
            connector,
            acceptor,
            worker: tokio::spawn(async move {
                // How it ends shows in its streams.
                let _ = worker.await;
            }),
        };
        (Ours::start(self.ours, near, self.packet), theirs)
    }
}
