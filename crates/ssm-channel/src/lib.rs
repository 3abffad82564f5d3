//! The client's end of an AWS Session Manager data channel, as a sans-io state machine.
//!
//! The service relays WebSocket messages between a client and the SSM agent on an instance. This
//! crate speaks what is inside them: the binary [message layout](frame), the [handshake], numbering,
//! acknowledgements and retransmission. What the channel carries for a port session (a smux byte
//! stream) is another crate's business.
//!
//! [`Channel`] owns no socket, task or clock. One connection's life:
//!
//! 1. [`Channel::new`]; open the WebSocket; send what [`Channel::poll_transmit`] hands out.
//! 2. For each binary WebSocket message: [`Channel::handle_message`].
//! 3. When [`Channel::poll_timeout`] has come: [`Channel::handle_timeout`].
//! 4. After each of these, and after [`Channel::send`]: take all [`Channel::poll_event`]s, then
//!    [`Channel::poll_transmit`] until it gives `None`, then set the timer anew.
//!
//! Time is a [`Duration`](std::time::Duration) since an epoch of the caller's choice, taken from a monotonic clock; it
//! never runs backwards.
//!
//! Where a rule has no other source, it is the behaviour of `session-manager-plugin` and
//! `amazon-ssm-agent` 3.3.0.0 as seen on the wire between the two.
#![forbid(unsafe_code)]

mod channel;
mod config;
mod error;
mod event;
pub mod frame;
pub mod handshake;
mod id;
mod kinds;
mod negotiate;
mod recv;
mod rtt;
mod send;
mod version;
mod window;

pub use channel::Channel;
pub use config::{CLIENT_VERSION, Config, Token};
pub use error::Error;
pub use event::{Event, Stats, Transmit};
pub use frame::{Acknowledge, AgentMessage, FrameError};
pub use id::{IdSource, MessageId, ParseIdError, SequenceNumber};
pub use kinds::{Flag, MessageType, PayloadType};
pub use version::{AgentVersion, ParseVersionError};

/// Most payload bytes of one Output message, as both real programs cut them. Whether the service
/// takes more is unknown.
pub const MAX_PAYLOAD: usize = 1024;
