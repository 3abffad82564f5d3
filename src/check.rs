//! `pgiam check`: tests every requirement of a connection in order, and gives a remedy for the
//! first that fails.
//!
//! The steps use the same code as a real connection, so they find the errors a client would get.
//! Information from AWS (settings, policies, the state of nodes) may require permissions that the
//! caller lacks; such a step is skipped and names the missing permission.

mod bastion;
mod database;
mod endpoint;
mod identity;
mod outcome;
mod permission;
mod query;
mod render;
mod running;
mod settings;
mod speed;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::time::timeout;

use crate::aws::discover::Database;
use crate::aws::{AwsContext, Identity};
use crate::base::names::{Region, TargetName};
use crate::config::{Auth, ConfigError, Endpoint, TargetConfig, Via};
use crate::failure::setup::SetupError;
use crate::postgres::database::login_steps::{DialledConnection, LoginCheck, SecuredConnection};
use crate::postgres::target::PgTarget;
use crate::targets::served_target::AwsContexts;
pub use outcome::{StepOutcome, StepVerdict};
use query::QueryClient;
pub use render::{head, line, not_tried};

/// `application_name` of the check at the database.
const APPLICATION: &str = "pgiam check";
/// Timeout for closing the tunnel at the end.
const GOODBYE: Duration = Duration::from_secs(5);

/// One requirement of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckStep {
    /// The running pgiam that serves the target; left out if there is none.
    Running,
    /// AWS credentials and identity.
    Credentials,
    /// System clock.
    Clock,
    /// Endpoint of the database.
    Endpoint,
    /// Database settings, from RDS.
    Settings,
    /// IAM permission for the login.
    Permission,
    /// Bastion of the tunnel.
    Bastion,
    /// Session Manager session.
    Session,
    /// Relay on the bastion.
    Relay,
    /// Connection to the database port.
    Port,
    /// TLS certificate.
    Tls,
    /// Database login.
    Login,
    /// Membership in `rds_iam`, which enables tokens.
    RdsIam,
    /// Speed of the connection.
    Speed,
}

impl CheckStep {
    /// Returns the steps of a target, in order.
    fn all(config: &TargetConfig, speed: bool) -> Vec<Self> {
        let tunnel = matches!(config.settings.via, Via::Ssm(_));
        let iam = config.settings.login.auth == Auth::Iam;
        let relay = matches!(&config.settings.via, Via::Ssm(via) if via.relay.is_some());
        let all = [
            (Self::Running, true),
            (Self::Credentials, true),
            (Self::Clock, true),
            (Self::Endpoint, true),
            (Self::Settings, true),
            (Self::Permission, iam),
            (Self::Bastion, tunnel),
            (Self::Session, tunnel),
            (Self::Relay, relay),
            (Self::Port, true),
            (Self::Tls, true),
            (Self::Login, true),
            (Self::RdsIam, true),
            (Self::Speed, speed),
        ];
        let wanted = all.into_iter().filter(|(_, wanted)| *wanted);
        wanted.map(|(step, _)| step).collect()
    }

    /// Returns the step's name, for the terminal and for programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Credentials => "credentials",
            Self::Clock => "clock",
            Self::Endpoint => "endpoint",
            Self::Settings => "settings",
            Self::Permission => "permission",
            Self::Bastion => "bastion",
            Self::Session => "session",
            Self::Relay => "relay",
            Self::Port => "port",
            Self::Tls => "tls",
            Self::Login => "login",
            Self::RdsIam => "rds_iam",
            Self::Speed => "speed",
        }
    }

    /// Returns the progress text of the step.
    #[must_use]
    pub fn doing(self) -> &'static str {
        match self {
            Self::Running => "looking for a running pgiam",
            Self::Credentials => "loading credentials",
            Self::Clock => "comparing clocks",
            Self::Endpoint => "looking up the database",
            Self::Settings => "reading the database's settings from RDS",
            Self::Permission => "simulating permissions with IAM",
            Self::Bastion => "reading the bastion's status from Systems Manager",
            Self::Session => "opening a session",
            Self::Relay => "looking for the relay",
            Self::Port => "connecting to the database",
            Self::Tls => "verifying the certificate",
            Self::Login => "logging in",
            Self::RdsIam => "checking rds_iam",
            Self::Speed => "measuring",
        }
    }
}

/// A completed step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepResult {
    /// Name of the step.
    pub name: &'static str,
    /// Result of the step.
    #[serde(flatten)]
    pub outcome: StepOutcome,
    /// Duration, in milliseconds.
    pub ms: f64,
}

/// Progress of a check, for the terminal.
#[derive(Clone, Copy, Debug)]
pub enum CheckEvent<'a> {
    /// A step begins.
    Begins(CheckStep),
    /// A step has ended.
    Taken(&'a StepResult),
}

/// Result of a check.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckResult {
    target: TargetName,
    endpoint: Option<String>,
    /// Completed steps; only the last one may have failed.
    pub steps: Vec<StepResult>,
    /// Names of the steps not run because an earlier one failed.
    pub left: Vec<&'static str>,
}

impl CheckResult {
    /// Returns the failed step, if any.
    #[must_use]
    pub fn cause(&self) -> Option<&StepResult> {
        let last = self.steps.last();
        last.filter(|taken| taken.outcome.verdict == StepVerdict::Failed)
    }

    /// Returns the whole result as JSON, for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let warned = |taken: &StepResult| taken.outcome.verdict == StepVerdict::Warning;
        let verdict = match self.cause() {
            Some(_) => StepVerdict::Failed,
            None if self.steps.iter().any(warned) => StepVerdict::Warning,
            None => StepVerdict::Ok,
        };
        let mut steps: Vec<Value> = self.steps.iter().map(|taken| json!(taken)).collect();
        let left = self.left.iter();
        steps.extend(left.map(|name| json!({ "name": name, "result": "not tried" })));
        let cause = self.cause().map(|taken| {
            let StepOutcome {
                said,
                detail,
                remedy,
                id,
                sqlstate,
                ..
            } = &taken.outcome;
            json!({
                "step": taken.name,
                "id": id,
                "sqlstate": sqlstate,
                "message": said,
                "detail": detail,
                "hint": remedy,
            })
        });
        json!({
            "target": self.target,
            "endpoint": self.endpoint,
            "result": verdict,
            "steps": steps,
            "cause": cause,
        })
    }
}

/// Error before any step: the target's configuration is invalid.
#[derive(Debug, Error)]
pub enum CheckError {
    /// The configuration contradicts the endpoint found.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The trust roots are unusable.
    #[error(transparent)]
    Setup(#[from] Arc<SetupError>),
}

/// Progress of the connection to the database.
#[derive(Default)]
enum ConnectionProgress {
    #[default]
    Begun,
    Dialled(DialledConnection),
    Secured(SecuredConnection),
    In(QueryClient),
}

/// A check under way: results of steps that later ones need.
pub struct CheckRun {
    served: PgTarget,
    speed: bool,
    state_dir: Option<PathBuf>,
    aws: Arc<AwsContext>,
    identity: Identity,
    /// The endpoint behind a CNAME.
    endpoint: Option<Endpoint>,
    database: Option<Database>,
    login_check: Option<LoginCheck>,
    progress: ConnectionProgress,
}

impl CheckRun {
    /// Creates a check; sends no request yet. `state_dir`: see
    /// [`RunningTarget::all`](crate::admin::running::RunningTarget::all).
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(
        mut config: TargetConfig,
        speed: bool,
        state_dir: Option<PathBuf>,
    ) -> Result<Self, SetupError> {
        if let Via::Ssm(settings) = &mut config.settings.via {
            settings.warm = false; // The session is a step of its own.
        }
        let aws_contexts = Arc::new(AwsContexts::default());
        let served = PgTarget::new(config, Arc::clone(&aws_contexts))?;
        let config = &served.config;
        let aws = match served.ready() {
            Some(context) => Arc::clone(&context.aws),
            None => aws_contexts.of(config.settings.profile.as_deref(), config.region.as_ref()),
        };
        Ok(Self {
            served,
            speed,
            state_dir,
            aws,
            identity: Identity::default(),
            endpoint: None,
            database: None,
            login_check: None,
            progress: ConnectionProgress::Begun,
        })
    }

    /// Returns the configuration of the target.
    #[must_use]
    pub fn config(&self) -> &TargetConfig {
        &self.served.config
    }

    /// Runs all steps up to the first that fails.
    ///
    /// # Errors
    /// [`CheckError`]: the target's configuration is invalid.
    pub async fn run(
        &mut self,
        tell: &mut (dyn FnMut(CheckEvent<'_>) + Send),
    ) -> Result<CheckResult, CheckError> {
        let mut left = CheckStep::all(self.config(), self.speed).into_iter();
        let mut steps: Vec<StepResult> = Vec::new();
        for step in left.by_ref() {
            let began = Instant::now();
            let outcome = match step {
                CheckStep::Running => match self.running().await {
                    Some(outcome) => outcome,
                    None => continue,
                },
                _ => {
                    tell(CheckEvent::Begins(step));
                    self.take(step).await?
                }
            };
            let taken = StepResult {
                name: step.name(),
                outcome,
                ms: (began.elapsed().as_secs_f64() * 10_000.0).round() / 10.0,
            };
            tell(CheckEvent::Taken(&taken));
            let failed = taken.outcome.verdict == StepVerdict::Failed;
            steps.push(taken);
            if failed {
                break;
            }
        }
        Ok(CheckResult {
            target: self.config().name.clone(),
            endpoint: self.endpoint.as_ref().map(ToString::to_string),
            steps,
            left: left.map(CheckStep::name).collect(),
        })
    }

    /// Closes the connections. Call it after [`CheckRun::run`], whatever the result.
    pub async fn finish(self) {
        if let ConnectionProgress::In(questions) = self.progress {
            questions.close().await;
        }
        if let Some(context) = self.served.ready() {
            // AWS ends an unterminated session by itself after its idle timeout.
            _ = timeout(GOODBYE, context.transport.shutdown()).await;
        }
    }

    async fn take(&mut self, step: CheckStep) -> Result<StepOutcome, CheckError> {
        match step {
            CheckStep::Credentials => return Ok(self.credentials().await),
            CheckStep::Clock => return Ok(self.clock()),
            CheckStep::Endpoint => return self.endpoint().await,
            _ => {}
        }
        let Some(context) = self.served.ready().cloned() else {
            return Ok(StepOutcome::skipped("the database's endpoint is unknown"));
        };
        Ok(match step {
            CheckStep::Running
            | CheckStep::Credentials
            | CheckStep::Clock
            | CheckStep::Endpoint
            | CheckStep::Settings => self.settings(&context).await,
            CheckStep::Permission => self.permission(&context).await,
            CheckStep::Bastion => self.bastion(&context).await,
            CheckStep::Session => bastion::session(&context).await,
            CheckStep::Relay => bastion::relay(&context),
            CheckStep::Port => self.port(&context).await,
            CheckStep::Tls => self.tls().await,
            CheckStep::Login => self.login().await,
            CheckStep::RdsIam => self.rds_iam().await,
            CheckStep::Speed => self.measure(&context).await,
        })
    }

    /// Returns the region for requests: that of the database, if known.
    async fn region(&self) -> Option<Region> {
        let of_endpoint = self.endpoint.as_ref().and_then(Endpoint::region);
        let of_target = self.served.ready().map(|context| &context.target.region);
        let of_target = of_target.unwrap_or(&self.config().region).clone();
        match of_endpoint.map(Region::from).or(of_target) {
            Some(region) => Some(region),
            None => self.aws.region().await.ok().flatten(),
        }
    }
}
