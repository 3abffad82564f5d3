//! The lines about served targets on standard output.

use std::fmt;
use std::io::Write;

use tracing::warn;

use crate::cli::terminal::{self, GOOD, WARNING, columns, styled};
use crate::cli::wrap::{self, LongWords};

/// Indent below the name of a target.
const BELOW: &str = "  ";

/// Connection string and destination of one target. All texts are safe to show.
pub(super) struct ReadyLine {
    pub(super) name: String,
    /// The command to copy.
    pub(super) command: String,
    /// The database, and the path to it.
    pub(super) place: String,
    /// Reason why a login would not work; `None` if it would.
    pub(super) reason: Option<String>,
}

impl ReadyLine {
    fn state(&self) -> &'static str {
        match self.reason {
            None => "ready",
            Some(_) => "not ready",
        }
    }

    fn destination(&self) -> String {
        match &self.reason {
            None => format!("→ {}", self.place),
            Some(reason) => format!("→ {}: {reason}", self.place),
        }
    }

    fn styled_state(&self, width: usize) -> String {
        let style = if self.reason.is_none() { GOOD } else { WARNING };
        let gap = width.saturating_sub(self.state().len());
        format!("{}{:gap$}", styled(style, self.state()), "")
    }
}

/// The form in a pipe, one line.
impl fmt::Display for ReadyLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (state, destination) = (self.state(), self.destination());
        write!(f, "{state}  {}  {}  {destination}", self.name, self.command)
    }
}

/// Writes lines to standard output, at once. Serving continues on errors: standard output may be
/// full, closed, or a pipe without a reader.
pub(super) fn announce(lines: &[ReadyLine]) {
    let written = match terminal::stdout_width() {
        Some(width) => terminal::write(at_terminal(lines, width)),
        None => in_a_pipe(lines),
    };
    if let Err(error) = written {
        warn!(%error, "cannot write to standard output; still serving");
    }
}

fn in_a_pipe(lines: &[ReadyLine]) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    for line in lines {
        writeln!(stdout, "{line}")?;
    }
    stdout.flush()
}

/// Returns the lines in columns. If they do not fit, each command gets a line of its own.
fn at_terminal(lines: &[ReadyLine], width: usize) -> String {
    let widest = |text: fn(&ReadyLine) -> &str| {
        let widths = lines.iter().map(|line| columns(text(line)));
        widths.max().unwrap_or(0)
    };
    let state = widest(ReadyLine::state);
    let (name, command) = (widest(|line| &line.name), widest(|line| &line.command));
    let row = |line: &ReadyLine| {
        let padded = |text: &str, width: usize| format!("{text}{:1$}", "", width - columns(text));
        format!(
            "{}  {}  {}  {}",
            line.styled_state(state),
            padded(&line.name, name),
            padded(&line.command, command),
            line.destination()
        )
    };
    let rows: Vec<String> = lines.iter().map(row).collect();
    if rows.iter().all(|row| columns(row) <= width) {
        return rows.iter().map(|row| format!("{row}\n")).collect();
    }
    let block = |line: &ReadyLine| {
        let head = format!("{}  {}", line.styled_state(0), line.name);
        let room = width.saturating_sub(2 * BELOW.len());
        let destination = wrap::words(&line.destination(), room, LongWords::Whole);
        let command = format!("{BELOW}{}", line.command);
        let destination = destination.into_iter().enumerate().map(|(at, text)| {
            // Below the text behind the arrow.
            let more = if at == 0 { "" } else { BELOW };
            format!("{BELOW}{more}{text}")
        });
        let lines: Vec<String> = [head, command].into_iter().chain(destination).collect();
        lines.join("\n") + "\n"
    };
    lines.iter().map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> [ReadyLine; 2] {
        let place = |name: &str| {
            format!(
                "{name}.cluster-abc.eu-central-1.rds.amazonaws.com:5432 as db_user via ssm i-0123456789abcdef0"
            )
        };
        [
            ReadyLine {
                name: "orders".to_owned(),
                command: "psql -h localhost -p 5433".to_owned(),
                place: place("orders"),
                reason: None,
            },
            ReadyLine {
                name: "bi".to_owned(),
                command: "psql -h localhost -p 5434 -d bi".to_owned(),
                place: place("bi"),
                reason: Some("the AWS credentials have expired; retrying".to_owned()),
            },
        ]
    }

    fn plain(width: usize) -> String {
        anstream::adapter::strip_str(&at_terminal(&lines(), width)).to_string()
    }

    #[test]
    fn a_pipe_has_one_line_for_each_target() {
        let text = lines().map(|line| line.to_string()).join("\n");
        assert_eq!(
            text,
            "ready  orders  psql -h localhost -p 5433  → orders.cluster-abc.eu-central-1.rds.amazonaws.com:5432 as db_user via ssm i-0123456789abcdef0\n\
             not ready  bi  psql -h localhost -p 5434 -d bi  → bi.cluster-abc.eu-central-1.rds.amazonaws.com:5432 as db_user via ssm i-0123456789abcdef0: the AWS credentials have expired; retrying"
        );
    }

    #[test]
    fn lines_at_60_columns() {
        insta::assert_snapshot!(plain(60));
    }

    #[test]
    fn lines_at_120_columns() {
        insta::assert_snapshot!(plain(120));
    }

    #[test]
    fn lines_at_200_columns() {
        insta::assert_snapshot!(plain(200));
    }

    #[test]
    fn commands_are_never_broken() {
        for width in 20..220 {
            for line in lines() {
                assert!(plain(width).contains(&line.command), "{width}");
            }
        }
    }
}
