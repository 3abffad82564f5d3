//! `sandbox aws`: the AWS side by itself, for people who point a client at it and for containers.
//!
//! With a directory of its own it writes everything there that a client in another container needs:
//! `ca.pem` and `public-ca.pem`, the AWS files `config` and `credentials`, and last of all `env`,
//! whose presence says that the sandbox answers.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::aws::events::Event;
use crate::aws::iam::DbEndpoint;
use crate::aws::roles::Role;
use crate::aws::sandbox::{DEFAULT_TARGET, Sandbox};
use crate::database::front::{FrontKind, FrontOptions, Groups, RdsFront};
use crate::demo::{Signals, say};
use crate::harness::pki::Validity;

/// How files begin that may be overwritten.
const OWN: &str = "# Made by the sandbox of pgiam; worth nothing elsewhere.\n";
/// The file with the lines of [`Sandbox::env`].
const ENV_FILE: &str = "env";
/// The file with the credentials that an independent agent signs with, one variable a line.
const AGENT_FILE: &str = "agent.env";

/// A name and port of the private network, and what is really there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Name in the private network.
    pub host: String,
    /// Port in the private network.
    pub port: u16,
    /// `NAME:PORT` or `ADDRESS:PORT` outside of it.
    pub real: String,
}

impl FromStr for Route {
    type Err = &'static str;

    /// Reads `NAME:PORT=HOST:PORT`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (name, real) = text.split_once('=')?;
            let (host, port) = name.rsplit_once(':')?;
            let (real_host, real_port) = real.rsplit_once(':')?;
            real_port.parse::<u16>().ok()?;
            let named = !host.is_empty() && !real_host.is_empty();
            named.then_some(Self {
                host: host.to_ascii_lowercase(),
                port: port.parse().ok()?,
                real: real.to_owned(),
            })
        };
        parse().ok_or("expected NAME:PORT=HOST:PORT")
    }
}

impl Route {
    /// The address behind [`Self::real`], as it is now.
    async fn address(&self) -> anyhow::Result<SocketAddr> {
        let found = tokio::net::lookup_host(&self.real).await;
        let mut found = found.with_context(|| format!("looking up {}", self.real))?;
        found
            .next()
            .with_context(|| format!("{} has no address", self.real))
    }
}

/// What was asked for on the command line.
#[derive(Debug, Clone)]
pub struct StandingOptions {
    /// Region of the account.
    pub region: String,
    /// Port of all services; 0 is any free one.
    pub port: u16,
    /// Where to write files; `None` is a temporary directory.
    pub dir: Option<PathBuf>,
    /// Where to listen; `None` is loopback.
    pub listen: Option<IpAddr>,
    /// Further names the sandbox is reached by.
    pub names: Vec<String>,
    /// Names of the private network that lead straight to what is there.
    pub routes: Vec<Route>,
    /// Endpoints of RDS, each before a server without TLS that lets the sandbox in unasked.
    pub databases: Vec<Route>,
    /// Send at the real agent's speed.
    pub pacing: bool,
    /// Let the races of a fast link come up in a share of the sessions.
    pub races: bool,
    /// Leave the node to an independent agent.
    pub external_agent: bool,
}

impl Default for StandingOptions {
    fn default() -> Self {
        Self {
            region: "eu-central-1".to_owned(),
            port: 0,
            dir: None,
            listen: None,
            names: Vec::new(),
            routes: Vec::new(),
            databases: Vec::new(),
            pacing: true,
            races: true,
            external_agent: false,
        }
    }
}

/// Runs until somebody says stop.
///
/// # Errors
/// When something does not start; the text says what and why.
pub async fn run(options: StandingOptions) -> anyhow::Result<()> {
    let mut signals = Signals::install()?;
    let external_agent = options.external_agent;
    let standing = Standing::start(options).await?;
    say(&standing.invitation())?;
    let announced = async {
        for nth in 1.. {
            let line = standing.session(nth).await;
            if external_agent && say(&line).is_err() {
                break; // Nobody listens any more.
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = signals.next() => {}
        () = announced => {}
    }
    standing.stop().await;
    Ok(())
}

/// The AWS side with its databases.
pub struct Standing {
    fronts: Vec<RdsFront>,
    sandbox: Sandbox,
    /// Serial number of the first user's MFA device.
    mfa_serial: String,
}

impl Standing {
    /// Starts it and writes the files.
    ///
    /// # Errors
    /// When something does not start, or when the directory holds AWS files of somebody's.
    pub async fn start(options: StandingOptions) -> anyhow::Result<Self> {
        if let Some(dir) = &options.dir {
            clear(dir)?;
        }
        let mut builder = Sandbox::builder()
            .region(&options.region)
            .port(options.port);
        if let Some(dir) = &options.dir {
            builder = builder.dir(dir);
        }
        if let Some(address) = options.listen {
            builder = builder.listen(address);
        }
        builder = options.names.iter().fold(builder, |b, name| b.name(name));
        let sandbox = builder.start().await?;
        let agent = sandbox.agent(DEFAULT_TARGET);
        agent.set_pacing(options.pacing);
        if !options.races {
            agent.set_races(false);
        }
        agent.update(|s| s.external = options.external_agent);
        sandbox.inventory().add_bastion();
        for route in &options.routes {
            let real = route.address().await?;
            sandbox.vpc().open(&route.host, route.port, real);
        }
        let mut fronts = Vec::new();
        for database in &options.databases {
            fronts.push(start_database(&sandbox, database).await?);
        }
        let mfa_serial = sandbox.mfa().enable(&sandbox.user().arn);
        let mut role = Role::new(&role_arn(&sandbox));
        role.requires_mfa = true;
        sandbox.roles().add(role);
        let standing = Self {
            fronts,
            sandbox,
            mfa_serial,
        };
        standing.write_files(options.external_agent)?;
        Ok(standing)
    }

    /// The account.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// What listens at the endpoints, in the order they were asked for.
    pub fn fronts(&self) -> &[RdsFront] {
        &self.fronts
    }

    /// Stops everything. Files in a directory that was asked for stay, but `env` does not: nothing
    /// answers any more.
    pub async fn stop(self) {
        // There may be none.
        _ = std::fs::remove_file(self.sandbox.dir().join(ENV_FILE));
        drop(self.fronts);
        self.sandbox.shutdown().await;
    }

    /// Waits for the `nth` session, counted from 1, and says what an agent has to know of it:
    /// `session ID NODE HOST PORT`.
    pub async fn session(&self, nth: usize) -> String {
        let is_start = |event: &Event| matches!(event, Event::StartSession { .. });
        loop {
            let events = self.sandbox.events();
            let started = events.wait_for_nth(nth, is_start, Duration::MAX).await;
            if let Some(Event::StartSession {
                session_id,
                target,
                host,
                port,
                ..
            }) = started
            {
                return format!("session {session_id} {target} {host} {port}");
            }
        }
    }

    /// Lines for a shell.
    fn invitation(&self) -> String {
        let mut text = String::new();
        for (name, value) in self.sandbox.env() {
            // Writing to a string cannot fail.
            _ = writeln!(text, "export {name}={value}");
        }
        let seed = self.sandbox.mfa().seed(&self.mfa_serial);
        _ = writeln!(text, "# managed node: {DEFAULT_TARGET}");
        _ = writeln!(text, "# profiles to log in to: sso, and mfa with a code of");
        _ = writeln!(text, "#   sandbox code {}", seed.unwrap_or_default());
        _ = write!(text, "# Ctrl-C ends");
        text
    }

    /// Every reader may run as a user of its own, so all of them can read; `env` appears whole.
    fn write_files(&self, external_agent: bool) -> anyhow::Result<()> {
        let sandbox = &self.sandbox;
        let dir = sandbox.dir();
        let user = sandbox.user();
        let credentials = format!(
            "{OWN}[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
            user.access_key_id, user.secret_access_key,
        );
        let mut env = OWN.to_owned();
        for (name, value) in sandbox.env() {
            // Writing to a string cannot fail.
            _ = writeln!(env, "{name}={value}");
        }
        let write = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
        };
        write("config", &self.config())?;
        write("credentials", &credentials)?;
        if external_agent {
            write(AGENT_FILE, &agent_env(sandbox))?;
        }
        write("env.new", &env)?;
        std::fs::rename(dir.join("env.new"), dir.join(ENV_FILE)).context("writing env")
    }

    /// The AWS file `config`: the first user's keys as `default`, and two profiles to log in to.
    fn config(&self) -> String {
        let sandbox = &self.sandbox;
        let region = sandbox.iam().region();
        let common = format!(
            "region = {region}\nendpoint_url = {}\nca_bundle = {}\n",
            sandbox.endpoint_url(),
            sandbox.pki().ca_pem_path().display(),
        );
        format!(
            "{OWN}[default]\n{common}\n\
             [profile sso]\nsso_session = sandbox\nsso_account_id = {}\n\
             sso_role_name = Developer\n{common}\n\
             [sso-session sandbox]\nsso_start_url = {}\nsso_region = {region}\n\
             sso_registration_scopes = sso:account:access\n\n\
             [profile mfa]\nrole_arn = {}\nsource_profile = default\nmfa_serial = {}\n{common}",
            sandbox.iam().account(),
            sandbox.identity_center().start_url(),
            role_arn(sandbox),
            self.mfa_serial,
        )
    }
}

/// The role that needs MFA.
fn role_arn(sandbox: &Sandbox) -> String {
    let (partition, account) = (sandbox.iam().partition().name, sandbox.iam().account());
    format!("arn:{partition}:iam::{account}:role/Admin")
}

async fn start_database(sandbox: &Sandbox, route: &Route) -> anyhow::Result<RdsFront> {
    let kind = FrontKind::of_host(&route.host);
    let pki = sandbox.pki();
    let certificate = pki.issue_with(&[&route.host], kind.signer(), Validity::Current)?;
    let endpoint = DbEndpoint {
        host: route.host.clone(),
        port: route.port,
        region: sandbox.iam().region().to_owned(),
    };
    let options = FrontOptions {
        kind,
        direct: true,
        endpoint,
        backend: route.address().await?,
        groups: Groups::default(),
        certificate: Some(certificate),
    };
    let front = RdsFront::start(options, sandbox.iam(), sandbox.events()).await?;
    sandbox.vpc().open(&route.host, route.port, front.addr());
    sandbox.inventory().furnish(&route.host, route.port);
    Ok(front)
}

/// Refuses a directory with AWS files that are not the sandbox's, as `~/.aws`, and takes the sign
/// away that an earlier sandbox has left.
fn clear(dir: &Path) -> anyhow::Result<()> {
    for name in ["config", "credentials"] {
        let path = dir.join(name);
        // An empty one is what a sandbox leaves that has not come far.
        let is_own = |text: &[u8]| text.is_empty() || text.starts_with(OWN.as_bytes());
        let strange = std::fs::read(&path).is_ok_and(|text| !is_own(&text));
        if strange {
            bail!(
                "{} is not the sandbox's; choose another directory",
                path.display()
            );
        }
    }
    match std::fs::remove_file(dir.join(ENV_FILE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {ENV_FILE} from {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// What an independent agent needs to sign and to attach.
fn agent_env(sandbox: &Sandbox) -> String {
    let role = sandbox.node_role();
    let token = role.session_token.as_deref().unwrap_or_default();
    format!(
        "{OWN}AWS_ENDPOINT_URL={}\nAWS_CA_BUNDLE={}\nAWS_REGION={}\nAWS_ACCESS_KEY_ID={}\n\
         AWS_SECRET_ACCESS_KEY={}\nAWS_SESSION_TOKEN={token}\n",
        sandbox.endpoint_url(),
        sandbox.pki().ca_pem_path().display(),
        sandbox.iam().region(),
        role.access_key_id,
        role.secret_access_key,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read() {
        let route: Route = "DB.internal:5432=postgres:5433".parse().unwrap();
        assert_eq!((route.host.as_str(), route.port), ("db.internal", 5432));
        assert_eq!(route.real, "postgres:5433");
        for wrong in [
            "",
            "db=postgres:1",
            "db:1=postgres",
            "db:x=a:1",
            ":1=a:1",
            "a:1=:1",
        ] {
            assert!(wrong.parse::<Route>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn files_of_others_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        clear(dir.path()).unwrap();
        std::fs::write(dir.path().join("credentials"), OWN).unwrap();
        std::fs::write(dir.path().join("env"), "").unwrap();
        clear(dir.path()).unwrap();
        assert!(!dir.path().join("env").exists());
        std::fs::write(dir.path().join("credentials"), "[default]\n").unwrap();
        assert!(clear(dir.path()).is_err());
    }
}
