//! What to say about the role that a login was tried with.

use super::About;
use super::database::quote_identifier;

/// The role of the target, where the client has asked for another one.
pub(super) fn instead<'a>(about: Option<&About<'a>>) -> Option<&'a str> {
    let about = about?;
    let own = about.target.user.as_deref()?;
    (own != about.user).then_some(own)
}

/// What the client should do about that, with a space behind it. Clients such as pgAdmin send
/// `postgres` where nobody has chosen a user.
pub(super) fn leave_empty(about: Option<&About<'_>>) -> String {
    match (instead(about), about) {
        (Some(own), Some(about)) => format!(
            "This target logs in as \"{own}\": leave the user empty, or give {own} (psql -U {own}). If \"{}\" is meant: ",
            about.user
        ),
        _ => no_choice(about),
    }
}

/// Where nobody has named a role, the one that was tried is likely to be none.
fn no_choice(about: Option<&About<'_>>) -> String {
    let Some(about) = about else {
        return String::new();
    };
    let user = about.user;
    let own = crate::platform::os_user().is_some_and(|own| own == user);
    match own && about.target.user.is_none() {
        true => format!(
            "\"{user}\" is your name on this machine: name the role with --user ROLE, user = \"ROLE\" or psql -U ROLE. If it is meant: "
        ),
        false => String::new(),
    }
}

/// The statement that lets a role log in with IAM, and what it costs (RDS User Guide, "Creating a
/// database account using IAM authentication": rds_iam takes precedence over the password).
pub(super) fn grant(user: &str) -> String {
    let name = quote_identifier(user);
    format!(
        "GRANT rds_iam TO {name}; From then on {name} logs in with tokens only, and its password is refused: never run it for the master user; make a role of its own instead (pgiam setup sql --user ROLE prints the SQL)."
    )
}
