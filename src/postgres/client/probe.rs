//! Readiness probes: clients that only check whether connections are accepted.

use crate::admission::Arrival;
use crate::failure::ConnectionError;
use crate::postgres::route;
use crate::postgres::shared::Proxy;
use crate::postgres::target::PgPortTargets;
use pg_handshake::Startup;

/// Application name of `pg_isready` (`fallback_application_name` in pg_isready.c).
const PROBE: &[u8] = b"pg_isready";

/// Returns whether this client is a readiness probe.
pub(crate) fn is_probe(startup: &Startup) -> bool {
    startup.get("application_name") == Some(PROBE)
}

/// Refuses an admitted client at once if pgiam is stopping, or if it is a probe and the target is
/// not ready.
pub(crate) fn turned_away(
    proxy: &Proxy,
    port_targets: &PgPortTargets,
    startup: &Startup,
    arrival: &Arrival,
) -> Result<(), ConnectionError> {
    if proxy.serving.refuses_new_clients() {
        return Err(ConnectionError::NotReady(Box::new(
            ConnectionError::ShuttingDown,
        )));
    }
    if !is_probe(startup) {
        return Ok(());
    }
    // Connecting gives the best answer. But this client names no target, or does not know the
    // password, and both a password request and a list of targets mean "accepting connections"
    // (`PQping`).
    let asked = route::requested(port_targets, startup);
    let stranger = proxy.asks_password(arrival);
    let is_stopped = port_targets.targets.is_empty();
    if (asked.is_some() || is_stopped) && !stranger {
        return Ok(());
    }
    // The names of the targets are hidden from clients without the password.
    let shown = asked.filter(|_| !stranger || port_targets.targets.len() == 1);
    match port_targets.not_now(shown.map(|served| &**served)) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}
