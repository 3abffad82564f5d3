//! Text for the facts known about a token that was sent.

use super::context::{ErrorContext, TokenEvidence};

use std::time::SystemTime;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;

use crate::aws::ClockOffset;
use crate::aws::token::TokenRequest;
use crate::config::EndpointKind;

/// Describes the request that the token was signed for, and its expiry; `None` without a token.
pub(super) fn describe_token(context: &ErrorContext<'_>) -> Option<String> {
    let TokenEvidence {
        request,
        expires_at,
        from_cache,
        second,
        ..
    } = context.evidence?;
    let TokenRequest {
        host,
        port,
        user,
        region,
    } = request;
    let configured = &context.target.endpoint.host;
    let alias = if host == configured {
        String::new()
    } else {
        format!(" (the endpoint of {configured})")
    };
    let signed = match endpoint_kind(context) {
        // A DSQL token contains neither port nor role.
        EndpointKind::Dsql => {
            format!("{host}{alias}, {}, region {region}", dsql_action(user))
        }
        _ => format!("{host}:{port}{alias}, user \"{user}\", region {region}"),
    };
    let made = if *from_cache {
        "created for an earlier login"
    } else {
        "created for this login"
    };
    let again = if *second {
        " The database refused another token just before."
    } else {
        ""
    };
    Some(format!(
        "The token was signed for {signed}; it was {made} and is valid until {}.{again}",
        utc(*expires_at)
    ))
}

/// Returns the clock offset if it is large enough to explain a rejection by itself.
pub(super) fn wrong_clock(context: &ErrorContext<'_>) -> Option<ClockOffset> {
    context.evidence?.clock.filter(|clock| clock.is_wrong())
}

/// Returns the kind of the endpoint. For an alias it is that of the name behind it, if known.
pub(super) fn endpoint_kind(context: &ErrorContext<'_>) -> EndpointKind {
    match context.evidence {
        Some(evidence) => EndpointKind::of(&evidence.request.host),
        None => context.target.endpoint.kind(),
    }
}

/// Returns the action that a DSQL token is signed for (Aurora DSQL User Guide, "Authentication and
/// authorization").
pub(super) fn dsql_action(user: &str) -> &'static str {
    match user {
        "admin" => "dsql:DbConnectAdmin",
        _ => "dsql:DbConnect",
    }
}

/// Formats a time to the second, as the database's logs show it.
fn utc(time: SystemTime) -> String {
    let seconds = DateTime::from_secs(DateTime::from(time).secs());
    match seconds.fmt(Format::DateTime) {
        Ok(text) => text.replace('T', " ").replace('Z', " UTC"),
        Err(_) => "an unknown time".to_owned(),
    }
}
