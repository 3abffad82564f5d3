//! Layout of one event: time, mark, target, text, and the remedy below.

use anstyle::Style;

use super::sentences::Mark;
use crate::cli::terminal::{BAD, DIM, GOOD, HEADING, WARNING, columns, styled};
use crate::cli::wrap::{self, LongWords};

/// Indent of further lines without a terminal, where the time is long and nothing is wrapped.
const BELOW: &str = "    ";
/// Maximum width of the column of targets.
const WIDEST_TARGET: usize = 24;
/// Maximum width of the column of clients.
const WIDEST_CLIENT: usize = 48;
/// Columns that a text needs next to the column of targets; else it begins below the time.
const NARROWEST_TEXT: usize = 36;
/// Width of a duration: "59.9 s", "999 ms".
const DURATION: usize = 6;

/// Abilities of standard error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// Columns of the terminal; `None` without a terminal.
    pub(super) width: Option<usize>,
    pub(super) colours: bool,
    /// Marks and arrows may be other characters than ASCII.
    pub(super) unicode: bool,
}

/// Event in words. All texts are safe to show.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) mark: Mark,
    /// An event of level debug or trace.
    pub(super) is_detail: bool,
    pub(super) target: Option<String>,
    /// The client, for an event that consists of client and duration.
    pub(super) client: Option<String>,
    pub(super) text: String,
    /// Duration of a login.
    pub(super) duration: Option<String>,
    pub(super) id: Option<String>,
    pub(super) detail: Option<String>,
    pub(super) hint: Option<String>,
}

/// Widths of the columns so far: they grow with the names that appear.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ColumnWidths {
    target: usize,
    client: usize,
}

impl ColumnWidths {
    /// Makes room for the names of a line.
    pub(super) fn fit(&mut self, line: &Line) {
        let grow = |width: &mut usize, text: Option<&String>, limit| {
            let columns = text.map_or(0, |text| columns(text));
            if columns <= limit {
                *width = columns.max(*width);
            }
        };
        grow(&mut self.target, line.target.as_ref(), WIDEST_TARGET);
        grow(&mut self.client, line.client.as_ref(), WIDEST_CLIENT);
    }
}

impl Line {
    /// Formats the event in lines, with a line feed after each.
    pub(super) fn render(&self, time: &str, look: Look, widths: ColumnWidths) -> String {
        let paint = Paint {
            colours: look.colours,
        };
        let (mark, style) = self.mark(look.unicode);
        let start = format!("{} {} ", paint.text(DIM, time), paint.text(style, mark));
        let left = columns(time) + 3;
        let mut out = String::new();
        let mut push = |line: String| {
            out.push_str(line.trim_end());
            out.push('\n');
        };
        let (first, rest, indent) = self.text_lines(look, widths, left, paint);
        push(format!("{start}{first}"));
        rest.into_iter()
            .for_each(|line| push(format!("{:indent$}{line}", "")));
        let (below, room) = match look.width {
            Some(width) => (" ".repeat(left), Some(width.saturating_sub(left))),
            None => (BELOW.to_owned(), None),
        };
        for line in self.detail.iter().flat_map(|detail| wrapped(detail, room)) {
            push(format!("{below}{}", paint.text(DIM, line)));
        }
        let arrow = if look.unicode { "→ " } else { "-> " };
        let indent = columns(arrow);
        let room = room.map(|room| room.saturating_sub(indent));
        let mut before = arrow.to_owned();
        for line in self.hint.iter().flat_map(|hint| wrapped(hint, room)) {
            push(format!("{below}{before}{line}"));
            before = " ".repeat(indent);
        }
        out
    }

    /// Returns the first line behind the mark, the further lines, and their indent.
    fn text_lines(
        &self,
        look: Look,
        widths: ColumnWidths,
        left: usize,
        paint: Paint,
    ) -> (String, Vec<String>, usize) {
        let id = self.id.as_ref().map(|id| format!("[{id}]"));
        let text = self.sentence(id.as_deref());
        let style = if self.is_detail { DIM } else { Style::new() };
        let colour = |line: String| {
            let line = match &id {
                Some(id) => line.replace(id.as_str(), &paint.text(DIM, id)),
                None => line,
            };
            paint.text(style, line)
        };
        let target = self.target.as_deref();
        let Some(width) = look.width else {
            let target = target.map(|target| format!("{target}  "));
            let text = self.one_line(text);
            return (
                format!("{}{text}", target.unwrap_or_default()),
                Vec::new(),
                left,
            );
        };
        let column = target.map_or(0, |_| widths.target + 2);
        let room = width.saturating_sub(left + column);
        if let Some(target) = target
            && room >= NARROWEST_TEXT
            && columns(target) <= widths.target
        {
            let gap = " ".repeat(column - columns(target));
            let named = format!("{}{gap}", paint.text(HEADING, target));
            if let Some(row) = self.row(widths, room, paint) {
                return (format!("{named}{row}"), Vec::new(), left);
            }
            let text = self.one_line(text);
            let mut lines = self.wrapped_text(&text, room).into_iter().map(colour);
            let first = lines.next().unwrap_or_default();
            return (format!("{named}{first}"), lines.collect(), left + column);
        }
        let text = self.one_line(text);
        let text = match target {
            Some(target) => format!("{target}: {text}"),
            None => text,
        };
        let room = width.saturating_sub(left);
        let mut lines = self.wrapped_text(&text, room).into_iter().map(colour);
        let first = lines.next().unwrap_or_default();
        (first, lines.collect(), left)
    }

    /// Wraps the text. That of a connection contains no command to copy, but foreign names.
    fn wrapped_text(&self, text: &str, room: usize) -> Vec<String> {
        match self.client {
            Some(_) if columns(text) > room => wrap::words(text, room, LongWords::Whole),
            Some(_) => vec![text.to_owned()],
            None => wrap::paragraphs(text, room),
        }
    }

    /// Returns the text with client and identifier.
    fn sentence(&self, id: Option<&str>) -> String {
        let parts = [Some(self.text.as_str()), id];
        let parts: Vec<&str> = parts
            .into_iter()
            .flatten()
            .filter(|part| !part.is_empty())
            .collect();
        let text = parts.join(" ");
        match &self.client {
            Some(client) if text.is_empty() => client.clone(),
            Some(client) => format!("{client}: {text}"),
            None => text,
        }
    }

    fn one_line(&self, text: String) -> String {
        match &self.duration {
            Some(duration) => format!("{text}  {duration}"),
            None => text,
        }
    }

    /// Returns client and duration in columns, if there is nothing else and they fit.
    fn row(&self, widths: ColumnWidths, room: usize, paint: Paint) -> Option<String> {
        let (client, duration) = (self.client.as_ref()?, self.duration.as_ref()?);
        let gap = widths.client.checked_sub(columns(client))?;
        let fits = widths.client + 2 + DURATION.max(columns(duration)) <= room;
        if !fits || !self.text.is_empty() {
            return None;
        }
        let duration = paint.text(DIM, format!("{duration:>DURATION$}"));
        Some(format!("{client}{:gap$}  {duration}", ""))
    }

    fn mark(&self, unicode: bool) -> (&'static str, Style) {
        match (self.mark, unicode) {
            (Mark::Good, true) => ("✓", GOOD),
            (Mark::Good, false) => ("+", GOOD),
            (Mark::Note, true) => ("·", DIM),
            (Mark::Note, false) => ("-", DIM),
            (Mark::Warning, _) => ("!", WARNING),
            (Mark::Bad, true) => ("✗", BAD),
            (Mark::Bad, false) => ("x", BAD),
        }
    }
}

fn wrapped(text: &str, room: Option<usize>) -> Vec<String> {
    match room {
        Some(room) => wrap::paragraphs(text, room),
        None => text.lines().map(str::to_owned).collect(),
    }
}

#[derive(Clone, Copy)]
struct Paint {
    colours: bool,
}

impl Paint {
    fn text(self, style: Style, text: impl std::fmt::Display) -> String {
        match self.colours {
            true => styled(style, text),
            false => text.to_string(),
        }
    }
}
