//! The protocol that a server calls.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::state::ServingState;
use crate::admission::{Admitted, Refused};
use crate::base::stream::Stream;
use crate::targets::context::ProtocolState;
use crate::targets::served_target::PortTargets;

/// Protocol of the clients that a server accepts.
pub trait ClientProtocol: Send + Sync + 'static {
    /// State that the protocol keeps for each target.
    type TargetState: ProtocolState;

    /// Returns the state that all connections share, in every protocol.
    fn serving(&self) -> &ServingState;

    /// Serves an admitted client to its end, and logs failures. Releases `startup_permit` when the
    /// client has completed its startup.
    fn serve(
        self: Arc<Self>,
        port_targets: PortTargets<Self::TargetState>,
        client: Admitted<Stream>,
        startup_permit: OwnedSemaphorePermit,
    ) -> impl Future<Output = ()> + Send;

    /// Refuses a client in the terms of the protocol.
    fn refuse(
        self: Arc<Self>,
        port_targets: PortTargets<Self::TargetState>,
        client: Refused<Stream>,
    ) -> impl Future<Output = ()> + Send;
}
