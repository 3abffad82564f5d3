//! The entries of `docs/errors.md`, which is part of the program.

use std::sync::LazyLock;

use crate::base::markdown::{self, Emphasis, Line, Span};

const DOCUMENT: &str = include_str!("../../docs/errors.md");

static ENTRIES: LazyLock<Vec<ErrorEntry>> = LazyLock::new(|| parse(DOCUMENT));

/// One cause of failures, as `docs/errors.md` explains it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorEntry {
    /// Stable identifier.
    pub id: &'static str,
    /// Heading of the part of the document.
    pub topic: &'static str,
    /// The forms in which clients and the log get the error. Empty if it is the server's own.
    pub answers: Vec<Answer>,
    /// Cause and remedy, in Markdown.
    pub text: &'static str,
    /// Notes about all errors of the topic, in Markdown; empty for most.
    pub notes: &'static str,
}

/// Messages with the same SQLSTATE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The SQLSTATE with conditions, or the place that has the message instead of a client.
    pub context: String,
    /// Every SQLSTATE in `context`.
    pub sqlstates: Vec<String>,
    /// The messages. `…` stands for any text.
    pub messages: Vec<String>,
}

/// Returns every entry, in the order of the document.
#[must_use]
pub fn error_entries() -> &'static [ErrorEntry] {
    &ENTRIES
}

/// Returns the entry of an identifier.
#[must_use]
pub fn error_entry(id: &str) -> Option<&'static ErrorEntry> {
    ENTRIES.iter().find(|entry| entry.id == id)
}

impl ErrorEntry {
    /// Returns the entry as lines of at most `width` columns. Commands are never broken.
    #[must_use]
    pub fn lines(&self, width: usize) -> Vec<Line> {
        let mut all = vec![Line(vec![
            Span {
                text: self.id.to_owned(),
                emphasis: Emphasis::Strong,
            },
            Span {
                text: format!(" ({})", self.topic),
                emphasis: Emphasis::Plain,
            },
        ])];
        for answer in &self.answers {
            all.extend(markdown::lines(&answer.markdown(), width));
        }
        if !self.answers.is_empty() {
            all.push(Line::default());
        }
        all.extend(markdown::lines(self.text, width));
        if !self.notes.is_empty() {
            all.push(Line::default());
            all.extend(markdown::lines(self.notes, width));
        }
        all
    }

    /// Returns the entry as plain text of at most `width` columns.
    #[must_use]
    pub fn plain(&self, width: usize) -> String {
        let lines: Vec<String> = self.lines(width).iter().map(Line::plain).collect();
        lines.join("\n")
    }

    /// Returns the first message, for a list.
    #[must_use]
    pub fn summary(&self) -> &str {
        let mut messages = self.answers.iter().flat_map(|answer| &answer.messages);
        let text = || self.text.lines().next().unwrap_or_default();
        messages.next().map_or_else(text, String::as_str)
    }

    /// Returns true if clients get the error with a SQLSTATE that begins with `state`.
    #[must_use]
    pub fn has_sqlstate(&self, state: &str) -> bool {
        let mut all = self.answers.iter().flat_map(|answer| &answer.sqlstates);
        all.any(|own| own.starts_with(state))
    }
}

impl Answer {
    fn markdown(&self) -> String {
        let quoted: Vec<String> = self
            .messages
            .iter()
            .map(|message| format!("“{message}”"))
            .collect();
        let label = match self.sqlstates.is_empty() {
            true => self.context.clone(),
            false => format!("SQLSTATE {}", self.context),
        };
        format!("{label}: {}", quoted.join(", "))
    }
}

fn parse(document: &'static str) -> Vec<ErrorEntry> {
    let mut all = Vec::new();
    for part in document.split("\n## ").skip(1) {
        let (topic, part) = part.split_once('\n').unwrap_or((part, ""));
        let mut sections = part.split("\n### ");
        let notes = without_anchor(sections.next().unwrap_or_default());
        for section in sections {
            let (id, section) = section.split_once('\n').unwrap_or((section, ""));
            let body = without_anchor(section);
            let (head, text) = body.split_once("\n\n").unwrap_or((body, ""));
            let answers = answers(head);
            all.push(ErrorEntry {
                id: id.trim(),
                topic: topic.trim(),
                // The head is prose if pgiam has no message of its own.
                text: if answers.is_empty() { body } else { text },
                answers,
                notes,
            });
        }
    }
    all
}

/// Returns a section without the anchor of the next one.
fn without_anchor(section: &str) -> &str {
    let end = section.rfind("\n<a id=").unwrap_or(section.len());
    section[..end].trim()
}

/// Parses the first paragraph of an entry: `**SQLSTATE**, “message”, “message”; **SQLSTATE**, …`.
fn answers(head: &str) -> Vec<Answer> {
    let head = head.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some(parts) = head.strip_prefix("**") else {
        return Vec::new();
    };
    let answer = |part: &str| {
        let (state, messages) = part.split_once("**")?;
        let messages = messages.split('“').skip(1);
        let messages = messages.filter_map(|quoted| quoted.split_once('”'));
        Some(Answer {
            sqlstates: sqlstates(state),
            context: capitalised(state),
            messages: messages.map(|(text, _)| text.to_owned()).collect(),
        })
    };
    parts.split("; **").filter_map(answer).collect()
}

fn sqlstates(context: &str) -> Vec<String> {
    let words = context.split(|c: char| !c.is_ascii_alphanumeric());
    words
        .filter(|word| is_sqlstate(word))
        .map(str::to_owned)
        .collect()
}

/// Returns true if a word has the form of a SQLSTATE of five characters.
pub(super) fn is_sqlstate(word: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_uppercase();
    word.len() == 5 && word.bytes().all(is_part) && word.bytes().any(|byte| byte.is_ascii_digit())
}

/// Returns "(log only)" as "Log only", and other text unchanged.
fn capitalised(context: &str) -> String {
    let Some(inner) = context
        .strip_prefix('(')
        .and_then(|inner| inner.strip_suffix(')'))
    else {
        return context.to_owned();
    };
    let mut chars = inner.chars();
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::IDS;

    #[test]
    fn every_identifier_is_explained() {
        let mut ids: Vec<&str> = error_entries().iter().map(|entry| entry.id).collect();
        ids.sort_unstable();
        assert_eq!(ids, IDS);
        for entry in error_entries() {
            assert!(!entry.topic.is_empty(), "{entry:?}");
            assert!(entry.text.len() > 12, "{entry:?}");
            assert!(!entry.summary().is_empty(), "{entry:?}");
            let expects_answer = entry.id != "database.refused";
            assert_eq!(!entry.answers.is_empty(), expects_answer, "{entry:?}");
            for answer in &entry.answers {
                assert!(!answer.messages.is_empty(), "{entry:?}");
                let is_logged = answer.context.starts_with("Log");
                assert_eq!(answer.sqlstates.is_empty(), is_logged, "{entry:?}");
            }
        }
    }

    #[test]
    fn no_mark_of_markdown_is_left() {
        for entry in error_entries() {
            let plain = entry.plain(80);
            for mark in ["**", "](", "```", "<a ", "### ", "|--"] {
                assert!(!plain.contains(mark), "{mark}: {plain}");
            }
            let prose: Vec<&str> = plain.lines().filter(|l| !l.starts_with("    ")).collect();
            assert!(!prose.iter().any(|line| line.contains('`')), "{plain}");
        }
    }

    #[test]
    fn prose_keeps_the_width() {
        for entry in error_entries() {
            for width in [60, 80, 120] {
                for line in entry.lines(width) {
                    let wide = console::measure_text_width(&line.plain()) > width;
                    let code = line.0.iter().any(|span| span.emphasis == Emphasis::Code);
                    assert!(!wide || code, "{width}: {}", line.plain());
                }
            }
        }
    }

    #[test]
    fn entries_as_text() {
        let ids = [
            "aws.no-credentials",
            "discover.denied",
            "limit.descriptors",
            "client.tls",
            "tunnel.timeout",
            "database.login-refused",
            "server.shutdown",
            "database.refused",
        ];
        let entries = ids.map(|id| error_entry(id).unwrap().plain(80));
        insta::assert_snapshot!(entries.join("\n\n---\n"));
    }
}
