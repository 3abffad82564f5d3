//! The same tests on both ways, side by side.

use std::fmt;

use anyhow::{Context as _, ensure};

use super::{Outcome, Ran};

/// A test that does not end the same way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// Name of the test.
    pub(super) test: String,
    what: &'static str,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.test, self.what)
    }
}

/// What differs. Without a direct run the drivers' verdicts stand alone, and all must be good.
pub(super) fn compare(through: &Ran, direct: Option<&Ran>) -> anyhow::Result<Vec<Difference>> {
    let Some(direct) = direct else {
        ensure!(
            through.failures() == 0,
            "failures, and nothing to compare with"
        );
        return Ok(Vec::new());
    };
    ensure!(
        through.outcomes.len() == direct.outcomes.len(),
        "{} tests through pgiam, {} directly",
        through.outcomes.len(),
        direct.outcomes.len()
    );
    let mut found = Vec::new();
    for outcome in &through.outcomes {
        let other = direct.outcomes.iter().find(|o| o.test == outcome.test);
        let other = other.with_context(|| format!("{} did not run directly", outcome.test))?;
        if let Some(what) = difference(outcome, other) {
            found.push(Difference {
                test: outcome.test.clone(),
                what,
            });
        }
    }
    Ok(found)
}

fn difference(through: &Outcome, direct: &Outcome) -> Option<&'static str> {
    match (through.passed, direct.passed) {
        (false, true) => Some("fails through pgiam only"),
        (true, false) => Some("fails directly only"),
        // Some tests may end in one of several ways, so what passes is not looked into; of what
        // fails nobody has said which ways are good. (The pipeline tests keep in their output
        // only what must not vary.)
        (true, true) if through.output == direct.output => None,
        (true, true) => Some("passes, but the messages differ"),
        (false, false) if through.output == direct.output => None,
        (false, false) => Some("fails on both ways, in different ways"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ran(outcomes: &[(&str, bool, &str)]) -> Ran {
        let outcomes = outcomes.iter().map(|(test, passed, output)| Outcome {
            test: (*test).to_owned(),
            passed: *passed,
            output: (*output).to_owned(),
        });
        Ran {
            outcomes: outcomes.collect(),
            took: Duration::ZERO,
        }
    }

    #[test]
    fn the_same_verdicts_are_no_difference() {
        let through = ran(&[("a", true, ""), ("b", false, "-1\n+2")]);
        let direct = ran(&[("b", false, "-1\n+2"), ("a", true, "")]);
        assert_eq!(compare(&through, Some(&direct)).unwrap(), []);
    }

    #[test]
    fn every_kind_of_difference_is_found() {
        let through = ran(&[
            ("a", false, ""),
            ("b", true, ""),
            ("c", false, "1"),
            ("d", true, "1"),
        ]);
        let direct = ran(&[
            ("a", true, ""),
            ("b", false, ""),
            ("c", false, "2"),
            ("d", true, "2"),
        ]);
        let found = compare(&through, Some(&direct)).unwrap();
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "a: fails through pgiam only",
                "b: fails directly only",
                "c: fails on both ways, in different ways",
                "d: passes, but the messages differ",
            ]
        );
    }

    #[test]
    fn a_missing_test_is_an_error() {
        let through = ran(&[("a", true, "")]);
        assert!(compare(&through, Some(&ran(&[]))).is_err());
        assert!(compare(&through, Some(&ran(&[("b", true, "")]))).is_err());
    }

    #[test]
    fn failures_alone_prove_nothing() {
        assert!(compare(&ran(&[("a", false, "")]), None).is_err());
        assert_eq!(compare(&ran(&[("a", true, "")]), None).unwrap(), []);
    }
}
