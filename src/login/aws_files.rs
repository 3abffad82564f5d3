//! The AWS files and variables, for commands about profiles.

use aws_profile::{FileKind, Files};

use super::LoginError;
use crate::aws::{AwsOptions, PLATFORM, home, read_files};

/// Reads and parses both files. The faults of a file are in the result.
///
/// # Errors
/// [`LoginError::AwsFiles`].
pub async fn read() -> Result<Files, LoginError> {
    let files = read_files(&AwsOptions::default()).await;
    files.map_err(|reason| LoginError::AwsFiles(reason.into()))
}

/// Returns a variable of AWS; `None` if it is not set, or is no text.
#[must_use]
pub fn variable(name: &str) -> Option<String> {
    crate::aws::variable(name).ok().flatten()
}

/// Returns the path of the config file.
pub(super) fn config_path() -> String {
    aws_profile::file_path(FileKind::Config, PLATFORM, &variable, &home)
}
