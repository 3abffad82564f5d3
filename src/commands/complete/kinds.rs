//! The kind of values of each argument, for completion.

use std::any::TypeId;
use std::path::PathBuf;

use clap::Arg;

/// Kind of values that a shell can offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueKind {
    /// Targets of the configuration file and of running processes.
    Target,
    /// AWS profiles.
    Profile,
    /// AWS profiles, and targets that stand for theirs.
    ProfileOrTarget,
    /// `sso-session` sections of the AWS config file.
    SsoSession,
    /// AWS regions.
    Region,
    /// Identifiers of databases.
    Database,
    /// Host names of databases.
    Host,
    /// Bastions.
    Bastion,
    /// Roles and database names, from the file.
    Role,
    /// Names of databases on the server, from the file.
    DatabaseName,
    /// Identifiers of errors.
    ErrorId,
    /// IDs of running processes.
    Process,
    /// Words that no definition lists.
    Fixed(&'static [&'static str]),
    /// Files, which the shell offers.
    File,
    /// Directories, which the shell offers.
    Directory,
}

/// Returns the kind of an argument; `None` if its values are fixed or unknown.
pub(super) fn kind_of(arg: &Arg) -> Option<ValueKind> {
    let value = arg.get_value_names().and_then(|names| names.first());
    let value = value.map(|name| name.as_str()).unwrap_or_default();
    if arg.get_value_parser().type_id() == TypeId::of::<PathBuf>() {
        return Some(match value {
            "DIR" => ValueKind::Directory,
            _ => ValueKind::File,
        });
    }
    Some(match (arg.get_long(), value) {
        (_, "TARGET") => ValueKind::Target,
        (None, "PROFILE") => ValueKind::ProfileOrTarget,
        (None, "ID") => ValueKind::ErrorId,
        (Some("profile"), _) => ValueKind::Profile,
        (Some("sso-session"), _) => ValueKind::SsoSession,
        (Some("region"), _) => ValueKind::Region,
        (Some("db"), _) => ValueKind::Database,
        (Some("host"), _) => ValueKind::Host,
        (Some("bastion"), _) => ValueKind::Bastion,
        (Some("user"), _) => ValueKind::Role,
        (Some("database"), _) => ValueKind::DatabaseName,
        (Some("pid"), _) => ValueKind::Process,
        (Some("log"), _) => ValueKind::Fixed(&["error", "warn", "info", "debug", "trace"]),
        (Some("via"), _) => ValueKind::Fixed(&["ssm", "direct"]),
        (Some("auth"), _) => ValueKind::Fixed(&["iam", "passthrough"]),
        (Some("login"), _) => ValueKind::Fixed(&["off", "browser"]),
        _ => return None,
    })
}
