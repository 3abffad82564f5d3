//! How a target stands, for those who look.

use std::sync::Arc;

use super::Rooms;
use crate::observe::{View, Watched};

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
