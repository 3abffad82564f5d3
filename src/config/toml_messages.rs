//! Messages for errors of the TOML parser, for users of a file. The parser's own messages are for
//! developers: "invalid type: string, expected a sequence".

use crate::base::suggest::nearest;

/// Returns the message for users; unchanged if it does not mention types of a program.
pub(super) fn user_message(message: &str) -> String {
    let rewritten = unknown_key(message)
        .or_else(|| wrong_type(message))
        .or_else(|| syntax(message));
    rewritten.unwrap_or_else(|| message.to_owned())
}

fn unknown_key(message: &str) -> Option<String> {
    let (key, rest) = message.strip_prefix("unknown field `")?.split_once('`')?;
    let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    Some(match known.is_empty() {
        true => format!("unknown key \"{key}\""),
        false => format!(
            "unknown key \"{key}\"; expected one of {}",
            known.join(", ")
        ),
    })
}

/// Rewrites `invalid type: string "5433", expected u16`.
fn wrong_type(message: &str) -> Option<String> {
    let rest = ["invalid type: ", "invalid value: "]
        .iter()
        .find_map(|begin| message.strip_prefix(begin))?;
    let (found, expected) = rest.rsplit_once(", expected ")?;
    let is_text = found.starts_with("string ");
    let found = shortened(found);
    let found = found.as_str();
    let found = match found.split_once(' ') {
        Some(("string", text)) => format!("the text {text}"),
        // "integer `99999999999999999999` as i128"
        Some(("integer", number)) => {
            let number = number.split(" as ").next().unwrap_or(number);
            number.trim_matches('`').to_owned()
        }
        Some(("floating", point)) => point
            .trim_start_matches("point ")
            .trim_matches('`')
            .to_owned(),
        Some(("boolean", value)) => value.trim_matches('`').to_owned(),
        _ if found == "sequence" => "a list".to_owned(),
        _ if found == "map" => "a table".to_owned(),
        _ => found.to_owned(),
    };
    let expected = match expected {
        "u16" if is_text => "a whole number from 0 to 65535, without quotes",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" if is_text => "a whole number, without quotes",
        "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "a boolean" => "true or false, without quotes",
        "a string" | "path string" => "text in quotes",
        "a sequence" => "a list, such as [\"…\"]",
        "a map" => "a table",
        expected if expected.starts_with("struct ") => "a table of keys",
        expected => expected,
    };
    Some(format!("expected {expected}; found {found}"))
}

/// A value as the parser quotes it, without the end of a long one.
fn shortened(found: &str) -> String {
    const LONGEST: usize = 80;
    match found.len() <= LONGEST {
        true => found.to_owned(),
        false => format!("{}…", &found[..found.floor_char_boundary(LONGEST)]),
    }
}

fn syntax(message: &str) -> Option<String> {
    let rewritten = match message {
        _ if message.starts_with("data did not match any variant") => {
            "this key does not accept a value of this form"
        }
        _ if message.starts_with("string values must be quoted") => "text must be in quotes",
        _ if message.starts_with("invalid basic string") => {
            "the quotes are not closed on this line"
        }
        _ if message.starts_with("invalid literal string") => {
            "the quotes are not closed on this line"
        }
        _ if (message.contains("recursion limit") || message.contains("recurse further")) => {
            "tables or lists are nested too deeply"
        }
        _ if message.starts_with("key with no value") => "a key needs a value: KEY = VALUE",
        _ => return None,
    };
    Some(rewritten.to_owned())
}

/// Returns the parser's message without the quoted line of the file if that line is too long to
/// read. Line and column come before it.
fn without_long_lines(message: &str) -> String {
    const LONGEST_LINE: usize = 300;
    const SHOWN: usize = 80;
    // `12 | key = value`, and the marks below it.
    let is_quote = |line: &str| {
        let numbered = line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
        numbered.starts_with('|')
    };
    let long = |line: &str| is_quote(line) && line.len() > LONGEST_LINE;
    if !message.lines().any(long) {
        return message.to_owned();
    }
    let shown = message.lines().filter_map(|line| {
        let has_text = line.trim_start().starts_with(|c: char| c.is_ascii_digit());
        match (is_quote(line), has_text) {
            (false, _) => Some(line.to_owned()),
            (true, true) => Some(format!("{}…", &line[..line.floor_char_boundary(SHOWN)])),
            // The marks below a line that is not shown to its end.
            (true, false) => None,
        }
    });
    shown.collect::<Vec<_>>().join("\n")
}

/// Returns the parser's message about an unknown key with the most similar key appended. The parser
/// lists the known keys in the order of their definition.
pub(super) fn syntax_message(error: &toml::de::Error) -> String {
    let message = error.message();
    let suggestion = message
        .strip_prefix("unknown field `")
        .and_then(|rest| rest.split_once('`'))
        .and_then(|(unknown, rest)| nearest(unknown, rest.split('`').skip(1).step_by(2)));
    let all = without_long_lines(&error.to_string());
    let place = all.trim_end().strip_suffix(message);
    let all = match place {
        Some(place) => format!("{place}{}", user_message(message)),
        None => all,
    };
    match suggestion {
        Some(key) => format!("{all}\nhint: did you mean {key}?"),
        None => all,
    }
}

#[cfg(test)]
mod tests {
    use crate::config::ConfigFile;

    /// Returns the message for a file.
    fn message(text: &str) -> String {
        let error = toml::from_str::<ConfigFile>(text).unwrap_err();
        super::user_message(error.message())
    }

    #[test]
    fn messages_are_about_the_file() {
        for (text, words) in [
            (
                "[targets.a]\nport = \"5433\"",
                "expected a whole number from 0 to 65535, without quotes; found the text \"5433\"",
            ),
            (
                "[targets.a]\nport = 70000",
                "expected a whole number from 0 to 65535; found 70000",
            ),
            (
                "[targets.a]\nsessions = -1",
                "expected a whole number, 0 or more; found -1",
            ),
            (
                "[targets.a]\nsessions = 1.5",
                "expected a whole number, 0 or more; found 1.5",
            ),
            (
                "[targets.a]\nport = 99999999999999999999",
                "expected a whole number from 0 to 65535; found 99999999999999999999",
            ),
            ("[targets.a]\nhost = 5", "expected text in quotes; found 5"),
            ("targets = 5", "expected a table; found 5"),
            ("[targets]\na = 5", "expected a table of keys; found 5"),
            ("[targets.a]\nhost = x", "text must be in quotes"),
            (
                "[targets.a]\nhost = \"x",
                "the quotes are not closed on this line",
            ),
            ("[targets.a]\nhost", "a key needs a value: KEY = VALUE"),
        ] {
            assert_eq!(message(text), words, "{text}");
        }
        let unknown = message("[targets.a]\nhots = \"x\"");
        assert!(
            unknown.starts_with("unknown key \"hots\"; expected one of host, db, user"),
            "{unknown}"
        );
    }

    #[test]
    fn nothing_is_said_in_a_programmers_words() {
        for value in [
            "1",
            "-1",
            "1.5",
            "true",
            "\"x\"",
            "[1]",
            "[\"x\"]",
            "{ a = 1 }",
            "2026-01-01",
            "nan",
            "x",
            "'x",
            "",
        ] {
            for key in [
                "host",
                "port",
                "bastion",
                "sessions",
                "warm",
                "ca_file",
                "ignore_startup_parameters",
                "connect_timeout",
            ] {
                let text = format!("[targets.a]\n{key} = {value}\n");
                if toml::from_str::<ConfigFile>(&text).is_err() {
                    let words = message(&text);
                    for word in [
                        "sequence",
                        "u16",
                        "u64",
                        "struct",
                        "variant",
                        "borrowed",
                        "invalid type",
                    ] {
                        assert!(!words.contains(word), "{text}: {words}");
                    }
                }
            }
        }
    }
}
