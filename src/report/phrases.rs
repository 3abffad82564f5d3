//! Phrases that several reports share.

use crate::aws::calls::CREDENTIALS_STEP;
use crate::base::partition::Partition;
use crate::base::quote::shell;
use crate::config::{Endpoint, EndpointKind, RdsIdentifier, ResolvedTarget, Via};
use crate::login::background::LOGIN_STEP;

use pg_handshake::SqlState;

use super::context::ErrorContext;
use super::hint::Hint;
use super::message::{CANNOT_CONNECT, Message, REJECTED, SHUTDOWN, TOO_MANY, checked_id};

/// Adds the step that timed out, and its remedy.
pub(super) fn with_pending_step(
    message: Message,
    waiting: Option<&'static str>,
    target: Option<&ResolvedTarget>,
) -> Message {
    let Some(step) = waiting else {
        return message.hint(
            "Raise connect_timeout if AWS is slow from this machine. To see which step is slow, start pgiam with --log debug.",
        );
    };
    let message = message.detail(format!("pgiam was waiting for {step}."));
    match step {
        CREDENTIALS_STEP => message.hint(
            Hint::from(SLOW_CREDENTIALS)
                .and("If the credentials are only slow, raise connect_timeout."),
        ),
        LOGIN_STEP => message.hint(
            "Complete the login on the page that pgiam has opened in your browser, then connect again. Without a browser, run: `pgiam login`",
        ),
        _ => message.hint(
            Hint::from("If this step is only slow, raise connect_timeout.")
                .and(test_each_step(target)),
        ),
    }
}

/// Returns the command that tests the steps of a connection one by one.
pub(super) fn test_each_step(target: Option<&ResolvedTarget>) -> Hint {
    let name = target.map_or_else(|| "TARGET".to_owned(), |target| shell(&target.name));
    Hint::from("To test each step, run:").run(format!("pgiam check {name}"))
}

pub(super) fn too_many_connections(limit: usize, of_target: bool) -> Message {
    if of_target {
        return Message::new(
            "limit.target",
            TOO_MANY,
            "too many connections to this target",
        )
        .detail(format!("The target's connection_limit is {limit}."))
        .hint("Close unused connections, or raise connection_limit.");
    }
    Message::new(
        "limit.connections",
        TOO_MANY,
        "sorry, too many clients already",
    )
    .detail(format!("The max_connections setting of pgiam is {limit}."))
    .hint("Close unused connections, use a connection pool, or raise max_connections.")
}

pub(super) fn shutting_down() -> Message {
    Message::new(
        "server.shutdown",
        SHUTDOWN,
        "terminating connection because pgiam is shutting down",
    )
    .hint("Connect again after pgiam has restarted.")
}

/// Reports that the owner of pgiam has stopped a target.
pub(super) fn stopped(state: SqlState, message: String) -> Message {
    Message::new("target.stopped", state, message)
        .detail("It was stopped in pgiam status --watch.")
        .hint(
            Hint::from("To serve it again, press s there, or run:")
                .run(reload_command(std::process::id())),
        )
}

/// Returns the command that makes a process reload its configuration.
#[must_use]
pub(crate) fn reload_command(pid: u32) -> String {
    match cfg!(unix) {
        true => format!("kill -HUP {pid}"),
        false => format!("pgiam stop --pid {pid}; pgiam serve"),
    }
}

/// Formats the text of a library as a sentence, as a Detail requires (PostgreSQL docs, "Error
/// Message Style Guide").
pub(super) fn sentence(words: &str) -> String {
    let mut rest = words.chars();
    let first: String = rest
        .next()
        .map(|c| c.to_uppercase().collect())
        .unwrap_or_default();
    let end = if words.ends_with('.') { "" } else { "." };
    format!("{first}{}{end}", rest.as_str())
}

/// Returns the command that tests a dial from the host that dials the database.
pub(super) fn test_port(context: Option<&ErrorContext<'_>>) -> Hint {
    let Some(ErrorContext { target, .. }) = context else {
        return "To test the port, run on the bastion: `nc -vz HOST PORT`".into();
    };
    let Endpoint { host, port } = &target.endpoint;
    let place = match target.settings.via {
        Via::Ssm(_) => " on the bastion",
        Via::Direct => "",
    };
    Hint::from(format!("To test the port, run{place}:")).run(format!("nc -vz {host} {port}"))
}

/// Returns the policy statement that allows an action, ready to paste. `resource` is JSON.
pub(crate) fn add_statement(action: &str, resource: &str) -> Hint {
    Hint::from("Add this statement to your IAM policy:").run(format!(
        "{{\"Effect\": \"Allow\", \"Action\": \"{action}\", \"Resource\": {resource}}}"
    ))
}

/// Remedy for a call that a service control policy denies.
pub(super) const DENIED_BY_ORGANISATION: &str =
    "No policy in this account can allow it: contact the administrator of the AWS organisation.";

/// Remedy for an error of AWS that pgiam does not classify.
pub(super) const ASK_SUPPORT: &str =
    "Try again. If the error persists, contact AWS support with the request id.";

/// Requirements of an SSM agent for its connection.
pub(super) const AGENT_NEEDS: &str = "Its role needs AmazonSSMManagedInstanceCore, and it must reach the ssm and ssmmessages endpoints.";

/// Settings for networks that do not allow direct connections to AWS.
pub(super) const BEHIND_PROXY: &str =
    "Behind a proxy, set HTTPS_PROXY; behind TLS inspection, set AWS_CA_BUNDLE.";

/// Remedy for a target whose region is unknown.
pub(super) const SET_REGION: &str =
    "Set region = \"REGION\" for the target, or start pgiam with AWS_REGION.";

/// Remedy for a server that does not behave like PostgreSQL.
pub(super) const CHECK_ENDPOINT: &str =
    "Check that host and port are those of a PostgreSQL database.";

/// Remedy for a session that ended.
pub(super) const NEW_SESSION: &str = "Connect again: pgiam opens a new session.";

/// Additions to the server's error.
pub(super) struct ServerErrorAddition {
    pub(super) id: &'static str,
    pub(super) detail: Option<String>,
    pub(super) hint: Hint,
}

impl ServerErrorAddition {
    pub(super) fn hint(id: &'static str, hint: impl Into<Hint>) -> Self {
        Self {
            id: checked_id(id),
            detail: None,
            hint: hint.into(),
        }
    }

    pub(super) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

/// Remedy for a connection that breaks during its setup.
pub(super) const CONNECT_AGAIN: &str = "Connect again. Possible causes: the database is restarting or out of memory. If the error persists, check its log and its events: `aws rds describe-events --duration 60`";

/// Returns the command that enables IAM authentication on the database, as far as its name tells the
/// kind.
pub(super) fn enable_iam(context: Option<&ErrorContext<'_>>) -> Hint {
    let either = "aws rds modify-db-instance --db-instance-identifier NAME --enable-iam-database-authentication";
    let aurora = "aws rds modify-db-cluster --db-cluster-identifier NAME --enable-iam-database-authentication";
    let Some(context) = context else {
        return Hint::from("").run(either).and("For Aurora:").run(aurora);
    };
    let real = context.evidence.map(|evidence| Endpoint {
        host: evidence.request.host.clone(),
        port: evidence.request.port,
    });
    let endpoint = real.unwrap_or_else(|| context.target.endpoint.clone());
    let region = endpoint.region().or(context.target.region.as_deref());
    let region = region.map(|region| format!(" --region {region}"));
    let options =
        region.unwrap_or_default() + &profile_option(context.target.settings.profile.as_deref());
    let named = RdsIdentifier::of(&endpoint);
    let filled = |command: &str| match &named {
        Some(db) => command.replace("NAME", &db.identifier) + &options,
        None => command.to_owned() + &options,
    };
    match endpoint.kind() {
        EndpointKind::Cluster | EndpointKind::Reader => Hint::from("").run(filled(aurora)),
        EndpointKind::Custom => Hint::from("").run(aurora.to_owned() + &options),
        EndpointKind::Proxy => {
            "Set IAMAuth to REQUIRED in the authentication settings of the proxy.".into()
        }
        EndpointKind::Instance => Hint::from("")
            .run(filled(either))
            .and("For an instance of an Aurora cluster:")
            .run(aurora.to_owned() + &options),
        EndpointKind::Dsql | EndpointKind::Other => Hint::from("")
            .run(either.to_owned() + &options)
            .and("For Aurora:")
            .run(aurora.to_owned() + &options),
    }
}

/// Quotes a role name for SQL (PostgreSQL docs, "Identifiers and Key Words").
pub(super) fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Remedy for slow credentials.
pub(super) const SLOW_CREDENTIALS: &str = "Possible causes: a slow network to STS or IAM Identity Center; a credential_process that waits for input.";

/// Remedy for an answer that AWS would not give.
pub(super) const BAD_ANSWER: &str = "Possible causes: an endpoint override (AWS_ENDPOINT_URL); a proxy that answers in place of AWS.";

/// Remedy for a clock outside AWS's tolerance.
pub(super) const SET_CLOCK: &str = "Set this machine's clock and turn on time synchronisation. AWS accepts signatures that are at most 5 min off.";

/// Returns the command that tests the keys.
pub(super) fn check_keys_hint(profile: Option<&str>) -> Hint {
    Hint::from("Check whether the keys are mistyped, deactivated or deleted. To test them, run:")
        .run(caller_identity(profile))
}

/// Returns the command that shows the identity of credentials.
pub(super) fn caller_identity(profile: Option<&str>) -> String {
    format!("aws sts get-caller-identity{}", profile_option(profile))
}

/// Returns the remedy for expired credentials.
pub(super) fn renew_hint(profile: Option<&str>) -> Hint {
    Hint::from("Run:").run(login_command(profile)).and(match profile {
        Some(_) => "Or renew the profile's keys. No restart is needed.",
        None => {
            "Or renew the keys in ~/.aws/credentials. No restart is needed, except for keys in pgiam's environment: restart pgiam with new ones."
        }
    })
}

/// Returns the command that logs in to AWS.
pub(super) fn login_command(profile: Option<&str>) -> String {
    match profile {
        Some(profile) => format!("pgiam login {}", shell(profile)),
        None => "pgiam login".to_owned(),
    }
}

pub(super) fn of_profile(profile: Option<&str>) -> String {
    profile
        .map(|profile| format!(" of profile {profile}"))
        .unwrap_or_default()
}

pub(super) fn profile_option(profile: Option<&str>) -> String {
    profile
        .map(|profile| format!(" --profile {profile}"))
        .unwrap_or_default()
}

/// Returns the ARN partition of a region.
pub(super) fn partition(region: &str) -> &'static str {
    Partition::of(region).name
}

/// Returns the default host of a service in a region.
pub(super) fn service_host(service: &str, region: &str) -> String {
    format!("{service}.{region}.{}", Partition::of(region).dns_suffix)
}

/// Document for a session to one's own node. Its preferences apply to all sessions.
pub(super) const PREFERENCES: &str =
    "the Session Manager preferences of the region (document SSM-SessionManagerRunShell)";

pub(super) fn handshake_timeout(bastion: &str, when: &str) -> Message {
    Message::new(
        "ssm.handshake-timeout",
        CANNOT_CONNECT,
        format!("the SSM agent on {bastion} did not finish the handshake {when}"),
    )
    .detail("AWS opened the session, but the agent on the bastion did not answer.")
    .hint(
        Hint::from("Possible causes: the agent cannot reach the ssmmessages endpoint on port 443; TLS inspection between this machine and AWS; the instance or its agent hangs, and Systems Manager has not noticed. If it hangs,")
            .and(restart_hint(bastion)),
    )
}

/// Reports that the agent's side of the encryption failed. Only the agent's text has details.
pub(super) fn encryption_failed() -> Message {
    Message::new(
        "kms.handshake",
        REJECTED,
        "the bastion could not encrypt the session with KMS",
    )
    .hint(format!(
        "Check the permissions: the bastion's role needs kms:Decrypt, and your identity needs kms:GenerateDataKey, on the key that is set in {PREFERENCES}."
    ))
}

pub(super) fn restart_hint(bastion: &str) -> Hint {
    if bastion.starts_with("ecs:") {
        "start a new task.".into()
    } else if bastion.starts_with("i-") && !bastion.contains(',') {
        Hint::from("reboot the instance, which interrupts everything on it:")
            .run(format!("aws ec2 reboot-instances --instance-ids {bastion}"))
    } else {
        "restart the agent, which ends its sessions.".into()
    }
}

/// Default remedy for a lost connection.
pub(super) const RECONNECT: &str = "Connect again: pgiam opens a new session if necessary.";
