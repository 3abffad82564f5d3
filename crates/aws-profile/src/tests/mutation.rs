//! Mutations of the recorded cases, with botocore beside the search.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::botocore::{self, Outcome};
use super::cases::{Case, Input, bytes, in_words, with_keys};
use super::corpus;
use super::random::Random;
use crate::grammar::Document;
use crate::{Files, Identity, Reason, ResolveError, SsoFault};

const SEED: u64 = 0x5EED_C0DE;
const CASES: usize = 3_000;

/// Lines that are added anywhere.
const LINES: &[&str] = &[
    "",
    "   ",
    "# region = c",
    "; note",
    "    # note",
    "region = c",
    "  region = d",
    "\tregion = e",
    "region: f",
    "foo",
    "= x",
    "s3 =",
    "  a = b",
    "  path",
    "[]",
    "[dev]",
    "[default]",
    "[profile dev]",
    "[profile 'dev']",
    "[profile  dev]",
    "[profile one]",
    "[DEFAULT]",
    "[profile x",
    "[sso-session s]",
    "role_arn = r2",
    "source_profile = default",
    "source_profile = one",
    "credential_source = Environment",
    "credential_process = q 'a b'",
    "login_session = arn2",
    "sso_session = s",
    "sso_account_id = 2",
    "sso_role_name = m",
    "sso_start_url = v",
    "sso_region = b",
    "web_identity_token_file = /q",
    "aws_access_key_id = Y",
    "aws_secret_access_key =",
    "aws_session_token = V",
    "aws_security_token = W",
    "duration_seconds = 900",
    "mfa_serial = m",
    "external_id = y",
    "sso_registration_scopes = x",
    "aws_access_key_id =\n  a = b",
    "aws_secret_access_key =\n  a = b",
    "aws_session_token =\n  a = b",
    "aws_account_id =\n  a = b",
    "region =\n  a = b",
    "role_arn =\n  a = b",
    "source_profile =\n  a = b",
    "credential_source =\n  a = b",
    "external_id =\n  a = b",
    "role_session_name =\n  a = b",
    "mfa_serial =\n  a = b",
    "duration_seconds =\n  a = b",
    "web_identity_token_file =\n  a = b",
    "sso_session =\n  a = b",
    "sso_account_id =\n  a = b",
    "sso_region =\n  a = b",
    "sso_registration_scopes =\n  a = b",
    "login_session =\n  a = b",
    "credential_process =\n  a = b",
];
/// Sections that are added at the start or at the end of a file.
const SECTIONS: &[&str] = &[
    "[default]\n{K2}",
    "[profile one]\n{K2}region = b\n",
    "[one]\n{K2}",
    "[dev]\n{K2}",
    "[profile dev]\nregion = b\n",
    "[profile \"dev\"]\nrole_arn = r3\nsource_profile = default\n",
    "[DEFAULT]\nregion = z\n",
    "[DEFAULT]\n{K2}",
    "[sso-session s]\nsso_start_url = u\nsso_region = a\n",
    "[sso-session 'corp']\nsso_start_url = u\nsso_region = a\n",
    "[services x]\ns3 =\n  a = b\n",
    "[broken]\nfoo\n",
];
const PIECES: &[&str] = &[
    " ", "\t", "\u{a0}", "=", ":", "[", "]", "#", ";", "'", "\"", "\\", "\r", "\u{c}", "\u{200b}",
    "\u{2028}", "“", "ü", "\u{fffd}", "\n", "\n  ", ",",
];
const NAMES: &[&str] = &[
    "dev", "default", "one", "two", "b", "'dev'", "o'brien", "a b",
];
const VARIABLES: &[(&str, &[&str])] = &[
    ("AWS_PROFILE", &["dev", "default", "one", "gone", ""]),
    ("AWS_DEFAULT_PROFILE", &["dev", "one", ""]),
    ("AWS_ACCESS_KEY_ID", &["F", "", " "]),
    ("AWS_SECRET_ACCESS_KEY", &["S", ""]),
    ("AWS_SESSION_TOKEN", &["T3", ""]),
    ("AWS_SECURITY_TOKEN", &["T4", ""]),
    (
        "AWS_CREDENTIAL_EXPIRATION",
        &[
            "2099-01-01T00:00:00Z",
            "2020-01-01T00:00:00Z",
            "2099-01-01",
            "",
        ],
    ),
    ("AWS_REGION", &["g", ""]),
    ("AWS_DEFAULT_REGION", &["h", ""]),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", &["/t", ""]),
    ("AWS_ROLE_ARN", &["w2", ""]),
    ("AWS_ROLE_SESSION_NAME", &["n", ""]),
    (
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        &["http://127.0.0.1/d", ""],
    ),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", &["/y", ""]),
    ("AWS_EC2_METADATA_DISABLED", &["false", "true", "1", "TRUE"]),
];

/// Texts of a case, which mutations change.
struct Mutant {
    config: String,
    credentials: String,
    profile: Option<String>,
    variables: BTreeMap<String, String>,
}

impl Mutant {
    fn of(case: &Case) -> Self {
        let Input {
            profile, variables, ..
        } = case.input();
        Self {
            config: with_keys(case.config),
            credentials: with_keys(case.credentials),
            profile,
            variables,
        }
    }

    /// Returns a mutant of generated profiles, which have longer chains and more settings.
    fn of_generated(random: &mut Random) -> Self {
        let input = botocore::generated(random);
        let text = |file| String::from_utf8(file).unwrap();
        Self {
            config: text(input.config),
            credentials: text(input.credentials),
            profile: input.profile,
            variables: input.variables,
        }
    }

    fn mutate(&mut self, random: &mut Random) {
        match random.below(12) {
            0 => self.variable(random),
            1 => {
                let name = random.pick(NAMES).to_owned();
                self.profile = (random.below(4) > 0).then_some(name);
            }
            2 => std::mem::swap(&mut self.config, &mut self.credentials),
            _ => {
                let has_config = !self.config.is_empty() || self.credentials.is_empty();
                let is_config = has_config && (self.credentials.is_empty() || random.below(3) > 0);
                let file = match is_config {
                    true => &mut self.config,
                    false => &mut self.credentials,
                };
                *file = mutated(file, random);
            }
        }
    }

    fn variable(&mut self, random: &mut Random) {
        let (name, values) = VARIABLES[random.below(VARIABLES.len())];
        match random.below(4) {
            0 => drop(self.variables.remove(name)),
            _ => {
                let value = random.pick(values).to_owned();
                self.variables.insert(name.to_owned(), value);
            }
        }
    }

    fn input(self) -> Input {
        Input {
            config: bytes(&self.config),
            credentials: bytes(&self.credentials),
            profile: self.profile,
            variables: self.variables,
        }
    }
}

/// Changes a file in one place.
fn mutated(file: &str, random: &mut Random) -> String {
    match random.below(16) {
        0 => with_keys(random.pick(SECTIONS)) + file,
        1 => file.to_owned() + &with_keys(random.pick(SECTIONS)),
        2 | 3 => with_piece(file, random),
        _ => with_line(file, random),
    }
}

/// Inserts, replaces or removes a character.
fn with_piece(file: &str, random: &mut Random) -> String {
    let mut parts: Vec<String> = file.chars().map(String::from).collect();
    let at = random.below(parts.len() + 1);
    let kind = random.below(3);
    if kind > 0 && at < parts.len() {
        parts.remove(at);
    }
    if kind < 2 {
        parts.insert(at, random.pick(PIECES).to_owned());
    }
    parts.concat()
}

/// Changes, adds, moves or removes a line.
fn with_line(file: &str, random: &mut Random) -> String {
    let mut lines: Vec<String> = file.split('\n').map(str::to_owned).collect();
    let at = random.below(lines.len());
    let other = random.below(lines.len());
    match random.below(14) {
        0 => drop(lines.remove(at)),
        1 => lines.insert(at, lines[other].clone()),
        2 => lines.swap(at, other),
        3 => {
            let indentation = random.pick(&[" ", "  ", "\t", "\u{a0}", "    "]);
            lines[at] = indentation.to_owned() + &lines[at];
        }
        4 => lines[at] = lines[at].trim_start().to_owned(),
        5 => {
            let delimiter = random.pick(&[":", "=", " : ", "==", "", " "]);
            lines[at] = lines[at].replacen([':', '='], delimiter, 1);
        }
        6 => {
            lines[at] = match random.below(2) {
                0 => lines[at].to_uppercase(),
                _ => lines[at].to_lowercase(),
            };
        }
        7 => {
            let length = random.below(lines[at].chars().count() + 1);
            lines[at] = lines[at].chars().take(length).collect();
        }
        8 => lines[at] += random.pick(&[" # note", " ; note", "\u{a0}", " ", "\r", "]", " [x]"]),
        9 => {
            let name = random.pick(NAMES);
            let header = random.pick(&["profile ", "", "sso-session ", "profile\t"]);
            lines[at] = format!("[{header}{name}]");
        }
        10 => {
            let (one, two) = (random.pick(NAMES), random.pick(NAMES));
            lines[at] = lines[at].replace(one, two);
        }
        _ => lines.insert(at, random.pick(LINES).to_owned()),
    }
    lines.join("\n")
}

/// Writes the sections without a fault in a plain form, which botocore reads.
fn without_faults(document: &Document) -> Vec<u8> {
    let mut file = String::new();
    if document.fault.is_some() || document.defaults.problem.is_some() {
        return Vec::new();
    }
    let sections = document.sections.iter().chain([&document.defaults]);
    for section in sections.filter(|section| section.problem.is_none() && section.line > 0) {
        writeln!(file, "[{}]", section.header).unwrap();
        for (key, value) in &section.values {
            writeln!(file, "{key} = {}", value.text.replace('\n', "\n  ")).unwrap();
        }
    }
    file.into_bytes()
}

/// Returns the input of botocore for the same outcome as with the AWS CLI, which takes
/// `AWS_PROFILE` first, knows `AWS_REGION`, and takes the empty option for none.
fn for_botocore(input: &Input, config: Vec<u8>, credentials: Vec<u8>) -> Input {
    let mut variables = input.variables.clone();
    if variables.contains_key("AWS_PROFILE") {
        variables.remove("AWS_DEFAULT_PROFILE");
    }
    if let Some(region) = variables.remove("AWS_REGION") {
        variables.insert("AWS_DEFAULT_REGION".to_owned(), region);
    }
    Input {
        config,
        credentials,
        profile: input.profile.clone().filter(|name| !name.is_empty()),
        variables,
    }
}

fn has_problem(files: &Files) -> bool {
    files.problems().next().is_some()
}

/// Returns `true` if a block of `[DEFAULT]` is invalid, but no section of its file inherits it, so
/// that botocore does not read it.
fn has_unread_block(files: &Files) -> bool {
    let documents = [&files.config, &files.credentials];
    documents.into_iter().any(|document| {
        let problem = document.defaults.problem.as_ref();
        let is_block = problem.is_some_and(|problem| problem.reason == Reason::NestedLine);
        is_block && document.sections.is_empty()
    })
}

/// Kinds of differences, with their reasons.
const DIFFERENCES: &[(&str, &str)] = &[
    (
        "fault elsewhere",
        "a fault makes only its section unusable, and the outcome is that of the file without it",
    ),
    (
        "incomplete",
        "a profile with settings for credentials never leads to those of the machine",
    ),
    (
        "AWS_CREDENTIAL_FILE",
        "a format of boto 2; refused, because the next source is another identity",
    ),
    (
        "nested value",
        "botocore takes a block for aws_account_id or sso_registration_scopes, and fails where a \
         call needs it",
    ),
];
/// Keys whose text botocore does not need for the credentials.
const LATE_KEYS: [&str; 2] = ["aws_account_id", "sso_registration_scopes"];

/// A mutant and its outcomes.
struct Judged<'a> {
    input: &'a Input,
    files: &'a Files,
    ours: Result<Identity, ResolveError>,
    botocore: &'a Outcome,
    /// Outcome of botocore with the sections that have no fault.
    without_faults: Option<&'a Outcome>,
}

impl Judged<'_> {
    /// Returns the kind of the comparison, or the difference.
    fn kind(&self) -> Result<&'static str, String> {
        let ours = in_words(&self.ours);
        let differs = |with| format!("{ours:?}, but {with:?} with botocore\n{}", self.input);
        let is_refused = self.botocore.text == "file error";
        if is_refused != has_problem(self.files) && (is_refused || !has_unread_block(self.files)) {
            return Err(differs(self.botocore));
        }
        let repaired = self.without_faults.filter(|_| is_refused);
        let expected = repaired.unwrap_or(self.botocore);
        match &self.ours {
            Err(error) if is_refused && names_fault(error) => Ok("fault"),
            result if expected.is(result) => Ok(match (is_refused, result) {
                (true, _) => "fault elsewhere",
                (false, Ok(_)) => "same",
                (false, Err(_)) => "same refusal",
            }),
            Err(ResolveError::Incomplete { .. }) if botocore::is_of_machine(&expected.text) => {
                Ok("incomplete")
            }
            Err(ResolveError::CredentialFileVariable) if expected.text.starts_with("used") => {
                Ok("AWS_CREDENTIAL_FILE")
            }
            Err(ResolveError::NestedValue { key, .. }) if LATE_KEYS.contains(&key.as_str()) => {
                Ok("nested value")
            }
            _ => Err(differs(expected)),
        }
    }
}

/// Returns `true` for a refusal because of a fault in a file.
fn names_fault(error: &ResolveError) -> bool {
    match error {
        ResolveError::FaultyProfile { .. } | ResolveError::FaultyFile(_) => true,
        ResolveError::ProfileNotFound { problem, .. } => problem.is_some(),
        ResolveError::Sso { fault, .. } => matches!(fault, SsoFault::FaultySession(_)),
        _ => false,
    }
}

fn mutant(cases: &[Case], random: &mut Random) -> Input {
    let mut mutant = match random.below(4) {
        0 => Mutant::of_generated(random),
        _ => Mutant::of(&cases[random.below(cases.len())]),
    };
    for _ in 0..=random.below(3) {
        mutant.mutate(random);
    }
    mutant.input()
}

/// Number of mutants of each kind, and the differences.
#[derive(Default)]
struct Comparison {
    kinds: BTreeMap<&'static str, usize>,
    wrong: Vec<String>,
}

impl Comparison {
    fn assert_no_difference(&self) {
        let shown: String = self.wrong.iter().take(10).map(String::as_str).collect();
        assert!(
            shown.is_empty(),
            "{} differences:\n{shown}",
            self.wrong.len()
        );
    }
}

/// Compares mutants; returns `None` without botocore.
fn compare(seed: u64, count: usize) -> Option<Comparison> {
    println!("seed {seed:#x}, {count} cases");
    let mut random = Random::new(seed);
    let cases = corpus::cases();
    let inputs: Vec<Input> = (0..count).map(|_| mutant(&cases, &mut random)).collect();
    let files: Vec<Files> = inputs.iter().map(Input::files).collect();
    let as_written = inputs
        .iter()
        .map(|input| for_botocore(input, input.config.clone(), input.credentials.clone()));
    let faulty = inputs.iter().zip(&files);
    let repaired = faulty.filter(|(_, files)| has_problem(files));
    let repaired = repaired.map(|(input, files)| {
        let [config, credentials] = [&files.config, &files.credentials].map(without_faults);
        for_botocore(input, config, credentials)
    });
    let outcomes = botocore::outcomes(&as_written.chain(repaired).collect::<Vec<_>>())?;
    let (as_written, repaired) = outcomes.split_at(count);
    let mut repaired = repaired.iter();
    let mut comparison = Comparison::default();
    for ((input, files), botocore) in inputs.iter().zip(&files).zip(as_written) {
        let judged = Judged {
            input,
            files,
            ours: input.resolve(),
            botocore,
            without_faults: has_problem(files).then(|| repaired.next()).flatten(),
        };
        match judged.kind() {
            Ok(kind) => *comparison.kinds.entry(kind).or_default() += 1,
            Err(difference) => comparison.wrong.push(difference),
        }
    }
    println!("{:?}", comparison.kinds);
    Some(comparison)
}

#[test]
fn mutated_cases_lead_to_the_identity_of_botocore() {
    let Some(comparison) = compare(SEED, CASES) else {
        return;
    };
    comparison.assert_no_difference();
    let kinds = comparison.kinds;
    for kind in ["same", "same refusal", "fault", "fault elsewhere"] {
        assert!(kinds[kind] >= CASES / 20, "{kind}: {kinds:?}");
    }
}

#[test]
#[ignore = "takes minutes; run it after a change of the grammar or of the search"]
fn mutated_cases_of_other_seeds_lead_to_the_identity_of_botocore() {
    let seeds = (1..=10).map(|seed| SEED + seed * 0x10001);
    let mut all = Comparison::default();
    for comparison in seeds.filter_map(|seed| compare(seed, 20_000)) {
        all.wrong.extend(comparison.wrong);
        all.kinds.extend(comparison.kinds);
    }
    all.assert_no_difference();
    for (kind, reason) in DIFFERENCES {
        let occurs = all.kinds.is_empty() || all.kinds.contains_key(kind);
        assert!(occurs, "{kind} ({reason}) does not occur");
    }
}
