//! Faults of the files.

use std::sync::Arc;

use thiserror::Error;

use crate::quote::Quoted;
use crate::setting::Location;

/// A fault that makes a section, or a whole file, unusable.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{location}: {reason}")]
pub struct Problem {
    /// The faulty line.
    pub location: Location,
    /// Text between the brackets of the section, `None` before the first one and for a whole file.
    pub section: Option<Arc<str>>,
    /// The fault.
    pub reason: Reason,
}

/// A fault for which the AWS CLI refuses the file. Contents of the line are not part of it: a line
/// may hold a part of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Reason {
    /// The section has a second header.
    #[error("the section begins a second time (first in line {first_line})")]
    DuplicateSection {
        /// Line of the first header.
        first_line: usize,
    },
    /// The section has a key twice.
    #[error(
        "the section has the key {} a second time (first in line {first_line})",
        Quoted(key)
    )]
    DuplicateKey {
        /// Key in lower case; empty if it does not look like the name of a setting.
        key: String,
        /// Line of the first one.
        first_line: usize,
    },
    /// The line is no header and has neither `=` nor `:`.
    #[error("the line has no \"=\" and is not a [section]")]
    NoDelimiter,
    /// The line begins with `[` and is no header. The lines below it may belong to any profile.
    #[error("the line begins with \"[\", but is not a [section]")]
    UnclosedHeader,
    /// The line begins with `=` or `:`.
    #[error("the line has no key before \"=\" or \":\"")]
    EmptyKey,
    /// The line stands before the first header.
    #[error("the line is not in a [section]")]
    BeforeFirstSection,
    /// An indented line below `KEY =` has no `=`.
    #[error("the indented line has no \"=\"; a value must be on the line of its key")]
    NestedLine,
    /// A header, key or value contains a byte that is not UTF-8.
    #[error("the line is not UTF-8; save the file as UTF-8")]
    NotUtf8,
    /// A comment contains a byte that is not UTF-8. It makes nothing unusable here.
    #[error("the comment is not UTF-8; save the file as UTF-8 so that the AWS CLI reads it, too")]
    NotUtf8Comment,
    /// The file begins with a byte order mark.
    #[error("the file begins with a byte order mark; save it as UTF-8 without one")]
    ByteOrderMark,
    /// The file begins with a byte order mark of UTF-16.
    #[error("the file is UTF-16; save it as UTF-8")]
    Utf16,
    /// The file is larger than [`MAX_FILE_BYTES`](crate::MAX_FILE_BYTES).
    #[error("the file is larger than {} MiB", crate::MAX_FILE_BYTES >> 20)]
    TooLarge,
    /// The file exists, and the caller could not read it.
    #[error("the file cannot be read: {0}")]
    Unreadable(String),
}

/// Longest key that messages show, in bytes. The longest setting has 34
/// (`ec2_metadata_service_endpoint_mode`), a secret access key 40.
const MAX_KEY: usize = 36;

impl Reason {
    /// Returns the reason for a second `key`, without text that may be part of a secret.
    pub(crate) fn duplicate_key(key: &str, first_line: usize) -> Self {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        let shown = key.len() <= MAX_KEY && key.bytes().all(is_name);
        Self::DuplicateKey {
            key: if shown { key.to_owned() } else { String::new() },
            first_line,
        }
    }
}
