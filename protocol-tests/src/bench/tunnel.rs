//! `sandbox bench tunnel`: the tunnel beside other clients of Session Manager, in one run on one
//! sandbox.
//!
//! Absolute figures say more about the machine than about the programs: everything here, agent and
//! database included, shares its processors. The ratios are what to compare.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::circumstances::Circumstances;
use super::figures::Figures;
use super::page::Section;
use super::rivals::{BRIDGE, BRIDGE_VERSION, Programs};
use super::{database, idle, raw, relayed};
use crate::demo::{BASTION, FarSide, Signals, say};

/// What was asked for on the command line.
#[derive(Debug, Clone)]
pub struct TunnelOptions {
    /// The `pgiam` binary.
    pub pgiam: PathBuf,
    /// The `bridge-forward` binary.
    pub bridge: PathBuf,
    /// Amazon's `session-manager-plugin`, where it is installed.
    pub plugin: Option<PathBuf>,
    /// Shorter measurements: a few minutes in all.
    pub quick: bool,
    /// Only the rows of the relay; nothing is written.
    pub relay_only: bool,
    /// Folder of the documents that get the tables and plots.
    pub docs: Option<PathBuf>,
}

/// How long and how often everything is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Measurements of which the middle one counts.
    pub(crate) rounds: u32,
    /// Bytes of a transfer at the agent's pace.
    pub(crate) paced_bytes: u64,
    /// Bytes of an upload, which has no pace.
    pub(crate) upload_bytes: u64,
    /// Bytes of a download without the agent's pace.
    pub(crate) unpaced_bytes: u64,
    /// How long to look at the pace itself.
    pub(crate) pace_for: Duration,
    pub(crate) pgbench_rounds: u32,
    pub(crate) pgbench_seconds: u64,
    pub(crate) logins: u32,
    /// How long to look at the memory, and how much of that counts as the start.
    pub(crate) memory: Duration,
    pub(crate) settle: Duration,
    /// How long to look at the idle processor.
    pub(crate) idle: Duration,
}

impl Plan {
    /// About five minutes.
    const QUICK: Self = Self {
        rounds: 3,
        paced_bytes: 2 << 20,
        upload_bytes: 24 << 20,
        unpaced_bytes: 96 << 20,
        pace_for: Duration::from_secs(3),
        pgbench_rounds: 3,
        pgbench_seconds: 3,
        logins: 7,
        memory: Duration::from_secs(60),
        settle: Duration::from_secs(20),
        idle: Duration::from_secs(20),
    };
    /// About twenty-five minutes.
    const FULL: Self = Self {
        rounds: 5,
        paced_bytes: 7 << 20,
        upload_bytes: 64 << 20,
        unpaced_bytes: 256 << 20,
        pace_for: Duration::from_secs(10),
        pgbench_rounds: 5,
        pgbench_seconds: 5,
        logins: 15,
        memory: Duration::from_secs(600),
        settle: Duration::from_secs(60),
        idle: Duration::from_secs(60),
    };

    /// The command that measures by this plan.
    fn command(&self) -> &'static str {
        if self.rounds == Self::QUICK.rounds {
            "./dev bench tunnel --quick"
        } else {
            "./dev bench tunnel"
        }
    }
}

/// Name of Amazon's client where it was measured.
const PLUGIN: &str = "session-manager-plugin";

/// Measures and prints, and writes the tables and plots if asked to.
///
/// # Errors
/// When something does not start, and after the table when a measurement failed. A target that is
/// not reached is no error.
pub async fn run(options: TunnelOptions) -> anyhow::Result<()> {
    let mut signals = Signals::install()?;
    let began = Instant::now();
    let circumstances = Circumstances::look(&options.pgiam).await?;
    progress("starting the sandbox and a PostgreSQL server");
    let far_side = FarSide::start().await?;
    let plan = if options.quick {
        Plan::QUICK
    } else {
        Plan::FULL
    };
    let programs = Programs {
        pgiam: &options.pgiam,
        bridge: &options.bridge,
        plugin: options.plugin.as_deref(),
    };
    // A signal drops the measurement, and with it the programs; the rest is stopped in order.
    let outcome = tokio::select! {
        figures = measure(&far_side, programs, &plan, options.relay_only) => Ok(figures),
        name = signals.next() => Err(anyhow::anyhow!("{name} before the end")),
    };
    let others = format!(
        "PostgreSQL {}, {BRIDGE} {BRIDGE_VERSION}",
        far_side.database.postgres().version()
    );
    let stopped = far_side.stop().await;
    let figures = outcome?;
    let plugin = match options.plugin {
        Some(_) => PLUGIN,
        None => "session-manager-plugin (measured once, with a real agent)",
    };
    say(&format!("\n{}", figures.to_markdown(plugin)))?;
    progress(&format!("{} s in all", began.elapsed().as_secs()));
    let failures = figures.failures();
    ensure!(failures == 0, "{failures} measurements failed");
    stopped?;
    let Some(docs) = options.docs.as_ref().filter(|_| !options.relay_only) else {
        return Ok(());
    };
    let section = Section {
        name: "tunnel",
        title: "Tunnel".to_owned(),
        circumstances: circumstances.paragraphs(plan.command(), &others).await?,
        table: figures.table(plugin),
        notes: figures.notes(),
        plots: figures.plots(options.plugin.as_ref().map(|_| PLUGIN)),
    };
    section.write(docs)
}

async fn measure(
    far_side: &FarSide,
    programs: Programs<'_>,
    plan: &Plan,
    relay_only: bool,
) -> Figures {
    let mut figures = Figures::default();
    // Other clients may lose their first bytes to them; here it is speed that is compared.
    far_side.sandbox.agent(BASTION).set_races(false);
    if relay_only {
        let prepared = database::prepare(far_side).await;
        let measured = relayed::measure(far_side, programs.pgiam, plan, &mut figures);
        if let Err(error) = prepared.and(measured.await) {
            figures.add_failure("the relay", &error);
        }
        return figures;
    }
    if let Err(error) = raw::measure(&far_side.sandbox, programs, plan, &mut figures).await {
        figures.add_failure("bytes through a tunnel", &error);
    }
    if let Err(error) = database::measure(far_side, programs, plan, &mut figures).await {
        figures.add_failure("a database behind a tunnel", &error);
    }
    if let Err(error) = relayed::measure(far_side, programs.pgiam, plan, &mut figures).await {
        figures.add_failure("the relay", &error);
    }
    if let Err(error) = database::measure_direct_tls(programs, plan, &mut figures).await {
        figures.add_failure("a database that takes direct TLS", &error);
    }
    if let Err(error) = idle::measure(far_side, programs, plan, &mut figures).await {
        figures.add_failure("memory and idling", &error);
    }
    figures
}

/// A line for whoever waits; not part of the result.
pub(crate) fn progress(what: &str) {
    // Nobody has to listen.
    _ = writeln!(io::stderr(), "bench: {what}");
}
