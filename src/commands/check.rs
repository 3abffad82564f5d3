//! `pgiam check`.

use crate::cli::CheckArgs;

/// Does it.
///
/// # Errors
/// Not there yet.
pub async fn check(args: &CheckArgs) -> anyhow::Result<u8> {
    let _ = args;
    anyhow::bail!("not there yet")
}
