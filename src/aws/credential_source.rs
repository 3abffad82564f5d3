//! Descriptions of the source of credentials: users may not know which file or variable took
//! precedence.

use std::fmt;

use aws_credential_types::Credentials;
use aws_profile::{ChosenBy, Container, ContainerUri, Origin, RoleChain, Selection, Source};

/// Source of credentials. `Display` completes "credentials from …".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialSource {
    description: String,
    reason: String,
}

impl fmt::Display for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.description)
    }
}

impl CredentialSource {
    /// Returns the source of these credentials; `None` if [`AwsContext`](super::AwsContext) did not
    /// load them.
    #[must_use]
    pub fn of(credentials: &Credentials) -> Option<&Self> {
        credentials.get_property()
    }

    /// Returns the source of keys in the environment, for tests.
    #[cfg(test)]
    pub(crate) fn environment() -> Self {
        Self {
            description: "the environment".to_owned(),
            reason: "AWS_ACCESS_KEY_ID is set".to_owned(),
        }
    }

    /// Returns the reason for this source: the variable, or the file and the line, that decided.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// Adds the source to credentials.
pub(super) fn noted(
    mut credentials: Credentials,
    source: &Source,
    selection: &Selection,
) -> Credentials {
    credentials.set_property(CredentialSource {
        description: description(source),
        reason: reason(source, selection),
    });
    credentials
}

/// Returns the description of a source, as in "credentials from …".
pub(super) fn description(source: &Source) -> String {
    let of = |profile: &str, how: &str| {
        let profile = match profile {
            "default" => "the default profile".to_owned(),
            name => format!("profile {name}"),
        };
        match how {
            "" => profile,
            how => format!("{profile} ({how})"),
        }
    };
    match source {
        Source::Environment(_) => "the environment".to_owned(),
        Source::WebIdentity(_) => "a web identity token".to_owned(),
        Source::Container(_) => "the container".to_owned(),
        Source::Instance => "the EC2 instance".to_owned(),
        Source::StaticKeys(keys) => of(&keys.profile, ""),
        Source::AssumeRole(chain) => {
            let profile = chain.roles.last().map_or("", |role| &role.profile);
            of(profile, &chained(source, "an assumed role"))
        }
        Source::Sso(sso) => match &sso.session {
            Some(session) => of(&sso.profile, &format!("SSO session {}", session.as_str())),
            None => of(&sso.profile, "SSO"),
        },
        Source::LoginSession(login) => of(&login.profile, "aws login"),
        Source::Process(process) => of(&process.profile, "credential_process"),
    }
}

/// Adds the SSO session that a chain of roles begins with: it is what ends and is renewed.
fn chained(source: &Source, how: &str) -> String {
    match source {
        Source::AssumeRole(chain) => match &*chain.base {
            Source::Sso(sso) => match &sso.session {
                Some(session) => format!("{how}, SSO session {}", session.as_str()),
                None => format!("{how}, SSO"),
            },
            _ => how.to_owned(),
        },
        _ => how.to_owned(),
    }
}

/// Returns the role of a source: its ARN, or "NAME in account ID" for IAM Identity Center.
pub(super) fn role(source: &Source) -> Option<String> {
    match source {
        Source::AssumeRole(chain) => {
            let last = chain.roles.last()?;
            Some(last.role_arn.as_str().to_owned())
        }
        Source::WebIdentity(web) => Some(web.role_arn.as_str().to_owned()),
        Source::Sso(sso) => {
            let (role, account) = (sso.role_name.as_str(), sso.account_id.as_str());
            Some(format!("{role} in account {account}"))
        }
        _ => None,
    }
}

/// Returns the role that requests the last role of a chain, in the form of [`role`].
pub(super) fn caller(chain: &RoleChain) -> Option<String> {
    match chain.roles.as_slice() {
        [.., caller, _] => Some(caller.role_arn.as_str().to_owned()),
        _ => role(&chain.base),
    }
}

fn reason(source: &Source, selection: &Selection) -> String {
    let profile = &selection.profile;
    let chosen = match profile.chosen_by {
        ChosenBy::Request => format!("the configuration of pgiam sets profile {}", profile.name),
        ChosenBy::Variable(variable) => format!("{variable} sets profile {}", profile.name),
        ChosenBy::Default => "no profile is set".to_owned(),
    };
    let at = |what: &str, origin: &Origin| match origin {
        Origin::Variable(variable) => format!("{variable} is set"),
        origin => format!("{chosen}; {what} in {origin}"),
    };
    match source {
        Source::Environment(_) => match profile.chosen_by {
            ChosenBy::Variable(variable) => {
                format!("AWS_ACCESS_KEY_ID is set, and takes precedence over {variable}")
            }
            _ => "AWS_ACCESS_KEY_ID is set".to_owned(),
        },
        Source::StaticKeys(keys) => at("aws_access_key_id", &keys.keys.access_key_id.origin),
        Source::AssumeRole(chain) => match chain.roles.last() {
            Some(role) => at("role_arn", &role.role_arn.origin),
            None => chosen,
        },
        Source::WebIdentity(web) => at("web_identity_token_file", &web.token_file.origin),
        Source::Sso(sso) => at("sso_role_name", &sso.role_name.origin),
        Source::LoginSession(login) => at("login_session", &login.session.origin),
        Source::Process(process) => at("credential_process", &process.command.origin),
        Source::Container(Container { uri, .. }) => {
            let variable = match uri {
                ContainerUri::Relative(_) => "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                ContainerUri::Full(_) => "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            };
            format!("{chosen}, and {variable} is set")
        }
        Source::Instance => format!("{chosen}, and neither files nor variables have credentials"),
    }
}

#[cfg(test)]
mod tests {
    use aws_profile::{FileInput, Files, Request};

    use super::*;

    /// Returns description, reason and role for a config file and variables.
    fn described(config: &str, variables: &[(&str, &str)], profile: Option<&str>) -> [String; 3] {
        let config = FileInput::Contents(config.as_bytes());
        let files = Files::parse(("/c", config), ("/k", FileInput::Missing));
        let request = Request {
            profile,
            ..Request::default()
        };
        let variable = |name: &str| {
            let mut all = variables.iter();
            let found = all.find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let identity = aws_profile::resolve(&request, &variable, &files).unwrap();
        [
            description(&identity.source),
            reason(&identity.source, &identity.selection),
            role(&identity.source).unwrap_or_default(),
        ]
    }

    #[test]
    fn each_source_says_how_and_why() {
        const KEYS: [(&str, &str); 2] = [
            ("AWS_ACCESS_KEY_ID", "AKID"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
        ];
        const SSO: &str = "sso_account_id = 1\nsso_role_name = Dev\n";
        const URL: &str = "sso_start_url = https://x\nsso_region = eu-central-1\n";
        let file = |body: &str| format!("[profile dev]\n{body}");
        for (config, variables, profile, expected) in [
            (
                file(""),
                &KEYS[..],
                None,
                ["the environment", "AWS_ACCESS_KEY_ID is set", ""],
            ),
            (
                file("aws_access_key_id = A\naws_secret_access_key = s\n"),
                &[],
                Some("dev"),
                [
                    "profile dev",
                    "the configuration of pgiam sets profile dev; aws_access_key_id in /c:2",
                    "",
                ],
            ),
            (
                "[default]\ncredential_process = x\n".to_owned(),
                &[],
                None,
                [
                    "the default profile (credential_process)",
                    "no profile is set; credential_process in /c:2",
                    "",
                ],
            ),
            (
                file(&format!("{SSO}{URL}")),
                &[("AWS_DEFAULT_PROFILE", "dev")],
                None,
                [
                    "profile dev (SSO)",
                    "AWS_DEFAULT_PROFILE sets profile dev; sso_role_name in /c:3",
                    "Dev in account 1",
                ],
            ),
            (
                file(&format!(
                    "role_arn = arn:r\nsource_profile = b\n[profile b]\nsso_session = corp\n{SSO}[sso-session corp]\n{URL}"
                )),
                &[("AWS_PROFILE", "dev")],
                None,
                [
                    "profile dev (an assumed role, SSO session corp)",
                    "AWS_PROFILE sets profile dev; role_arn in /c:2",
                    "arn:r",
                ],
            ),
            (
                file(""),
                &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://localhost/")],
                None,
                [
                    "the container",
                    "no profile is set, and AWS_CONTAINER_CREDENTIALS_FULL_URI is set",
                    "",
                ],
            ),
            (
                file("login_session = arn:l\n"),
                &[],
                Some("dev"),
                [
                    "profile dev (aws login)",
                    "the configuration of pgiam sets profile dev; login_session in /c:2",
                    "",
                ],
            ),
        ] {
            assert_eq!(described(&config, variables, profile), expected, "{config}");
        }
    }

    #[test]
    fn credentials_carry_their_source() {
        let files = Files::parse(("/c", FileInput::Missing), ("/k", FileInput::Missing));
        let request = Request::default();
        let identity = aws_profile::resolve(&request, &|_| None, &files).unwrap();
        let credentials = Credentials::new("AKID", "secret", None, None, "test");
        assert_eq!(CredentialSource::of(&credentials), None);
        let noted = noted(credentials, &identity.source, &identity.selection);
        let source = CredentialSource::of(&noted).unwrap();
        assert_eq!(source.to_string(), "the EC2 instance");
        assert_eq!(
            source.reason(),
            "no profile is set, and neither files nor variables have credentials"
        );
    }
}
