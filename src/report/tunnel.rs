//! Reports about the tunnel, from the path to AWS to the bastion's dial.

use super::aws::{credentials, internal, late};
use super::context::ErrorContext;
use super::message::{BROKEN, CANNOT_CONNECT, CONFIGURATION, Message, NOT_AUTHORIZED, REJECTED};
use super::phrases::{
    BAD_ANSWER, PREFERENCES, SET_CLOCK, handshake_timeout, partition, restart_agent, sentence,
    service_host, shutting_down, try_port,
};
use super::{api, ssm_end};

use std::io;

use crate::config::{Bastion, Endpoint, Via};
use crate::tunnel::{ApiRefusal, DirectFailure, TunnelError};

pub(super) fn tunnel(error: &TunnelError, context: Option<&ErrorContext<'_>>) -> Message {
    let cannot = |id| Message::new(id, CANNOT_CONNECT, error.to_string());
    match error {
        TunnelError::Credentials(error) => credentials(error),
        TunnelError::NoRegion => Message::new("aws.no-region", CONFIGURATION, error.to_string())
            .hint("Set region = \"REGION\" for the target, or start pgiam with AWS_REGION."),
        TunnelError::Api {
            operation,
            kind,
            answer,
            bastion,
            region,
        } => api::refused(
            operation,
            *kind,
            answer,
            &api::Place { bastion, region },
            context,
        ),
        TunnelError::NoBastion { wanted, region } => no_bastion(wanted, region, context),
        TunnelError::AllBastions(tried, left_out) => all_bastions(tried, *left_out, context),
        TunnelError::ApiUnreachable {
            region,
            host,
            reason,
        } => api_unreachable(region, host.as_deref(), reason),
        TunnelError::Late(call) => late(call, "ssm.throttled"),
        TunnelError::Internal(stopped) => internal(stopped, error.to_string()),
        TunnelError::BadAnswer { operation, reason } => bad_answer(operation, reason),
        TunnelError::IncompleteAnswer(_) => cannot("ssm.answer").hint(BAD_ANSWER),
        TunnelError::ForeignStreamUrl { .. } => cannot("ssm.foreign-stream")
            .hint("If that host is meant, set AWS_ENDPOINT_URL_SSMMESSAGES to it."),
        TunnelError::ChannelConnect { host, port, reason } => channel_connect(host, *port, reason),
        TunnelError::ChannelRefused { skew: Some(_), .. } => {
            Message::new("aws.clock", NOT_AUTHORIZED, error.to_string()).hint(SET_CLOCK)
        }
        TunnelError::ChannelRefused { status, region, .. } => {
            Message::new("ssm.channel-refused", REJECTED, error.to_string())
                .hint(channel_refused(*status, region))
        }
        TunnelError::HandshakeTimeout { bastion, after } => {
            handshake_timeout(bastion, &format!(" in {} s", after.as_secs()))
        }
        TunnelError::AgentTooOld {
            bastion, needed, ..
        } => cannot("ssm.agent-old")
            .detail("Older agents ignore the database's host name and connect to themselves.")
            .hint(update_agent(bastion, &format!("{needed} or newer"))),
        TunnelError::NoMultiplexing { bastion, .. } => cannot("ssm.no-multiplexing")
            .detail("Agents carry several connections in one session from 3.0.196.0 on.")
            .hint(update_agent(bastion, "the current version")),
        TunnelError::DataKey {
            key,
            denied,
            reason,
        } => data_key(key, *denied, reason),
        TunnelError::UnsupportedAction { .. } => {
            Message::new("ssm.unsupported", REJECTED, error.to_string())
                .hint("Update pgiam if it is old.")
        }
        TunnelError::DialRefused { bastion, endpoint } => dial_refused(bastion, endpoint, context),
        TunnelError::DialTimeout {
            bastion,
            endpoint,
            after,
        } => dial_timeout(
            &format!(
                "{bastion} had no connection to {endpoint} after {} s",
                after.as_secs()
            ),
            context,
        ),
        TunnelError::NameNotResolved {
            bastion,
            endpoint,
            reason,
        } => name_not_resolved(bastion, endpoint, reason),
        TunnelError::AgentSilent { bastion, after } => agent_silent(bastion, after.as_secs()),
        TunnelError::Delayed { bastion, after } => delayed(bastion, after.as_secs()),
        TunnelError::Stranded { .. } => dial_timeout(&error.to_string(), context),
        TunnelError::SessionEnded { cause, reason } => ssm_end::ended(*cause, reason, context),
        TunnelError::ChannelLost { reason } => channel_lost(reason),
        TunnelError::Overrun => Message::new("tunnel.overrun", BROKEN, error.to_string()).hint(
            "Read large results to their end, or in parts (a cursor, \\set FETCH_COUNT in psql).",
        ),
        TunnelError::Protocol { .. } => Message::new("ssm.protocol", BROKEN, error.to_string())
            .hint("Connect again: pgiam opens a new session."),
        TunnelError::Proxy {
            proxy,
            host,
            reason,
        } => by_proxy(proxy, host, reason),
        TunnelError::Direct {
            endpoint,
            failure,
            source,
        } => direct(endpoint, *failure, source, context),
        TunnelError::ShuttingDown => shutting_down(),
    }
}

fn channel_lost(reason: &str) -> Message {
    Message::new(
        "ssm.lost",
        BROKEN,
        "the connection to the SSM service was lost",
    )
    .detail(sentence(reason))
    .hint("Connect again: pgiam opens a new session.")
}

fn bad_answer(operation: &str, reason: &str) -> Message {
    let message = format!("the answer to {operation} is not usable");
    Message::new("ssm.answer", CANNOT_CONNECT, message)
        .detail(sentence(reason))
        .hint(BAD_ANSWER)
}

fn direct(
    endpoint: &Endpoint,
    failure: DirectFailure,
    source: &io::Error,
    context: Option<&ErrorContext<'_>>,
) -> Message {
    let Endpoint { host, .. } = endpoint;
    let hint = match failure {
        DirectFailure::Timeout => format!(
            "Possible causes: the port is filtered (the database's security group must allow it from this machine), or host is inside a VPC and the VPN is down. {} shows the same; where there is no way from here, set bastion to a managed node's id instead of via = \"direct\".",
            try_port(context)
        ),
        DirectFailure::Refused => format!(
            "The host is there, and nobody listens: the database is stopped, or has another port (aws rds describe-db-instances shows both). {} shows the same.",
            try_port(context)
        ),
        DirectFailure::UnknownName => format!(
            "This machine's DNS does not know the name, or does not answer. Is it spelled right (nslookup {host}), and is the VPN up if the name needs one?"
        ),
        DirectFailure::Other => format!(
            "via = \"direct\" needs a route to {endpoint} from here: is the VPN up? Where there is none, set bastion to a managed node's id."
        ),
    };
    Message::new(
        "direct.connect",
        CANNOT_CONNECT,
        format!("cannot connect to {endpoint}"),
    )
    .detail(sentence(&source.to_string()))
    .hint(hint)
}

fn no_bastion(wanted: &str, region: &str, context: Option<&ErrorContext<'_>>) -> Message {
    let bastion = match context.map(|context| &context.target.settings.via) {
        Some(Via::Ssm(settings)) => Some(&settings.bastion),
        _ => None,
    };
    let filter = match bastion {
        Some(Bastion::Tag { key, value }) => {
            format!(" --filters \"Key=tag:{key},Values={value}\"")
        }
        Some(Bastion::Nodes(_) | Bastion::Auto) | None => String::new(),
    };
    let (message, lists, tag) = match bastion {
        Some(Bastion::Auto) => (
            format!("there is no managed node in {region} to go through"),
            "This lists them",
            "pgiam setup bastion prints a template for one. ",
        ),
        _ => (
            format!("no managed node in {region} is online and matches {wanted}"),
            "This lists those that do",
            "Does the instance have the tag, and is it running? ",
        ),
    };
    Message::new("ssm.no-bastion", CANNOT_CONNECT, message).hint(format!(
        "{lists}: aws ssm describe-instance-information --region {region}{filter}. {tag}For its agent to connect, its role needs AmazonSSMManagedInstanceCore, and it must reach the ssm and ssmmessages endpoints."
    ))
}

/// Reports every bastion with its own reason. SQLSTATE and hint come from the most informative one.
fn all_bastions(
    tried: &[(String, TunnelError)],
    left_out: usize,
    context: Option<&ErrorContext<'_>>,
) -> Message {
    // With several nodes, a stopped one is expected; any other reason is more informative.
    let is_offline = |error: &TunnelError| {
        matches!(
            error,
            TunnelError::Api {
                kind: ApiRefusal::TargetNotConnected,
                ..
            }
        )
    };
    let each: Vec<String> = tried
        .iter()
        .map(|(bastion, error)| match error {
            TunnelError::Api { answer, .. } => format!("{bastion}: {}", api::detail(answer)),
            error => format!("{bastion}: {}", tunnel(error, context).message),
        })
        .collect();
    let telling = tried
        .iter()
        .find(|(_, error)| !is_offline(error))
        .or(tried.first());
    let (sqlstate, hint) = match telling {
        Some((bastion, error)) => {
            let said = tunnel(error, context);
            let hint = said.hint.map(|hint| format!("For {bastion}: {hint}"));
            (said.sqlstate, hint)
        }
        None => (CANNOT_CONNECT, None),
    };
    let message = match tried.len() {
        count if left_out > 0 => format!(
            "none of {count} bastions works ({left_out} more match and were not tried in this attempt)"
        ),
        1 => "the only bastion does not work".to_owned(),
        count => format!("none of the {count} bastions works"),
    };
    Message {
        hint,
        ..Message::new("ssm.all-bastions", sqlstate, message)
            .detail(format!("{}.", each.join("; ")))
    }
}

fn api_unreachable(region: &str, host: Option<&str>, reason: &str) -> Message {
    Message::new(
        "ssm.unreachable",
        CANNOT_CONNECT,
        format!("cannot reach the SSM API in {region}"),
    )
    .detail(sentence(reason))
    .hint(format!(
        "Check the network and DNS for {}; behind a proxy set HTTPS_PROXY, behind TLS inspection AWS_CA_BUNDLE.",
        host.map_or_else(|| service_host("ssm", region), str::to_owned)
    ))
}

fn channel_connect(host: &str, port: u16, reason: &str) -> Message {
    Message::new(
        "ssm.channel-connect",
        CANNOT_CONNECT,
        format!("cannot open the data channel to {host}"),
    )
    .detail(sentence(reason))
    .hint(format!(
        "From here {host} must be reachable on port {port}; behind a proxy set HTTPS_PROXY, behind TLS inspection AWS_CA_BUNDLE."
    ))
}

fn channel_refused(status: u16, region: &str) -> String {
    if status != 403 {
        return "Try again; if it stays, see the AWS Health dashboard.".to_owned();
    }
    let partition = partition(region);
    format!(
        "Your policy must allow ssmmessages:OpenDataChannel on arn:{partition}:ssm:*:*:session/${{aws:userid}}-*. If it does, update pgiam if it is old."
    )
}

fn by_proxy(proxy: &str, host: &str, reason: &str) -> Message {
    Message::new(
        "net.proxy",
        CANNOT_CONNECT,
        format!("the proxy {proxy} did not connect us to {host}"),
    )
    .detail(sentence(reason))
    .hint(format!(
        "The proxy is the one of HTTPS_PROXY. It must allow CONNECT to {host}; if that can be reached without it, add the name to NO_PROXY."
    ))
}

/// Reports that the service answers pings, but the agent acknowledges nothing.
fn agent_silent(bastion: &str, seconds: u64) -> Message {
    Message::new(
        "ssm.agent-silent",
        CANNOT_CONNECT,
        format!("the SSM agent on {bastion} has not answered for {seconds} s"),
    )
    .detail("The Session Manager service answers; the agent does not acknowledge what it is sent.")
    .hint(format!(
        "Possible causes: the instance or its agent hangs or has lost its network, and Systems Manager has not noticed. Connect again: pgiam opens a new session. If it stays, {}.",
        restart_agent(bastion)
    ))
}

fn delayed(bastion: &str, seconds: u64) -> Message {
    Message::new(
        "ssm.delayed",
        CANNOT_CONNECT,
        format!("messages of the SSM agent on {bastion} have been missing for {seconds} s"),
    )
    .detail("A connection to the SSM service was lost. The agent repeats what was lost with it one message at a time, and everything after it waits.")
    .hint("Connect again: pgiam takes another session.")
}

fn name_not_resolved(bastion: &str, endpoint: &Endpoint, reason: &str) -> Message {
    let Endpoint { host, .. } = endpoint;
    Message::new(
        "tunnel.name",
        CANNOT_CONNECT,
        format!("the bastion {bastion} cannot resolve {host}"),
    )
    .detail(sentence(&format!("The bastion's resolver says: {reason}")))
    .hint(format!(
        "nslookup {host} on the bastion shows the same. Possible causes: the name is misspelled, or the database is deleted; DNS is off in the bastion's VPC (enableDnsSupport, enableDnsHostnames); the name is in a private hosted zone that is not associated with that VPC; the bastion uses another resolver that does not answer."
    ))
}

fn update_agent(bastion: &str, version: &str) -> String {
    if bastion.starts_with("ecs:") {
        return "The agent in a container comes with the ECS platform: start the task anew, on a newer platform version.".to_owned();
    }
    format!(
        "Update it to {version} (its sessions end then): aws ssm send-command --document-name AWS-UpdateSSMAgent --instance-ids {bastion}"
    )
}

fn data_key(key: &str, denied: bool, reason: &str) -> Message {
    if denied {
        return Message::new(
            "kms.denied",
            REJECTED,
            "AWS does not let you use the KMS key that sessions are encrypted with",
        )
        .detail(sentence(reason))
        .hint(format!(
            "Your policy needs: {{\"Effect\": \"Allow\", \"Action\": \"kms:GenerateDataKey\", \"Resource\": \"{key}\"}}. The policy of the key must allow it, too. The key is set in {PREFERENCES}."
        ));
    }
    Message::new(
        "kms.data-key",
        CANNOT_CONNECT,
        "KMS gave no key to encrypt the session with",
    )
    .detail(sentence(reason))
    .hint(format!(
        "Is the key enabled, and can KMS be reached from here? The key is {key}, as set in {PREFERENCES}."
    ))
}

fn dial_refused(bastion: &str, endpoint: &Endpoint, context: Option<&ErrorContext<'_>>) -> Message {
    Message::new(
        "tunnel.dial",
        CANNOT_CONNECT,
        format!("the bastion {bastion} could not connect to {endpoint}"),
    )
    .detail("The SSM agent reported ConnectToPortError, which does not say why.")
    .hint(format!(
        "{} shows the reason. Refused: the database is stopped or has another port. Timeout: the database's security group must allow the port from the bastion's group.",
        try_port(context)
    ))
}

fn dial_timeout(what: &str, context: Option<&ErrorContext<'_>>) -> Message {
    Message::new(
        "tunnel.dial-timeout",
        CANNOT_CONNECT,
        format!("the bastion {what}"),
    )
    .detail("The SSM agent waits in silence while nobody answers.")
    .hint(format!(
        "Possible causes: the port is filtered (the database's security group must allow it from the bastion's group), which {} tells; or the database is slow to answer (raise dial_timeout).",
        try_port(context)
    ))
}
