//! `pgiam init`.

use crate::cli::InitArgs;

/// Does it.
///
/// # Errors
/// Not there yet.
pub async fn init(args: &InitArgs) -> anyhow::Result<()> {
    let _ = args;
    anyhow::bail!("not there yet")
}
