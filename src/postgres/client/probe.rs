//! Clients that only ask whether a connection could be made.

use crate::admission::Arrival;
use crate::failure::SessionError;
use crate::postgres::shared::Proxy;
use crate::postgres::target::slot::Entry;
use pg_handshake::Startup;

/// What `pg_isready` calls itself (`fallback_application_name` in pg_isready.c).
const PROBE: &[u8] = b"pg_isready";

/// Whether this client only asks whether a connection could be made.
pub(crate) fn is_probe(startup: &Startup) -> bool {
    startup.get("application_name") == Some(PROBE)
}

/// Why a client that may connect is told no at once.
pub(crate) fn turned_away(
    proxy: &Proxy,
    entry: &Entry,
    startup: &Startup,
    arrival: &Arrival,
) -> Result<(), SessionError> {
    if proxy.turns_newcomers_away() {
        return Err(SessionError::NotReady(Box::new(SessionError::ShuttingDown)));
    }
    if !is_probe(startup) {
        return Ok(());
    }
    // The best answer is to try. But it names no target, or does not know the password; to ask for
    // that, or to name the targets, is to say that connections are accepted (`PQping`).
    let asked = entry.named(startup);
    let stranger = proxy.asks_password(arrival);
    if asked.is_some() && !stranger {
        return Ok(());
    }
    // Which targets there are is not for those who do not know the password.
    match entry.not_now(asked.filter(|_| !stranger || entry.slots.len() == 1)) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}
