//! The running pgiam that serves a target, for commands that want its port.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::ProcessKind;
use super::client;
use super::document::{ProcessDocument, TargetDocument};
use crate::aws::profile_in_effect;
use crate::config::{ConfigError, DatabaseRef, TargetConfig, TargetLayer};

/// State of a target that the owner has stopped, as in [`TargetDocument::state`].
const STOPPED: &str = "stopped";

/// A target of a running `pgiam serve`.
#[derive(Clone, Debug)]
pub struct RunningTarget {
    /// The process.
    pub process: ProcessDocument,
    /// The target in it.
    pub target: TargetDocument,
}

impl RunningTarget {
    /// Returns the targets of this user's servers. Processes that do not answer are left out.
    pub async fn all(state_dir: Option<&Path>) -> Vec<Self> {
        let processes = client::all(state_dir).await.into_iter();
        let processes = processes.filter_map(|(_, status)| status.ok());
        processes.flat_map(Self::of).collect()
    }

    fn of(process: ProcessDocument) -> Vec<Self> {
        let is_server = process.kind == ProcessKind::Serve.as_str() && process.state == "serving";
        let targets = process.targets.iter();
        let targets = targets.filter(|target| is_server && target.state != STOPPED);
        let pair = |target: &TargetDocument| Self {
            process: process.clone(),
            target: target.clone(),
        };
        targets.map(pair).collect()
    }

    /// Returns the running target of this configuration; that at the configured port first.
    pub async fn find(config: &TargetConfig, state_dir: Option<&Path>) -> Option<Self> {
        let mut all = Self::all(state_dir).await;
        all.retain(|running| running.is_of(config));
        all.sort_by_key(|running| running.target.port != config.settings.local_port);
        all.into_iter().next()
    }

    /// Returns `true` if the target has this name and leads to the database of this configuration,
    /// with the same profile.
    #[must_use]
    pub fn is_of(&self, config: &TargetConfig) -> bool {
        let TargetDocument {
            name,
            profile,
            region,
            ..
        } = &self.target;
        let written = config.region.as_ref().map(|region| region.as_str());
        let is_region = match (written, region.as_deref()) {
            (Some(written), Some(region)) => written == region,
            _ => true,
        };
        *name == *config.name
            && self.is_database_of(config)
            && *profile == profile_in_effect(config.settings.profile.as_deref())
            && is_region
    }

    /// Returns `true` if both targets lead to the same database, with the same profile.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let (one, two) = (&self.target, &other.target);
        one.name == two.name
            && one.configured_as == two.configured_as
            && one.profile == two.profile
            && one.region == two.region
    }

    /// Returns `true` if the target leads to the database of this configuration: in whatever form both
    /// name it.
    fn is_database_of(&self, config: &TargetConfig) -> bool {
        let TargetDocument {
            configured_as,
            endpoint,
            ..
        } = &self.target;
        let endpoint = endpoint.parse().ok().map(DatabaseRef::Host);
        let is_endpoint = |endpoint: DatabaseRef| endpoint.is_same(&config.database_ref);
        *configured_as == config.database_ref.written() || endpoint.is_some_and(is_endpoint)
    }

    /// Returns the configuration of the target, with the flags of a command over it. `None` if the
    /// process is of a version whose settings this one does not know.
    #[must_use]
    pub fn config(&self, flags: TargetLayer) -> Option<Result<TargetConfig, ConfigError>> {
        let TargetDocument {
            name,
            settings,
            profile,
            ..
        } = &self.target;
        let mut theirs: TargetLayer = serde_json::from_value(settings.clone()).ok()?;
        // Its profile may come from a variable that this process does not have.
        theirs.profile = theirs.profile.or_else(|| profile.clone());
        Some(TargetConfig::of_running(name, theirs, flags))
    }

    /// Returns the addresses that the process listens on.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        let all = self.target.addresses.iter();
        all.filter_map(|address| address.parse().ok()).collect()
    }

    /// Returns the directory of the Unix socket.
    #[must_use]
    pub fn socket_dir(&self) -> Option<PathBuf> {
        let socket = self.target.socket.as_deref()?;
        socket.parent().map(Path::to_owned)
    }

    /// Returns the database that a client names for this database of the target; `None` for the
    /// default.
    #[must_use]
    pub fn named(&self, database: Option<&str>) -> Option<String> {
        let name = &self.target.name;
        match (self.target.by_name, database) {
            (true, Some(database)) => Some(format!("{name}/{database}")),
            (true, None) => Some(name.clone()),
            (false, database) => database.map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigFile, TargetLayer};

    fn config(more: &str) -> TargetConfig {
        let text = format!("[targets.orders]\ndb = 'orders'\nprofile = 'dev'\n{more}");
        let file: ConfigFile = toml::from_str(&text).unwrap();
        file.target(None, &TargetLayer::default()).unwrap()
    }

    fn process(kind: &str, state: &str) -> ProcessDocument {
        ProcessDocument {
            kind: kind.to_owned(),
            state: state.to_owned(),
            targets: vec![TargetDocument {
                name: "orders".to_owned(),
                configured_as: "orders".to_owned(),
                profile: Some("dev".to_owned()),
                region: Some("eu-central-1".to_owned()),
                ..TargetDocument::default()
            }],
            ..ProcessDocument::default()
        }
    }

    #[test]
    fn only_servers_that_serve_are_used() {
        for (kind, state, count) in [
            ("serve", "serving", 1),
            ("serve", "draining", 0),
            ("serve", "starting", 0),
            ("run", "serving", 0),
            ("tunnel", "serving", 0),
        ] {
            let found = RunningTarget::of(process(kind, state));
            assert_eq!(found.len(), count, "{kind} {state}");
        }
        let mut stopped = process("serve", "serving");
        stopped.targets[0].state = STOPPED.to_owned();
        assert!(RunningTarget::of(stopped).is_empty());
    }

    #[test]
    fn another_database_or_account_is_another_target() {
        let found = RunningTarget::of(process("serve", "serving"));
        let running = &found[0];
        for (more, same) in [
            ("", true),
            ("region = 'eu-central-1'", true),
            ("user = 'other'\nport = 6000", true),
            ("region = 'us-east-1'", false),
        ] {
            assert_eq!(running.is_of(&config(more)), same, "{more}");
        }
        let mut other = config("");
        other.settings.profile = Some("prod".to_owned());
        assert!(!running.is_of(&other));
        let mut other = config("");
        other.name = "stock".into();
        assert!(!running.is_of(&other));
        let reader = "[targets.orders]\ndb = 'orders:reader'\nprofile = 'dev'";
        let file: ConfigFile = toml::from_str(reader).unwrap();
        let other = file.target(None, &TargetLayer::default()).unwrap();
        assert!(!running.is_of(&other));
    }

    #[test]
    fn a_shared_port_has_the_target_in_the_database_name() {
        let mut running = RunningTarget::of(process("serve", "serving")).remove(0);
        assert_eq!(running.named(None), None);
        assert_eq!(running.named(Some("app")).as_deref(), Some("app"));
        running.target.by_name = true;
        assert_eq!(running.named(None).as_deref(), Some("orders"));
        assert_eq!(running.named(Some("app")).as_deref(), Some("orders/app"));
    }
}
