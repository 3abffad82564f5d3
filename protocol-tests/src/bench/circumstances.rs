//! The circumstances of a measurement: date, versions, the machine, the load by other programs.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tokio::process::Command;

use super::database::output_of;
use crate::aws::sigv4;

/// Time over which the load is measured.
const LOOK: Duration = Duration::from_secs(3);
/// Share of the machine from which on other programs count as a load.
const NOTABLE: f64 = 0.1;

/// Longest that a program may take to print its version.
const VERSION_DEADLINE: Duration = Duration::from_secs(10);

/// Observations before a run.
#[derive(Debug)]
pub(crate) struct Circumstances {
    date: String,
    pgiam: String,
    busy: f64,
}

impl Circumstances {
    /// Observes the machine before anything of the run starts.
    ///
    /// # Errors
    /// When the program does not state its version, or `/proc` cannot be read.
    pub(crate) async fn look(pgiam: &Path) -> anyhow::Result<Self> {
        let mut version = Command::new(pgiam);
        version.arg("--version");
        let version = output_of(version, VERSION_DEADLINE).await?;
        Ok(Self {
            date: today(),
            pgiam: version.trim().to_owned(),
            busy: busy().await?,
        })
    }

    /// Paragraphs about the run, after everything of it has ended. `others` names further programs
    /// with their versions.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub(crate) async fn paragraphs(
        &self,
        command: &str,
        others: &str,
    ) -> anyhow::Result<Vec<String>> {
        let Self {
            date,
            pgiam,
            busy: before,
        } = self;
        Ok(vec![
            format!("`{command}`, {date}, {pgiam}, {others}. {}.", describe()?),
            load(*before, busy().await?),
        ])
    }
}

/// Date of today, in UTC.
fn today() -> String {
    let date = sigv4::format_amz_date(SystemTime::now());
    format!("{}-{}-{}", &date[..4], &date[4..6], &date[6..8])
}

/// Processors, memory and kernel, in one line.
///
/// # Errors
/// When `/proc` cannot be read.
fn describe() -> anyhow::Result<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
    let meminfo = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("the kernel")?;
    let processors = processors();
    Ok(format!(
        "{processors} processors ({}), {} of memory, Linux {}",
        field(&cpuinfo, "model name").unwrap_or("unknown model"),
        memory(&meminfo).context("no MemTotal")?,
        kernel.trim().split('-').next().unwrap_or_default(),
    ))
}

/// Processors that this process may use.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Processors that are busy, averaged over [`LOOK`].
///
/// # Errors
/// When `/proc/stat` cannot be read.
async fn busy() -> anyhow::Result<f64> {
    let before = times(&read_stat()?).context("/proc/stat without processors")?;
    tokio::time::sleep(LOOK).await;
    let after = times(&read_stat()?).context("/proc/stat without processors")?;
    Ok(share(before, after) * processors() as f64)
}

/// The load by other programs before and after a run, as a sentence.
fn load(before: f64, after: f64) -> String {
    let all = processors();
    if before.max(after) < NOTABLE * all as f64 {
        return format!(
            "No other program used more than {:.2} processors.",
            before.max(after)
        );
    }
    format!(
        "**The machine was loaded:** other programs kept {before:.1} of {all} processors busy \
         before the run, and {after:.1} after it."
    )
}

fn read_stat() -> anyhow::Result<String> {
    fs::read_to_string("/proc/stat").context("/proc/stat")
}

/// Ticks of all processors since the start: busy ones, and all.
fn times(stat: &str) -> Option<[u64; 2]> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    // user, nice, system, idle, iowait, irq, softirq, steal; what follows is part of the first two.
    let ticks: Vec<u64> = line
        .split_ascii_whitespace()
        .take(8)
        .map_while(|tick| tick.parse().ok())
        .collect();
    let all: u64 = ticks.iter().sum();
    Some([all - ticks.get(3)? - ticks.get(4)?, all])
}

fn share(before: [u64; 2], after: [u64; 2]) -> f64 {
    let all = after[1].saturating_sub(before[1]).max(1);
    after[0].saturating_sub(before[0]) as f64 / all as f64
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

/// `MemTotal` in units of 1024 × 1024 × 1024 bytes.
fn memory(meminfo: &str) -> Option<String> {
    let kilobytes: f64 = field(meminfo, "MemTotal")?
        .strip_suffix("kB")?
        .trim()
        .parse()
        .ok()?;
    Some(format!("{:.0} GiB", kilobytes / 1024.0 / 1024.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_is_what_is_neither_idle_nor_waiting() {
        let before = times("cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 1 1 1 1\n").unwrap();
        let after = times("cpu  150 10 90 850 100 0 0 0 9 9\n").unwrap();
        assert_eq!((before, after), ([150, 1_000], [250, 1_200]));
        assert_eq!(share(before, after).to_string(), "0.5");
        // No tick between two looks is no load, and no division by zero.
        assert_eq!(share(after, after).to_string(), "0");
        assert_eq!(times("intr 1"), None);
    }

    #[test]
    fn the_load_is_stated_as_such() {
        assert!(load(0.0, 0.01).starts_with("No other program"));
        let busy = load(processors() as f64, 0.0);
        assert!(busy.starts_with("**The machine was loaded:**"), "{busy}");
    }

    #[test]
    fn the_machine_is_described_by_its_own_files() {
        let meminfo = "MemTotal:       24684084 kB\nMemFree: 1 kB\n";
        assert_eq!(memory(meminfo).as_deref(), Some("24 GiB"));
        assert_eq!(
            field("model name\t: EPYC 7\n", "model name"),
            Some("EPYC 7")
        );
        let date = today();
        assert_eq!((date.len(), &date[4..5], &date[7..8]), (10, "-", "-"));
    }
}
