//! The rows that need nothing but bytes: downloads and uploads of a plain TCP service.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::time::timeout;

use super::blast::{self, Blast};
use super::figures::{Figure, Figures, Panel, Target, median, rate};
use super::process::cpu_time;
use super::rivals::{BRIDGE, Contest, Door, Programs};
use super::tunnel::{Plan, progress};
use crate::aws::agent::REAL_PACE;
use crate::aws::events::Event;
use crate::aws::sandbox::Sandbox;
use crate::demo::BASTION;

/// Name and port of the service behind the bastion.
const GOAL: (&str, u16) = ("blast.internal", 7000);
/// Longest a single transfer may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// Bytes before each measurement, for connections and windows to open.
const WARM_UP: u64 = 128 << 10;
/// Payload bytes of one message of the real agent.
const PAYLOAD: u32 = 1024;

/// The stock plugin's download and upload with a real agent, MB/s.
const PLUGIN_RATE: f64 = 0.71;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Down,
    Up,
}

/// Measures them all. Only one that fails to begin is an error.
pub(crate) async fn measure(
    sandbox: &Sandbox,
    programs: Programs<'_>,
    plan: &Plan,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let blast = Blast::start().await?;
    sandbox.vpc().open(GOAL.0, GOAL.1, blast.address());
    let contest = Contest::of_all(programs, sandbox, GOAL).await?;
    let raw = Raw {
        sandbox,
        contest: &contest,
        plan,
    };
    let agent = sandbox.agent(BASTION);
    agent.set_pacing(true);
    let one = raw.paced_download(figures).await;
    if let Some(one) = one {
        raw.parallel_downloads(one, figures).await;
    }
    raw.upload(figures).await;
    agent.set_pacing(false);
    raw.unpaced_download(figures).await;
    agent.set_pacing(true);
    contest.stop().await
}

struct Raw<'a> {
    sandbox: &'a Sandbox,
    contest: &'a Contest,
    plan: &'a Plan,
}

/// Rates of the contenders that were measured alternately.
struct Rates {
    pgiam: f64,
    bridge: f64,
    plugin: Option<f64>,
    /// Processor time of ours and the bridge's per GB moved.
    cpu: [f64; 2],
    /// Cores that ours, and this process with agent, gateway and both ends, kept busy meanwhile.
    cores: [f64; 2],
}

impl Raw<'_> {
    /// Returns our rate.
    async fn paced_download(&self, figures: &mut Figures) -> Option<f64> {
        let measure = "download, 1 connection, agent's pace (MB/s)";
        progress(measure);
        let size = self.plan.paced_bytes;
        let measured = async {
            let door = self.contest.pgiam()?;
            let mut ours = vec![];
            let mut plugin = vec![];
            transfer(door, Way::Down, WARM_UP).await?;
            for _ in 0..self.plan.rounds {
                ours.push(transfer(door, Way::Down, size).await?);
                if let Some(door) = self.contest.plugin()? {
                    plugin.push(transfer(door, Way::Down, size).await?);
                }
            }
            let pace = pace_itself(self.plan.pace_for).await;
            let plugin = plugin_or_reference(plugin, PLUGIN_RATE);
            anyhow::Ok((median(ours), pace, plugin))
        };
        match measured.await {
            Ok((ours, pace, plugin)) => {
                let figure = Figure::new(measure, ours, Target::Ratio(0.97))
                    .panel(Panel::Paced, "1 connection")
                    .beside(pace, "the rate itself")
                    .plugin(plugin);
                figures.add(figure);
                Some(ours)
            }
            Err(error) => {
                figures.add_failure(measure, &error);
                None
            }
        }
    }

    async fn parallel_downloads(&self, one: f64, figures: &mut Figures) {
        let measure = "download, 4 connections, agent's pace, total (MB/s)";
        progress(measure);
        let size = self.plan.paced_bytes;
        let measured = async {
            let door = self.contest.pgiam()?;
            // The first round lets the further sessions start and does not count.
            four(door, size / 4).await?;
            let mut ours = vec![];
            let mut plugin = vec![];
            for _ in 0..self.plan.rounds {
                ours.push(four(door, size).await?);
                if let Some(door) = self.contest.plugin()? {
                    plugin.push(four(door, size / 4).await?);
                }
            }
            anyhow::Ok((median(ours), plugin_or_reference(plugin, PLUGIN_RATE)))
        };
        match measured.await {
            Ok((total, plugin)) => {
                let others = 1 + usize::from(self.contest.plugin.is_some());
                let sessions = self.sandbox.open_sessions().len() - others;
                let figure = Figure::new(measure, total, Target::Ratio(3.8))
                    .panel(Panel::Paced, "4 connections, total")
                    .beside(one, "pgiam with 1 connection")
                    .plugin(plugin)
                    .note(format!(
                        "sessions used: {sessions}; the stock plugin's connections share one"
                    ));
                figures.add(figure);
            }
            Err(error) => figures.add_failure(measure, &error),
        }
    }

    async fn upload(&self, figures: &mut Figures) {
        let measure = "upload, 1 connection, agent's pace (MB/s)";
        progress(measure);
        let before = self.count_faults();
        match self.compare(Way::Up, self.plan.upload_bytes).await {
            Ok(rates) => {
                let [dropped, violations] = self.count_faults();
                let faults = dropped + violations - before[0] - before[1];
                let mut figure = Figure::new(measure, rates.pgiam, Target::Ratio(1.5))
                    .panel(Panel::Unpaced, "upload, 1 connection")
                    .beside(rates.bridge, BRIDGE)
                    .plugin(rates.plugin)
                    .note(format!(
                        "every byte was compared; ours kept {:.2} cores busy, agent, gateway and \
                         both ends {:.2}",
                        rates.cores[0], rates.cores[1]
                    ));
                if faults > 0 {
                    figure.broken = Some(format!("{faults} messages were dropped or wrong"));
                }
                figures.add(figure);
            }
            Err(error) => figures.add_failure(measure, &error),
        }
    }

    async fn unpaced_download(&self, figures: &mut Figures) {
        let measure = "download, 1 connection, no pace (MB/s)";
        progress(measure);
        match self.compare(Way::Down, self.plan.unpaced_bytes).await {
            Ok(rates) => {
                let target = Target::AtLeastAndRatio(150.0, 3.0);
                let figure = Figure::new(measure, rates.pgiam, target)
                    .panel(Panel::Unpaced, "download, 1 connection")
                    .beside(rates.bridge, BRIDGE)
                    .plugin(rates.plugin.filter(|_| self.contest.plugin.is_some()))
                    .note(format!(
                        "ours kept {:.2} cores busy, agent, gateway and both ends {:.2}, of {}",
                        rates.cores[0],
                        rates.cores[1],
                        std::thread::available_parallelism().map_or(0, usize::from),
                    ));
                figures.add(figure);
                let measure = "the same, processor time per GB (s)";
                let figure = Figure::new(measure, rates.cpu[0], Target::Stated)
                    .panel(Panel::ProcessorTime, "download, 1 connection")
                    .beside(rates.cpu[1], BRIDGE);
                figures.add(figure);
            }
            Err(error) => figures.add_failure(measure, &error),
        }
    }

    /// Ours and the others in turn, so that whatever else the machine does meets them alike.
    async fn compare(&self, way: Way, size: u64) -> anyhow::Result<Rates> {
        let (ours, bridge) = (self.contest.pgiam()?, self.contest.bridge()?);
        for door in [ours, bridge] {
            transfer(door, way, WARM_UP).await?;
        }
        let mut rates = [vec![], vec![]];
        let mut cpu = [Duration::ZERO; 2];
        let mut cores = [vec![], vec![]];
        let myself = std::process::id();
        for _ in 0..self.plan.rounds {
            for (place, door) in [ours, bridge].into_iter().enumerate() {
                let (before, began) = (cpu_time(door.pid)?, Instant::now());
                let myself_before = cpu_time(myself)?;
                rates[place].push(transfer(door, way, size).await?);
                let used = cpu_time(door.pid)? - before;
                cpu[place] += used;
                if place == 0 {
                    let wall = began.elapsed().as_secs_f64();
                    let mine = cpu_time(myself)? - myself_before;
                    cores[0].push(used.as_secs_f64() / wall);
                    cores[1].push(mine.as_secs_f64() / wall);
                }
            }
        }
        let mut plugin = vec![];
        if let Some(door) = self.contest.plugin()? {
            for _ in 0..self.plan.rounds {
                plugin.push(transfer(door, way, self.plan.paced_bytes).await?);
            }
        }
        let [pgiam, bridge] = rates.map(median);
        let moved = rate(size * self.plan.rounds as u64, Duration::from_secs(1)) / 1e3;
        Ok(Rates {
            pgiam,
            bridge,
            plugin: plugin_or_reference(plugin, PLUGIN_RATE),
            cpu: cpu.map(|time| time.as_secs_f64() / moved),
            cores: cores.map(median),
        })
    }

    /// Input that the agent threw away, and what the client did wrong.
    fn count_faults(&self) -> [usize; 2] {
        let events = self.sandbox.events();
        [
            events.count(|event| matches!(event, Event::InputDropped { .. })),
            events.count(|event| matches!(event, Event::Violation { .. })),
        ]
    }
}

fn plugin_or_reference(measured: Vec<f64>, reference: f64) -> Option<f64> {
    Some(if measured.is_empty() {
        reference
    } else {
        median(measured)
    })
}

/// MB/s of four downloads at the same time, together.
async fn four(door: Door, size: u64) -> anyhow::Result<f64> {
    let began = Instant::now();
    let one = || transfer(door, Way::Down, size);
    tokio::try_join!(one(), one(), one(), one())?;
    Ok(rate(4 * size, began.elapsed()))
}

/// MB/s of one transfer, from the connect to the last byte.
async fn transfer(door: Door, way: Way, size: u64) -> anyhow::Result<f64> {
    let work = async {
        match way {
            Way::Down => blast::download(door.address, size).await,
            Way::Up => blast::upload(door.address, size).await,
        }
    };
    let time = timeout(DEADLINE, work)
        .await
        .with_context(|| format!("{size} bytes took longer than {DEADLINE:?}"))??;
    Ok(rate(size, time))
}

/// MB/s that the agent's way of sleeping gives when everything else costs nothing, on this machine
/// and now: its loop without its messages.
async fn pace_itself(time: Duration) -> f64 {
    let began = tokio::time::Instant::now();
    let mut next = began;
    let mut sent = 0;
    while began.elapsed() < time {
        sent += u64::from(PAYLOAD);
        let now = tokio::time::Instant::now();
        next = next.max(now - 2 * REAL_PACE) + REAL_PACE;
        tokio::time::sleep_until(next).await;
    }
    rate(sent, began.elapsed())
}
