//! Who takes part in `bench tunnel`: pgiam, aws-ssm-bridge, and Amazon's own session-manager-plugin
//! where somebody has it.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use super::aws::start_session;
use super::forwarder::{Forwarder, command};
use crate::aws::sandbox::Sandbox;
use crate::demo::BASTION;

/// The document that all of them use.
const DOCUMENT: &str = "AWS-StartPortForwardingSessionToRemoteHost";
/// The variable from which the plugin takes the answer of `StartSession` when its first argument
/// is this name: arguments are there for everybody to read, and the answer holds a token.
const RESPONSE_VARIABLE: &str = "AWS_SSM_START_SESSION_RESPONSE";

/// Name of the figures beside ours.
pub(crate) const BRIDGE: &str = "aws-ssm-bridge";
/// Its version in the lock file of `judges/ssm-bridge`.
pub(crate) const BRIDGE_VERSION: &str = "0.6.0";

/// The programs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Programs<'a> {
    pub(crate) pgiam: &'a Path,
    pub(crate) bridge: &'a Path,
    pub(crate) plugin: Option<&'a Path>,
}

/// One forwarder of each program to the same place.
#[derive(Debug)]
pub(crate) struct Contest {
    /// `None` where ours is something else than a raw tunnel.
    pub(crate) pgiam: Option<Forwarder>,
    pub(crate) bridge: Forwarder,
    pub(crate) plugin: Option<Forwarder>,
}

/// Where bytes go in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) pid: u32,
}

impl Door {
    fn of(forwarder: &Forwarder) -> anyhow::Result<Self> {
        Ok(Self {
            address: forwarder.address(),
            pid: forwarder.pid().context("a forwarder has ended")?,
        })
    }
}

impl Contest {
    /// The others alone, to `goal` as the bastion sees it.
    pub(crate) async fn of_others(
        programs: Programs<'_>,
        sandbox: &Sandbox,
        goal: (&str, u16),
    ) -> anyhow::Result<Self> {
        let plugin = match programs.plugin {
            Some(program) => Some(start_plugin(program, sandbox, goal).await?),
            None => None,
        };
        Ok(Self {
            pgiam: None,
            bridge: Forwarder::bridge(programs.bridge, sandbox, BASTION, goal).await?,
            plugin,
        })
    }

    /// All of them.
    pub(crate) async fn of_all(
        programs: Programs<'_>,
        sandbox: &Sandbox,
        goal: (&str, u16),
    ) -> anyhow::Result<Self> {
        let mut contest = Self::of_others(programs, sandbox, goal).await?;
        let pgiam = Forwarder::pgiam(programs.pgiam, sandbox, BASTION, goal).await?;
        contest.pgiam = Some(pgiam);
        Ok(contest)
    }

    pub(crate) fn pgiam(&self) -> anyhow::Result<Door> {
        Door::of(self.pgiam.as_ref().context("pgiam does not take part")?)
    }

    pub(crate) fn bridge(&self) -> anyhow::Result<Door> {
        Door::of(&self.bridge)
    }

    pub(crate) fn plugin(&self) -> anyhow::Result<Option<Door>> {
        self.plugin.as_ref().map(Door::of).transpose()
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        let all = [self.pgiam, Some(self.bridge), self.plugin];
        let mut outcome = Ok(());
        for forwarder in all.into_iter().flatten() {
            outcome = outcome.and(forwarder.stop().await);
        }
        outcome
    }
}

/// The plugin as the AWS CLI calls it: the name of a variable with the answer of `StartSession`, the
/// region, the operation, the profile, the request, and the endpoint of the service
/// (aws/session-manager-plugin, `session.go`, `ValidateInputAndStartSession`).
async fn start_plugin(
    program: &Path,
    sandbox: &Sandbox,
    (host, port): (&str, u16),
) -> anyhow::Result<Forwarder> {
    let request = json!({
        "Target": BASTION,
        "DocumentName": DOCUMENT,
        "Parameters": {
            "host": [host],
            "portNumber": [port.to_string()],
            "localPortNumber": ["0"],
        },
    });
    let response = start_session(sandbox, &request).await?;
    let mut command = command(program, sandbox);
    command
        .args([
            RESPONSE_VARIABLE,
            sandbox.iam().region(),
            "StartSession",
            "",
        ])
        .args([request.to_string(), sandbox.endpoint_url()])
        .env(RESPONSE_VARIABLE, response.to_string())
        .env("SSL_CERT_FILE", sandbox.pki().ca_pem_path())
        .env("SSM_PLUGIN_LOCAL_HOST", "127.0.0.1");
    Forwarder::start(command, opened_port).await
}

/// The number in `Port 40123 opened for sessionId dev-0123.`
fn opened_port(line: &str) -> Option<u16> {
    let (_, rest) = line.split_once("Port ")?;
    let (number, rest) = rest.split_once(' ')?;
    rest.starts_with("opened").then(|| number.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_lock_file() {
        let lock = include_str!("../../judges/ssm-bridge/Cargo.lock");
        let entry = format!("name = \"{BRIDGE}\"\nversion = \"{BRIDGE_VERSION}\"\n");
        assert!(lock.contains(&entry));
    }

    #[test]
    fn the_plugin_says_its_port() {
        let line = "Port 40123 opened for sessionId dev-0123.";
        assert_eq!(opened_port(line), Some(40_123));
        assert_eq!(opened_port("Starting session with SessionId: dev"), None);
    }

    /// A script in the plugin's place that fails unless it gets what the real one reads.
    #[tokio::test]
    async fn the_plugin_gets_what_the_aws_cli_gives_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let sandbox = Sandbox::builder().start().await.unwrap();
        let script = sandbox.dir().join("plugin");
        let text = format!(
            "#!/bin/sh\nset -e\n\
             [ $# = 6 ] && [ \"$2 $3 $4\" = 'eu-central-1 StartSession ' ]\n\
             [ \"$1\" = AWS_SSM_START_SESSION_RESPONSE ]\n\
             case \"$AWS_SSM_START_SESSION_RESPONSE\" in *SessionId*StreamUrl*TokenValue*) ;; *) exit 1 ;; esac\n\
             case \"$5\" in *'\"Target\":\"{BASTION}\"'*) ;; *) exit 2 ;; esac\n\
             [ \"$6\" = '{}' ] && grep -q CERTIFICATE \"$SSL_CERT_FILE\"\n\
             printf '\\nStarting session with SessionId: s\\n'\n\
             echo 'Port 40123 opened for sessionId s.'\nexec cat\n",
            sandbox.endpoint_url()
        );
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let plugin = start_plugin(&script, &sandbox, ("db.internal", 5432)).await;
        let plugin = plugin.unwrap();
        assert_eq!(plugin.address().port(), 40_123);
        plugin.stop().await.unwrap();
    }
}
