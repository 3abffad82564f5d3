//! Reports about the RDS lookup of databases.

use super::api;
use super::aws::{call_timeout, credentials, expired, rejected};
use super::context::ErrorContext;
use super::explain::Explanation;
use super::hint::Hint;
use super::message::{
    CANNOT_CONNECT, CONFIGURATION, Message, NO_SUCH_DATABASE, REJECTED, THROTTLED,
};
use super::phrases::{
    ASK_SUPPORT, BAD_ANSWER, DENIED_BY_ORGANISATION, SET_REGION, add_statement, partition, sentence,
};

use std::time::Duration;

use crate::aws::KeyState;
use crate::aws::api_error::ApiAnswer;
use crate::aws::discover::DiscoverError;
use crate::aws::query::throttles;
use crate::aws::refused_keys;
use crate::config::RdsIdentifier;

/// Alternative that needs no lookup.
const WITHOUT_LOOKUP: &str = "To avoid the lookup, set host = \"ENDPOINT\" instead of db.";
/// Text in IAM's refusals for a policy of the organisation.
const ORGANISATION_POLICY: &str = "service control policy";

/// Explains a lookup error where no particular target was requested.
#[must_use]
pub fn explain_lookup(error: &DiscoverError) -> Explanation {
    discovery(error, None).into()
}

pub(super) fn discovery(error: &DiscoverError, context: Option<&ErrorContext<'_>>) -> Message {
    match error {
        DiscoverError::Credentials(error) => credentials(error),
        DiscoverError::NoRegion => Message::new("aws.no-region", CONFIGURATION, error.to_string())
            .hint(format!("{SET_REGION} The identifier in db does not contain a region.")),
        DiscoverError::Refused {
            action,
            denied: true,
            answer,
            region,
        } => denied(action, answer, region),
        DiscoverError::Refused { action, answer, .. } => refused(action, answer, context),
        DiscoverError::Unreachable { .. } => {
            Message::new("discover.unreachable", CANNOT_CONNECT, error.to_string()).hint(format!(
                "Check the route from this machine to the internet, or to a VPC endpoint of the service. Behind a proxy, set HTTPS_PROXY; for an endpoint of your own, set AWS_ENDPOINT_URL. {WITHOUT_LOOKUP}"
            ))
        }
        DiscoverError::Late(call) => call_timeout(call, "discover.throttled"),
        DiscoverError::NoDatabase {
            wanted,
            region,
            nearest,
            unseen,
        } => no_database(error.to_string(), wanted, region, (nearest.as_deref(), unseen)),
        DiscoverError::Unusable { .. } => Message::new("discover.unusable", CANNOT_CONNECT, error.to_string())
            .hint("To see the databases of the region and their status, run: `pgiam list`"),
        DiscoverError::Answer { action, reason } => Message::new(
            "discover.answer",
            CANNOT_CONNECT,
            format!("invalid answer to {action}"),
        )
        .detail(sentence(reason))
        .hint(format!(
            "{BAD_ANSWER} {WITHOUT_LOOKUP}"
        )),
    }
}

/// Reports a missing permission, with the statement to paste and the alternative without a lookup.
fn denied(action: &str, answer: &ApiAnswer, region: &str) -> Message {
    let of_organisation = answer.message.contains(ORGANISATION_POLICY);
    let statement = match of_organisation {
        true => {
            Hint::from("An organisation policy (SCP) denies the call.").and(DENIED_BY_ORGANISATION)
        }
        false => add_statement(action, &format!("\"{}\"", resource(action, region))),
    };
    Message::new("discover.denied", REJECTED, format!("AWS denied {action}"))
        .detail(api::detail(answer))
        .hint(statement.and(WITHOUT_LOOKUP))
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
    let message = match refused_keys(&answer.code) {
        Some(KeyState::Expired) => expired(profile),
        Some(_) => rejected(profile, answer.clock),
        None if throttles(&answer.code) => Message::new(
            "discover.throttled",
            THROTTLED,
            format!("AWS throttled {action}"),
        )
        .hint(format!("Try again in a few seconds. {WITHOUT_LOOKUP}")),
        None => Message::new(
            "discover.refused",
            CANNOT_CONNECT,
            format!("AWS refused {action}"),
        )
        .hint(format!("{ASK_SUPPORT} {WITHOUT_LOOKUP}")),
    };
    message.detail(api::detail(answer))
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
    let message = Message::new("discover.no-database", NO_SUCH_DATABASE, message).hint(
        Hint::from(format!(
            "{suggestion}If the database is in another region or account, set region or profile. To list the databases that your credentials can see, run:"
        ))
        .run(format!("pgiam list --region {region}")),
    );
    match unseen {
        [] => message,
        unseen => message.detail(format!(
            "The lookup was incomplete, because these permissions are missing: {}.",
            unseen.join(", ")
        )),
    }
}

pub(super) fn lookup_timeout(after: Duration) -> Message {
    Message::new(
        "discover.timeout",
        CANNOT_CONNECT,
        format!("the RDS lookup of the database did not finish within {} s", after.as_secs()),
    )
    .hint("Raise connect_timeout if AWS is slow from this machine, or set host = \"ENDPOINT\" instead of db to avoid the lookup.")
}
