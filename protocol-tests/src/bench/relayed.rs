//! The rows of `pgiam relay`: one connection over several sessions, beside the same without it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::process::Command;
use tokio::time::timeout;

use super::aws::db_token;
use super::blast::{self, Blast};
use super::database::{DATABASE, ROLE, output_of, tps_of};
use super::figures::{Figure, Figures, Target, median, rate};
use super::forwarder::{self, Forwarder, loopback_port};
use super::process::cpu_time;
use super::tunnel::{Plan, progress};
use crate::demo::{BASTION, FarSide, HOST};
use crate::harness::program::{Launch, Proxy, clean_env};
use crate::network::link::Conditions;

/// Name of the service behind the bastion.
const GOAL: &str = "blast.internal";
/// Longest a single transfer or client may take.
const DEADLINE: Duration = Duration::from_secs(120);
/// Bytes per session before a measurement: all sessions are open then.
const WARM_UP: u64 = 2 << 20;
/// Sessions of the rows with a database.
const MOST: u16 = 16;
/// One-way delay of the rows over a distance: a round trip of 10 ms.
const DELAY: Duration = Duration::from_millis(5);
/// What one session without a relay is called.
const WITHOUT: &str = "without a relay";

/// Measures them all. Only one that fails to begin is an error.
pub(crate) async fn measure(
    far_side: &FarSide,
    pgiam: &Path,
    plan: &Plan,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let sandbox = &far_side.sandbox;
    let blast = Blast::start().await?;
    let goal = blast.address().port();
    sandbox.vpc().open(GOAL, goal, blast.address());
    let database = far_side.database.addr();
    sandbox.vpc().open(HOST, database.port(), database);
    let allowed = [
        format!("{GOAL}:{goal}"),
        format!("{HOST}:{}", database.port()),
    ];
    let relay = start_relay(pgiam, &allowed).await?;
    sandbox.vpc().open(
        "localhost",
        relay.port(),
        ([127, 0, 0, 1], relay.port()).into(),
    );
    sandbox.agent(BASTION).set_pacing(true);
    let rows = Rows {
        far_side,
        pgiam,
        plan,
        relay: &relay,
    };
    let copies = rows.copies(goal, figures).await;
    let queries = rows.queries(database.port(), figures).await;
    let stopped = relay.stop().await;
    copies.and(queries).and(stopped)
}

async fn start_relay(pgiam: &Path, allowed: &[String; 2]) -> anyhow::Result<Proxy> {
    let mut args = ["relay", "--port", "0"].map(Into::into).to_vec();
    for (allow, name) in allowed.iter().zip([GOAL, HOST]) {
        args.extend(["--allow".into(), allow.into()]);
        args.extend(["--resolve".into(), format!("{name}=127.0.0.1").into()]);
    }
    let mut relay = Proxy::start(Launch {
        pgiam,
        args,
        env: Vec::new(),
        collect_log: true,
    })?;
    relay.wait_ready(Duration::from_secs(30)).await?;
    Ok(relay)
}

struct Rows<'a> {
    far_side: &'a FarSide,
    pgiam: &'a Path,
    plan: &'a Plan,
    relay: &'a Proxy,
}

impl Rows<'_> {
    /// `pgiam tunnel` over so many sessions of the relay, or without it.
    async fn tunnel(&self, to: &str, sessions: Option<u16>) -> anyhow::Result<Forwarder> {
        let mut command = forwarder::command(self.pgiam, &self.far_side.sandbox);
        command
            .args(["tunnel", to, "--bastion", BASTION])
            .args(["--listen", "127.0.0.1:0"]);
        if let Some(sessions) = sessions {
            command.arg(format!("--relay={}", self.relay.port()));
            command.args(["--sessions", &sessions.to_string()]);
        }
        let ready = |line: &str| line.starts_with("ready").then(|| loopback_port(line))?;
        Forwarder::start(command, ready).await
    }

    /// Downloads of one connection.
    async fn copies(&self, goal: u16, figures: &mut Figures) -> anyhow::Result<()> {
        let to = format!("{GOAL}:{goal}");
        let size = self.plan.paced_bytes;
        let without = self.tunnel(&to, None).await?;
        download(&without, WARM_UP).await?;
        let mut alone = Vec::new();
        for sessions in [1, 8, MOST] {
            let measure =
                format!("relay: download, 1 connection, {sessions} sessions, agent's pace (MB/s)");
            progress(&measure);
            let size_here = size * u64::from(sessions);
            let tunnel = self.tunnel(&to, Some(sessions)).await?;
            // Twice: further sessions are opened while a stream is limited.
            for _ in 0..2 {
                download(&tunnel, WARM_UP * u64::from(sessions)).await?;
            }
            let relay = self.relay.pid().context("the relay has ended")?;
            let client = tunnel.pid().context("pgiam has ended")?;
            let before = [cpu_time(client)?, cpu_time(relay)?];
            let mut rates = Vec::new();
            for _ in 0..self.plan.rounds {
                alone.push(download(&without, size).await?);
                rates.push(download(&tunnel, size_here).await?);
            }
            let moved = rate(
                size_here * u64::from(self.plan.rounds),
                Duration::from_secs(1),
            ) / 1e3;
            let used = |pid: u32, before: Duration| -> anyhow::Result<f64> {
                Ok((cpu_time(pid)? - before).as_secs_f64() / moved)
            };
            let [of_client, of_relay] = [used(client, before[0])?, used(relay, before[1])?];
            tunnel.stop().await?;
            let target = match sessions {
                1 => Target::Stated,
                8 => Target::Ratio(7.5),
                _ => Target::Ratio(14.0),
            };
            let figure = Figure::new(&measure, median(rates), target)
                .beside(median(alone.clone()), WITHOUT)
                .note(format!(
                    "processor time per GB: {of_client:.1} s of pgiam, {of_relay:.1} s of the relay"
                ));
            figures.add(figure);
        }
        without.stop().await
    }

    /// Clients of a database.
    async fn queries(&self, port: u16, figures: &mut Figures) -> anyhow::Result<()> {
        let to = format!("{HOST}:{port}");
        let without = self.tunnel(&to, None).await?;
        let relayed = self.tunnel(&to, Some(MOST)).await?;
        self.dump(&without, &relayed, figures).await?;
        let link = self.far_side.sandbox.link();
        for (round_trip, share) in [(0, 1.5), (10, 0.95)] {
            let measure = format!(
                "relay: pgbench -S -M prepared, 1 client, {MOST} sessions, {round_trip} ms (tps)"
            );
            progress(&measure);
            if round_trip > 0 {
                let conditions = Conditions {
                    delay: DELAY,
                    ..Conditions::default()
                };
                link.set(conditions, 1);
            }
            let mut tps = [vec![], vec![]];
            for round in 0..=self.plan.pgbench_rounds {
                for (tunnel, tps) in [&relayed, &without].into_iter().zip(&mut tps) {
                    let figure = self.pgbench(tunnel).await?;
                    tps.extend((round > 0).then_some(figure));
                }
            }
            let [ours, alone] = tps.map(median);
            let target = Target::Ratio(share);
            figures.add(Figure::new(&measure, ours, target).beside(alone, WITHOUT));
        }
        link.clear();
        self.overtaking(&relayed, figures).await?;
        relayed.stop().await?;
        without.stop().await
    }

    async fn pgbench(&self, tunnel: &Forwarder) -> anyhow::Result<f64> {
        let mut pgbench = self.client("pgbench", tunnel);
        let seconds = self.plan.pgbench_seconds.to_string();
        pgbench.args(["-n", "-S", "-M", "prepared", "-c", "1", "-T", &seconds]);
        let output = output_of(pgbench, DEADLINE).await?;
        tps_of(&output).with_context(|| format!("no tps in {output}"))
    }

    /// Four tables at the same time. Opens all sessions to the relay for the later rows.
    async fn dump(
        &self,
        without: &Forwarder,
        relayed: &Forwarder,
        figures: &mut Figures,
    ) -> anyhow::Result<()> {
        let measure = format!("relay: pg_dump -j4, {MOST} sessions, agent's pace (MB/s)");
        progress(&measure);
        let rows = self.plan.paced_bytes * u64::from(MOST) / 4 / 1_000;
        for table in ["one", "two", "three", "four"] {
            let sql = format!(
                "create table {table} as select repeat(md5(i::text), 31) t from generate_series(1, {rows}) i; \
                 grant select on {table} to {ROLE}"
            );
            let postgres = self.far_side.database.postgres();
            postgres.psql_admin_in(DATABASE, &sql).await?;
        }
        let mut rates = Vec::new();
        for _ in 0..=self.plan.rounds {
            rates.push(
                self.dumped(relayed, &["-n", "public", "-T", "pgbench*"])
                    .await?,
            );
        }
        // The first one opened the sessions.
        rates.remove(0);
        let alone = self.dumped(without, &["-t", "one"]).await?;
        let figure = Figure::new(&measure, median(rates), Target::Ratio(14.0))
            .beside(alone, "one table through one session");
        figures.add(figure);
        Ok(())
    }

    /// MB/s of a dump of these tables.
    async fn dumped(&self, tunnel: &Forwarder, tables: &[&str]) -> anyhow::Result<f64> {
        let folder = tempfile::tempdir()?;
        let dump = folder.path().join("dump");
        let mut command = self.client("pg_dump", tunnel);
        command
            .args(["-Fd", "-j4", "-Z0"])
            .args(tables)
            .arg("-f")
            .arg(&dump);
        let began = Instant::now();
        output_of(command, DEADLINE).await?;
        let took = began.elapsed();
        let mut size = 0;
        for entry in std::fs::read_dir(&dump)? {
            size += entry?.metadata()?.len();
        }
        Ok(rate(size, took))
    }

    /// A small query every 20 ms beside a large result.
    async fn overtaking(&self, relayed: &Forwarder, figures: &mut Figures) -> anyhow::Result<()> {
        let measure = "relay: a query beside a bulk copy, 99th percentile (ms)";
        progress(measure);
        let folder = tempfile::tempdir()?;
        let prefix = folder.path().join("log");
        let mut pgbench = self.client("pgbench", relayed);
        pgbench
            .args([
                "-n",
                "-S",
                "-c",
                "1",
                "-R",
                "50",
                "-T",
                "6",
                "-l",
                "--log-prefix",
            ])
            .arg(&prefix);
        let mut copy = self.client("psql", relayed);
        copy.args(["-X", "-q", "-o", "/dev/null", "-c"])
            .arg("copy (select repeat(md5(i::text), 31) from generate_series(1, 10000000) i) to stdout")
            .kill_on_drop(true);
        let mut bulk = copy.spawn()?;
        let output = output_of(pgbench, DEADLINE).await;
        bulk.start_kill()?;
        bulk.wait().await?;
        output?;
        let mut times = Vec::new();
        for entry in std::fs::read_dir(folder.path())? {
            let text = std::fs::read_to_string(entry?.path())?;
            // Client, number, microseconds from the scheduled begin, and more.
            times.extend(text.lines().filter_map(|line| {
                let micros: f64 = line.split(' ').nth(2)?.parse().ok()?;
                Some(micros / 1e3)
            }));
        }
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        let figure = Figure::new(measure, at(0.99), Target::AtMost(30.0)).note(format!(
            "{} queries, median {:.1} ms",
            times.len(),
            at(0.5)
        ));
        figures.add(figure);
        Ok(())
    }

    /// A libpq program through a tunnel, with a fresh token and TLS to the server.
    fn client(&self, program: &str, tunnel: &Forwarder) -> Command {
        let FarSide { sandbox, database } = self.far_side;
        let mut command = Command::new(database.postgres().bindir().join(program));
        clean_env(&mut command, &["PG"]);
        command
            .env("PGPASSFILE", "/nonexistent")
            .env("PGSERVICEFILE", "/dev/null")
            .env("PGUSER", ROLE)
            .env("PGDATABASE", DATABASE)
            .env("PGHOST", HOST)
            .env("PGHOSTADDR", "127.0.0.1")
            .env("PGPORT", tunnel.address().port().to_string())
            .env("PGSSLMODE", "verify-full")
            .env("PGSSLROOTCERT", sandbox.pki().ca_pem_path())
            .env(
                "PGPASSWORD",
                db_token(sandbox.user(), database.endpoint(), ROLE),
            )
            .env("LC_ALL", "C");
        command
    }
}

/// MB/s of one download, from the connect to the last byte; every byte is compared.
async fn download(tunnel: &Forwarder, size: u64) -> anyhow::Result<f64> {
    let work = blast::download(tunnel.address(), size);
    let time = timeout(DEADLINE, work).await;
    let time = time.with_context(|| format!("{size} bytes took longer than {DEADLINE:?}"))??;
    Ok(rate(size, time))
}
