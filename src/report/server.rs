//! Reports about errors that the database itself sent. Its text is kept; pgiam adds facts that the
//! database does not mention.

use super::context::ErrorContext;
use super::iam_refusal::login_refused;
use super::message::{LogLevel, NOT_NOW, Report, with_id};
use super::phrases::{ServerAdvice, quote_identifier};
use super::server_text::{Remedy, known};

use pg_handshake::{ServerError, Startup};

use crate::base::foreign_text::ForeignText;
use crate::config::Auth;

/// Hint for errors that explain themselves.
const OWN_WORDS: &str = "This is the database's own answer; its log may say more.";

/// Builds the report from the server's error and pgiam's additions.
pub(super) fn server(error: &ServerError, context: Option<&ErrorContext<'_>>) -> Report {
    let state = error.sqlstate();
    let state = state
        .as_ref()
        .map(|state| state.as_str())
        .unwrap_or_default();
    let added = context.and_then(|context| added(state, &error.message(), context));
    let ServerAdvice { id, detail, hint } =
        added.unwrap_or_else(|| ServerAdvice::hint("database.refused", OWN_WORDS));
    let reply = error.with_appended(detail.as_deref(), Some(&with_id(&hint, id)));
    // The client gets the server's text unchanged; log and status escape it as foreign text.
    let own = error
        .detail()
        .map(|text| ForeignText::new(&text).into_string());
    let all: Vec<String> = [own, detail].into_iter().flatten().collect();
    Report {
        id,
        reply: Some(reply),
        not_ready: state == NOT_NOW.as_str(),
        sqlstate: state.to_owned(),
        message: ForeignText::new(&error.message()).into_string(),
        detail: (!all.is_empty()).then(|| all.join(" ")),
        hint: Some(hint),
        level: LogLevel::Warn,
        expected: false,
    }
}

fn added(state: &str, message: &str, context: &ErrorContext<'_>) -> Option<ServerAdvice> {
    match known(message) {
        Some((id, Remedy::Say(hint))) => {
            let added = ServerAdvice::hint(id, hint);
            return Some(match state {
                "53300" => added.detail(open(context)),
                _ => added,
            });
        }
        Some((id, Remedy::Token)) => return Some(login_refused(id, state, context)),
        Some((id, Remedy::Leave(parameter))) => {
            return Some(leave_out(id, &parameter, context));
        }
        None => {}
    }
    match state {
        "28000" | "28P01" if context.token_judged => {
            Some(login_refused("database.login-refused", state, context))
        }
        // Members of rds_iam authenticate through PAM, which accepts only tokens (RDS User Guide,
        // "IAM database authentication").
        "28000" | "28P01"
            if context.target.settings.login.auth == Auth::Passthrough
                && (state == "28P01" || message.starts_with("PAM ")) =>
        {
            Some(ServerAdvice::hint(
                "database.password",
                "This target has auth = \"passthrough\": the password is the database role's own. A role that has rds_iam logs in with tokens only, so it needs a target with auth = \"iam\".",
            ))
        }
        "3D000" => Some(no_database(context)),
        "53300" => Some(too_many(message, context)),
        "57P01" | "57P02" => Some(ServerAdvice::hint(
            "database.stopping",
            "The database is being restarted or fails over. Connect again.",
        )),
        "57P03" => Some(ServerAdvice::hint(
            "database.starting",
            "Connect again in a moment. If it stays, see the database's state and log: aws rds describe-events --duration 60.",
        )),
        _ => None,
    }
}

/// Returns the remedy for a startup parameter that the server does not know or does not allow. The
/// client sent it under its own name, or as `-c name=value` in `options`; only the client can
/// remove the latter.
fn leave_out(id: &'static str, parameter: &str, context: &ErrorContext<'_>) -> ServerAdvice {
    let sent = |startup: &Startup| {
        let mut names = startup.params().map(|(name, _)| name);
        names.any(|name| name.eq_ignore_ascii_case(parameter.as_bytes()))
    };
    if context.startup.is_some_and(|startup| !sent(startup)) {
        return ServerAdvice::hint(
            id,
            format!(
                "Take {parameter} out of the client's options: PGOPTIONS, or options= in its connection string. What works can be SET in the session."
            ),
        );
    }
    ServerAdvice::hint(
        id,
        format!(
            "Do not let the client send it, or have it left out here: ignore_startup_parameters = [\"{parameter}\"] under [targets.{}].",
            context.target.name
        ),
    )
}

fn no_database(context: &ErrorContext<'_>) -> ServerAdvice {
    let name = &context.target.name;
    let detail = match (context.no_default, &context.target.settings.database) {
        (Some(refused), _) => {
            format!("pgiam then tried the target's own database {refused}.")
        }
        (None, Some(database)) => format!("The target's own database is \"{database}\"."),
        (None, None) => format!(
            "The target names no database, and a client that names none asks for one called like its user, \"{}\".",
            context.user
        ),
    };
    ServerAdvice::hint(
        "database.no-database",
        format!(
            "Name one that exists (psql -d NAME; psql -d postgres -l lists them), or set database = \"NAME\" under [targets.{name}], or --database. Names are case-sensitive."
        ),
    )
    .detail(detail)
}

/// Returns how many of the limited connections are open through pgiam.
fn open(context: &ErrorContext<'_>) -> String {
    let count = context.open_connections;
    let connections = match count {
        1 => "connection",
        _ => "connections",
    };
    format!("pgiam has {count} {connections} to this target, this one included.")
}

fn too_many(message: &str, context: &ErrorContext<'_>) -> ServerAdvice {
    // PostgreSQL has three such errors (`InitializeSessionUserId`, `CheckMyDatabase`,
    // `InitPostgres`).
    let hint = if message.contains("for role \"") {
        let role = quote_identifier(context.user);
        format!(
            "Close connections of this role, or let an administrator raise its limit (SELECT rolconnlimit FROM pg_roles shows it): ALTER ROLE {role} CONNECTION LIMIT N;"
        )
    } else if message.contains("for database \"") {
        "Close connections to this database, or let an administrator raise its limit (SELECT datconnlimit FROM pg_database shows it): ALTER DATABASE … CONNECTION LIMIT N;".to_owned()
    } else {
        "Close connections that are no longer needed (SELECT usename, application_name, count(*) FROM pg_stat_activity GROUP BY 1, 2; shows whose they are) or pool them. The last few of max_connections are kept for rds_superuser.".to_owned()
    };
    ServerAdvice::hint("database.too-many", hint).detail(open(context))
}
