//! Reports about AWS: credentials, tokens, the tunnel.

use super::{
    About, BROKEN, CANNOT_CONNECT, CONFIGURATION, INTERNAL, NOT_AUTHORIZED, REJECTED, Said,
    THROTTLED, sentence, try_port,
};
use crate::aws::CredentialsError;
use crate::config::Via;
use crate::token::TokenError;
use crate::tunnel::{ApiAnswer, ApiRefusal, TunnelError, chain};

pub(super) fn credentials(error: &CredentialsError) -> Said {
    let said = |id, state, hint: String| Said::new(id, state, error.to_string()).hint(hint);
    let refused = |id, hint: String| said(id, NOT_AUTHORIZED, hint);
    match error {
        CredentialsError::NotFound { profile, looked, .. } => refused("aws.no-credentials", first_login(profile.as_deref()))
            .detail(format!("Looked at: {}.", looked.join(", "))),
        CredentialsError::NoSuchProfile { known, .. } => said(
            "aws.no-profile",
            CONFIGURATION,
            format!("Profiles that exist: {}. Set profile, or AWS_PROFILE, to one of them; \"aws configure sso\" makes a new one.", list(known)),
        ),
        CredentialsError::Config { .. } => said("aws.config", CONFIGURATION, "Correct the file; no restart is needed.".to_owned()),
        CredentialsError::Expired { profile, .. } => refused("aws.expired", renew(profile.as_deref())),
        CredentialsError::SsoSession { profile, source, .. } => Said::new(
            "aws.sso-session",
            NOT_AUTHORIZED,
            format!("the SSO session{} has ended, or was never begun", of_profile(profile.as_deref())),
        )
        .detail(sentence(&chain(source)))
        .hint(format!("Run: aws sso login{}. No restart is needed.", profile_option(profile.as_deref()))),
        CredentialsError::AssumeRole { .. } => refused(
            "aws.assume-role",
            "The role's trust policy must name your identity, and your identity needs sts:AssumeRole on the role.".to_owned(),
        ),
        CredentialsError::Process { .. } => {
            refused("aws.credential-process", "Run the credential_process command of that profile by hand to see what it needs.".to_owned())
        }
        CredentialsError::Timeout { .. } => {
            refused("aws.credentials-timeout", "Check the network; a credential_process must not wait for input.".to_owned())
        }
        CredentialsError::CaBundle { .. } => said(
            "aws.ca-bundle",
            CONFIGURATION,
            "AWS_CA_BUNDLE (or ca_bundle of the profile) must name a readable PEM file with CA certificates, or be unset.".to_owned(),
        ),
        CredentialsError::Other { profile, source } => refused(
            "aws.credentials",
            format!("Try: aws sts get-caller-identity{}.", profile_option(profile.as_deref())),
        )
        .detail(sentence(&chain(source))),
    }
}

/// What to do where there were never any credentials. Files are read anew for every attempt; the
/// environment of a running program is not.
fn first_login(profile: Option<&str>) -> String {
    match profile {
        Some(profile) => format!(
            "Run: aws sso login --profile {profile}, or aws configure --profile {profile}. No restart is needed."
        ),
        None => "Run aws configure; or aws configure sso, and set profile to the name you give there; or start pgiam with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Files are read again without a restart.".to_owned(),
    }
}

/// What to do where credentials have ended.
fn renew(profile: Option<&str>) -> String {
    match profile {
        Some(profile) => format!(
            "Run: aws sso login --profile {profile}, or renew the profile's keys. No restart is needed."
        ),
        None => "Run aws sso login, or renew the keys in ~/.aws/credentials; no restart is needed. Keys in pgiam's own environment stay as they are: start it again with new ones.".to_owned(),
    }
}

fn of_profile(profile: Option<&str>) -> String {
    profile
        .map(|profile| format!(" of profile {profile}"))
        .unwrap_or_default()
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
        TokenError::BadRequest { .. } => {
            Said::new("token.request", CONFIGURATION, error.to_string())
                .hint("Correct host and region of the target.")
        }
        TokenError::Signing(_) | TokenError::Internal(_) => {
            Said::new("token.internal", INTERNAL, error.to_string())
                .detail(sentence(&chain(error)))
                .hint("This is a fault of pgiam; please report it.")
        }
    }
}

pub(super) fn tunnel(error: &TunnelError, about: Option<&About<'_>>) -> Said {
    let cannot = |id| Said::new(id, CANNOT_CONNECT, error.to_string());
    match error {
        TunnelError::Credentials(error) => credentials(error),
        TunnelError::NoRegion => Said::new("aws.no-region", CONFIGURATION, error.to_string())
            .hint("Set region = \"REGION\" for the target, or start pgiam with AWS_REGION."),
        TunnelError::Api { kind, answer, bastion, region, .. } => api(*kind, answer, bastion, region, about),
        TunnelError::ApiUnreachable { region, reason } => Said::new(
            "ssm.unreachable",
            CANNOT_CONNECT,
            format!("cannot reach the SSM API in {region}"),
        )
        .detail(sentence(reason))
        .hint(format!(
            "Check the network and DNS for ssm.{region}.amazonaws.com; behind TLS inspection set AWS_CA_BUNDLE."
        )),
        TunnelError::IncompleteAnswer(_) => cannot("ssm.answer").hint("Is an endpoint override (AWS_ENDPOINT_URL) set?"),
        TunnelError::ForeignStreamUrl { .. } => cannot("ssm.foreign-stream")
            .hint("If that host is meant, set AWS_ENDPOINT_URL_SSMMESSAGES to it."),
        TunnelError::ChannelConnect { host, reason } => Said::new(
            "ssm.channel-connect",
            CANNOT_CONNECT,
            format!("cannot open the data channel to {host}"),
        )
        .detail(sentence(reason))
        .hint(format!(
            "From here {host} must be reachable on port 443; behind TLS inspection set AWS_CA_BUNDLE."
        )),
        TunnelError::ChannelRefused { status, .. } => {
            let hint = match status {
                403 => "Your policy must allow ssmmessages:OpenDataChannel on arn:aws:ssm:*:*:session/${aws:userid}-*. If it does, check this machine's clock, and update pgiam if it is old.",
                _ => "Try again; if it stays, see the AWS Health dashboard.",
            };
            Said::new("ssm.channel-refused", REJECTED, error.to_string()).hint(hint)
        }
        TunnelError::HandshakeTimeout { bastion, after } => {
            handshake_timeout(bastion, &format!(" in {} s", after.as_secs()))
        }
        TunnelError::AgentTooOld { bastion, needed, .. } => cannot("ssm.agent-old")
            .detail("Older agents ignore the database's host name and connect to themselves.")
            .hint(format!("Update it to {needed} or newer: aws ssm send-command --document-name AWS-UpdateSSMAgent --instance-ids {bastion}")),
        TunnelError::UnsupportedAction { action } if action == "KMSEncryption" => kms()
            .detail("pgiam cannot encrypt inside the session. All that passes through it is TLS to the database in any case."),
        TunnelError::UnsupportedAction { .. } => Said::new("ssm.unsupported", REJECTED, error.to_string())
            .hint("Update pgiam if it is old."),
        TunnelError::DialRefused { bastion, endpoint } => Said::new(
            "tunnel.dial",
            CANNOT_CONNECT,
            format!("the bastion {bastion} could not connect to {endpoint}"),
        )
        .detail("The SSM agent reported ConnectToPortError, which does not say why.")
        .hint(format!(
            "{} shows the reason. Refused: the database is stopped or has another port. Unknown name: it must resolve in the bastion's VPC. Timeout: the database's security group must allow the port from the bastion's group.",
            try_port(about)
        )),
        TunnelError::SessionEnded { reason, .. } => ended(reason, about),
        TunnelError::ChannelLost { reason } => Said::new("ssm.lost", BROKEN, "the connection to the SSM service was lost")
            .detail(sentence(reason))
            .hint("Connect again: pgiam opens a new session."),
        TunnelError::Overrun => Said::new("tunnel.overrun", BROKEN, error.to_string())
            .hint("Read large results to their end, or in parts (a cursor, \\set FETCH_COUNT in psql)."),
        TunnelError::Protocol { .. } => Said::new("ssm.protocol", BROKEN, error.to_string())
            .hint("Connect again: pgiam opens a new session."),
        TunnelError::Direct { endpoint, .. } => cannot("direct.connect").hint(format!(
            "via = \"direct\" needs a route to {endpoint} from here; without one set bastion to a managed node's id."
        )),
        TunnelError::NoBastion { .. }
        | TunnelError::AllBastions(_)
        | TunnelError::NoMultiplexing { .. }
        | TunnelError::DataKey { .. }
        | TunnelError::DialTimeout { .. }
        | TunnelError::Proxy { .. } => cannot("tunnel"),
        TunnelError::ShuttingDown => super::shutting_down(),
    }
}

fn handshake_timeout(bastion: &str, when: &str) -> Said {
    Said::new(
        "ssm.handshake-timeout",
        CANNOT_CONNECT,
        format!("AWS did not finish the SSM handshake{when}"),
    )
    .hint(format!(
        "The SSM agent on {bastion} must reach the ssmmessages endpoint on port 443; so must this machine, without TLS inspection."
    ))
}

fn kms() -> Said {
    Said::new(
        "ssm.kms",
        REJECTED,
        "the account's Session Manager preferences ask for KMS encryption of sessions",
    )
    .hint("Turn KMS encryption off in the Session Manager preferences of this region (document SSM-SessionManagerRunShell).")
}

/// The service or the agent has ended the session. The agent gives its reasons in prose only; these
/// are the ones a user can do something about (observed in `channel_closed`).
fn ended(reason: &str, about: Option<&About<'_>>) -> Said {
    let words: Vec<&str> = reason.split_whitespace().collect();
    let words = words.join(" ");
    let words = words.trim_start_matches(['-', ' ']);
    let words = words
        .trim_start_matches("ERROR")
        .trim_start_matches(['-', ' ']);
    let said = if words.contains("Handshake timed out") {
        let bastion = match about.map(|about| &about.target.via) {
            Some(Via::Ssm(settings)) => settings.bastion.to_string(),
            _ => "the bastion".to_owned(),
        };
        handshake_timeout(&bastion, " in time")
    } else if words.contains("KMSEncryption") {
        kms()
    } else if words.contains("Forwarding to IP address") {
        Said::new(
            "ssm.forbidden-host",
            CANNOT_CONNECT,
            "the SSM agent does not forward to the address of host",
        )
        .hint("host must be the database's endpoint, not an address of instance metadata or DNS.")
    } else {
        Said::new("ssm.ended", BROKEN, "the SSM session was ended").hint(
            "Connect again: pgiam opens a new session. Idle timeout and maximum duration are set in the Session Manager preferences of the account.",
        )
    };
    if words.is_empty() {
        said
    } else {
        said.detail(words.to_owned())
    }
}

fn api(
    kind: ApiRefusal,
    answer: &ApiAnswer,
    bastion: &str,
    region: &str,
    about: Option<&About<'_>>,
) -> Said {
    let profile = about.and_then(|about| about.target.profile.as_deref());
    let (id, state, message, hint) = match kind {
        ApiRefusal::TargetNotConnected => (
            "ssm.target-not-connected",
            CANNOT_CONNECT,
            format!("the bastion {bastion} is not connected to Session Manager in {region}"),
            format!(
                "Is it running, and are id and region right? This lists it while its agent is connected: aws ssm describe-instance-information --region {region} --filters Key=InstanceIds,Values={bastion}. For that its role needs AmazonSSMManagedInstanceCore, and it must reach the ssm and ssmmessages endpoints."
            ),
        ),
        ApiRefusal::AccessDenied => (
            "ssm.access-denied",
            REJECTED,
            format!("AWS does not allow the session to {bastion}"),
            start_session_statement(answer, bastion, region),
        ),
        ApiRefusal::DeniedByOrganisation => (
            "ssm.denied-by-organisation",
            REJECTED,
            format!("an organisation policy (SCP) forbids the session to {bastion}"),
            "No policy in this account can allow it; ask whoever manages the AWS organisation."
                .to_owned(),
        ),
        ApiRefusal::CredentialsExpired => (
            "aws.expired",
            NOT_AUTHORIZED,
            format!("the AWS credentials{} have expired", of_profile(profile)),
            renew(profile),
        ),
        ApiRefusal::CredentialsRejected => (
            "aws.rejected",
            NOT_AUTHORIZED,
            format!("AWS does not accept the credentials{}", of_profile(profile)),
            format!(
                "Check the keys (aws sts get-caller-identity{}) and this machine's clock.",
                profile_option(profile)
            ),
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

/// The statement a policy needs, to paste.
fn start_session_statement(answer: &ApiAnswer, bastion: &str, region: &str) -> String {
    let partition = partition(region);
    let node = if bastion.starts_with("mi-") {
        format!("arn:{partition}:ssm:{region}:*:managed-instance/{bastion}")
    } else {
        format!("arn:{partition}:ec2:{region}:*:instance/{bastion}")
    };
    let tags = if answer.message.contains(":document/") {
        ". Give the document a statement without conditions: a tag condition never matches it."
    } else {
        ""
    };
    format!(
        "Your policy needs: {{\"Effect\": \"Allow\", \"Action\": \"ssm:StartSession\", \"Resource\": [\"{node}\", \"arn:{partition}:ssm:*::document/AWS-StartPortForwardingSessionToRemoteHost\"]}}{tags}"
    )
}

/// The partition that ARNs of a region begin with (AWS General Reference, "ARN format").
pub(super) fn partition(region: &str) -> &'static str {
    match region {
        _ if region.starts_with("cn-") => "aws-cn",
        _ if region.starts_with("us-gov-") => "aws-us-gov",
        _ if region.starts_with("us-iso-") => "aws-iso",
        _ if region.starts_with("us-isob-") => "aws-iso-b",
        _ if region.starts_with("eusc-") => "aws-eusc",
        _ => "aws",
    }
}

fn detail(answer: &ApiAnswer) -> String {
    let mut text = answer.code.clone();
    if !answer.message.is_empty() {
        text.push_str(&format!(": {}", answer.message));
    }
    if let Some(id) = &answer.request_id {
        text.push_str(&format!(" (request id {id})"));
    }
    text
}
