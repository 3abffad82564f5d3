//! `sandbox suites`: PostgreSQL's own tests as judges.
//!
//! The regression tests, the isolation tests and `libpq_pipeline` run through the whole way (proxy,
//! tunnel, a real server that has the token checked) and straight to such a server. A proxy that is
//! not there gives the same results; whether they are good ones is the server's business.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::demo::{Signals, say, table};

mod compare;
mod lists;
mod pipeline;
mod process;
mod regress;
mod world;

use compare::{Difference, compare};
use lists::{Schedule, Skips};
use regress::Driver;
use world::{Way, World};

/// What was asked for on the command line.
#[derive(Debug, Clone)]
pub struct SuitesOptions {
    /// The `pgiam` binary.
    pub pgiam: PathBuf,
    /// What `judges/postgres-suites/prepare` has made.
    pub suites: PathBuf,
    /// All tests instead of the chosen ones.
    pub full: bool,
    /// Run everything directly too, not only what failed through the proxy.
    pub direct: bool,
    /// Where to leave the drivers' own reports.
    pub reports: PathBuf,
    /// Directories with further versions of libpq for the pipeline tests.
    pub libpq: Vec<PathBuf>,
}

/// How one test ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Name, as the schedule has it.
    pub(crate) test: String,
    /// Whether the driver is content.
    pub(crate) passed: bool,
    /// What the test wrote, to compare with the same test's on the other way.
    pub(crate) output: String,
}

/// How the tests of one suite ended on one way.
#[derive(Debug)]
pub(crate) struct Ran {
    /// One for each test, in the schedule's order.
    pub(crate) outcomes: Vec<Outcome>,
    /// From the first test to the last.
    pub(crate) took: Duration,
}

impl Ran {
    fn failures(&self) -> usize {
        self.outcomes.iter().filter(|o| !o.passed).count()
    }
}

/// A suite and what there is to run of it.
#[derive(Debug)]
enum Suite {
    Schedule(Driver, Schedule),
    /// With the directory of a libpq, or the system's own.
    Pipeline(Option<PathBuf>),
}

impl Suite {
    fn name(&self) -> String {
        match self {
            Self::Schedule(driver, _) => driver.name().to_owned(),
            Self::Pipeline(None) => "pipeline".to_owned(),
            Self::Pipeline(Some(dir)) => format!("pipeline, {}", pipeline::libpq_name(dir)),
        }
    }

    async fn run(&self, world: &World, reports: &Path) -> anyhow::Result<Ran> {
        let started = Instant::now();
        let outcomes = match self {
            Self::Schedule(driver, schedule) => {
                regress::run(*driver, schedule, world, reports).await
            }
            Self::Pipeline(libpq) => pipeline::run(world, libpq.as_deref()).await,
        };
        let outcomes = outcomes.with_context(|| format!("{} {}", self.name(), world.way()))?;
        Ok(Ran {
            outcomes,
            took: started.elapsed(),
        })
    }
}

/// A suite's line in the table.
#[derive(Debug)]
struct Line {
    suite: String,
    through: Ran,
    direct: Option<Ran>,
    skipped: usize,
}

/// Runs the suites, prints a table, and what differs.
///
/// # Errors
/// When a result through the proxy differs from the direct one, a suite does not run to its end, or
/// something does not start.
pub async fn run(mut options: SuitesOptions) -> anyhow::Result<()> {
    // The drivers have a working directory of their own.
    options.suites = options
        .suites
        .canonicalize()
        .with_context(|| format!("no suites in {}", options.suites.display()))?;
    let mut signals = Signals::install()?;
    tokio::select! {
        outcome = judge(&options) => outcome,
        // What runs is dropped, and ends by that.
        name = signals.next() => bail!("{name} before the end"),
    }
}

async fn judge(options: &SuitesOptions) -> anyhow::Result<()> {
    let skips = Skips::written()?;
    let suites = chosen(options, &skips)?;
    // Reports of an earlier run would pass for this one's.
    if options.reports.exists() {
        std::fs::remove_dir_all(&options.reports).context("removing the last run's reports")?;
    }
    std::fs::create_dir_all(&options.reports)
        .with_context(|| format!("creating {}", options.reports.display()))?;

    let through = run_way(Way::Proxy, &suites.iter().collect::<Vec<_>>(), options).await?;
    // The pipeline tests leave no verdict on the bytes but the comparison.
    let again = |(suite, ran): (&Suite, &Ran)| {
        options.direct || matches!(suite, Suite::Pipeline(_)) || ran.failures() > 0
    };
    let again: Vec<bool> = suites.iter().zip(&through).map(again).collect();
    let chosen: Vec<&Suite> = suites
        .iter()
        .zip(&again)
        .filter(|(_, a)| **a)
        .map(|(s, _)| s)
        .collect();
    let mut direct = run_way(Way::Direct, &chosen, options).await?.into_iter();

    let lines: Vec<Line> = suites
        .iter()
        .zip(through)
        .zip(again)
        .map(|((suite, through), again)| Line {
            suite: suite.name(),
            through,
            direct: again.then(|| direct.next()).flatten(),
            skipped: match suite {
                Suite::Schedule(_, schedule) => schedule.skipped(),
                Suite::Pipeline(_) => 0,
            },
        })
        .collect();
    verdict(&lines, options)
}

/// The suites with the tests that are to run of each.
fn chosen(options: &SuitesOptions, skips: &Skips) -> anyhow::Result<Vec<Suite>> {
    let source = options.suites.join("source/src/test");
    ensure!(
        source.is_dir(),
        "{} holds no tests; protocol-tests/judges/postgres-suites/prepare makes it",
        options.suites.display()
    );
    let mut suites = Vec::new();
    for driver in [Driver::Regress, Driver::Isolation] {
        let schedule = driver.schedule(&source, options.full)?;
        suites.push(Suite::Schedule(
            driver,
            schedule.without(skips, driver.name()),
        ));
    }
    suites.push(Suite::Pipeline(None));
    suites.extend(
        options
            .libpq
            .iter()
            .cloned()
            .map(|dir| Suite::Pipeline(Some(dir))),
    );
    Ok(suites)
}

/// Runs suites one after the other on one server.
async fn run_way(way: Way, suites: &[&Suite], options: &SuitesOptions) -> anyhow::Result<Vec<Ran>> {
    let mut all = Vec::new();
    if suites.is_empty() {
        return Ok(all);
    }
    let world = World::start(way, options).await?;
    let outcome = async {
        for suite in suites {
            let ran = suite.run(&world, &options.reports).await?;
            say(&format!(
                "{} {way}: {} tests, {} failed, {:.0} s",
                suite.name(),
                ran.outcomes.len(),
                ran.failures(),
                ran.took.as_secs_f64(),
            ))?;
            all.push(ran);
        }
        Ok(())
    };
    let outcome: anyhow::Result<()> = outcome.await;
    // The first failure is the interesting one.
    let stopped = world.stop(&options.reports).await;
    outcome?;
    let logins = stopped?;
    if way == Way::Proxy {
        let tests: usize = all.iter().map(|ran| ran.outcomes.len()).sum();
        ensure!(
            logins >= tests,
            "only {logins} logins with a token for {tests} tests: they ran somewhere else"
        );
        say(&format!("{logins} logins with an IAM token"))?;
    }
    Ok(all)
}

fn verdict(lines: &[Line], options: &SuitesOptions) -> anyhow::Result<()> {
    let seconds = |ran: &Ran| format!("{:.0} s", ran.took.as_secs_f64());
    let score = |ran: &Ran| {
        format!(
            "{} of {}",
            ran.outcomes.len() - ran.failures(),
            ran.outcomes.len()
        )
    };
    let mut rows = Vec::new();
    let mut differences: Vec<(&str, Difference)> = Vec::new();
    for line in lines {
        let found = compare(&line.through, line.direct.as_ref())
            .with_context(|| format!("comparing {}", line.suite))?;
        rows.push([
            line.suite.clone(),
            score(&line.through),
            line.direct
                .as_ref()
                .map_or_else(|| "not needed".to_owned(), score),
            found.len().to_string(),
            line.skipped.to_string(),
            seconds(&line.through),
            line.direct.as_ref().map_or_else(|| "-".to_owned(), seconds),
        ]);
        differences.extend(found.into_iter().map(|d| (line.suite.as_str(), d)));
    }
    let head = [
        "suite",
        "ok through pgiam",
        "ok directly",
        "differ",
        "skipped",
        "took",
        "directly",
    ];
    let rows: Vec<[&str; 7]> = rows
        .iter()
        .map(|row| row.each_ref().map(String::as_str))
        .collect();
    say(&format!("\n{}", table(&head, &rows)))?;
    for line in lines {
        for outcome in line.through.outcomes.iter().filter(|o| !o.passed) {
            if !differences
                .iter()
                .any(|(suite, d)| *suite == line.suite && d.test == outcome.test)
            {
                say(&format!(
                    "{} {}: fails directly in the same way",
                    line.suite, outcome.test
                ))?;
            }
        }
    }
    if differences.is_empty() {
        return Ok(());
    }
    for (suite, difference) in &differences {
        say(&format!("{suite} {difference}"))?;
    }
    bail!(
        "{} tests end differently through pgiam; what they wrote is in {}",
        differences.len(),
        options.reports.display()
    )
}
