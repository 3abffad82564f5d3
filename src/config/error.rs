//! Why a configuration cannot be used.

use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use crate::base::environment::{name_of, origin_hint};
use crate::base::foreign_text::visible;
use crate::base::quote::shown;
use crate::platform::permissions::PathError;

/// Why the configuration cannot be used. Every message names the key and the remedy.
#[derive(Clone, Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(
        "cannot read the configuration file {path}: {source}{}",
        origin_hint("config"), path = shown(.path)
)]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: Arc<std::io::Error>,
    },
    /// The file is none that we read: a pipe, a directory, too long, or open to others.
    #[error("{}{}", .0, origin_hint("config"))]
    Refused(Arc<PathError>),
    /// The file is not UTF-8 text.
    #[error("{path} is not UTF-8 text: {reason}", path = shown(.path))]
    Encoding {
        /// The file.
        path: PathBuf,
        /// How it is encoded, and what to do.
        reason: String,
    },
    /// The file is not TOML, or has keys or types that do not exist.
    #[error("{path} is not a valid configuration:\n{reason}", path = shown(.path))]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and reason, and what was meant, as far as that can be guessed.
        reason: String,
    },
    /// No target anywhere.
    #[error(
        "no target is configured.\nhint: give one on the command line (pgiam serve --db NAME, or --host NAME.REGION.rds.amazonaws.com), \
         or let pgiam init write a file from what it finds at AWS; looked at: {looked_at}"
    )]
    NoTarget {
        /// The files that were tried, in order.
        looked_at: String,
    },
    /// A target was asked for by a name that is not in the file.
    #[error(
        "there is no target \"{asked}\".\nhint: {suggestion}the configured targets are: {known}"
    )]
    UnknownTarget {
        /// The name that was asked for.
        asked: String,
        /// What was meant, as far as that can be guessed, with a space behind it.
        suggestion: String,
        /// The names that exist.
        known: String,
    },
    /// A command is about one target, and there are several.
    #[error("there are several targets.\nhint: name one of them: {known}")]
    WhichTarget {
        /// The names that exist.
        known: String,
    },
    /// A target has a name that no client could ask for.
    #[error(
        "the name of [targets.{name:?}] {reason}.\nhint: choose another one: clients ask for a target as database NAME or NAME/DATABASE"
    )]
    TargetName {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A key that describes one database was given on the command line for several targets.
    #[error(
        "{} describes one database, but {count} targets are selected.\nhint: name the target it is for: pgiam serve TARGET --{key} …", name_of(.key)
    )]
    AmbiguousFlag {
        /// The flag.
        key: &'static str,
        /// How many targets are selected.
        count: usize,
    },
    /// A target lacks something it needs.
    #[error("target \"{target}\" has no {key}.\nhint: {hint}")]
    Missing {
        /// The target.
        target: String,
        /// The missing key.
        key: &'static str,
        /// What to write.
        hint: &'static str,
    },
    /// A value that cannot be meant.
    #[error("target \"{target}\": {key} = {} is not usable: {reason}{}", quoted(.value), origin_hint(.key))]
    Invalid {
        /// The target.
        target: String,
        /// The key.
        key: &'static str,
        /// What was written.
        value: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// An invalid value of `[serve]`, of a flag or of a variable, which belongs to no target.
    #[error("{key} = {} is not usable: {reason}{}", quoted(.value), origin_hint(.key))]
    Setting {
        /// The key.
        key: &'static str,
        /// What was written.
        value: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// Other machines could use the program without a password.
    #[error(
        "address = \"{address}\" lets other machines in, and whoever reaches the port would be you to the database.{}\nhint: \
         write a password into a file that only you can read, and name it with password_file (--password-file), or set PGIAM_LOCAL_PASSWORD; \
         clients then log in to pgiam with it (SCRAM-SHA-256)",
        origin_hint("address")
    )]
    NoPassword {
        /// The first address that is not the loopback's.
        address: std::net::IpAddr,
    },
    /// A target describes a tunnel and is told to use none.
    #[error(
        "target \"{target}\" sets {key}, which is about the tunnel, but via = \"direct\" uses none.\nhint: {hint}"
    )]
    NoTunnel {
        /// The target.
        target: String,
        /// The key that has no meaning.
        key: &'static str,
        /// What to change.
        hint: &'static str,
    },
}

/// A value as it stands in the file: numbers, lists and tables without quotes.
fn quoted(value: &str) -> String {
    let bare = value.starts_with(['[', '{']) || value.parse::<i64>().is_ok();
    if bare {
        visible(value).into_owned()
    } else {
        format!("\"{}\"", visible(value))
    }
}
