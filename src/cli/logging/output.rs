//! Writes the log to standard error in a thread of its own.
//!
//! A reader that stops (a pager, Ctrl-S, selected text in a Windows console, a log collector that
//! hangs) would otherwise stop each task that logs, and with them all connections. Here it stops
//! the log only. Lines wait in a queue; if it is full, lines are dropped and counted.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::warn;
use tracing_subscriber::fmt::MakeWriter;

use crate::cli::terminal;

/// Maximum bytes of the lines that wait: some 10,000 lines.
const MOST: usize = 1024 * 1024;
/// Time without a written line after which a reader counts as stopped.
const PATIENCE: Duration = Duration::from_secs(1);

/// The log's own standard error.
static STDERR: LazyLock<Arc<LogOutput>> = LazyLock::new(|| {
    let colours = terminal::stderr_has_colours();
    let write = move |line: &str| {
        // Nothing can be done if standard error is closed.
        terminal::without_progress(|| _ = terminal::tell_as_it_is(line, colours));
    };
    let report = |lines: u64| {
        warn!(
            lines,
            "dropped log lines, because standard error was not read"
        );
    };
    Arc::new(LogOutput::new(MOST, Box::new(write), Box::new(report)))
});

/// Returns the log's own standard error.
pub(super) fn stderr() -> Arc<LogOutput> {
    Arc::clone(&STDERR)
}

/// Waits until the log is written, so that what follows on standard output or standard error comes
/// after it. Gives up on a reader that has stopped.
pub fn settle() {
    STDERR.settle(PATIENCE);
}

type WriteLine = Box<dyn Fn(&str) + Send + Sync>;
type ReportLost = Box<dyn Fn(u64) + Send + Sync>;

/// A queue of lines and the thread that writes them.
pub(super) struct LogOutput {
    queue: Mutex<Queue>,
    changed: Condvar,
    most: usize,
    write: WriteLine,
    /// Reports the number of dropped lines.
    report: ReportLost,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<String>,
    /// Size of `lines`.
    bytes: usize,
    /// Lines that were dropped since the last report.
    lost: u64,
    /// The thread exists.
    has_thread: bool,
    /// The thread is writing a line, or reporting.
    is_busy: bool,
    /// Number of written lines.
    written: u64,
    /// The reader has stopped, as far as is known.
    is_stuck: bool,
}

impl LogOutput {
    fn new(most: usize, write: WriteLine, report: ReportLost) -> Self {
        Self {
            queue: Mutex::default(),
            changed: Condvar::new(),
            most,
            write,
            report,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic cannot leave the counts in an invalid state.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes whole lines. Never waits for the reader.
    pub(super) fn push(self: &Arc<Self>, lines: &str) {
        let mut queue = self.lock();
        if queue.bytes + lines.len() > self.most {
            queue.lost += 1;
            return;
        }
        queue.bytes += lines.len();
        queue.lines.push_back(lines.to_owned());
        if !queue.has_thread {
            let own = Arc::clone(self);
            let thread = thread::Builder::new().name("log".to_owned());
            match thread.spawn(move || own.run()) {
                Ok(_) => queue.has_thread = true,
                // The limit of threads; the next line tries again.
                Err(_) => return self.write_here(queue),
            }
        }
        drop(queue);
        self.changed.notify_all();
    }

    /// Writes the lines without the thread.
    fn write_here(&self, mut queue: MutexGuard<'_, Queue>) {
        queue.bytes = 0;
        let lines = std::mem::take(&mut queue.lines);
        drop(queue);
        for line in lines {
            (self.write)(&line);
        }
    }

    /// Writes lines; never returns.
    fn run(&self) {
        let mut queue = self.lock();
        loop {
            queue.is_busy = true;
            if let Some(line) = queue.lines.pop_front() {
                queue.bytes -= line.len();
                drop(queue);
                (self.write)(&line);
                queue = self.lock();
                queue.written += 1;
                queue.is_stuck = false;
                continue;
            }
            let lost = std::mem::take(&mut queue.lost);
            if lost > 0 {
                drop(queue);
                (self.report)(lost);
                queue = self.lock();
                continue;
            }
            queue.is_busy = false;
            self.changed.notify_all();
            queue = self
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until all lines are written, or until no line was written for `patience`. Returns at
    /// once if that was so before, and still is.
    fn settle(&self, patience: Duration) {
        let mut queue = self.lock();
        let mut since = (queue.written, Instant::now());
        while (queue.is_busy || !queue.lines.is_empty()) && !queue.is_stuck {
            if queue.written != since.0 {
                since = (queue.written, Instant::now());
            }
            let Some(left) = patience.checked_sub(since.1.elapsed()) else {
                queue.is_stuck = true;
                return;
            };
            let waited = self.changed.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Writer of one event for `tracing_subscriber`.
pub(super) struct LogWriter(Arc<LogOutput>);

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(&String::from_utf8_lossy(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Creates the writers of the formats for machines.
pub(super) struct LogWriters;

impl<'a> MakeWriter<'a> for LogWriters {
    type Writer = LogWriter;

    fn make_writer(&'a self) -> LogWriter {
        LogWriter(stderr())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    /// An output with room for `most` bytes, whose reader takes a line when the test does.
    fn output(most: usize) -> (Arc<LogOutput>, Receiver<String>) {
        let (lines, reader) = sync_channel(0);
        let lost: SyncSender<String> = lines.clone();
        let write = move |line: &str| _ = lines.send(line.to_owned());
        let report = move |count| _ = lost.send(format!("lost {count}"));
        let output = LogOutput::new(most, Box::new(write), Box::new(report));
        (Arc::new(output), reader)
    }

    #[test]
    fn lines_come_in_order_and_never_wait_for_the_reader() {
        let (output, reader) = output(MOST);
        let lines: Vec<String> = (0..1000).map(|nth| format!("line {nth}\n")).collect();
        for line in &lines {
            output.push(line);
        }
        let read: Vec<String> = reader.iter().take(lines.len()).collect();
        assert_eq!(read, lines);
        output.settle(Duration::from_secs(60));
    }

    #[test]
    fn a_full_queue_drops_lines_and_reports_their_number() {
        let (output, reader) = output(10);
        // One is being written, which is not known exactly; two wait.
        output.push("1234\n");
        while !output.lock().is_busy {
            thread::yield_now();
        }
        for line in ["aaaa\n", "bbbb\n", "cccc\n", "dddd\n"] {
            output.push(line);
        }
        let read: Vec<String> = reader.iter().take(4).collect();
        assert_eq!(read, ["1234\n", "aaaa\n", "bbbb\n", "lost 2"]);
        output.push("eeee\n");
        assert_eq!(reader.recv().unwrap(), "eeee\n");
    }

    #[test]
    fn the_end_waits_for_a_slow_reader_and_not_for_a_stopped_one() {
        let (output, reader) = output(MOST);
        output.push("one\n");
        output.settle(Duration::ZERO);
        assert!(output.lock().is_stuck);
        // It is known to have stopped: no further wait.
        output.settle(Duration::from_secs(600));
        assert_eq!(reader.recv().unwrap(), "one\n");
        let slow = thread::spawn(move || reader.iter().take(3).count());
        for _ in 0..3 {
            output.push("line\n");
        }
        output.settle(Duration::from_secs(600));
        assert!(output.lock().lines.is_empty());
        assert_eq!(slow.join().unwrap(), 3);
    }
}
