//! The rows that take patience: memory under many connections, and the processor while nothing
//! happens.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::process::{Child, Command};

use super::database::{output_of, sessions_besides, start_proxy};
use super::figures::{Figure, Figures, Target};
use super::plot::{OWN, Plot, Series, Shape};
use super::process::{cpu_time, resident};
use super::rivals::Programs;
use super::tunnel::{Plan, progress};
use crate::demo::{BASTION, FarSide};
use crate::harness::program::{Proxy, psql};

/// Open connections, and how many of them stop reading in the middle of a result.
const CONNECTIONS: usize = 100;
const STALLED: usize = 10;
/// Time from one look at the memory to the next.
const SAMPLE: Duration = Duration::from_secs(1);
/// Share by which the last fifth of the samples may lie above the first.
const FLAT: f64 = 0.05;
/// Longest to wait for all connections to be where they should.
const DEADLINE: Duration = Duration::from_secs(60);

/// A result without an end, made as it is read.
const ENDLESS: &str = "copy (select generate_series(1, 2000000000), repeat('x', 1000)) to stdout";

/// Measures them all. Only one that fails to begin is an error.
pub(crate) async fn measure(
    far_side: &FarSide,
    programs: Programs<'_>,
    plan: &Plan,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    processor(far_side, programs, plan, figures).await?;
    memory(far_side, programs, plan, figures).await
}

async fn processor(
    far_side: &FarSide,
    programs: Programs<'_>,
    plan: &Plan,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let measure = "processor, idle with one open session (%)";
    progress(measure);
    let of_others = far_side.sandbox.open_sessions();
    let proxy = start_proxy(far_side, programs).await?;
    let measured = async {
        let pid = proxy.pid().context("pgiam has ended")?;
        output_of(select_one(far_side, &proxy), DEADLINE).await?;
        // What a login leaves to be done soon after is no idling.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (used, began) = (cpu_time(pid)?, Instant::now());
        tokio::time::sleep(plan.idle).await;
        let used = cpu_time(pid)? - used;
        let open = sessions_besides(far_side, &of_others);
        ensure!(open == 1, "{open} sessions were open");
        anyhow::Ok(100.0 * used.as_secs_f64() / began.elapsed().as_secs_f64())
    };
    match measured.await {
        Ok(percent) => {
            let note = format!("over {} s; the kernel counts in 10 ms", plan.idle.as_secs());
            figures.add(Figure::new(measure, percent, Target::AtMost(0.1)).note(note));
        }
        Err(error) => figures.add_failure(measure, &error),
    }
    proxy.stop().await
}

async fn memory(
    far_side: &FarSide,
    programs: Programs<'_>,
    plan: &Plan,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let measure = format!(
        "memory, {CONNECTIONS} connections, {STALLED} stalled, {} min, greatest (MB)",
        plan.memory.as_secs() / 60
    );
    progress(&measure);
    let proxy = start_proxy(far_side, programs).await?;
    // As fast as it goes, so that whatever fills up does so soon.
    far_side.sandbox.agent(BASTION).set_pacing(false);
    match crowd(far_side, &proxy, plan).await {
        Ok(crowd) => {
            let growth = 100.0 * crowd.growth;
            let mut figure = Figure::new(&measure, crowd.greatest, Target::AtMost(150.0));
            let one_more = match &crowd.one_more {
                Ok(time) => format!("{:.0} ms", time.as_secs_f64() * 1e3),
                Err(why) => {
                    figure.broken = Some("one more psql could not connect".to_owned());
                    format!("too long: {}", why.lines().next().unwrap_or_default())
                }
            };
            if crowd.growth > FLAT {
                figure.broken = Some(format!("it grew by {growth:.1} %"));
            }
            figures.add_plot(crowd.plot());
            figures.add(figure.note(format!(
                "{:.1} to {:.1} MB after the first {} s, last fifth against first {growth:+.1} %; \
                 {} of the {STALLED} were still connected at the end, and one more psql took \
                 {one_more}",
                crowd.least,
                crowd.greatest,
                plan.settle.as_secs(),
                crowd.still_stalled,
            )));
        }
        Err(error) => figures.add_failure(&measure, &error),
    }
    far_side.sandbox.agent(BASTION).set_pacing(true);
    proxy.stop().await
}

/// What was seen of the crowd.
struct Crowd {
    /// Seconds since all were connected, and the memory then.
    samples: Vec<(f64, f64)>,
    least: f64,
    greatest: f64,
    /// Share by which the mean of the last fifth lies above that of the first.
    growth: f64,
    still_stalled: usize,
    /// What became of a further client's login and query at the end: its time, or why not.
    one_more: Result<Duration, String>,
}

impl Crowd {
    fn plot(&self) -> Plot {
        Plot {
            name: "memory".to_owned(),
            title: format!("Memory with {CONNECTIONS} connections, {STALLED} of them not read"),
            shape: Shape::Lines {
                x: "seconds".to_owned(),
                y: "MB".to_owned(),
                series: vec![Series {
                    name: OWN.to_owned(),
                    points: self.samples.clone(),
                }],
            },
        }
    }
}

async fn crowd(far_side: &FarSide, proxy: &Proxy, plan: &Plan) -> anyhow::Result<Crowd> {
    let pid = proxy.pid().context("pgiam has ended")?;
    let mut clients = open_crowd(far_side, proxy)?;
    let settled = Instant::now() + plan.settle;
    let end = Instant::now() + plan.memory;
    wait_for_crowd(far_side).await?;
    let began = Instant::now();
    let mut all = vec![];
    let mut samples = vec![];
    while Instant::now() < end {
        let sample = resident(pid)?;
        all.push((began.elapsed().as_secs_f64(), sample));
        if Instant::now() >= settled {
            samples.push(sample);
        }
        tokio::time::sleep(SAMPLE).await;
    }
    ensure!(
        !samples.is_empty(),
        "all was connected only after {:?}",
        plan.memory
    );
    let still_stalled = count(far_side, "query like 'copy (select gen%'").await?;
    let began = Instant::now();
    let one_more = output_of(select_one(far_side, proxy), DEADLINE).await;
    let one_more = match one_more {
        Ok(_) => Ok(began.elapsed()),
        Err(error) => Err(error.to_string()),
    };
    for client in &mut clients {
        client.kill().await?;
    }
    let fifth = (samples.len() / 5).max(1);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (first, last) = (
        mean(&samples[..fifth]),
        mean(&samples[samples.len() - fifth..]),
    );
    Ok(Crowd {
        samples: all,
        least: samples.iter().copied().fold(f64::INFINITY, f64::min),
        greatest: samples.iter().copied().fold(0.0, f64::max),
        growth: last / first - 1.0,
        still_stalled,
        one_more,
    })
}

/// Clients of which the first few write into a pipe that nobody reads.
fn open_crowd(far_side: &FarSide, proxy: &Proxy) -> anyhow::Result<Vec<Child>> {
    let mut clients = vec![];
    for number in 0..CONNECTIONS {
        let mut command = psql(&far_side.psql(), proxy.port());
        let stalled = number < STALLED;
        command
            .args(["-q", "-c"])
            .arg(if stalled {
                ENDLESS
            } else {
                "select pg_sleep(100000)"
            })
            .stdout(if stalled {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stderr(Stdio::null());
        clients.push(command.spawn()?);
    }
    Ok(clients)
}

/// Until all are in, and the server cannot get rid of any stalled client's rows.
async fn wait_for_crowd(far_side: &FarSide) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let asleep = count(far_side, "query like 'select pg_sleep%'").await?;
        let copying = "query like 'copy (select gen%'";
        let moving = format!("{copying} and wait_event is distinct from 'ClientWrite'");
        let (stalled, moving) = (
            count(far_side, copying).await?,
            count(far_side, &moving).await?,
        );
        if asleep == CONNECTIONS - STALLED && stalled > 0 && moving == 0 {
            return Ok(());
        }
        ensure!(
            began.elapsed() < DEADLINE,
            "{asleep} connections sleep, {moving} of {stalled} still move"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Server processes for which `condition` holds.
async fn count(far_side: &FarSide, condition: &str) -> anyhow::Result<usize> {
    let sql = format!(
        "select count(*) from pg_stat_activity where {condition} and pid <> pg_backend_pid()"
    );
    let text = far_side.database.postgres().psql_admin(&sql).await?;
    text.trim().parse().context("a count")
}

fn select_one(far_side: &FarSide, proxy: &Proxy) -> Command {
    let mut command = psql(&far_side.psql(), proxy.port());
    command.args(["-q", "-A", "-t", "-c", "select 1"]);
    command
}
