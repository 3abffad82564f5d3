//! Reports for a terminal, about one target that the user named.

use super::aws::credentials;
use super::before_login::before_login;
use super::context::ErrorContext;
use super::hint::Hint;
use super::message::{CANNOT_CONNECT, Message, NOT_AUTHORIZED};
use super::phrases::{SET_CLOCK, enable_iam, profile_option};

use crate::aws::discover::{Database, DatabaseKind};
use crate::aws::{ClockOffset, CredentialsError};
use crate::base::foreign_text::visible;
use crate::failure::connection::ConnectionError;

/// Cause and remedy of a failure, in the same text that a client of the target would get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Stable identifier of the cause.
    pub id: &'static str,
    /// The SQLSTATE that clients get.
    pub sqlstate: String,
    /// The cause, in one line, without the target's name.
    pub message: String,
    /// The text from the other side.
    pub detail: Option<String>,
    /// The remedy.
    pub hint: Option<String>,
}

impl From<Message> for Explanation {
    fn from(message: Message) -> Self {
        let safe = |text: String| visible(&text).into_owned();
        Self {
            id: message.id,
            sqlstate: message.sqlstate.as_str().to_owned(),
            message: safe(message.message),
            detail: message.detail.map(safe),
            hint: message.hint.map(String::from),
        }
    }
}

/// Explains why a connection failed.
#[must_use]
pub fn explain(error: &ConnectionError, context: Option<&ErrorContext<'_>>) -> Explanation {
    let report = before_login(error, context);
    let prefix = context.map(|context| format!("target \"{}\": ", context.target.name));
    let message = report
        .message
        .strip_prefix(prefix.as_deref().unwrap_or_default());
    Explanation {
        id: report.id,
        sqlstate: report.sqlstate,
        message: message.unwrap_or(&report.message).to_owned(),
        detail: report.detail,
        hint: report.hint,
    }
}

/// Explains missing credentials.
#[must_use]
pub fn explain_credentials(error: &CredentialsError) -> Explanation {
    credentials(error).into()
}

/// Explains a clock offset for which AWS rejects all signatures.
#[must_use]
pub fn explain_clock(clock: ClockOffset) -> Explanation {
    let message = format!("this machine's clock is {clock}");
    Message::new("aws.clock", NOT_AUTHORIZED, message)
        .hint(SET_CLOCK)
        .into()
}

/// Explains why a database accepts no connections at all.
#[must_use]
pub fn explain_status(database: &Database, profile: Option<&str>) -> Explanation {
    let status = database.status.as_deref().unwrap_or_default();
    let message = format!("the database {} is {status}", database.identifier);
    let hint = match (status, rds_command(database)) {
        ("stopped", Some(of)) => {
            let options = region_options(database, profile);
            Hint::from("To start it, run:").run(format!("aws rds start-{of}{options}"))
        }
        ("stopping" | "creating", _) => Hint::from(
            "Wait until the operation has finished. To see the status, run: `pgiam list`",
        ),
        _ => Hint::from("Check the RDS console, or run: `aws rds describe-events --duration 1440`"),
    };
    Message::new("rds.status", CANNOT_CONNECT, message)
        .hint(hint)
        .into()
}

/// Explains why a database accepts no tokens.
#[must_use]
pub fn explain_iam_off(database: &Database, profile: Option<&str>) -> Explanation {
    let message = format!(
        "IAM authentication is off for the database {}",
        database.identifier
    );
    let options = region_options(database, profile);
    let hint = match rds_command(database) {
        Some(of) => Hint::from("Run:")
            .run(format!(
                "aws rds modify-{of}{options} --enable-iam-database-authentication --apply-immediately"
            ))
            .and(
                "This also applies other pending changes, which can restart the database.",
            ),
        None if database.kind == DatabaseKind::Proxy => Hint::from(
            "Set IAMAuth to REQUIRED in the authentication settings of the proxy:",
        )
        .run(format!(
            "aws rds modify-db-proxy --db-proxy-name {}{options} --auth …",
            database.identifier
        ))
        .and("The list replaces the current one; include all entries."),
        None => Hint::from("Run:").and(enable_iam(None)),
    };
    Message::new("rds.iam-off", NOT_AUTHORIZED, message)
        .detail("Without IAM authentication, the database treats a token as an ordinary password.")
        .hint(hint)
        .into()
}

/// Returns the end of the verb and the beginning of the option for this kind of database; `None`
/// for kinds with a different command.
fn rds_command(database: &Database) -> Option<String> {
    let (of, option) = match database.kind {
        DatabaseKind::Instance => ("db-instance", "--db-instance-identifier"),
        DatabaseKind::Cluster => ("db-cluster", "--db-cluster-identifier"),
        DatabaseKind::Proxy | DatabaseKind::Endpoint => return None,
    };
    Some(format!("{of} {option} {}", database.identifier))
}

fn region_options(database: &Database, profile: Option<&str>) -> String {
    format!(" --region {}{}", database.region, profile_option(profile))
}
