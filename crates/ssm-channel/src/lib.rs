//! The client's end of an AWS Session Manager data channel, as a sans-io state machine.
//!
//! The service relays WebSocket messages between a client and the SSM agent on an instance. This
//! crate implements their content: the binary [message layout](frame), the [handshake], numbering,
//! acknowledgements and retransmission. The data that the channel carries for a port session (a
//! smux byte stream) belongs to another crate.
//!
//! [`Channel`] owns no socket, task or clock. One connection's life:
//!
//! 1. [`Channel::new`]; open the WebSocket; send the output of [`Channel::poll_transmit`].
//! 2. For each binary WebSocket message: [`Channel::handle_message`].
//! 3. When [`Channel::poll_timeout`] has come: [`Channel::handle_timeout`].
//! 4. After each of these, and after any other call that changes state: take all
//!    [`Channel::poll_event`]s, then [`Channel::poll_transmit`] until it returns `None`, then set
//!    the timer anew.
//! 5. [`Event::KeyRequired`] (only in sessions with encryption): request a key from KMS, then
//!    [`Channel::provide_key`] or [`Channel::refuse_key`]. Steps 2 to 4 continue meanwhile.
//! 6. The WebSocket is lost: [`Channel::disconnected`]; get a new token; open a WebSocket;
//!    [`Channel::reconnect`]; continue with step 2. This may happen at any time, in the handshake
//!    too, and any number of times. The bytes of the session are not affected.
//! 7. From [`Event::Established`] on, as often as [`Channel::sendable`] is not 0:
//!    [`Channel::send`], at most [`Channel::max_payload`] bytes. At the end [`Channel::terminate`],
//!    until [`Channel::is_drained`].
//!
//! The first fatal [`Error`] ends the channel. Its remaining output (for example the answer that
//! refuses the agent's requests) is worth sending, but nothing depends on it.
//!
//! Time is a [`Duration`](std::time::Duration) since an epoch of the caller's choice, taken from a
//! monotonic clock; it never runs backwards.
//!
//! A rule without another source follows the behaviour of `session-manager-plugin` and
//! `amazon-ssm-agent` 3.3.0.0 as seen on the wire between the two.
#![forbid(unsafe_code)]

mod ack;
mod channel;
mod config;
mod crypt;
mod digest;
mod error;
mod event;
pub mod frame;
pub mod handshake;
mod id;
mod kinds;
mod negotiate;
mod recent_acks;
mod recv;
mod rtt;
mod send;
mod version;
mod window;

pub use channel::Channel;
pub use config::{CLIENT_VERSION, ChannelConfig, ChannelToken};
pub use crypt::DataKey;
pub use error::Error;
pub use event::{Event, Stats, Transmit};
pub use frame::{Acknowledge, AgentMessage, FrameError};
pub use id::{IdSource, MessageId, ParseIdError, SequenceNumber};
pub use kinds::{FlagPayload, MessageType, PayloadType};
pub use version::{AgentVersion, ParseVersionError};

/// Most payload bytes of one Output message on the wire, as both real programs cut them. It is
/// unknown if the service takes more. [`Channel::max_payload`] is the limit for callers.
pub const MAX_PAYLOAD: usize = 1024;
