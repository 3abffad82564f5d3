//! Status of a target for displays and metrics.

use std::sync::Arc;

use crate::observe::{View, Watched};
use crate::targets::context::{ProtocolState, Rooms};
use crate::targets::served_target::Slot;
use crate::tunnel::{Readiness, TunnelStats};

impl<P: ProtocolState> Watched for Rooms<P> {
    fn view(&self) -> View {
        View {
            target: Arc::clone(&self.target),
            readiness: self.transport.readiness(),
            failed: self.last_failure.get().map(|failure| failure.id),
            tunnel: self.transport.stats(),
            found: true,
        }
    }
}

impl<P: ProtocolState> Watched for Slot<P> {
    fn view(&self) -> View {
        match self.ready() {
            Some(rooms) => rooms.view(),
            None => View {
                target: Arc::new(self.provisional()),
                readiness: Readiness::Starting,
                failed: self.lookup_failure().map(|failure| failure.id),
                tunnel: TunnelStats::default(),
                found: false,
            },
        }
    }
}
