//! Stops one target while the others are served.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Server, read, write};
use crate::base::names::TargetName;
use crate::observe::ListedTarget;
use crate::serving::protocol::ClientProtocol;
use crate::targets::served_target::ServedTarget;
use crate::targets::status::StoppedTarget;

/// A stopped target.
pub(super) struct StoppedRow {
    name: TargetName,
    /// Its place in the status.
    pub(super) listed: ListedTarget,
    /// Ends its connections.
    stop: CancellationToken,
}

impl<C: ClientProtocol> Server<C> {
    /// Stops a target until the next reload. Closes the ports that only this target uses, and
    /// refuses its clients at the others. Its open connections have `grace` to end, in the
    /// background; then they are notified and closed, and the tunnel ends. If the target is
    /// stopped already, its connections end at once. Returns `false` if there is no such target.
    pub async fn stop_target(&mut self, name: &TargetName, grace: Duration) -> bool {
        let rows = self.served.rows().into_iter();
        let mut rows = rows.filter(|row| !row.hub && row.served.config.name == *name);
        let Some(row) = rows.next() else {
            let mut again = self.stopped.iter().filter(|stopped| stopped.name == *name);
            return again.next().map(|stopped| stopped.stop.cancel()).is_some();
        };
        let served = row.served;
        self.stopped.push(StoppedRow {
            name: name.clone(),
            listed: ListedTarget {
                port: row.port,
                addresses: Vec::new(),
                by_name: row.by_name,
                socket: row.socket,
                source: Arc::new(StoppedTarget::of(&served)),
            },
            stop: served.stop.clone(),
        });
        let before = self.served.targets();
        self.withdraw(&served).await;
        self.retire(&before, &self.served.targets());
        self.show();
        let (all, target) = (self.protocol.serving().stop.clone(), served.stop.clone());
        tokio::spawn(async move {
            // The end of the program ends its connections by itself.
            if all
                .run_until_cancelled(tokio::time::sleep(grace))
                .await
                .is_some()
            {
                target.cancel();
            }
        });
        true
    }

    /// Removes a target from every port, and closes the ports without another target.
    async fn withdraw(&self, target: &Arc<ServedTarget<C::TargetState>>) {
        let mut closed = Vec::new();
        write(&self.served.0).retain(|open| {
            let Some(others) = read(&open.port_targets).without(target) else {
                return true;
            };
            if others.targets.is_empty() {
                closed.push(Arc::clone(open));
                return false;
            }
            *write(&open.port_targets) = others;
            true
        });
        for open in closed {
            open.accepting.cancel();
            open.loops.close();
            open.loops.wait().await;
        }
    }
}
