//! Status of a target for displays and metrics.

use std::sync::Arc;

use crate::observe::{StatusSource, TargetStatus};
use crate::targets::context::{ProtocolState, TargetContext};
use crate::targets::served_target::ServedTarget;
use crate::tunnel::{Readiness, TunnelStats};

impl<P: ProtocolState> StatusSource for TargetContext<P> {
    fn status(&self) -> TargetStatus {
        TargetStatus {
            target: Arc::clone(&self.target),
            readiness: self.transport.readiness(),
            failed: self.last_failure.get().map(Into::into),
            tunnel: self.transport.stats(),
            found: true,
            identity: self.aws.loaded_identity(),
        }
    }
}

impl<P: ProtocolState> StatusSource for ServedTarget<P> {
    fn status(&self) -> TargetStatus {
        match self.ready() {
            Some(context) => context.status(),
            None => TargetStatus {
                target: Arc::new(self.provisional()),
                readiness: Readiness::Starting,
                failed: self.lookup_failure().map(Into::into),
                tunnel: TunnelStats::default(),
                found: false,
                identity: None,
            },
        }
    }
}
