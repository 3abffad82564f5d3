//! smux version 1 as a sans-io state machine: many byte streams over one reliable byte stream.
//!
//! The rules are those of the Go library `xtaci/smux` in version 1 mode, which the SSM agent runs
//! on its side of a port-forwarding session. A frame is an eight byte [`Header`] and up to 65,535
//! bytes of data; there is no window and no reset, and a FIN closes a stream in *both* directions.
//!
//! [`Mux`] owns no socket, task or clock. The driver gives it received bytes, collects events,
//! and polls for bytes to send, in this order:
//!
//! ```
//! use bytes::Bytes;
//! use smux::{Mux, MuxEvent, MuxRole};
//!
//! let mut client = Mux::new(MuxRole::Client);
//! let mut server = Mux::new(MuxRole::Server);
//! let id = client.open()?;
//! client.send(id, Bytes::from_static(b"hello"))?;
//! while let Some(bytes) = client.poll_transmit(1024) {
//!     server.handle_input(bytes)?;
//! }
//! assert_eq!(server.poll_event(), Some(MuxEvent::Opened(id)));
//! assert_eq!(server.poll_event(), Some(MuxEvent::Data { id, data: Bytes::from_static(b"hello") }));
//! # Ok::<(), smux::MuxError>(())
//! ```
#![forbid(unsafe_code)]

mod error;
mod frame;
mod mux;
mod parser;
mod schedule;
mod stream;

pub use error::MuxError;
pub use frame::{
    Command, Frame, FrameError, HEADER_LEN, Header, MAX_FRAME_DATA, StreamId, VERSION,
};
pub use mux::{Mux, MuxEvent, MuxRole};
