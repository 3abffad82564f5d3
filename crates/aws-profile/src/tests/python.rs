//! Python's own `RawConfigParser` and `shlex`, which the AWS CLI uses, beside the parser on
//! generated files.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value as Json;

use super::random::Random;
use crate::files::Profile;
use crate::{FileInput, Files};

const SEED: u64 = 0x5EED_0CF6;
const FILES: usize = 6_000;

/// Reads one file per line as hexadecimal digits, and writes a JSON object per file: the sections as
/// botocore's `configloader` has them, and the names that headers yield.
const SCRIPT: &str = r#"
import configparser, io, json, shlex, sys

def nested(text):
    parsed = {}
    for line in text.splitlines():
        line = line.strip()
        if line:
            key, value = line.split('=', 1)
            parsed[key.strip()] = value.strip()
    return parsed

def value(text):
    return nested(text) if text.startswith('\n') else text

def names(sections, letters):
    found = {}
    for header, values in sections.items():
        if header.startswith(letters):
            try:
                words = shlex.split(header)
            except ValueError:
                continue
            if len(words) == 2:
                found[words[1]] = values
        elif header == 'default' and letters == 'profile':
            found[header] = values
    return found

def read(data):
    parser = configparser.RawConfigParser()
    try:
        parser.read_file(io.TextIOWrapper(io.BytesIO(data), encoding='utf-8'))
        for text in parser.defaults().values():
            value(text)
        sections = {
            name: {key: value(parser.get(name, key)) for key in parser.options(name)}
            for name in parser.sections()
        }
    except (configparser.Error, ValueError) as error:
        return {'refused': type(error).__name__}
    return {
        'sections': sections,
        'profiles': names(sections, 'profile'),
        'sessions': names(sections, 'sso-session'),
    }

for line in sys.stdin.read().splitlines():
    print(json.dumps(read(bytes.fromhex(line))))
"#;

const CONFIG: &str = "\
# Managed by the platform team
[default]
region = eu-central-1
output = json

[profile dev]
sso_session = corp
sso_account_id = 111122223333
sso_role_name = Developer
region = eu-west-1

[sso-session corp]
sso_start_url = https://d-1234567890.awsapps.com/start#/
sso_region = eu-west-1
sso_registration_scopes = sso:account:access

[profile \"ops eu\"]
role_arn = arn:aws:iam::111122223333:role/ops
source_profile = dev
mfa_serial = arn:aws:iam::111122223333:mfa/me
s3 =
    max_concurrent_requests = 20

    # for the office
    addressing_style = path
[services local]
dynamodb =
  endpoint_url = http://localhost:8000
[profile tool]
credential_process = \"/opt/my tool/bin\" --profile 'a b' \\
    --json
";
const CREDENTIALS: &str = "\
[DEFAULT]
output: text
[default]
aws_access_key_id     = AKIAIOSFODNN7EXAMPLE
aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY
[ops eu]
aws_access_key_id=ASIAIOSFODNN7EXAMPLE
aws_secret_access_key=wJalr=XUtnFEMI:K7MDENG
aws_session_token=IQoJb3JpZ2luX2Vj//////////wEaCXVzLWVhc3QtMSJHMEUCIQ==
x_security_token_expires = 2026-11-30T12:00:00+01:00
";
const WINDOWS: &str =
    "[profile win]\r\nregion = us-east-1\r\n\r\n; note\r\n  output = text\r\n[profile büro]\r\nx=y";
const INDENTED: &str = "
    [profile one]
    region = a
      deeper
    output = b
  [profile  two]
region = c
\t# comment
 [DEFAULT]
 a = 1
";

const LINES: &[&str] = &[
    "[profile dev]",
    "[profile  dev]",
    "[profile 'dev']",
    "[profile \"dev\"]",
    "[profile a b c]",
    "[profile o'brien]",
    "[profiles x]",
    "[ profile x ]",
    "[profile x] # see [wiki]",
    "[profile x",
    "[profile dev#1]",
    "[sso-session 'corp']",
    "[sso-session\tnew]",
    "[default]",
    "[profile default]",
    "[DEFAULT]",
    "[]",
    "[a]b]",
    "region = x",
    "Region: x",
    "region",
    "= x",
    "key =",
    "s3 =",
    "  a = b",
    "  a: b",
    "    c",
    "\t[profile in]",
    "  # comment",
    "; comment",
    "#",
    "",
    "   ",
    "\u{a0}nbsp = 1",
    "İ = 1",
    "ΣΑΣ = 1",
    "straße = ß",
    "a b = c",
    "key:value=other",
];
const PIECES: &[&str] = &[
    "\"", "'", ":", "=", "[", "]", "#", ";", " ", "  ", "\t", "\\", "\n", "\n\n", "\r", "\r\n",
    "\u{a0}", "\u{b}", "\u{c}", "\u{1c}", "\u{1f}", "\u{85}", "\u{2028}", "\u{3000}", "\u{feff}",
    "\u{200b}", "\0", "ä", "Σ", "%", "$", "=\n  ", "\n ",
];

/// Returns a file: a realistic one with some mutations.
fn generated(random: &mut Random) -> Vec<u8> {
    let mut text = random
        .pick(&[CONFIG, CREDENTIALS, WINDOWS, INDENTED])
        .to_owned();
    if random.below(4) == 0 {
        text = (0..random.below(12))
            .map(|_| random.pick(LINES).to_owned() + "\n")
            .collect();
    }
    for _ in 0..random.below(4) {
        text = match random.below(3) {
            0 => with_piece(&text, random),
            _ => with_line(&text, random),
        };
    }
    let mut bytes = text.into_bytes();
    if random.below(30) == 0 {
        let at = random.below(bytes.len() + 1);
        bytes.insert(at, random.pick(&[&0xfc_u8, &0xc3, &0xff, &0x80]).to_owned());
    }
    bytes
}

/// Inserts or replaces a character.
fn with_piece(text: &str, random: &mut Random) -> String {
    let mut parts: Vec<String> = text.chars().map(String::from).collect();
    let at = random.below(parts.len() + 1);
    if random.below(3) == 0 && at < parts.len() {
        parts.remove(at);
    }
    parts.insert(at, random.pick(PIECES).to_owned());
    parts.concat()
}

/// Changes, adds, repeats or removes a line.
fn with_line(text: &str, random: &mut Random) -> String {
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let at = random.below(lines.len());
    match random.below(8) {
        0 | 1 => lines.insert(at, random.pick(LINES).to_owned()),
        2 => lines.insert(at, lines[random.below(lines.len())].clone()),
        3 => lines.insert(at, String::new()),
        4 => lines[at] = lines[at].trim_start().to_owned(),
        5 => lines[at] = random.pick(&["  ", "\t", "\u{a0}", "      "]).to_owned() + &lines[at],
        6 => lines[at] += random.pick(&["  ", " # note", " ; x", "\u{a0}", "]", "\u{c}"]),
        _ => drop(lines.remove(at)),
    }
    lines.join("\n")
}

/// Returns the Python beside the AWS CLI that `./dev test` installs (`PGIAM_AWSCLI`), or else
/// `python3`.
fn interpreter() -> PathBuf {
    let cli = std::env::var_os("PGIAM_AWSCLI").map(PathBuf::from);
    let python = cli.map(|cli| cli.with_file_name("python"));
    let python = python.filter(|python| python.exists());
    python.unwrap_or_else(|| "python3".into())
}

/// Runs a script with these lines of input, and returns the JSON value of each line of its output;
/// `None` if Python is not installed, or has not what `import` names. In CI on Linux, where
/// `./dev test` installs both, that is a failure.
pub(super) fn run(import: &str, script: &str, input: &[String]) -> Option<Vec<Json>> {
    let python = interpreter();
    let mut probe = Command::new(&python);
    let probe = probe.args(["-c", import]);
    let probe = probe.stderr(Stdio::null()).status();
    if !probe.is_ok_and(|status| status.success()) {
        let reason = format!("{python:?} cannot run {import:?}: run ./dev test");
        let is_ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
        let strict = is_ci && cfg!(target_os = "linux");
        assert!(!strict, "a judge is missing, and this is CI: {reason}");
        println!("SKIPPED: {reason}");
        return None;
    }
    let mut python = Command::new(python);
    let python = python
        .args(["-W", "ignore", "-c", script])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONUTF8", "1");
    let child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    // The scripts read all lines before they write the first one.
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all((input.join("\n") + "\n").as_bytes())
        .unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let values = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    Some(values.collect())
}

fn shown(profile: &Profile<'_>) -> Json {
    let layers = [profile.config, profile.credentials];
    let layers = layers.into_iter().flatten();
    let keys: BTreeSet<&str> = layers.flat_map(|layer| layer.keys()).collect();
    let value = |key: &str| match profile.setting(key) {
        Ok(setting) => Json::from(setting.unwrap().as_str()),
        Err(_) => {
            let nested: BTreeMap<_, _> = profile.nested(key).into_iter().collect();
            serde_json::to_value(nested).unwrap()
        }
    };
    keys.iter()
        .map(|key| ((*key).to_owned(), value(key)))
        .collect()
}

/// Returns the view of the parser in the form of the script.
fn of_parser(file: &[u8]) -> Json {
    let of_config = ("file", FileInput::Contents(file));
    let of_credentials = ("file", FileInput::Contents(file));
    let as_config = Files::parse(of_config, ("none", FileInput::Missing));
    let as_credentials = Files::parse(("none", FileInput::Missing), of_credentials);
    if as_config.problems().next().is_some() {
        return Json::Null;
    }
    let all = |files: &Files| -> Json {
        let names = files.profile_names().into_iter();
        let profile = |name: &str| shown(&files.profile(name).unwrap().unwrap());
        names.map(|name| (name.to_owned(), profile(name))).collect()
    };
    let sessions = as_config.session_names().into_iter();
    let session = |name: &str| shown(&as_config.sso_session(name).unwrap().unwrap().0);
    let sessions: Json = sessions
        .map(|name| (name.to_owned(), session(name)))
        .collect();
    serde_json::json!({
        "sections": all(&as_credentials),
        "profiles": all(&as_config),
        "sessions": sessions,
    })
}

#[test]
fn generated_files_are_read_as_python_reads_them() {
    println!("seed {SEED:#x}, {FILES} files");
    let mut random = Random::new(SEED);
    let files: Vec<Vec<u8>> = (0..FILES).map(|_| generated(&mut random)).collect();
    let hex = |file: &Vec<u8>| -> String { file.iter().map(|b| format!("{b:02x}")).collect() };
    let lines: Vec<String> = files.iter().map(hex).collect();
    let Some(expected) = run("import configparser, shlex", SCRIPT, &lines) else {
        return;
    };
    assert_eq!(expected.len(), files.len());
    let mut refused = 0;
    for (file, expected) in files.iter().zip(&expected) {
        let ours = of_parser(file);
        let text = String::from_utf8_lossy(file);
        match expected.get("refused") {
            Some(reason) => {
                refused += 1;
                assert_eq!(ours, Json::Null, "Python refuses with {reason}:\n{text:?}");
            }
            None => assert_eq!(&ours, expected, "{text:?}"),
        }
    }
    println!("{refused} refused by both, {} equal", FILES - refused);
    assert!(refused > FILES / 5 && refused < FILES * 4 / 5, "{refused}");
}
