//! `pgiam status --watch`.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::show::{self, ByteRates};
use super::{none_answers, running};
use crate::admin::document::ProcessDocument;
use crate::base::foreign_text::visible_json;
use crate::cli::exit;
use crate::cli::terminal;
use crate::platform::StopSignals;

/// Refresh interval.
const EVERY: Duration = Duration::from_secs(1);

// xterm's control sequences, "DEC Private Mode Set" and "Erase in Display".
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_REST: &str = "\x1b[J";

/// Refreshes the status every second until Ctrl-C, or until no process is left.
pub(super) async fn watch(state_dir: Option<&Path>, json: bool) -> anyhow::Result<u8> {
    let mut signals = StopSignals::install().context("cannot listen for signals")?;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut screen = TerminalScreen::open(json);
    let mut meter = RateMeter::default();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = signals.next() => return Ok(0),
        }
        let (processes, failed) = running(state_dir).await?;
        if processes.is_empty() {
            drop(screen);
            terminal::tell(none_answers(&failed))?;
            return Ok(exit::NOT_RUNNING);
        }
        let text = if json {
            let text = serde_json::to_string(&processes)?;
            format!("{}\n", visible_json(&text))
        } else {
            let rates = meter.rates(&processes);
            show::all(&processes, show::width(), Some(&rates))
        };
        match screen.show(&text) {
            // The reader has closed the pipe.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(0),
            shown => shown.context("cannot write to standard output")?,
        }
    }
}

/// Returns true if there is a rate to show.
pub(super) fn has_connections(processes: &[ProcessDocument]) -> bool {
    let mut targets = processes.iter().flat_map(|process| &process.targets);
    targets.any(|target| !target.connections.is_empty())
}

/// Computes bytes per second from two readings.
#[derive(Debug, Default)]
pub(super) struct RateMeter(HashMap<(u32, u64), (u64, Instant)>);

impl RateMeter {
    pub(super) fn rates(&mut self, processes: &[ProcessDocument]) -> ByteRates {
        let now = Instant::now();
        let (mut seen, mut rates) = (HashMap::new(), HashMap::new());
        for process in processes {
            for client in process.targets.iter().flat_map(|t| &t.connections) {
                let key = (process.pid, client.id);
                let moved = client.bytes_up + client.bytes_down;
                if let Some((before, at)) = self.0.get(&key) {
                    let since = now.duration_since(*at).as_secs_f64();
                    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
                    let more = moved.saturating_sub(*before) as f64;
                    rates.insert(key, more / since.max(f64::MIN_POSITIVE));
                }
                seen.insert(key, (moved, now));
            }
        }
        self.0 = seen;
        rates
    }
}

/// A terminal, restored when this is dropped, or a pipe.
#[derive(Debug)]
struct TerminalScreen {
    terminal: bool,
    blocks: bool,
    first: bool,
}

impl TerminalScreen {
    fn open(json: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let terminal = !json && !dumb && io::stdout().is_terminal();
        if terminal {
            raw(ENTER);
        }
        Self {
            terminal,
            blocks: !json,
            first: true,
        }
    }

    fn show(&mut self, text: &str) -> io::Result<()> {
        let first = std::mem::replace(&mut self.first, false);
        let mut out = anstream::stdout().lock();
        if !self.terminal {
            if self.blocks && !first {
                writeln!(out)?;
            }
            write!(out, "{text}")?;
            return out.flush();
        }
        let rows = usize::from(console::Term::stdout().size().0).max(2);
        raw(HOME);
        let lines = text.lines().take(rows - 1);
        for line in lines {
            write!(out, "{line}")?;
            out.flush()?;
            raw(CLEAR_LINE);
            writeln!(out)?;
        }
        out.flush()?;
        raw(CLEAR_REST);
        Ok(())
    }
}

impl Drop for TerminalScreen {
    fn drop(&mut self) {
        if self.terminal {
            raw(LEAVE);
        }
    }
}

/// Writes directly to the terminal: the filter that removes colours would remove this as well.
fn raw(sequence: &str) {
    let mut out = io::stdout();
    // A terminal that is gone need not be restored.
    _ = out
        .write_all(sequence.as_bytes())
        .and_then(|()| out.flush());
}
