//! Terminal output of a check.

use std::collections::VecDeque;
use std::fmt::Write as _;

use super::{StepOutcome, StepResult, StepVerdict};
use crate::base::quote::{clean, printable};
use crate::cli::terminal::{BAD, DIM, GOOD, HEADING, WARNING, columns, styled};
use crate::cli::wrap::{self, LongWords};
use crate::config::TargetConfig;
use crate::report;

/// Columns of mark and name.
const LEFT: usize = 2 + NAME;
const NAME: usize = 13;
/// Columns of the time, with the space before it.
const TIME: usize = 9;
/// Columns between a text and the time in a pipe, where the lines have no width.
const TIME_GAP: usize = 2;
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
    let lines = wrap::words(&clean(&text), width, LongWords::Whole).into_iter();
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
    let room = width - LEFT - TIME;
    let mut lines: VecDeque<String> = wrap::words(&clean(&said), room, LongWords::Whole).into();
    // A name to copy that is too long for the place before the time has a line of its own.
    let is_long = lines.front().is_some_and(|line| columns(line) > room);
    let first = match is_long && !taken.outcome.said.is_empty() {
        true => String::new(),
        false => lines.pop_front().unwrap_or_default(),
    };
    let time = time(taken.ms);
    let gap = match width {
        usize::MAX => TIME_GAP,
        width => (width - LEFT).saturating_sub(columns(&first) + columns(&time)),
    };
    let mut out = String::new();
    let named = format!("{:<NAME$}", taken.name);
    let end = match time.is_empty() {
        true => String::new(),
        false => format!("{:gap$}{}", "", styled(DIM, time)),
    };
    // Writing to a String cannot fail.
    let head = format!("{} {named}{first}{end}", styled(style, mark));
    _ = writeln!(out, "{}", head.trim_end());
    for line in lines {
        let indent = match columns(&line) <= width - LEFT {
            true => LEFT,
            false => BELOW.len(),
        };
        _ = writeln!(out, "{:indent$}{line}", "");
    }
    if let Some(detail) = detail {
        block(&mut out, "", detail, width);
    }
    let remedy = match (remedy, id) {
        (Some(remedy), Some(id)) => Some(report::with_id(remedy, id)),
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
    for line in wrap::words(&left.join(", "), width - LEFT, LongWords::Whole) {
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
    let lines = match width {
        usize::MAX => text.lines().map(printable).collect(),
        width => wrap::paragraphs(&clean(text), width - indent),
    };
    for line in lines {
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
            let is_copied =
                line.trim_start().starts_with("{\"Effect\"") || line.starts_with("  arn:");
            assert!(columns(line) <= WIDTH || is_copied, "{line:?}");
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_pipe_has_one_line_for_each_text() {
        let said = "a text that is longer than the terminal is wide, and goes on for a while";
        let step = StepOutcome::warning(said)
            .detail(said)
            .remedy("Wait, then run: pgiam check orders");
        assert_eq!(
            plain(&line(&taken("clock", step, 31.0), usize::MAX)),
            format!(
                "! clock        {said}  31 ms\n  {said}\n  → Wait, then run: pgiam check orders\n"
            )
        );
        assert_eq!(
            plain(&not_tried(&["tls", "login"], usize::MAX)),
            "– not tried    tls, login\n"
        );
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
