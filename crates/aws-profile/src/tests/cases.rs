//! Cases and their outcome as text, to compare with the recorded answer of AWS CLI 2.36.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::{
    ContainerUri, FileInput, Files, Identity, Keys, Request, ResolveError, Source, resolve,
};

/// 2027-01-15, the time of all cases.
pub(super) const NOW: i64 = 1_800_000_000;

/// A pair of files, variables and a request, and the outcome with the AWS CLI.
///
/// In the files, `{K}` stands for the keys with the ID `X`, `{K2}` for those with the ID `X2`; see
/// also [`bytes`].
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
#[derive(Clone, Copy)]
pub(super) struct Deviation {
    pub(super) case: &'static str,
    pub(super) ours: &'static str,
    pub(super) reason: &'static str,
}

/// Contents of both files, variables and a request.
pub(super) struct Input {
    pub(super) config: Vec<u8>,
    pub(super) credentials: Vec<u8>,
    pub(super) profile: Option<String>,
    pub(super) variables: BTreeMap<String, String>,
}

impl Input {
    pub(super) fn files(&self) -> Files {
        Files::parse(
            ("config", FileInput::Contents(&self.config)),
            ("credentials", FileInput::Contents(&self.credentials)),
        )
    }

    pub(super) fn resolve(&self) -> Result<Identity, ResolveError> {
        let request = Request {
            profile: self.profile.as_deref(),
            now: NOW,
            ..Request::default()
        };
        let variable = |name: &str| self.variables.get(name).cloned();
        resolve(&request, &variable, &self.files())
    }

    /// Returns a line for the judges.
    pub(super) fn line(&self) -> String {
        let hex = |file: &[u8]| -> String { file.iter().map(|b| format!("{b:02x}")).collect() };
        let (config, credentials) = (hex(&self.config), hex(&self.credentials));
        let (profile, variables) = (&self.profile, &self.variables);
        serde_json::json!({
            "config": config, "credentials": credentials, "profile": profile,
            "variables": variables,
        })
        .to_string()
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (config, credentials) = (&self.config, &self.credentials);
        writeln!(f, "config: {:?}", String::from_utf8_lossy(config))?;
        writeln!(f, "credentials: {:?}", String::from_utf8_lossy(credentials))?;
        writeln!(f, "profile {:?}, {:?}", self.profile, self.variables)
    }
}

impl Case {
    pub(super) fn input(&self) -> Input {
        let pair = |variable: &&str| {
            let (name, value) = variable.split_once('=').unwrap();
            (name.to_owned(), value.to_owned())
        };
        // The variables of the case come last and replace this one.
        let variables = ["AWS_EC2_METADATA_DISABLED=true"];
        let variables = variables.iter().chain(self.variables);
        Input {
            config: bytes(&with_keys(self.config)),
            credentials: bytes(&with_keys(self.credentials)),
            profile: self.profile.map(str::to_owned),
            variables: variables.map(pair).collect(),
        }
    }

    pub(super) fn outcome(&self) -> String {
        in_words(&self.input().resolve())
    }
}

/// Returns the outcome of a search.
pub(super) fn in_words(result: &Result<Identity, ResolveError>) -> String {
    match result {
        Ok(identity) => described(identity),
        Err(error) => refusal(error).to_owned(),
    }
}

/// Replaces `{K}` and `{K2}` by keys.
pub(super) fn with_keys(text: &str) -> String {
    let keys = |id: &str| format!("aws_access_key_id = {id}\naws_secret_access_key = S\n");
    text.replace("{K}", &keys("X")).replace("{K2}", &keys("X2"))
}

/// Replaces `\u{fffd}` by a byte that is not UTF-8, and encodes a text after `{UTF-16}` as PowerShell
/// does.
pub(super) fn bytes(text: &str) -> Vec<u8> {
    if let Some(text) = text.strip_prefix("{UTF-16}") {
        let units = ['\u{feff}'].into_iter().chain(text.chars());
        let units = units.flat_map(|c| c.encode_utf16(&mut [0; 2]).to_vec());
        return units.flat_map(u16::to_le_bytes).collect();
    }
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
        // The order of a map must not decide.
        assert!((1..4).all(|_| case.outcome() == ours), "{}", case.name);
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
