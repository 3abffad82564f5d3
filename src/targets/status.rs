//! Status of a target for displays and metrics.

use std::sync::{Arc, Weak};
use std::time::SystemTime;

use crate::config::{DatabaseRef, ResolvedTarget};
use crate::observe::{ReadyCounts, StatusSource, TargetStatus};
use crate::targets::context::{ProtocolState, TargetContext};
use crate::targets::served_target::ServedTarget;
use crate::tunnel::{Readiness, TunnelStats};

impl<P: ProtocolState> StatusSource for TargetContext<P> {
    fn status(&self) -> TargetStatus {
        TargetStatus {
            target: Arc::clone(&self.target),
            configured_as: DatabaseRef::Host(self.target.endpoint.clone()),
            readiness: self.transport.readiness(),
            failed: self.last_failure.get().map(Into::into),
            tunnel: self.transport.stats(),
            kept: self.protocol.ready(),
            found: true,
            identity: self.aws.loaded_identity(),
            stopped: None,
        }
    }
}

impl<P: ProtocolState> StatusSource for ServedTarget<P> {
    fn status(&self) -> TargetStatus {
        match self.ready() {
            Some(context) => TargetStatus {
                configured_as: self.config.database_ref.clone(),
                ..context.status()
            },
            None => TargetStatus {
                target: Arc::new(self.provisional()),
                configured_as: self.config.database_ref.clone(),
                readiness: Readiness::Starting,
                failed: self.lookup_failure().map(Into::into),
                tunnel: TunnelStats::default(),
                kept: ReadyCounts::default(),
                found: false,
                identity: None,
                stopped: None,
            },
        }
    }
}

/// Status of a target that the owner has stopped. It does not keep the tunnel open.
pub(crate) struct StoppedTarget<P> {
    target: Arc<ResolvedTarget>,
    configured_as: DatabaseRef,
    since: SystemTime,
    context: Weak<TargetContext<P>>,
}

impl<P: ProtocolState> StoppedTarget<P> {
    /// Creates the status of a target that was served until now.
    pub(crate) fn of(served: &ServedTarget<P>) -> Self {
        let context = served.ready();
        Self {
            target: context.map_or_else(
                || Arc::new(served.provisional()),
                |context| Arc::clone(&context.target),
            ),
            configured_as: served.config.database_ref.clone(),
            since: SystemTime::now(),
            context: context.map(Arc::downgrade).unwrap_or_default(),
        }
    }
}

impl<P: ProtocolState> StatusSource for StoppedTarget<P> {
    fn status(&self) -> TargetStatus {
        let context = self.context.upgrade();
        TargetStatus {
            target: Arc::clone(&self.target),
            configured_as: self.configured_as.clone(),
            readiness: Readiness::Idle,
            failed: None,
            tunnel: context
                .map(|context| context.transport.stats())
                .unwrap_or_default(),
            kept: ReadyCounts::default(),
            found: true,
            identity: None,
            stopped: Some(self.since),
        }
    }
}
