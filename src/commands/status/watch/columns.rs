//! Columns of the screen: their widths, and cells that fit.

use crate::base::quote::printable;
use crate::cli::wrap::{LongWords, words};

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) title: &'static str,
    /// Numbers are aligned to the right.
    pub(super) right: bool,
    /// Width that the column needs at least; its cells are cut to it.
    pub(super) least: usize,
    /// Shown only if every other column has its full width.
    pub(super) optional: bool,
    /// Takes the rest of the width.
    pub(super) grows: bool,
    /// Order in which columns are left out if the table is too wide, from 1; 0: always shown.
    pub(super) leaves: u8,
}

impl Column {
    /// A column of text that may be cut to `least`.
    pub(super) const fn text(title: &'static str, least: usize) -> Self {
        Self {
            title,
            right: false,
            least,
            optional: false,
            grows: false,
            leaves: 0,
        }
    }

    /// Leaves the column out if the table is too wide: 1 first, then 2, and so on.
    pub(super) const fn leaves(self, leaves: u8) -> Self {
        Self { leaves, ..self }
    }

    /// A column of numbers, which are never cut.
    pub(super) const fn number(title: &'static str) -> Self {
        Self {
            right: true,
            ..Self::text(title, usize::MAX)
        }
    }

    /// A column that a narrow terminal does not show.
    pub(super) const fn optional(title: &'static str) -> Self {
        Self {
            optional: true,
            ..Self::text(title, usize::MAX)
        }
    }

    /// The column that takes the rest.
    pub(super) const fn rest(title: &'static str, least: usize) -> Self {
        Self {
            grows: true,
            ..Self::text(title, least)
        }
    }
}

/// Room that a growing column keeps before an optional one appears.
const BEFORE_OPTIONAL: usize = 8;

/// Returns the width of each column, given its widest cell, in `width` terminal columns with `gap`
/// between two; 0 for a column that is not shown.
pub(super) fn fit(columns: &[Column], widest: &[usize], gap: usize, width: usize) -> Vec<usize> {
    let natural = |at: usize| {
        let widest = widest.get(at).copied().unwrap_or(0);
        columns
            .get(at)
            .map_or(widest, |column| widest.max(text_width(column.title)))
    };
    let mut widths: Vec<usize> = (0..columns.len())
        .map(|at| match columns.get(at) {
            Some(column) if column.optional => 0,
            Some(column) if column.grows => column.least,
            Some(column) => natural(at).min(column.least),
            None => 0,
        })
        .collect();
    let used = |widths: &[usize]| {
        let shown = widths.iter().filter(|width| **width > 0).count();
        widths.iter().sum::<usize>() + gap * shown.saturating_sub(1)
    };
    // A number is shown whole or not at all.
    let mut leaving: Vec<usize> = (0..columns.len()).collect();
    leaving.retain(|at| columns.get(*at).is_some_and(|column| column.leaves > 0));
    leaving.sort_by_key(|at| columns.get(*at).map(|column| column.leaves));
    let mut left_out = Vec::new();
    for at in leaving {
        if used(&widths) <= width {
            break;
        }
        if let Some(width) = widths.get_mut(at) {
            *width = 0;
            left_out.push(at);
        }
    }
    let mut left = width.saturating_sub(used(&widths));
    // The narrowest of the cut columns grows first.
    while left > 0 {
        let cut = columns.iter().enumerate().filter(|(at, column)| {
            let is_cut = widths.get(*at).is_some_and(|w| *w < natural(*at));
            !column.optional && !column.grows && !left_out.contains(at) && is_cut
        });
        let narrowest = cut
            .map(|(at, _)| at)
            .min_by_key(|at| widths.get(*at).copied());
        let Some(width) = narrowest.and_then(|at| widths.get_mut(at)) else {
            break;
        };
        *width += 1;
        left -= 1;
    }
    let grows = columns.iter().any(|column| column.grows);
    let reserve = if grows { BEFORE_OPTIONAL } else { 0 };
    for (at, column) in columns.iter().enumerate() {
        let needed = natural(at) + gap;
        if column.optional && left >= needed + reserve {
            left -= needed;
            if let Some(width) = widths.get_mut(at) {
                *width = natural(at);
            }
        }
    }
    if let Some(at) = columns.iter().position(|column| column.grows)
        && !left_out.contains(&at)
        && let Some(width) = widths.get_mut(at)
    {
        *width += left;
    }
    widths
}

/// Returns the number of terminal columns of a text.
pub(super) fn text_width(text: &str) -> usize {
    console::measure_text_width(text)
}

/// Returns a text in `width` terminal columns, padded; a longer one ends with "…".
pub(super) fn cell(text: &str, width: usize, right: bool) -> String {
    let text = cut(text, width);
    let blank = " ".repeat(width.saturating_sub(text_width(&text)));
    if right {
        format!("{blank}{text}")
    } else {
        format!("{text}{blank}")
    }
}

/// Returns a text in at most `width` terminal columns, in one line, without terminal commands.
pub(super) fn cut(text: &str, width: usize) -> String {
    console::truncate_str(&printable(text), width, "…").into_owned()
}

/// Returns the end of a printable text, in at most `width` terminal columns; a longer one begins
/// with "…".
pub(super) fn cut_start(text: &str, width: usize) -> String {
    if text_width(text) <= width {
        return text.to_owned();
    }
    let ends = text.char_indices().map(|(at, _)| text.split_at(at).1);
    let mut ends = ends.filter(|end| text_width(end) < width);
    format!("…{}", ends.next().unwrap_or_default())
}

/// Wraps a text at words into lines of at most `width` columns. A line that begins with two spaces
/// is a command: it keeps its spaces, and is wrapped anywhere.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let wrapped = |line: &str| {
        if line.starts_with("  ") {
            return broken(&printable(line.trim_end()), width);
        }
        let visible: Vec<String> = line.split_whitespace().map(printable).collect();
        words(&visible.join(" "), width, LongWords::Broken)
    };
    text.lines().flat_map(wrapped).collect()
}

/// Breaks a text into pieces of at most `width` columns.
fn broken(text: &str, width: usize) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for c in text.chars() {
        let mut buffer = [0; 4];
        let own = text_width(c.encode_utf8(&mut buffer));
        match pieces.last_mut() {
            Some(piece) if piece.is_empty() || text_width(piece) + own <= width => piece.push(c),
            _ => pieces.push(c.to_string()),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column::text("NAME", 6),
        Column::number("SIZE"),
        Column::rest("TRAFFIC", 4),
        Column::optional("VIA"),
    ];

    #[test]
    fn the_rest_is_shared_and_the_optional_comes_last() {
        let fitted = |widest: [usize; 4], width| fit(&COLUMNS, &widest, 2, width);
        assert_eq!(fitted([20, 3, 0, 9], 18), [6, 4, 4, 0]);
        assert_eq!(fitted([20, 3, 0, 9], 25), [13, 4, 4, 0]);
        assert_eq!(fitted([20, 3, 0, 9], 40), [20, 4, 12, 0]);
        assert_eq!(fitted([20, 3, 0, 9], 51), [20, 4, 12, 9]);
        assert_eq!(fitted([4, 6, 0, 9], 60), [4, 6, 35, 9], "a short name");
        assert_eq!(
            fitted([4, 6, 0, 9], 5),
            [4, 6, 4, 0],
            "the caller cuts the line"
        );
    }

    #[test]
    fn a_column_is_left_out_whole() {
        let columns = [
            Column::text("NAME", 6),
            Column::number("SIZE").leaves(2),
            Column::number("PID"),
            Column::rest("LOAD", 4).leaves(1),
        ];
        let fitted = |width| fit(&columns, &[6, 6, 7, 0], 1, width);
        assert_eq!(fitted(26), [6, 6, 7, 4]);
        assert_eq!(fitted(25), [6, 6, 7, 0]);
        assert_eq!(fitted(20), [6, 0, 7, 0]);
    }

    #[test]
    fn a_long_filter_keeps_its_end() {
        assert_eq!(cut_start("/orders", 7), "/orders");
        assert_eq!(cut_start("/orders app", 7), "…rs app");
        assert_eq!(cut_start("/日本語の名前", 6), "…名前");
    }

    #[test]
    fn cells_are_cut_by_what_is_seen() {
        assert_eq!(cell("orders", 8, false), "orders  ");
        assert_eq!(cell("12", 4, true), "  12");
        assert_eq!(cell("quarterly-reports", 8, false), "quarter…");
        assert_eq!(cell("日本語の名前", 7, false), "日本語…");
        assert_eq!(cell("日本語の名前", 8, false), "日本語… ");
        assert_eq!(
            cell("a\x1b[2Jb\nc\u{202e}", 40, false).trim_end(),
            "a\\u{1b}[2Jb\\nc\\u{202e}"
        );
    }

    #[test]
    fn words_wrap_and_commands_stay_whole() {
        assert_eq!(wrap("log in to AWS again", 9), ["log in to", "AWS again"]);
        assert_eq!(
            wrap("run:\n  pgiam login  dev\nthen", 20),
            ["run:", "  pgiam login  dev", "then"]
        );
        assert_eq!(wrap("  abcdef", 5), ["  abc", "def"]);
        assert_eq!(wrap("abcdefgh ij", 3), ["abc", "def", "gh", "ij"]);
        assert_eq!(wrap("", 3), [""; 0]);
        assert_eq!(wrap("a\n\nb", 3), ["a", "", "b"]);
    }
}
