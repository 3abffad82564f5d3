//! Draws the screen.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::columns::{cell, cut, cut_start, fit, text_width, wrap};
use super::header;
use super::keys::SHORT_HELP;
use super::model::{Model, Pane};
use super::rows::{Row, Rows, Tone};
use super::theme::Theme;
use super::window;
use crate::base::quote::printable;
use crate::commands::status::rates::sparkline;

/// Smallest terminal that the screen can use.
pub(super) const LEAST: (u16, u16) = (60, 15);
/// Rows of the terminal from which a blank line separates the tables.
const SPACED: u16 = 20;
/// Indentation of the lines below an error.
const INDENT: usize = 3;
/// Widest text below an error, in columns: longer lines are hard to read.
const WIDEST_TEXT: usize = 110;
/// Rows that a table keeps when there are too few: its heading, one row, and the number of the
/// others.
const LEAST_ROWS: usize = 3;

/// Draws the model. The picture that stays after the end has neither keys nor a selection.
pub(super) fn draw(frame: &mut Frame<'_>, model: &mut Model, theme: Theme, is_last: bool) {
    let area = frame.area();
    let buffer = frame.buffer_mut();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        return too_small(buffer, area);
    }
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let spaced = usize::from(area.height >= SPACED);
    let header = header::lines(model, (width, if spaced == 1 { 5 } else { 2 }));
    let mut y = 0;
    for (at, line) in header.iter().enumerate() {
        let mut x = 0;
        for (text, tone) in line {
            let style = match (at, x) {
                (0, 0) => theme.of(*tone).patch(Theme::strong()),
                _ => theme.of(*tone),
            };
            x += put(buffer, (x, y), (text, width - x), style);
        }
        y += 1;
    }
    let room = height.saturating_sub(y + 1 + Pane::ALL.len() * spaced);
    let tables = tables(model, (width, room), is_last);
    let needed: Vec<usize> = tables.iter().map(Table::needed).collect();
    let shares = share(room, &needed);
    for (table, rows) in tables.into_iter().zip(shares) {
        y += spaced;
        let focused = table.pane == model.pane && !is_last;
        let end = y + rows;
        table.draw(model, buffer, (y, end), (theme, focused));
        y = end;
    }
    if !is_last {
        last_line(model, buffer, (width, height - 1), theme);
        if let Some(window) = &mut model.window {
            model.page = window::draw(buffer, area, window);
        }
    }
}

/// Returns the tables. All errors have their texts if there is room, else only the selected one.
fn tables(model: &mut Model, (width, room): (usize, usize), is_last: bool) -> Vec<Table> {
    let mut of = |expands_all: bool| -> Vec<Table> {
        let panes = Pane::ALL.iter();
        let table = |pane: &Pane| Table::of(model, *pane, (width, expands_all), is_last);
        panes.map(table).collect()
    };
    let all = of(true);
    match all.iter().map(Table::needed).sum::<usize>() <= room {
        true => all,
        false => of(false),
    }
}

/// Draws the size that the screen needs.
fn too_small(buffer: &mut Buffer, area: Rect) {
    let (width, height) = LEAST;
    let text = format!(
        "This terminal has {} columns and {} rows. pgiam status --watch needs {width} columns and {height} rows. q quits.",
        area.width, area.height
    );
    let lines = wrap(&text, usize::from(area.width));
    for (y, line) in lines.iter().take(usize::from(area.height)).enumerate() {
        put(
            buffer,
            (0, y),
            (line, usize::from(area.width)),
            Style::new(),
        );
    }
}

/// Writes a text in at most `width` columns, and returns the number that it takes.
pub(super) fn put(
    buffer: &mut Buffer,
    (x, y): (usize, usize),
    (text, width): (&str, usize),
    style: Style,
) -> usize {
    let [x, y] = [x, y].map(|at| u16::try_from(at).unwrap_or(u16::MAX));
    if y >= buffer.area.bottom() || x >= buffer.area.right() {
        return 0;
    }
    let text = printable(text);
    let (end, _) = buffer.set_stringn(x, y, text, width, style);
    usize::from(end - x)
}

/// Shares rows between tables: each gets what it needs, or else as much as the others.
fn share(room: usize, needed: &[usize]) -> Vec<usize> {
    let mut shares: Vec<usize> = needed.iter().map(|rows| (*rows).min(LEAST_ROWS)).collect();
    let mut left = room.saturating_sub(shares.iter().sum());
    while left > 0 {
        let wanting = shares
            .iter_mut()
            .zip(needed)
            .filter(|(share, needed)| **share < **needed);
        let Some((share, _)) = wanting.min_by_key(|(share, _)| **share) else {
            break;
        };
        *share += 1;
        left -= 1;
    }
    shares
}

/// A line of a table.
struct TableLine {
    /// Index of its row.
    row: usize,
    content: TableContent,
}

enum TableContent {
    Cells,
    /// A line below the row.
    More(String, Tone),
}

/// A table that is ready to be drawn.
struct Table {
    pane: Pane,
    rows: Rows,
    widths: Vec<usize>,
    gap: usize,
    lines: Vec<TableLine>,
}

impl Table {
    fn of(
        model: &mut Model,
        pane: Pane,
        (width, expands_all): (usize, bool),
        is_last: bool,
    ) -> Self {
        let rows = model.rows(pane, width);
        let gap = if width < 80 { 1 } else { 2 };
        let widest: Vec<usize> = (0..rows.columns.len())
            .map(|at| {
                let cells = rows.rows.iter().filter_map(|row| row.cells.get(at));
                let widths = cells.map(|(text, _)| text_width(&printable(text)));
                widths.max().unwrap_or(0)
            })
            .collect();
        // The first column is for the mark of the selected row.
        let widths = fit(&rows.columns, &widest, gap, width - 1);
        let selected = model.selection(pane, &rows.rows).index;
        let selected = if is_last { 0 } else { selected };
        let mut lines = Vec::new();
        for (row, content) in rows.rows.iter().enumerate() {
            let cells = TableContent::Cells;
            lines.push(TableLine {
                row,
                content: cells,
            });
            if expands_all || row == selected {
                let below = below(content, (rows.columns.len(), &widths), width);
                lines.extend(below.into_iter().map(|(text, tone)| TableLine {
                    row,
                    content: TableContent::More(text, tone),
                }));
            }
        }
        Self {
            pane,
            rows,
            widths,
            gap,
            lines,
        }
    }

    /// Returns the number of rows that it needs.
    fn needed(&self) -> usize {
        1 + self.lines.len().max(1)
    }

    fn draw(
        self,
        model: &mut Model,
        buffer: &mut Buffer,
        (top, end): (usize, usize),
        (theme, focused): (Theme, bool),
    ) {
        let width = usize::from(buffer.area.width);
        self.heading(buffer, (top, width), focused);
        let room = end.saturating_sub(top + 1);
        if self.lines.is_empty() {
            let text = match (self.rows.all, self.pane) {
                (0, Pane::Targets) => "no targets".to_owned(),
                (0, Pane::Connections) => "no connections".to_owned(),
                (0, Pane::Errors) => "no errors".to_owned(),
                (all, _) => format!("{all} hidden by the filter; Esc removes it"),
            };
            put(
                buffer,
                (1, top + 1),
                (&text, width - 1),
                theme.of(Tone::Dim),
            );
            return;
        }
        let overflows = self.lines.len() > room;
        let room = if overflows {
            room.saturating_sub(1)
        } else {
            room
        };
        let selection = model.selection(self.pane, &self.rows.rows);
        selection.first = self.first_row((selection.first, selection.index), room);
        let (first, selected) = (selection.first, selection.index);
        if focused {
            model.page = room;
        }
        let shown = self
            .lines
            .iter()
            .skip_while(|line| line.row < first)
            .take(room);
        let mut y = top + 1;
        let mut last = first;
        for line in shown {
            let is_selected = focused && line.row == selected;
            self.line(buffer, (y, width), line, (theme, is_selected));
            last = line.row;
            y += 1;
        }
        if overflows {
            let text = self.hidden(first, last, room);
            put(buffer, (1, y), (&text, width - 1), theme.of(Tone::Dim));
        }
    }

    /// Returns the first row to show, so that the selected one is visible with its lines.
    fn first_row(&self, (first, selected): (usize, usize), room: usize) -> usize {
        let lines = |from: usize, to: usize| {
            let own = self
                .lines
                .iter()
                .filter(|line| (from..=to).contains(&line.row));
            own.count()
        };
        let mut first = first.min(selected);
        while first < selected && lines(first, selected) > room {
            first += 1;
        }
        // No empty space at the end while rows are hidden above.
        let last = self.rows.rows.len().saturating_sub(1);
        while first > 0 && lines(first - 1, last) <= room {
            first -= 1;
        }
        first
    }

    /// Describes the rows and lines that are not shown.
    fn hidden(&self, first: usize, last: usize, room: usize) -> String {
        let below = self.rows.rows.len() - 1 - last;
        let shown = self
            .lines
            .iter()
            .skip_while(|line| line.row < first)
            .take(room);
        let of_last = self.lines.iter().filter(|line| line.row == last).count();
        let cut = of_last - shown.filter(|line| line.row == last).count();
        let mut parts = Vec::new();
        if cut > 0 {
            let s = if cut == 1 { "" } else { "s" };
            parts.push(format!("+{cut} line{s} (Enter shows all)"));
        }
        if below > 0 {
            parts.push(format!("+{below} more"));
        }
        if first > 0 {
            parts.push(format!("{first} above"));
        }
        parts.join(", ")
    }

    fn heading(&self, buffer: &mut Buffer, (y, width): (usize, usize), focused: bool) {
        let style = Theme::heading(focused);
        put(buffer, (0, y), (&" ".repeat(width), width), style);
        let mut x = 1;
        for (column, own) in self.rows.columns.iter().zip(&self.widths) {
            if *own > 0 {
                let text = cell(column.title, *own, column.right);
                put(buffer, (x, y), (&text, width.saturating_sub(x)), style);
                x += own + self.gap;
            }
        }
    }

    fn line(
        &self,
        buffer: &mut Buffer,
        (y, width): (usize, usize),
        line: &TableLine,
        (theme, is_selected): (Theme, bool),
    ) {
        let Some(row) = self.rows.rows.get(line.row) else {
            return;
        };
        if let TableContent::More(text, tone) = &line.content {
            put(buffer, (INDENT, y), (text, width - INDENT), theme.of(*tone));
            return;
        }
        if is_selected {
            let mark = format!("›{}", " ".repeat(width - 1));
            put(buffer, (0, y), (&mark, width), Theme::selected());
        }
        let mut x = 1;
        let columns = self.rows.columns.iter().zip(&self.widths);
        for ((column, own), (text, tone)) in columns.zip(&row.cells) {
            if *own == 0 {
                continue;
            }
            let text = match column.grows && text.is_empty() {
                true => sparkline(&row.history, *own),
                false => cell(text, *own, column.right),
            };
            let style = match is_selected {
                true => Theme::selected(),
                false => theme.of(*tone),
            };
            put(buffer, (x, y), (&text, width.saturating_sub(x)), style);
            x += own + self.gap;
        }
    }
}

/// Returns the lines below a selected row. The first text repeats the last cell, and is left out if
/// that is not cut.
fn below(row: &Row, (columns, widths): (usize, &[usize]), width: usize) -> Vec<(String, Tone)> {
    let message = row
        .cells
        .get(columns - 1)
        .map(|(text, _)| text_width(&printable(text)));
    let is_whole = message <= widths.last().copied();
    let texts = row.more.iter().skip(usize::from(is_whole));
    let wrapped = texts.flat_map(|(text, tone)| {
        let lines = wrap(text, (width - INDENT).min(WIDEST_TEXT)).into_iter();
        lines.map(|line| (line, *tone))
    });
    wrapped.collect()
}

/// Draws the keys, the filter or a message in the last line.
fn last_line(model: &Model, buffer: &mut Buffer, (width, y): (usize, usize), theme: Theme) {
    if let Some(message) = &model.message {
        put(
            buffer,
            (0, y),
            (&cut(message, width), width),
            theme.of(Tone::Warning),
        );
        return;
    }
    let mut x = 0;
    if model.editing {
        // The end of a long filter is more useful than its beginning.
        let shown = cut_start(&format!("/{}", printable(&model.filter)), width - 30);
        x = put(buffer, (0, y), (&shown, width - 30), Theme::strong());
        x += put(buffer, (x, y), (" ", 1), Theme::selected());
        put(
            buffer,
            (x, y),
            ("  Enter keeps, Esc removes", 27),
            theme.of(Tone::Dim),
        );
        return;
    }
    if !model.filter.is_empty() {
        let shown = cut(&format!("/{}", printable(&model.filter)), width / 3);
        x = put(buffer, (0, y), (&shown, width), theme.of(Tone::Warning)) + 2;
    }
    for (key, what) in SHORT_HELP {
        let needed = text_width(key) + 1 + text_width(what);
        if x + needed > width {
            break;
        }
        x += put(buffer, (x, y), (key, width), Theme::strong()) + 1;
        x += put(buffer, (x, y), (what, width), theme.of(Tone::Dim)) + 2;
    }
}
