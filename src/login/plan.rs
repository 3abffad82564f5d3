//! The login that a profile needs, according to the AWS files.

use aws_profile::{
    Files, Keys, LoginSession, Profile, Request, ResolveError, RoleChain, SelectedProfile, Source,
    Variables,
};

use super::SsoLogin;

/// The login of a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginPlan {
    /// The profile, and the reason for it.
    pub profile: SelectedProfile,
    /// The login.
    pub login: Login,
    /// Roles that are assumed with the credentials of the login. Some need MFA codes.
    pub roles: Option<RoleChain>,
    /// MFA device of a profile with keys and without a role.
    pub mfa: Option<KeysDevice>,
}

/// MFA device of access keys, which `GetSessionToken` takes a code of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysDevice {
    /// `mfa_serial`.
    pub serial: String,
    /// The keys.
    pub keys: Keys,
}

/// A way to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// IAM Identity Center.
    Sso(SsoLogin),
    /// `aws login`.
    Console(LoginSession),
    /// Nothing: the credentials come from elsewhere.
    None(CredentialOrigin),
}

/// Origin of credentials that are no login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialOrigin {
    /// Environment variables.
    Environment,
    /// Access keys in a file.
    Keys,
    /// A web identity token in a file.
    WebIdentity,
    /// A program.
    Process(String),
    /// The container.
    Container,
    /// The EC2 instance.
    Instance,
}

/// Reason why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The profile cannot be used.
    #[error(transparent)]
    Profile(#[from] ResolveError),
    /// The config file does not define the session.
    #[error("SSO session {name} does not exist{}", sessions(.known))]
    NoSession {
        /// Name.
        name: String,
        /// Existing sessions.
        known: Vec<String>,
    },
    /// A setting of the session is missing.
    #[error("{owner} has no {key}; add it to the AWS config file")]
    Missing {
        /// The session or the profile.
        owner: String,
        /// Key.
        key: &'static str,
    },
}

fn sessions(names: &[String]) -> String {
    match names {
        [] => "; create one: aws configure sso".to_owned(),
        names => format!("; defined are: {}", names.join(", ")),
    }
}

impl LoginPlan {
    /// Returns the login of the profile in effect.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn of_profile(
        request: &Request<'_>,
        variables: Variables<'_>,
        files: &Files,
    ) -> Result<Self, PlanError> {
        let selection = aws_profile::select(request, variables, files)?;
        let name = selection.profile.name.clone();
        let profile = files.profile(&name).ok().flatten();
        let named = match &profile {
            Some(profile) => of_settings(profile, files)?,
            None => None,
        };
        let resolved = aws_profile::resolve(request, variables, files);
        let keys = match &resolved {
            Ok(identity) => keys(&identity.source),
            Err(_) => None,
        };
        let (login, roles) = match resolved {
            Ok(identity) => match (of_source(identity.source), named) {
                // The AWS CLI takes the keys, but the profile names a session to log in to.
                ((Login::None(CredentialOrigin::Instance), roles), Some(named)) => {
                    (Login::Sso(named), roles)
                }
                (found, _) => found,
            },
            Err(error) => match named {
                Some(named) => (Login::Sso(named), None),
                None => return Err(error.into()),
            },
        };
        let serial = profile
            .as_ref()
            .map(|profile| profile.setting("mfa_serial"));
        let serial = serial.transpose()?.flatten();
        let mfa = keys.zip(serial).map(|(keys, serial)| KeysDevice {
            serial: serial.as_str().to_owned(),
            keys,
        });
        Ok(Self {
            profile: selection.profile,
            login,
            roles,
            mfa,
        })
    }
}

/// Returns the login to a session without a profile.
///
/// # Errors
/// [`PlanError`].
pub fn of_session(files: &Files, name: &str) -> Result<SsoLogin, PlanError> {
    let session = match files.sso_session(name) {
        Ok(session) => session,
        Err(problem) => return Err(ResolveError::FaultyFile(problem.clone()).into()),
    };
    let Some(session) = session else {
        let known = files.session_names();
        return Err(PlanError::NoSession {
            name: name.to_owned(),
            known: known.into_iter().map(str::to_owned).collect(),
        });
    };
    let text = |key| {
        let setting = session.setting(key)?;
        Ok::<_, PlanError>(setting.map(|setting| setting.as_str().to_owned()))
    };
    let needed = |key| {
        text(key)?.ok_or_else(|| PlanError::Missing {
            owner: format!("SSO session {name}"),
            key,
        })
    };
    Ok(SsoLogin {
        session: Some(name.to_owned()),
        start_url: needed("sso_start_url")?,
        region: needed("sso_region")?,
        scopes: text("sso_registration_scopes")?,
    })
}

/// Returns the login that a profile names without a role: a session, or a start URL with a region.
fn of_settings(profile: &Profile<'_>, files: &Files) -> Result<Option<SsoLogin>, PlanError> {
    let text = |key| {
        let setting = profile.setting(key)?;
        Ok::<_, ResolveError>(setting.map(|setting| setting.as_str().to_owned()))
    };
    if let Some(session) = text("sso_session")? {
        return of_session(files, &session).map(Some);
    }
    let (Some(start_url), Some(region)) = (text("sso_start_url")?, text("sso_region")?) else {
        return Ok(None);
    };
    Ok(Some(SsoLogin {
        session: None,
        start_url,
        region,
        scopes: text("sso_registration_scopes")?,
    }))
}

/// Returns the keys of a profile without a role.
fn keys(source: &Source) -> Option<Keys> {
    match source {
        Source::StaticKeys(keys) => Some(keys.keys.clone()),
        _ => None,
    }
}

fn of_source(source: Source) -> (Login, Option<RoleChain>) {
    let none = |origin| (Login::None(origin), None);
    match source {
        Source::AssumeRole(chain) => {
            let (login, _) = of_source((*chain.base).clone());
            (login, Some(chain))
        }
        Source::Sso(sso) => {
            let text = |setting: &aws_profile::Setting| setting.as_str().to_owned();
            let login = SsoLogin {
                session: sso.session.as_ref().map(text),
                start_url: text(&sso.start_url),
                region: text(&sso.region),
                scopes: sso.registration_scopes.as_ref().map(text),
            };
            (Login::Sso(login), None)
        }
        Source::LoginSession(session) => (Login::Console(session), None),
        Source::Environment(_) => none(CredentialOrigin::Environment),
        Source::StaticKeys(_) => none(CredentialOrigin::Keys),
        Source::WebIdentity(_) => none(CredentialOrigin::WebIdentity),
        Source::Process(process) => {
            let program = process.words.into_iter().next().unwrap_or_default();
            none(CredentialOrigin::Process(program))
        }
        Source::Container(_) => none(CredentialOrigin::Container),
        Source::Instance => none(CredentialOrigin::Instance),
    }
}

#[cfg(test)]
mod tests {
    use aws_profile::FileInput;

    use super::*;

    const CONFIG: &str = "\
[sso-session corp]
sso_start_url = https://d-1.awsapps.com/start
sso_region = eu-west-1
sso_registration_scopes = sso:account:access
[sso-session half]
sso_start_url = https://d-2.awsapps.com/start
[profile dev]
sso_session = corp
sso_account_id = 111122223333
sso_role_name = Dev
[profile token]
sso_session = corp
[profile old]
sso_start_url = https://d-1.awsapps.com/start
sso_region = eu-west-1
sso_account_id = 111122223333
sso_role_name = Dev
[profile above]
role_arn = arn:aws:iam::111122223333:role/Admin
source_profile = dev
mfa_serial = arn:aws:iam::111122223333:mfa/me
[profile broken]
sso_session = half
[profile keys]
aws_access_key_id = AKIDEXAMPLE
aws_secret_access_key = secret
mfa_serial = arn:aws:iam::111122223333:mfa/me
[profile tool]
credential_process = granted credential-process
[profile granted]
sso_session = corp
credential_process = granted credential-process
[profile console]
login_session = arn:aws:iam::111122223333:user/me
";

    fn plan(profile: &str) -> Result<LoginPlan, PlanError> {
        let config = FileInput::Contents(CONFIG.as_bytes());
        let files = Files::parse(("config", config), ("credentials", FileInput::Missing));
        let request = Request {
            profile: Some(profile),
            ..Request::default()
        };
        LoginPlan::of_profile(&request, &|_| None, &files)
    }

    #[test]
    fn each_kind_of_profile_has_its_login() {
        let corp = Login::Sso(SsoLogin {
            session: Some("corp".to_owned()),
            start_url: "https://d-1.awsapps.com/start".to_owned(),
            region: "eu-west-1".to_owned(),
            scopes: Some("sso:account:access".to_owned()),
        });
        let old = Login::Sso(SsoLogin {
            session: None,
            start_url: "https://d-1.awsapps.com/start".to_owned(),
            region: "eu-west-1".to_owned(),
            scopes: None,
        });
        let process = || Login::None(CredentialOrigin::Process("granted".to_owned()));
        for (profile, expected) in [
            ("dev", corp.clone()),
            ("token", corp.clone()),
            ("old", old),
            ("above", corp),
            ("keys", Login::None(CredentialOrigin::Keys)),
            ("tool", process()),
            ("granted", process()),
        ] {
            assert_eq!(plan(profile).unwrap().login, expected, "{profile}");
        }
        assert!(matches!(plan("console").unwrap().login, Login::Console(_)));
        for (profile, expected) in [
            (
                "broken",
                "SSO session half has no sso_region; add it to the AWS config file",
            ),
            (
                "gone",
                "profile \"gone\" does not exist (named by the request)",
            ),
        ] {
            assert_eq!(plan(profile).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn devices_belong_to_roles_or_keys() {
        let above = plan("above").unwrap();
        assert_eq!(above.mfa, None);
        assert!(above.roles.unwrap().roles[0].mfa_serial.is_some());
        let keys = plan("keys").unwrap();
        assert_eq!(keys.roles, None);
        let device = keys.mfa.unwrap();
        assert_eq!(device.serial, "arn:aws:iam::111122223333:mfa/me");
        assert!(!format!("{device:?}").contains("secret\""));
    }

    #[test]
    fn sessions_need_no_profile() {
        let files = Files::parse(
            ("config", FileInput::Contents(CONFIG.as_bytes())),
            ("credentials", FileInput::Missing),
        );
        assert_eq!(of_session(&files, "corp").unwrap().region, "eu-west-1");
        let missing = of_session(&files, "crop").unwrap_err().to_string();
        assert_eq!(
            missing,
            "SSO session crop does not exist; defined are: corp, half"
        );
    }
}
