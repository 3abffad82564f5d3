//! Text for a terminal: wrapped at words, with each command on a line of its own and unbroken.
//!
//! pgiam's texts name commands in sentences ("To test the name, run: nslookup HOST. …"), because
//! clients show them in one line. [`pieces`] finds these commands; a test runs it over all reports.

use std::sync::LazyLock;

use crate::cli::Cli;
use crate::cli::terminal::columns;

/// Indent of a command below the sentence that introduces it.
const COMMAND_INDENT: &str = "  ";

/// Handling of words longer than a line, such as ARNs and host names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LongWords {
    /// Break after a separator, or anywhere if there is none.
    Broken,
    /// Keep in one piece for copying; the terminal wraps them.
    Whole,
}

/// Part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Sentences, which may be wrapped.
    Prose(&'a str),
    /// A command, statement or policy to copy.
    Command(&'a str),
}

/// Programs that are named in hints with arguments that follow.
const PROGRAMS: [&str; 12] = [
    "aws",
    "brew",
    "createuser",
    "curl",
    "export",
    "nc",
    "nslookup",
    "sudo",
    "sysctl",
    "systemctl",
    "systemd-run",
    "ulimit",
];
/// First words of SQL statements in hints.
const STATEMENTS: [&str; 7] = [
    "GRANT ",
    "REVOKE ",
    "ALTER ",
    "CREATE ",
    "SELECT ",
    "AWS IAM GRANT",
    "AWS IAM REVOKE",
];

/// Names of pgiam's commands. Words that follow "pgiam" in a sentence are not among them.
static COMMANDS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let root = Cli::definition();
    let all = root.get_subcommands();
    let all = all.flat_map(|command| [command].into_iter().chain(command.get_subcommands()));
    all.map(|command| command.get_name().to_owned()).collect()
});

/// Wraps `text` into lines of at most `width` columns. Lines that begin with two spaces are
/// commands and stay as they are, and so do lines that fit. A command inside a sentence gets a line
/// of its own.
#[must_use]
pub fn paragraphs(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.lines() {
        let plain = console::strip_ansi_codes(line);
        if plain.starts_with(COMMAND_INDENT) || plain.starts_with("Usage:") {
            lines.push(line.to_owned());
            continue;
        }
        let (item, rest) = match line.strip_prefix("- ") {
            Some(rest) => ("- ", rest),
            None => ("", line),
        };
        let mut before = item.to_owned();
        for piece in pieces(rest) {
            let (wrapped, indent) = match piece {
                Piece::Prose(prose) => (fitted(prose, width.saturating_sub(item.len())), ""),
                Piece::Command(command) => (vec![command.to_owned()], COMMAND_INDENT),
            };
            for line in wrapped {
                lines.push(format!("{before}{indent}{line}"));
                before = " ".repeat(item.len());
            }
        }
    }
    lines
}

/// Wraps a sentence; one that fits keeps its spaces.
fn fitted(prose: &str, width: usize) -> Vec<String> {
    match columns(prose) <= width {
        true => vec![prose.to_owned()],
        false => words(prose, width, LongWords::Whole),
    }
}

/// Wraps words into lines of at most `width` columns. Does not break between the words of a short
/// command.
#[must_use]
pub fn words(text: &str, width: usize, long: LongWords) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for unit in units(text) {
        // A command that is longer than a line is broken like other text.
        let parts: Vec<&str> = match columns(unit) <= width || long == LongWords::Whole {
            true => vec![unit],
            false => unit.split_whitespace().collect(),
        };
        for mut word in parts {
            let space = usize::from(!line.is_empty());
            if columns(&line) + space + columns(word) <= width {
                line.extend(std::iter::repeat_n(' ', space));
                line.push_str(word);
                continue;
            }
            if !line.is_empty() {
                lines.push(std::mem::take(&mut line));
            }
            while long == LongWords::Broken && columns(word) > width {
                let (head, rest) = word.split_at(break_at(word, width));
                lines.push(head.to_owned());
                word = rest;
            }
            word.clone_into(&mut line);
        }
    }
    lines.push(line);
    lines
}

/// Splits a sentence into words, with the words of a short command in one unit:
/// `pgiam setup sql --user ROLE`.
fn units(text: &str) -> Vec<&str> {
    let mut units: Vec<&str> = Vec::new();
    let mut start = None;
    let mut last = "";
    for word in text.split_whitespace() {
        let at = word.as_ptr() as usize - text.as_ptr() as usize;
        let is_one_space = start.is_some_and(|start: usize| {
            let end = start + units.last().map_or(0, |unit| unit.len());
            at == end + 1
        });
        match (start, units.last_mut()) {
            (Some(start), Some(unit)) if is_one_space && belongs(unit, last, word) => {
                *unit = &text[start..at + word.len()];
            }
            _ => {
                units.push(word);
                start = Some(at);
            }
        }
        last = word;
    }
    units
}

/// Returns true if `word` continues the command `unit`, whose last word is `last`.
fn belongs(unit: &str, last: &str, word: &str) -> bool {
    if last.ends_with([',', ';', ':', '.', ')', ']']) {
        return false;
    }
    let first = unit.split(' ').next().unwrap_or_default();
    let first = first.trim_start_matches(['(', '"', '`']);
    let bare = word.trim_end_matches(['.', ',', ';', ':', ')', ']', '"', '`']);
    let is_flag = |word: &str| word.len() > 1 && word.starts_with('-');
    let is_placeholder = bare.len() > 1 && bare.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    match first {
        "pgiam" if unit.len() == last.len() => is_command(bare) || is_flag(word),
        "aws" if unit.split(' ').count() < 3 => {
            is_flag(word) || bare.starts_with(|c: char| c.is_ascii_lowercase())
        }
        "pgiam" | "aws" | "psql" => {
            is_flag(word)
                || (is_flag(last) && !last.contains('='))
                || is_placeholder
                || (first == "pgiam" && last == "setup" && is_command(bare))
        }
        _ => false,
    }
}

fn is_command(word: &str) -> bool {
    COMMANDS.iter().any(|name| name == word)
}

/// Splits one line into sentences and the commands that they introduce with a colon.
#[must_use]
pub fn pieces(line: &str) -> Vec<Piece<'_>> {
    let mut found = Vec::new();
    let (mut prose, mut from) = (line, 0);
    while let Some(at) = prose[from..].find(": ") {
        let start = from + at + ": ".len();
        let rest = &prose[start..];
        // In parentheses it stays in its sentence.
        let is_aside = prose[..start].matches('(').count() > prose[..start].matches(')').count();
        let Some(length) = command_length(rest).filter(|_| !is_aside) else {
            from = start;
            continue;
        };
        found.push(Piece::Prose(prose[..start].trim()));
        found.push(Piece::Command(rest[..length].trim_end()));
        let after = rest[length..].trim_start();
        let after = after.strip_prefix(['.', ';', ',']).unwrap_or(after);
        (prose, from) = (after.trim_start(), 0);
    }
    if !prose.trim().is_empty() || found.is_empty() {
        found.push(Piece::Prose(prose.trim_end()));
    }
    found
}

/// Returns the length of the command at the beginning of `text`; `None` if there is none.
fn command_length(text: &str) -> Option<usize> {
    if text.starts_with("{\"") {
        return Some(closing_brace(text));
    }
    let mut words = text.split(' ');
    let (first, second) = (words.next()?, words.next().unwrap_or_default());
    let is_list = second == "=" && words.next().is_some_and(|value| value.starts_with('['));
    if is_list {
        // A line for the configuration file.
        return unquoted(text, |rest| rest.starts_with(']')).map(|at| at + 1);
    }
    let is_statement = STATEMENTS.iter().any(|start| text.starts_with(start));
    let is_flag = second.starts_with('-');
    let named = match first {
        "pgiam" => is_flag || is_command(second.trim_end_matches(['.', ',', ';', ':'])),
        "kill" => is_flag || second.starts_with(|c: char| c.is_ascii_digit()),
        "psql" | "ssh" => is_flag,
        first => PROGRAMS.contains(&first) && !second.is_empty(),
    };
    if is_statement {
        let end = unquoted(text, |rest| rest.starts_with(';')).map(|at| at + 1);
        return Some(end.unwrap_or_else(|| end_of_sentence(text)));
    }
    let ends = |rest: &str| {
        let is_next = |rest: &str, sign: char| {
            let rest = rest.strip_prefix(sign)?.strip_prefix(' ')?;
            rest.chars().next()
        };
        rest.starts_with("; ")
            || rest.starts_with(" (")
            || rest.starts_with(" [")
            || is_next(rest, '.').is_some()
            || is_next(rest, ',').is_some_and(char::is_lowercase)
    };
    named.then(|| unquoted(text, ends).unwrap_or_else(|| end_of_sentence(text)))
}

/// Returns the length without the full stop of the last sentence.
fn end_of_sentence(text: &str) -> usize {
    let text = text.trim_end();
    text.strip_suffix('.').unwrap_or(text).len()
}

/// Returns the first position outside quotes at which `ends` accepts the rest.
fn unquoted(text: &str, ends: impl Fn(&str) -> bool) -> Option<usize> {
    let mut quote = None;
    for (at, sign) in text.char_indices() {
        match quote {
            Some(open) if sign == open => quote = None,
            Some(_) => {}
            None if ends(&text[at..]) => return Some(at),
            None if matches!(sign, '"' | '\'') => quote = Some(sign),
            None => {}
        }
    }
    None
}

/// Returns the length of the JSON object at the beginning of `text`.
fn closing_brace(text: &str) -> usize {
    let (mut depth, mut is_quoted) = (0_usize, false);
    for (at, sign) in text.char_indices() {
        match sign {
            '"' => is_quoted = !is_quoted,
            '{' if !is_quoted => depth += 1,
            '}' if !is_quoted => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    text.len()
}

/// Returns the position at which to break a word wider than `width`.
fn break_at(word: &str, width: usize) -> usize {
    let mut seen = 0;
    let mut fits = 0;
    let mut parted = 0;
    for (at, sign) in word.char_indices() {
        seen += columns(sign.encode_utf8(&mut [0; 4]));
        if seen > width {
            break;
        }
        fits = at + sign.len_utf8();
        if matches!(sign, '.' | '/' | ':' | ',' | '-' | '_' | '=') {
            parted = fits;
        }
    }
    // Always make progress, and avoid short fragments.
    match parted > fits / 2 {
        true => parted,
        false => fits.max(word.chars().next().map_or(1, char::len_utf8)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn long_words_are_broken_where_they_have_parts() {
        let broken = |text, width| words(text, width, LongWords::Broken);
        assert_eq!(broken("", 10), [""]);
        assert_eq!(broken("a bc def", 4), ["a bc", "def"]);
        assert_eq!(broken("arn:aws:iam::role", 10), ["arn:aws:", "iam::role"]);
        assert_eq!(
            broken("see abcdefghijkl", 5),
            ["see", "abcde", "fghij", "kl"]
        );
        assert_eq!(broken("a.bcdefgh", 4), ["a.bc", "defg", "h"]);
        assert_eq!(broken("größer", 3), ["grö", "ßer"]);
        let whole = words("see abcdefghijkl now", 5, LongWords::Whole);
        assert_eq!(whole, ["see", "abcdefghijkl", "now"]);
        for width in 1..20 {
            let text = "ein.Wort mit/Teilen und → Zeichen";
            let joined: String = broken(text, width).concat();
            assert_eq!(joined.replace(' ', ""), text.replace(' ', ""));
        }
    }

    fn commands(line: &str) -> Vec<&str> {
        let command = |piece| match piece {
            Piece::Command(command) => Some(command),
            Piece::Prose(_) => None,
        };
        pieces(line).into_iter().filter_map(command).collect()
    }

    #[test]
    fn commands_are_found_in_sentences() {
        for (line, expected) in [
            (
                "As an administrator, run: GRANT rds_iam TO \"app\"; The role can",
                &["GRANT rds_iam TO \"app\";"][..],
            ),
            (
                "Run: pgiam login dev (or renew the profile's keys). No restart is needed. [aws.expired]",
                &["pgiam login dev"],
            ),
            (
                "To see its status, run: aws rds describe-db-instances. To test the port, run: nc -vz db.example.com 5432",
                &[
                    "aws rds describe-db-instances",
                    "nc -vz db.example.com 5432",
                ],
            ),
            (
                "resume it: kill -CONT 12; if it hangs, end it: kill 12",
                &["kill -CONT 12", "kill 12"],
            ),
            (
                "restart pgiam with: ulimit -n 65536, or LimitNOFILE=65536 in the unit",
                &["ulimit -n 65536"],
            ),
            (
                "log in with: aws login --profile 'dev; eu' [x]",
                &["aws login --profile 'dev; eu'"],
            ),
            (
                "Add this statement: {\"Effect\": \"Allow\", \"Resource\": [\"a}\", {}]}. To avoid it, wait.",
                &["{\"Effect\": \"Allow\", \"Resource\": [\"a}\", {}]}"],
            ),
            (
                "list them: SELECT a, count(*) FROM b GROUP BY 1; [id]",
                &["SELECT a, count(*) FROM b GROUP BY 1;"],
            ),
            ("Connect again: pgiam opens a new session.", &[]),
            ("a login failed: AWS reports that the keys expired", &[]),
            ("possible causes: the name is wrong", &[]),
            ("hint: pgiam", &[]),
            ("Close it: kill the program", &[]),
            ("", &[]),
        ] {
            assert_eq!(commands(line), expected, "{line}");
        }
    }

    /// Returns the hints in the snapshots of reports.
    fn hints() -> BTreeSet<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/report/snapshots");
        let files = std::fs::read_dir(root).unwrap();
        let texts = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
        let all: Vec<String> = texts.collect();
        let lines = all.iter().flat_map(|text| text.lines());
        let hints = lines.filter_map(|line| line.trim().strip_prefix("HINT:"));
        hints.map(|hint| hint.trim().to_owned()).collect()
    }

    #[test]
    fn the_commands_of_all_reports_are_found() {
        let hints = hints();
        assert!(hints.len() > 100, "{}", hints.len());
        let mut all = BTreeSet::new();
        for hint in &hints {
            let found = commands(hint);
            for (at, introduction) in hint.match_indices("un: ") {
                let (before, rest) = hint.split_at(at + introduction.len());
                let is_aside = before.matches('(').count() > before.matches(')').count();
                assert!(
                    is_aside || found.iter().any(|command| rest.starts_with(command)),
                    "{hint}"
                );
            }
            all.extend(found);
        }
        let all: Vec<&str> = all.into_iter().collect();
        insta::assert_snapshot!(all.join("\n"));
    }

    #[test]
    fn a_command_has_a_line_of_its_own_and_is_never_broken() {
        let hint = "target \"orders\" is not ready\nhint: Run: pgiam login --sso-session a-long-name-of-a-session --device-code (or renew the keys). Then wait, or run pgiam check orders --no-speed for the cause.\n  pgiam serve --config  /a/path";
        assert_eq!(
            paragraphs(hint, 40),
            [
                "target \"orders\" is not ready",
                "hint: Run:",
                "  pgiam login --sso-session a-long-name-of-a-session --device-code",
                "(or renew the keys). Then wait, or run",
                "pgiam check orders --no-speed for the",
                "cause.",
                "  pgiam serve --config  /a/path",
            ]
        );
    }

    #[test]
    fn short_commands_in_sentences_stay_together() {
        for (text, width, expected) in [
            (
                "all with pgiam stop --all",
                14,
                &["all with", "pgiam stop --all"][..],
            ),
            (
                "say pgiam setup sql --user ROLE prints",
                30,
                &["say", "pgiam setup sql --user ROLE", "prints"],
            ),
            (
                "here pgiam reloads the file",
                11,
                &["here pgiam", "reloads the", "file"],
            ),
            (
                "(aws sts get-caller-identity --profile dev) has",
                44,
                &["(aws sts get-caller-identity --profile dev)", "has"],
            ),
            (
                "set it, psql -U ROLE, or",
                14,
                &["set it,", "psql -U ROLE,", "or"],
            ),
        ] {
            assert_eq!(words(text, width, LongWords::Whole), expected);
        }
    }

    /// Wrapping loses, adds and reorders nothing but spaces, and `.`, `,` and `;` behind commands.
    #[test]
    fn wrapped_text_is_the_same_text() {
        const WORDS: [&str; 14] = [
            "run:", "pgiam", "login", "dev", "(or", "this)", "GRANT", "x;", "--all", "{\"a\":",
            "1}", "it's", "\"quoted", "größe",
        ];
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            usize::try_from(seed % below as u64).unwrap()
        };
        for _ in 0..2000 {
            let text: Vec<&str> = (0..next(30)).map(|_| WORDS[next(WORDS.len())]).collect();
            let (text, width) = (text.join(" "), 1 + next(60));
            let lines = paragraphs(&text, width);
            let is_left = |c: &char| !c.is_whitespace() && !matches!(c, '.' | ',' | ';');
            let bare = |text: &str| text.chars().filter(is_left).collect::<String>();
            assert_eq!(bare(&lines.join(" ")), bare(&text), "{text}");
        }
    }
}
