//! Names of databases and bastions that the last lookups returned, for completion: a shell cannot
//! wait for AWS at each TAB.
//!
//! The file is below the state directory, for this user only. It contains names and no secrets, and
//! nothing depends on it: a file that cannot be read or written is ignored.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::aws::discover::Survey;
use crate::base::names::Region;
use crate::platform;
use crate::platform::permissions::{CheckedDir, FileRole};

/// Name of the file.
const FILE: &str = "seen-names.json";
/// Maximum number of names of each kind; the oldest are dropped.
const MOST: usize = 1000;
/// Maximum size of the file in bytes: the names of both kinds, with long host names.
const LARGEST: u64 = 1 << 20;
/// Age after which a name is dropped: most databases live longer than their last use.
const OLDEST: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Names from lookups, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SeenNames {
    databases: Vec<SeenName>,
    bastions: Vec<SeenName>,
}

/// A name that a lookup returned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SeenName {
    /// Identifier of the database, or ID of the node.
    pub(crate) name: String,
    /// Host name of the database.
    pub(crate) host: Option<String>,
    /// Kind of the database, or name of the node.
    note: String,
    region: String,
    profile: Option<String>,
    /// Time of the last lookup, in seconds since 1970.
    at: u64,
}

impl SeenName {
    /// Returns true if the name was seen with this profile and in this region; `None`: with any.
    pub(crate) fn is_of(&self, profile: Option<&str>, region: Option<&str>) -> bool {
        let is_profile = profile.is_none() || self.profile.as_deref() == profile;
        is_profile && region.is_none_or(|region| region == self.region)
    }

    /// Returns the description for a list of words.
    pub(crate) fn note(&self) -> String {
        let profile = self.profile.as_ref();
        let profile = profile.map(|profile| format!("profile {profile}"));
        let parts = [Some(self.note.clone()), Some(self.region.clone()), profile];
        let parts: Vec<String> = parts
            .into_iter()
            .flatten()
            .filter(|p| !p.is_empty())
            .collect();
        parts.join(", ")
    }

    fn is_same(&self, other: &Self) -> bool {
        (&self.name, &self.region, &self.profile) == (&other.name, &other.region, &other.profile)
    }
}

impl SeenNames {
    /// Reads the names below the state directory.
    pub(crate) fn load(state_dir: &Path) -> Self {
        let dir = CheckedDir::open(FileRole::StateDir, state_dir);
        // Its rule is that of the certificate: written by this user or root only.
        let read = dir.and_then(|dir| dir.read(FileRole::Certificate, FILE, LARGEST));
        let parsed = read.ok().map(|bytes| serde_json::from_slice(&bytes));
        parsed.and_then(Result::ok).unwrap_or_default()
    }

    /// Returns the databases.
    pub(crate) fn databases(&self) -> &[SeenName] {
        &self.databases
    }

    /// Returns the bastions.
    pub(crate) fn bastions(&self) -> &[SeenName] {
        &self.bastions
    }

    /// Adds the names of a lookup, and drops old ones.
    fn add(&mut self, survey: &Survey, region: &Region, profile: Option<&str>, now: SystemTime) {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let seen = |name: &str, host: Option<String>, note: &str| SeenName {
            name: name.to_owned(),
            host,
            note: note.to_owned(),
            region: region.as_str().to_owned(),
            profile: profile.map(str::to_owned),
            at: now,
        };
        let databases = survey.databases.iter().map(|one| {
            let host = one.endpoint.as_ref().map(|at| at.host.to_string());
            seen(&one.identifier, host, one.kind.word())
        });
        merge(&mut self.databases, databases.collect(), now);
        let nodes = survey.nodes.iter().map(|one| {
            let name = one.name.as_deref().unwrap_or_default();
            seen(one.id.as_str(), None, name)
        });
        merge(&mut self.bastions, nodes.collect(), now);
    }

    /// Replaces the file below the state directory.
    fn store(&self, state_dir: &Path) -> Result<(), String> {
        let text = serde_json::to_vec(self).map_err(|error| error.to_string())?;
        platform::create_private_dir(state_dir).map_err(|error| error.to_string())?;
        let dir = CheckedDir::open(FileRole::StateDir, state_dir);
        dir.map_err(|error| error.to_string())?;
        let fresh = platform::private_temp_dir(state_dir, ".seen-names-");
        let fresh = fresh.map_err(|error| error.to_string())?;
        let path = fresh.path().join(FILE);
        platform::write_private_file(&path, &text).map_err(|error| error.to_string())?;
        std::fs::rename(&path, state_dir.join(FILE)).map_err(|error| error.to_string())
    }
}

/// Puts new names before those of earlier lookups.
fn merge(all: &mut Vec<SeenName>, fresh: Vec<SeenName>, now: u64) {
    all.retain(|old| {
        let is_recent = now.saturating_sub(old.at) <= OLDEST.as_secs();
        is_recent && !fresh.iter().any(|one| one.is_same(old))
    });
    all.splice(0..0, fresh);
    all.truncate(MOST);
}

/// Keeps the names of a lookup for completion.
pub(crate) fn remember(survey: &Survey, region: &Region, profile: Option<&str>) {
    let Some(state_dir) = super::complete::state_dir() else {
        return;
    };
    let mut names = SeenNames::load(&state_dir);
    names.add(survey, region, profile, SystemTime::now());
    if let Err(reason) = names.store(&state_dir) {
        debug!(reason, "the names for completion were not written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str, profile: &str, at: u64) -> SeenName {
        SeenName {
            name: name.to_owned(),
            region: "eu-central-1".to_owned(),
            profile: Some(profile.to_owned()),
            note: "cluster".to_owned(),
            at,
            ..SeenName::default()
        }
    }

    #[test]
    fn names_are_bounded_and_old_ones_are_dropped() {
        let day = 24 * 60 * 60;
        let now = 1000 * day;
        let mut all = vec![
            name("orders", "dev", now - day),
            name("orders", "prod", now - day),
            name("gone", "dev", now - 91 * day),
        ];
        merge(&mut all, vec![name("orders", "dev", now)], now);
        assert_eq!(
            all,
            [
                name("orders", "dev", now),
                name("orders", "prod", now - day)
            ]
        );
        let many = (0..MOST).map(|n| name(&format!("db-{n}"), "dev", now));
        merge(&mut all, many.collect(), now);
        assert_eq!(all.len(), MOST);
        assert_eq!(all[0].name, "db-0");
    }

    #[test]
    fn files_are_private_and_faults_are_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        assert_eq!(SeenNames::load(&state), SeenNames::default());
        let names = SeenNames {
            databases: vec![name("orders", "dev", 1)],
            bastions: vec![],
        };
        names.store(&state).unwrap();
        names.store(&state).unwrap();
        assert_eq!(SeenNames::load(&state), names);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&state.join(FILE)), 0o600);
            assert_eq!(mode(&state), 0o700);
        }
        let left = std::fs::read_dir(&state).unwrap().count();
        assert_eq!(left, 1, "no temporary directory is left");
        std::fs::write(state.join(FILE), "{").unwrap();
        assert_eq!(SeenNames::load(&state), SeenNames::default());
    }

    #[test]
    fn names_belong_to_a_profile_and_a_region() {
        let one = name("orders", "dev", 0);
        assert!(one.is_of(None, None) && one.is_of(Some("dev"), Some("eu-central-1")));
        assert!(!one.is_of(Some("prod"), None) && !one.is_of(None, Some("us-east-1")));
        assert_eq!(one.note(), "cluster, eu-central-1, profile dev");
    }
}
