//! Losing the WebSocket and going on with another one.

use std::time::Duration;

use super::{Channel, opening};
use crate::config::Token;
use crate::error::Error;

impl Channel {
    /// The WebSocket is lost. Until [`reconnect`](Self::reconnect) nothing is handed out, nothing
    /// becomes overdue and no deadline runs, however long it takes. Events that are waiting, and
    /// messages that arrived before the loss, can still be taken and handled.
    pub fn disconnected(&mut self, now: Duration) {
        if std::mem::take(&mut self.connected) {
            self.said.disconnected(now);
            self.outgoing.disconnect();
        }
    }

    /// There is a new WebSocket for the session, with a token from `ssm:ResumeSession`.
    ///
    /// [`poll_transmit`](Self::poll_transmit) first hands out the opening text with the new token and
    /// the same client id, then again the latest acknowledgements, which may have died with the old
    /// connection, then those that were still waiting, then again everything that was handed out and
    /// has no acknowledgement, oldest first and as fast as a new window opens: nothing is known of the
    /// new path. A pause is over; a handshake that was not finished
    /// goes on where it was, with its full time again. Works with and without
    /// [`disconnected`](Self::disconnected) before it.
    ///
    /// # Errors
    /// The error that ended the channel before.
    pub fn reconnect(
        &mut self,
        now: Duration,
        token: Token,
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
