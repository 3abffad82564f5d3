//! Terminal output of a check.

use std::fmt::Write as _;

use super::{StepOutcome, StepResult, StepVerdict};
use crate::base::quote::printable;
use crate::cli::terminal::{BAD, DIM, GOOD, HEADING, WARNING, styled};
use crate::config::TargetConfig;

/// Columns of mark and name.
const LEFT: usize = 2 + NAME;
const NAME: usize = 13;
/// Columns of the time, with the space before it.
const TIME: usize = 9;
/// Indent below a heading.
const BELOW: &str = "  ";

/// Returns the heading above the steps, which names the target.
#[must_use]
pub fn head(config: &TargetConfig, width: usize) -> String {
    let user = config
        .settings
        .user
        .as_ref()
        .map(|user| format!(" as {user}"));
    let user = user.unwrap_or_default();
    let text = format!(
        "{}: {}{user} via {}",
        config.name, config.database_ref, config.settings.via
    );
    let lines = wrap(&text, width, LongWords::Broken).into_iter();
    lines.map(|line| styled(HEADING, line) + "\n").collect()
}

/// Formats one step in lines of at most `width` columns, with a line feed after each.
#[must_use]
pub fn line(taken: &StepResult, width: usize) -> String {
    let StepOutcome {
        verdict,
        said,
        detail,
        remedy,
        id,
        ..
    } = &taken.outcome;
    let (mark, style) = match verdict {
        StepVerdict::Ok => ("✓", GOOD),
        StepVerdict::Warning => ("!", WARNING),
        StepVerdict::Failed => ("✗", BAD),
        StepVerdict::Skipped => ("–", DIM),
    };
    let said = match (&taken.outcome.sqlstate, verdict) {
        (Some(state), StepVerdict::Failed) => format!("{said} ({state})"),
        (None, _) | (Some(_), _) => said.clone(),
    };
    let mut lines = wrap(&said, width - LEFT - TIME, LongWords::Broken).into_iter();
    let first = lines.next().unwrap_or_default();
    let time = time(taken.ms);
    let gap = (width - LEFT).saturating_sub(columns(&first) + columns(&time));
    let mut out = String::new();
    let named = format!("{:<NAME$}", taken.name);
    let end = match time.is_empty() {
        true => String::new(),
        false => format!("{:gap$}{}", "", styled(DIM, time)),
    };
    // Writing to a String cannot fail.
    _ = writeln!(out, "{} {named}{first}{end}", styled(style, mark));
    for line in lines {
        _ = writeln!(out, "{:LEFT$}{line}", "");
    }
    if let Some(detail) = detail {
        block(&mut out, "", detail, width);
    }
    let remedy = match (remedy, id) {
        (Some(remedy), Some(id)) => Some(format!("{remedy} [{id}]")),
        (None, Some(id)) => Some(format!("[{id}]")),
        (remedy, None) => remedy.clone(),
    };
    if let Some(remedy) = remedy {
        block(&mut out, "→ ", &remedy, width);
    }
    out
}

/// Returns the line about the steps not run; empty when all were.
#[must_use]
pub fn not_tried(left: &[&str], width: usize) -> String {
    if left.is_empty() {
        return String::new();
    }
    let mut out = String::new();
    let mut name = "not tried";
    for line in wrap(&left.join(", "), width - LEFT, LongWords::Whole) {
        let mark = if name.is_empty() { " " } else { "–" };
        _ = writeln!(out, "{} {name:<NAME$}{line}", styled(DIM, mark));
        name = "";
    }
    out
}

/// Appends a paragraph below a step.
fn block(out: &mut String, mark: &str, text: &str, width: usize) {
    let indent = BELOW.len() + columns(mark);
    let mut before = format!("{BELOW}{mark}");
    for line in wrap(text, width - indent, LongWords::Whole) {
        _ = writeln!(out, "{before}{line}");
        before = " ".repeat(indent);
    }
}

/// Formats a duration as `31 ms` or `1.2 s`; empty if negligible.
fn time(ms: f64) -> String {
    match ms {
        ms if ms < 1.0 => String::new(),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1000.0),
    }
}

/// Handling of words longer than a line, such as ARNs and host names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LongWords {
    /// Break after a separator, or anywhere if there is none.
    Broken,
    /// Keep in one piece for copying; the terminal wraps them.
    Whole,
}

/// Wraps `text` into lines of at most `width` columns, at spaces.
fn wrap(text: &str, width: usize, words: LongWords) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace().map(printable) {
        let mut word = word.as_str();
        let space = usize::from(!line.is_empty());
        if columns(&line) + space + columns(word) <= width {
            line.extend(std::iter::repeat_n(' ', space));
            line.push_str(word);
            continue;
        }
        if !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
        while words == LongWords::Broken && columns(word) > width {
            let (head, rest) = word.split_at(break_at(word, width));
            lines.push(head.to_owned());
            word = rest;
        }
        word.clone_into(&mut line);
    }
    lines.push(line);
    lines
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

fn columns(text: &str) -> usize {
    console::measure_text_width(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Explanation;

    const WIDTH: usize = 80;

    fn taken(name: &'static str, outcome: StepOutcome, ms: f64) -> StepResult {
        StepResult { name, outcome, ms }
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_check_at_80_columns() {
        let resource = "arn:aws:rds-db:eu-central-1:123456789012:dbuser:cluster-ABCDEFGHIJKLMNOPQRSTUVWXYZ/db_user";
        let steps = [
            taken(
                "credentials",
                StepOutcome::ok("arn:aws:iam::123456789012:user/dev, from the environment"),
                31.2,
            ),
            taken("clock", StepOutcome::ok("in sync with AWS"), 0.0),
            taken(
                "endpoint",
                StepOutcome::ok("orders.cluster-abc.eu-central-1.rds.amazonaws.com:5432, a cluster's writer, eu-central-1"),
                0.1,
            ),
            taken(
                "settings",
                StepOutcome::skipped("your policy does not allow rds:DescribeDBClusters"),
                12.0,
            ),
            taken(
                "permission",
                StepOutcome::warning(format!("your policies do not allow rds-db:connect on {resource}"))
                    .detail("The IAM simulation ignores resource policies and some conditions; the login step decides.")
                    .remedy(format!("Add this statement to your IAM policy: {{\"Effect\": \"Allow\", \"Action\": \"rds-db:connect\", \"Resource\": \"{resource}\"}}")),
                140.4,
            ),
            taken("session", StepOutcome::ok("open through i-0123456789abcdef0"), 1234.0),
            taken(
                "login",
                StepOutcome::failed(Explanation {
                    id: "database.no-rds-iam",
                    sqlstate: "28000".to_owned(),
                    message: "role \"db_user\" is not set up for IAM login".to_owned(),
                    detail: Some("The database requests SASL (SCRAM-SHA-256) instead of a clear-text password, as it does for roles that do not exist or do not have rds_iam. No token was sent.".to_owned()),
                    hint: Some("As an administrator, run: GRANT rds_iam TO \"db_user\";".to_owned()),
                }),
                21.0,
            ),
        ];
        let mut text: String = steps.iter().map(|taken| line(taken, WIDTH)).collect();
        text += &not_tried(&["rds_iam", "speed"], WIDTH);
        let text = plain(&text);
        for line in text.lines() {
            let pieces = line.trim_start().contains(' ');
            assert!(columns(line) <= WIDTH || !pieces, "{line:?}");
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn long_words_are_broken_where_they_have_parts() {
        let broken = |text, width| wrap(text, width, LongWords::Broken);
        assert_eq!(broken("", 10), [""]);
        assert_eq!(broken("a bc def", 4), ["a bc", "def"]);
        assert_eq!(broken("arn:aws:iam::role", 10), ["arn:aws:", "iam::role"]);
        assert_eq!(
            broken("see abcdefghijkl", 5),
            ["see", "abcde", "fghij", "kl"]
        );
        assert_eq!(broken("a.bcdefgh", 4), ["a.bc", "defg", "h"]);
        assert_eq!(broken("größer", 3), ["grö", "ßer"]);
        let whole = wrap("see abcdefghijkl now", 5, LongWords::Whole);
        assert_eq!(whole, ["see", "abcdefghijkl", "now"]);
        for width in 1..20 {
            let text = "ein.Wort mit/Teilen und → Zeichen";
            let joined: String = broken(text, width).concat();
            assert_eq!(joined.replace(' ', ""), text.replace(' ', ""));
        }
    }

    #[test]
    fn times_are_short() {
        for (ms, expected) in [
            (0.4, ""),
            (1.0, "1 ms"),
            (999.0, "999 ms"),
            (1234.0, "1.2 s"),
            (61_000.0, "61.0 s"),
        ] {
            assert_eq!(time(ms), expected);
        }
    }
}
