//! The rows with a real PostgreSQL at the far end: pgbench and logins over a long way.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::process::Command;
use tokio::time::timeout;

use super::aws::db_token;
use super::figures::{Figure, Figures, Panel, Target, median};
use super::rivals::{BRIDGE, Contest, Programs};
use super::tunnel::{Plan, progress};
use crate::aws::agent::REAL_PACE;
use crate::database::front::FrontKind;
use crate::database::postgres::postgres18;
use crate::database::rds::Engine;
use crate::demo::{BASTION, DemoOptions, FarSide, HOST, READY_DEADLINE};
use crate::harness::program::{Proxy, clean_env};
use crate::network::link::Conditions;

/// Role and database that everybody logs in to.
pub(crate) const ROLE: &str = "db_user";
pub(crate) const DATABASE: &str = "app";
/// One-way delay of the long way.
const DELAY: Duration = Duration::from_millis(25);
/// Longest a client may take beyond the time it was told to run.
const DEADLINE: Duration = Duration::from_secs(60);

/// The stock plugin's figures with a real agent: transactions per second with one client and with
/// eight, and round trips of a login.
const PLUGIN_TPS: [f64; 2] = [530.0, 2_210.0];
const PLUGIN_ROUND_TRIPS: f64 = 5.5;

/// Reason for leaving out a login time.
const TOO_BUSY: &str = "logins with a delay took no longer than those without: the machine is too \
                        busy to measure them";

/// Share of the bound that has to be reached. Not all of it: client, agent and database share the
/// processors of one machine, and a transaction takes its time between two messages.
const SHARE_OF_BOUND: f64 = 0.7;

/// Transactions per second that the agent's pace allows. Each needs an answer, an answer a message,
/// and a client waits for it before it asks again: so no client can have more than a session has
/// messages, whoever carries them. Answers to several clients fit into one message.
fn bound(clients: u32) -> f64 {
    f64::from(clients) / REAL_PACE.as_secs_f64()
}

/// Measures them all. Only one that fails to begin is an error.
pub(crate) async fn measure(
    far_side: &FarSide,
    programs: Programs<'_>,
    plan: &Plan,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    prepare(far_side).await?;
    let goal = (HOST, far_side.database.endpoint().port);
    let contest = Contest::of_others(programs, &far_side.sandbox, goal).await?;
    let of_others = far_side.sandbox.open_sessions();
    let proxy = start_proxy(far_side, programs).await?;
    let rows = Rows {
        far_side,
        of_others,
        contest: &contest,
        proxy: &proxy,
        plan,
    };
    far_side.sandbox.agent(BASTION).set_pacing(true);
    for clients in [1, 8] {
        let target = Target::AtLeast((SHARE_OF_BOUND * bound(clients)).round());
        rows.transactions(clients, target, figures).await;
    }
    rows.logins(figures).await;
    let stopped = proxy.stop().await;
    contest.stop().await.and(stopped)
}

/// A new `pgiam serve` with an ordinary configuration.
pub(crate) async fn start_proxy(
    far_side: &FarSide,
    programs: Programs<'_>,
) -> anyhow::Result<Proxy> {
    let mut proxy = far_side.start_proxy(&DemoOptions {
        pgiam: programs.pgiam.to_owned(),
        port: Some(0),
        check: true,
    })?;
    proxy.wait_ready(READY_DEADLINE).await?;
    Ok(proxy)
}

/// Makes the tables of pgbench.
pub(crate) async fn prepare(far_side: &FarSide) -> anyhow::Result<()> {
    let postgres = far_side.database.postgres();
    let mut pgbench = Command::new(postgres.bindir().join("pgbench"));
    clean_env(&mut pgbench, &["PG"]);
    pgbench
        .args(["-i", "-q", "-s", "1", "-U", "postgres"])
        .arg("-h")
        .arg(postgres.socket_dir())
        .args(["-p", &postgres.addr().port().to_string(), DATABASE]);
    output_of(pgbench, DEADLINE).await?;
    let grant = format!("grant select on all tables in schema public to {ROLE}");
    postgres.psql_admin_in(DATABASE, &grant).await?;
    Ok(())
}

/// Whose way a client takes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Pgiam,
    Bridge,
    Plugin,
}

struct Rows<'a> {
    far_side: &'a FarSide,
    /// Sessions that were open before ours.
    of_others: Vec<String>,
    contest: &'a Contest,
    proxy: &'a Proxy,
    plan: &'a Plan,
}

impl Rows<'_> {
    async fn transactions(&self, clients: u32, target: Target, figures: &mut Figures) {
        let measure = match clients {
            1 => "pgbench -S -M prepared, 1 client, agent's pace (tps)".to_owned(),
            _ => format!("the same, {clients} clients (tps)"),
        };
        progress(&measure);
        let measured = async {
            let mut tps = [vec![], vec![], vec![]];
            let ways = [Way::Pgiam, Way::Bridge, Way::Plugin];
            for round in 0..=self.plan.pgbench_rounds {
                for (way, tps) in ways.into_iter().zip(&mut tps) {
                    if way == Way::Plugin && self.contest.plugin.is_none() {
                        continue;
                    }
                    // The first round warms caches, tokens and sessions up and does not count.
                    let seconds = if round == 0 {
                        1
                    } else {
                        self.plan.pgbench_seconds
                    };
                    let figure = self.pgbench(way, clients, seconds).await?;
                    if round > 0 {
                        tps.push(figure);
                    }
                }
            }
            anyhow::Ok(tps)
        };
        match measured.await {
            Ok([ours, bridge, plugin]) => {
                let reference = PLUGIN_TPS[usize::from(clients > 1)];
                let plugin = if plugin.is_empty() {
                    reference
                } else {
                    median(plugin)
                };
                let (messages, bound) = (bound(1), bound(clients));
                let sessions = self.sessions_of_ours();
                let label = if clients == 1 {
                    "1 client"
                } else {
                    "8 clients"
                };
                let figure = Figure::new(&measure, median(ours), target)
                    .panel(Panel::Transactions, label)
                    .beside(median(bridge), BRIDGE)
                    .plugin(Some(plugin))
                    .note(format!(
                        "sessions used: {sessions}; the agent's pace lets {messages:.0} messages \
                         per second through each, so {clients} clients can have {bound:.0} \
                         transactions, of which the target is {:.0} %",
                        SHARE_OF_BOUND * 100.0,
                    ));
                figures.add(figure);
            }
            Err(error) => figures.add_failure(&measure, &error),
        }
    }

    fn sessions_of_ours(&self) -> usize {
        sessions_besides(self.far_side, &self.of_others)
    }

    async fn logins(&self, figures: &mut Figures) {
        let measure = "psql login, 50 ms round trip, session open (round trips)";
        progress(measure);
        let link = self.far_side.sandbox.link();
        let measured = async {
            let near = self.login_times().await?;
            let conditions = Conditions {
                delay: DELAY,
                ..Conditions::default()
            };
            link.set(conditions, 1);
            let round_trip = 2.0 * timer_says(DELAY).await;
            let far = self.login_times().await?;
            anyhow::Ok((near, far, round_trip))
        };
        let measured = measured.await;
        link.clear();
        match measured {
            Ok((near, far, round_trip)) => {
                let of = |way: Way| {
                    let (near, far) = near[way as usize].zip(far[way as usize])?;
                    round_trips(near, far, round_trip).ok()
                };
                let ms = |times: &[Option<f64>; 3], way: Way| {
                    times[way as usize].map_or(0.0, |seconds| seconds * 1e3)
                };
                let [Some(ours), Some(bridge)] = [Way::Pgiam, Way::Bridge].map(of) else {
                    let why = anyhow::anyhow!("{TOO_BUSY}");
                    return figures.add_failure(measure, &why);
                };
                let figure = Figure::new(measure, ours, Target::AtMost(3.2))
                    .panel(Panel::Logins, "TLS after an SSLRequest")
                    .beside(bridge, BRIDGE)
                    .plugin(of(Way::Plugin).or(Some(PLUGIN_ROUND_TRIPS)))
                    .note(format!(
                        "connect and ReadyForQuery, no query: {:.0} ms without delay and {:.0} ms \
                         with a round trip of {:.1} ms; {BRIDGE} {:.0} and {:.0} ms: it waits for \
                         delayed acknowledgements even without delay",
                        ms(&near, Way::Pgiam),
                        ms(&far, Way::Pgiam),
                        round_trip * 1e3,
                        ms(&near, Way::Bridge),
                        ms(&far, Way::Bridge),
                    ));
                figures.add(figure);
            }
            Err(error) => figures.add_failure(measure, &error),
        }
    }

    /// Median seconds of a login each way, in the order of [`Way`].
    async fn login_times(&self) -> anyhow::Result<[Option<f64>; 3]> {
        let mut medians = [None; 3];
        for way in [Way::Pgiam, Way::Bridge, Way::Plugin] {
            if way == Way::Plugin && self.contest.plugin.is_none() {
                continue;
            }
            let mut times = vec![];
            for number in 0..=self.plan.logins {
                let mut psql = Command::new(self.far_side.psql());
                self.direct(&mut psql, way)?;
                let seconds = login(psql).await?;
                if number > 0 {
                    times.push(seconds);
                }
            }
            medians[way as usize] = Some(median(times));
        }
        Ok(medians)
    }

    async fn pgbench(&self, way: Way, clients: u32, seconds: u64) -> anyhow::Result<f64> {
        let bindir = self.far_side.database.postgres().bindir();
        let mut pgbench = Command::new(bindir.join("pgbench"));
        self.direct(&mut pgbench, way)?;
        pgbench.args(["-n", "-S", "-M", "prepared"]).args([
            "-c",
            &clients.to_string(),
            "-j",
            &clients.min(2).to_string(),
            "-T",
            &seconds.to_string(),
        ]);
        let output = output_of(pgbench, DEADLINE + Duration::from_secs(seconds)).await?;
        tps_of(&output).with_context(|| format!("no tps in {output}"))
    }

    /// Lets a libpq program go this way: ours as its user calls it, without a password; the others
    /// with a fresh token for one, in TLS that ends at the server.
    fn direct(&self, command: &mut Command, way: Way) -> anyhow::Result<()> {
        through(command, self.proxy);
        let door = match way {
            Way::Pgiam => return Ok(()),
            Way::Bridge => self.contest.bridge()?,
            Way::Plugin => self.contest.plugin()?.context("there is no plugin")?,
        };
        let sandbox = &self.far_side.sandbox;
        let ca_file = sandbox.pki().ca_pem_path();
        command
            .env("PGHOST", HOST)
            .env("PGHOSTADDR", door.address.ip().to_string())
            .env("PGPORT", door.address.port().to_string())
            .env("PGSSLMODE", "verify-full")
            .env("PGSSLROOTCERT", ca_file)
            .env(
                "PGPASSWORD",
                db_token(sandbox.user(), self.far_side.database.endpoint(), ROLE),
            );
        Ok(())
    }
}

/// Round trips of a login, from its seconds without and with a delay.
///
/// # Errors
/// When the delay does not show.
fn round_trips(near: f64, far: f64, round_trip: f64) -> anyhow::Result<f64> {
    let trips = (far - near) / round_trip;
    ensure!(trips.is_finite() && trips > 0.0, TOO_BUSY);
    Ok(trips)
}

/// Open sessions that are none of these. A plugin that is killed leaves its own open.
pub(crate) fn sessions_besides(far_side: &FarSide, others: &[String]) -> usize {
    let open = far_side.sandbox.open_sessions();
    open.iter().filter(|id| !others.contains(id)).count()
}

/// Logins at a server that takes TLS without an SSLRequest; left out where there is none.
pub(crate) async fn measure_direct_tls(
    programs: Programs<'_>,
    plan: &Plan,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let measure = "the same, a database that takes direct TLS (round trips)";
    let eighteen = match postgres18() {
        Ok(eighteen) => eighteen,
        Err(error) => {
            progress(&format!("left out: {measure}: {error:#}"));
            return Ok(());
        }
    };
    progress(measure);
    let far_side = FarSide::with(Engine::Front {
        kind: FrontKind::Instance,
        direct: true,
        bindir: Some(eighteen.bindir()),
    })
    .await?;
    let measured = async {
        let proxy = start_proxy(&far_side, programs).await?;
        let near = median_login(&far_side, &proxy, plan).await?;
        let conditions = Conditions {
            delay: DELAY,
            ..Conditions::default()
        };
        far_side.sandbox.link().set(conditions, 1);
        let round_trip = 2.0 * timer_says(DELAY).await;
        let far = median_login(&far_side, &proxy, plan).await?;
        proxy.stop().await?;
        let note = format!(
            "connect and ReadyForQuery, no query: {:.0} ms without delay and {:.0} ms with a round \
             trip of {:.1} ms",
            near * 1e3,
            far * 1e3,
            round_trip * 1e3
        );
        let trips = round_trips(near, far, round_trip)?;
        let figure = Figure::new(measure, trips, Target::AtMost(2.2)).note(note);
        figures.add(figure.panel(Panel::Logins, "direct TLS (PostgreSQL 18)"));
        anyhow::Ok(())
    };
    let measured = measured.await;
    far_side.sandbox.link().clear();
    measured.and(far_side.stop().await)
}

/// Median seconds of our logins; the first ones, in which the server is got to know, do not count.
async fn median_login(far_side: &FarSide, proxy: &Proxy, plan: &Plan) -> anyhow::Result<f64> {
    let mut times = vec![];
    for number in 0..=plan.logins + 1 {
        let mut psql = Command::new(far_side.psql());
        through(&mut psql, proxy);
        let seconds = login(psql).await?;
        if number > 1 {
            times.push(seconds);
        }
    }
    Ok(median(times))
}

/// Lets a libpq program go through the proxy as its user calls it.
fn through(command: &mut Command, proxy: &Proxy) {
    clean_env(command, &["PG"]);
    command
        .env("PGPASSFILE", "/nonexistent")
        .env("PGSERVICEFILE", "/dev/null")
        .env("PGUSER", ROLE)
        .env("PGDATABASE", DATABASE)
        .env("PGHOST", "localhost")
        .env("PGPORT", proxy.port().to_string())
        .env("LC_ALL", "C");
}

/// Seconds in which psql logs in and leaves.
async fn login(mut psql: Command) -> anyhow::Result<f64> {
    psql.args(["-X", "-w", "-c", "\\q"]);
    let began = Instant::now();
    output_of(psql, DEADLINE).await?;
    Ok(began.elapsed().as_secs_f64())
}

/// Seconds the timer takes for `time`: the link's delays come from the same one.
async fn timer_says(time: Duration) -> f64 {
    let mut taken = vec![];
    for _ in 0..9 {
        let began = Instant::now();
        tokio::time::sleep(time).await;
        taken.push(began.elapsed().as_secs_f64());
    }
    median(taken)
}

/// Standard output of a program that succeeds in time.
pub(crate) async fn output_of(mut command: Command, limit: Duration) -> anyhow::Result<String> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let name = command.as_std().get_program().display().to_string();
    let output = timeout(limit, command.output())
        .await
        .with_context(|| format!("{name} took longer than {limit:?}"))?
        .with_context(|| name.clone())?;
    ensure!(
        output.status.success(),
        "{name} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The figure of the line `tps = 693.1 (without initial connection time)`.
pub(crate) fn tps_of(output: &str) -> Option<f64> {
    let line = output.lines().find(|line| line.starts_with("tps = "))?;
    line.split_ascii_whitespace().nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_target_lies_above_what_the_pace_allows() {
        let rounded = [1, 8].map(|clients| bound(clients).round().to_string());
        assert_eq!(rounded, ["694", "5556"]);
        assert!(SHARE_OF_BOUND * bound(8) < bound(8));
    }

    #[test]
    fn a_delay_that_does_not_show_is_no_measurement() {
        assert_eq!(
            round_trips(0.1, 0.25, 0.05).unwrap().round().to_string(),
            "3"
        );
        for (near, far, round_trip) in [(0.84, 0.5, 0.05), (0.1, 0.1, 0.05), (0.1, 0.2, 0.0)] {
            let failed = round_trips(near, far, round_trip).unwrap_err();
            assert!(failed.to_string().contains("too busy"), "{failed}");
        }
    }

    #[test]
    fn the_figure_of_pgbench_is_found() {
        let output = "latency average = 1.442 ms\ntps = 693.25 (without initial connection time)\n";
        assert_eq!(tps_of(output), Some(693.25));
        assert_eq!(tps_of("tps"), None);
    }
}
