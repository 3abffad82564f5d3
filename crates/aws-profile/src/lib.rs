//! AWS profiles as the AWS CLI v2 reads them, without file, environment, clock or socket.
//!
//! The AWS CLI is the reference: the same files and variables lead to the same identity. Bytes,
//! variables and the time are arguments, and the result is data; the caller reads files, runs
//! programs and calls AWS.
//!
//! Calling order:
//! 1. [`file_path`] gives the paths of the config file and of the credentials file;
//! 2. read both, and give their contents to [`Files::parse`];
//! 3. [`resolve`] selects the profile and the source of its credentials ([`Source`]), or returns a
//!    [`ResolveError`]; [`select`] only selects the profile and the region;
//! 4. [`Files::problems`] lists the faults, also those that the request did not meet;
//! 5. for roles and logins, [`cache_dir`] and [`SsoCacheKey`], [`Role::cache_file`] or
//!    [`LoginSession::cache_file`] name the file that may have keys already, and [`SsoToken`],
//!    [`CachedCredentials`] or [`LoginToken`] reads it.
//!
//! # Rules
//! - Grammar: "observed in AWS CLI 2.36", which reads both files with Python's `RawConfigParser` and
//!   splits headers with `shlex.split`. The format is in "Configuration and credential file
//!   settings" of the AWS CLI User Guide and in "Shared config and credentials files" of the AWS
//!   SDKs and Tools Reference Guide; these describe neither continuation lines nor quotes.
//! - Precedence: "Configuration settings and precedence" of the AWS CLI User Guide; the order inside
//!   a profile is observed in AWS CLI 2.36.
//! - Roles: "Using an IAM role in the AWS CLI"; Identity Center: "Configuring IAM Identity Center
//!   authentication with the AWS CLI"; programs: "Sourcing credentials with an external process".
//!
//! # Deviations
//! The tests list every case with another outcome than in the CLI, and its reason (`DEVIATIONS`).
//! - The CLI refuses every command if one line of one file is invalid. Here a fault makes only its
//!   section unusable ([`Problem`]), and faults of the default profile do not concern keys in the
//!   environment. Bytes in comments that are not UTF-8 have no effect.
//! - A profile with settings for credentials never leads to the identity of the container or the
//!   instance, even where the CLI continues ([`ResolveError::Incomplete`]); nor does a search after
//!   a line that may hide the name of a profile ([`ResolveError::FaultyFile`]).
//! - A file that exists and cannot be read is a fault; the CLI treats it as empty.
//! - The formats of boto 2 are not read: `AWS_CREDENTIAL_FILE` is refused, `BOTO_CONFIG` ignored.
//! - [`parse_date`] and `duration_seconds` do not know all forms that Python reads.
//!
//! # Bounds
//! A file above [`MAX_FILE_BYTES`], or [`MAX_CACHE_FILE_BYTES`] in a cache, is refused. Time and memory are linear in the size of the files
//! (sorted maps add a logarithm); values are shared and not copied for each profile. The worst case is
//! a file of empty sections, which takes 45 times its size. No input
//! causes a panic. Secrets appear neither in `Debug` output nor in errors.

#![forbid(unsafe_code)]

mod cache;
mod date;
mod error;
mod files;
mod grammar;
mod identity;
mod path;
mod problem;
mod python;
mod quote;
mod resolve;
mod setting;
#[cfg(test)]
mod tests;
mod words;

pub use cache::{
    AssumedRole, CLI_MARGIN, CacheFault, CachedCredentials, Freshness, GrantKind, LoginToken,
    MAX_CACHE_FILE_BYTES, NewAccess, NotRefreshable, PERSON_MARGIN, REFRESH_WINDOW, RefreshGrant,
    Registration, SecretText, SsoAccess, SsoCacheKey, SsoToken, UnknownKeys, session_token_file,
};
pub use date::{format_date, parse_date};
pub use error::{InvalidExpiration, ProcessFault, ResolveError, SourceFault, SsoFault};
pub use files::{FileInput, Files, MAX_FILE_BYTES, Profile, Services, SsoSession};
pub use identity::{
    ChosenBy, Container, ContainerUri, Identity, Keys, LoginSession, Process, ProfileKeys, Role,
    RoleChain, SelectedProfile, Selection, Source, Sso, WebIdentity,
};
pub use path::{CacheDir, Homes, cache_dir, file_path};
pub use problem::{Problem, Reason};
pub use resolve::{Platform, Request, Variables, resolve, select};
pub use setting::{FileKind, Location, Origin, Secret, Setting};
pub use words::{UnbalancedQuote, split_posix, split_windows};
