//! Text about the role of a failed login.

use super::context::ErrorContext;
use super::hint::Hint;
use super::phrases::{enable_iam, quote_identifier};

/// Returns the role of the target if the client requested another one.
pub(super) fn other_target_role<'a>(context: Option<&ErrorContext<'a>>) -> Option<&'a str> {
    let context = context?;
    let own = context.target.settings.user.as_deref()?;
    (own != context.user).then_some(own)
}

/// Returns the remedy for a client that requested another role than the target's or a default
/// role; empty for others. Clients such as pgAdmin send
/// `postgres` if the user name is left empty.
pub(super) fn role_hint(context: Option<&ErrorContext<'_>>) -> String {
    match other_target_role(context) {
        Some(own) => format!(
            "Leave the user empty in the client, or use \"{own}\", the role of this target (psql -U {own})."
        ),
        _ => default_role_hint(context),
    }
}

/// Returns a note that the role is a default and probably does not exist, if no role was configured
/// or requested.
fn default_role_hint(context: Option<&ErrorContext<'_>>) -> String {
    let Some(context) = context else {
        return String::new();
    };
    let user = context.user;
    let own = crate::platform::os_user().is_some_and(|own| own == user);
    match own && context.target.settings.user.is_none() {
        true => format!(
            "Set the role with --user ROLE, user = \"ROLE\" or psql -U ROLE: \"{user}\" is your user name on this machine."
        ),
        false => String::new(),
    }
}

/// Returns the statements that let a role log in with IAM, and their side effect (RDS User Guide,
/// "Creating a database account using IAM authentication": rds_iam takes precedence over the
/// password). `is_known`: the role exists.
pub(super) fn grant_hint(user: &str, is_known: bool) -> Hint {
    let name = quote_identifier(user);
    let lead = match is_known {
        true => Hint::from(format!("To let \"{user}\" log in, run as an administrator:")),
        false => Hint::from(format!(
            "To let \"{user}\" log in, run as an administrator (without the first line if the role exists; names are case-sensitive):"
        ))
        .run(format!("CREATE ROLE {name} LOGIN;")),
    };
    lead.run(format!("GRANT rds_iam TO {name};"))
        .and("Do not run it for the master user: a role with rds_iam can log in only with tokens.")
}

/// Returns the statement that turns password logins of a role off.
pub(crate) fn allow_only_tokens(user: &str) -> Hint {
    Hint::from("To allow logins only with tokens, as an administrator, run:")
        .run(format!("GRANT rds_iam TO {};", quote_identifier(user)))
}

/// Returns the remedy for a database that may accept no tokens; empty if it is known to accept them.
pub(super) fn enable_iam_hint(context: Option<&ErrorContext<'_>>) -> Hint {
    if context.is_some_and(|context| context.iam_login == Some(true)) {
        return "".into();
    }
    Hint::from("If IAM authentication is off, turn it on:").and(enable_iam(context))
}
