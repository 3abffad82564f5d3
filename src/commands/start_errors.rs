//! Classifies errors at the start of a command: fatal or temporary.
//!
//! A server keeps running on temporary errors: it sends every client the reason, retries, and
//! recovers. Errors that waiting cannot fix are fatal: an invalid configuration, a port that
//! another program uses. The same holds for every command that serves connections:
//!
//! | command | fatal | temporary |
//! |---|---|---|
//! | `serve` | see [`WaitEffect::of`]; one target that cannot be served does not end the others | everything else |
//! | `tunnel` | the same; it sends no request to AWS before it listens | everything about AWS and the far side |
//! | `run` | everything: its caller waits for the command, which is not started (exit code 125) | nothing |

use crate::admin::client;
use crate::aws::CredentialsError;
use crate::aws::discover::DiscoverError;
use crate::base::quote::printable;
use crate::cli::StateArgs;
use crate::commands::resolve_target::LocateError;
use crate::serving::ports::BindError;

/// Names the pgiam that uses a port, in the error about a port that is in use.
pub(super) async fn with_owner_of_port(error: anyhow::Error, state: &StateArgs) -> anyhow::Error {
    let in_use = error
        .downcast_ref::<BindError>()
        .and_then(BindError::in_use);
    let Some((port, remedy)) = in_use else {
        return error;
    };
    let state_dir = super::serve::state_dir(state.state_dir.as_ref());
    let all = client::all(state_dir.ok().flatten().as_deref()).await;
    let mut all = all.into_iter();
    let owner = all.find_map(|(_, process)| {
        let process = process
            .ok()
            .filter(|process| process.pid != std::process::id())?;
        let mut targets = process.targets.iter();
        targets.any(|target| target.port == port).then_some(process)
    });
    let Some(owner) = owner else { return error };
    let targets: Vec<&str> = owner
        .targets
        .iter()
        .map(|target| target.name.as_str())
        .collect();
    let said = error.to_string();
    let (pid, kind, targets) = (owner.pid, &owner.kind, printable(&targets.join(", ")));
    let first = said.lines().next().unwrap_or_default();
    anyhow::anyhow!(
        "{first} by pgiam {kind}, process {pid} ({targets})\nhint: stop it:\n  pgiam stop --pid {pid}\nor choose another port with {remedy}"
    )
}

/// Effect of waiting on an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitEffect {
    /// Fatal: it needs a change on this machine.
    Final,
    /// Temporary: it may end in a moment, or after a login.
    Passing,
}

impl WaitEffect {
    /// Classifies an error of the start. An unknown error is fatal.
    pub(super) fn of(error: &anyhow::Error) -> Self {
        if let Some(LocateError::Discover(error)) = error.downcast_ref() {
            return Self::of_lookup(error);
        }
        if let Some(error) = error.downcast_ref() {
            return Self::of_lookup(error);
        }
        Self::Final
    }

    /// Classifies an error of a lookup at AWS that a user at a terminal waits for. (Without a
    /// terminal the server does not wait for lookups, and none of these ends it.)
    fn of_lookup(error: &DiscoverError) -> Self {
        match error {
            DiscoverError::Credentials(error) => Self::of_credentials(error),
            DiscoverError::Refused { .. }
            | DiscoverError::Unreachable { .. }
            | DiscoverError::Late(_)
            | DiscoverError::Unusable { .. }
            | DiscoverError::Answer { .. } => Self::Passing,
            // Most likely a mistyped name; the user at the terminal can correct it.
            DiscoverError::NoDatabase { .. } | DiscoverError::NoRegion => Self::Final,
        }
    }

    fn of_credentials(error: &CredentialsError) -> Self {
        match error {
            CredentialsError::NotFound { .. }
            | CredentialsError::Expired { .. }
            | CredentialsError::SsoSession { .. }
            | CredentialsError::MfaRequired { .. }
            | CredentialsError::LoginSession { .. }
            | CredentialsError::AssumeRole { .. }
            | CredentialsError::Rejected { .. }
            | CredentialsError::Process { .. }
            | CredentialsError::Timeout { .. }
            | CredentialsError::Clock { .. }
            | CredentialsError::Answer { .. }
            | CredentialsError::Era(_)
            | CredentialsError::Internal(_)
            | CredentialsError::Other { .. } => Self::Passing,
            CredentialsError::NoSuchProfile { .. }
            | CredentialsError::Config { .. }
            | CredentialsError::CacheFile(_)
            | CredentialsError::Unresolved(_)
            | CredentialsError::Malformed(_)
            | CredentialsError::CaBundle { .. } => Self::Final,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::connection_test::TestFailed;
    use super::*;
    use crate::admin::AdminError;
    use crate::aws::api_error::ApiAnswer;
    use crate::config::{ConfigError, RdsIdentifier};
    use crate::forward::ListenError;
    use crate::postgres::client::password_file::LocalPasswordError;
    use crate::serving::ports::{BindError, PortSetting};

    fn credentials() -> Vec<(CredentialsError, WaitEffect)> {
        use CredentialsError as E;
        use WaitEffect::{Final, Passing};
        let source =
            || -> Arc<dyn std::error::Error + Send + Sync> { Arc::new(io::Error::other("no")) };
        let profile = None;
        vec![
            (
                E::NotFound {
                    profile: profile.clone(),
                    looked: vec![],
                    source: source(),
                },
                Passing,
            ),
            (
                E::Expired {
                    at: None,
                    profile: profile.clone(),
                },
                Passing,
            ),
            (
                E::SsoSession {
                    profile: profile.clone(),
                    ended_at: None,
                    session: None,
                    source: source(),
                },
                Passing,
            ),
            (
                E::AssumeRole {
                    profile: profile.clone(),
                    role: None,
                    caller: None,
                    code: "".into(),
                    message: "".into(),
                },
                Passing,
            ),
            (
                E::Rejected {
                    profile: profile.clone(),
                    code: "".into(),
                    message: "".into(),
                    clock: None,
                },
                Passing,
            ),
            (
                E::Process {
                    profile: profile.clone(),
                    reason: "".into(),
                },
                Passing,
            ),
            (
                E::Timeout {
                    after: Duration::ZERO,
                    profile: profile.clone(),
                    process: None,
                },
                Passing,
            ),
            (
                E::Other {
                    profile: profile.clone(),
                    source: source(),
                },
                Passing,
            ),
            (
                E::NoSuchProfile {
                    profile: "".into(),
                    variable: None,
                    fault: None,
                    known: vec![],
                },
                Final,
            ),
            (
                E::Config {
                    profile,
                    reason: "".into(),
                },
                Final,
            ),
            (
                E::CaBundle {
                    path: "ca.pem".into(),
                    reason: "".into(),
                },
                Final,
            ),
        ]
    }

    fn lookups() -> Vec<(DiscoverError, WaitEffect)> {
        use DiscoverError as E;
        use WaitEffect::{Final, Passing};
        let wanted = || RdsIdentifier {
            identifier: "orders".to_owned(),
            reader: false,
        };
        let answer = || ApiAnswer {
            code: "ThrottlingException".into(),
            message: "".into(),
            request_id: None,
            clock: None,
        };
        let refused = |denied| E::Refused {
            action: "rds:DescribeDBClusters",
            denied,
            answer: answer(),
            region: "".into(),
        };
        vec![
            (refused(false), Passing),
            (refused(true), Passing),
            (
                E::Unreachable {
                    service: "RDS",
                    region: "".into(),
                    reason: "".into(),
                },
                Passing,
            ),
            (
                E::Unusable {
                    wanted: wanted(),
                    reason: "".into(),
                },
                Passing,
            ),
            (
                E::Answer {
                    action: "rds:DescribeDBClusters",
                    reason: "".into(),
                },
                Passing,
            ),
            (
                E::NoDatabase {
                    wanted: wanted(),
                    region: "".into(),
                    nearest: None,
                    unseen: vec![],
                },
                Final,
            ),
            (E::NoRegion, Final),
        ]
    }

    #[test]
    fn what_waiting_mends_does_not_end_the_start() {
        for (error, outlook) in credentials() {
            let said = format!("{error:?}");
            let lookup = DiscoverError::Credentials(error);
            assert_eq!(
                WaitEffect::of(&LocateError::Discover(lookup).into()),
                outlook,
                "{said}"
            );
        }
        for (error, outlook) in lookups() {
            let said = format!("{error:?}");
            assert_eq!(
                WaitEffect::of(&LocateError::Discover(error).into()),
                outlook,
                "{said}"
            );
        }
        for (error, outlook) in lookups() {
            assert_eq!(WaitEffect::of(&error.into()), outlook);
        }
    }

    #[test]
    fn what_somebody_has_to_change_here_ends_it() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 5433));
        let other = || io::Error::other("no");
        let config = || ConfigError::NoPassword {
            address: address.ip(),
        };
        let errors: Vec<anyhow::Error> = vec![
            config().into(),
            LocateError::Config(config()).into(),
            BindError::InUse {
                address,
                setting: PortSetting::Target("orders".into()),
            }
            .into(),
            BindError::Same {
                key: "hub_port",
                port: 5433,
                other: "the port of target \"orders\"".into(),
            }
            .into(),
            BindError::Other {
                address,
                source: other(),
            }
            .into(),
            ListenError::InUse { address }.into(),
            ListenError::NotAllowed { address }.into(),
            ListenError::Other {
                address,
                source: other(),
            }
            .into(),
            AdminError::InUse { address }.into(),
            AdminError::Other {
                address,
                source: other(),
            }
            .into(),
            LocalPasswordError::Twice {
                file: "password".into(),
            }
            .into(),
            TestFailed::default().into(),
        ];
        for error in errors {
            assert_eq!(WaitEffect::of(&error), WaitEffect::Final, "{error}");
        }
    }
}
