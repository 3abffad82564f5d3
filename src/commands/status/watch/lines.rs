//! `pgiam status --watch` in a pipe: the status again and again.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use tokio::time::{MissedTickBehavior, interval};

use super::EVERY;
use crate::base::foreign_text::visible_json;
use crate::cli::exit;
use crate::cli::terminal;
use crate::commands::status::rates::RateMeter;
use crate::commands::status::{none_answers, running, show};
use crate::platform::StopSignals;

/// Prints the status every second until Ctrl-C, or until no process is left.
pub(super) async fn watch(state_dir: Option<&Path>, json: bool) -> anyhow::Result<u8> {
    let mut signals = StopSignals::install().context("cannot listen for signals")?;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut meter = RateMeter::default();
    let mut is_first = true;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = signals.next() => return Ok(0),
        }
        let (processes, failed) = running(state_dir).await?;
        if processes.is_empty() {
            terminal::tell(none_answers(&failed))?;
            return Ok(exit::NOT_RUNNING);
        }
        let text = if json {
            let text = serde_json::to_string(&processes)?;
            format!("{}\n", visible_json(&text))
        } else {
            meter.read(&processes);
            let blank = if is_first { "" } else { "\n" };
            let text = show::all(&processes, show::width(), Some(&meter));
            format!("{blank}{text}")
        };
        is_first = false;
        match print(&text) {
            // The reader has closed the pipe.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(0),
            shown => shown.context("cannot write to standard output")?,
        }
    }
}

fn print(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
