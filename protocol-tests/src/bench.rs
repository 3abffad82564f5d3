//! `sandbox bench`: figures of the program beside a plain connection to the same server, in one run.
//!
//! Absolute numbers say more about the machine than about the program; the ratios are what to
//! compare. The agent's pace is the real one's where the table says so.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::process::Command;

use crate::database::postgres::SCRAM_PASSWORD;
use crate::demo::{BASTION, DemoOptions, FarSide, HOST, READY_DEADLINE, Signals, say};
use crate::harness::program;
use crate::harness::program::Proxy;
use circumstances::Circumstances;
use copies::Results;

mod aws;
pub mod blast;
mod circumstances;
mod copies;
mod database;
pub mod direct;
mod figures;
pub mod forwarder;
mod idle;
mod page;
mod plot;
mod process;
mod raw;
mod relayed;
mod rivals;
pub mod tunnel;

/// Longest a single measurement may take.
const DEADLINE: Duration = Duration::from_secs(600);
/// Logins per side; the middle one counts.
const LOGINS: usize = 21;
/// Open connections of the memory measurement.
const CONNECTIONS: usize = 50;
/// Bytes copied with the agent's real pace: about 10 s worth.
const PACED_MB: u32 = 7;

/// What was asked for on the command line.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// The `pgiam` binary.
    pub pgiam: PathBuf,
    /// Megabytes (of 1,000,000 bytes) to copy each way without pacing.
    pub megabytes: u32,
    /// Folder of the documents that get the tables and plots.
    pub docs: Option<PathBuf>,
}

/// Measures and prints, and writes the tables and plots if asked to.
///
/// # Errors
/// When something does not start, a copy fails, or the bytes differ.
pub async fn run(options: BenchOptions) -> anyhow::Result<()> {
    let mut signals = Signals::install()?;
    let circumstances = Circumstances::look(&options.pgiam).await?;
    let far_side = FarSide::start().await?;
    let others = format!("PostgreSQL {}", far_side.database.postgres().version());
    // A signal drops the measurement, and with it the program; the rest is stopped in order.
    let outcome = tokio::select! {
        outcome = measure(&far_side, &options) => outcome,
        name = signals.next() => Err(anyhow::anyhow!("{name} before the end")),
    };
    let stopped = far_side.stop().await;
    let results = outcome?;
    stopped?;
    let Some(docs) = &options.docs else {
        return Ok(());
    };
    let command = format!("./dev bench --megabytes {}", options.megabytes);
    let circumstances = circumstances.paragraphs(&command, &others).await?;
    results.section(circumstances).write(docs)
}

async fn measure(far_side: &FarSide, options: &BenchOptions) -> anyhow::Result<Results> {
    prepare(far_side, options.megabytes).await?;
    let launch = DemoOptions {
        pgiam: options.pgiam.clone(),
        port: Some(0),
        check: true,
    };
    let mut proxy = far_side.start_proxy(&launch)?;
    proxy.wait_ready(READY_DEADLINE).await?;
    let outcome = Bench {
        far_side,
        proxy: &proxy,
    }
    .all(options.megabytes)
    .await;
    let stopped = proxy.stop().await;
    let results = outcome?;
    stopped?;
    Ok(results)
}

/// A table of rows like a log's, and an empty one of the same shape; both ways may use them.
async fn prepare(far_side: &FarSide, megabytes: u32) -> anyhow::Result<()> {
    for (name, megabytes) in [("bench", megabytes), ("bench_paced", PACED_MB)] {
        let rows = u64::from(megabytes) * 10_000; // 100 bytes each, in COPY's text format.
        let sql = format!(
            "create table {name} as select lpad(i::text, 9, '0') as id, md5(i::text) || md5((-i)::text) || \
             substr(md5((i * 7)::text), 1, 25) as line from generate_series(1, {rows}) i; \
             create table {name}_in (like {name}); \
             grant all on {name}, {name}_in to db_user, scram_only;"
        );
        far_side
            .database
            .postgres()
            .psql_admin_in("app", &sql)
            .await?;
    }
    far_side
        .database
        .postgres()
        .psql_admin_in("app", "grant usage on schema public to scram_only")
        .await?;
    Ok(())
}

struct Bench<'a> {
    far_side: &'a FarSide,
    proxy: &'a Proxy,
}

/// Which way a client goes.
#[derive(Clone, Copy)]
enum Way {
    /// TLS straight to the server, which only this bench can.
    Straight,
    /// As a user does.
    Proxy,
}

impl Bench<'_> {
    async fn all(&self, megabytes: u32) -> anyhow::Result<Results> {
        let idle = self.resident()?;
        let agent = self.far_side.sandbox.agent(BASTION);

        agent.set_pacing(false);
        let logins = [
            self.logins(Way::Straight).await?,
            self.logins(Way::Proxy).await?,
        ];
        let unpaced = [
            self.copies("bench", megabytes, Way::Straight).await?,
            self.copies("bench", megabytes, Way::Proxy).await?,
        ];

        agent.set_pacing(true);
        let paced = self.copies("bench_paced", PACED_MB, Way::Proxy).await?;

        agent.set_pacing(false);
        let crowded = self.resident_with_connections().await?;
        let results = Results {
            logins,
            unpaced,
            paced,
            resident: [idle, crowded],
        };
        say(&format!("\n{}\n  {}", results.text(), results.memory()))?;
        Ok(results)
    }

    fn psql(&self, way: Way) -> Command {
        let psql = self.far_side.psql();
        let mut command = program::psql(&psql, self.proxy.port());
        if matches!(way, Way::Straight) {
            let address = self.far_side.database.addr();
            let ca_file = self
                .far_side
                .sandbox
                .pki()
                .ca_pem_path()
                .display()
                .to_string();
            command.env("PGPASSWORD", SCRAM_PASSWORD).args([
                "-d",
                &format!(
                    "host={HOST} hostaddr={} port={} user=scram_only dbname=app sslmode=verify-full sslrootcert={ca_file}",
                    address.ip(),
                    address.port()
                ),
            ]);
        }
        command
    }

    /// Milliseconds of each login, the shortest first.
    async fn logins(&self, way: Way) -> anyhow::Result<Vec<f64>> {
        let mut times = Vec::new();
        for _ in 0..LOGINS {
            let mut command = self.psql(way);
            command.args(["-q", "-A", "-t", "-c", "select 1"]);
            times.push(timed(command).await?.as_secs_f64() * 1e3);
        }
        times.sort_unstable_by(f64::total_cmp);
        Ok(times)
    }

    /// MB/s out and in; what came out is what goes in, and the server compares.
    async fn copies(&self, name: &str, megabytes: u32, way: Way) -> anyhow::Result<[f64; 2]> {
        let file = self.far_side.sandbox.dir().join(format!("{name}.copy"));
        let mut out = self.psql(way);
        out.args(["-q", "-o"])
            .arg(&file)
            .args(["-c", &format!("copy {name} to stdout")]);
        let out = timed(out).await?;
        let length = std::fs::metadata(&file)?.len();
        ensure!(
            length == u64::from(megabytes) * 1_000_000,
            "COPY out wrote {length} bytes"
        );

        let mut back = self.psql(way);
        back.args(["-q", "-c", &format!("truncate {name}_in"), "-c"]);
        back.arg(format!("\\copy {name}_in from '{}'", file.display()));
        let back = timed(back).await?;
        let differing = format!("select count(*) from (table {name} except all table {name}_in) d");
        let differing = self
            .far_side
            .database
            .postgres()
            .psql_admin_in("app", &differing)
            .await?;
        ensure!(
            differing.trim() == "0",
            "{differing} rows differ after the copies"
        );
        std::fs::remove_file(&file)?;
        Ok([out, back].map(|time| f64::from(megabytes) / time.as_secs_f64()))
    }

    /// Resident memory of the program, MB.
    fn resident(&self) -> anyhow::Result<f64> {
        process::resident(self.proxy.pid().context("pgiam has ended")?)
    }

    async fn resident_with_connections(&self) -> anyhow::Result<f64> {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut command = self.psql(Way::Proxy);
            command
                .args(["-q", "-c", "select pg_sleep(120)"])
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            clients.push(command.spawn()?);
        }
        let sleeping = "select count(*) from pg_stat_activity where query like 'select pg_sleep%'";
        let began = Instant::now();
        loop {
            let asleep = self
                .far_side
                .database
                .postgres()
                .psql_admin(sleeping)
                .await?;
            if asleep.trim() == CONNECTIONS.to_string() {
                break;
            }
            ensure!(
                began.elapsed() < DEADLINE,
                "only {asleep} connections are open"
            );
        }
        let resident = self.resident();
        for client in &mut clients {
            client.kill().await?;
        }
        resident
    }
}

async fn timed(mut command: Command) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let output = tokio::time::timeout(DEADLINE, command.output())
        .await
        .context("a measurement took too long")??;
    ensure!(
        output.status.success(),
        "psql failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(began.elapsed())
}
