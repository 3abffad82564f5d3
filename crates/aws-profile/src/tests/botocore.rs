//! The chain of botocore, where it is installed, beside the search on generated profiles and
//! variables.
//!
//! botocore and the AWS CLI v2 have the same providers in the same order. They differ in two
//! variables, which the generator avoids: botocore prefers `AWS_DEFAULT_PROFILE` to `AWS_PROFILE`,
//! and does not know `AWS_REGION`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value as Json;

use super::cases::{Input, in_words};
use super::python;
use super::random::Random;
use crate::{FileKind, Identity, Origin, ResolveError, Source};

const SEED: u64 = 0x5EED_B070;
const CASES: usize = 1_500;

/// Older versions do not know `aws login`.
const IMPORT: &str = "from botocore.credentials import LoginProvider";

/// Reads a JSON object per line and writes the outcome of each. Calls of services, programs and
/// caches are replaced by a text; the selection is botocore's own.
const SCRIPT: &str = r#"
import json, os, sys, tempfile
import botocore.credentials as c, botocore.exceptions, botocore.session

class Text:
    def __init__(self, text, method=None):
        self.text, self.access_key, self.secret_key, self.token = text, text, 's', None
        self.method = method

class Expiring(c.RefreshableCredentials):
    def __init__(self, access_key, secret_key, token, expiry_time, **rest):
        super().__init__(access_key, secret_key, token, expiry_time, **rest)
        self.text = static(access_key, secret_key, token, 'env').text
        self.get_frozen_credentials()

class Role:
    def __init__(self, source_credentials, role_arn, extra_args, **rest):
        self.text = source_credentials.text + ' > ' + role_arn
        for name in ('ExternalId', 'RoleSessionName', 'SerialNumber'):
            if name in extra_args:
                self.text += ' ' + extra_args[name]
        if 'DurationSeconds' in extra_args:
            self.text += ' %ds' % extra_args['DurationSeconds']
    def fetch_credentials(self): pass

class Web:
    def __init__(self, web_identity_token_loader, role_arn, extra_args, **rest):
        path = web_identity_token_loader._web_identity_token_path
        self.text = 'web ' + path + ' > ' + role_arn
        if 'RoleSessionName' in extra_args:
            self.text += ' ' + extra_args['RoleSessionName']
    def fetch_credentials(self): pass

class Sso:
    def __init__(self, start_url, sso_region, role_name, account_id, sso_session_name=None, **rest):
        session = '-' if sso_session_name is None else sso_session_name
        self.text = ' '.join(('sso', session, start_url, sso_region, account_id, role_name))
    def fetch_credentials(self): pass

def deferred(refresh_using, **rest):
    return Text(refresh_using.__self__.text)

def static(access_key, secret_key, token=None, method=None, **rest):
    text = access_key + ('' if token is None else ' token ' + token)
    return Text(('env ' if method == 'env' else '') + text + secret_key[:0], method)

def login(self):
    profile = self._load_config().get('profiles', {}).get(self._profile_name, {})
    if 'login_session' in profile:
        return Text('login ' + profile['login_session'])

def process(self):
    command = self._credential_process
    if command is not None:
        words = c.compat_shell_split(command)
        if not words:
            raise ValueError('empty command')
        return Text('process ' + '|'.join(words))

def container(self):
    environ = self._environ
    if self.ENV_VAR in environ:
        return Text('container relative ' + environ[self.ENV_VAR])
    return Text('container full ' + environ[self.ENV_VAR_FULL])

def old_file(self):
    return Text('used') if 'AWS_CREDENTIAL_FILE' in os.environ else None

def instance(self):
    disabled = os.environ.get('AWS_EC2_METADATA_DISABLED', '').lower() == 'true'
    return None if disabled else Text('instance')

c.AssumeRoleCredentialFetcher = Role
c.AssumeRoleWithWebIdentityCredentialFetcher = Web
c.SSOCredentialFetcher = Sso
c.create_mfa_serial_refresher = lambda refresher: refresher
c.DeferredRefreshableCredentials = deferred
c.Credentials = static
c.RefreshableCredentials = Expiring
c.LoginProvider.load = login
c.ProcessProvider.load = process
c.ContainerProvider._retrieve_or_fail = container
c.InstanceMetadataProvider.load = instance
c.OriginalEC2Provider.load = old_file
c.BotoProvider.load = lambda self: None

def outcome(case, folder):
    os.environ.clear()
    os.environ.update(case['variables'])
    for name, variable in (('config', 'AWS_CONFIG_FILE'), ('credentials', 'AWS_SHARED_CREDENTIALS_FILE')):
        path = os.path.join(folder, name)
        with open(path, 'wb') as file:
            file.write(bytes.fromhex(case[name]))
        os.environ[variable] = path
    # The handlers are for calls of services, and take most of the time.
    session = botocore.session.Session(profile=case['profile'], include_builtin_handlers=False)
    try:
        found = session.get_credentials()
        if found is None:
            return 'no credentials'
        region = session.get_config_variable('region')
        text = found.text if region is None else found.text + ', region ' + region
        method = found.method if str(found.method).endswith('-file') else ''
        return text, (session.profile or 'default') + ' ' + method
    except botocore.exceptions.ProfileNotFound:
        return 'no such profile'
    except botocore.exceptions.ConfigParseError:
        return 'file error'
    except (botocore.exceptions.BotoCoreError, ValueError, RuntimeError):
        return 'error'
    except (AttributeError, TypeError):
        # A nested block where a text is expected.
        return 'error'

with tempfile.TemporaryDirectory() as folder:
    outcomes = [outcome(json.loads(line), folder) for line in sys.stdin]
    lines = [json.dumps([one, ''] if isinstance(one, str) else one) for one in outcomes]
print('\n'.join(lines))
"#;

/// Outcome of a search.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) text: String,
    /// Name of the profile, and the method of static keys, which names the file. Empty for a
    /// refusal.
    place: String,
}

impl Outcome {
    /// Returns `true` if the search found the same credentials at the same place.
    pub(super) fn is(&self, ours: &Result<Identity, ResolveError>) -> bool {
        let place = ours.as_ref().map(place).unwrap_or_default();
        self.text == in_words(ours) && self.place == place
    }
}

fn place(identity: &Identity) -> String {
    let method = match &identity.source {
        Source::StaticKeys(found) => match &found.keys.access_key_id.origin {
            Origin::File(location) if location.kind == FileKind::Config => "config-file",
            _ => "shared-credentials-file",
        },
        _ => "",
    };
    format!("{} {method}", identity.selection.profile.name)
}

/// Returns the outcome of each input with botocore; `None` if it is not installed.
pub(super) fn outcomes(inputs: &[Input]) -> Option<Vec<Outcome>> {
    let lines: Vec<String> = inputs.iter().map(Input::line).collect();
    let outcomes = python::run(IMPORT, SCRIPT, &lines)?;
    assert_eq!(outcomes.len(), inputs.len());
    let text = |outcome: &Json, at: usize| outcome[at].as_str().unwrap().to_owned();
    let outcome = |outcome: &Json| Outcome {
        text: text(outcome, 0),
        place: text(outcome, 1),
    };
    Some(outcomes.iter().map(outcome).collect())
}

/// Keys of profiles, with values that often refer to each other.
const KEYS: &[(&str, &[&str])] = &[
    ("aws_access_key_id", &["X", "Y", ""]),
    ("aws_access_key_id", &["X", "Y"]),
    ("aws_secret_access_key", &["S", "S", ""]),
    ("aws_secret_access_key", &["S"]),
    ("aws_session_token", &["T", ""]),
    ("aws_security_token", &["U", ""]),
    ("role_arn", &["r1", "r2", ""]),
    ("role_arn", &["r3"]),
    ("source_profile", &["default", "a", "b", "c", "gone"]),
    ("source_profile", &["a", "b", "c"]),
    (
        "credential_source",
        &[
            "Environment",
            "EcsContainer",
            "Ec2InstanceMetadata",
            "environment",
        ],
    ),
    ("web_identity_token_file", &["/t", ""]),
    ("role_session_name", &["me", ""]),
    ("external_id", &["x"]),
    ("mfa_serial", &["m"]),
    ("duration_seconds", &["3600", "1h", " 9_00 "]),
    ("sso_session", &["s", "t", "gone"]),
    ("sso_account_id", &["1", "001"]),
    ("sso_role_name", &["n"]),
    ("sso_start_url", &["u", "v"]),
    ("sso_region", &["a", "b"]),
    ("login_session", &["l"]),
    ("credential_process", &["p 'q r' #s", "p \"", ""]),
    ("region", &["eu", "us", ""]),
];
const SESSION_KEYS: &[(&str, &[&str])] = &[
    ("sso_start_url", &["u", "u", "v"]),
    ("sso_region", &["a", "a", "b"]),
    ("region", &["eu"]),
];
/// Complete sources, which a section gets beside some of the keys above.
const SOURCES: &[&[(&str, &[&str])]] = &[
    &[],
    &[
        ("aws_access_key_id", &["X", "Y"]),
        ("aws_secret_access_key", &["S"]),
    ],
    &[
        ("aws_access_key_id", &["X", "Y"]),
        ("aws_secret_access_key", &["S"]),
    ],
    &[
        ("role_arn", &["r1", "r2"]),
        ("source_profile", &["default", "a", "b", "c"]),
    ],
    &[
        ("role_arn", &["r1", "r2"]),
        ("source_profile", &["default", "a", "b", "c"]),
    ],
    &[
        ("role_arn", &["r3"]),
        ("credential_source", &["Environment", "EcsContainer"]),
    ],
    &[
        ("sso_account_id", &["1"]),
        ("sso_role_name", &["n"]),
        ("sso_start_url", &["u"]),
        ("sso_region", &["a"]),
    ],
    &[
        ("sso_account_id", &["1"]),
        ("sso_role_name", &["n"]),
        ("sso_session", &["s", "t"]),
    ],
    &[("credential_process", &["p q"])],
    &[("role_arn", &["r4"]), ("web_identity_token_file", &["/t"])],
];
const VARIABLES: &[(&str, &[&str])] = &[
    ("AWS_PROFILE", &["default", "a", "b", "c", "gone", ""]),
    ("AWS_ACCESS_KEY_ID", &["E", ""]),
    ("AWS_SECRET_ACCESS_KEY", &["F", ""]),
    ("AWS_SESSION_TOKEN", &["G", ""]),
    ("AWS_SECURITY_TOKEN", &["H", ""]),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", &["/w", ""]),
    ("AWS_ROLE_ARN", &["w", ""]),
    ("AWS_ROLE_SESSION_NAME", &["you"]),
    ("AWS_DEFAULT_REGION", &["ap", ""]),
    (
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        &["http://127.0.0.1/", ""],
    ),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", &["/c"]),
    ("AWS_EC2_METADATA_DISABLED", &["true", "1", "TRUE"]),
];

/// Returns some of the pairs, each with one of its values.
fn some(
    random: &mut Random,
    pairs: &[(&'static str, &[&'static str])],
    at_most: usize,
) -> BTreeMap<&'static str, &'static str> {
    let count = random.below(at_most + 1);
    let pair = |random: &mut Random| {
        let (key, values) = pairs[random.below(pairs.len())];
        (key, random.pick(values))
    };
    (0..count).map(|_| pair(random)).collect()
}

fn section(random: &mut Random, file: &mut String, header: &str) {
    writeln!(file, "[{header}]").unwrap();
    let more = random.below(4);
    let mut keys = some(random, KEYS, more);
    for (key, values) in SOURCES[random.below(SOURCES.len())] {
        keys.insert(key, random.pick(values));
    }
    write_keys(file, &keys);
}

fn write_keys(file: &mut String, keys: &BTreeMap<&str, &str>) {
    for (key, value) in keys {
        writeln!(file, "{key} = {value}").unwrap();
    }
}

/// Returns profiles that often refer to each other, and variables.
pub(super) fn generated(random: &mut Random) -> Input {
    let (mut config, mut credentials) = (String::new(), String::new());
    for name in ["default", "a", "b", "c"] {
        if random.below(5) > 0 {
            let header = match name {
                "default" => name.to_owned(),
                _ => format!("profile {name}"),
            };
            section(random, &mut config, &header);
        }
        if random.below(3) == 0 {
            section(random, &mut credentials, name);
        }
    }
    for name in ["s", "t"] {
        writeln!(config, "[sso-session {name}]").unwrap();
        write_keys(&mut config, &some(random, SESSION_KEYS, 6));
    }
    if random.below(8) == 0 {
        section(random, &mut config, "DEFAULT");
    }
    let profile = match random.below(2) {
        0 => None,
        _ => Some(random.pick(&["default", "a", "b", "c", "gone"])),
    };
    let mut variables = BTreeMap::new();
    if random.below(2) == 0 {
        variables = some(random, VARIABLES, 5);
        if random.below(3) == 0 {
            variables.insert("AWS_ACCESS_KEY_ID", "E");
            variables.insert("AWS_SECRET_ACCESS_KEY", "F");
        }
    }
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    Input {
        config: config.into_bytes(),
        credentials: credentials.into_bytes(),
        profile: profile.map(str::to_owned),
        variables: variables.into_iter().map(owned).collect(),
    }
}

/// Returns `true` for the credentials of the machine, which botocore takes for a profile with an
/// incomplete source. That is the deviation [`ResolveError::Incomplete`].
pub(super) fn is_of_machine(outcome: &str) -> bool {
    ["container ", "instance", "no credentials"]
        .iter()
        .any(|kind| outcome.starts_with(kind))
}

#[test]
fn generated_profiles_lead_to_the_credentials_of_botocore() {
    println!("seed {SEED:#x}, {CASES} cases");
    let mut random = Random::new(SEED);
    let cases: Vec<Input> = (0..CASES).map(|_| generated(&mut random)).collect();
    let Some(expected) = outcomes(&cases) else {
        return;
    };
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for (case, expected) in cases.iter().zip(&expected) {
        let result = case.resolve();
        let kind = match &result {
            Err(ResolveError::Incomplete { .. }) => {
                assert!(is_of_machine(&expected.text), "{expected:?}\n{case}");
                "incomplete".to_owned()
            }
            result => {
                let ours = in_words(result);
                assert!(expected.is(result), "{ours:?}, but {expected:?}\n{case}");
                match ours.contains(" > ") && !ours.starts_with("web") {
                    true => "role".to_owned(),
                    false => ours.split([' ', ',']).next().unwrap_or_default().to_owned(),
                }
            }
        };
        *kinds.entry(kind).or_default() += 1;
    }
    println!("{kinds:?}");
    for kind in [
        "X",
        "error",
        "env",
        "incomplete",
        "no",
        "process",
        "role",
        "sso",
        "web",
    ] {
        let count = kinds.get(kind).copied().unwrap_or_default();
        assert!(count >= CASES / 100, "{kind}: {kinds:?}");
    }
}
