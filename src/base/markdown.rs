//! Lines of text from Markdown, in the subset of our documents: paragraphs, lists, tables, fenced
//! blocks, and inline code, emphasis and links.

use console::measure_text_width;

/// Columns before the lines of a fenced block, which are commands and output.
const BLOCK_INDENT: usize = 4;

/// Meaning of a part of a line, for the style of its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emphasis {
    /// Prose.
    Plain,
    /// A command, a name or a value. Its spaces are never the end of a line.
    Code,
    /// Text in bold or italics.
    Strong,
}

/// Part of a line with one style.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The text, without Markdown marks.
    pub text: String,
    /// Its meaning.
    pub emphasis: Emphasis,
}

/// One line of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(pub Vec<Span>);

impl Line {
    /// Returns the text without styles.
    #[must_use]
    pub fn plain(&self) -> String {
        self.0.iter().map(|span| span.text.as_str()).collect()
    }

    fn push(&mut self, text: &str, emphasis: Emphasis) {
        match self.0.last_mut() {
            Some(last) if last.emphasis == emphasis => last.text.push_str(text),
            _ => self.0.push(Span {
                text: text.to_owned(),
                emphasis,
            }),
        }
    }
}

/// Returns the lines of a Markdown text in at most `width` terminal columns. Lines end between
/// words, never inside of a command; a longer command has a line of its own.
#[must_use]
pub fn lines(markdown: &str, width: usize) -> Vec<Line> {
    let mut all: Vec<Line> = Vec::new();
    let mut source = markdown.lines().peekable();
    while let Some(line) = source.next() {
        let indent = line.len() - line.trim_start().len();
        let text = line.trim();
        if text.is_empty() {
            if all.last().is_some_and(|last| !last.0.is_empty()) {
                all.push(Line::default());
            }
        } else if text.starts_with("```") {
            let block = source.by_ref();
            for line in block.take_while(|line| line.trim() != "```") {
                let text = line.get(indent..).unwrap_or_default();
                all.push(indented(indent + BLOCK_INDENT, text));
            }
        } else if text.starts_with('|') {
            let mut rows = vec![cells(text)];
            while let Some(row) = source.next_if(|line| line.trim_start().starts_with('|')) {
                rows.push(cells(row));
            }
            all.extend(table(&rows, width));
        } else {
            let marker = list_marker(text);
            let mut paragraph = text[marker.len()..].to_owned();
            while let Some(more) = source.next_if(|line| continues(line)) {
                paragraph.push(' ');
                paragraph.push_str(more.trim());
            }
            // Text of a list item after a block in it keeps the item's indent.
            let first = format!("{}{marker}", " ".repeat(indent));
            all.extend(wrapped(&paragraph, &first, width));
        }
    }
    while all.last().is_some_and(|last| last.0.is_empty()) {
        all.pop();
    }
    all
}

/// Returns true if a line of Markdown belongs to the paragraph before it.
fn continues(line: &str) -> bool {
    let text = line.trim();
    let starts_block = text.starts_with("```") || text.starts_with('|');
    !text.is_empty() && !starts_block && list_marker(text).is_empty()
}

/// Returns the marker of a list item with the space after it; empty for other text.
fn list_marker(text: &str) -> &str {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let end = match &text[digits..] {
        rest if digits == 0 && rest.starts_with("- ") => 2,
        rest if digits > 0 && rest.starts_with(". ") => digits + 2,
        _ => 0,
    };
    &text[..end]
}

fn indented(columns: usize, text: &str) -> Line {
    let mut line = Line::default();
    line.push(&" ".repeat(columns), Emphasis::Plain);
    line.push(text, Emphasis::Code);
    line
}

/// Splits the row of a table into its cells.
fn cells(row: &str) -> Vec<Vec<Span>> {
    let row = row.trim().trim_matches('|');
    row.split('|').map(|cell| spans(cell.trim())).collect()
}

/// Returns the rows in columns, or each cell on a line of its own if the columns are too wide.
fn table(rows: &[Vec<Vec<Span>>], width: usize) -> Vec<Line> {
    let columns_of = |cell: &[Span]| -> usize {
        let texts = cell.iter().map(|span| measure_text_width(&span.text));
        texts.sum()
    };
    let is_rule = |row: &Vec<Vec<Span>>| {
        let mut texts = row.iter().flatten().map(|span| &span.text);
        texts.all(|text| text.chars().all(|c| matches!(c, '-' | ':')))
    };
    let rows: Vec<_> = rows.iter().filter(|row| !is_rule(row)).collect();
    let count = rows.iter().map(|row| row.len()).max().unwrap_or(0);
    let widest = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| columns_of(cell)).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(widest).collect();
    let fits = widths.iter().sum::<usize>() + 2 * count.saturating_sub(1) <= width;
    let mut all = Vec::new();
    for row in rows {
        let mut line = Line::default();
        for (at, cell) in row.iter().enumerate() {
            if at > 0 && !fits {
                all.push(std::mem::take(&mut line));
                line.push("  ", Emphasis::Plain);
            }
            for span in cell {
                line.push(&span.text, span.emphasis);
            }
            if fits && at + 1 < row.len() {
                let gap = widths[at] + 2 - columns_of(cell);
                line.push(&" ".repeat(gap), Emphasis::Plain);
            }
        }
        all.push(line);
    }
    all
}

/// Wraps a paragraph. `first` stands before its first line; the others are indented as far.
pub(crate) fn wrapped(paragraph: &str, first: &str, width: usize) -> Vec<Line> {
    let hanging = " ".repeat(measure_text_width(first));
    let mut line = Line::default();
    line.push(first, Emphasis::Plain);
    let (mut used, mut is_empty) = (hanging.len(), true);
    let mut all = Vec::new();
    for word in words(spans(paragraph)) {
        let columns: usize = word.iter().map(|span| measure_text_width(&span.text)).sum();
        if !is_empty && used + 1 + columns > width {
            all.push(std::mem::take(&mut line));
            line.push(&hanging, Emphasis::Plain);
            (used, is_empty) = (hanging.len(), true);
        }
        if !is_empty {
            line.push(" ", Emphasis::Plain);
            used += 1;
        }
        for span in &word {
            line.push(&span.text, span.emphasis);
        }
        (used, is_empty) = (used + columns, false);
    }
    all.push(line);
    all
}

/// Splits text into words, which lines may end between. Code is one word with all its spaces.
fn words(spans: Vec<Span>) -> Vec<Vec<Span>> {
    let mut all: Vec<Vec<Span>> = Vec::new();
    let mut word: Vec<Span> = Vec::new();
    for span in spans {
        if span.emphasis == Emphasis::Code {
            word.push(span);
            continue;
        }
        for (at, part) in span.text.split(' ').enumerate() {
            if at > 0 && !word.is_empty() {
                all.push(std::mem::take(&mut word));
            }
            if !part.is_empty() {
                word.push(Span {
                    text: part.to_owned(),
                    emphasis: span.emphasis,
                });
            }
        }
    }
    if !word.is_empty() {
        all.push(word);
    }
    all
}

/// Splits a paragraph at its inline marks. A mark without its other end is text.
fn spans(paragraph: &str) -> Vec<Span> {
    let mut line = Line::default();
    let mut rest = paragraph;
    while !rest.is_empty() {
        let marked = between(rest, "`", "`")
            .map(|(text, rest)| (text.to_owned(), Emphasis::Code, rest))
            .or_else(|| {
                let (text, rest) = between(rest, "**", "**").or_else(|| between(rest, "*", "*"))?;
                Some((without_marks(text), Emphasis::Strong, rest))
            })
            .or_else(|| {
                let (text, rest) = between(rest, "[", "](")?;
                let (target, rest) = rest.split_once(')')?;
                Some((link(text, target), Emphasis::Plain, rest))
            });
        let Some((text, emphasis, after)) = marked else {
            let next = rest.chars().next().map_or(rest.len(), char::len_utf8);
            let plain = rest[next..].find(['`', '*', '[']);
            let end = plain.map_or(rest.len(), |at| next + at);
            line.push(&rest[..end], Emphasis::Plain);
            rest = &rest[end..];
            continue;
        };
        line.push(&text, emphasis);
        rest = after;
    }
    line.0
}

/// Returns the text between two marks at the beginning of `text`, and the rest.
fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<(&'a str, &'a str)> {
    let (inner, rest) = text.strip_prefix(open)?.split_once(close)?;
    let is_word = !inner.is_empty() && !inner.starts_with(' ');
    is_word.then_some((inner, rest))
}

/// Returns a text without its inline marks.
pub(crate) fn without_marks(text: &str) -> String {
    Line(spans(text)).plain()
}

/// Returns the text of a link, with the name of the document if it leads to another one.
fn link(text: &str, target: &str) -> String {
    let document = target.split('#').next().unwrap_or_default();
    let text = without_marks(text);
    if document.is_empty() {
        return text;
    }
    if document.contains("://") {
        return format!("{text} ({target})");
    }
    format!("{text} (docs/{document})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(markdown: &str, width: usize) -> String {
        let lines = lines(markdown, width);
        let plain: Vec<String> = lines.iter().map(Line::plain).collect();
        plain.join("\n")
    }

    #[test]
    fn paragraphs_end_between_words_and_never_in_code() {
        let text = "Run `aws sso login` now, or\nset *its* **value**: see [a.b](#a.b).";
        assert_eq!(
            plain(text, 20),
            "Run aws sso login\nnow, or set its\nvalue: see a.b."
        );
        assert_eq!(
            plain(text, 10),
            "Run\naws sso login\nnow, or\nset its\nvalue: see\na.b."
        );
    }

    #[test]
    fn marks_without_an_end_are_text() {
        for text in ["2 * 3 * 4", "a ` b", "[none] (x)", "a ** b", "*", "[x](y"] {
            assert_eq!(plain(text, 80), text);
        }
        assert_eq!(plain("`*` and `[x](y)`", 80), "* and [x](y)");
    }

    #[test]
    fn links_name_other_documents() {
        let text = "[Clients](clients.md#x), [AWS](https://aws.example/x)";
        assert_eq!(
            plain(text, 80),
            "Clients (docs/clients.md), AWS (https://aws.example/x)"
        );
    }

    #[test]
    fn lists_hang_and_hold_blocks() {
        let text = "Do one:\n\n- Raise the\n  limit now:\n\n  ```sh\n  ulimit  -n 65536   # a long line\n  ```\n\n- Wait.\n\n10. Ten or more.";
        assert_eq!(
            plain(text, 14),
            "Do one:\n\n- Raise the\n  limit now:\n\n      ulimit  -n 65536   # a long line\n\n- Wait.\n\n10. Ten or\n    more."
        );
    }

    #[test]
    fn tables_are_aligned_or_stacked() {
        let text = "| action | resource |\n|---|---|\n| `rds:X` | any |\n| b | `c` |\n";
        assert_eq!(plain(text, 80), "action  resource\nrds:X   any\nb       c");
        assert_eq!(plain(text, 12), "action\n  resource\nrds:X\n  any\nb\n  c");
    }

    #[test]
    fn code_keeps_its_meaning() {
        let line = &lines("Set `user`.", 80)[0];
        let kinds: Vec<_> = line.0.iter().map(|span| span.emphasis).collect();
        assert_eq!(kinds, [Emphasis::Plain, Emphasis::Code, Emphasis::Plain]);
    }
}
