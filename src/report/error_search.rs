//! Finds the entries of `docs/errors.md` that words are about: identifiers, SQLSTATEs, topics, or a
//! pasted error with or without its identifier.

use super::error_document::{ErrorEntry, error_entries, error_entry, is_sqlstate};
use crate::base::suggest;

/// Minimum bytes of a message, without the parts that vary, that identify a pasted error.
const TELLING: usize = 10;
/// Maximum number of suggestions for a misspelt identifier.
const SUGGESTIONS: usize = 5;

/// Entries found for some words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundErrors {
    /// The entries of named identifiers, or the only entry with the pasted message.
    Entries(Vec<&'static ErrorEntry>),
    /// Several entries, to choose from, and their common property.
    Choice(String, Vec<&'static ErrorEntry>),
    /// A word that stands for no entry, and similar identifiers.
    Unknown(String, Vec<&'static str>),
    /// A SQLSTATE that pgiam does not use.
    ForeignState(String),
}

/// Finds the entries for the arguments of a command line.
#[must_use]
pub fn find_errors(arguments: &[String]) -> FoundErrors {
    let mut named: Vec<&'static ErrorEntry> = Vec::new();
    for word in arguments.iter().flat_map(|argument| words(argument)) {
        if let Some(entry) = error_entry(&word.to_ascii_lowercase())
            && !named.contains(&entry)
        {
            named.push(entry);
        }
    }
    // A pasted error has other words of this form, such as the name of a host.
    let mut ids = arguments.iter().map(|argument| lone_id(argument));
    if ids.all(|id| id.is_some()) {
        let mut ids = arguments.iter().filter_map(|argument| lone_id(argument));
        let unknown = ids.find(|id| error_entry(&id.to_ascii_lowercase()).is_none());
        if let Some(id) = unknown {
            return FoundErrors::Unknown(id.to_owned(), similar(id));
        }
    }
    if !named.is_empty() {
        return FoundErrors::Entries(named);
    }
    let text = arguments.join(" ");
    // The message tells more than the SQLSTATE beside it.
    let mut found = with_message(&text);
    if found.len() == 1 {
        return FoundErrors::Entries(found);
    }
    for word in words(&text) {
        let state = word.to_ascii_uppercase();
        if is_sqlstate(&state) || is_class(&state) && is_short(arguments) {
            let of_state = with_state(&state);
            found.retain(|entry| of_state.contains(entry));
            match (found.is_empty(), of_state.is_empty()) {
                (false, _) => return choice(&text, found),
                (true, false) => return choice(&format!("SQLSTATE {state}"), of_state),
                (true, true) if is_short(arguments) => return FoundErrors::ForeignState(state),
                (true, true) => {}
            }
        }
    }
    if !found.is_empty() {
        return choice(&text, found);
    }
    let topic = of_topic(&text.to_lowercase());
    if !topic.is_empty() {
        return choice(&text, topic);
    }
    let likely = similar(&text);
    FoundErrors::Unknown(text, likely)
}

fn choice(property: &str, entries: Vec<&'static ErrorEntry>) -> FoundErrors {
    match &entries[..] {
        [_] => FoundErrors::Entries(entries),
        _ => FoundErrors::Choice(property.to_owned(), entries),
    }
}

/// Returns true if every argument is one word: the arguments are names, not a pasted text.
fn is_short(arguments: &[String]) -> bool {
    arguments
        .iter()
        .all(|argument| words(argument).count() == 1)
        && arguments.len() <= SUGGESTIONS
}

/// Splits a text at all characters that identifiers and SQLSTATEs do not have.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    text.split(move |c: char| !is_part(c))
        .map(|word| word.trim_matches(['.', '-']))
        .filter(|word| !word.is_empty())
}

/// Returns the identifier that an argument consists of, known or misspelt.
fn lone_id(argument: &str) -> Option<&str> {
    let mut all = words(argument);
    let word = all.next().filter(|word| word.contains('.'))?;
    all.next().is_none().then_some(word)
}

/// Returns true for the first two characters of a SQLSTATE.
fn is_class(word: &str) -> bool {
    word.len() == 2 && error_entries().iter().any(|entry| entry.has_sqlstate(word))
}

fn with_state(state: &str) -> Vec<&'static ErrorEntry> {
    let all = error_entries().iter();
    all.filter(|entry| entry.has_sqlstate(state)).collect()
}

/// Returns the entries with a message that the text contains; those with the longest match only.
fn with_message(text: &str) -> Vec<&'static ErrorEntry> {
    let score = |entry: &'static ErrorEntry| {
        let messages = entry.answers.iter().flat_map(|answer| &answer.messages);
        let scores = messages.filter_map(|message| matched(message, text));
        scores.max().map(|score| (score, entry))
    };
    let scored: Vec<_> = error_entries().iter().filter_map(score).collect();
    let best = scored.iter().map(|(score, _)| *score).max();
    let best = scored.iter().filter(|(score, _)| Some(*score) == best);
    best.map(|(_, entry)| *entry).collect()
}

/// Returns the number of bytes of the fixed parts of a message if the text has them in this order.
fn matched(message: &str, text: &str) -> Option<usize> {
    let (mut rest, mut score) = (text, 0);
    for part in message.split('…').map(str::trim) {
        rest = rest.split_once(part)?.1;
        score += part.len();
    }
    (score >= TELLING).then_some(score)
}

/// Returns the entries whose identifier or topic has the word.
fn of_topic(word: &str) -> Vec<&'static ErrorEntry> {
    let word = word.trim_matches(['.', '*', ' ']);
    if word.len() < 3 {
        return Vec::new();
    }
    let parts = |id: &'static str| id.split('.').chain(id.split(['.', '-']));
    let all = || error_entries().iter();
    let by_part: Vec<_> = all()
        .filter(|entry| {
            let name = entry.id.split_once('.').map(|(_, name)| name);
            name == Some(word) || parts(entry.id).any(|part| part == word)
        })
        .collect();
    match by_part.is_empty() {
        true => all()
            .filter(|entry| entry.topic.to_lowercase() == word)
            .collect(),
        false => by_part,
    }
}

/// Returns identifiers that are spelt like a word, the most similar first.
fn similar(word: &str) -> Vec<&'static str> {
    let ids = error_entries().iter().map(|entry| entry.id);
    let mut all = suggest::ranked(word, ids);
    if !word.contains('.') {
        // The second part alone is as readily remembered.
        let names = error_entries().iter().map(|entry| {
            let name = entry.id.split_once('.').map_or(entry.id, |(_, name)| name);
            (name, entry.id)
        });
        let nearest = suggest::ranked(word, names.clone().map(|(name, _)| name));
        let ids = names.filter(|(name, _)| nearest.contains(name));
        all.splice(0..0, ids.map(|(_, id)| id));
    }
    let mut once: Vec<&'static str> = Vec::new();
    for id in all {
        if !once.contains(&id) {
            once.push(id);
        }
    }
    once.truncate(SUGGESTIONS);
    once
}
