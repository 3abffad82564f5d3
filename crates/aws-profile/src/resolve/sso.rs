//! Roles of IAM Identity Center.

use crate::error::{ResolveError, SsoFault};
use crate::files::{Files, Found, Profile, SsoSession};
use crate::identity::Sso;
use crate::setting::{Location, Setting};

const ACCOUNT_ID: &str = "sso_account_id";
const ROLE_NAME: &str = "sso_role_name";
const START_URL: &str = "sso_start_url";
const REGION: &str = "sso_region";

/// Returns the role of a profile; `None` if it names neither account nor role. A session alone does
/// not make a profile one of IAM Identity Center.
pub(super) fn role(profile: &Profile<'_>, files: &Files) -> Result<Option<Sso>, ResolveError> {
    let Some(first) = profile.get(ACCOUNT_ID).or_else(|| profile.get(ROLE_NAME)) else {
        return Ok(None);
    };
    let session = session(profile, files)?;
    let settings = Settings {
        profile,
        session: session.as_ref().map(|(_, session)| session),
    };
    settings.compare()?;
    let required = [ROLE_NAME, ACCOUNT_ID, START_URL, REGION];
    let required = required.map(|key| (key, settings.get(key)));
    let (
        [
            (_, Some(role_name)),
            (_, Some(account_id)),
            (_, Some(start_url)),
            (_, Some(region)),
        ],
    ) = (required,)
    else {
        let missing = required.iter().filter(|(_, found)| found.is_none());
        let missing = missing.map(|(key, _)| *key).collect();
        return Err(fault(profile, first.location(), SsoFault::Missing(missing)));
    };
    Ok(Some(Sso {
        profile: profile.name.clone(),
        start_url: start_url.setting(&profile.name, START_URL)?,
        region: region.setting(&profile.name, REGION)?,
        account_id: account_id.setting(&profile.name, ACCOUNT_ID)?,
        role_name: role_name.setting(&profile.name, ROLE_NAME)?,
        registration_scopes: settings.scopes()?,
        session: session.map(|(name, _)| name),
    }))
}

fn fault(profile: &Profile<'_>, location: Location, fault: SsoFault) -> ResolveError {
    ResolveError::Sso {
        profile: profile.name().to_owned(),
        location,
        fault,
    }
}

/// Returns the session that a profile names. The empty name counts.
fn session<'a>(
    profile: &Profile<'_>,
    files: &'a Files,
) -> Result<Option<(Setting, SsoSession<'a>)>, ResolveError> {
    const KEY: &str = "sso_session";
    let Some(found) = profile.get(KEY) else {
        return Ok(None);
    };
    let name = found.setting(&profile.name, KEY)?;
    let in_profile = |reason| fault(profile, found.location(), reason);
    match files.sso_session(name.as_str()) {
        Ok(Some(session)) => Ok(Some((name, session))),
        Ok(None) => Err(in_profile(SsoFault::SessionNotFound(
            name.value.to_string(),
        ))),
        Err(problem) => Err(in_profile(SsoFault::FaultySession(problem.clone()))),
    }
}

/// The settings of a session laid over those of a profile.
struct Settings<'a> {
    profile: &'a Profile<'a>,
    session: Option<&'a SsoSession<'a>>,
}

impl<'a> Settings<'a> {
    fn get(&self, key: &str) -> Option<Found<'a>> {
        let session = self.session.and_then(|session| session.get(key));
        session.or_else(|| self.profile.get(key))
    }

    fn scopes(&self) -> Result<Option<Setting>, ResolveError> {
        const KEY: &str = "sso_registration_scopes";
        let found = self.get(KEY);
        found
            .map(|found| found.setting(self.profile.name(), KEY))
            .transpose()
    }

    /// Returns an error if profile and session have different values for a key, whatever its
    /// meaning.
    fn compare(&self) -> Result<(), ResolveError> {
        let Some(session) = self.session else {
            return Ok(());
        };
        for key in session.keys() {
            if let (Some(one), Some(two)) = (self.profile.get(key), session.get(key))
                && !one.equals(&two)
            {
                let conflict = SsoFault::Conflict {
                    key: key.to_owned(),
                    session: two.location(),
                };
                return Err(fault(self.profile, one.location(), conflict));
            }
        }
        Ok(())
    }
}
