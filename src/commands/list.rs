//! `pgiam list`.

use crate::cli::ListArgs;

/// Does it.
///
/// # Errors
/// Not there yet.
pub async fn list(args: &ListArgs) -> anyhow::Result<()> {
    let _ = args;
    anyhow::bail!("not there yet")
}
