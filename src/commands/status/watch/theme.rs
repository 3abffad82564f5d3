//! Styles of the screen: attributes, and the 16 colours that every terminal has.

use ratatui::style::{Color, Modifier, Style};

use super::rows::Tone;

/// Styles, with or without colours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Theme {
    pub(super) colours: bool,
}

impl Theme {
    /// Returns the style of a cell.
    pub(super) fn of(self, tone: Tone) -> Style {
        match tone {
            Tone::Plain => Style::new(),
            Tone::Good => self.coloured(Color::Green),
            Tone::Bad => self.coloured(Color::Red).add_modifier(Modifier::BOLD),
            Tone::Warning => self.coloured(Color::Yellow),
            Tone::Dim => Style::new().add_modifier(Modifier::DIM),
        }
    }

    fn coloured(self, colour: Color) -> Style {
        match self.colours {
            true => Style::new().fg(colour),
            false => Style::new(),
        }
    }

    /// Returns the style of headings; the pane with the keys is reversed.
    pub(super) fn heading(focused: bool) -> Style {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        match focused {
            true => bold.add_modifier(Modifier::REVERSED),
            false => bold.add_modifier(Modifier::UNDERLINED),
        }
    }

    /// Returns the style of the selected row.
    pub(super) fn selected() -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Returns the style of strong words.
    pub(super) fn strong() -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }
}
