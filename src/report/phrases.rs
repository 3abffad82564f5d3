//! Phrases that several reports share.

use crate::aws::calls::CREDENTIALS_STEP;
use crate::base::partition::Partition;
use crate::config::{Endpoint, Via};

use super::context::ErrorContext;
use super::message::{CANNOT_CONNECT, Message, REJECTED, SHUTDOWN, TOO_MANY, known_id};

/// Adds the step that timed out, and its remedy.
pub(super) fn waited_for(said: Message, waiting: Option<&'static str>) -> Message {
    let Some(step) = waiting else {
        return said.hint(
            "Raise connect_timeout if AWS is slow from here; run with --log debug to see which step waits.",
        );
    };
    let said = said.detail(format!("At that time pgiam was waiting for {step}."));
    match step == CREDENTIALS_STEP {
        true => said.hint(format!(
            "{} Raise connect_timeout if they only take long.",
            SLOW_CREDENTIALS
        )),
        false => said.hint(
            "Raise connect_timeout if that is only slow; pgiam check tries each step by itself.",
        ),
    }
}

pub(super) fn too_many(limit: usize, of_target: bool) -> Message {
    if of_target {
        return Message::new(
            "limit.target",
            TOO_MANY,
            "too many connections to this target",
        )
        .detail(format!("Its connection_limit allows {limit} at a time."))
        .hint("Close connections that are no longer needed, or raise connection_limit.");
    }
    Message::new(
        "limit.connections",
        TOO_MANY,
        "sorry, too many clients already",
    )
    .detail(format!("pgiam serves {limit} connections at once."))
    .hint("Close connections that are no longer needed, pool them, or raise max_connections.")
}

pub(super) fn shutting_down() -> Message {
    Message::new(
        "server.shutdown",
        SHUTDOWN,
        "terminating connection because pgiam is shutting down",
    )
    .hint("Connect again when pgiam runs again.")
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
pub(super) fn try_port(context: Option<&ErrorContext<'_>>) -> String {
    let Some(ErrorContext { target, .. }) = context else {
        return "nc -vz HOST PORT on the bastion".to_owned();
    };
    let Endpoint { host, port } = &target.endpoint;
    let place = match target.settings.via {
        Via::Ssm(_) => " on the bastion",
        Via::Direct => "",
    };
    format!("nc -vz {host} {port}{place}")
}

/// Additions to the server's error.
pub(super) struct ServerAdvice {
    pub(super) id: &'static str,
    pub(super) detail: Option<String>,
    pub(super) hint: String,
}

impl ServerAdvice {
    pub(super) fn hint(id: &'static str, hint: impl Into<String>) -> Self {
        Self {
            id: known_id(id),
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
pub(super) const AGAIN: &str = "Connect again. If it stays, the database may be restarting or out of memory: see its log, and aws rds describe-events --duration 60.";

/// Returns the command that enables IAM authentication on the database.
pub(super) fn turn_iam_on() -> &'static str {
    "aws rds modify-db-instance --db-instance-identifier NAME --enable-iam-database-authentication, or modify-db-cluster for Aurora"
}

/// Quotes a role name for SQL (PostgreSQL docs, "Identifiers and Key Words").
pub(super) fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Remedy for slow credentials.
pub(super) const SLOW_CREDENTIALS: &str = "Possible causes: the network to STS or IAM Identity Center, or a credential_process that waits for input.";

/// Remedy for an answer that AWS would not give.
pub(super) const BAD_ANSWER: &str =
    "Is an endpoint override (AWS_ENDPOINT_URL) set, or does a proxy answer in AWS's place?";

/// Remedy for a clock outside AWS's tolerance.
pub(super) const SET_CLOCK: &str = "AWS takes signatures that are at most 5 min off: set this machine's clock, and turn on time synchronisation.";

/// Returns the command that tests the keys.
pub(super) fn check_keys(profile: Option<&str>) -> String {
    format!(
        "Were the keys deleted, switched off or mistyped? aws sts get-caller-identity{} takes the same way.",
        profile_option(profile)
    )
}

/// Returns the remedy for expired credentials.
pub(super) fn renew(profile: Option<&str>) -> String {
    match profile {
        Some(profile) => format!(
            "Run: aws sso login --profile {profile}, or renew the profile's keys. No restart is needed."
        ),
        None => "Run aws sso login, or renew the keys in ~/.aws/credentials; no restart is needed. Keys in pgiam's own environment stay as they are: start it again with new ones.".to_owned(),
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
        format!("the SSM agent on {bastion} did not finish the handshake{when}"),
    )
    .detail("AWS opened the session, and the agent at its other end did not answer.")
    .hint(format!(
        "Possible causes: the instance or its agent hangs, and Systems Manager has not noticed ({}); the agent cannot reach the ssmmessages endpoint on port 443; TLS inspection on the way from this machine.",
        restart_agent(bastion)
    ))
}

/// Reports that the agent's side of the encryption failed. Only the agent's text has details.
pub(super) fn encryption_failed() -> Message {
    Message::new(
        "kms.handshake",
        REJECTED,
        "the bastion could not encrypt the session with KMS",
    )
    .hint(format!(
        "Check the permissions first: the role of the bastion needs kms:Decrypt on the key that is set in {PREFERENCES}, and you need kms:GenerateDataKey on it."
    ))
}

pub(super) fn restart_agent(bastion: &str) -> String {
    if bastion.starts_with("ecs:") {
        "start the task anew".to_owned()
    } else if bastion.starts_with("i-") && !bastion.contains(',') {
        format!("reboot it: aws ec2 reboot-instances --instance-ids {bastion}")
    } else {
        "restart the agent on it".to_owned()
    }
}

/// Default remedy for a lost session.
pub(super) const RECONNECT: &str = "Reconnect: pgiam opens a new tunnel when it has to.";
