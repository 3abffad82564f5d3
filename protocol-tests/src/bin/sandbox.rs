//! Runs the sandbox for people: `sandbox aws` and point any AWS client at it, or `sandbox demo` for
//! everything at once.
#![expect(
    clippy::print_stdout,
    reason = "a command line program talks on stdout"
)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use protocol_tests::bench::tunnel::{self, TunnelOptions};
use protocol_tests::bench::{self, BenchOptions};
use protocol_tests::demo::{self, DemoOptions};
use protocol_tests::sandbox::Sandbox;
use protocol_tests::suites::{self, SuitesOptions};
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
#[command(name = "sandbox", about = "A local stand-in for AWS Session Manager")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the AWS side and print the lines to export; ends with Ctrl-C.
    Aws {
        /// Region of the account.
        #[arg(long, default_value = "eu-central-1")]
        region: String,
        /// Local port of all services (0: any free one).
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// Let a host name of the private network lead to a local listener:
        /// `NAME:PORT=127.0.0.1:PORT`.
        #[arg(long, value_name = "NAME:PORT=ADDR", value_parser = parse_route)]
        route: Vec<Route>,
        /// Send as fast as possible instead of at the real agent's 0.7 MB/s.
        #[arg(long)]
        no_pacing: bool,
    },
    /// Start everything, a real PostgreSQL server and the real pgiam included, and print what to
    /// paste; ends with Ctrl-C and leaves nothing behind.
    Demo {
        /// The pgiam binary.
        #[arg(long, value_name = "PATH")]
        pgiam: PathBuf,
        /// Local port of pgiam. Default: 5433, and any free one with --check.
        #[arg(long)]
        port: Option<u16>,
        /// Run one query through the whole way, print what each hop did, and end.
        #[arg(long)]
        check: bool,
    },
    /// Measure pgiam beside a plain connection to the same server.
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Bench {
        #[command(subcommand)]
        what: Option<Bench>,
        #[command(flatten)]
        straight: Option<Straight>,
    },
    /// Run PostgreSQL's own tests through pgiam, and compare with the same tests run directly.
    Suites(Suites),
}

#[derive(Args)]
struct Suites {
    /// The pgiam binary.
    #[arg(long, value_name = "PATH")]
    pgiam: PathBuf,
    /// What judges/postgres-suites/prepare has made.
    #[arg(long, value_name = "DIR")]
    suites: PathBuf,
    /// Run all tests instead of the chosen ones, on both ways.
    #[arg(long)]
    full: bool,
    /// Run everything directly too, even if nothing failed through pgiam.
    #[arg(long)]
    direct: bool,
    /// Leave the reports of pg_regress here; what is there is removed.
    #[arg(long, value_name = "DIR")]
    reports: PathBuf,
    /// Run the pipeline tests with the libpq in this directory as well.
    #[arg(long, value_name = "DIR")]
    libpq: Vec<PathBuf>,
}

#[derive(Args)]
struct Straight {
    /// The pgiam binary; a release build for figures that mean something.
    #[arg(long, value_name = "PATH")]
    pgiam: PathBuf,
    /// Megabytes to copy each way without pacing.
    #[arg(long, default_value_t = 50)]
    megabytes: u32,
}

#[derive(Subcommand)]
enum Bench {
    /// Measure the tunnel beside other clients of Session Manager, and print a table.
    #[command(after_help = PLUGIN_HELP)]
    Tunnel {
        /// The pgiam binary; a release build for figures that mean something.
        #[arg(long, value_name = "PATH")]
        pgiam: PathBuf,
        /// The bridge-forward binary, which `./dev judges` builds.
        #[arg(long, value_name = "PATH")]
        bridge: PathBuf,
        /// Amazon's session-manager-plugin, to be measured as well.
        #[arg(long, value_name = "PATH")]
        plugin: Option<PathBuf>,
        /// Measure for less than four minutes instead of less than twenty.
        #[arg(long)]
        quick: bool,
    },
}

const PLUGIN_HELP: &str = "\
With --plugin the program is started as the AWS CLI starts it, on a session of the sandbox. It \
trusts the sandbox through SSL_CERT_FILE, which its TLS reads on Linux only. Without --plugin the \
table shows what was once measured with it and a real agent.";

#[derive(Clone)]
struct Route {
    host: String,
    port: u16,
    real: std::net::SocketAddr,
}

fn parse_route(text: &str) -> Result<Route, String> {
    let parse = || {
        let (name, real) = text.split_once('=')?;
        let (host, port) = name.rsplit_once(':')?;
        Some(Route {
            host: host.to_owned(),
            port: port.parse().ok()?,
            real: real.parse().ok()?,
        })
    };
    parse().ok_or_else(|| "expected NAME:PORT=ADDRESS:PORT".to_owned())
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match run(Cli::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing can be done when even that fails.
            _ = writeln!(std::io::stderr(), "sandbox: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Aws {
            region,
            port,
            route,
            no_pacing,
        } => {
            let sandbox = Sandbox::builder()
                .region(&region)
                .port(port)
                .start()
                .await?;
            for route in route {
                sandbox.vpc().open(&route.host, route.port, route.real);
            }
            let target = protocol_tests::sandbox::DEFAULT_TARGET;
            sandbox.agent(target).set_pacing(!no_pacing);
            for (name, value) in sandbox.env() {
                println!("export {name}={value}");
            }
            println!("# managed node: {target}; Ctrl-C ends");
            let kind = tokio::signal::unix::SignalKind::terminate();
            let mut terminate = tokio::signal::unix::signal(kind)?;
            tokio::select! {
                interrupted = tokio::signal::ctrl_c() => interrupted?,
                _ = terminate.recv() => {}
            }
            sandbox.shutdown().await;
            Ok(())
        }
        Command::Bench { what, straight } => measure(what, straight).await,
        Command::Demo { pgiam, port, check } => demo::run(DemoOptions { pgiam, port, check }).await,
        Command::Suites(Suites {
            pgiam,
            suites,
            full,
            direct,
            reports,
            libpq,
        }) => {
            suites::run(SuitesOptions {
                pgiam,
                suites,
                full,
                direct: direct || full,
                reports,
                libpq,
            })
            .await
        }
    }
}

async fn measure(what: Option<Bench>, straight: Option<Straight>) -> anyhow::Result<()> {
    match (what, straight) {
        (
            Some(Bench::Tunnel {
                pgiam,
                bridge,
                plugin,
                quick,
            }),
            _,
        ) => {
            tunnel::run(TunnelOptions {
                pgiam,
                bridge,
                plugin,
                quick,
            })
            .await
        }
        (None, Some(Straight { pgiam, megabytes })) => {
            bench::run(BenchOptions { pgiam, megabytes }).await
        }
        (None, None) => anyhow::bail!("bench needs --pgiam PATH"),
    }
}
