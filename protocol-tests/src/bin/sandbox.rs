//! Runs the sandbox for people: `sandbox aws` and point any AWS client at it, or `sandbox demo` for
//! everything at once.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use protocol_tests::aws::mfa;
use protocol_tests::bench::direct::{self, DirectOptions};
use protocol_tests::bench::tunnel::{self, TunnelOptions};
use protocol_tests::bench::{self, BenchOptions};
use protocol_tests::demo::standing::{self, Route, StandingOptions};
use protocol_tests::demo::{self, DemoOptions};
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
    #[command(after_help = AWS_HELP)]
    Aws(Aws),
    /// Print the code that an MFA device shows now. The sandbox accepts each code once.
    Code {
        /// The device's seed, as `sandbox aws` prints it.
        seed: String,
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
struct Aws {
    /// Region of the account.
    #[arg(long, default_value = "eu-central-1")]
    region: String,
    /// Local port of all services (0: any free one).
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Write the files for clients here and leave them, instead of below a temporary directory.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Listen at this address instead of at loopback; in a container 0.0.0.0.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<IpAddr>,
    /// A name the sandbox is reached by, besides localhost. Its URLs have the first one.
    #[arg(long, value_name = "HOST")]
    name: Vec<String>,
    /// Let a host name of the private network lead to a listener outside of it.
    #[arg(long, value_name = "NAME:PORT=HOST:PORT")]
    route: Vec<Route>,
    /// Play the RDS endpoint NAME:PORT before the PostgreSQL server at HOST:PORT.
    #[arg(long, value_name = "NAME:PORT=HOST:PORT")]
    database: Vec<Route>,
    /// Send as fast as possible instead of at the real agent's 0.7 MB/s.
    #[arg(long)]
    no_pacing: bool,
    /// Leave out the races of a fast link, in which the agent loses the first bytes of a session.
    /// Clients other than pgiam may hang on them.
    #[arg(long)]
    no_races: bool,
    /// Leave the node to an agent of your own, which attaches at /v1/data-channel/SESSION. Each
    /// session is announced on standard output as "session SESSION NODE HOST PORT".
    #[arg(long)]
    external_agent: bool,
}

const AWS_HELP: &str = "\
--dir holds, under names that stay: ca.pem (signs AWS and the databases), public-ca.pem (signs RDS \
Proxies and Aurora DSQL), the AWS files config (with the profiles sso and mfa, to log in to) and \
credentials, and env with the AWS_* variables, \
one a line. env is written last and removed at the end: while it is there, the sandbox answers. \
The paths in it are those of this machine, so another container mounts the directory at the same \
place. With --external-agent there is agent.env as well, the credentials of the node's role.

--external-agent: for each session the agent sends POST /v1/data-channel/SESSION with the JSON \
{MessageSchemaVersion, RequestId, ClientId}, signed for ssmmessages with the role's credentials. The \
answer is 201 with TokenValue in XML. Then it opens a WebSocket on the same path with \
?role=publish_subscribe, signed as well, and sends the open message with ClientInstanceId and the \
token. From there on binary messages are relayed as they are.

--database ends TLS with a certificate for NAME, has IAM tokens judged as RDS does, and hands the \
connection on; NAME resolves on the bastion, and the database is in the lists of RDS (an Aurora \
cluster if it is called ….cluster-…, an RDS Proxy if ….proxy-…, else an instance). The server \
listens without TLS and lets in without a password, from the sandbox's address, whoever is to have \
a token, for example with this line in its pg_hba.conf:

    host all +rds_iam all trust";

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
    /// Write the tables to benchmarks.md in this folder, with plots.
    #[arg(long, value_name = "DIR", overrides_with = "docs")]
    docs: Option<PathBuf>,
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
        /// Measure for less than six minutes instead of less than thirty.
        #[arg(long)]
        quick: bool,
        /// Measure only the rows of the relay, and write nothing.
        #[arg(long)]
        relay_only: bool,
        /// Write the tables to benchmarks.md in this folder, with plots.
        #[arg(long, value_name = "DIR", overrides_with = "docs")]
        docs: Option<PathBuf>,
    },
    /// Measure direct mode beside PgBouncer and stunnel, and print a table.
    Direct(Direct),
}

/// Options of `bench direct`.
#[derive(Args)]
struct Direct {
    /// The pgiam binary; a release build for figures that mean something.
    #[arg(long, value_name = "PATH")]
    pgiam: PathBuf,
    /// Measure for two minutes instead of five.
    #[arg(long)]
    quick: bool,
    /// Write the tables to benchmarks.md in this folder, with plots.
    #[arg(long, value_name = "DIR", overrides_with = "docs")]
    docs: Option<PathBuf>,
}

const PLUGIN_HELP: &str = "\
With --plugin the program is started as the AWS CLI starts it, on a session of the sandbox. It \
trusts the sandbox through SSL_CERT_FILE, which its TLS reads on Linux only. Without --plugin the \
table shows what was once measured with it and a real agent.";

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
        Command::Aws(aws) => {
            standing::run(StandingOptions {
                region: aws.region,
                port: aws.port,
                dir: aws.dir,
                listen: aws.listen,
                names: aws.name,
                routes: aws.route,
                databases: aws.database,
                pacing: !aws.no_pacing,
                races: !aws.no_races,
                external_agent: aws.external_agent,
            })
            .await
        }
        Command::Code { seed } => {
            let code = mfa::current_code(&seed).context("this is no seed in Base32")?;
            Ok(writeln!(std::io::stdout(), "{code}")?)
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
                relay_only,
                docs,
            }),
            _,
        ) => {
            tunnel::run(TunnelOptions {
                pgiam,
                bridge,
                plugin,
                quick,
                relay_only,
                docs,
            })
            .await
        }
        (Some(Bench::Direct(Direct { pgiam, quick, docs })), _) => {
            direct::run(DirectOptions { pgiam, quick, docs }).await
        }
        (
            None,
            Some(Straight {
                pgiam,
                megabytes,
                docs,
            }),
        ) => {
            bench::run(BenchOptions {
                pgiam,
                megabytes,
                docs,
            })
            .await
        }
        (None, None) => anyhow::bail!("bench needs --pgiam PATH"),
    }
}
