//! The terminal: raw mode, the alternate screen, and the way back.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::{Buffer, Cell};
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::style::{Color, Modifier};
use tokio::task::JoinHandle;

use super::draw::draw;
use super::model::Model;
use super::theme::Theme;

/// Longest wait for a key before other work, such as giving the terminal to a command.
const KEY_WAIT: Duration = Duration::from_millis(150);

/// True while the terminal is in raw mode and shows the alternate screen.
static IS_OPEN: AtomicBool = AtomicBool::new(false);

/// Returns true if standard output is a terminal that can show a screen.
pub(super) fn is_usable() -> bool {
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    !dumb && io::stdout().is_terminal()
}

/// The terminal with the screen. It is restored when this is dropped, and before a panic of the
/// command is reported.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<io::Stdout>>,
    theme: Theme,
}

impl Screen {
    /// Opens the screen.
    ///
    /// # Errors
    /// There is no terminal to read keys from.
    pub(super) fn open() -> io::Result<Self> {
        let colours = anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never;
        restore_before_reports();
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
        let theme = Theme { colours };
        let mut screen = Self { terminal, theme };
        screen.enter()?;
        Ok(screen)
    }

    /// Shows the screen, after [`Screen::leave`] or when another program has used the terminal.
    pub(super) fn enter(&mut self) -> io::Result<()> {
        // After SIGSTOP the shell has left raw mode, and crossterm does not know it.
        _ = disable_raw_mode();
        enable_raw_mode()?;
        IS_OPEN.store(true, Ordering::Release);
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        self.terminal.clear()
    }

    /// Restores the terminal.
    pub(super) fn leave(&mut self) {
        restore();
    }

    /// Forgets what the terminal shows, so that everything is drawn again.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.terminal.clear()
    }

    pub(super) fn draw(&mut self, model: &mut Model) -> io::Result<()> {
        let theme = self.theme;
        self.terminal
            .draw(|frame| draw(frame, model, theme, false))?;
        Ok(())
    }

    /// Restores the terminal, and leaves the last picture on it.
    pub(super) fn close(mut self, model: &mut Model) -> io::Result<()> {
        let theme = self.theme;
        let last = self
            .terminal
            .draw(|frame| draw(frame, model, theme, true))?;
        let picture = picture(last.buffer);
        restore();
        let mut out = anstream::stdout().lock();
        out.write_all(picture.as_bytes())?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Restores the terminal before a panic of the command is reported.
fn restore_before_reports() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // A background task that panics does not end the screen.
        if std::thread::current().name() == Some("main") {
            restore();
        }
        report(panic);
    }));
}

/// Restores the terminal, once.
fn restore() {
    if IS_OPEN.swap(false, Ordering::AcqRel) {
        // A terminal that is gone need not be restored.
        _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
        _ = disable_raw_mode();
    }
}

/// Returns the rows of a picture as text with colours, without blank rows at the end.
fn picture(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width).max(1);
    let mut text = String::new();
    for row in buffer.content.chunks(width) {
        let last = row.iter().rposition(|cell| cell.symbol() != " ");
        let row = &row[..last.map_or(0, |last| last + 1)];
        let mut style = anstyle::Style::new();
        let mut skip = 0;
        for cell in row {
            // The second half of a wide character.
            if skip > 0 {
                skip -= 1;
                continue;
            }
            skip = console::measure_text_width(cell.symbol()).saturating_sub(1);
            let own = style_of(cell);
            if own != style {
                text.push_str(&format!("{style:#}{own}"));
                style = own;
            }
            text.push_str(cell.symbol());
        }
        text.push_str(&format!("{style:#}\n"));
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn style_of(cell: &Cell) -> anstyle::Style {
    let colour = match cell.fg {
        Color::Green => Some(anstyle::AnsiColor::Green),
        Color::Red => Some(anstyle::AnsiColor::Red),
        Color::Yellow => Some(anstyle::AnsiColor::Yellow),
        _ => None,
    };
    let mut style = anstyle::Style::new().fg_color(colour.map(Into::into));
    for (modifier, effect) in [
        (Modifier::BOLD, anstyle::Effects::BOLD),
        (Modifier::DIM, anstyle::Effects::DIMMED),
        (Modifier::UNDERLINED, anstyle::Effects::UNDERLINE),
        (Modifier::REVERSED, anstyle::Effects::INVERT),
    ] {
        if cell.modifier.contains(modifier) {
            style = style.effects(style.get_effects() | effect);
        }
    }
    style
}

/// Reads keys and changes of size on a thread for blocking work, one at a time, so that a command
/// can have the terminal in between.
#[derive(Default)]
pub(super) struct Keys(Option<JoinHandle<io::Result<Option<Event>>>>);

impl Keys {
    /// Waits for the next event. Cancel-safe.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(super) async fn next(&mut self) -> io::Result<Event> {
        loop {
            let reading = self
                .0
                .get_or_insert_with(|| tokio::task::spawn_blocking(read));
            let read = reading.await;
            self.0 = None;
            if let Some(event) = read.map_err(io::Error::other)?? {
                return Ok(event);
            }
        }
    }

    /// Waits until the thread no longer reads. A key that was pressed meanwhile is lost.
    pub(super) async fn pause(&mut self) {
        if let Some(reading) = self.0.take() {
            _ = reading.await;
        }
    }
}

fn read() -> io::Result<Option<Event>> {
    if event::poll(KEY_WAIT)? {
        event::read().map(Some)
    } else {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use ratatui::layout::Rect;
    use ratatui::style::Style;

    use super::*;

    #[test]
    fn a_panic_of_the_command_restores_the_terminal() {
        restore_before_reports();
        IS_OPEN.store(true, Ordering::Release);
        let panics = |name: &str| {
            let thread = std::thread::Builder::new().name(name.to_owned());
            let ended = thread.spawn(|| panic!("as the test wants it")).unwrap();
            assert!(ended.join().is_err());
            IS_OPEN.load(Ordering::Acquire)
        };
        assert!(panics("a background task"));
        assert!(!panics("main"));
    }

    #[test]
    fn the_last_picture_has_its_colours_and_no_blank_rows() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 8, 4));
        buffer.set_string(0, 0, "名a", Style::new().fg(Color::Green));
        buffer.set_string(1, 1, "b", Style::new().add_modifier(Modifier::BOLD));
        assert_eq!(picture(&buffer), "\x1b[32m名a\x1b[0m\n \x1b[1mb\x1b[0m\n");
        let plain = anstream::adapter::strip_str(&picture(&buffer)).to_string();
        assert_eq!(plain, "名a\n b\n");
    }
}
