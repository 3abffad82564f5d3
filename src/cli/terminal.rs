//! Output for users: tables, colours, progress. A pipe gets neither colours nor progress.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};

use crate::base::environment;
use crate::cli::logging;
use crate::cli::wrap;
use crate::platform;

/// Style of headings.
pub const HEADING: Style = Style::new().bold();
/// Style of success.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Style of failure.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// Style of warnings.
pub const WARNING: Style = AnsiColor::Yellow.on_default();
/// Style of commands, names and values in prose.
pub const CODE: Style = AnsiColor::Cyan.on_default();
/// Style of secondary text.
pub const DIM: Style = Style::new().dimmed();

/// Default width of text, in columns, and the limits for other widths.
const USUAL_WIDTH: usize = 80;
const NARROWEST: usize = 60;
const WIDEST: usize = 120;
/// Maximum width of a help: wider lines are hard to read.
const WIDEST_HELP: usize = 100;

/// Interval between frames of a progress line.
const TICK: Duration = Duration::from_millis(120);

/// Returns true if pgiam can prompt the user.
#[must_use]
pub fn is_interactive() -> bool {
    // The system stops a background process that reads from its terminal.
    io::stdin().is_terminal() && io::stderr().is_terminal() && platform::is_in_front()
}

/// Returns the number of columns for pages of text on standard output: the width of the terminal,
/// within limits, or 80 without a terminal.
#[must_use]
pub fn width() -> usize {
    stdout_width()
        .unwrap_or(USUAL_WIDTH)
        .clamp(NARROWEST, WIDEST)
}

/// Returns the number of columns for results on standard output: the width of the terminal, within
/// limits; unlimited without a terminal.
#[must_use]
pub fn text_width() -> usize {
    stdout_width().map_or(usize::MAX, |columns| columns.clamp(NARROWEST, WIDEST))
}

/// Returns the number of columns of the terminal that standard output is; `None` if it is none.
#[must_use]
pub fn stdout_width() -> Option<usize> {
    let (_, columns) = console::Term::stdout().size_checked()?;
    io::stdout().is_terminal().then(|| columns.into())
}

/// Returns the number of columns for a help on standard output: the width of the terminal, at most
/// [`WIDEST_HELP`], which is also the width without a terminal. In a pipe to a pager, standard error
/// may be the terminal.
pub(super) fn help_width() -> usize {
    let size = console::Term::stdout().size_checked();
    let of_stdout = size.filter(|_| io::stdout().is_terminal());
    let columns = of_stdout.map(|(_, columns)| usize::from(columns));
    let columns = columns.or_else(stderr_width).unwrap_or(WIDEST_HELP);
    columns.clamp(NARROWEST, WIDEST_HELP)
}

/// Returns the number of columns of the terminal that standard error is; `None` if it is none.
#[must_use]
pub fn stderr_width() -> Option<usize> {
    let (_, columns) = console::Term::stderr().size_checked()?;
    io::stderr().is_terminal().then(|| columns.into())
}

/// Writes to standard output. Removes colours if it is not a terminal or they are disabled
/// (`NO_COLOR`, `CLICOLOR`, `TERM=dumb`). A closed pipe, as with `head`, is not an error.
///
/// # Errors
/// The error of the system.
pub fn write(text: impl fmt::Display) -> io::Result<()> {
    logging::settle();
    let mut out = anstream::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Writes to standard error, for text that is not a result, with the same rules for colours. On a
/// terminal, wraps sentences and gives each command a line of its own.
///
/// # Errors
/// The error of the system.
pub fn tell(text: impl fmt::Display) -> io::Result<()> {
    let text = fitted(text.to_string(), stderr_width());
    logging::settle();
    let mut out = anstream::stderr().lock();
    writeln!(out, "{text}")
}

/// Writes a text to standard error in one piece and as it is. Colours reach consoles of Windows that
/// do not understand their escape codes, too.
///
/// # Errors
/// The error of the system.
pub fn tell_as_it_is(text: &str, has_colours: bool) -> io::Result<()> {
    if cfg!(windows) && has_colours {
        let mut out = anstream::AutoStream::always(io::stderr()).lock();
        return out.write_all(text.as_bytes());
    }
    io::stderr().lock().write_all(text.as_bytes())
}

/// Writes sentences and commands to standard output like [`write()`], and wraps them like [`tell`].
///
/// # Errors
/// The error of the system.
pub fn write_text(text: impl fmt::Display) -> io::Result<()> {
    let columns = stdout_width();
    write(format_args!("{}\n", fitted(text.to_string(), columns)))
}

/// Wraps a text for a terminal of so many columns. Without a terminal the text stays as it is.
fn fitted(text: String, columns: Option<usize>) -> String {
    match columns {
        Some(columns) => wrap::paragraphs(&text, columns.min(WIDEST)).join("\n"),
        None => text,
    }
}

/// Returns true if standard error may have colours: it is a terminal, and they are not disabled
/// (`NO_COLOR`, `CLICOLOR`, `TERM=dumb`).
#[must_use]
pub fn stderr_has_colours() -> bool {
    anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never
}

/// Returns true if marks and arrows may be other characters than ASCII: not on a terminal without
/// them, and not if the locale names another encoding. Without a locale, terminals of today have
/// UTF-8.
#[must_use]
pub fn has_unicode() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"];
    let locale = locale.iter().find_map(|name| environment::text(name));
    shows_unicode(environment::text("TERM").as_deref(), locale.as_deref())
}

fn shows_unicode(term: Option<&str>, locale: Option<&str>) -> bool {
    // The Linux console has few characters.
    let is_simple = matches!(term, Some("dumb" | "linux"));
    let is_utf8 = |locale: &str| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    };
    !is_simple && locale.is_none_or(is_utf8)
}

/// Returns `text` in a style.
pub fn styled(style: Style, text: impl fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Progress line on standard error, if that is a terminal. Dropping it removes the line.
pub struct Progress(ProgressBar);

impl Progress {
    /// Shows the message `what`.
    #[must_use]
    pub fn start(what: impl Into<String>) -> Self {
        let bar = if io::stderr().is_terminal() {
            ProgressBar::new_spinner()
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed:.dim}") {
            bar.set_style(style);
        }
        bar.set_message(what.into());
        bar.enable_steady_tick(TICK);
        shown_progress().replace(bar.clone());
        Self(bar)
    }

    /// Replaces the message.
    pub fn now(&self, what: impl Into<String>) {
        self.0.set_message(what.into());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        shown_progress().take();
        self.0.finish_and_clear();
    }
}

/// The progress line that is on the terminal.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

fn shown_progress() -> MutexGuard<'static, Option<ProgressBar>> {
    // An assignment, which a panic cannot interrupt.
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `write`, which writes to standard error, while no progress line is there.
pub fn without_progress(write: impl FnOnce()) {
    let bar = shown_progress().clone();
    match bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Spaces between columns.
const GAP: usize = 2;

/// Table with columns padded to their widest cell. Cells may be styled; the last column is not padded.
#[derive(Clone, Debug)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Creates a table with these headings.
    #[must_use]
    pub fn new(head: &[&str]) -> Self {
        Self {
            head: head.iter().map(|cell| (*cell).to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Returns true if the table has no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl Table {
    /// Renders the table in at most `width` terminal columns. The widest columns shrink, and their
    /// cells are truncated.
    #[must_use]
    pub fn fitted(mut self, width: usize) -> Self {
        let mut widths = self.widths();
        let gaps = GAP * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > width
            && let Some(widest) = widths.iter_mut().max()
            && *widest > 1
        {
            *widest -= 1;
        }
        for row in self.rows.iter_mut().chain([&mut self.head]) {
            for (cell, width) in row.iter_mut().zip(&widths) {
                *cell = console::truncate_str(cell, *width, "…").into_owned();
            }
        }
        self
    }

    /// Renders the table in at most `width` terminal columns; `None`: any number. If the rows are
    /// wider, each row is a paragraph: its first cell, and below it the others with their headings.
    /// Empty without rows.
    #[must_use]
    pub fn within(&self, width: Option<usize>) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let widths = self.widths();
        let needed = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
        let Some(width) = width.filter(|width| needed > *width) else {
            return self.to_string();
        };
        let mut text = String::new();
        for row in &self.rows {
            let cells = self.head.iter().zip(row).skip(1);
            let cells = cells.filter(|(_, cell)| !cell.is_empty());
            let mut line = row.first().cloned().unwrap_or_default();
            let mut is_first = true;
            for (head, cell) in cells {
                let pair = format!("{head}: {cell}");
                let fits = columns(&line) + GAP + columns(&pair) <= width;
                if is_first || !fits {
                    text.push_str(&format!("{line}\n"));
                    line.clear();
                }
                line.push_str(&format!("{}{pair}", " ".repeat(GAP)));
                is_first = false;
            }
            text.push_str(&format!("{line}\n"));
        }
        text
    }

    /// Returns the width of each column.
    fn widths(&self) -> Vec<usize> {
        let widest = |column: usize| {
            let cells = self.rows.iter().chain([&self.head]);
            let widths = cells.filter_map(|row| row.get(column).map(|cell| columns(cell)));
            widths.max().unwrap_or(0)
        };
        (0..self.head.len()).map(widest).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head: Vec<String> = self.head.iter().map(|cell| styled(HEADING, cell)).collect();
        let widths = self.widths();
        for row in [&head].into_iter().chain(&self.rows) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width + GAP - columns(cell)));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Returns the number of terminal columns of a text, without its styles.
#[must_use]
pub fn columns(text: &str) -> usize {
    // Most texts need no look at widths and styles; the log measures each line.
    let is_plain = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if is_plain {
        return text.len();
    }
    console::measure_text_width(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_ascii_where_the_terminal_has_no_others() {
        for (term, locale, expected) in [
            (Some("xterm-256color"), Some("en_US.UTF-8"), true),
            (Some("xterm"), Some("C.utf8"), true),
            (Some("xterm"), None, true),
            (None, None, true),
            (Some("xterm"), Some("C"), false),
            (Some("xterm"), Some("de_DE.ISO-8859-1"), false),
            (Some("linux"), Some("en_US.UTF-8"), false),
            (Some("dumb"), None, false),
        ] {
            assert_eq!(shows_unicode(term, locale), expected, "{term:?} {locale:?}");
        }
    }

    #[test]
    fn a_text_is_wrapped_on_a_terminal_only() {
        let text = "hint: a long sentence, then run: pgiam check orders";
        assert_eq!(fitted(text.to_owned(), None), text);
        assert_eq!(
            fitted(text.to_owned(), Some(20)),
            "hint: a long\nsentence, then run:\n  pgiam check orders"
        );
    }

    #[test]
    fn columns_are_padded_to_what_is_seen() {
        let mut table = Table::new(&["name", "status"]);
        table.row(["orders".to_owned(), styled(GOOD, "available")]);
        table.row([styled(BAD, "größe"), "gone".to_owned()]);
        let plain = anstream::adapter::strip_str(&table.to_string()).to_string();
        assert_eq!(plain, "name    status\norders  available\ngröße   gone\n");
        assert!(!table.is_empty() && Table::new(&[]).is_empty());
    }

    #[test]
    fn rows_that_are_too_wide_become_paragraphs() {
        let mut table = Table::new(&["name", "engine", "IAM", "status"]);
        let cells = ["orders", "aurora 17.5", "on", "available"];
        table.row(cells.map(|cell| styled(GOOD, cell)));
        table.row(["reports-of-all-regions", "-", "", "stopped"].map(str::to_owned));
        let plain = |width| {
            let text = table.within(width);
            anstream::adapter::strip_str(&text).to_string()
        };
        let wide = "name                    engine       IAM  status\n\
                    orders                  aurora 17.5  on   available\n\
                    reports-of-all-regions  -                 stopped\n";
        assert_eq!(Table::new(&["name"]).within(None), "");
        assert_eq!(plain(None), wide);
        assert_eq!(plain(Some(53)), wide);
        assert_eq!(
            plain(Some(40)),
            "orders\n  engine: aurora 17.5  IAM: on\n  status: available\n\
             reports-of-all-regions\n  engine: -  status: stopped\n"
        );
    }

    #[test]
    fn the_widest_columns_give_way() {
        let mut table = Table::new(&["name", "endpoint", "state"]);
        let (long, state) = (
            "orders.cluster-abc.eu-central-1",
            styled(BAD, "interrupted"),
        );
        table.row(["orders".to_owned(), long.to_owned(), state]);
        let plain = |table: Table| anstream::adapter::strip_str(&table.to_string()).to_string();
        assert_eq!(
            plain(table.clone().fitted(34)),
            "name    endpoint       state\norders  orders.clust…  interrupted\n"
        );
        assert_eq!(plain(table.clone().fitted(100)), plain(table));
    }
}
