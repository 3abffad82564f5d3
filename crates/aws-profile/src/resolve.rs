//! The search for an identity, in the order of AWS CLI 2.36.

mod environment;
mod profile;
mod role;
mod sso;

use crate::error::ResolveError;
use crate::files::{Files, Profile};
use crate::identity::{ChosenBy, Identity, SelectedProfile, Selection, Source};
use crate::problem::Problem;
use crate::setting::{Origin, Setting};

/// Returns the value of an environment variable; `None` if it is not set.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Rules for splitting a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Platform {
    /// [`split_posix`](crate::split_posix).
    #[default]
    Posix,
    /// [`split_windows`](crate::split_windows).
    Windows,
}

/// Arguments of a search that are neither in variables nor in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Request<'a> {
    /// Profile (`--profile`). The empty name counts as none.
    pub profile: Option<&'a str>,
    /// Region (`--region`).
    pub region: Option<&'a str>,
    /// Rules for `credential_process`.
    pub platform: Platform,
    /// Current time in seconds since 1970, for `AWS_CREDENTIAL_EXPIRATION`.
    pub now: i64,
}

/// Returns the identity that the AWS CLI v2 takes with these variables and files.
///
/// # Errors
/// [`ResolveError`] if the requested profile does not exist or cannot be used. The search ends with
/// the first error, as that of the AWS CLI.
pub fn resolve(
    request: &Request<'_>,
    variables: Variables<'_>,
    files: &Files,
) -> Result<Identity, ResolveError> {
    let search = Search::begin(request, variables, files)?;
    let source = search.source()?;
    let selection = search.selection()?;
    Ok(Identity { selection, source })
}

/// Returns the profile and the region that the AWS CLI v2 takes with these variables and files.
///
/// # Errors
/// [`ResolveError`] if the requested profile does not exist or has a fault, or if its region is no
/// text.
pub fn select(
    request: &Request<'_>,
    variables: Variables<'_>,
    files: &Files,
) -> Result<Selection, ResolveError> {
    Search::begin(request, variables, files)?.selection()
}

/// Returns the name of the profile in effect, and its reason. A variable that is set but empty names
/// the profile "".
fn choose(request: &Request<'_>, variables: Variables<'_>) -> (String, ChosenBy) {
    if let Some(name) = request.profile.filter(|name| !name.is_empty()) {
        return (name.to_owned(), ChosenBy::Request);
    }
    for variable in ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"] {
        if let Some(name) = variables(variable) {
            return (name, ChosenBy::Variable(variable));
        }
    }
    ("default".to_owned(), ChosenBy::Default)
}

fn faulty(profile: &str, problem: &Problem) -> ResolveError {
    ResolveError::FaultyProfile {
        profile: profile.to_owned(),
        problem: problem.clone(),
    }
}

/// A search for the source of credentials.
struct Search<'a> {
    request: &'a Request<'a>,
    variables: Variables<'a>,
    files: &'a Files,
    name: String,
    chosen_by: ChosenBy,
    /// `None` if no file has the default profile, or if it has a fault.
    profile: Option<Profile<'a>>,
    /// Fault of the default profile.
    problem: Option<&'a Problem>,
}

impl<'a> Search<'a> {
    fn begin(
        request: &'a Request<'a>,
        variables: Variables<'a>,
        files: &'a Files,
    ) -> Result<Self, ResolveError> {
        let (name, chosen_by) = choose(request, variables);
        let is_named = chosen_by != ChosenBy::Default;
        let (profile, problem) = match files.profile(&name) {
            Ok(None) if is_named => {
                return Err(ResolveError::ProfileNotFound {
                    profile: name,
                    chosen_by,
                    problem: files.fault_outside_sections().cloned(),
                });
            }
            Err(problem) if is_named => return Err(faulty(&name, problem)),
            Ok(profile) => (profile, None),
            Err(problem) => (None, Some(problem)),
        };
        Ok(Self {
            request,
            variables,
            files,
            name,
            chosen_by,
            profile,
            problem,
        })
    }

    fn selection(&self) -> Result<Selection, ResolveError> {
        let profile = self.profile.as_ref();
        Ok(Selection {
            region: self.region()?,
            unused_profile_problem: self.problem.cloned(),
            profile: SelectedProfile {
                name: self.name.as_str().into(),
                chosen_by: self.chosen_by,
                locations: profile.map(Profile::locations).unwrap_or_default(),
            },
        })
    }

    /// Returns `true` if keys and web identity in the environment count.
    fn reads_environment(&self) -> bool {
        self.chosen_by != ChosenBy::Request
    }

    fn source(&self) -> Result<Source, ResolveError> {
        if self.reads_environment()
            && let Some(keys) = environment::keys(self.variables, self.request.now)?
        {
            return Ok(Source::Environment(keys));
        }
        if let Some(problem) = self.problem {
            return Err(faulty(&self.name, problem));
        }
        if let Some(profile) = &self.profile
            && let Some(chain) = role::chain(self, profile)?
        {
            return Ok(Source::AssumeRole(chain));
        }
        let variables = self.reads_environment().then_some(self.variables);
        if let Some(web) = environment::web_identity(self.profile.as_ref(), variables)? {
            return Ok(Source::WebIdentity(web));
        }
        if let Some(profile) = &self.profile
            && let Some(source) = self.source_of(profile)?
        {
            return Ok(source);
        }
        self.ambient()
    }

    /// Returns the source of a profile besides its role and web identity.
    fn source_of(&self, profile: &Profile<'_>) -> Result<Option<Source>, ResolveError> {
        if let Some(sso) = sso::role(profile, self.files)? {
            return Ok(Some(Source::Sso(sso)));
        }
        if let Some(keys) = profile::keys(profile, profile.credentials)? {
            return Ok(Some(Source::StaticKeys(keys)));
        }
        if let Some(login) = profile::login_session(profile)? {
            return Ok(Some(Source::LoginSession(login)));
        }
        if let Some(process) = profile::process(profile, self.request.platform)? {
            return Ok(Some(Source::Process(process)));
        }
        let keys = profile::keys(profile, profile.config)?;
        Ok(keys.map(Source::StaticKeys))
    }

    /// Returns the credentials of the machine, for a profile that has nothing to do with
    /// credentials.
    fn ambient(&self) -> Result<Source, ResolveError> {
        if let Some(profile) = &self.profile {
            profile::has_no_credential_settings(profile)?;
        }
        if let Some(problem) = self.files.fault_outside_sections() {
            return Err(ResolveError::FaultyFile(problem.clone()));
        }
        if (self.variables)("AWS_CREDENTIAL_FILE").is_some() {
            return Err(ResolveError::CredentialFileVariable);
        }
        if let Some(container) = environment::container(self.variables) {
            return Ok(Source::Container(container));
        }
        if environment::is_metadata_disabled(self.variables) {
            return Err(ResolveError::NoCredentials {
                profile: self.name.clone(),
            });
        }
        Ok(Source::Instance)
    }

    fn region(&self) -> Result<Option<Setting>, ResolveError> {
        if let Some(region) = self.request.region {
            return Ok(Some(Setting {
                value: region.into(),
                origin: Origin::Request,
            }));
        }
        for variable in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
            if let Some(region) = environment::setting(self.variables, variable) {
                return Ok(Some(region));
            }
        }
        match &self.profile {
            Some(profile) => profile.setting("region"),
            None => Ok(None),
        }
    }
}
