//! `pgiam tunnel`: plain TCP to any host and port.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::announce::{ReadyLine, announce};
use super::login::on_demand;
use super::serve::state_dir;
use crate::admin::{AdminOptions, AdminServer, ControlRequests, ProcessKind};
use crate::admission::Guard;
use crate::base::foreign_text::visible;
use crate::cli::TunnelArgs;
use crate::config::{PeerFlags, ServeSettings};
use crate::forward::{self, BoundAddress, Forwarder};
use crate::observe::Observed;
use crate::platform::{self, StopSignals};
use crate::tunnel::ssm::leftovers;

/// Forwards connections until a signal ends it.
///
/// # Errors
/// Invalid configuration, or a port cannot be bound.
pub async fn tunnel(args: &TunnelArgs) -> anyhow::Result<()> {
    let file = super::load_file(&args.program)?;
    let config = file.path.clone();
    // The other keys of [serve] do not apply to a tunnel.
    let serve = args.serve_layer().or(file.serve.clone());
    let serve = ServeSettings::from_layer(serve.only(PeerFlags::KEYS))?;
    let guard = Arc::new(Guard::of_clients(serve.peer_check));
    let target = file.forward(args.to.clone(), args.target.as_deref(), &args.layer())?;
    let mut signals = StopSignals::install().context("cannot listen for signals")?;
    tokio::select! {
        offered = on_demand::offer_for(target.settings.profile.as_deref()) => offered?,
        signal = signals.next() => anyhow::bail!("stopped by {signal}"),
    }
    super::raise_descriptors();

    let bound = forward::bind(&args.listen())?;
    let place = format!("{} via {}", target.endpoint, target.settings.via);
    let ready: Vec<ReadyLine> = bound
        .iter()
        .map(BoundAddress::address)
        .map(|listen| ReadyLine {
            name: "tunnel".to_owned(),
            command: listen.to_string(),
            place: visible(&place).into_owned(),
            reason: None,
        })
        .collect();
    // Without a home directory there is no default state directory, and no other feature needs one.
    let state_dir = state_dir(args.state.state_dir.as_ref())?;
    if let Some(dir) = platform::socket::run_dir(state_dir.as_deref()) {
        leftovers::keep_in(&dir);
    }
    let transport = forward::transport(&target);
    let observed = Arc::new(Observed::new(serve.max_connections));
    let stop = CancellationToken::new();
    let controls = ControlRequests {
        stop: stop.clone(),
        ..ControlRequests::default()
    };
    let options = AdminOptions {
        kind: ProcessKind::Tunnel,
        config,
        http: None,
        control_dir: platform::socket::run_dir(state_dir.as_deref()),
        log: None,
    };
    let admin = AdminServer::start(options, Arc::clone(&observed), controls)?;
    let forwarder = Forwarder::start(target, transport, bound, guard, observed);
    announce(&ready);

    let signal = tokio::select! {
        signal = signals.next() => signal,
        () = stop.cancelled() => "pgiam stop",
    };
    info!(signal, "stopping");
    let grace = Duration::from_secs(args.drain.drain_timeout);
    forwarder
        .drain(grace, async { _ = signals.next().await })
        .await;
    admin.stop().await;
    info!("stopped");
    Ok(())
}
