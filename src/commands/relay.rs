//! `pgiam relay`: the far end of striped connections, on the bastion.

use std::time::Duration;

use anyhow::Context;
use tracing::info;

use super::announce::{ReadyLine, announce};
use crate::cli::RelayArgs;
use crate::config::Listen;
use crate::platform::StopSignals;
use crate::relay::{AllowList, Relay, RelayOptions};

/// Relays until a signal ends it.
///
/// # Errors
/// The port cannot be had.
pub async fn relay(args: &RelayArgs) -> anyhow::Result<()> {
    let mut signals = StopSignals::install().context("cannot listen for signals")?;
    super::raise_descriptors();
    let allow = AllowList::new(args.allow.clone());
    let place = allow.to_string();
    let relay = Relay::start(RelayOptions {
        port: args.port,
        allow,
        resolve: args.resolve.iter().cloned().collect(),
        max_connections: usize::from(args.max_connections),
    })?;
    announce(&[ReadyLine {
        name: "relay".to_owned(),
        command: Listen::Localhost(relay.port()).to_string(),
        place,
        reason: None,
    }]);
    let signal = signals.next().await;
    info!(signal, "stopping");
    let grace = Duration::from_secs(args.drain.drain_timeout);
    relay.drain(grace, async { _ = signals.next().await }).await;
    info!("stopped");
    Ok(())
}
