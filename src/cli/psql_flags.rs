//! Flags of psql before the `--` of `pgiam psql`: `pgiam psql orders -Atc 'select 1'` needs no `--`.
//!
//! A flag that only psql has goes to psql. `-U` and `-d` become `--user` and `--database`, which also
//! select the role and the database of the tunnel's first login. `-h` and `-v` without a value are
//! those of pgiam; `-q` goes to both.

use std::ffi::OsString;

use clap::Command;

use super::correction::flag_of;

/// Flags of psql with a value (psql(1)).
const WITH_VALUE: &str = "cdfFLoPRTUv";
/// Flags of psql without a value.
const PLAIN: &str = "aAbeEHlnqsStVxXz01";
/// Long flags of psql with a value.
const LONG_WITH_VALUE: [&str; 12] = [
    "command",
    "dbname",
    "field-separator",
    "file",
    "log-file",
    "output",
    "pset",
    "record-separator",
    "set",
    "table-attr",
    "username",
    "variable",
];
/// Long flags of psql without a value.
const LONG_PLAIN: [&str; 19] = [
    "csv",
    "echo-all",
    "echo-errors",
    "echo-hidden",
    "echo-queries",
    "expanded",
    "field-separator-zero",
    "html",
    "list",
    "no-align",
    "no-psqlrc",
    "no-readline",
    "quiet",
    "record-separator-zero",
    "single-line",
    "single-step",
    "single-transaction",
    "tuples-only",
    "version",
];

/// Moves the flags of psql behind the `--`. Other command lines stay as they are.
pub(super) fn behind_dashes(definition: &Command, words: Vec<OsString>) -> Vec<OsString> {
    let command = match words.get(1) {
        Some(word) if word == "psql" => definition.find_subcommand("psql"),
        _ => None,
    };
    let Some(command) = command else { return words };
    let mut split = SplitLine {
        command,
        own: Vec::new(),
        psql: Vec::new(),
    };
    let mut rest = words.into_iter();
    split.own.extend(rest.by_ref().take(2));
    while let Some(word) = rest.next() {
        if word == "--" {
            split.psql.extend(rest);
            break;
        }
        split.take(word, &mut rest);
    }
    let SplitLine { mut own, psql, .. } = split;
    if !psql.is_empty() {
        own.push("--".into());
        own.extend(psql);
    }
    own
}

struct SplitLine<'a> {
    command: &'a Command,
    own: Vec<OsString>,
    psql: Vec<OsString>,
}

impl SplitLine<'_> {
    /// Takes a word, and its value from the rest of the line.
    fn take(&mut self, word: OsString, rest: &mut impl Iterator<Item = OsString>) {
        let is_taken = match word.to_str() {
            Some(text) if text.starts_with("--") => self.long(text, rest),
            Some(text) if text.len() > 1 && text.starts_with('-') => self.bundle(text, rest),
            _ => false,
        };
        if is_taken {
            return;
        }
        let takes_value = word.to_str().is_some_and(|text| {
            let arg = flag_of(self.command, text).filter(|_| text.starts_with('-'));
            arg.is_some_and(|arg| arg.get_action().takes_values() && !arg.is_require_equals_set())
                && !text.contains('=')
        });
        self.own.push(word);
        if takes_value {
            self.own.extend(rest.next());
        }
    }

    fn long(&mut self, text: &str, rest: &mut impl Iterator<Item = OsString>) -> bool {
        let (flag, value) = match text.split_once('=') {
            Some((flag, value)) => (flag, Some(OsString::from(value))),
            None => (text, None),
        };
        let name = flag.trim_start_matches('-');
        if name == "quiet" && value.is_none() {
            self.psql.push(text.into());
            return false; // It is also a flag of pgiam.
        }
        if flag_of(self.command, flag).is_some() {
            return false;
        }
        if LONG_PLAIN.contains(&name) && value.is_none() {
            self.psql.push(text.into());
            return true;
        }
        let is_known = LONG_WITH_VALUE.contains(&name);
        match (is_known, value.or_else(|| is_known.then(|| rest.next())?)) {
            (false, _) => false,
            (true, value) => {
                self.valued(name, flag.into(), value);
                true
            }
        }
    }

    /// Takes short flags in one word, such as `-Atc`.
    fn bundle(&mut self, text: &str, rest: &mut impl Iterator<Item = OsString>) -> bool {
        let letters = text.trim_start_matches('-');
        let end = letters.find(|letter| WITH_VALUE.contains(letter));
        let plain = &letters[..end.unwrap_or(letters.len())];
        let is_own = |letter: char| flag_of(self.command, &format!("-{letter}")).is_some();
        let has_value = letters.contains('=');
        // `-v` alone asks pgiam for more log lines; `-v NAME=VALUE` sets a variable of psql.
        if letters.chars().all(is_own) && !has_value {
            let is_variable =
                |next: &OsString| next.to_str().is_some_and(|next| next.contains('='));
            if letters == "v" {
                let Some(next) = rest.next() else {
                    return false;
                };
                if is_variable(&next) {
                    self.psql.extend([text.into(), next]);
                    return true;
                }
                self.own.push(text.into());
                self.take(next, rest);
                return true;
            }
            if letters.chars().all(|letter| letter == 'q') {
                self.psql.push("-q".into());
            }
            return false;
        }
        if !plain.chars().all(|letter| PLAIN.contains(letter)) {
            return false;
        }
        let Some(at) = end else {
            self.psql.push(text.into());
            return true;
        };
        if !plain.is_empty() {
            self.psql.push(format!("-{plain}").into());
        }
        let flag = &letters[at..=at];
        let joined = &letters[at + 1..];
        let value = match joined {
            "" => rest.next(),
            joined => Some(joined.into()),
        };
        self.valued(flag, format!("-{flag}").into(), value);
        true
    }

    /// Adds a flag of psql with its value.
    fn valued(&mut self, name: &str, flag: OsString, value: Option<OsString>) {
        let own = match name {
            "U" | "username" => Some("--user"),
            "d" | "dbname" => Some("--database"),
            _ => None,
        };
        let (words, flag) = match own {
            Some(own) => (&mut self.own, own.into()),
            None => (&mut self.psql, flag),
        };
        words.push(flag);
        words.extend(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;

    fn split(line: &str) -> String {
        let words = aws_profile::split_posix(line).unwrap();
        let words = words.iter().map(OsString::from).collect();
        let split = behind_dashes(&Cli::definition(), words);
        let split: Vec<String> = split
            .iter()
            .map(|word| crate::base::quote::shell(word.to_str().unwrap()))
            .collect();
        split.join(" ")
    }

    #[test]
    fn flags_of_psql_need_no_dashes() {
        for (given, expected) in [
            ("psql -c 'select 1'", "psql -- -c 'select 1'"),
            ("psql orders -c 'select 1'", "psql orders -- -c 'select 1'"),
            ("psql -c 'select 1' orders", "psql orders -- -c 'select 1'"),
            (
                "psql -Atc 'select 1' orders",
                "psql orders -- -At -c 'select 1'",
            ),
            ("psql orders -Atf x.sql", "psql orders -- -At -f x.sql"),
            ("psql orders -cselect", "psql orders -- -c select"),
            ("psql -l", "psql -- -l"),
            ("psql -x -A -t", "psql -- -x -A -t"),
            (
                "psql orders --csv --command=x",
                "psql orders -- --csv --command x",
            ),
            ("psql -U app orders", "psql --user app orders"),
            ("psql -d app -l", "psql --database app -- -l"),
            ("psql --dbname=app", "psql --database app"),
            (
                "psql -v ON_ERROR_STOP=1 -f x",
                "psql -- -v ON_ERROR_STOP=1 -f x",
            ),
            ("psql -vON_ERROR_STOP=1", "psql -- -v ON_ERROR_STOP=1"),
            ("psql -v orders -c x", "psql -v orders -- -c x"),
            ("psql -q orders", "psql -q orders -- -q"),
            ("psql -qAt orders", "psql orders -- -qAt"),
            (
                "psql --db orders --user app -c x",
                "psql --db orders --user app -- -c x",
            ),
            ("psql orders -At -- -c x", "psql orders -- -At -c x"),
            // Those of pgiam, and those of neither.
            ("psql -h", "psql -h"),
            ("psql --host db -c x", "psql --host db -- -c x"),
            ("psql --unknown", "psql --unknown"),
            ("psql -W", "psql -W"),
            ("run orders -c x", "run orders -c x"),
        ] {
            let (given, expected) = (format!("pgiam {given}"), format!("pgiam {expected}"));
            assert_eq!(split(&given), expected, "{given}");
        }
    }

    #[test]
    fn every_split_line_is_understood() {
        for line in [
            "psql orders -Atc x",
            "psql -d app -U role -l",
            "psql -q -f x orders",
        ] {
            let words = aws_profile::split_posix(&format!("pgiam {line}")).unwrap();
            Cli::of_words(&words).unwrap();
        }
    }
}
