//! Reports about the tunnel, from the path to AWS to the bastion's dial.

use super::aws::{call_timeout, credentials, internal};
use super::context::ErrorContext;
use super::hint::Hint;
use super::message::{BROKEN, CANNOT_CONNECT, CONFIGURATION, Message, NOT_AUTHORIZED, REJECTED};
use super::phrases::{
    AGENT_NEEDS, BAD_ANSWER, BEHIND_PROXY, NEW_SESSION, PREFERENCES, SET_CLOCK, SET_REGION,
    add_statement, handshake_timeout, partition, restart_hint, sentence, service_host,
    shutting_down, test_port,
};
use super::{api, relay, ssm_end};

use std::io;

use crate::base::names::NodeId;
use crate::config::{Bastion, Endpoint, Via};
use crate::tunnel::{ApiRefusal, DirectFailure, TunnelError};

pub(super) fn tunnel(error: &TunnelError, context: Option<&ErrorContext<'_>>) -> Message {
    let cannot = |id| Message::new(id, CANNOT_CONNECT, error.to_string());
    match error {
        TunnelError::Credentials(error) => credentials(error),
        TunnelError::NoRegion => Message::new("aws.no-region", CONFIGURATION, error.to_string())
            .hint(SET_REGION),
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
            &api::BastionLocation { bastion, region },
            context,
        ),
        TunnelError::NoBastion { wanted, region } => no_bastion(wanted, region, context),
        TunnelError::AllBastions(tried, left_out) => all_bastions(tried, *left_out, context),
        TunnelError::ApiUnreachable {
            region,
            host,
            reason,
        } => api_unreachable(region, host.as_deref(), reason),
        TunnelError::Late(call) => call_timeout(call, "ssm.throttled"),
        TunnelError::Internal(stopped) => internal(stopped, error.to_string()),
        TunnelError::BadAnswer { operation, reason } => bad_answer(operation, reason),
        TunnelError::IncompleteAnswer(_) => cannot("ssm.answer").hint(BAD_ANSWER),
        TunnelError::ForeignStreamUrl { .. } => cannot("ssm.foreign-stream")
            .hint("If this host is an endpoint of your own, set AWS_ENDPOINT_URL_SSMMESSAGES to it."),
        TunnelError::ChannelConnect { host, port, reason } => channel_connect(host, *port, reason),
        TunnelError::ChannelRefused { skew: Some(_), .. } => {
            Message::new("aws.clock", NOT_AUTHORIZED, error.to_string()).hint(SET_CLOCK)
        }
        TunnelError::ChannelRefused { status, region, .. } => {
            Message::new("ssm.channel-refused", REJECTED, error.to_string())
                .hint(channel_refused(*status, region))
        }
        TunnelError::HandshakeTimeout { bastion, after } => {
            handshake_timeout(bastion, &format!("within {} s", after.as_secs()))
        }
        TunnelError::AgentTooOld {
            bastion, needed, ..
        } => agent_too_old(error, bastion, needed),
        TunnelError::NoMultiplexing { bastion, .. } => no_multiplexing(error, bastion),
        TunnelError::DataKey {
            key,
            denied,
            reason,
        } => data_key(key, *denied, reason),
        TunnelError::UnsupportedAction { .. } => {
            Message::new("ssm.unsupported", REJECTED, error.to_string())
                .hint("Update pgiam.")
        }
        TunnelError::DialRefused { bastion, endpoint } => dial_refused(bastion, endpoint, context),
        TunnelError::DialTimeout {
            bastion,
            endpoint,
            after,
        } => dial_timeout(
            &format!(
                "{bastion} did not connect to {endpoint} within {} s",
                after.as_secs()
            ),
            context,
        ),
        TunnelError::NameNotResolved {
            bastion,
            endpoint,
            reason,
        } => name_not_resolved(bastion, endpoint, reason),
        TunnelError::Relay(refused) => relay::refused(refused, context),
        TunnelError::RelayLost { bastion, reason } => relay::lost(bastion, reason),
        TunnelError::NeitherRelayNorHost { relay, host } => {
            relay::neither(relay, tunnel(host, context))
        }
        TunnelError::AgentSilent { bastion, after } => agent_silent(bastion, after.as_secs()),
        TunnelError::Delayed { bastion, after } => messages_delayed(bastion, after.as_secs()),
        TunnelError::Stranded { .. } => dial_timeout(&error.to_string(), context),
        TunnelError::SessionEnded { cause, reason } => ssm_end::ended(*cause, reason, context),
        TunnelError::ChannelLost { reason } => channel_lost(reason),
        TunnelError::Overrun => Message::new("tunnel.overrun", BROKEN, error.to_string()).hint(
            "Read large results to the end, or in parts (a cursor, or \\set FETCH_COUNT 1000 in psql).",
        ),
        TunnelError::Protocol { .. } => Message::new("ssm.protocol", BROKEN, error.to_string())
            .hint(NEW_SESSION),
        TunnelError::Proxy {
            proxy,
            host,
            reason,
        } => proxy_failed(proxy, host, reason),
        TunnelError::Direct {
            endpoint,
            failure,
            source,
        } => direct(endpoint, *failure, source, context),
        TunnelError::ShuttingDown => shutting_down(),
    }
}

fn agent_too_old(error: &TunnelError, bastion: &str, needed: &str) -> Message {
    Message::new("ssm.agent-old", CANNOT_CONNECT, error.to_string())
        .detail("Older agents ignore the database's host name and connect to the bastion itself.")
        .hint(update_agent(bastion, &format!("{needed} or newer")))
}

fn no_multiplexing(error: &TunnelError, bastion: &str) -> Message {
    Message::new("ssm.no-multiplexing", CANNOT_CONNECT, error.to_string())
        .detail("Agents support several connections in one session from version 3.0.196.0.")
        .hint(update_agent(bastion, "the current version"))
}

fn channel_lost(reason: &str) -> Message {
    Message::new(
        "ssm.lost",
        BROKEN,
        "the connection to the SSM service was lost",
    )
    .detail(sentence(reason))
    .hint(NEW_SESSION)
}

fn bad_answer(operation: &str, reason: &str) -> Message {
    let message = format!("invalid answer to {operation}");
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
        DirectFailure::Timeout => Hint::from(
            "Possible causes: the database's security group does not allow the port from this machine; host is inside a VPC and the VPN is down. Without a route from this machine, set bastion to the id of a managed node instead of via = \"direct\".",
        )
        .and(test_port(context)),
        DirectFailure::Refused => Hint::from(
            "Possible causes: the database is stopped; it uses another port. To see its status and port, run: `aws rds describe-db-instances`",
        )
        .and(test_port(context)),
        DirectFailure::UnknownName => Hint::from(
            "Check the spelling of host, this machine's DNS, and the VPN if the name needs one. To test the name, run:",
        )
        .run(format!("nslookup {host}")),
        DirectFailure::Other => Hint::from(format!(
            "Check the VPN: via = \"direct\" needs a route from this machine to {endpoint}. Without a route, set bastion to the id of a managed node."
        )),
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
    let (message, remedy) = match bastion {
        Some(Bastion::Auto) => (
            format!("found no managed node in {region}"),
            "Connect an existing instance to Systems Manager, or print a template for a bastion: `pgiam setup bastion`",
        ),
        _ => (
            format!("no managed node in {region} is online and matches {wanted}"),
            "Check that the instance has the tag and is running.",
        ),
    };
    Message::new("ssm.no-bastion", CANNOT_CONNECT, message).hint(
        Hint::from(remedy)
            .and(AGENT_NEEDS)
            .and("To list the managed nodes, run:")
            .run(format!(
                "aws ssm describe-instance-information --region {region}{filter}"
            )),
    )
}

/// Reports every bastion with its own reason. SQLSTATE and hint come from the most informative one.
fn all_bastions(
    tried: &[(NodeId, TunnelError)],
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
            let message = tunnel(error, context);
            let of = Hint::from(format!("For {bastion}:"));
            let hint = message.hint.map(|hint| of.and(hint));
            (message.sqlstate, hint)
        }
        None => (CANNOT_CONNECT, None),
    };
    let message = match tried.len() {
        count if left_out > 0 => {
            format!("all {count} bastions tried in this attempt failed ({left_out} more match)")
        }
        1 => "the only bastion failed".to_owned(),
        count => format!("all {count} bastions failed"),
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
        "Check the network and DNS for {}. {BEHIND_PROXY}",
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
        "Allow connections from this machine to {host} on port {port}. {BEHIND_PROXY}"
    ))
}

fn channel_refused(status: u16, region: &str) -> String {
    if status != 403 {
        return "Try again. If the error persists, check the AWS Health dashboard.".to_owned();
    }
    let partition = partition(region);
    format!(
        "Allow ssmmessages:OpenDataChannel in your IAM policy on arn:{partition}:ssm:*:*:session/${{aws:userid}}-* (if it is allowed, update pgiam)."
    )
}

fn proxy_failed(proxy: &str, host: &str, reason: &str) -> Message {
    Message::new(
        "net.proxy",
        CANNOT_CONNECT,
        format!("the proxy {proxy} did not connect to {host}"),
    )
    .detail(sentence(reason))
    .hint(format!(
        "Allow CONNECT to {host} on the proxy (set by HTTPS_PROXY). If this machine can reach the host without the proxy, add the host to NO_PROXY."
    ))
}

/// Reports that the service answers pings, but the agent acknowledges nothing.
fn agent_silent(bastion: &str, seconds: u64) -> Message {
    Message::new(
        "ssm.agent-silent",
        CANNOT_CONNECT,
        format!("the SSM agent on {bastion} has not answered for {seconds} s"),
    )
    .detail("The Session Manager service answers, but the agent acknowledges no messages.")
    .hint(
        Hint::from(NEW_SESSION)
            .and("Possible causes: the instance or its agent hangs or has lost its network, and Systems Manager has not noticed. If the error persists,")
            .and(restart_hint(bastion)),
    )
}

fn messages_delayed(bastion: &str, seconds: u64) -> Message {
    Message::new(
        "ssm.delayed",
        CANNOT_CONNECT,
        format!("messages of the SSM agent on {bastion} have been missing for {seconds} s"),
    )
    .detail("A connection to the SSM service was lost. The agent resends the lost messages one at a time, and all later messages wait.")
    .hint("Connect again: pgiam uses another session.")
}

pub(super) fn name_not_resolved(bastion: &str, endpoint: &Endpoint, reason: &str) -> Message {
    let Endpoint { host, .. } = endpoint;
    Message::new(
        "tunnel.name",
        CANNOT_CONNECT,
        format!("the bastion {bastion} cannot resolve {host}"),
    )
    .detail(sentence(&format!("The bastion's resolver reported: {reason}")))
    .hint(
        Hint::from("Possible causes: the name is misspelled, or the database is deleted; DNS is off in the bastion's VPC (enableDnsSupport, enableDnsHostnames); the name is in a private hosted zone that is not associated with that VPC; the bastion uses another resolver that does not answer. To test the name, run on the bastion:")
            .run(format!("nslookup {host}")),
    )
}

fn update_agent(bastion: &str, version: &str) -> Hint {
    if bastion.starts_with("ecs:") {
        return "Start a new task on a newer ECS platform version, which contains the agent."
            .into();
    }
    Hint::from(format!(
        "Update the agent to {version}, which ends its sessions:"
    ))
    .run(format!(
        "aws ssm send-command --document-name AWS-UpdateSSMAgent --instance-ids {bastion}"
    ))
}

fn data_key(key: &str, denied: bool, reason: &str) -> Message {
    if denied {
        return Message::new(
            "kms.denied",
            REJECTED,
            "AWS denied kms:GenerateDataKey on the key that encrypts sessions",
        )
        .detail(sentence(reason))
        .hint(
            add_statement("kms:GenerateDataKey", &format!("\"{key}\"")).and(format!(
                "The key's policy must also allow it. The key is set in {PREFERENCES}."
            )),
        );
    }
    Message::new(
        "kms.data-key",
        CANNOT_CONNECT,
        "cannot get a data key from KMS for the session",
    )
    .detail(sentence(reason))
    .hint(format!(
        "Check that the key {key} is enabled, and that this machine can reach KMS. The key is set in {PREFERENCES}."
    ))
}

pub(super) fn dial_refused(
    bastion: &str,
    endpoint: &Endpoint,
    context: Option<&ErrorContext<'_>>,
) -> Message {
    Message::new(
        "tunnel.dial",
        CANNOT_CONNECT,
        format!("the bastion {bastion} could not connect to {endpoint}"),
    )
    .detail("The SSM agent reported ConnectToPortError, which does not contain the reason.")
    .hint(
        Hint::from("Check that the database is running on this port, and that its security group allows the port from the bastion's group. A test from the bastion shows the cause: if the connection is refused, the database is stopped or uses another port; if it times out, the security group does not allow the port.")
            .and(test_port(context)),
    )
}

pub(super) fn dial_timeout(what: &str, context: Option<&ErrorContext<'_>>) -> Message {
    Message::new(
        "tunnel.dial-timeout",
        CANNOT_CONNECT,
        format!("the bastion {what}"),
    )
    .detail("The SSM agent reports nothing while it waits for an answer.")
    .hint(
        Hint::from("Possible causes: the database's security group does not allow the port from the bastion's group; the database is slow to answer (raise dial_timeout).")
            .and(test_port(context)),
    )
}
