//! Text about the role of a failed login.

use super::context::ErrorContext;
use super::phrases::quote_identifier;

/// Returns the role of the target if the client requested another one.
pub(super) fn instead<'a>(context: Option<&ErrorContext<'a>>) -> Option<&'a str> {
    let context = context?;
    let own = context.target.settings.user.as_deref()?;
    (own != context.user).then_some(own)
}

/// Returns the advice for such a client, with a trailing space. Clients such as pgAdmin send
/// `postgres` if the user name is left empty.
pub(super) fn leave_empty(context: Option<&ErrorContext<'_>>) -> String {
    match (instead(context), context) {
        (Some(own), Some(context)) => format!(
            "This target logs in as \"{own}\": leave the user empty, or give {own} (psql -U {own}). If \"{}\" is meant: ",
            context.user
        ),
        _ => no_choice(context),
    }
}

/// Returns a note that the role is a default and probably does not exist, if no role was configured
/// or requested.
fn no_choice(context: Option<&ErrorContext<'_>>) -> String {
    let Some(context) = context else {
        return String::new();
    };
    let user = context.user;
    let own = crate::platform::os_user().is_some_and(|own| own == user);
    match own && context.target.settings.user.is_none() {
        true => format!(
            "\"{user}\" is your name on this machine: name the role with --user ROLE, user = \"ROLE\" or psql -U ROLE. If it is meant: "
        ),
        false => String::new(),
    }
}

/// Returns the statement that lets a role log in with IAM, and its side effect (RDS User Guide,
/// "Creating a database account using IAM authentication": rds_iam takes precedence over the
/// password).
pub(super) fn grant(user: &str) -> String {
    let name = quote_identifier(user);
    format!(
        "GRANT rds_iam TO {name}; From then on {name} logs in with tokens only, and its password is refused: never run it for the master user; make a role of its own instead (pgiam setup sql --user ROLE prints the SQL)."
    )
}
