//! What was written in the file, the environment and the flags → validated [`Target`]s.
//!
//! Precedence: flags, then `PGIAM_*` variables (both arrive here as [`Layer`] from `cli.rs`), then
//! the target's table in the file, then `[defaults]`, then the built-in values below.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;

/// Local port a target listens on when nothing says otherwise: one above PostgreSQL's own, so that
/// a local server can keep 5432.
pub const DEFAULT_LOCAL_PORT: u16 = 5433;
/// PostgreSQL's registered port, used upstream when `host` names none.
pub const DEFAULT_UPSTREAM_PORT: u16 = 5432;
/// How long a client waits for tunnel and token before it is told why not.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Most sessions of a target: one carries 0.7 MB/s from the database, whatever we do.
pub const DEFAULT_SESSIONS: usize = 4;
/// How long a session without connections stays open.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// How long the bastion may take to connect to the database.
pub const DEFAULT_DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the configuration cannot be used. Every message names the key and the remedy.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: std::io::Error,
    },
    /// The file is not TOML, or has keys or types that do not exist.
    #[error("{path} is not a valid configuration:\n{source}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and reason.
        source: Box<toml::de::Error>,
    },
    /// No target anywhere.
    #[error(
        "no target is configured.\nhint: give one on the command line (pgiam serve --host NAME.REGION.rds.amazonaws.com --bastion i-…) \
         or in a file; looked at: {looked_at}"
    )]
    NoTarget {
        /// The files that were tried, in order.
        looked_at: String,
    },
    /// A target was asked for by a name that is not in the file.
    #[error("there is no target \"{asked}\".\nhint: the configured targets are: {known}")]
    UnknownTarget {
        /// The name that was asked for.
        asked: String,
        /// The names that exist.
        known: String,
    },
    /// A key that describes one database was given on the command line for several targets.
    #[error(
        "--{key} describes one database, but {count} targets are selected.\nhint: name the target it is for: pgiam serve TARGET --{key} …"
    )]
    AmbiguousFlag {
        /// The flag.
        key: &'static str,
        /// How many targets are selected.
        count: usize,
    },
    /// A target lacks something it needs.
    #[error("target \"{target}\" has no {key}.\nhint: {hint}")]
    Missing {
        /// The target.
        target: String,
        /// The missing key.
        key: &'static str,
        /// What to write.
        hint: &'static str,
    },
    /// A value that cannot be meant.
    #[error("target \"{target}\": {key} = \"{value}\" is not usable: {reason}")]
    Invalid {
        /// The target.
        target: String,
        /// The key.
        key: &'static str,
        /// What was written.
        value: String,
        /// What is wrong and what would be right.
        reason: String,
    },
}

/// One layer of settings, as written. Every key is optional in every layer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// The real RDS endpoint, `NAME` or `NAME:PORT`.
    pub host: Option<String>,
    /// The database role to log in as.
    pub user: Option<String>,
    /// The database to open when the client names none.
    pub database: Option<String>,
    /// The local port.
    pub port: Option<u16>,
    /// The managed node that carries the tunnel.
    pub bastion: Option<String>,
    /// `ssm` or `direct`.
    pub via: Option<String>,
    /// The AWS profile.
    pub profile: Option<String>,
    /// The AWS region, where the host name does not say it.
    pub region: Option<String>,
    /// PEM file that replaces the built-in trust roots for the database.
    pub ca_file: Option<PathBuf>,
    /// Seconds until a client that waits for tunnel and token is told why not.
    pub connect_timeout: Option<u64>,
}

impl Layer {
    fn over(self, below: Self) -> Self {
        Self {
            host: self.host.or(below.host),
            user: self.user.or(below.user),
            database: self.database.or(below.database),
            port: self.port.or(below.port),
            bastion: self.bastion.or(below.bastion),
            via: self.via.or(below.via),
            profile: self.profile.or(below.profile),
            region: self.region.or(below.region),
            ca_file: self.ca_file.or(below.ca_file),
            connect_timeout: self.connect_timeout.or(below.connect_timeout),
        }
    }
}

/// The configuration file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Settings for every target.
    #[serde(default)]
    pub defaults: Layer,
    /// The targets by name.
    #[serde(default)]
    pub targets: BTreeMap<String, Layer>,
}

impl File {
    /// Reads `explicit`, or else the first that exists of `./pgiam.toml` and the user's file.
    /// Returns the file and a sentence about where it was looked for.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`] or [`ConfigError::Syntax`]. Finding no file is not an error
    /// unless one was named.
    pub fn load(explicit: Option<&Path>) -> Result<(Self, String), ConfigError> {
        if let Some(path) = explicit {
            return Ok((Self::read(path)?, path.display().to_string()));
        }
        let candidates: Vec<PathBuf> = [
            Some(PathBuf::from("pgiam.toml")),
            crate::platform::user_config_file(),
        ]
        .into_iter()
        .flatten()
        .collect();
        let looked_at = candidates
            .iter()
            .map(|path| path.display().to_string())
            .collect::<Vec<_>>()
            .join(", ");
        for path in &candidates {
            match Self::read(path) {
                Err(ConfigError::Unreadable { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound => {}
                read => return Ok((read?, looked_at)),
            }
        }
        Ok((Self::default(), looked_at))
    }

    fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let mut file: Self = toml::from_str(&text).map_err(|source| ConfigError::Syntax {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        // A relative ca_file means: beside the file that names it.
        let base = path.parent().unwrap_or(Path::new("")).to_owned();
        let layers = file.targets.values_mut().chain([&mut file.defaults]);
        for ca_file in layers.filter_map(|layer| layer.ca_file.as_mut()) {
            *ca_file = base.join(&*ca_file);
        }
        Ok(file)
    }

    /// The targets to serve: those named in `selected`, or all of the file; with no file, the one
    /// that `flags` describe.
    ///
    /// # Errors
    /// The first thing that cannot be meant, see [`ConfigError`].
    pub fn targets(
        self,
        selected: &[String],
        flags: &Layer,
        looked_at: &str,
    ) -> Result<Vec<Target>, ConfigError> {
        let Self {
            defaults,
            mut targets,
        } = self;
        if !selected.is_empty() {
            if let Some(asked) = selected.iter().find(|name| !targets.contains_key(*name)) {
                return Err(ConfigError::UnknownTarget {
                    asked: asked.clone(),
                    known: known_names(targets.keys()),
                });
            }
            targets.retain(|name, _| selected.contains(name));
        } else if targets.is_empty() && flags.host.is_some() {
            targets.insert("default".to_owned(), Layer::default());
        }
        if targets.is_empty() {
            return Err(ConfigError::NoTarget {
                looked_at: looked_at.to_owned(),
            });
        }
        let per_database: [(&'static str, bool); 2] = [
            ("host", flags.host.is_some()),
            ("port", flags.port.is_some()),
        ];
        if let Some((key, _)) = per_database
            .iter()
            .find(|(_, given)| *given && targets.len() > 1)
        {
            return Err(ConfigError::AmbiguousFlag {
                key,
                count: targets.len(),
            });
        }
        targets
            .into_iter()
            .map(|(name, layer)| {
                Target::new(name, flags.clone().over(layer.over(defaults.clone())))
            })
            .collect()
    }
}

fn known_names<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.map(String::as_str).collect();
    if names.is_empty() {
        "(none)".to_owned()
    } else {
        names.join(", ")
    }
}

/// Host and port of a database, as it is signed, verified and dialled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The RDS host name, in lower case.
    pub host: String,
    /// The port the database listens on.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = match text.rsplit_once(':') {
            // A URL: the check of the name below says what to write instead.
            Some((_, rest)) if rest.starts_with("//") => (text, DEFAULT_UPSTREAM_PORT),
            None => (text, DEFAULT_UPSTREAM_PORT),
            Some((host, port)) => match port.parse() {
                Ok(port) if port != 0 => (host, port),
                _ => return Err(format!("\"{port}\" is not a port; write NAME or NAME:5432")),
            },
        };
        if rustls::pki_types::DnsName::try_from(host).is_err() {
            return Err(
                "write the endpoint's DNS name as RDS shows it; the certificate is checked against it"
                    .to_owned(),
            );
        }
        Ok(Self {
            host: host.to_ascii_lowercase(),
            port,
        })
    }
}

impl Endpoint {
    /// The region an RDS endpoint name carries: the label before `rds.amazonaws.com` (or
    /// `rds.amazonaws.com.cn`). `None` for other names.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        let rest = self
            .host
            .strip_suffix(".rds.amazonaws.com")
            .or_else(|| self.host.strip_suffix(".rds.amazonaws.com.cn"))?;
        rest.rsplit_once('.').map(|(_, region)| region)
    }
}

/// How the bytes reach the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// A TCP connection from here: inside the VPC, over a VPN or peering.
    Direct,
    /// A Session Manager tunnel.
    Ssm(SsmSettings),
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str("direct"),
            Self::Ssm(settings) => write!(f, "ssm {}", settings.bastion),
        }
    }
}

/// The tunnel of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SsmSettings {
    /// Who carries it.
    pub bastion: Bastion,
    /// The session document; `None`: AWS's own for a remote host.
    pub document: Option<String>,
    /// Most sessions at a time, 1 to 20.
    pub sessions: usize,
    /// A session without connections is closed after this; the last one stays longer.
    pub idle_timeout: Duration,
    /// Open the first session at the start of the program.
    pub warm: bool,
    /// Keep open sessions from reaching the account's idle timeout.
    pub keep_alive: bool,
    /// How long the bastion may take to connect to the database.
    pub dial_timeout: Duration,
}

impl SsmSettings {
    /// The built-in settings for a bastion.
    #[must_use]
    pub fn new(bastion: Bastion) -> Self {
        Self {
            bastion,
            document: None,
            sessions: DEFAULT_SESSIONS,
            idle_timeout: DEFAULT_IDLE_TIMEOUT,
            warm: false,
            keep_alive: false,
            dial_timeout: DEFAULT_DIAL_TIMEOUT,
        }
    }
}

/// The managed node or nodes that can carry a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bastion {
    /// `i-…`, `mi-…` or `ecs:cluster_task_runtime`, in order of preference; never empty.
    Nodes(Vec<String>),
    /// Whichever managed nodes carry this tag.
    Tag {
        /// The tag's key.
        key: String,
        /// Its value.
        value: String,
    },
}

impl fmt::Display for Bastion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes(nodes) => f.write_str(&nodes.join(", ")),
            Self::Tag { key, value } => write!(f, "tag {key}={value}"),
        }
    }
}

/// One database a client can reach through us.
#[derive(Clone, Debug)]
pub struct Target {
    /// The name in the file.
    pub name: String,
    /// The real database endpoint.
    pub endpoint: Endpoint,
    /// The region tokens are signed for and the tunnel runs in; `None`: the AWS default region.
    pub region: Option<String>,
    /// Replaces the client's default user name.
    pub user: Option<String>,
    /// Replaces the client's default database.
    pub database: Option<String>,
    /// Where clients connect; 0 lets the system choose.
    pub local_port: u16,
    /// The way there.
    pub via: Via,
    /// The AWS profile; `None`: the SDK's default.
    pub profile: Option<String>,
    /// Replaces the built-in trust roots.
    pub ca_file: Option<PathBuf>,
    /// Deadline for tunnel and token together.
    pub connect_timeout: Duration,
}

impl Target {
    fn new(name: String, layer: Layer) -> Result<Self, ConfigError> {
        let invalid = |key, value: &str, reason: String| ConfigError::Invalid {
            target: name.clone(),
            key,
            value: value.to_owned(),
            reason,
        };
        let Some(host) = layer.host else {
            return Err(ConfigError::Missing {
                target: name,
                key: "host",
                hint: "host = \"NAME.REGION.rds.amazonaws.com\", as the RDS console shows the endpoint",
            });
        };
        let endpoint: Endpoint = host
            .parse()
            .map_err(|reason| invalid("host", &host, reason))?;
        let region = match (layer.region, endpoint.region()) {
            (Some(region), Some(in_host)) if region != in_host => {
                return Err(invalid(
                    "region",
                    &region,
                    format!(
                        "the host is in {in_host}, and a token for another region is refused; leave region out"
                    ),
                ));
            }
            (Some(region), _) => Some(region),
            (None, in_host) => in_host.map(str::to_owned),
        };
        if let Some(name) = [("user", &layer.user), ("database", &layer.database)]
            .into_iter()
            .find(|(_, value)| {
                value
                    .as_ref()
                    .is_some_and(|v| v.is_empty() || v.contains('\0'))
            })
        {
            return Err(invalid(name.0, "", "it is empty".to_owned()));
        }
        let via = via(&name, layer.via.as_deref(), layer.bastion)?;
        let connect_timeout = match layer.connect_timeout {
            Some(0) => {
                return Err(invalid(
                    "connect_timeout",
                    "0",
                    "give whole seconds, 1 or more".to_owned(),
                ));
            }
            Some(seconds) => Duration::from_secs(seconds),
            None => DEFAULT_CONNECT_TIMEOUT,
        };
        Ok(Self {
            name,
            endpoint,
            region,
            user: layer.user,
            database: layer.database,
            local_port: layer.port.unwrap_or(DEFAULT_LOCAL_PORT),
            via,
            profile: layer.profile,
            ca_file: layer.ca_file,
            connect_timeout,
        })
    }
}

fn via(target: &str, via: Option<&str>, bastion: Option<String>) -> Result<Via, ConfigError> {
    let invalid = |key, value: &str, reason: &str| ConfigError::Invalid {
        target: target.to_owned(),
        key,
        value: value.to_owned(),
        reason: reason.to_owned(),
    };
    match (via, bastion) {
        (Some("direct"), _) => Ok(Via::Direct),
        (None | Some("ssm"), Some(bastion)) => {
            let known = ["i-", "mi-"]
                .iter()
                .any(|prefix| bastion.starts_with(prefix));
            if !known {
                return Err(invalid(
                    "bastion",
                    &bastion,
                    "give a managed node's id, i-… or mi-…",
                ));
            }
            Ok(Via::Ssm(SsmSettings::new(Bastion::Nodes(vec![bastion]))))
        }
        (None | Some("ssm"), None) => Err(ConfigError::Missing {
            target: target.to_owned(),
            key: "bastion",
            hint: "bastion = \"i-0123456789abcdef0\" (an instance that Session Manager can reach), \
                   or via = \"direct\" where the database can be reached from here",
        }),
        (Some(other), _) => Err(invalid("via", other, "it is \"ssm\" or \"direct\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "orders.cluster-abc.eu-central-1.rds.amazonaws.com";

    fn parse(text: &str, selected: &[&str], flags: &Layer) -> Result<Vec<Target>, ConfigError> {
        let file: File = toml::from_str(text).unwrap();
        let selected: Vec<String> = selected.iter().map(|&name| name.to_owned()).collect();
        file.targets(&selected, flags, "pgiam.toml")
    }

    #[test]
    fn flags_beat_the_target_which_beats_the_defaults() {
        let text = format!(
            "[defaults]\nprofile='dev'\nuser='everyone'\nbastion='i-1'\n[targets.orders]\nhost='{HOST}'\nuser='db_user'\n"
        );
        let flags = Layer {
            profile: Some("prod".into()),
            ..Layer::default()
        };
        let target = &parse(&text, &[], &flags).unwrap()[0];
        assert_eq!(target.profile.as_deref(), Some("prod"));
        assert_eq!(target.user.as_deref(), Some("db_user"));
        assert_eq!(
            target.via,
            Via::Ssm(SsmSettings::new(Bastion::Nodes(vec!["i-1".into()])))
        );
        assert_eq!(target.endpoint.to_string(), format!("{HOST}:5432"));
        assert_eq!(target.region.as_deref(), Some("eu-central-1"));
        assert_eq!(
            (target.local_port, target.connect_timeout),
            (5433, DEFAULT_CONNECT_TIMEOUT)
        );
    }

    #[test]
    fn flags_alone_make_a_target() {
        let flags = Layer {
            host: Some(format!("{}:5444", HOST.to_uppercase())),
            via: Some("direct".into()),
            ..Layer::default()
        };
        let target = &parse("", &[], &flags).unwrap()[0];
        assert_eq!(
            (target.name.as_str(), target.endpoint.port),
            ("default", 5444)
        );
        assert_eq!(target.endpoint.host, HOST);
    }

    #[test]
    fn refusals_name_the_key_and_the_remedy() {
        let no_flags = Layer::default();
        let cases = [
            (
                format!("[targets.a]\nhost='{HOST}'\n"),
                "target \"a\" has no bastion",
            ),
            (
                "[targets.a]\nbastion='i-1'\n".to_owned(),
                "target \"a\" has no host",
            ),
            (
                format!("[targets.a]\nhost='{HOST}'\nbastion='bastion-1'\n"),
                "i-… or mi-…",
            ),
            (
                format!("[targets.a]\nhost='{HOST}'\nvia='vpn'\n"),
                "\"ssm\" or \"direct\"",
            ),
            (
                format!("[targets.a]\nhost='{HOST}'\nvia='direct'\nregion='us-east-1'\n"),
                "the host is in eu-central-1",
            ),
            (
                "[targets.a]\nhost='10.0.0.7'\nvia='direct'\n".to_owned(),
                "DNS name",
            ),
            (
                format!("[targets.a]\nhost='{HOST}:0'\nvia='direct'\n"),
                "is not a port",
            ),
            (
                format!("[targets.a]\nhost='{HOST}'\nvia='direct'\nuser=''\n"),
                "it is empty",
            ),
            (
                format!("[targets.a]\nhost='{HOST}'\nvia='direct'\nconnect_timeout=0\n"),
                "1 or more",
            ),
            (String::new(), "no target is configured"),
        ];
        for (text, expected) in cases {
            let error = parse(&text, &[], &no_flags).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}\n→ {error}");
        }
        let two = format!(
            "[defaults]\nvia='direct'\n[targets.a]\nhost='{HOST}'\n[targets.b]\nhost='{HOST}'\n"
        );
        let error = parse(&two, &["c"], &no_flags).unwrap_err().to_string();
        assert!(
            error.contains("no target \"c\"") && error.contains("a, b"),
            "{error}"
        );
        let flags = Layer {
            port: Some(1),
            ..Layer::default()
        };
        assert!(
            parse(&two, &[], &flags)
                .unwrap_err()
                .to_string()
                .contains("--port describes one database")
        );
        assert_eq!(parse(&two, &["b"], &flags).unwrap().len(), 1);
    }

    #[test]
    fn unknown_keys_are_refused() {
        let error = toml::from_str::<File>("[targets.a]\nhots='x'\n")
            .unwrap_err()
            .to_string();
        assert!(error.contains("unknown field `hots`"), "{error}");
    }

    #[test]
    fn regions_of_endpoint_names() {
        let region = |host: &str| {
            host.parse::<Endpoint>()
                .unwrap()
                .region()
                .map(str::to_owned)
        };
        assert_eq!(
            region("db.abc.us-gov-west-1.rds.amazonaws.com").as_deref(),
            Some("us-gov-west-1")
        );
        assert_eq!(
            region("p.proxy-abc.cn-north-1.rds.amazonaws.com.cn").as_deref(),
            Some("cn-north-1")
        );
        assert_eq!(region("db.example.com"), None);
    }
}
