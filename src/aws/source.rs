//! Descriptions of the source of credentials: users may not know which file or variable took
//! precedence.

use std::fmt;

use aws_credential_types::Credentials;

use super::chain::Place;
use super::profile::Plan;

/// Source of credentials, as in "credentials from …".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source(String);

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Source {
    /// Returns the source of these credentials; `None` if [`AwsContext`](super::AwsContext) did not
    /// load them.
    #[must_use]
    pub fn of(credentials: &Credentials) -> Option<&Self> {
        credentials.get_property()
    }
}

/// Adds the source to credentials.
pub(super) fn noted(mut credentials: Credentials, plan: &Plan) -> Credentials {
    if let Some(place) = credentials.get_property::<Place>() {
        let source = words(*place, plan);
        credentials.set_property(Source(source));
    }
    credentials
}

pub(super) fn words(place: Place, plan: &Plan) -> String {
    match place {
        Place::Environment => "the environment".to_owned(),
        Place::WebIdentity => "a web identity token".to_owned(),
        Place::Container => "the container".to_owned(),
        Place::Instance => "the EC2 instance".to_owned(),
        Place::Profile => {
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
        let dev = Plan {
            profile: Some("dev".to_owned()),
            ..Plan::default()
        };
        let (role, session) = (Some("arn:aws:iam::1:role/app".to_owned()), || {
            Some("corp".to_owned())
        });
        for (plan, expected) in [
            (Plan::default(), "the default profile"),
            (dev.clone(), "profile dev"),
            (
                Plan {
                    role,
                    ..dev.clone()
                },
                "profile dev (an assumed role)",
            ),
            (
                Plan {
                    is_sso: true,
                    ..dev.clone()
                },
                "profile dev (SSO)",
            ),
            (
                Plan {
                    is_sso: true,
                    sso_session: session(),
                    ..dev.clone()
                },
                "profile dev (SSO session corp)",
            ),
        ] {
            assert_eq!(words(Place::Profile, &plan), expected);
        }
    }

    #[test]
    fn credentials_carry_their_source() {
        let mut credentials = Credentials::new("AKID", "secret", None, None, "test");
        assert_eq!(Source::of(&credentials), None);
        credentials.set_property(Place::Environment);
        let noted = noted(credentials, &Plan::default());
        let source = Source::of(&noted).map(ToString::to_string);
        assert_eq!(source.as_deref(), Some("the environment"));
    }
}
