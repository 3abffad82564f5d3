//! What the kernel knows about a process: its memory and the processor time it has used.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};

/// The unit of the times in `/proc/PID/stat`: `USER_HZ`, 100 on every architecture we run on
/// (proc(5)).
const TICK: Duration = Duration::from_millis(10);

/// Resident memory, in MB of 1,000,000 bytes.
///
/// # Errors
/// When the process has ended, or where there is no `/proc`.
pub(crate) fn resident(pid: u32) -> anyhow::Result<f64> {
    let status = read(pid, "status")?;
    let kilobytes = status.lines().find_map(|line| {
        let value = line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?;
        value.parse::<f64>().ok()
    });
    Ok(kilobytes.context("no VmRSS")? * 1024.0 / 1e6)
}

/// Processor time of all its threads since it began, in user and kernel mode together.
///
/// # Errors
/// When the process has ended, or where there is no `/proc`.
pub(crate) fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    parse_cpu_time(&read(pid, "stat")?)
}

fn parse_cpu_time(stat: &str) -> anyhow::Result<Duration> {
    // The second field is the name in parentheses and may hold spaces and parentheses itself.
    let Some((_, fields)) = stat.rsplit_once(')') else {
        bail!("/proc/PID/stat without a name");
    };
    // Field 3, the state, is the first here; utime and stime are fields 14 and 15.
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let mut tick = || fields.next()?.parse::<u32>().ok();
    let (user, kernel) = (tick(), tick());
    let ticks = user.zip(kernel).map(|(user, kernel)| user + kernel);
    Ok(TICK * ticks.context("no times in /proc/PID/stat")?)
}

fn read(pid: u32, file: &str) -> anyhow::Result<String> {
    let path = PathBuf::from("/proc").join(pid.to_string()).join(file);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_found_whatever_the_name() {
        let stat = "7 (a) R (b) S 1 7 7 0 -1 4194560 1 0 0 0 150 25 9 9 20 0 1 0 1 1 1";
        assert_eq!(parse_cpu_time(stat).unwrap(), Duration::from_millis(1_750));
        assert!(parse_cpu_time("7 (a) S 1 7").is_err());
        assert!(parse_cpu_time("").is_err());
    }
}
