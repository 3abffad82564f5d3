//! Striping as a sans-io state machine: many byte streams over several carriers, each of which may
//! be slow, stop or end.
//!
//! A carrier is a reliable byte stream, here one Session Manager session, whose agent passes on
//! about 0.7 MB/s. A [`Bundle`] spreads each stream over all its carriers, so that N carriers carry N
//! times as much, and a carrier that ends costs the streams nothing while another lives: what it had
//! not delivered goes over the others.
//!
//! - A *subflow* is one carrier of a bundle, named by an index. A replaced carrier has the same index
//!   and a higher *generation*. It begins with a [`Hello`] and its [`HelloReply`].
//! - Data frames name their stream and offset, so they may arrive in any order and twice.
//! - Each side reports the bytes received on each subflow, by any other subflow. This bounds what
//!   waits inside a carrier (its *credit*), and tells what to repeat when a carrier ends.
//! - A stream has a window: the receiver stores no more than that, however the data is reordered.
//!
//! [`Bundle`] owns no socket, task or clock. The driver gives it received bytes with the time since
//! any fixed moment, collects events, writes what [`Bundle::poll_transmit`] returns, and calls
//! [`Bundle::handle_timeout`] at [`Bundle::poll_timeout`]:
//!
//! ```
//! use std::time::Duration;
//! use bytes::Bytes;
//! use stripe::{Bundle, BundleEvent, BundleId, Hello, Role};
//!
//! let now = Duration::ZERO;
//! let mut client = Bundle::new(Role::Client(BundleId::new([7; 16])));
//! let mut relay = Bundle::new(Role::Relay);
//! client.attach(0, 1, now)?;
//! let stream = client.open("db.example.com:5432", now)?;
//! client.send(stream, Bytes::from_static(b"hello"))?;
//!
//! let mut carrier = Vec::new();
//! while let Some(transmit) = client.poll_transmit(now) {
//!     carrier.extend_from_slice(&transmit.bytes);
//! }
//! let (hello, length) = Hello::decode(&carrier)?.expect("a whole hello");
//! relay.attach(hello.index, hello.generation, now)?;
//! relay.handle_input(0, &carrier[length..], now)?;
//! let target = "db.example.com:5432".to_owned();
//! assert_eq!(relay.poll_event(), Some(BundleEvent::Opened { id: stream, target }));
//! let data = Bytes::from_static(b"hello");
//! assert_eq!(relay.poll_event(), Some(BundleEvent::Data { id: stream, data }));
//! # Ok::<(), stripe::StripeError>(())
//! ```
#![forbid(unsafe_code)]

mod acks;
mod bundle;
mod credit;
mod error;
mod finished;
mod frame;
mod hello;
mod incoming;
mod limited;
mod outgoing;
mod subflow;

pub use bundle::{Bundle, BundleEvent, Role, Transmit};
pub use error::{StripeError, Violation};
pub use frame::{MAX_TEXT, StreamId};
pub use hello::{BundleId, Hello, HelloReply, MAX_SUBFLOWS, VERSION};
pub use incoming::{INITIAL_WINDOW, MAX_WINDOW};
