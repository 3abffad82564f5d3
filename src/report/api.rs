//! Reports about refusals of the Systems Manager API, with the policy statements that they call
//! for.

use super::aws::rejected;
use super::context::ErrorContext;
use super::message::{CANNOT_CONNECT, Message, NOT_AUTHORIZED, REJECTED, THROTTLED};
use super::phrases::{of_profile, partition, renew};

use crate::aws::api_error::ApiAnswer;
use crate::config::Via;
use crate::tunnel::ApiRefusal;

/// AWS's own document for forwarding to a host behind the node.
const DOCUMENT: &str = "AWS-StartPortForwardingSessionToRemoteHost";

/// Bastion and region of a session.
pub(super) struct Place<'a> {
    pub(super) bastion: &'a str,
    pub(super) region: &'a str,
}

pub(super) fn refused(
    operation: &str,
    kind: ApiRefusal,
    answer: &ApiAnswer,
    place: &Place<'_>,
    context: Option<&ErrorContext<'_>>,
) -> Message {
    let Place { bastion, region } = place;
    let profile = context.and_then(|context| context.target.settings.profile.as_deref());
    // Users want to start a session; the other calls only support it.
    let starts = operation == "StartSession";
    let of_session = |start: String, other: String| if starts { start } else { other };
    let said = match kind {
        ApiRefusal::TargetNotConnected => Message::new(
            "ssm.target-not-connected",
            CANNOT_CONNECT,
            format!("the bastion {bastion} is not connected to Session Manager in {region}"),
        )
        .hint(look_at(bastion, region)),
        ApiRefusal::AccessDenied => Message::new(
            "ssm.access-denied",
            REJECTED,
            of_session(
                format!("AWS does not allow the session to {bastion}"),
                format!("AWS does not allow {operation}"),
            ),
        )
        .hint(statement(operation, answer, place, context)),
        ApiRefusal::DeniedByOrganisation => Message::new(
            "ssm.denied-by-organisation",
            REJECTED,
            of_session(
                format!("an organisation policy (SCP) forbids the session to {bastion}"),
                format!("an organisation policy (SCP) forbids {operation}"),
            ),
        )
        .hint("No policy in this account can allow it; ask whoever manages the AWS organisation."),
        ApiRefusal::CredentialsExpired => Message::new(
            "aws.expired",
            NOT_AUTHORIZED,
            format!("the AWS credentials{} have expired", of_profile(profile)),
        )
        .hint(renew(profile)),
        ApiRefusal::CredentialsRejected => rejected(profile, answer.clock),
        ApiRefusal::InvalidDocument => unknown_document(region, context),
        ApiRefusal::Throttled => Message::new(
            "ssm.throttled",
            THROTTLED,
            format!("AWS limits the rate of {operation} calls"),
        )
        .hint("Try again in a few seconds. If it stays, fewer sessions help (sessions and warm of the target), as do fewer programs that open their own."),
        ApiRefusal::Other => Message::new(
            "ssm.refused",
            CANNOT_CONNECT,
            of_session(
                "AWS refused the session".to_owned(),
                format!("AWS refused {operation}"),
            ),
        )
        .hint("Try again; if it stays, give AWS support the request id."),
    };
    said.detail(detail(answer))
}

/// Returns the command that shows why a node is not connected.
fn look_at(bastion: &str, region: &str) -> String {
    match ecs_task(bastion) {
        Some((cluster, task)) => format!(
            "Is the task running, with ECS Exec switched on? This shows it and its ExecuteCommandAgent: aws ecs describe-tasks --region {region} --cluster {cluster} --tasks {task}. A new task has another id; its role needs the ssmmessages actions."
        ),
        None => format!(
            "Is it running, and are id and region right? This lists it while its agent is connected: aws ssm describe-instance-information --region {region} --filters Key=InstanceIds,Values={bastion}. For that its role needs AmazonSSMManagedInstanceCore, and it must reach the ssm and ssmmessages endpoints."
        ),
    }
}

fn unknown_document(region: &str, context: Option<&ErrorContext<'_>>) -> Message {
    let said = |message| Message::new("ssm.document", CANNOT_CONNECT, message);
    match custom_document(context) {
        Some(document) => said(format!(
            "the session document {document} cannot be used in {region}"
        ))
        .hint(format!(
            "Documents belong to one region. This shows it: aws ssm describe-document --region {region} --name {document}. It must be a session document of type Port with the parameters host and portNumber; without document, pgiam takes {DOCUMENT}."
        )),
        None => said(format!(
            "the port-forwarding document is not known in {region}"
        ))
        .hint(format!("{DOCUMENT} must exist in the region.")),
    }
}

fn custom_document<'a>(context: Option<&'a ErrorContext<'_>>) -> Option<&'a str> {
    match &context?.target.settings.via {
        Via::Ssm(settings) => settings.document.as_deref(),
        Via::Direct => None,
    }
}

/// Returns the policy statement that allows the call, ready to paste.
fn statement(
    operation: &str,
    answer: &ApiAnswer,
    place: &Place<'_>,
    context: Option<&ErrorContext<'_>>,
) -> String {
    let partition = partition(place.region);
    let resource = match operation {
        "StartSession" => return start_statement(answer, place, custom_document(context)),
        "ResumeSession" | "TerminateSession" => {
            format!("arn:{partition}:ssm:*:*:session/${{aws:userid}}-*")
        }
        // Listing applies to no single resource.
        _ => "*".to_owned(),
    };
    let instead = match operation {
        "DescribeInstanceInformation" => {
            " It is needed to find bastions; with their ids in bastion it is not."
        }
        _ => "",
    };
    format!(
        "Your policy needs: {{\"Effect\": \"Allow\", \"Action\": \"ssm:{operation}\", \"Resource\": \"{resource}\"}}.{instead}"
    )
}

fn start_statement(answer: &ApiAnswer, place: &Place<'_>, document: Option<&str>) -> String {
    let Place { bastion, region } = place;
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
        ". Give the document a statement without conditions: a tag condition never matches it."
    } else {
        ""
    };
    format!(
        "Your policy needs: {{\"Effect\": \"Allow\", \"Action\": \"ssm:StartSession\", \"Resource\": [\"{node}\", \"{document}\"]}}{tags}"
    )
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
