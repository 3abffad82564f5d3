//! Clients that only ask whether a connection could be made.

use pg_handshake::Startup;

/// What `pg_isready` calls itself (`fallback_application_name` in pg_isready.c).
const PROBE: &[u8] = b"pg_isready";

/// Whether this client only asks whether a connection could be made.
pub(crate) fn is_probe(startup: &Startup) -> bool {
    startup.get("application_name") == Some(PROBE)
}
