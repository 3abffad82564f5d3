//! `pgiam explain`: prints the entries of `docs/errors.md` that the program contains.

use anyhow::Context;
use serde_json::{Value, json};

use crate::base::foreign_text::ForeignText;
use crate::base::markdown::{Emphasis, Line};
use crate::cli::{ExplainArgs, exit, terminal};
use crate::report::{ErrorEntry, FoundErrors, error_entries, find_errors};

/// Columns between an identifier and its message.
const GAP: usize = 2;

/// Prints what the document says about errors; returns the exit code.
///
/// # Errors
/// Standard output cannot be written to.
pub fn explain(args: &ExplainArgs) -> anyhow::Result<u8> {
    let width = terminal::width();
    let found = match args.words.is_empty() {
        true => FoundErrors::Choice(String::new(), error_entries().iter().collect()),
        false => find_errors(&args.words),
    };
    let text = match found {
        FoundErrors::Entries(entries) if args.output.json => document(&entries)?,
        FoundErrors::Choice(_, entries) if args.output.json => document(&entries)?,
        FoundErrors::Entries(entries) => {
            let pages: Vec<String> = entries.iter().map(|entry| page(entry, width)).collect();
            pages.join("\n")
        }
        FoundErrors::Choice(_, entries) => list(&entries, width),
        FoundErrors::Unknown(word, likely) => {
            // Nothing can be done if standard error is closed.
            _ = terminal::tell(unknown(&word, &likely));
            return Ok(exit::USAGE);
        }
        FoundErrors::ForeignState(state) => {
            _ = terminal::tell(format!(
                "pgiam: no error of pgiam has SQLSTATE {state}; PostgreSQL lists its own at\n  {POSTGRESQL}"
            ));
            return Ok(exit::USAGE);
        }
    };
    terminal::write(text).context("cannot write to standard output")?;
    Ok(0)
}

/// Page of PostgreSQL's manual with all SQLSTATEs.
const POSTGRESQL: &str = "https://www.postgresql.org/docs/current/errcodes-appendix.html";

/// Returns the message for a word that stands for no error.
fn unknown(word: &str, likely: &[&str]) -> String {
    let word = ForeignText::new(word);
    let mut text = format!("pgiam: no error matches \"{word}\"");
    match likely {
        [] => text.push_str("; list all errors:\n  pgiam explain"),
        likely => {
            text.push_str("; did you mean:");
            for id in likely {
                text.push_str(&format!("\n  pgiam explain {id}"));
            }
        }
    }
    text
}

/// Returns an entry for the terminal.
fn page(entry: &ErrorEntry, width: usize) -> String {
    let mut text = String::new();
    for line in entry.lines(width) {
        text.push_str(&styled(&line));
        text.push('\n');
    }
    text
}

fn styled(line: &Line) -> String {
    let parts = line.0.iter().map(|span| match span.emphasis {
        Emphasis::Plain => span.text.clone(),
        Emphasis::Code => terminal::styled(terminal::CODE, &span.text),
        Emphasis::Strong => terminal::styled(terminal::HEADING, &span.text),
    });
    parts.collect()
}

/// Returns one line for each entry below the headings of the topics.
fn list(entries: &[&ErrorEntry], width: usize) -> String {
    let widest = entries.iter().map(|entry| entry.id.len()).max();
    let column = widest.unwrap_or(0) + GAP;
    let (mut text, mut topic) = (String::new(), "");
    for entry in entries {
        if entry.topic != topic {
            let gap = if topic.is_empty() { "" } else { "\n" };
            topic = entry.topic;
            text.push_str(gap);
            text.push_str(&terminal::styled(terminal::HEADING, topic));
            text.push('\n');
        }
        let room = width.saturating_sub(column + GAP);
        let summary = crate::base::markdown::lines(entry.summary(), usize::MAX);
        let summary = summary.first().map(Line::plain).unwrap_or_default();
        let summary = console::truncate_str(&summary, room, "…");
        let id = format!("{:column$}", entry.id);
        text.push_str(&format!(
            "  {}{summary}\n",
            terminal::styled(terminal::CODE, id)
        ));
    }
    text.push_str("\nFor the cause and the remedy, run: pgiam explain ID\n");
    text
}

fn document(entries: &[&ErrorEntry]) -> anyhow::Result<String> {
    let answers = |entry: &ErrorEntry| -> Vec<Value> {
        let answer = |answer: &crate::report::Answer| {
            json!({
                "context": answer.context,
                "sqlstates": answer.sqlstates,
                "messages": answer.messages,
            })
        };
        entry.answers.iter().map(answer).collect()
    };
    let entry = |entry: &&ErrorEntry| {
        json!({
            "id": entry.id,
            "topic": entry.topic,
            "answers": answers(entry),
            "markdown": entry.text,
            "notes": (!entry.notes.is_empty()).then_some(entry.notes),
        })
    };
    let all: Vec<Value> = entries.iter().map(entry).collect();
    Ok(serde_json::to_string_pretty(&all)? + "\n")
}
