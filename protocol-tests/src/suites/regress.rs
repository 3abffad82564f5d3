//! `pg_regress` and `pg_isolation_regress`, told where the server is.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use super::lists::Schedule;
use super::world::World;
use super::{Outcome, process};

pub(super) const REGRESS_SUBSET: &str = include_str!("../../judges/postgres-suites/regress-subset");
pub(super) const ISOLATION_SUBSET: &str =
    include_str!("../../judges/postgres-suites/isolation-subset");

/// How long all tests of one driver may take: ten times what they need on a small machine.
const DEADLINE: Duration = Duration::from_secs(60 * 60);

/// Tests at the same time, as in PostgreSQL's own makefile.
const CONCURRENT: &str = "--max-concurrent-tests=20";

/// A program that runs tests and compares what they write with what they should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Driver {
    /// SQL scripts, run by psql.
    Regress,
    /// Several sessions whose steps are interleaved.
    Isolation,
}

impl Driver {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Regress => "regress",
            Self::Isolation => "isolation",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Regress => "pg_regress",
            Self::Isolation => "pg_isolation_regress",
        }
    }

    fn database(self) -> &'static str {
        match self {
            Self::Regress => "regression",
            Self::Isolation => "isolation_regression",
        }
    }

    /// The tests to run, of those that are in `source`.
    pub(super) fn schedule(self, source: &Path, full: bool) -> anyhow::Result<Schedule> {
        let dir = source.join(self.name());
        let (all, chosen, tests) = match self {
            Self::Regress => ("parallel_schedule", REGRESS_SUBSET, ("sql", "sql")),
            Self::Isolation => ("isolation_schedule", ISOLATION_SUBSET, ("specs", "spec")),
        };
        let read = || {
            let path = dir.join(all);
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        let text = if full { read()? } else { chosen.to_owned() };
        let (folder, extension) = tests;
        let schedule = Schedule::parse(&text)?;
        Ok(schedule.only(|test| {
            dir.join(folder)
                .join(format!("{test}.{extension}"))
                .is_file()
        }))
    }
}

/// Runs the tests of a schedule in a fresh database. The driver's own words are kept in `reports`.
pub(super) async fn run(
    driver: Driver,
    schedule: &Schedule,
    world: &World,
    reports: &Path,
) -> anyhow::Result<Vec<Outcome>> {
    let input = world.dir().join(driver.name());
    let output = world.dir().join(format!("{}-output", driver.name()));
    world.make_shared(&output)?;
    world.make_shared(&output.join("results"))?;
    let list = output.join("schedule");
    fs::write(&list, schedule.to_string()).context("writing the schedule")?;

    let (host, port, user) = world.address();
    let mut command = world.client(&world.program(driver.program()));
    command
        .args([CONCURRENT, "--encoding=UTF8"])
        .args(["--host", host, "--port", &port.to_string(), "--user", user])
        .args(["--dbname", driver.database()])
        .arg("--bindir")
        .arg(world.bindir())
        .arg("--dlpath")
        .arg(world.dir().join("lib"))
        .arg("--inputdir")
        .arg(&input)
        .arg("--outputdir")
        .arg(&output)
        .arg("--schedule")
        .arg(&list)
        .current_dir(&output);
    if driver == Driver::Isolation {
        // libpq tells the end of a connection in other words with TLS, and the tests expect those
        // without. So both kinds of local connections have their turn.
        command.env("PGSSLMODE", "disable");
    }
    let ended = process::run(command, DEADLINE).await?;

    let tag = format!("{}-{}", world.way().tag(), driver.name());
    let said = format!("{}{}", ended.stdout, ended.stderr);
    fs::write(reports.join(format!("{tag}.out")), &said).context("keeping a report")?;
    let diffs = output.join("regression.diffs");
    if diffs.is_file() {
        fs::copy(&diffs, reports.join(format!("{tag}.diffs"))).context("keeping a report")?;
    }

    let verdicts = parse(&ended.stdout);
    let expected: Vec<&str> = schedule.tests().collect();
    let got: Vec<&str> = verdicts.iter().map(|(test, _)| test.as_str()).collect();
    if got != expected {
        bail!("not all tests were run: {}\n{said}", ended.status);
    }
    let outcomes = verdicts.into_iter().map(|(test, passed)| {
        let file = output.join("results").join(format!("{test}.out"));
        Ok(Outcome {
            output: if passed { String::new() } else { wrote(&file)? },
            test,
            passed,
        })
    });
    let outcomes: Vec<Outcome> = outcomes.collect::<anyhow::Result<_>>()?;
    ensure!(
        ended.status.success() || outcomes.iter().any(|o| !o.passed),
        "the driver failed, and no test did: {}\n{said}",
        ended.status
    );
    Ok(outcomes)
}

fn wrote(file: &Path) -> anyhow::Result<String> {
    let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The verdicts in what a driver prints: `test NAME ... ok`, and `NAME ... FAILED` in groups; from 16
/// on TAP, `ok 1 - NAME`, and `not ok 2 + NAME` in groups.
fn parse(text: &str) -> Vec<(String, bool)> {
    text.lines().filter_map(verdict).collect()
}

fn verdict(line: &str) -> Option<(String, bool)> {
    let tap = match (line.strip_prefix("ok "), line.strip_prefix("not ok ")) {
        (Some(rest), _) => Some((rest, true)),
        (_, Some(rest)) => Some((rest, false)),
        _ => None,
    };
    if let Some((rest, passed)) = tap {
        let mut words = rest.split_whitespace();
        words.next()?.parse::<u32>().ok()?;
        let test = words.nth(1)?;
        return Some((test.to_owned(), passed));
    }
    let (test, result) = line.split_once(" ... ")?;
    let test = test.strip_prefix("test ").unwrap_or(test).trim();
    let passed = match result.split_whitespace().next()? {
        "ok" => true,
        // "failed (ignored)" too: whether it matters is decided by comparing.
        "FAILED" | "failed" => false,
        _ => return None,
    };
    Some((test.to_owned(), passed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(text: &str) -> Vec<(String, bool)> {
        parse(text)
    }

    fn named(expected: &[(&str, bool)]) -> Vec<(String, bool)> {
        let owned = expected
            .iter()
            .map(|(test, passed)| ((*test).to_owned(), *passed));
        owned.collect()
    }

    #[test]
    fn the_words_of_version_15_are_understood() {
        let text = "\
(using postmaster on 127.0.0.1, port 5433)
============== dropping database \"regression\"         ==============
test test_setup                   ... ok          262 ms
parallel group (3 tests):  copydml random copy
     copy                         ... FAILED      120 ms
     random                       ... failed (ignored)       70 ms
     copydml                      ... FAILED (test process exited with exit code 2)       21 ms
test tablespace                   ... ok          100 ms

=======================
 3 of 5 tests failed, 1 of these failures ignored.
";
        let expected = named(&[
            ("test_setup", true),
            ("copy", false),
            ("random", false),
            ("copydml", false),
            ("tablespace", true),
        ]);
        assert_eq!(verdicts(text), expected);
    }

    #[test]
    fn so_is_tap() {
        let text = "\
# using postmaster on 127.0.0.1, port 5433
ok 1         - test_setup                                307 ms
# parallel group (2 tests):  int4 boolean
ok 2         + boolean                                    63 ms
not ok 3     + int4                                       51 ms
# (test process exited with exit code 2)
1..3
";
        let expected = named(&[("test_setup", true), ("boolean", true), ("int4", false)]);
        assert_eq!(verdicts(text), expected);
    }
}
