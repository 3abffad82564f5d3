//! Reasons why a login failed.

use std::time::Duration;

use crate::aws::cache_files::CacheFileError;
use crate::base::foreign_text::ForeignText;

/// Reason why a login failed. Contains no secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The user, or an administrator's policy, denied the request.
    #[error("the login was denied on AWS's page")]
    Denied,
    /// The page ended with an error.
    #[error("the login failed on AWS's page: {code}{}", described(.description))]
    Page {
        /// OAuth error code (RFC 6749, 4.1.2.1).
        code: ForeignText,
        /// Its description, if there is one.
        description: Option<ForeignText>,
    },
    /// The user did not complete the login in time.
    #[error("the login was not completed within {} minutes", .0.as_secs() / 60)]
    TimedOut(Duration),
    /// The code ended before the user entered it.
    #[error("the device code has expired after {} minutes", .0.as_secs() / 60)]
    CodeExpired(Duration),
    /// AWS refused a call.
    #[error("{call} failed: {reason}")]
    Call {
        /// Name of the call.
        call: &'static str,
        /// Error code of AWS and its description, or the problem with the connection.
        reason: ForeignText,
    },
    /// An answer of AWS lacks a field.
    #[error("the answer of {call} has no {field}")]
    Incomplete {
        /// Name of the call.
        call: &'static str,
        /// Name of the field.
        field: &'static str,
    },
    /// The start URL cannot be used.
    #[error("cannot log in at the start URL {url}: {reason}")]
    StartUrl {
        /// The URL.
        url: ForeignText,
        /// The problem and the remedy.
        reason: ForeignText,
    },
    /// The start URL leads to another region than the configured one.
    #[error(
        "the start URL {url} leads to region {region}, but sso_region is {configured}; set sso_region = {region} in {section}"
    )]
    Region {
        /// The configured URL.
        url: ForeignText,
        /// Region of its target.
        region: ForeignText,
        /// `sso_region`.
        configured: ForeignText,
        /// Section of the AWS config file that has `sso_region`.
        section: ForeignText,
    },
    /// pgiam cannot listen for the browser.
    #[error("cannot listen on 127.0.0.1:{port} for the browser: {reason}")]
    Listener {
        /// Port; 0 for a free one.
        port: u16,
        /// Error of the system.
        reason: String,
    },
    /// A cache file cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheFileError),
    /// The AWS files cannot be found.
    #[error("invalid AWS configuration: {0}")]
    AwsFiles(ForeignText),
    /// The system has no random numbers.
    #[error("the operating system provides no random numbers")]
    NoRandom,
}

impl LoginError {
    /// Returns `true` if AWS may no longer know the registration that was used. Its page then shows an
    /// error and does not return.
    pub(super) fn may_be_about_the_registration(&self) -> bool {
        matches!(
            self,
            Self::Call { .. } | Self::Page { .. } | Self::TimedOut(_)
        )
    }
}

fn described(description: &Option<ForeignText>) -> String {
    match description {
        Some(description) => format!(" ({description})"),
        None => String::new(),
    }
}
