//! Compares the table of sentences with the events in `src/`.

use std::collections::BTreeSet;
use std::path::Path;

use super::super::sentences::{FOR_SEARCHES, PLACED, SENTENCES, sentence};

/// An event of level info or above: its message, and the names of its fields.
struct SourceEvent {
    file: String,
    message: String,
    fields: Vec<String>,
}

/// Fields of the lines about connections, which have code of their own.
const CONNECTIONS: [&str; 4] = [
    "connection ready",
    "connection open",
    "connection ended",
    "connection failed",
];
/// Fields that read well in parentheses behind the message.
const IN_PARENTHESES: [&str; 5] = ["bastion", "endpoint", "session", "more", "left_out"];

fn sources(dir: &Path, all: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.display().to_string();
        if path.is_dir() && !name.contains("tests") {
            sources(&path, all);
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            all.push((name, code.to_owned()));
        }
    }
}

/// Splits the arguments of a macro at the commas outside of quotes and parentheses.
fn arguments(text: &str) -> Vec<String> {
    let (mut all, mut depth, mut is_quoted, mut is_escaped) =
        (vec![String::new()], 0, false, false);
    for sign in text.chars() {
        if !is_quoted {
            match sign {
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' if depth == 0 => break,
                ')' | ']' | '}' => depth -= 1,
                ',' if depth == 0 => {
                    all.push(String::new());
                    continue;
                }
                _ => {}
            }
        }
        if sign == '"' && !is_escaped {
            is_quoted = !is_quoted;
        }
        is_escaped = sign == '\\' && !is_escaped;
        all.last_mut().unwrap().push(sign);
    }
    let all = all.iter().map(|argument| argument.trim().to_owned());
    all.filter(|argument| !argument.is_empty()).collect()
}

/// Returns the value of a string literal, of which a line may continue.
fn literal(argument: &str) -> Option<String> {
    let inner = argument.strip_prefix('"')?.strip_suffix('"')?;
    let mut lines = inner.split("\\\n");
    let first = lines.next()?.to_owned();
    let joined = lines.fold(first, |text, line| text + line.trim_start());
    Some(joined.replace("\\\"", "\""))
}

fn events() -> Vec<SourceEvent> {
    let mut files = Vec::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut files,
    );
    let mut found = Vec::new();
    for (file, code) in files {
        for name in ["info!(", "warn!(", "error!("] {
            for (at, _) in code.match_indices(name) {
                let before = code[..at].chars().next_back();
                if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                    continue;
                }
                let all = arguments(&code[at + name.len()..]);
                let message = all.iter().find_map(|argument| literal(argument));
                let fields = all.iter().filter(|argument| literal(argument).is_none());
                let field = |argument: &String| {
                    let name = argument.split('=').next().unwrap().trim();
                    name.trim_start_matches(['%', '?']).to_owned()
                };
                found.push(SourceEvent {
                    file: file.clone(),
                    message: message.unwrap_or_else(|| panic!("{file}: {all:?}")),
                    fields: fields.map(field).collect(),
                });
            }
        }
    }
    found
}

#[test]
fn each_event_reads_as_a_sentence() {
    let events = events();
    assert!(events.len() > 80, "{}", events.len());
    for SourceEvent {
        file,
        message,
        fields,
    } in &events
    {
        // A message that is one value is a whole sentence already.
        if CONNECTIONS.contains(&message.as_str()) || message == "{}" {
            continue;
        }
        let form = sentence(message).map_or("", |known| known.form);
        let is_shown = |field: &&String| {
            let field = field.as_str();
            form.contains(&format!("{{{field}}}"))
                || PLACED.contains(&field)
                || FOR_SEARCHES.contains(&field)
                || (field == "name" && !message.contains("bastion"))
                || (form.is_empty() && IN_PARENTHESES.contains(&field))
        };
        // A value of another name, such as `%bastion.id`, has the name of its last part.
        let left: Vec<_> = fields.iter().filter(|field| !is_shown(field)).collect();
        assert!(
            left.is_empty(),
            "{file}: the fields {left:?} of \"{message}\" are in no sentence; add one to src/cli/logging/sentences.rs"
        );
    }
}

#[test]
fn each_sentence_has_an_event() {
    let messages: BTreeSet<String> = events().into_iter().map(|event| event.message).collect();
    for known in SENTENCES {
        assert!(
            messages.contains(known.message),
            "no event has the message \"{}\"",
            known.message
        );
    }
    let unique: BTreeSet<&str> = SENTENCES.iter().map(|known| known.message).collect();
    assert_eq!(unique.len(), SENTENCES.len());
}
