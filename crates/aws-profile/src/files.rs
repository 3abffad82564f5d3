//! Profiles and SSO sessions of both files, as botocore's `configloader` and `session` of AWS CLI
//! 2.36 build them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::error::ResolveError;
use crate::grammar::{Document, Section, Value};
use crate::problem::{Problem, Reason};
use crate::setting::{FileKind, Location, Origin, Setting};
use crate::words::split_posix;

/// Maximum size of a file in bytes. Configurations of large organisations have some hundred
/// kilobytes.
pub const MAX_FILE_BYTES: usize = 4 * 1024 * 1024;

/// Contents of a file.
#[derive(Clone, Copy)]
pub enum FileInput<'a> {
    /// The path does not exist or is not a regular file. It counts as empty, as for the AWS CLI.
    Missing,
    /// The file exists and cannot be read, with the reason. The AWS CLI treats it as empty; here it
    /// makes profiles unusable, because they may be in it.
    Unreadable(&'a str),
    /// The bytes of the file.
    Contents(&'a [u8]),
}

impl fmt::Debug for FileInput<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("Missing"),
            Self::Unreadable(reason) => write!(f, "Unreadable({reason:?})"),
            Self::Contents(bytes) => write!(f, "Contents({} bytes)", bytes.len()),
        }
    }
}

/// Sections of the same kind in one file that yield the same name.
#[derive(Debug, Clone, Copy)]
struct Named {
    /// Index of the one that counts: the last one replaces the others whole.
    last: usize,
    /// Index of the first one with a fault.
    faulty: Option<usize>,
}

type Names = HashMap<Arc<str>, Named>;

/// The parsed config file and credentials file. `Debug` shows no values.
#[derive(Clone, Debug)]
pub struct Files {
    pub(crate) config: Document,
    pub(crate) credentials: Document,
    profiles: Names,
    sessions: Names,
    services: Names,
    credential_profiles: Names,
}

impl Files {
    /// Parses both files. Each is given with its path, which messages show.
    #[must_use]
    pub fn parse(config: (&str, FileInput<'_>), credentials: (&str, FileInput<'_>)) -> Self {
        let config = document(FileKind::Config, config);
        let credentials = document(FileKind::Credentials, credentials);
        Self {
            profiles: names(&config, profile_of_config),
            sessions: names(&config, |header| prefixed(header, "sso-session")),
            services: names(&config, |header| prefixed(header, "services")),
            credential_profiles: names(&credentials, |header| Some(header.into())),
            config,
            credentials,
        }
    }

    /// Returns the faults of both files. Each section and each file has at most one.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.config.problems().chain(self.credentials.problems())
    }

    /// Returns the names of all profiles, sorted.
    #[must_use]
    pub fn profile_names(&self) -> Vec<&str> {
        let both = self.profiles.keys().chain(self.credential_profiles.keys());
        let mut names: Vec<&str> = both.map(AsRef::as_ref).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Returns the names of all SSO sessions, sorted.
    #[must_use]
    pub fn session_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.sessions.keys().map(AsRef::as_ref).collect();
        names.sort_unstable();
        names
    }

    /// Returns a profile, `None` if no file defines it.
    ///
    /// # Errors
    /// Returns the fault of one of its sections, or of a whole file.
    pub fn profile(&self, name: &str) -> Result<Option<Profile<'_>>, &Problem> {
        let config = layer(&self.config, &self.profiles, name)?;
        let credentials = layer(&self.credentials, &self.credential_profiles, name)?;
        Ok(
            (config.is_some() || credentials.is_some()).then(|| Profile {
                name: name.into(),
                config,
                credentials,
            }),
        )
    }

    /// Returns an SSO session, `None` if the config file does not define it.
    ///
    /// # Errors
    /// Returns the fault of its section, or of the whole file.
    pub fn sso_session(&self, name: &str) -> Result<Option<SsoSession<'_>>, &Problem> {
        let layer = layer(&self.config, &self.sessions, name)?;
        Ok(layer.map(|layer| {
            SsoSession(Profile {
                name: name.into(),
                config: Some(layer),
                credentials: None,
            })
        }))
    }

    /// Returns a `services` definition, `None` if the config file does not have it.
    ///
    /// # Errors
    /// Returns the fault of its section, or of the whole file.
    pub fn services(&self, name: &str) -> Result<Option<Services<'_>>, &Problem> {
        let layer = layer(&self.config, &self.services, name)?;
        Ok(layer.map(Services))
    }

    /// Returns a fault of a line that belongs to no section or hides the name of one, or of a whole
    /// file. Credentials of any profile may be there.
    pub(crate) fn fault_outside_sections(&self) -> Option<&Problem> {
        let documents = [&self.config, &self.credentials];
        documents
            .into_iter()
            .find_map(|document| document.fault.as_ref().or(document.stray.as_ref()))
    }
}

fn document(kind: FileKind, (path, input): (&str, FileInput<'_>)) -> Document {
    match input {
        FileInput::Missing => Document::empty(kind, path),
        FileInput::Unreadable(reason) => {
            Document::faulty(kind, path, Reason::Unreadable(reason.to_owned()))
        }
        FileInput::Contents(bytes) if bytes.len() > MAX_FILE_BYTES => {
            Document::faulty(kind, path, Reason::TooLarge)
        }
        FileInput::Contents(bytes) => Document::parse(kind, path, bytes),
    }
}

/// Returns the sections that `name_of` gives a name.
fn names(document: &Document, name_of: impl Fn(&str) -> Option<Arc<str>>) -> Names {
    let mut names = Names::new();
    for (at, section) in document.sections.iter().enumerate() {
        let Some(name) = name_of(&section.header) else {
            continue;
        };
        let faulty = section.problem.is_some().then_some(at);
        let named = names.entry(name).or_insert(Named { last: at, faulty });
        named.last = at;
        named.faulty = named.faulty.or(faulty);
    }
    names
}

/// Returns the name of the profile that a header of the config file defines.
fn profile_of_config(header: &str) -> Option<Arc<str>> {
    match header {
        "default" => Some(header.into()),
        _ => prefixed(header, "profile"),
    }
}

/// Returns the second of exactly two words, if the header begins with these letters. The CLI does
/// not compare the first word: `[profiles dev]` defines `dev`.
fn prefixed(header: &str, letters: &str) -> Option<Arc<str>> {
    if !header.starts_with(letters) {
        return None;
    }
    match split_posix(header).ok()?.as_slice() {
        [_, name] => Some(name.as_str().into()),
        _ => None,
    }
}

fn layer<'a>(
    document: &'a Document,
    names: &Names,
    name: &str,
) -> Result<Option<Layer<'a>>, &'a Problem> {
    if let Some(fault) = &document.fault {
        return Err(fault);
    }
    let Some(named) = names.get(name) else {
        return Ok(None);
    };
    let section = |at: usize| document.sections.get(at);
    let of_section = named.faulty.and_then(section);
    let fault = of_section.and_then(|section| section.problem.as_ref());
    if let Some(fault) = fault.or(document.defaults.problem.as_ref()) {
        return Err(fault);
    }
    Ok(section(named.last).map(|section| Layer { document, section }))
}

/// A section with the keys that it inherits from `[DEFAULT]` of its file.
#[derive(Clone, Copy)]
pub(crate) struct Layer<'a> {
    document: &'a Document,
    section: &'a Section,
}

impl<'a> Layer<'a> {
    pub(crate) fn get(&self, key: &str) -> Option<Found<'a>> {
        let own = self.section.values.get(key);
        let value = own.or_else(|| self.document.defaults.values.get(key))?;
        let document = self.document;
        Some(Found { document, value })
    }

    pub(crate) fn contains(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Returns the line of the header.
    pub(crate) fn location(&self) -> Location {
        self.document.location(self.section.line)
    }

    /// Returns the own and the inherited keys; both have those that the section overrides.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let own = self.section.values.keys();
        let inherited = self.document.defaults.values.keys();
        own.chain(inherited).map(String::as_str)
    }
}

/// A value and its file.
#[derive(Clone, Copy)]
pub(crate) struct Found<'a> {
    document: &'a Document,
    value: &'a Value,
}

impl Found<'_> {
    pub(crate) fn location(&self) -> Location {
        self.document.location(self.value.line)
    }

    /// Returns the text.
    ///
    /// # Errors
    /// [`ResolveError::NestedValue`] for a nested block.
    pub(crate) fn setting(&self, profile: &str, key: &str) -> Result<Setting, ResolveError> {
        if self.value.nested.is_some() {
            return Err(ResolveError::NestedValue {
                profile: profile.to_owned(),
                key: key.to_owned(),
                location: self.location(),
            });
        }
        Ok(Setting {
            value: self.value.text.clone(),
            origin: Origin::File(self.location()),
        })
    }

    /// Returns `true` if both values are equal for Python: the same text, or blocks with the same
    /// settings.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        match (&self.value.nested, &other.value.nested) {
            (None, None) => self.value.text == other.value.text,
            (Some(one), Some(two)) => as_map(one) == as_map(two),
            _ => false,
        }
    }
}

fn as_map(nested: &[(Arc<str>, Arc<str>)]) -> HashMap<&str, &str> {
    let entries = nested.iter();
    entries.map(|(key, value)| (&**key, &**value)).collect()
}

/// A profile: the section of the config file with the section of the credentials file laid over it,
/// key by key.
#[derive(Clone)]
pub struct Profile<'a> {
    pub(crate) name: Arc<str>,
    /// The section of the config file.
    pub(crate) config: Option<Layer<'a>>,
    /// The section of the credentials file.
    pub(crate) credentials: Option<Layer<'a>>,
}

impl<'a> Profile<'a> {
    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the lines of the headers, the one of the config file first.
    #[must_use]
    pub fn locations(&self) -> Vec<Location> {
        let both = [&self.config, &self.credentials];
        let both = both.into_iter().flatten();
        both.map(Layer::location).collect()
    }

    /// Returns a value by its key in lower case; `None` if it is not set. An empty value is set.
    ///
    /// # Errors
    /// [`ResolveError::NestedValue`] for a nested block.
    pub fn setting(&self, key: &str) -> Result<Option<Setting>, ResolveError> {
        let found = self.get(key);
        found
            .map(|found| found.setting(&self.name, key))
            .transpose()
    }

    /// Returns the settings of a nested block such as `s3`, in the order of the file; of a repeated
    /// one the last counts. Empty if the key is not set or has a text.
    #[must_use]
    pub fn nested(&self, key: &str) -> Vec<(&'a str, &'a str)> {
        let nested = self.get(key).and_then(|found| found.value.nested.as_ref());
        let entries = nested.into_iter().flatten();
        entries.map(|(key, value)| (&**key, &**value)).collect()
    }

    pub(crate) fn get(&self, key: &str) -> Option<Found<'a>> {
        let credentials = self.credentials.and_then(|layer| layer.get(key));
        credentials.or_else(|| self.config.and_then(|layer| layer.get(key)))
    }

    pub(crate) fn contains(&self, key: &str) -> bool {
        self.get(key).is_some()
    }
}

impl fmt::Debug for Profile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profile")
            .field("name", &self.name)
            .field("locations", &self.locations())
            .finish()
    }
}

/// A `[services NAME]` of the config file: one nested block of settings for each service.
#[derive(Clone, Copy)]
pub struct Services<'a>(Layer<'a>);

impl<'a> Services<'a> {
    /// Returns the settings of all services as (service, key, value), in no particular order.
    pub fn settings(&self) -> impl Iterator<Item = (&'a str, &'a str, &'a str)> + use<'a> {
        let layer = self.0;
        layer.keys().flat_map(move |service| {
            let nested = layer
                .get(service)
                .and_then(|found| found.value.nested.as_ref());
            let entries = nested.into_iter().flatten();
            entries.map(move |(key, value)| (service, &**key, &**value))
        })
    }
}

impl fmt::Debug for Services<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Services({})", self.0.location())
    }
}

/// An `[sso-session NAME]` of the config file.
#[derive(Debug, Clone)]
pub struct SsoSession<'a>(pub(crate) Profile<'a>);

impl<'a> SsoSession<'a> {
    /// Returns a value by its key in lower case; `None` if it is not set.
    ///
    /// # Errors
    /// [`ResolveError::NestedValue`] for a nested block.
    pub fn setting(&self, key: &str) -> Result<Option<Setting>, ResolveError> {
        self.0.setting(key)
    }

    pub(crate) fn get(&self, key: &str) -> Option<Found<'a>> {
        self.0.get(key)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.0.config.into_iter().flat_map(|layer| layer.keys())
    }
}
