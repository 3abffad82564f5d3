//! End of the program: waits for connections, then closes them and the tunnels.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::tunnel::Transport;

/// Time after the stop signal within which every connection ends.
const STOP_DEADLINE: Duration = Duration::from_secs(6);
/// Time limit for ending the SSM sessions at exit.
pub(super) const TUNNEL_SHUTDOWN_DEADLINE: Duration = Duration::from_secs(8);

/// Parts of the program to stop at exit, in this order.
pub(crate) struct RunningParts {
    /// Ends the accept loops.
    pub(crate) accepting: CancellationToken,
    pub(crate) connections: TaskTracker,
    /// Ends the connections.
    pub(crate) stop: CancellationToken,
    pub(crate) transports: Vec<Arc<dyn Transport>>,
}

impl RunningParts {
    /// Stops accepting and waits up to `grace` for open connections; `hurry` cuts the wait short.
    /// Then it ends the remaining connections and the SSM sessions.
    pub(crate) async fn drain(self, grace: Duration, hurry: impl Future<Output = ()>) {
        self.accepting.cancel();
        self.wait(grace, hurry).await;
        self.finish(&TaskTracker::new()).await;
    }

    pub(super) async fn wait(&self, grace: Duration, hurry: impl Future<Output = ()>) {
        self.connections.close();
        if !self.connections.is_empty() {
            info!(
                connections = self.connections.len(),
                grace_s = grace.as_secs(),
                "waiting for open connections"
            );
            tokio::select! {
                () = self.connections.wait() => {}
                () = tokio::time::sleep(grace) => {}
                () = hurry => {}
            }
        }
    }

    /// Ends the connections, including the `late` ones, and the SSM sessions.
    pub(super) async fn finish(self, late: &TaskTracker) {
        self.stop.cancel();
        late.close();
        let all = async { tokio::join!(self.connections.wait(), late.wait()) };
        let closed = timeout(STOP_DEADLINE, all).await;
        if closed.is_err() {
            warn!(
                connections = self.connections.len() + late.len(),
                "open connections did not close in time"
            );
        }
        let tunnels = futures_util::future::join_all(
            self.transports.iter().map(|transport| transport.shutdown()),
        );
        if timeout(TUNNEL_SHUTDOWN_DEADLINE, tunnels).await.is_err() {
            warn!("ending the SSM sessions timed out; AWS ends them at their idle timeout");
        }
    }
}
