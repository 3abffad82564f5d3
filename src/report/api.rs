//! Reports about refusals of the Systems Manager API, with the policy statements that they call
//! for.

use super::aws::{expired, rejected};
use super::context::ErrorContext;
use super::hint::Hint;
use super::message::{CANNOT_CONNECT, Message, REJECTED, THROTTLED};
use super::phrases::{AGENT_NEEDS, ASK_SUPPORT, DENIED_BY_ORGANISATION, add_statement, partition};

use crate::aws::api_error::ApiAnswer;
use crate::config::Via;
use crate::tunnel::ApiRefusal;

/// AWS's own document for forwarding to a host behind the node.
const DOCUMENT: &str = "AWS-StartPortForwardingSessionToRemoteHost";

/// Bastion and region of a session.
pub(super) struct BastionLocation<'a> {
    pub(super) bastion: &'a str,
    pub(super) region: &'a str,
}

pub(super) fn refused(
    operation: &str,
    kind: ApiRefusal,
    answer: &ApiAnswer,
    place: &BastionLocation<'_>,
    context: Option<&ErrorContext<'_>>,
) -> Message {
    let BastionLocation { bastion, region } = place;
    let profile = context.and_then(|context| context.target.settings.profile.as_deref());
    let call = match operation {
        "StartSession" => format!("StartSession on {bastion}"),
        other => other.to_owned(),
    };
    let message = match kind {
        ApiRefusal::TargetNotConnected => Message::new(
            "ssm.target-not-connected",
            CANNOT_CONNECT,
            format!("the bastion {bastion} is not connected to Session Manager in {region}"),
        )
        .hint(node_hint(bastion, region)),
        ApiRefusal::AccessDenied => Message::new(
            "ssm.access-denied",
            REJECTED,
            format!("AWS denied {call}"),
        )
        .hint(permission_hint(operation, answer, place, context)),
        ApiRefusal::DeniedByOrganisation => Message::new(
            "ssm.denied-by-organisation",
            REJECTED,
            format!("an organisation policy (SCP) denies {call}"),
        )
        .hint(DENIED_BY_ORGANISATION),
        ApiRefusal::CredentialsExpired => expired(profile),
        ApiRefusal::CredentialsRejected => rejected(profile, answer.clock),
        ApiRefusal::InvalidDocument => unknown_document(region, context),
        ApiRefusal::Throttled => Message::new(
            "ssm.throttled",
            THROTTLED,
            format!("AWS throttled {operation}"),
        )
        .hint("Try again in a few seconds. If the error persists, lower sessions and unset warm for the target, or run fewer programs that open sessions."),
        ApiRefusal::Other => Message::new(
            "ssm.refused",
            CANNOT_CONNECT,
            format!("AWS refused {call}"),
        )
        .hint(ASK_SUPPORT),
    };
    message.detail(detail(answer))
}

/// Returns the command that shows why a node is not connected.
fn node_hint(bastion: &str, region: &str) -> Hint {
    match ecs_task(bastion) {
        Some((cluster, task)) => Hint::from(
            "Check that the task is running with ECS Exec enabled (a new task has a new id), and that its role allows the ssmmessages actions. To see the task and its ExecuteCommandAgent, run:",
        )
        .run(format!(
            "aws ecs describe-tasks --region {region} --cluster {cluster} --tasks {task}"
        )),
        None => Hint::from("Check that the node is running and that its id and region are correct.")
            .and(AGENT_NEEDS)
            .and("This command lists the node while its agent is connected:")
            .run(format!(
                "aws ssm describe-instance-information --region {region} --filters Key=InstanceIds,Values={bastion}"
            )),
    }
}

fn unknown_document(region: &str, context: Option<&ErrorContext<'_>>) -> Message {
    let message = |text| Message::new("ssm.document", CANNOT_CONNECT, text);
    match custom_document(context) {
        Some(document) => message(format!(
            "the session document {document} cannot be used in {region}"
        ))
        .hint(
            Hint::from("Check that the document exists in this region, and is a session document of type Port with the parameters host and portNumber:")
                .run(format!("aws ssm describe-document --region {region} --name {document}"))
                .and(format!("To use {DOCUMENT} instead, remove document.")),
        ),
        None => message(format!(
            "the session document {DOCUMENT} does not exist in {region}"
        ))
        .hint("Check the target's region, or set document to a session document of this region."),
    }
}

fn custom_document<'a>(context: Option<&'a ErrorContext<'_>>) -> Option<&'a str> {
    match &context?.target.settings.via {
        Via::Ssm(settings) => settings.document.as_deref(),
        Via::Direct => None,
    }
}

/// Returns the policy statement that allows the call, ready to paste.
fn permission_hint(
    operation: &str,
    answer: &ApiAnswer,
    place: &BastionLocation<'_>,
    context: Option<&ErrorContext<'_>>,
) -> Hint {
    let partition = partition(place.region);
    let resource = match operation {
        "StartSession" => return start_statement(answer, place, custom_document(context)),
        "ResumeSession" | "TerminateSession" => {
            format!("arn:{partition}:ssm:*:*:session/${{aws:userid}}-*")
        }
        // Listing applies to no single resource.
        _ => "*".to_owned(),
    };
    let alternative = match operation {
        "DescribeInstanceInformation" => "To avoid the call, set bastion to the ids of the nodes.",
        _ => "",
    };
    add_statement(&format!("ssm:{operation}"), &format!("\"{resource}\"")).and(alternative)
}

fn start_statement(
    answer: &ApiAnswer,
    place: &BastionLocation<'_>,
    document: Option<&str>,
) -> Hint {
    let BastionLocation { bastion, region } = place;
    let partition = partition(region);
    let node = match ecs_task(bastion) {
        Some((cluster, task)) => format!("arn:{partition}:ecs:{region}:*:task/{cluster}/{task}"),
        None if bastion.starts_with("mi-") => {
            format!("arn:{partition}:ssm:{region}:*:managed-instance/{bastion}")
        }
        None => format!("arn:{partition}:ec2:{region}:*:instance/{bastion}"),
    };
    let document = match document {
        // AWS's own documents belong to no account.
        None => format!("arn:{partition}:ssm:*::document/{DOCUMENT}"),
        Some(name) if name.starts_with("AWS-") => format!("arn:{partition}:ssm:*::document/{name}"),
        Some(arn) if arn.starts_with("arn:") => arn.to_owned(),
        Some(name) => format!("arn:{partition}:ssm:{region}:*:document/{name}"),
    };
    let tags = if answer.message.contains(":document/") {
        "Put the document in a statement without conditions: a tag condition never matches it."
    } else {
        ""
    };
    let resources = format!("[\"{node}\", \"{document}\"]");
    add_statement("ssm:StartSession", &resources).and(tags)
}

/// Returns cluster and task of `ecs:CLUSTER_TASK_RUNTIME`.
fn ecs_task(bastion: &str) -> Option<(&str, &str)> {
    let (rest, _runtime) = bastion.strip_prefix("ecs:")?.rsplit_once('_')?;
    rest.rsplit_once('_')
}

/// Returns AWS's own text as a Detail.
pub(super) fn detail(answer: &ApiAnswer) -> String {
    let mut text = answer.code.to_string();
    if !answer.message.is_empty() {
        text.push_str(&format!(": {}", answer.message));
    }
    if let Some(id) = &answer.request_id {
        text.push_str(&format!(" (request id {id})"));
    }
    text
}
