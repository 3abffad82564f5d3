//! Stops one target while the others are served.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};

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
    /// Ends the wait for its connections, which then stay open.
    _waits: DropGuard,
}

impl<C: ClientProtocol> Server<C> {
    /// Stops a target until the next reload. Its ports stay open: new clients are refused, and
    /// cancel requests of its open connections are served. The connections have `grace` to end, in
    /// the background; then they are notified and closed, and the tunnel ends. A reload within
    /// `grace` leaves them open. `None` closes them now, also those of a target that is stopped
    /// already. Returns `false` if there is no such target.
    pub fn stop_target(&mut self, name: &TargetName, grace: Option<Duration>) -> bool {
        let rows = self.served.rows().into_iter();
        let mut rows = rows.filter(|row| !row.hub && row.served.config.name == *name);
        let Some(row) = rows.next() else {
            let again = self.stopped.iter().find(|stopped| stopped.name == *name);
            if let (Some(stopped), None) = (again, grace) {
                stopped.stop.cancel();
            }
            return again.is_some();
        };
        let served = row.served;
        let waits = CancellationToken::new();
        self.stopped.push(StoppedRow {
            name: name.clone(),
            listed: ListedTarget {
                port: row.port,
                addresses: self.at.serve.addresses.clone(),
                by_name: row.by_name,
                socket: row.socket,
                source: Arc::new(StoppedTarget::of(&served)),
            },
            stop: served.stop.clone(),
            _waits: waits.clone().drop_guard(),
        });
        let before = self.served.targets();
        self.withdraw(&served);
        self.retire(&before, &self.served.targets());
        self.show();
        let target = served.stop.clone();
        tokio::spawn(async move {
            let grace = tokio::time::sleep(grace.unwrap_or_default());
            // A reload or the end of the program ends the wait.
            if waits.run_until_cancelled(grace).await.is_some() {
                target.cancel();
            }
        });
        true
    }

    /// Removes a target from every port. A port without another target stays open.
    fn withdraw(&self, target: &Arc<ServedTarget<C::TargetState>>) {
        for open in read(&self.served.0).iter() {
            let others = read(&open.port_targets).without(target);
            if let Some(others) = others {
                *write(&open.port_targets) = others;
            }
        }
    }
}
