//! The window above the tables: help, details, explanations and questions.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::widgets::{Block, BorderType, Clear, Widget};

use super::columns::{cut, text_width, wrap};
use super::draw::put;
use super::model::Window;
use super::theme::Theme;

/// Widest text, in columns: longer lines are hard to read.
const WIDEST: usize = 96;
/// Columns beside the text: border and a blank on each side.
const BESIDE: usize = 4;

/// Draws a window, and returns the number of its visible lines. Corrects its first line, if the
/// terminal has become larger.
pub(super) fn draw(buffer: &mut Buffer, area: Rect, window: &mut Window) -> usize {
    let (columns, rows) = (usize::from(area.width), usize::from(area.height));
    let widest = window.lines.iter().map(|line| text_width(line));
    let widest = widest
        .chain([text_width(&window.title) + 2])
        .max()
        .unwrap_or(0);
    let width = widest
        .min(WIDEST)
        .min(columns.saturating_sub(BESIDE + 2))
        .max(1);
    let lines = wrap(&window.lines.join("\n"), width);
    let visible = lines.len().min(rows.saturating_sub(4)).max(1);
    window.first = window.first.min(lines.len().saturating_sub(visible));
    let (x, y) = ((columns - width - BESIDE) / 2, (rows - visible - 2) / 2);
    let [left, top, wide, high] =
        [x, y, width + BESIDE, visible + 2].map(|n| u16::try_from(n).unwrap_or(u16::MAX));
    let outer = Rect::new(area.x + left, area.y + top, wide, high);
    Clear.render(outer, buffer);
    let below = lines.len() - window.first - visible;
    let block = Block::bordered()
        .border_type(BorderType::Plain)
        .title(format!(" {} ", cut(&window.title, width)))
        .title_style(Theme::strong());
    let block = match (below, window.asks.is_some()) {
        (0, true) => block,
        (0, false) => block.title_bottom(" Esc closes "),
        (1, _) => block.title_bottom(" +1 line, ↓ scrolls, Esc closes "),
        (more, _) => block.title_bottom(format!(" +{more} lines, ↓ scrolls, Esc closes ")),
    };
    block.render(outer, buffer);
    for (at, line) in lines.iter().skip(window.first).take(visible).enumerate() {
        put(buffer, (x + 2, y + 1 + at), (line, width), Style::new());
    }
    visible
}
