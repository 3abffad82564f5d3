//! `libpq_pipeline`: pipeline mode, judged by itself and by libpq's trace of all messages.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::process::Command;

use super::world::World;
use super::{Outcome, process};

const PROGRAM: &str = "libpq_pipeline";
const DEADLINE: Duration = Duration::from_secs(120);
/// Rows that tests with a trace insert, as in PostgreSQL's own run of them.
const TRACED_ROWS: &str = "700";

/// "libpq 18" for a directory with `libpq.so.5.18`.
pub(super) fn libpq_name(dir: &Path) -> String {
    let names = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut minors = names.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_prefix("libpq.so.5.").map(str::to_owned)
    });
    match minors.next() {
        Some(minor) => format!("libpq {minor}"),
        None => format!("libpq of {}", dir.display()),
    }
}

/// Runs all tests the program knows, with the system's libpq or the one in `libpq`.
pub(super) async fn run(world: &World, libpq: Option<&Path>) -> anyhow::Result<Vec<Outcome>> {
    let mut list = program(world, libpq);
    list.arg("tests");
    let list = process::run(list, DEADLINE).await?;
    let tests: Vec<&str> = list.stdout.split_whitespace().collect();
    ensure!(
        !tests.is_empty(),
        "{PROGRAM} knows no tests: {}",
        list.stderr
    );
    let mut outcomes = Vec::new();
    for test in tests {
        let outcome = run_one(world, libpq, test).await;
        outcomes.push(outcome.with_context(|| format!("{PROGRAM} {test}"))?);
    }
    Ok(outcomes)
}

fn program(world: &World, libpq: Option<&Path>) -> Command {
    let mut command = world.client(&world.program(PROGRAM));
    if let Some(dir) = libpq {
        command.env("LD_LIBRARY_PATH", dir);
    }
    command
}

async fn run_one(world: &World, libpq: Option<&Path>, test: &str) -> anyhow::Result<Outcome> {
    let (host, port, user) = world.address();
    let mut command = program(world, libpq);
    let trace = world.dir().join(format!("{test}.trace"));
    // The others write what depends on how the bytes happen to arrive.
    let traced = world.is_traced(test);
    if traced {
        command.args(["-r", TRACED_ROWS, "-t"]).arg(&trace);
    }
    command.arg(test).arg(format!(
        "host={host} port={port} user={user} dbname=postgres"
    ));
    let ended = process::run(command, DEADLINE).await?;
    let passed = ended.status.success();
    let mut output = String::new();
    if traced && trace.is_file() {
        output = fs::read_to_string(&trace).context("reading the trace")?;
        fs::remove_file(&trace)?;
        ensure!(!output.is_empty() || !passed, "the trace is empty");
    }
    if !passed {
        output.push_str(&ended.stderr);
    }
    Ok(Outcome {
        test: test.to_owned(),
        passed,
        output,
    })
}
