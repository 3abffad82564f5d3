//! Reports about errors that the database itself sent. Its text is kept; pgiam adds facts that the
//! database does not mention.

use super::context::ErrorContext;
use super::hint::{Hint, with_id};
use super::iam_refusal::login_refused;
use super::message::{LogLevel, NOT_NOW, Report};
use super::phrases::{ServerErrorAddition, quote_identifier};
use super::server_text::{Remedy, recognise};

use pg_handshake::{ServerError, Startup};

use crate::base::foreign_text::ForeignText;
use crate::config::Auth;

/// Hint for errors that explain themselves.
const CHECK_DATABASE_LOG: &str = "The database sent this error. Check its log for details.";

/// Builds the report from the server's error and pgiam's additions.
pub(super) fn server_error(error: &ServerError, context: Option<&ErrorContext<'_>>) -> Report {
    let state = error.sqlstate();
    let state = state
        .as_ref()
        .map(|state| state.as_str())
        .unwrap_or_default();
    let addition = context.and_then(|context| addition(state, &error.message(), context));
    let ServerErrorAddition { id, detail, hint } = addition
        .unwrap_or_else(|| ServerErrorAddition::hint("database.refused", CHECK_DATABASE_LOG));
    let hint = hint.text();
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

fn addition(state: &str, message: &str, context: &ErrorContext<'_>) -> Option<ServerErrorAddition> {
    match recognise(message) {
        Some((id, Remedy::Hint(hint))) => {
            let addition = ServerErrorAddition::hint(id, hint);
            return Some(match state {
                "53300" => addition.detail(connection_count(context)),
                _ => addition,
            });
        }
        Some((id, Remedy::Token)) => return Some(login_refused(id, state, context)),
        Some((id, Remedy::RemoveParameter(parameter))) => {
            return Some(remove_parameter(id, &parameter, context));
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
            Some(ServerErrorAddition::hint(
                "database.password",
                "Use the password of the database role: this target has auth = \"passthrough\". A role that has rds_iam can log in with tokens only; use a target with auth = \"iam\" for it.",
            ))
        }
        "3D000" => Some(no_database(context)),
        "53300" => Some(too_many_connections(message, context)),
        "57P01" | "57P02" => Some(ServerErrorAddition::hint(
            "database.stopping",
            "Connect again. Possible causes: a restart or a failover of the database.",
        )),
        "57P03" => Some(ServerErrorAddition::hint(
            "database.starting",
            "Connect again in a moment. If the error persists, check the database's log and its events: `aws rds describe-events --duration 60`",
        )),
        _ => None,
    }
}

/// Returns the remedy for a startup parameter that the server does not know or does not allow. The
/// client sent it under its own name, or as `-c name=value` in `options`; only the client can
/// remove the latter.
fn remove_parameter(
    id: &'static str,
    parameter: &str,
    context: &ErrorContext<'_>,
) -> ServerErrorAddition {
    let sent = |startup: &Startup| {
        let mut names = startup.params().map(|(name, _)| name);
        names.any(|name| name.eq_ignore_ascii_case(parameter.as_bytes()))
    };
    if context.startup.is_some_and(|startup| !sent(startup)) {
        return ServerErrorAddition::hint(
            id,
            format!(
                "Remove {parameter} from the client's options (PGOPTIONS, or options= in its connection string). Supported parameters can be SET after the login."
            ),
        );
    }
    ServerErrorAddition::hint(
        id,
        format!(
            "Remove {parameter} from the client's startup parameters, or let pgiam drop it: ignore_startup_parameters = [\"{parameter}\"] under [targets.{}].",
            context.target.name
        ),
    )
}

fn no_database(context: &ErrorContext<'_>) -> ServerErrorAddition {
    let name = &context.target.name;
    let detail = match (context.no_default, &context.target.settings.database) {
        (Some(refused), _) => {
            format!("pgiam then tried the target's default database {refused}.")
        }
        (None, Some(database)) => format!("The target's default database is \"{database}\"."),
        (None, None) => format!(
            "The target has no default database, and a client that names no database requests the one with its user name, \"{}\".",
            context.user
        ),
    };
    ServerErrorAddition::hint(
        "database.no-database",
        Hint::from(format!(
            "Use an existing database (psql -d NAME), or set database = \"NAME\" under [targets.{name}], or --database NAME. Names are case-sensitive. To list the databases, run:"
        ))
        .run("psql -d postgres -l"),
    )
    .detail(detail)
}

/// Returns how many of the limited connections are open through pgiam.
fn connection_count(context: &ErrorContext<'_>) -> String {
    let count = context.open_connections;
    let connections = match count {
        1 => "connection",
        _ => "connections",
    };
    format!("pgiam has {count} {connections} to this target, including this one.")
}

fn too_many_connections(message: &str, context: &ErrorContext<'_>) -> ServerErrorAddition {
    // PostgreSQL has three such errors (`InitializeSessionUserId`, `CheckMyDatabase`,
    // `InitPostgres`).
    let hint = if message.contains("for role \"") {
        let role = quote_identifier(context.user);
        Hint::from("Close unused connections of this role, or raise its limit (rolconnlimit in pg_roles) as an administrator:")
            .run(format!("ALTER ROLE {role} CONNECTION LIMIT N;"))
    } else if message.contains("for database \"") {
        "Close unused connections to this database, or raise its limit (datconnlimit in pg_database) as an administrator: `ALTER DATABASE … CONNECTION LIMIT N;`".into()
    } else {
        "Close unused connections, or use a connection pool. RDS reserves the last few of max_connections for rds_superuser. To list the connections, run: `SELECT usename, application_name, count(*) FROM pg_stat_activity GROUP BY 1, 2;`".into()
    };
    ServerErrorAddition::hint("database.too-many", hint).detail(connection_count(context))
}
