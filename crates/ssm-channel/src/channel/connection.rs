//! Loss of the WebSocket and reconnection.

use std::time::Duration;

use super::{Channel, opening};
use crate::config::ChannelToken;
use crate::error::Error;

impl Channel {
    /// Handles the loss of the WebSocket. Until [`reconnect`](Self::reconnect) nothing is handed
    /// out, nothing becomes overdue and no deadline runs, however long it takes. Waiting events,
    /// and messages that arrived before the loss, can still be taken and handled.
    pub fn disconnected(&mut self, now: Duration) {
        if std::mem::take(&mut self.connected) {
            self.said.disconnected(now);
            self.outgoing.disconnect();
        }
    }

    /// Continues the session on a new WebSocket, with a token from `ssm:ResumeSession`.
    ///
    /// [`poll_transmit`](Self::poll_transmit) hands out, in this order: the opening text with the
    /// new token and the same client id; again the latest acknowledgements, which may be lost with
    /// the old connection; the acknowledgements that were still waiting; and again every
    /// unacknowledged message, oldest first, as fast as a new window opens, because the new path is
    /// unknown. A pause is over; an unfinished handshake continues where it was, with its full time
    /// again. Works with and without [`disconnected`](Self::disconnected) before it.
    ///
    /// # Errors
    /// The error that ended the channel before.
    pub fn reconnect(
        &mut self,
        now: Duration,
        token: ChannelToken,
        request_id: String,
    ) -> Result<(), Error> {
        self.check()?;
        self.disconnected(now);
        self.connected = true;
        self.open = Some(opening(
            &self.client_id,
            &self.client_version,
            token,
            request_id,
        ));
        self.handshake_deadline = now + self.handshake_timeout;
        for of in self.said.take_lost() {
            self.acks.push_front(of);
        }
        self.restart();
        self.stats.reconnects += 1;
        Ok(())
    }
}
