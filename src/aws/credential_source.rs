//! Descriptions of the source of credentials: users may not know which file or variable took
//! precedence.

use std::fmt;

use aws_credential_types::Credentials;

use super::chain::CredentialPlace;
use super::profile::ProfileSettings;

/// Source of credentials, as in "credentials from …".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialSource(String);

impl fmt::Display for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl CredentialSource {
    /// Returns the source of these credentials; `None` if [`AwsContext`](super::AwsContext) did not
    /// load them.
    #[must_use]
    pub fn of(credentials: &Credentials) -> Option<&Self> {
        credentials.get_property()
    }
}

/// Adds the source to credentials.
pub(super) fn noted(mut credentials: Credentials, plan: &ProfileSettings) -> Credentials {
    if let Some(place) = credentials.get_property::<CredentialPlace>() {
        let source = words(*place, plan);
        credentials.set_property(CredentialSource(source));
    }
    credentials
}

pub(super) fn words(place: CredentialPlace, plan: &ProfileSettings) -> String {
    match place {
        CredentialPlace::Environment => "the environment".to_owned(),
        CredentialPlace::WebIdentity => "a web identity token".to_owned(),
        CredentialPlace::Container => "the container".to_owned(),
        CredentialPlace::Instance => "the EC2 instance".to_owned(),
        CredentialPlace::Profile => {
            let profile = match &plan.profile {
                Some(profile) => format!("profile {profile}"),
                None => "the default profile".to_owned(),
            };
            match (&plan.role, &plan.sso_session) {
                (_, Some(session)) => format!("{profile} (SSO session {session})"),
                _ if plan.is_sso => format!("{profile} (SSO)"),
                (Some(_), None) => format!("{profile} (an assumed role)"),
                (None, None) => profile,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_says_how_it_gets_them() {
        let dev = ProfileSettings {
            profile: Some("dev".to_owned()),
            ..ProfileSettings::default()
        };
        let (role, session) = (Some("arn:aws:iam::1:role/app".to_owned()), || {
            Some("corp".to_owned())
        });
        for (plan, expected) in [
            (ProfileSettings::default(), "the default profile"),
            (dev.clone(), "profile dev"),
            (
                ProfileSettings {
                    role,
                    ..dev.clone()
                },
                "profile dev (an assumed role)",
            ),
            (
                ProfileSettings {
                    is_sso: true,
                    ..dev.clone()
                },
                "profile dev (SSO)",
            ),
            (
                ProfileSettings {
                    is_sso: true,
                    sso_session: session(),
                    ..dev.clone()
                },
                "profile dev (SSO session corp)",
            ),
        ] {
            assert_eq!(words(CredentialPlace::Profile, &plan), expected);
        }
    }

    #[test]
    fn credentials_carry_their_source() {
        let mut credentials = Credentials::new("AKID", "secret", None, None, "test");
        assert_eq!(CredentialSource::of(&credentials), None);
        credentials.set_property(CredentialPlace::Environment);
        let noted = noted(credentials, &ProfileSettings::default());
        let source = CredentialSource::of(&noted).map(ToString::to_string);
        assert_eq!(source.as_deref(), Some("the environment"));
    }
}
