//! The profile that a login is for.

use std::time::SystemTime;

use anyhow::anyhow;
use aws_profile::{Files, Request};

use crate::aws::{AwsContext, AwsOptions};
use crate::base::environment;
use crate::base::quote::{printable, shell};
use crate::base::suggest::did_you_mean;
use crate::cli::ProgramArgs;
use crate::config::TargetLayer;
use crate::login::aws_files;
use crate::login::plan::{LoginPlan, PlanError};

/// The profile that a login is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::commands) struct Subject {
    /// Name on the command line.
    given: Option<String>,
    /// The profile; `None`: that of the AWS CLI.
    profile: Option<String>,
}

impl Subject {
    /// Returns the profile of a name: the profile of this name, else that of the target. Without a
    /// name it is that of `PGIAM_PROFILE`.
    ///
    /// # Errors
    /// Neither a profile nor a target has this name.
    pub(in crate::commands) fn new(
        name: Option<&str>,
        program: &ProgramArgs,
        files: &Files,
    ) -> anyhow::Result<Self> {
        let Some(name) = name else {
            return Ok(Self {
                given: None,
                profile: environment::read("PGIAM_PROFILE")?,
            });
        };
        let given = Some(name.to_owned());
        let profiles = files.profile_names();
        if profiles.contains(&name) {
            let profile = given.clone();
            return Ok(Self { given, profile });
        }
        let file = crate::commands::load_file(program)?;
        if file.targets.contains_key(name) {
            let target = file.target(Some(name), &TargetLayer::default())?;
            let profile = target.settings.profile.clone();
            return Ok(Self { given, profile });
        }
        let targets = file.targets.keys().map(String::as_str);
        let suggestion = did_you_mean(name, profiles.iter().copied().chain(targets));
        Err(anyhow!(
            "no AWS profile and no target is named \"{}\"; {suggestion}existing profiles: {}",
            printable(name),
            printable(&profiles.join(", "))
        ))
    }

    /// Returns the subject of a command that has the profile in its settings.
    pub(in crate::commands) fn of_profile(profile: Option<&str>) -> Self {
        Self {
            given: profile.map(str::to_owned),
            profile: profile.map(str::to_owned),
        }
    }

    /// Returns the login of the profile.
    ///
    /// # Errors
    /// The profile cannot be used.
    pub(in crate::commands) fn plan(&self, files: &Files) -> Result<LoginPlan, PlanError> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let request = Request {
            profile: self.profile.as_deref(),
            now: now.map_or(0, |now| now.as_secs().cast_signed()),
            ..Request::default()
        };
        LoginPlan::of_profile(&request, &aws_files::variable, files)
    }

    /// Returns the context of the profile.
    pub(in crate::commands) fn context(&self) -> AwsContext {
        AwsContext::new(AwsOptions {
            profile: self.profile.clone(),
            ..AwsOptions::default()
        })
    }

    /// Returns the name as an argument of another command line, with a blank before it.
    pub(in crate::commands) fn argument(&self) -> String {
        let given = self.given.as_deref();
        given
            .map(|name| format!(" {}", shell(name)))
            .unwrap_or_default()
    }
}
