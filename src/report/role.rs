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
/// role, with a trailing space; empty for others. Clients such as pgAdmin send
/// `postgres` if the user name is left empty.
pub(super) fn role_hint(context: Option<&ErrorContext<'_>>) -> String {
    match (other_target_role(context), context) {
        (Some(own), Some(context)) => format!(
            "Leave the user empty in the client, or use \"{own}\", the role of this target (psql -U {own}). To log in as \"{}\" instead: ",
            context.user
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
            "Set the role with --user ROLE, user = \"ROLE\" or psql -U ROLE: \"{user}\" is your user name on this machine. To log in as \"{user}\": "
        ),
        false => String::new(),
    }
}

/// Returns the statement that lets a role log in with IAM, and its side effect (RDS User Guide,
/// "Creating a database account using IAM authentication": rds_iam takes precedence over the
/// password).
pub(super) fn grant_hint(user: &str) -> Hint {
    let name = quote_identifier(user);
    Hint::from("As an administrator, run:").run(format!("GRANT rds_iam TO {name};")).and(
        "The role can then log in only with tokens, not with its password. Never run this for the master user; use a separate role, with the SQL of: `pgiam setup sql --user ROLE`",
    )
}

/// Returns the statement that turns password logins of a role off.
pub(crate) fn allow_only_tokens(user: &str) -> Hint {
    Hint::from("To allow logins only with tokens, as an administrator, run:")
        .run(format!("GRANT rds_iam TO {};", quote_identifier(user)))
}

/// Returns the remedy for a database that accepts no tokens.
pub(super) fn enable_iam_hint() -> Hint {
    Hint::from("If IAM authentication is off, turn it on.").and(enable_iam())
}
