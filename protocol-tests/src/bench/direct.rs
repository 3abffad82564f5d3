//! `sandbox bench direct`: `via = "direct"` beside other programs that add TLS between a client and
//! the same PostgreSQL server.
//!
//! All programs, the server and the clients share the processors of one machine: only the ratios of
//! one run are to be compared. The paths take turns, in the opposite order in every second round.

mod paths;

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::process::{Child, Command};
use tokio::time::sleep;

use super::circumstances::Circumstances;
use super::database::{output_of, tps_of};
use super::figures::{markdown, median, short};
use super::page::Section;
use super::plot::{Bar, Group, Plot, Shape};
use super::process::{cpu_time, resident};
use super::tunnel::progress;
use crate::demo::{Signals, say};
use paths::{DATABASE, Paths, ROLE, Way};

/// Time that a program may take beyond the time it was told to run.
const DEADLINE: Duration = Duration::from_secs(120);
/// Numbers of clients of the transactions.
const CLIENTS: [u32; 3] = [1, 8, 64];
/// Clients that log in, each again and again.
const LOGIN_CLIENTS: u32 = 4;
/// Connected sockets in the kernel's table while clients log in.
const SOCKETS: [usize; 2] = [0, 8_000];
/// Bytes of a copy in each direction, in MB of 1,000,000.
const COPY_MB: u32 = 200;
/// Connections that do nothing: those before the memory is read first, and those after.
const IDLE_BEFORE: u32 = 50;
const IDLE: u32 = 100;

/// Options of the command line.
#[derive(Debug, Clone)]
pub struct DirectOptions {
    /// The `pgiam` binary.
    pub pgiam: PathBuf,
    /// Fewer and shorter rounds: about two minutes.
    pub quick: bool,
    /// Folder of the documents that get the table and plots.
    pub docs: Option<PathBuf>,
}

impl DirectOptions {
    fn rounds(&self) -> usize {
        if self.quick { 3 } else { 5 }
    }

    /// Seconds of a round.
    fn seconds(&self) -> u64 {
        if self.quick { 2 } else { 5 }
    }

    fn command(&self) -> String {
        let quick = if self.quick { " --quick" } else { "" };
        format!("./dev bench direct{quick}")
    }
}

/// Measures and prints, and writes the table and plots if asked to.
///
/// # Errors
/// If a program is missing, does not start, or fails.
pub async fn run(options: DirectOptions) -> anyhow::Result<()> {
    let mut signals = Signals::install()?;
    let circumstances = Circumstances::look(&options.pgiam).await?;
    progress("starting a PostgreSQL server, stunnel, PgBouncer and pgiam");
    let paths = Paths::start(&options.pgiam).await?;
    let versions = paths.versions().await?;
    let outcome = tokio::select! {
        outcome = measure(&paths, &options) => outcome,
        name = signals.next() => Err(anyhow::anyhow!("{name} before the end")),
    };
    let stopped = paths.stop().await;
    let rows = outcome?;
    stopped?;
    say(&format!("\n{}", table(&rows)))?;
    let Some(docs) = &options.docs else {
        return Ok(());
    };
    let command = options.command();
    let circumstances = circumstances.paragraphs(&command, &versions).await?;
    section(&rows, &options, circumstances).write(docs)
}

/// One measure on all paths.
struct Row {
    measure: String,
    /// In the order of [`Way::ALL`]; empty where it cannot be measured.
    results: [Vec<f64>; 4],
    /// Required ratio of pgiam to another path.
    target: Option<(Limit, Way)>,
    panel: Option<Panel>,
}

#[derive(Clone, Copy)]
enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

#[derive(Clone, Copy, PartialEq)]
enum Panel {
    Transactions,
    ProcessorTime,
}

impl Row {
    fn new(measure: String) -> Self {
        Self {
            measure,
            results: Default::default(),
            target: None,
            panel: None,
        }
    }

    fn target(mut self, limit: Limit, beside: Way) -> Self {
        self.target = Some((limit, beside));
        self
    }

    fn panel(mut self, panel: Panel) -> Self {
        self.panel = Some(panel);
        self
    }

    fn of(&self, way: Way) -> Option<f64> {
        let results = &self.results[way as usize];
        (!results.is_empty()).then(|| median(results.clone()))
    }

    fn cells(&self) -> [String; 7] {
        let none = || "–".to_owned();
        let cell = |way: Way| {
            let results = &self.results[way as usize];
            let least = results.iter().copied().fold(f64::INFINITY, f64::min);
            let most = results.iter().copied().fold(0.0, f64::max);
            let spread = match results.len() {
                0 | 1 => String::new(),
                _ => format!(" ({}–{})", short(least), short(most)),
            };
            self.of(way)
                .map_or_else(none, |middle| short(middle) + &spread)
        };
        let ratio = |beside: Way| Some(self.of(Way::Pgiam)? / self.of(beside)?);
        let [direct, stunnel, pgbouncer, pgiam] = Way::ALL.map(cell);
        let (ratio, target) = match self.target {
            None => (none(), none()),
            Some((limit, beside)) => {
                let (sign, bound) = match limit {
                    Limit::AtLeast(bound) => ("≥", bound),
                    Limit::AtMost(bound) => ("≤", bound),
                };
                let ratio = ratio(beside);
                let reached = ratio.is_some_and(|ratio| match limit {
                    Limit::AtLeast(bound) => ratio >= bound,
                    Limit::AtMost(bound) => ratio <= bound,
                });
                let reached = if reached { "yes" } else { "no" };
                (
                    ratio.map_or_else(none, |ratio| format!("{ratio:.2} × {}", beside.name())),
                    format!("{sign} {bound} ×: {reached}"),
                )
            }
        };
        [
            self.measure.clone(),
            direct,
            stunnel,
            pgbouncer,
            pgiam,
            ratio,
            target,
        ]
    }
}

fn table(rows: &[Row]) -> String {
    let [direct, stunnel, pgbouncer, pgiam] = Way::ALL.map(|way| way.name().to_owned());
    let measure = "measure: median (range)".to_owned();
    let head = [
        measure,
        direct,
        stunnel,
        pgbouncer,
        pgiam,
        "pgiam is".to_owned(),
        "target".to_owned(),
    ];
    let rows = rows.iter().map(Row::cells);
    markdown(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

fn section(rows: &[Row], options: &DirectOptions, circumstances: Vec<String>) -> Section {
    let plot = |panel: Panel, name: &str, title: &str, unit: &str| {
        let rows = rows.iter().filter(|row| row.panel == Some(panel));
        let groups = rows.map(|row| Group {
            label: row.measure.clone(),
            bars: [Way::Pgiam, Way::PgBouncer, Way::Stunnel, Way::Direct]
                .into_iter()
                .filter_map(|way| {
                    let (name, value) = (way.name().to_owned(), row.of(way)?);
                    Some(Bar { name, value })
                })
                .collect(),
        });
        Plot {
            name: name.to_owned(),
            title: title.to_owned(),
            shape: Shape::Bars {
                unit: unit.to_owned(),
                groups: groups.collect(),
            },
        }
    };
    Section {
        name: "direct",
        title: "Direct mode".to_owned(),
        circumstances,
        table: table(rows),
        notes: vec![
            format!(
                "Each program verifies the server's certificate and name; its clients connect \
                 without TLS, and the server asks for a password within TLS. {} rounds, the paths \
                 in turns",
                options.rounds()
            ),
            "Transactions: `pgbench -S -M prepared`; logins: the same with `-C`. PgBouncer keeps \
             its connections to the server, so its logins are not comparable"
                .to_owned(),
            format!(
                "Memory: growth from {IDLE_BEFORE} connections that do nothing to {IDLE} more, per \
                 connection"
            ),
            "Processor time: of the program alone, as counted by the kernel".to_owned(),
        ],
        plots: vec![
            plot(
                Panel::Transactions,
                "transactions",
                "Transactions per second",
                "tps",
            ),
            plot(
                Panel::ProcessorTime,
                "processor",
                "Processor time per transaction (less is better)",
                "µs",
            ),
        ],
    }
}

async fn measure(paths: &Paths, options: &DirectOptions) -> anyhow::Result<Vec<Row>> {
    prepare(paths).await?;
    let bench = Bench { paths, options };
    let mut rows = vec![];
    for clients in CLIENTS {
        rows.extend(bench.transactions(clients).await?);
    }
    rows.extend(bench.copies().await?);
    for sockets in SOCKETS {
        rows.extend(bench.logins(sockets).await?);
    }
    rows.extend(bench.memory().await?);
    Ok(rows)
}

async fn prepare(paths: &Paths) -> anyhow::Result<()> {
    let postgres = &paths.postgres;
    let mut pgbench = Command::new(postgres.bindir().join("pgbench"));
    crate::harness::program::clean_env(&mut pgbench, &["PG"]);
    let port = postgres.addr().port().to_string();
    pgbench
        .args(["-i", "-q", "-s", "1", "-U", "postgres", "-p", &port, "-h"])
        .arg(postgres.socket_dir())
        .arg(DATABASE);
    output_of(pgbench, DEADLINE).await?;
    let rows = COPY_MB * 10_000; // 100 bytes each, in COPY's text format.
    let sql = format!(
        "create table lines as select lpad(i::text, 9, '0') as id, repeat(md5(i::text), 2) || 'xxxxxxxxxxxxxxxxxxxxxxxxx' as line from generate_series(1, {rows}) i; \
         create unlogged table lines_in (like lines); \
         grant usage on schema public to {ROLE}; \
         grant all on all tables in schema public to {ROLE};"
    );
    postgres.psql_admin_in(DATABASE, &sql).await?;
    Ok(())
}

struct Bench<'a> {
    paths: &'a Paths,
    options: &'a DirectOptions,
}

/// A measure and the processor time that it took.
struct Measured {
    result: f64,
    /// Microseconds per transaction, or seconds per GB.
    processor: Option<f64>,
}

impl Bench<'_> {
    /// Takes turns, in the opposite order in every second round. The first round does not count.
    async fn rounds(
        &self,
        what: &str,
        ways: &[Way],
        one: impl AsyncFn(Way) -> anyhow::Result<Measured>,
    ) -> anyhow::Result<[Row; 2]> {
        progress(what);
        let mut rows = [Row::new(what.to_owned()), Row::new(what.to_owned())];
        for round in 0..=self.options.rounds() {
            let mut order = ways.to_vec();
            if round % 2 == 1 {
                order.reverse();
            }
            for way in order {
                let measured = one(way).await.with_context(|| way.name())?;
                if round > 0 {
                    rows[0].results[way as usize].push(measured.result);
                    rows[1].results[way as usize].extend(measured.processor);
                }
            }
        }
        Ok(rows)
    }

    async fn transactions(&self, clients: u32) -> anyhow::Result<[Row; 2]> {
        let what = format!("{clients} clients, tps");
        let seconds = self.options.seconds().to_string();
        let one = async |way| {
            let count = clients.to_string();
            let threads = clients.min(2).to_string();
            let flags = [
                "-M", "prepared", "-c", &count, "-j", &threads, "-T", &seconds,
            ];
            self.pgbench(way, &flags).await
        };
        let [tps, mut processor] = self.rounds(&what, &Way::ALL, one).await?;
        let least = match clients {
            1 => 1.05,
            8 => 1.1,
            _ => 1.2,
        };
        processor.measure = format!("{clients} clients, processor time (µs per transaction)");
        Ok([
            tps.target(Limit::AtLeast(least), Way::PgBouncer)
                .panel(Panel::Transactions),
            processor
                .target(Limit::AtMost(0.95), Way::PgBouncer)
                .panel(Panel::ProcessorTime),
        ])
    }

    async fn pgbench(&self, way: Way, flags: &[&str]) -> anyhow::Result<Measured> {
        let mut pgbench = Command::new(self.paths.postgres.bindir().join("pgbench"));
        self.paths.through(&mut pgbench, way);
        pgbench.args(["-n", "-S"]).args(flags);
        let pid = self.paths.pid(way);
        let before = pid.map(cpu_time).transpose()?;
        let output = output_of(pgbench, DEADLINE).await?;
        let after = pid.map(cpu_time).transpose()?;
        let count = transactions_of(&output).with_context(|| format!("no count in {output}"))?;
        let processor = before
            .zip(after)
            .map(|(before, after)| (after - before).as_secs_f64() * 1e6 / count);
        Ok(Measured {
            result: tps_of(&output).with_context(|| format!("no tps in {output}"))?,
            processor,
        })
    }

    /// Copies out and in; the server compares the rows.
    async fn copies(&self) -> anyhow::Result<[Row; 4]> {
        let file = tempfile::NamedTempFile::new()?;
        let path = file.path().display().to_string();
        let one = async |way, words: &[String]| {
            let mut psql = Command::new(self.paths.postgres.psql_program());
            self.paths.through(&mut psql, way);
            psql.args(["-X", "-q"]);
            for word in words {
                psql.args(["-c", word]);
            }
            let pid = self.paths.pid(way);
            let before = pid.map(cpu_time).transpose()?;
            let began = Instant::now();
            output_of(psql, DEADLINE).await?;
            let took = began.elapsed().as_secs_f64();
            let after = pid.map(cpu_time).transpose()?;
            let gigabytes = f64::from(COPY_MB) / 1e3;
            let spent = before.zip(after).map(|(before, after)| after - before);
            anyhow::Ok(Measured {
                result: f64::from(COPY_MB) / took,
                processor: spent.map(|spent| spent.as_secs_f64() / gigabytes),
            })
        };
        let copy_out = [format!("\\copy lines to '{path}'")];
        let copy_in = [
            "truncate lines_in".to_owned(),
            format!("\\copy lines_in from '{path}'"),
        ];
        let out = async |way| one(way, &copy_out).await;
        let [out, mut out_processor] = self.rounds("COPY out, MB/s", &Way::ALL, out).await?;
        let back = async |way| one(way, &copy_in).await;
        let [back, mut back_processor] = self.rounds("COPY in, MB/s", &Way::ALL, back).await?;
        let differing = "select count(*) from (table lines except all table lines_in) d";
        let differing = self
            .paths
            .postgres
            .psql_admin_in(DATABASE, differing)
            .await?;
        ensure!(
            differing.trim() == "0",
            "{differing} rows differ after the copies"
        );
        "COPY out, processor time (s per GB)".clone_into(&mut out_processor.measure);
        "COPY in, processor time (s per GB)".clone_into(&mut back_processor.measure);
        let out_processor = out_processor.target(Limit::AtMost(0.95), Way::PgBouncer);
        let back_processor = back_processor.target(Limit::AtMost(0.95), Way::PgBouncer);
        Ok([out, out_processor, back, back_processor])
    }

    async fn logins(&self, sockets: usize) -> anyhow::Result<[Row; 2]> {
        let _crowd = Crowd::connect(sockets / 2)?;
        let what = format!("logins per second, {LOGIN_CLIENTS} clients, {sockets} other sockets");
        let seconds = self.options.seconds().to_string();
        let one = async |way| {
            let count = LOGIN_CLIENTS.to_string();
            self.pgbench(way, &["-C", "-c", &count, "-j", "2", "-T", &seconds])
                .await
        };
        let [logins, mut processor] = self.rounds(&what, &Way::ALL, one).await?;
        "the same, processor time (µs per login)".clone_into(&mut processor.measure);
        Ok([logins.target(Limit::AtLeast(0.92), Way::Direct), processor])
    }

    /// Memory of idle connections, in plain TCP and in TLS to pgiam.
    async fn memory(&self) -> anyhow::Result<[Row; 2]> {
        let mut rows = ["plain", "TLS"]
            .map(|kind| Row::new(format!("memory per idle connection, {kind} (KB)")));
        for (row, tls) in rows.iter_mut().zip([false, true]) {
            progress(&row.measure);
            for way in [Way::Stunnel, Way::Pgiam] {
                if let Some(pid) = self.paths.pid(way).filter(|_| !tls || way == Way::Pgiam) {
                    let grown = self.memory_of(way, pid, tls).await?;
                    row.results[way as usize].push(grown);
                }
            }
        }
        Ok(rows)
    }

    async fn memory_of(&self, way: Way, pid: u32, tls: bool) -> anyhow::Result<f64> {
        let script = tempfile::NamedTempFile::new()?;
        std::fs::write(script.path(), "\\sleep 600 s\n")?;
        // Those of the measurement before have to be gone. PgBouncer keeps some.
        sleep(Duration::from_secs(2)).await;
        let others = self.open_at_server().await?;
        // The first ones also pay for what all connections share.
        let _first = self
            .idle_clients(way, tls, script.path(), IDLE_BEFORE, others + IDLE_BEFORE)
            .await?;
        let before = resident(pid)?;
        let all = others + IDLE_BEFORE + IDLE;
        let _others = self
            .idle_clients(way, tls, script.path(), IDLE, all)
            .await?;
        Ok((resident(pid)? - before) * 1e3 / f64::from(IDLE))
    }

    /// Opens `clients` connections, and waits until the server has `all`.
    async fn idle_clients(
        &self,
        way: Way,
        tls: bool,
        script: &Path,
        clients: u32,
        all: u32,
    ) -> anyhow::Result<Child> {
        let mut pgbench = Command::new(self.paths.postgres.bindir().join("pgbench"));
        self.paths.through(&mut pgbench, way);
        if tls {
            // With a root certificate, libpq would verify pgiam's own one.
            pgbench
                .env("PGSSLMODE", "require")
                .env_remove("PGSSLROOTCERT");
        }
        let pgbench = pgbench
            .args(["-n", "-c", &clients.to_string(), "-t", "1", "-f"])
            .arg(script)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let began = Instant::now();
        loop {
            let open = self.open_at_server().await?;
            if open >= all {
                break;
            }
            ensure!(
                began.elapsed() < DEADLINE,
                "only {open} connections are open"
            );
            sleep(Duration::from_millis(100)).await;
        }
        // The last login has just ended.
        sleep(Duration::from_secs(1)).await;
        Ok(pgbench)
    }

    /// Connections of the clients' role at the server.
    async fn open_at_server(&self) -> anyhow::Result<u32> {
        let count = format!("select count(*) from pg_stat_activity where usename = '{ROLE}'");
        let open = self.paths.postgres.psql_admin(&count).await?;
        Ok(open.trim().parse()?)
    }
}

/// Connected sockets of this process, for the kernel's tables.
struct Crowd {
    _sockets: Vec<(TcpStream, TcpStream)>,
}

impl Crowd {
    fn connect(pairs: usize) -> anyhow::Result<Self> {
        let needed = u64::try_from(pairs)? * 2 + 256;
        let (limit, most) =
            nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?;
        if limit < needed {
            let raised = needed.min(most);
            nix::sys::resource::setrlimit(
                nix::sys::resource::Resource::RLIMIT_NOFILE,
                raised,
                most,
            )?;
        }
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let connect = |_| {
            let near = TcpStream::connect(address)?;
            anyhow::Ok((near, listener.accept()?.0))
        };
        let sockets = (0..pairs).map(connect).collect::<anyhow::Result<_>>()?;
        Ok(Self { _sockets: sockets })
    }
}

/// The figure of the line `number of transactions actually processed: 7`.
fn transactions_of(output: &str) -> Option<f64> {
    let prefix = "number of transactions actually processed: ";
    let count = output.lines().find_map(|line| line.strip_prefix(prefix))?;
    count.split('/').next()?.trim().parse().ok()
}
