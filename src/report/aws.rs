//! Reports about AWS: credentials, tokens, the tunnel.

use super::{BROKEN, CANNOT_CONNECT, CONFIGURATION, NOT_AUTHORIZED, REJECTED, Said, THROTTLED};
use crate::aws::CredentialsError;
use crate::token::TokenError;
use crate::tunnel::{ApiAnswer, ApiRefusal, TunnelError, chain};

pub(super) fn credentials(error: &CredentialsError) -> Said {
    let said = |id, hint: String| Said::new(id, NOT_AUTHORIZED, error.to_string()).hint(hint);
    match error {
        CredentialsError::NotFound { profile, looked, .. } => {
            let login = login_hint(profile.as_deref());
            said("aws.no-credentials", format!("{login} pgiam sees new credentials without a restart."))
                .detail(format!("Looked at: {}.", looked.join(", ")))
        }
        CredentialsError::NoSuchProfile { known, .. } => said(
            "aws.no-profile",
            format!("Profiles that exist: {}. Set profile, or AWS_PROFILE, to one of them; \"aws configure sso\" makes a new one.", list(known)),
        ),
        CredentialsError::Config { .. } => said("aws.config", "Correct ~/.aws/config; no restart is needed.".to_owned()),
        CredentialsError::Expired { profile, .. } => said(
            "aws.expired",
            format!("{} No restart is needed.", login_hint(profile.as_deref())),
        ),
        CredentialsError::SsoSession { profile, .. } => said(
            "aws.sso-session",
            format!("Run: aws sso login{}. No restart is needed.", profile_option(profile.as_deref())),
        )
        .detail(format!("{}.", chain(error))),
        CredentialsError::AssumeRole { .. } => said(
            "aws.assume-role",
            "The role's trust policy must name your identity, and your identity needs sts:AssumeRole on the role.".to_owned(),
        ),
        CredentialsError::Process { .. } => {
            said("aws.credential-process", "Run the credential_process command of that profile by hand to see what it needs.".to_owned())
        }
        CredentialsError::Timeout { .. } => {
            said("aws.credentials-timeout", "Check the network; a credential_process must not wait for input.".to_owned())
        }
        CredentialsError::CaBundle { .. } => Said::new("aws.ca-bundle", CONFIGURATION, error.to_string())
            .hint("AWS_CA_BUNDLE must name a readable PEM file with CA certificates, or be unset."),
        CredentialsError::Other { .. } => {
            said("aws.credentials", "Try: aws sts get-caller-identity.".to_owned()).detail(format!("{}.", chain(error)))
        }
    }
}

fn login_hint(profile: Option<&str>) -> String {
    format!(
        "Run: aws sso login{0} (or aws configure{0}), or set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
        profile_option(profile)
    )
}

fn profile_option(profile: Option<&str>) -> String {
    profile
        .map(|profile| format!(" --profile {profile}"))
        .unwrap_or_default()
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

pub(super) fn token(error: &TokenError) -> Said {
    match error {
        TokenError::Credentials(error) => credentials(error),
        other => Said::new(
            "token.sign",
            NOT_AUTHORIZED,
            format!("no login token: {}", chain(other)),
        ),
    }
}

pub(super) fn tunnel(error: &TunnelError) -> Said {
    let cannot = |id| Said::new(id, CANNOT_CONNECT, error.to_string());
    match error {
        TunnelError::Credentials(error) => credentials(error),
        TunnelError::NoRegion => Said::new("aws.no-region", CONFIGURATION, error.to_string())
            .hint("Set region for the target, or AWS_REGION."),
        TunnelError::Api { kind, answer, bastion, region } => api(*kind, answer, bastion, region),
        TunnelError::ApiUnreachable { region, .. } => cannot("ssm.unreachable").hint(format!(
            "Check the network and DNS for ssm.{region}.amazonaws.com; behind TLS inspection set AWS_CA_BUNDLE."
        )),
        TunnelError::IncompleteAnswer(_) => cannot("ssm.answer").hint("Is an endpoint override (AWS_ENDPOINT_URL) set?"),
        TunnelError::ForeignStreamUrl { .. } => cannot("ssm.foreign-stream")
            .hint("If that host is meant, set AWS_ENDPOINT_URL_SSMMESSAGES to it."),
        TunnelError::ChannelConnect { host, .. } => cannot("ssm.channel-connect").hint(format!(
            "From here {host} must be reachable on port 443; behind TLS inspection set AWS_CA_BUNDLE."
        )),
        TunnelError::ChannelRefused { status, .. } => {
            let hint = match status {
                403 => "The session's signature or token was not accepted: check the clock, and update pgiam if it is old.",
                _ => "Try again; if it stays, see the AWS Health dashboard.",
            };
            Said::new("ssm.channel-refused", REJECTED, error.to_string()).hint(hint)
        }
        TunnelError::HandshakeTimeout { bastion, after } => Said::new(
            "ssm.handshake-timeout",
            CANNOT_CONNECT,
            format!("AWS did not finish the SSM handshake in {} s", after.as_secs()),
        )
        .hint(format!(
            "The SSM agent on {bastion} must reach the ssmmessages endpoint on port 443; so must this machine, without TLS inspection."
        )),
        TunnelError::AgentTooOld { bastion, needed, .. } => cannot("ssm.agent-old")
            .detail("Older agents ignore the database's host name and connect to themselves.")
            .hint(format!("Update it to {needed} or newer: aws ssm send-command --document-name AWS-UpdateSSMAgent --instance-ids {bastion}")),
        TunnelError::UnsupportedAction { action } => Said::new("ssm.unsupported", REJECTED, error.to_string()).hint(
            if action == "KMSEncryption" {
                "The Session Manager preferences of this account ask for KMS encryption of sessions."
            } else {
                "Update pgiam if it is old."
            },
        ),
        TunnelError::DialRefused { bastion, endpoint } => Said::new(
            "tunnel.dial",
            CANNOT_CONNECT,
            format!("the bastion {bastion} could not connect to {endpoint}"),
        )
        .detail("The SSM agent reported ConnectToPortError.")
        .hint(format!(
            "Is the database running, and is {} its port? Its security group must allow that port from the bastion's group, and its name must resolve in the bastion's VPC.",
            endpoint.port
        )),
        TunnelError::SessionEnded { .. } => Said::new("ssm.ended", BROKEN, error.to_string())
            .hint("Idle timeout and maximum duration are set in the Session Manager preferences of the account."),
        TunnelError::ChannelLost { .. } => Said::new("ssm.lost", BROKEN, error.to_string()).hint("Connect again."),
        TunnelError::Protocol { .. } => Said::new("ssm.protocol", BROKEN, error.to_string()),
        TunnelError::Direct { endpoint, .. } => cannot("direct.connect").hint(format!(
            "via = \"direct\" needs a route to {endpoint} from here; without one set bastion to a managed node's id."
        )),
        TunnelError::ShuttingDown => super::shutting_down(),
    }
}

fn api(kind: ApiRefusal, answer: &ApiAnswer, bastion: &str, region: &str) -> Said {
    let (id, state, message, hint) = match kind {
        ApiRefusal::TargetNotConnected => (
            "ssm.target-not-connected",
            CANNOT_CONNECT,
            format!("the bastion {bastion} is not connected to Session Manager in {region}"),
            "Start the instance, check its id and region, that its SSM agent runs, that its role has AmazonSSMManagedInstanceCore, and that it reaches the ssm and ssmmessages endpoints.".to_owned(),
        ),
        ApiRefusal::AccessDenied => (
            "ssm.access-denied",
            REJECTED,
            format!("AWS does not allow the session to {bastion}"),
            "Your policy must allow ssm:StartSession on the instance and on document/AWS-StartPortForwardingSessionToRemoteHost (a tag condition never matches the document).".to_owned(),
        ),
        ApiRefusal::DeniedByOrganisation => (
            "ssm.denied-by-organisation",
            REJECTED,
            format!("an organisation policy (SCP) forbids the session to {bastion}"),
            "No policy in this account can allow it; ask whoever manages the AWS organisation.".to_owned(),
        ),
        ApiRefusal::CredentialsExpired => (
            "aws.expired",
            NOT_AUTHORIZED,
            "the AWS credentials have expired".to_owned(),
            format!("{} No restart is needed.", login_hint(None)),
        ),
        ApiRefusal::CredentialsRejected => (
            "aws.rejected",
            NOT_AUTHORIZED,
            "AWS does not accept the credentials".to_owned(),
            "Check the keys (aws sts get-caller-identity) and this machine's clock.".to_owned(),
        ),
        ApiRefusal::InvalidDocument => (
            "ssm.document",
            CANNOT_CONNECT,
            format!("the port-forwarding document is not known in {region}"),
            "AWS-StartPortForwardingSessionToRemoteHost must exist in the region.".to_owned(),
        ),
        ApiRefusal::Throttled => (
            "ssm.throttled",
            THROTTLED,
            "AWS limits the rate of StartSession calls".to_owned(),
            "Try again in a few seconds.".to_owned(),
        ),
        ApiRefusal::Other => (
            "ssm.refused",
            CANNOT_CONNECT,
            "AWS refused the session".to_owned(),
            "Try again; if it stays, give AWS support the request id.".to_owned(),
        ),
    };
    Said::new(id, state, message)
        .detail(detail(answer))
        .hint(hint)
}

fn detail(answer: &ApiAnswer) -> String {
    let mut text = format!("{}: {}", answer.code, answer.message);
    if let Some(id) = &answer.request_id {
        text.push_str(&format!(" (request id {id})"));
    }
    text
}
