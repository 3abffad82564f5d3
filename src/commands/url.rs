//! `pgiam url`.

use crate::cli::UrlArgs;

/// Does it.
///
/// # Errors
/// Not there yet.
pub async fn url(args: &UrlArgs) -> anyhow::Result<()> {
    let _ = args;
    anyhow::bail!("not there yet")
}
