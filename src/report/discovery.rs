//! Reports about the RDS lookup of databases.

use super::api;
use super::aws::{credentials, late, rejected};
use super::context::ErrorContext;
use super::explain::Explanation;
use super::message::{
    CANNOT_CONNECT, CONFIGURATION, Message, NO_SUCH_DATABASE, NOT_AUTHORIZED, REJECTED, THROTTLED,
};
use super::phrases::{of_profile, partition, renew};

use std::time::Duration;

use crate::aws::KeyState;
use crate::aws::api_error::ApiAnswer;
use crate::aws::discover::DiscoverError;
use crate::aws::query::throttles;
use crate::aws::refused_keys;
use crate::config::RdsIdentifier;

/// Alternative that needs no lookup.
const INSTEAD: &str =
    "With host = \"…\", the database's endpoint, instead of db nothing has to be looked up.";
/// Text in IAM's refusals for a policy of the organisation.
const OF_ORGANISATION: &str = "service control policy";

/// Explains a lookup error where no particular target was requested.
#[must_use]
pub fn explain_lookup(error: &DiscoverError) -> Explanation {
    discovery(error, None).into()
}

pub(super) fn discovery(error: &DiscoverError, context: Option<&ErrorContext<'_>>) -> Message {
    match error {
        DiscoverError::Credentials(error) => credentials(error),
        DiscoverError::NoRegion => Message::new("aws.no-region", CONFIGURATION, error.to_string())
            .hint("Set region for the target, or start pgiam with AWS_REGION: an identifier says nothing about it."),
        DiscoverError::Refused {
            action,
            denied: true,
            answer,
            region,
        } => denied(action, answer, region),
        DiscoverError::Refused { action, answer, .. } => refused(action, answer, context),
        DiscoverError::Unreachable { .. } => {
            Message::new("discover.unreachable", CANNOT_CONNECT, error.to_string()).hint(format!(
                "Is there a way from here to the internet, or to a VPC endpoint of the service? HTTPS_PROXY and AWS_ENDPOINT_URL are honoured. {INSTEAD}"
            ))
        }
        DiscoverError::Late(call) => late(call, "discover.throttled"),
        DiscoverError::NoDatabase {
            wanted,
            region,
            nearest,
            unseen,
        } => no_database(error.to_string(), wanted, region, (nearest.as_deref(), unseen)),
        DiscoverError::Unusable { .. } => Message::new("discover.unusable", CANNOT_CONNECT, error.to_string())
            .hint("pgiam list shows the databases of the region and how they are."),
        DiscoverError::Answer { action, reason } => Message::new(
            "discover.answer",
            CANNOT_CONNECT,
            format!("the answer to {action} is not as AWS documents it"),
        )
        .detail(reason.clone())
        .hint(format!(
            "Is an endpoint override (AWS_ENDPOINT_URL) set, or does a proxy answer in AWS's place? {INSTEAD}"
        )),
    }
}

/// Reports a missing permission, with the statement to paste and the alternative without a lookup.
fn denied(action: &str, answer: &ApiAnswer, region: &str) -> Message {
    let of_organisation = answer.message.contains(OF_ORGANISATION);
    let statement = match of_organisation {
        true => "An organisation policy (SCP) forbids it, and none in this account can allow it."
            .to_owned(),
        false => format!(
            "Your policy needs: {{\"Effect\": \"Allow\", \"Action\": \"{action}\", \"Resource\": \"{}\"}}.",
            resource(action, region)
        ),
    };
    Message::new(
        "discover.denied",
        REJECTED,
        format!("AWS does not allow {action}"),
    )
    .detail(api::detail(answer))
    .hint(format!("{statement} {INSTEAD}"))
}

/// Returns the resource that the action applies to (Service Authorization Reference): one database
/// each, or all of them.
fn resource(action: &str, region: &str) -> String {
    match action.strip_prefix("rds:") {
        Some(_) => format!("arn:{}:rds:{region}:*:*", partition(region)),
        None => "*".to_owned(),
    }
}

fn refused(action: &str, answer: &ApiAnswer, context: Option<&ErrorContext<'_>>) -> Message {
    let profile = context.and_then(|context| context.target.settings.profile.as_deref());
    let said = match refused_keys(&answer.code) {
        Some(KeyState::Expired) => Message::new(
            "aws.expired",
            NOT_AUTHORIZED,
            format!("the AWS credentials{} have expired", of_profile(profile)),
        )
        .hint(renew(profile)),
        Some(_) => rejected(profile, answer.clock),
        None if throttles(&answer.code) => Message::new(
            "discover.throttled",
            THROTTLED,
            format!("AWS limits the rate of {action} calls"),
        )
        .hint(format!("Try again in a few seconds. {INSTEAD}")),
        None => Message::new(
            "discover.refused",
            CANNOT_CONNECT,
            format!("AWS refused {action}"),
        )
        .hint(format!(
            "Try again; if it stays, give AWS support the request id. {INSTEAD}"
        )),
    };
    said.detail(api::detail(answer))
}

fn no_database(
    message: String,
    wanted: &RdsIdentifier,
    region: &str,
    (nearest, unseen): (Option<&str>, &[&str]),
) -> Message {
    let suggestion = match nearest {
        Some(nearest) => {
            let reader = RdsIdentifier {
                identifier: nearest.to_owned(),
                reader: wanted.reader,
            };
            format!("Did you mean \"{reader}\"? ")
        }
        None => String::new(),
    };
    let said = Message::new("discover.no-database", NO_SUCH_DATABASE, message).hint(format!(
        "{suggestion}pgiam list --region {region} shows those that your credentials can see. Is it in another region or account? Then set region or profile."
    ));
    match unseen {
        [] => said,
        unseen => said.detail(format!(
            "Some could not be looked at, for want of {}.",
            unseen.join(", ")
        )),
    }
}

pub(super) fn timed_out(after: Duration) -> Message {
    Message::new(
        "discover.timeout",
        CANNOT_CONNECT,
        format!("the database was not found at RDS within {} s", after.as_secs()),
    )
    .hint("Write host = \"…\" instead of db to do without looking it up, or raise connect_timeout if AWS is slow from here.")
}
