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
//!    [`ResolveError`];
//! 4. [`Files::problems`] lists the faults, also those that the request did not meet.
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
//! The CLI refuses every command if one line of one file is invalid. Here a fault makes only its
//! section unusable ([`Problem`]). A profile with settings for credentials never leads to the
//! identity of the container or the instance, even where the CLI continues
//! ([`ResolveError::Incomplete`]). The tests list all deviations with their reasons (`DEVIATIONS`).
//!
//! # Bounds
//! A file above [`MAX_FILE_BYTES`] is refused. Time and memory are linear in the size of the files
//! (sorted maps add a logarithm); values are shared and not copied for each profile. No input
//! causes a panic. Secrets appear neither in `Debug` output nor in errors.

#![forbid(unsafe_code)]

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

pub use date::parse_date;
pub use error::{InvalidExpiration, ProcessFault, ResolveError, SourceFault, SsoFault};
pub use files::{FileInput, Files, MAX_FILE_BYTES, Profile, SsoSession};
pub use identity::{
    ChosenBy, Container, ContainerUri, Identity, Keys, LoginSession, Process, ProfileKeys, Role,
    RoleChain, SelectedProfile, Source, Sso, WebIdentity,
};
pub use path::{Homes, file_path};
pub use problem::{Problem, Reason};
pub use resolve::{Platform, Request, Variables, resolve};
pub use setting::{FileKind, Location, Origin, Secret, Setting};
pub use words::{UnbalancedQuote, split_posix, split_windows};
