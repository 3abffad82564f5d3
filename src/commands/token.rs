//! `pgiam token`.

use crate::cli::TokenArgs;

/// Does it.
///
/// # Errors
/// Not there yet.
pub async fn token(args: &TokenArgs) -> anyhow::Result<()> {
    let _ = args;
    anyhow::bail!("not there yet")
}
