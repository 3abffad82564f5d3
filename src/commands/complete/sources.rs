//! Values for completion: from files and from running processes of this user, never from AWS.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::kinds::ValueKind;
use crate::admin::client::{self, AskError};
use crate::admin::document::ProcessDocument;
use crate::aws::{AwsOptions, read_files};
use crate::base::environment;
use crate::base::partition::REGIONS;
use crate::commands::seen_names::SeenNames;
use crate::config::{ConfigFile, TargetLayer, WrittenBastion, expand_home};
use crate::platform;
use crate::platform::socket::control::ExistingSocket;
use crate::report::error_entries;

/// Deadline for the answers of running processes.
const ANSWER_DEADLINE: Duration = Duration::from_millis(100);

/// A word to offer, with a description of a few words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// The word.
    pub(super) value: String,
    /// The description; may be empty.
    pub(super) help: String,
}

impl Candidate {
    fn new(value: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            value: value.into(),
            help: help.into(),
        }
    }
}

/// Flags of the line that say where values come from.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    config: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    profile: Option<String>,
    region: Option<String>,
}

impl Given {
    /// Reads the flags, and their variables.
    pub(super) fn new(words: &[OsString]) -> Self {
        let value = |flag: &str, variable: &str| {
            let of_line = flag_value(words, flag);
            of_line.or_else(|| environment::read(variable).ok().flatten())
        };
        let path = |flag: &str, variable: &str| {
            let path = value(flag, variable).map(PathBuf::from);
            path.map(|path| expand_home(&path))
        };
        Self {
            config: path("--config", "PGIAM_CONFIG"),
            state_dir: path("--state-dir", STATE_DIR).or_else(platform::state_dir),
            profile: value("--profile", "PGIAM_PROFILE"),
            region: value("--region", "PGIAM_REGION"),
        }
    }
}

/// Variable of the state directory.
const STATE_DIR: &str = "PGIAM_STATE_DIR";

/// Returns the state directory that completion reads: of the variable, or the account's own.
pub(crate) fn state_dir() -> Option<PathBuf> {
    let named = environment::read(STATE_DIR).ok().flatten();
    let named = named.map(|dir| expand_home(std::path::Path::new(&dir)));
    named.or_else(platform::state_dir)
}

/// Returns the value of a flag, in the same word or the next one. The last word is incomplete.
fn flag_value(words: &[OsString], flag: &str) -> Option<String> {
    let (_, complete) = words.split_last()?;
    let mut found = None;
    for (at, word) in complete.iter().enumerate() {
        let word = word.to_string_lossy();
        if word == flag {
            found = complete
                .get(at + 1)
                .map(|next| next.to_string_lossy().into_owned());
        } else if let Some(value) = word.strip_prefix(flag).and_then(|v| v.strip_prefix('=')) {
            found = Some(value.to_owned());
        }
    }
    found
}

/// Returns the values of a kind.
pub(super) async fn values(kind: ValueKind, given: &Given) -> Vec<Candidate> {
    let mut all = match kind {
        ValueKind::Target => targets(given).await,
        ValueKind::Profile => profiles().await,
        ValueKind::ProfileOrTarget => [profiles().await, targets(given).await].concat(),
        ValueKind::SsoSession => sessions().await,
        ValueKind::Region => regions(given),
        ValueKind::Database => databases(given),
        ValueKind::Host => hosts(given),
        ValueKind::Bastion => bastions(given),
        ValueKind::Role => of_layers(given, |layer| layer.user.clone()),
        ValueKind::DatabaseName => of_layers(given, |layer| layer.database.clone()),
        ValueKind::ErrorId => error_ids(),
        ValueKind::Process => processes(given).await,
        ValueKind::Fixed(words) => {
            let words = words.iter();
            words.map(|word| Candidate::new(*word, "")).collect()
        }
        // The shell offers them.
        ValueKind::File | ValueKind::Directory => Vec::new(),
    };
    // The first of equal words has the best description.
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|candidate| seen.insert(candidate.value.clone()));
    all
}

/// Returns the targets of the file. A file with a fault still names its targets.
fn layers(given: &Given) -> BTreeMap<String, TargetLayer> {
    match ConfigFile::load(given.config.as_deref()) {
        Ok(file) => file.targets,
        Err(_) => {
            let path = given.config.clone();
            let path = path.unwrap_or_else(|| PathBuf::from("pgiam.toml"));
            let path = if path.exists() {
                Some(path)
            } else {
                platform::user_config_file()
            };
            headers(path)
                .into_iter()
                .map(|name| (name, TargetLayer::default()))
                .collect()
        }
    }
}

/// Maximum size of a file whose headers are read.
const LARGEST: u64 = 1 << 20;

/// Returns the names in the headers `[targets.NAME]` of a file that is not valid TOML.
fn headers(path: Option<PathBuf>) -> Vec<String> {
    let Some(path) = path else {
        return Vec::new();
    };
    let is_small = std::fs::metadata(&path).is_ok_and(|of| of.is_file() && of.len() <= LARGEST);
    if !is_small {
        return Vec::new();
    }
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let names = text.lines().filter_map(|line| {
        let name = line.trim().strip_prefix("[targets.")?.split(']').next()?;
        let name = name.trim().trim_matches(['"', '\'']);
        (!name.is_empty()).then(|| name.to_owned())
    });
    names.collect()
}

async fn targets(given: &Given) -> Vec<Candidate> {
    let mut all: Vec<Candidate> = layers(given)
        .into_iter()
        .map(|(name, layer)| {
            let of = layer.db.or(layer.host).unwrap_or_default();
            let profile = layer.profile.map(|profile| format!("profile {profile}"));
            let help: Vec<String> = [Some(of), profile].into_iter().flatten().collect();
            let help: Vec<&str> = help
                .iter()
                .map(String::as_str)
                .filter(|h| !h.is_empty())
                .collect();
            Candidate::new(name, help.join(", "))
        })
        .collect();
    let running = running(given).await;
    for (found, process) in running {
        let targets = process.map(|process| process.targets).unwrap_or_default();
        for target in targets {
            let help = format!("{}, pid {}", target.state, found.pid);
            all.push(Candidate::new(target.name, help));
        }
    }
    all
}

/// Returns the running processes that answer in time: one that hangs does not delay the shell.
async fn running(given: &Given) -> Vec<(ExistingSocket, Result<ProcessDocument, AskError>)> {
    let asked = client::all(given.state_dir.as_deref());
    let answered = tokio::time::timeout(ANSWER_DEADLINE, asked).await;
    answered.unwrap_or_default()
}

async fn processes(given: &Given) -> Vec<Candidate> {
    let running = running(given).await;
    let process = running.into_iter().filter_map(|(found, process)| {
        let targets = process.ok()?.targets;
        let names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
        Some(Candidate::new(found.pid.to_string(), names.join(", ")))
    });
    process.collect()
}

async fn profiles() -> Vec<Candidate> {
    let Ok(files) = read_files(&AwsOptions::default()).await else {
        return Vec::new();
    };
    let described = |name: &&str| {
        let profile = files.profile(name).ok().flatten();
        let setting = |key: &str| {
            let setting = profile.as_ref()?.setting(key).ok().flatten()?;
            Some(setting.as_str().to_owned())
        };
        let parts = [
            setting("sso_account_id"),
            setting("sso_role_name"),
            setting("region"),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        Candidate::new(*name, parts.join(", "))
    };
    files.profile_names().iter().map(described).collect()
}

async fn sessions() -> Vec<Candidate> {
    let files = read_files(&AwsOptions::default()).await;
    let names = files.map(|files| {
        let names = files.session_names().into_iter().map(str::to_owned);
        names.collect::<Vec<_>>()
    });
    let names = names.unwrap_or_default().into_iter();
    names.map(|name| Candidate::new(name, "")).collect()
}

fn regions(given: &Given) -> Vec<Candidate> {
    let all = REGIONS.iter();
    let mut all: Vec<Candidate> = all
        .map(|(name, place)| Candidate::new(*name, *place))
        .collect();
    all.extend(of_layers(given, |layer| {
        layer.region.as_ref().map(ToString::to_string)
    }));
    all
}

fn databases(given: &Given) -> Vec<Candidate> {
    let mut all = Vec::new();
    for database in seen(given).databases() {
        if database.is_of(given.profile.as_deref(), given.region.as_deref()) {
            all.push(Candidate::new(&database.name, database.note()));
        }
    }
    all.extend(of_layers(given, |layer| layer.db.clone()));
    all
}

fn hosts(given: &Given) -> Vec<Candidate> {
    let mut all = of_layers(given, |layer| layer.host.clone());
    for database in seen(given).databases() {
        if let Some(host) = &database.host
            && database.is_of(given.profile.as_deref(), given.region.as_deref())
        {
            all.push(Candidate::new(host, database.note()));
        }
    }
    all
}

fn bastions(given: &Given) -> Vec<Candidate> {
    let mut all = vec![Candidate::new("auto", "pgiam finds an online bastion")];
    for bastion in seen(given).bastions() {
        if bastion.is_of(given.profile.as_deref(), given.region.as_deref()) {
            all.push(Candidate::new(&bastion.name, bastion.note()));
        }
    }
    let of_file = of_layers(given, |layer| layer.bastion.as_ref().map(written));
    all.extend(of_file);
    all
}

/// Returns a bastion as a flag has it.
fn written(bastion: &WrittenBastion) -> String {
    match bastion {
        WrittenBastion::Text(text) => text.clone(),
        WrittenBastion::List(nodes) => nodes.join(","),
        WrittenBastion::Tag(tag) => format!("tag:{tag}"),
    }
}

/// Returns a setting of all targets in the file.
fn of_layers(given: &Given, setting: impl Fn(&TargetLayer) -> Option<String>) -> Vec<Candidate> {
    let layers = layers(given);
    let values = layers.iter().filter_map(|(name, layer)| {
        Some(Candidate::new(setting(layer)?, format!("target {name}")))
    });
    values.collect()
}

fn seen(given: &Given) -> SeenNames {
    let dir = given.state_dir.as_deref();
    dir.map(SeenNames::load).unwrap_or_default()
}

fn error_ids() -> Vec<Candidate> {
    let entries = error_entries().iter();
    entries
        .map(|entry| Candidate::new(entry.id, entry.summary()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_in_both_forms() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        let value = |line: &str| flag_value(&words(line), "--config");
        assert_eq!(value("pgiam check --config a "), Some("a".to_owned()));
        assert_eq!(
            value("pgiam --config=a check --config=b "),
            Some("b".to_owned())
        );
        // The last word is the one to complete.
        assert_eq!(value("pgiam check --config"), None);
        assert_eq!(value("pgiam check --config=a"), None);
        assert_eq!(value("pgiam check --configured x y"), None);
    }

    #[test]
    fn a_file_with_a_fault_names_its_targets() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pgiam.toml");
        std::fs::write(
            &path,
            "[targets.orders]\nport = \n [targets.\"a b\"]\n[serve]\n",
        )
        .unwrap();
        let given = Given {
            config: Some(path),
            ..Given::default()
        };
        let names: Vec<String> = layers(&given).into_keys().collect();
        assert_eq!(names, ["a b", "orders"]);
    }
}
