//! Cases and their outcome as text, to compare with the recorded answer of AWS CLI 2.36.

use std::collections::BTreeSet;

use crate::{
    ContainerUri, FileInput, Files, Identity, Keys, Request, ResolveError, Source, resolve,
};

/// 2027-01-15, the time of all cases.
pub(super) const NOW: i64 = 1_800_000_000;

/// A pair of files, variables and a request, and the outcome with the AWS CLI.
///
/// In the files, `{K}` stands for the keys with the ID `X`, `{K2}` for those with the ID `X2`.
#[derive(Clone, Copy, Default)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) config: &'static str,
    pub(super) credentials: &'static str,
    /// `--profile`.
    pub(super) profile: Option<&'static str>,
    /// `NAME=VALUE`.
    pub(super) variables: &'static [&'static str],
    /// Outcome with the AWS CLI.
    pub(super) cli: &'static str,
}

/// A case that has another outcome here on purpose.
pub(super) struct Deviation {
    pub(super) case: &'static str,
    pub(super) ours: &'static str,
    pub(super) reason: &'static str,
}

impl Case {
    fn resolve(&self) -> Result<Identity, ResolveError> {
        let (config, credentials) = (expand(self.config), expand(self.credentials));
        let files = Files::parse(
            ("config", FileInput::Contents(&config)),
            ("credentials", FileInput::Contents(&credentials)),
        );
        let request = Request {
            profile: self.profile,
            now: NOW,
            ..Request::default()
        };
        let disabled = ["AWS_EC2_METADATA_DISABLED=true"];
        let variable = |name: &str| {
            let variables = self.variables.iter().chain(&disabled);
            let mut pairs = variables.filter_map(|variable| variable.split_once('='));
            let found = pairs.find(|(known, _)| *known == name);
            found.map(|(_, value)| value.to_owned())
        };
        resolve(&request, &variable, &files)
    }

    pub(super) fn outcome(&self) -> String {
        in_words(&self.resolve())
    }
}

/// Returns the outcome of a search.
pub(super) fn in_words(result: &Result<Identity, ResolveError>) -> String {
    match result {
        Ok(identity) => described(identity),
        Err(error) => refusal(error).to_owned(),
    }
}

/// Replaces the keys, and `\u{fffd}` by a byte that is not UTF-8.
fn expand(text: &str) -> Vec<u8> {
    let keys = |id: &str| format!("aws_access_key_id = {id}\naws_secret_access_key = S\n");
    let text = text.replace("{K}", &keys("X")).replace("{K2}", &keys("X2"));
    let parts: Vec<&[u8]> = text.split('\u{fffd}').map(str::as_bytes).collect();
    parts.join(&0xfc)
}

fn refusal(error: &ResolveError) -> &'static str {
    match error {
        ResolveError::ProfileNotFound { .. } => "no such profile",
        ResolveError::FaultyProfile { .. } | ResolveError::FaultyFile(_) => "file error",
        ResolveError::NoCredentials { .. } => "no credentials",
        _ => "error",
    }
}

fn described(identity: &Identity) -> String {
    let source = source(&identity.source);
    match &identity.selection.region {
        Some(region) => format!("{source}, region {}", region.value),
        None => source,
    }
}

fn keys(keys: &Keys) -> String {
    let id = &keys.access_key_id.value;
    match &keys.session_token {
        Some(token) => format!("{id} token {}", token.expose()),
        None => id.to_string(),
    }
}

fn source(found: &Source) -> String {
    match found {
        Source::Environment(found) => format!("env {}", keys(found)),
        Source::StaticKeys(found) => keys(&found.keys),
        Source::AssumeRole(chain) => {
            let mut text = source(&chain.base);
            for role in &chain.roles {
                text += &format!(" > {}", role.role_arn.value);
                let options = [&role.external_id, &role.session_name, &role.mfa_serial];
                for option in options.into_iter().flatten() {
                    text += &format!(" {}", option.value);
                }
                if let Some(seconds) = role.duration_seconds {
                    text += &format!(" {seconds}s");
                }
            }
            text
        }
        Source::WebIdentity(web) => {
            let mut text = format!("web {} > {}", web.token_file.value, web.role_arn.value);
            if let Some(name) = &web.session_name {
                text += &format!(" {}", name.value);
            }
            text
        }
        Source::Sso(sso) => {
            let session = sso.session.as_ref().map_or("-", |session| &session.value);
            let (url, region) = (&sso.start_url.value, &sso.region.value);
            let (account, role) = (&sso.account_id.value, &sso.role_name.value);
            format!("sso {session} {url} {region} {account} {role}")
        }
        Source::LoginSession(login) => format!("login {}", login.session.value),
        Source::Process(process) => format!("process {}", process.words.join("|")),
        Source::Container(container) => match &container.uri {
            ContainerUri::Relative(uri) => format!("container relative {uri}"),
            ContainerUri::Full(uri) => format!("container full {uri}"),
        },
        Source::Instance => "instance".to_owned(),
    }
}

/// Compares each case with the AWS CLI. Every difference must be in `deviations`, and each of these
/// must occur.
pub(super) fn compare(cases: &[Case], deviations: &[Deviation]) {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    let mut names = BTreeSet::new();
    for case in cases {
        assert!(names.insert(case.name), "{} is there twice", case.name);
        let ours = case.outcome();
        let deviation = deviations.iter().find(|known| known.case == case.name);
        let expected = deviation.map_or(case.cli, |known| known.ours);
        if deviation.is_some() {
            seen.insert(case.name);
        }
        if ours != expected || deviation.is_some_and(|known| known.ours == case.cli) {
            wrong.push(format!(
                "{}: expected {expected:?}, got {ours:?}",
                case.name
            ));
        }
    }
    for known in deviations {
        assert!(seen.contains(known.case), "{}: no such case", known.case);
        assert!(known.reason.len() > 20, "{}: no reason", known.case);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
