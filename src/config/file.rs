//! Configuration file.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use serde::Deserialize;
use tracing::warn;

use super::search::{self, Candidate};
use super::target_config::name_fault;
use super::toml_messages::syntax_message;
use super::{ConfigError, DialFlags, ServeLayer, TargetConfig, TargetLayer, TunnelFlags, encoding};
use crate::base::foreign_text::visible;
use crate::base::suggest::nearest;
use crate::platform::permissions::{self, FileRole, PathError};

/// Maximum size of a configuration file in bytes: thousands of targets.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 20;

/// Contents of the configuration file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// Settings of the program as a whole.
    #[serde(default)]
    pub serve: ServeLayer,
    /// Settings for every target.
    #[serde(default)]
    pub defaults: TargetLayer,
    /// Targets by name.
    #[serde(default)]
    pub targets: BTreeMap<String, TargetLayer>,
    /// Paths that were tried, for messages.
    #[serde(skip)]
    pub searched: String,
    /// Path of the file; `None`: there is no file.
    #[serde(skip)]
    pub path: Option<PathBuf>,
    /// The file is in a parent directory of the current one.
    #[serde(skip)]
    pub is_above: bool,
    /// Reason why a file in a parent directory is not used.
    #[serde(skip)]
    pub ignored: Option<String>,
    /// `fingerprint` of the file's contents.
    #[serde(skip)]
    pub fingerprint: Vec<u8>,
}

/// Returns a hash of a file's contents, used to detect changes.
pub(crate) fn fingerprint(contents: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, contents).as_ref().to_vec()
}

impl ConfigFile {
    /// Reads `explicit`, or else the first existing file of `./pgiam.toml`, the same in the parent
    /// directories up to the root of the Git repository, and the user's file. A file in a parent
    /// directory that other users own or may change is left out.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`] or [`ConfigError::Syntax`]. A missing file is an error only if
    /// it was named explicitly.
    pub fn load(explicit: Option<&Path>) -> Result<Self, ConfigError> {
        if let Some(path) = explicit {
            let file = Self::read(path, FileRole::ConfigFile)?;
            let searched = path.display().to_string();
            return Ok(Self { searched, ..file });
        }
        let candidates = search::candidates();
        let file = Self::read_first(&candidates)?;
        let searched = search::in_words(&candidates);
        Ok(Self { searched, ..file })
    }

    /// Reads the file of a running program again. `is_above`: see [`ConfigFile::is_above`].
    ///
    /// # Errors
    /// As for [`ConfigFile::load`] of an explicit file. The file is refused if other users own it or
    /// may change it, as at the start.
    pub fn reload(path: &Path, is_above: bool) -> Result<Self, ConfigError> {
        let role = match is_above {
            true => FileRole::ProjectFile,
            false => FileRole::ConfigFile,
        };
        let (file, searched) = (Self::read(path, role)?, path.display().to_string());
        Ok(Self {
            searched,
            is_above,
            ..file
        })
    }

    /// Reads the first existing file; without one, returns the default.
    fn read_first(candidates: &[Candidate]) -> Result<Self, ConfigError> {
        let mut ignored = None;
        for Candidate { path, is_above } in candidates {
            if *is_above && ignored.is_some() {
                continue; // The nearest file decides.
            }
            let read = match is_above {
                true => Self::reload(path, true),
                false => Self::read(path, FileRole::ConfigFile),
            };
            match read {
                // A missing home directory, or one that is not a directory (`/dev/null`), contains
                // no file.
                Err(ConfigError::Unreadable { source, .. })
                    if matches!(
                        source.kind(),
                        ErrorKind::NotFound | ErrorKind::NotADirectory
                    ) => {}
                Err(ConfigError::Refused(reason)) if *is_above => {
                    ignored = Some(reason.to_string());
                }
                read => return read.map(|file| Self { ignored, ..file }),
            }
        }
        Ok(Self {
            ignored,
            ..Self::default()
        })
    }

    fn read(path: &Path, role: FileRole) -> Result<Self, ConfigError> {
        // The usual path for "no file".
        if path == Path::new("/dev/null") {
            return Ok(Self::default());
        }
        let path_error = |error| path_error(path, error);
        let opened = permissions::open(role, path).map_err(path_error)?;
        let bytes = permissions::contents(FileRole::ConfigFile, path, &opened, MAX_FILE_BYTES);
        let bytes = bytes.map_err(path_error)?;
        let fingerprint = fingerprint(&bytes);
        let text = encoding::text(bytes).map_err(|reason| ConfigError::Encoding {
            path: path.to_owned(),
            reason,
        })?;
        let mut file: Self = toml::from_str(&text).map_err(|source| ConfigError::Syntax {
            path: path.to_owned(),
            reason: syntax_message(&source),
        })?;
        match permissions::examine(FileRole::SecurityFile, path, &opened) {
            Ok(()) => {}
            Err(error) if file.affects_security() => return Err(path_error(error)),
            Err(error) => {
                warn!(reason = %error, "every user of this machine can change the configuration file")
            }
        }
        file.fingerprint = fingerprint;
        // As named, without following links: Kubernetes and Nix change the links.
        file.path = Some(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
        let dir = path.parent().unwrap_or(Path::new(""));
        file.serve.resolve_paths(dir);
        file.defaults.resolve_paths(dir);
        for layer in file.targets.values_mut() {
            layer.resolve_paths(dir);
        }
        Ok(file)
    }

    /// Returns `true` if the file restricts the clients, or sets the authorities trusted for a
    /// database.
    fn affects_security(&self) -> bool {
        let mut layers = self.targets.values().chain([&self.defaults]);
        self.serve.password_file.is_some()
            || self.serve.peer_check.is_some()
            || layers.any(|layer| layer.ca_file.is_some())
    }

    /// Returns the targets to serve: those named in `selected`, or all of the file; without a file,
    /// the one that `flags` describe. An invalid target does not affect the others.
    ///
    /// # Errors
    /// Errors that concern all targets, see [`ConfigError`].
    pub fn targets(
        self,
        selected: &[String],
        flags: &TargetLayer,
    ) -> Result<Vec<Result<TargetConfig, ConfigError>>, ConfigError> {
        let Self {
            defaults,
            mut targets,
            searched,
            ..
        } = self;
        let described = flags.host.as_ref().or(flags.db.as_ref());
        if !selected.is_empty() {
            if let Some(requested) = selected.iter().find(|name| !targets.contains_key(*name)) {
                return Err(unknown_target(requested, &targets));
            }
            targets.retain(|name, _| selected.contains(name));
        } else if let Some(db) = &flags.db {
            // The flags describe a target of their own, unless the file has one with this name.
            targets.retain(|name, _| name.eq_ignore_ascii_case(db));
            targets.entry(name_from_flags(flags, db)?).or_default();
        } else if let (true, Some(described)) = (targets.is_empty(), described) {
            targets.insert(name_from_flags(flags, described)?, TargetLayer::default());
        }
        if targets.is_empty() {
            return Err(ConfigError::NoTarget {
                line: "pgiam serve --db NAME --user ROLE",
                searched,
            });
        }
        let per_database: [(&'static str, bool); 2] = [
            ("host", flags.host.is_some()),
            ("port", flags.port.is_some_and(|port| port != 0)),
        ];
        if let Some((key, _)) = per_database
            .iter()
            .find(|(_, is_set)| *is_set && targets.len() > 1)
        {
            return Err(ConfigError::AmbiguousFlag {
                key,
                count: targets.len(),
            });
        }
        let targets = targets.into_iter().map(|(name, layer)| {
            refuse_unused_tunnel_keys(&name, &layer, &defaults, flags)?;
            TargetConfig::from_layer(name, flags.clone().over(layer.over(defaults.clone())))
        });
        Ok(targets.collect())
    }

    /// Returns the target of a command for one target: the one called `name`, the one that `flags`
    /// describe, or the only one of the file.
    ///
    /// # Errors
    /// As for [`ConfigFile::targets`]; [`ConfigError::WhichTarget`] when there are several.
    pub fn target(
        mut self,
        name: Option<&str>,
        flags: &TargetLayer,
    ) -> Result<TargetConfig, ConfigError> {
        let selected: Vec<String> = name.map(str::to_owned).into_iter().collect();
        if selected.is_empty() && flags.db.is_some() {
            // `targets` handles it.
        } else if selected.is_empty() && flags.host.is_some() {
            self.targets.clear(); // The flags describe another target.
        } else if selected.is_empty() && self.targets.len() > 1 {
            return Err(ConfigError::WhichTarget {
                known: target_names(&self.targets),
            });
        }
        let mut targets = self.targets(&selected, flags)?;
        targets.swap_remove(0) // There is one, or an error.
    }
}

#[cfg(test)]
impl ConfigFile {
    /// Returns the targets if their endpoints need no lookup.
    pub(crate) fn resolved_targets(
        self,
        selected: &[String],
        flags: &TargetLayer,
    ) -> Result<Vec<super::ResolvedTarget>, ConfigError> {
        let targets = self.targets(selected, flags)?;
        targets
            .into_iter()
            .map(|target| Ok(target?.resolved().expect("it has a host")))
            .collect()
    }
}

fn path_error(path: &Path, error: PathError) -> ConfigError {
    match error {
        PathError::File { source, .. } => ConfigError::Unreadable {
            path: path.to_owned(),
            source: Arc::new(source),
        },
        other => ConfigError::Refused(Arc::new(other)),
    }
}

/// Returns the name of a target that only flags describe: `default` with `host`, otherwise the
/// identifier in `db`.
fn name_from_flags(flags: &TargetLayer, described: &str) -> Result<String, ConfigError> {
    if flags.host.is_some() {
        return Ok("default".to_owned());
    }
    match name_fault(described) {
        Some(fault) => Err(ConfigError::Setting {
            key: "db",
            value: described.to_owned(),
            reason: format!("it {fault}"),
        }),
        None => Ok(described.to_ascii_lowercase()),
    }
}

/// Refuses a target that configures its tunnel and then uses none. `[defaults]`, flags and
/// variables apply to several targets, and `--via direct` is temporary: they are accepted.
fn refuse_unused_tunnel_keys(
    name: &str,
    own: &TargetLayer,
    defaults: &TargetLayer,
    flags: &TargetLayer,
) -> Result<(), ConfigError> {
    let is_direct = |via: &Option<String>| via.as_deref() == Some("direct");
    let hint = match (&flags.via, &own.via) {
        (Some(_), _) => return Ok(()),
        (None, via) if is_direct(via) => "remove one of the two",
        (None, None) if is_direct(&defaults.via) => {
            "via comes from [defaults]; set via = \"ssm\" in the target, or remove the tunnel key"
        }
        (None, _) => return Ok(()),
    };
    let tunnel_key = own
        .first_set(TunnelFlags::KEYS)
        .or(own.first_set(DialFlags::KEYS));
    match tunnel_key {
        Some(key) => Err(ConfigError::NoTunnel {
            target: name.into(),
            key,
            hint,
        }),
        None => Ok(()),
    }
}

pub(super) fn unknown_target(asked: &str, targets: &BTreeMap<String, TargetLayer>) -> ConfigError {
    let asked = &*visible(asked);
    let of_targets = nearest(asked, targets.keys().map(String::as_str));
    let suggestion = match (of_targets, command_like(asked)) {
        (Some(name), _) => format!("did you mean \"{name}\"? "),
        (None, Some(command)) => format!("did you mean the command pgiam {command}? "),
        (None, None) => String::new(),
    };
    let suggestion = match targets.is_empty() {
        true => format!(
            "{suggestion}name the database with --db {asked} or --host, or write a file: pgiam init; "
        ),
        false => suggestion,
    };
    ConfigError::UnknownTarget {
        asked: asked.to_owned(),
        suggestion,
        known: target_names(targets),
    }
}

/// Commands of the program, in the order of `pgiam --help`.
pub(crate) const COMMANDS: &[&str] = &[
    "serve",
    "run",
    "psql",
    "login",
    "logout",
    "check",
    "list",
    "init",
    "url",
    "token",
    "setup",
    "tunnel",
    "relay",
    "status",
    "wait",
    "stop",
    "explain",
    "service",
    "up",
    "down",
    "completions",
    "man",
];

/// Returns the command most similar to a requested target: because `serve` may be omitted, a
/// mistyped command is parsed as a target.
fn command_like(asked: &str) -> Option<String> {
    nearest(asked, COMMANDS.iter().copied()).map(str::to_owned)
}

fn target_names(targets: &BTreeMap<String, TargetLayer>) -> String {
    let names: Vec<&str> = targets.keys().map(String::as_str).collect();
    if names.is_empty() {
        "(none)".to_owned()
    } else {
        names.join(", ")
    }
}
