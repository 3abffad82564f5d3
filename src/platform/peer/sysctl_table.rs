//! Reads the table of TCP sockets of macOS. Untested: written after the kernel's source.

use std::io;

use sysctl::{Ctl, CtlValue, Sysctl, SysctlError};

use super::{PeerOwner, SocketPair, own_uid, pcblist};

/// Name of the table. `netstat` reads it, too, and needs no privileges for that.
const TABLE: &str = "net.inet.tcp.pcblist_n";
/// Number of attempts: the table may grow between the call for its size and the call for its
/// contents.
const READS: usize = 3;

/// Returns the owners of the sockets with the ends of `pairs`, in their order. Blocks.
///
/// # Errors
/// None. A table that cannot be read has no owners.
pub(super) fn owners(pairs: &[SocketPair]) -> io::Result<Vec<PeerOwner>> {
    let table = read().unwrap_or_else(|error| {
        tracing::debug!(%error, "cannot read the table of TCP sockets");
        Vec::new()
    });
    Ok(pcblist::owners(&table, pairs, own_uid()))
}

fn read() -> Result<Vec<u8>, SysctlError> {
    let table = Ctl::new(TABLE)?;
    let mut value = table.value();
    for _ in 1..READS {
        if value.is_ok() {
            break;
        }
        value = table.value();
    }
    match value? {
        CtlValue::Struct(bytes) | CtlValue::Node(bytes) => Ok(bytes),
        _ => Err(SysctlError::ExtractionError),
    }
}
