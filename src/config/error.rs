//! Configuration errors.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::base::environment::{name_of, origin_hint};
use crate::base::foreign_text::visible;
use crate::base::names::TargetName;
use crate::base::quote::{shell, shown};
use crate::platform::permissions::PathError;

/// Reason why the configuration cannot be used. Every message names the key and the remedy.
#[derive(Clone, Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(
        "cannot read the configuration file {path}: {source}{}{}",
        origin_hint("config"), missing_hint(.path, .source), path = shown(.path)
)]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// Error of the file system.
        source: Arc<std::io::Error>,
    },
    /// The file is refused: it is a pipe, a directory, too long, or open to other users.
    #[error("{}{}", .0, origin_hint("config"))]
    Refused(Arc<PathError>),
    /// The file is neither UTF-8 nor UTF-16.
    #[error("{path} is not text: {reason}", path = shown(.path))]
    Encoding {
        /// Path of the file.
        path: PathBuf,
        /// Actual encoding and remedy.
        reason: String,
    },
    /// The file is not TOML, or contains unknown keys or wrong types.
    #[error("{path} is not a valid configuration:\n{reason}", path = shown(.path))]
    Syntax {
        /// Path of the file.
        path: PathBuf,
        /// Line, column and reason, and a suggestion if there is one.
        reason: String,
    },
    /// No target is configured.
    #[error(
        "no target is configured (searched: {searched}).\nhint: name a database:\n  {line}\n\
         or write a file with the databases found in AWS:\n  pgiam init"
    )]
    NoTarget {
        /// Command line that names a database.
        line: &'static str,
        /// Paths that were tried, in order.
        searched: String,
    },
    /// The requested target is not in the file.
    #[error("there is no target \"{asked}\".\nhint: {suggestion}configured targets: {known}")]
    UnknownTarget {
        /// Requested name.
        asked: String,
        /// Suggestion followed by a space, or empty.
        suggestion: String,
        /// Existing names.
        known: String,
    },
    /// The command needs one target, and there are several, in the file or running.
    #[error("there are several targets.\nhint: name one of them: {known}")]
    WhichTarget {
        /// Existing names.
        known: String,
    },
    /// The name of a target is invalid: clients could not request it.
    #[error(
        "invalid target name [targets.{name:?}]: it {reason}.\nhint: rename the target; clients select it with the database name NAME or NAME/DATABASE"
    )]
    TargetName {
        /// The name.
        name: String,
        /// Problem with the name.
        reason: &'static str,
    },
    /// A key that describes one database was given on the command line for several targets.
    #[error(
        "{} applies to one target, but {count} are selected.\nhint: select one: pgiam serve TARGET --{key} …", name_of(.key)
    )]
    AmbiguousFlag {
        /// The flag.
        key: &'static str,
        /// Number of selected targets.
        count: usize,
    },
    /// A required key of a target is missing.
    #[error("target \"{target}\" has no {key}.\nhint: {hint}")]
    Missing {
        /// The target.
        target: TargetName,
        /// The missing key.
        key: &'static str,
        /// Remedy.
        hint: &'static str,
    },
    /// An invalid value of a target.
    #[error("target \"{target}\": invalid {key} {}: {reason}{}", quoted(.value), origin_hint(.key))]
    Invalid {
        /// The target.
        target: TargetName,
        /// The key.
        key: &'static str,
        /// Value as written.
        value: String,
        /// The problem and a valid form.
        reason: String,
    },
    /// An invalid value of `[serve]`, of a flag or of a variable, which belongs to no target.
    #[error("invalid {key} {}: {reason}{}", quoted(.value), origin_hint(.key))]
    Setting {
        /// The key.
        key: &'static str,
        /// Value as written.
        value: String,
        /// The problem and a valid form.
        reason: String,
    },
    /// Other machines could use pgiam without a password.
    #[error(
        "address \"{address}\" lets clients on other machines use the database with your identity, without a password.{}\nhint: \
         write a password to a file that only you can read and set password_file (--password-file), or set PGIAM_LOCAL_PASSWORD; \
         clients then log in to pgiam with it (SCRAM-SHA-256)",
        origin_hint("address")
    )]
    NoPassword {
        /// First address that is not a loopback address.
        address: std::net::IpAddr,
    },
    /// A target has settings for a tunnel but uses none.
    #[error("target \"{target}\" sets {key}, but via = \"direct\" uses no tunnel.\nhint: {hint}")]
    NoTunnel {
        /// The target.
        target: TargetName,
        /// The key without effect.
        key: &'static str,
        /// Remedy.
        hint: &'static str,
    },
}

impl ConfigError {
    /// Returns the error about an invalid value of a target.
    pub(super) fn invalid(
        target: &TargetName,
        key: &'static str,
        value: impl ToString,
        reason: impl Into<String>,
    ) -> Self {
        Self::Invalid {
            target: target.to_owned(),
            key,
            value: value.to_string(),
            reason: reason.into(),
        }
    }

    /// Returns the error about an invalid value that belongs to no target.
    pub(super) fn invalid_setting(
        key: &'static str,
        value: impl ToString,
        reason: impl Into<String>,
    ) -> Self {
        Self::Setting {
            key,
            value: value.to_string(),
            reason: reason.into(),
        }
    }
}

/// Returns the remedy for a file that does not exist.
fn missing_hint(path: &Path, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => format!(
            "\nhint: correct the path, or write the file with the databases found in AWS:\n  pgiam init {}",
            shell(&path.to_string_lossy())
        ),
        _ => String::new(),
    }
}

/// Formats a value as in the file: numbers, lists and tables without quotes.
fn quoted(value: &str) -> String {
    let bare = value.starts_with(['[', '{']) || value.parse::<i64>().is_ok();
    if bare {
        visible(value).into_owned()
    } else {
        format!("\"{}\"", visible(value))
    }
}
