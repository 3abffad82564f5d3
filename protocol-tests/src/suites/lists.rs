//! Which tests run: schedules in PostgreSQL's format, and what is left out of them.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context as _, ensure};

/// The written list of what is never run.
const SKIPS: &str = include_str!("../../judges/postgres-suites/skips");

/// Tests in groups that run at the same time, as in `parallel_schedule`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Schedule {
    groups: Vec<Vec<String>>,
    skipped: usize,
}

impl Schedule {
    /// Reads the lines `test: NAME ...`. Comments, and `ignore: NAME` lines (whose tests run all the
    /// same, and may fail), are left out: here a test may fail if it does so directly too.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut groups = Vec::new();
        for line in text.lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') || line.starts_with("ignore:") {
                continue;
            }
            let names = line
                .strip_prefix("test:")
                .with_context(|| format!("strange line in a schedule: {line:?}"))?;
            groups.push(names.split_whitespace().map(str::to_owned).collect());
        }
        ensure!(!groups.is_empty(), "a schedule without tests");
        Ok(Self { groups, skipped: 0 })
    }

    /// Leaves out tests for which `there` is not true: other major versions have other tests.
    pub(super) fn only(mut self, there: impl Fn(&str) -> bool) -> Self {
        self.retain(there);
        self
    }

    /// Leaves out, and counts, what is on the list for this suite.
    pub(super) fn without(mut self, skips: &Skips, suite: &str) -> Self {
        let before = self.tests().count();
        self.retain(|test| skips.reason(suite, test).is_none());
        self.skipped += before - self.tests().count();
        self
    }

    fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        for group in &mut self.groups {
            group.retain(|test| keep(test));
        }
        self.groups.retain(|group| !group.is_empty());
    }

    /// All names, in order.
    pub(super) fn tests(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().flatten().map(String::as_str)
    }

    /// How many tests the list of skips has taken out.
    pub(super) fn skipped(&self) -> usize {
        self.skipped
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for group in &self.groups {
            writeln!(f, "test: {}", group.join(" "))?;
        }
        Ok(())
    }
}

/// What is not run, and why.
#[derive(Debug)]
pub(super) struct Skips(BTreeMap<(String, String), String>);

impl Skips {
    /// The list of this repository.
    pub(super) fn written() -> anyhow::Result<Self> {
        Self::parse(SKIPS)
    }

    /// Lines of suite, test and reason.
    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut all = BTreeMap::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut words = line.splitn(3, char::is_whitespace);
            let (Some(suite), Some(test), Some(reason)) =
                (words.next(), words.next(), words.next())
            else {
                anyhow::bail!("a skip is a suite, a test and a reason, not {line:?}");
            };
            all.insert(
                (suite.to_owned(), test.to_owned()),
                reason.trim().to_owned(),
            );
        }
        Ok(Self(all))
    }

    fn reason(&self, suite: &str, test: &str) -> Option<&str> {
        let key = (suite.to_owned(), test.to_owned());
        self.0.get(&key).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# header\n\ntest: test_setup\nignore: random\ntest: random  copy\n";

    #[test]
    fn a_schedule_survives_reading_and_writing() {
        let schedule = Schedule::parse(TEXT).unwrap();
        let names: Vec<&str> = schedule.tests().collect();
        assert_eq!(names, ["test_setup", "random", "copy"]);
        assert_eq!(
            schedule.to_string(),
            "test: test_setup\ntest: random copy\n"
        );
        assert_eq!(Schedule::parse(&schedule.to_string()).unwrap(), schedule);
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        assert!(Schedule::parse("# nothing\n").is_err());
        let error = Schedule::parse("tests: a\n").unwrap_err().to_string();
        assert!(error.contains("tests: a"), "{error}");
    }

    #[test]
    fn skips_are_taken_out_and_counted() {
        let skips = Skips::parse("# why\nregress copy it is late\nisolation random no\n").unwrap();
        let schedule = Schedule::parse(TEXT).unwrap();
        let left = schedule.clone().without(&skips, "regress");
        assert_eq!(left.to_string(), "test: test_setup\ntest: random\n");
        assert_eq!(left.skipped(), 1);
        assert_eq!(skips.reason("regress", "copy"), Some("it is late"));
        let left = schedule
            .without(&skips, "isolation")
            .only(|test| test != "test_setup");
        assert_eq!(left.to_string(), "test: copy\n");
    }

    #[test]
    fn a_skip_needs_a_reason() {
        assert!(Skips::parse("regress copy\n").is_err());
    }

    #[test]
    fn the_written_lists_can_be_read() {
        Skips::written().unwrap();
        for text in [
            super::super::regress::REGRESS_SUBSET,
            super::super::regress::ISOLATION_SUBSET,
        ] {
            Schedule::parse(text).unwrap();
        }
    }
}
