//! `pgiam setup`.

use crate::cli::SetupArgs;

/// Does it.
///
/// # Errors
/// Not there yet.
pub async fn setup(args: &SetupArgs) -> anyhow::Result<()> {
    let _ = args;
    anyhow::bail!("not there yet")
}
