//! `pgiam run`.

use crate::cli::RunArgs;

/// Does it.
///
/// # Errors
/// Not there yet.
pub async fn run(args: &RunArgs) -> anyhow::Result<u8> {
    let _ = args;
    anyhow::bail!("not there yet")
}
