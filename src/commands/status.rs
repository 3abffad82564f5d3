//! `pgiam status`, `pgiam wait` and `pgiam stop`: what the running program says and is told.

use crate::cli::{StatusArgs, StopArgs, WaitArgs};

/// Shows what the running program does.
///
/// # Errors
/// Not there yet.
pub async fn status(args: &StatusArgs) -> anyhow::Result<u8> {
    let _ = args;
    anyhow::bail!("not there yet")
}

/// Waits until it is ready.
///
/// # Errors
/// Not there yet.
pub async fn wait(args: &WaitArgs) -> anyhow::Result<u8> {
    let _ = args;
    anyhow::bail!("not there yet")
}

/// Ends it.
///
/// # Errors
/// Not there yet.
pub async fn stop(args: &StopArgs) -> anyhow::Result<u8> {
    let _ = args;
    anyhow::bail!("not there yet")
}
