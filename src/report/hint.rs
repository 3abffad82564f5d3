//! Remedies: sentences, and commands on lines of their own, to copy.

use crate::base::foreign_text::visible;

/// Remedy of a failure. A command, a statement or a policy is a line of its own, indented by
/// [`INDENT`], so that it can be copied and is never wrapped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hint(Vec<Part>);

/// Indent of a command below its sentence.
const INDENT: &str = "  ";

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Command(String),
}

impl Hint {
    /// Appends a command.
    pub(super) fn run(mut self, command: impl Into<String>) -> Self {
        self.0.push(Part::Command(command.into()));
        self
    }

    /// Appends sentences, with their commands.
    pub(super) fn and(mut self, more: impl Into<Self>) -> Self {
        self.0.extend(more.into().0);
        self
    }

    /// Parses a text in which indented lines are commands.
    pub(super) fn from_lines(text: &str) -> Self {
        let part = |line: &str| match line.strip_prefix(INDENT) {
            Some(command) => Part::Command(command.to_owned()),
            None => Part::Text(line.to_owned()),
        };
        Self(text.lines().map(part).collect())
    }

    /// Returns the text, with control characters of names made visible: a name cannot begin a line.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        let mut after_command = false;
        for part in &self.0 {
            let (text, separator, is_command) = match part {
                Part::Text(text) => (text.trim(), if after_command { "\n" } else { " " }, false),
                Part::Command(command) => (command.trim(), "\n", true),
            };
            if text.is_empty() {
                continue;
            }
            if !out.is_empty() {
                out.push_str(separator);
            }
            if is_command {
                out.push_str(INDENT);
            }
            out.push_str(&visible(text));
            after_command = is_command;
        }
        out
    }
}

/// A text of this program, with its commands in backticks.
impl From<&'static str> for Hint {
    fn from(text: &'static str) -> Self {
        let parts = text.split('`').enumerate();
        Self(
            parts
                .map(|(place, part)| match place % 2 {
                    0 => Part::Text(part.to_owned()),
                    _ => Part::Command(part.to_owned()),
                })
                .collect(),
        )
    }
}

/// Sentences without a command; they may contain names.
impl From<String> for Hint {
    fn from(text: String) -> Self {
        Self(vec![Part::Text(text)])
    }
}

impl From<Hint> for String {
    fn from(hint: Hint) -> Self {
        hint.text()
    }
}

/// Appends the identifier of the cause, which is a heading in `docs/errors.md`.
pub(crate) fn with_id(hint: &str, id: &str) -> String {
    let ends_with_command = hint
        .lines()
        .last()
        .is_some_and(|line| line.starts_with(INDENT));
    let separator = if ends_with_command { '\n' } else { ' ' };
    format!("{hint}{separator}[{id}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_stand_on_lines_of_their_own() {
        let hint = Hint::from("To list them, run: `pgiam list` Then connect again.")
            .and("Or wait.".to_owned())
            .and(Hint::from("Or run:").run("pgiam check 'a b'"));
        let text = "To list them, run:\n  pgiam list\nThen connect again. Or wait. Or run:\n  pgiam check 'a b'";
        assert_eq!(hint.text(), text);
        assert_eq!(with_id(text, "aws.mfa"), format!("{text}\n[aws.mfa]"));
        assert_eq!(with_id("Or wait.", "aws.mfa"), "Or wait. [aws.mfa]");
        assert_eq!(Hint::from_lines(text).text(), text);
        assert_eq!(Hint::from("").and("").text(), "");
    }

    #[test]
    fn a_name_begins_no_line() {
        let role = "x\n  rm -rf ~";
        let hint =
            Hint::from(format!("Grant it to {role}:")).run(format!("GRANT r TO \"{role}\";"));
        let text = hint.text();
        assert_eq!(text.lines().count(), 2, "{text}");
    }
}
