//! The log for people: one line per connection and per event, with repeats folded.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::span::{Attributes, Id, Record};
use tracing::{Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::event::Fields;
use super::fold::{FoldedRepeats, Folding};
use super::line::{ColumnWidths, Line, Look};
use super::words::{self, Event};

/// Events of level info that are shown before their repeats are folded: a pool's connections, or
/// reloads in a row. Of warnings and errors the first one is shown.
const ROUTINE_ALLOWANCE: u32 = 5;

/// Destination of lines. Receives whole lines.
type Sink = Box<dyn Fn(&str) + Send + Sync>;

/// Everything outside that the log depends on.
pub(super) struct HumanOptions {
    pub(super) sink: Sink,
    /// Current abilities of the terminal; its width may change.
    pub(super) look: Box<dyn Fn() -> Look + Send + Sync>,
    /// Current local time; with the date if its argument is true.
    pub(super) time: Box<dyn Fn(bool) -> String + Send + Sync>,
    /// Shows each event, also the ends in order of connections.
    pub(super) verbose: bool,
}

/// Log for people. Clones share the state.
#[derive(Clone)]
pub(super) struct HumanLog(Arc<Shared>);

struct Shared {
    options: HumanOptions,
    state: Mutex<State>,
    /// Repeats are waiting for their report.
    held: Notify,
}

#[derive(Default)]
struct State {
    folding: Folding<Line>,
    widths: ColumnWidths,
}

impl HumanLog {
    pub(super) fn new(options: HumanOptions) -> Self {
        Self(Arc::new(Shared {
            options,
            state: Mutex::default(),
            held: Notify::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic cannot leave counts in an invalid state.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports repeats when they are due, until dropped.
    pub(super) async fn report_repeats(&self) {
        loop {
            let held = self.0.held.notified();
            let next = self.state().folding.next();
            match next {
                Some(next) => sleep_until(next).await,
                None => held.await,
            }
            let due = self.state().folding.due(Instant::now());
            self.write(&self.rendered(due));
        }
    }

    /// Reports the repeats that were not reported yet.
    pub(super) fn finish(&self) {
        let due = self.state().folding.finish(Instant::now());
        self.write(&self.rendered(due));
    }

    fn rendered(&self, due: Vec<FoldedRepeats<Line>>) -> String {
        let lines = due.into_iter();
        let lines = lines.map(|due| words::repeats(due.summary, due.count, due.within));
        lines.map(|line| self.text(&line)).collect()
    }

    fn text(&self, line: &Line) -> String {
        let look = (self.0.options.look)();
        let time = (self.0.options.time)(look.width.is_none());
        let widths = {
            let mut state = self.state();
            state.widths.fit(line);
            state.widths
        };
        line.render(&time, look, widths)
    }

    fn write(&self, text: &str) {
        if !text.is_empty() {
            (self.0.options.sink)(text);
        }
    }

    fn log(&self, event: &Event<'_>) {
        let Some(line) = event.line(self.0.options.verbose) else {
            return;
        };
        let mut text = String::new();
        if event.level <= Level::INFO && !self.0.options.verbose {
            let allowance = match event.level {
                Level::INFO => ROUTINE_ALLOWANCE,
                _ => 1,
            };
            let (key, now) = (event.kind(&line), Instant::now());
            let (due, is_shown) = {
                let mut state = self.state();
                let due = state.folding.due(now);
                let is_shown = state.folding.admit(key, allowance, now, || line.clone());
                (due, is_shown)
            };
            text = self.rendered(due);
            if !is_shown {
                self.0.held.notify_one();
                return self.write(&text);
            }
        }
        text.push_str(&self.text(&line));
        self.write(&text);
    }
}

impl<S> Layer<S> for HumanLog
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        let is_quiet = super::is_only_errors();
        if is_quiet && *event.metadata().level() > Level::ERROR {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let span = context.event_span(event);
        let extensions = span.as_ref().map(|span| span.extensions());
        let metadata = event.metadata();
        self.log(&Event {
            level: *metadata.level(),
            module: metadata.target(),
            fields,
            connection: extensions.as_ref().and_then(|all| all.get::<Fields>()),
        });
    }
}
