//! What is known about a token that was sent, in words.

use std::time::SystemTime;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;

use super::{About, Evidence};
use crate::aws::ClockOffset;
use crate::aws::token::TokenRequest;
use crate::config::EndpointKind;

/// What the token was signed for and until when it is good; `None` when none was made.
pub(super) fn token(about: &About<'_>) -> Option<String> {
    let Evidence {
        request,
        expires_at,
        from_cache,
        second,
        ..
    } = about.evidence?;
    let TokenRequest {
        host,
        port,
        user,
        region,
    } = request;
    let configured = &about.target.endpoint.host;
    let alias = if host == configured {
        String::new()
    } else {
        format!(" (which {configured} is an alias of)")
    };
    let signed = match kind(about) {
        // Neither port nor role are in it.
        EndpointKind::Dsql => {
            format!("{host}{alias}, {}, region {region}", dsql_action(user))
        }
        _ => format!("{host}:{port}{alias}, user \"{user}\", region {region}"),
    };
    let made = if *from_cache {
        "made for an earlier login"
    } else {
        "made for this login"
    };
    let again = if *second {
        " Another token was refused just before."
    } else {
        ""
    };
    Some(format!(
        "The token was signed for {signed}; it was {made} and is valid until {}.{again}",
        utc(*expires_at)
    ))
}

/// The clock of this machine, where it is so far from AWS's that this alone may explain a refusal.
pub(super) fn wrong_clock(about: &About<'_>) -> Option<ClockOffset> {
    about.evidence?.clock.filter(|clock| clock.is_wrong())
}

/// What answers: by the name behind an alias, where it is known.
pub(super) fn kind(about: &About<'_>) -> EndpointKind {
    match about.evidence {
        Some(evidence) => EndpointKind::of(&evidence.request.host),
        None => about.target.endpoint.kind(),
    }
}

/// The action that a token of DSQL is signed for (Aurora DSQL User Guide, "Authentication and
/// authorization").
pub(super) fn dsql_action(user: &str) -> &'static str {
    match user {
        "admin" => "dsql:DbConnectAdmin",
        _ => "dsql:DbConnect",
    }
}

/// To the second, as logs of the database show it.
fn utc(time: SystemTime) -> String {
    let seconds = DateTime::from_secs(DateTime::from(time).secs());
    match seconds.fmt(Format::DateTime) {
        Ok(text) => text.replace('T', " ").replace('Z', " UTC"),
        Err(_) => "an unknown time".to_owned(),
    }
}
