//! Values with the place that they come from.

use std::fmt;
use std::sync::Arc;

use crate::quote::Quoted;

/// One of the two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// `~/.aws/config`.
    Config,
    /// `~/.aws/credentials`.
    Credentials,
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The file.
    pub kind: FileKind,
    /// Path of the file, as given to [`Files::parse`](crate::Files::parse).
    pub path: Arc<str>,
    /// Line number from 1.
    pub line: usize,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path, self.line)
    }
}

/// Place that a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The request, such as an option of the command line.
    Request,
    /// An environment variable.
    Variable(&'static str),
    /// A line of a file.
    File(Location),
}

impl Origin {
    /// Returns the line of the file, if the value is from one.
    #[must_use]
    pub fn location(&self) -> Option<&Location> {
        match self {
            Self::File(location) => Some(location),
            Self::Request | Self::Variable(_) => None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request => f.write_str("the request"),
            Self::Variable(name) => f.write_str(name),
            Self::File(location) => location.fmt(f),
        }
    }
}

/// A value that may be shown. The empty text counts as set, as for the AWS CLI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The text.
    pub value: Arc<str>,
    /// The place that it comes from.
    pub origin: Origin,
}

impl Setting {
    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.value
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", Quoted(&self.value), self.origin)
    }
}

/// A value that `Debug` and errors do not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    value: Arc<str>,
    /// The place that it comes from.
    pub origin: Origin,
}

impl Secret {
    /// Returns the text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.value
    }
}

impl From<Setting> for Secret {
    fn from(setting: Setting) -> Self {
        Self {
            value: setting.value,
            origin: setting.origin,
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({:?})", self.origin)
    }
}
