//! How a target stands, for those who look.

use std::sync::Arc;

use super::{Rooms, Slot};
use crate::observe::{View, Watched};
use crate::tunnel::{Readiness, TunnelStats};

impl Watched for Rooms {
    fn view(&self) -> View {
        View {
            target: Arc::clone(&self.target),
            readiness: self.transport.readiness(),
            failed: self.last_failure.get(),
            tunnel: self.transport.stats(),
        }
    }
}

impl Watched for Slot {
    fn view(&self) -> View {
        match self.ready() {
            Some(rooms) => rooms.view(),
            None => View {
                target: Arc::new(self.provisional()),
                readiness: Readiness::Starting,
                failed: self.failed_lookup(),
                tunnel: TunnelStats::default(),
            },
        }
    }
}
