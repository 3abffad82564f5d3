//! AWS files and variables: any bytes, and files of sections, keys and values that exist.
//!
//! The same input leads to the same identity, a comment at the end changes nothing, and no value of a
//! secret key is in the result.

#![no_main]

use std::fmt::Debug;

use arbitrary::Arbitrary;
use aws_profile::{FileInput, FileKind, Files, Platform, Request, file_path, parse_date, resolve};
use libfuzzer_sys::fuzz_target;

/// Value of the secret keys.
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

const NAMES: [&str; 6] = ["default", "a", "b", "ops eu", "", "\u{fc}"];

const KEYS: [&str; 20] = [
    "account_id",
    "aws_access_key_id",
    "aws_account_id",
    "credential_source",
    "duration_seconds",
    "external_id",
    "login_session",
    "mfa_serial",
    "region",
    "role_arn",
    "role_session_name",
    "s3",
    "source_profile",
    "sso_account_id",
    "sso_region",
    "sso_registration_scopes",
    "sso_role_name",
    "sso_session",
    "sso_start_url",
    "web_identity_token_file",
];

const SECRET_KEYS: [&str; 5] = [
    "aws_secret_access_key",
    "aws_session_token",
    "aws_security_token",
    "credential_process = p",
    "CREDENTIAL_PROCESS: p",
];

const VALUES: [&str; 10] = [
    "",
    "a",
    "b",
    "ops eu",
    "default",
    "Environment",
    "EcsContainer",
    "3_600",
    "arn:aws:iam::111122223333:role/a",
    "\n  x = y",
];

const VARIABLES: [&str; 20] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_ACCOUNT_ID",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_CREDENTIAL_FILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_DEFAULT_REGION",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "HOME",
    // Secret.
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECURITY_TOKEN",
    "AWS_SESSION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
];
const SECRET_VARIABLES: usize = 4;

#[derive(Debug, Arbitrary)]
struct Scenario<'a> {
    config: Vec<Part<'a>>,
    credentials: Vec<Part<'a>>,
    variables: Vec<(u8, Text<'a>)>,
    profile: Option<Text<'a>>,
    region: Option<&'a str>,
    windows: bool,
    now: i64,
    /// A date, and a path with variables.
    text: &'a str,
}

#[derive(Debug, Arbitrary)]
enum Part<'a> {
    Section { prefix: u8, name: Text<'a> },
    Setting { key: u8, value: Text<'a> },
    Secret(u8),
    Raw(&'a [u8]),
}

#[derive(Debug, Arbitrary)]
enum Text<'a> {
    Known(u8),
    Any(&'a str),
}

impl<'a> Text<'a> {
    fn of(&self, known: &[&'a str]) -> &'a str {
        match self {
            Self::Known(number) => pick(known, *number),
            Self::Any(text) => text,
        }
    }
}

fn pick<'a>(known: &[&'a str], number: u8) -> &'a str {
    known[usize::from(number) % known.len()]
}

/// Each part but raw bytes is a line of its own. `secret` is the value of the secret keys.
fn file(parts: &[Part<'_>], secret: &str) -> Vec<u8> {
    let mut file = Vec::new();
    for part in parts {
        let line = match part {
            Part::Section { prefix, name } => {
                let prefix = ["", "profile ", "sso-session ", "services "][usize::from(prefix % 4)];
                format!("\n[{prefix}{}]\n", name.of(&NAMES))
            }
            Part::Setting { key, value } => {
                format!("\n{} = {}\n", pick(&KEYS, *key), value.of(&VALUES))
            }
            Part::Secret(key) => {
                let key = pick(&SECRET_KEYS, *key);
                let sign = if key.contains(" p") { " " } else { " = " };
                format!("\n{key}{sign}{secret}\n")
            }
            Part::Raw(bytes) => {
                file.extend_from_slice(bytes);
                continue;
            }
        };
        file.extend_from_slice(line.as_bytes());
    }
    file
}

/// Returns `true` if the fuzzer itself has put the secret into a text that may be shown.
fn is_given_away(scenario: &Scenario<'_>) -> bool {
    let files = [&scenario.config, &scenario.credentials].map(|parts| file(parts, ""));
    let in_files = files
        .iter()
        .any(|file| String::from_utf8_lossy(file).contains(SECRET));
    in_files || format!("{scenario:?}").contains(SECRET)
}

fn parse(config: &[u8], credentials: &[u8]) -> Files {
    Files::parse(
        ("config", FileInput::Contents(config)),
        ("credentials", FileInput::Contents(credentials)),
    )
}

fn has_no_secret(shown: &impl Debug) {
    let text = format!("{shown:?}");
    assert!(!text.contains(SECRET), "{text}");
}

fuzz_target!(|scenario: Scenario<'_>| {
    let variables = |name: &str| {
        let secret_from = VARIABLES.len() - SECRET_VARIABLES;
        let (number, value) = scenario
            .variables
            .iter()
            .find(|(number, _)| pick(&VARIABLES, *number) == name)?;
        let is_secret = usize::from(*number) % VARIABLES.len() >= secret_from;
        Some(match is_secret {
            true => SECRET.to_owned(),
            false => value.of(&VALUES).to_owned(),
        })
    };
    if is_given_away(&scenario) {
        return;
    }
    let config = file(&scenario.config, SECRET);
    let credentials = file(&scenario.credentials, SECRET);
    let files = parse(&config, &credentials);
    let again = parse(&config, &credentials);
    let comment = b"\n# comment";
    let longer = parse(
        &[&config[..], comment].concat(),
        &[&credentials[..], comment].concat(),
    );
    assert!(files.problems().eq(again.problems()));
    assert!(files.problems().eq(longer.problems()));
    assert_eq!(files.profile_names(), longer.profile_names());
    assert_eq!(files.session_names(), longer.session_names());
    has_no_secret(&files);
    has_no_secret(&files.problems().collect::<Vec<_>>());

    let requested = scenario.profile.as_ref().map(|name| name.of(&NAMES));
    let requested = std::iter::once(requested).chain(files.profile_names().into_iter().map(Some));
    for profile in requested {
        let request = Request {
            profile,
            region: scenario.region,
            platform: match scenario.windows {
                true => Platform::Windows,
                false => Platform::Posix,
            },
            now: scenario.now,
        };
        let found = resolve(&request, &variables, &files);
        for files in [&files, &again, &longer] {
            assert_eq!(resolve(&request, &variables, files), found);
        }
        match &found {
            Ok(identity) => has_no_secret(identity),
            Err(error) => {
                has_no_secret(error);
                assert!(!error.to_string().is_empty() && !error.to_string().contains(SECRET));
            }
        }
    }
    let text = scenario.text;
    assert_eq!(parse_date(text), parse_date(&format!(" {text}\n")));
    for platform in [Platform::Posix, Platform::Windows] {
        let variables = |name: &str| match name {
            "AWS_CONFIG_FILE" => Some(text.to_owned()),
            _ => variables(name),
        };
        let homes = |user: Option<&str>| user.map(str::to_owned);
        let path = file_path(FileKind::Config, platform, &variables, &homes);
        assert!(text.contains(['~', '$', '%']) || path == text);
    }
});
