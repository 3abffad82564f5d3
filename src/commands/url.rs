//! `pgiam url`: connection strings for client programs.

use std::io::IsTerminal;

use anyhow::{Context, bail};
use serde_json::json;

use super::child::role_of_client;
use super::chosen::{ChosenTarget, ConfiguredTarget};
use super::connection_string::{ConnectionString, UNUSED_PASSWORD, client_host};
use super::serve::state_dir;
use crate::admin::running::RunningTarget;
use crate::base::environment;
use crate::base::quote::shell;
use crate::cli::terminal;
use crate::cli::{UrlArgs, UrlFormat};
use crate::config::{ConfigFile, ServeSettings, TargetConfig, TargetDefaults, TargetLayer};
use crate::postgres::client::password_file::{self, LocalPassword};

/// Prints the connection string.
///
/// # Errors
/// Invalid configuration, or too little of it for an address; a name that the format cannot
/// express.
pub async fn url(args: &UrlArgs) -> anyhow::Result<()> {
    let found = FoundAddress::of(args).await?;
    if args.output.json {
        return terminal::write(format_args!("{:#}\n", found.json()?))
            .context("cannot write to standard output");
    }
    let text = found.written(args.format)?;
    terminal::write(format_args!("{text}\n")).context("cannot write to standard output")?;
    if let (None, false) = (&found.running, args.port.is_some()) {
        let target = shell(&found.target);
        terminal::tell(format!(
            "note: no running pgiam serves {target}; start it:\n  pgiam serve {target}"
        ))?;
    }
    if let Some(note) = found.note(args.format) {
        terminal::tell(note)?;
    }
    Ok(())
}

/// The address of a target, and the password that clients need there.
struct FoundAddress {
    target: String,
    address: ConnectionString,
    password: Option<LocalPassword>,
    /// Other machines, and containers, can connect.
    is_exposed: bool,
    running: Option<RunningTarget>,
}

impl FoundAddress {
    async fn of(args: &UrlArgs) -> anyhow::Result<Self> {
        let state_dir = state_dir(args.state.state_dir.as_ref())?;
        let mut flags = args.target.database.layer();
        flags.port = args.port;
        let name = args.target.name.as_deref();
        match ChosenTarget::find(name, &flags, &args.program, state_dir.as_deref()).await? {
            ChosenTarget::Running(running) => Self::of_running(*running, flags),
            ChosenTarget::Configured(chosen) => {
                let running = match args.port {
                    Some(_) => None,
                    None => RunningTarget::find(&chosen.config, state_dir.as_deref()).await,
                };
                Self::of_configured(*chosen, &flags, running)
            }
        }
    }

    /// Returns the address of a target that only a running pgiam knows.
    fn of_running(running: RunningTarget, flags: TargetLayer) -> anyhow::Result<Self> {
        let target = &running.target;
        let user = flags.user.or(target.user.clone());
        let database = flags.database.or(target.database.clone());
        let serve = ServeSettings::from_layer(ConfigFile::default().serve)?;
        let mut found = Self {
            target: target.name.clone(),
            address: address_at(&running, role_of_client(user), database.as_deref()),
            password: password(&serve)?,
            is_exposed: is_exposed(&running),
            running: Some(running),
        };
        found.address.port = flags.port.unwrap_or(found.address.port);
        Ok(found)
    }

    /// Returns the address of a configured target.
    fn of_configured(
        chosen: ConfiguredTarget,
        flags: &TargetLayer,
        running: Option<RunningTarget>,
    ) -> anyhow::Result<Self> {
        let ConfiguredTarget { config, file } = chosen;
        let user = Some(super::role(&config)?);
        let database = config.settings.database.as_deref();
        let serve = ServeSettings::from_layer(file.serve.clone())?;
        let name = &config.name;
        let address = match (&running, config.settings.local_port) {
            (Some(running), _) => address_at(running, user, database),
            (None, 0) => bail!(
                "target \"{name}\" uses a new free port at each start (port = 0), and no running pgiam serves it\nhint: start it, then repeat this command:\n  pgiam serve {}",
                shell(name)
            ),
            (None, port) => ConnectionString {
                host: client_host(&serve.addresses),
                port,
                user,
                database: match picked_by_name(&file, &config, flags) {
                    true => Some(by_name(&config)),
                    false => database.map(str::to_owned),
                },
            },
        };
        let exposed = running.as_ref().map(is_exposed);
        Ok(Self {
            target: name.to_string(),
            address,
            password: password(&serve)?,
            is_exposed: exposed.unwrap_or(serve.exposed_address().is_some()),
            running,
        })
    }

    /// Returns all forms, and the running process.
    fn json(self) -> anyhow::Result<serde_json::Value> {
        let is_open = self.password.is_none();
        let all = self.address.all(&self.target, is_open);
        let mut document = serde_json::to_value(all).context("cannot write JSON")?;
        let running = self.running.as_ref();
        document["pid"] = json!(running.map(|running| running.process.pid));
        document["socket"] = json!(running.and_then(|running| running.target.socket.clone()));
        Ok(document)
    }

    fn written(&self, form: UrlFormat) -> anyhow::Result<String> {
        let Self {
            target,
            address,
            password,
            ..
        } = self;
        Ok(match form {
            UrlFormat::Uri => address.uri(),
            UrlFormat::Jdbc => address.jdbc(),
            UrlFormat::Dotnet => address.dotnet(),
            UrlFormat::Dsn => address.dsn(),
            UrlFormat::Odbc => address.odbc()?,
            UrlFormat::Env => address.env(),
            UrlFormat::Dotenv => address.dotenv()?,
            UrlFormat::Service => address.service(target)?,
            UrlFormat::Pgpass => match password {
                Some(_) if std::io::stdout().is_terminal() => bail!(
                    "the line contains the local password, which would stay on the screen\nhint: append it to the file:\n  pgiam url {} --format pgpass >> ~/.pgpass",
                    shell(target)
                ),
                Some(password) => address.pgpass(password.secret().expose())?,
                None => address.pgpass(UNUSED_PASSWORD)?,
            },
            UrlFormat::Docker => address.docker(),
        })
    }

    /// Returns the conditions for the use of a format, for standard error.
    fn note(&self, form: UrlFormat) -> Option<&'static str> {
        match form {
            UrlFormat::Pgpass if self.password.is_none() => Some(
                "note: pgiam requires no password; the last field is for clients that insist on one",
            ),
            UrlFormat::Docker if self.is_exposed => Some(
                "note: the container needs the local password, and on Linux this host name:\n  \
                 docker run --add-host host.docker.internal:host-gateway -e PGPASSWORD …",
            ),
            UrlFormat::Docker => Some(
                "note: pgiam listens on loopback addresses only, which a container does not reach.\n\
                 Add the address of Docker's bridge, and a password, to pgiam.toml, and restart pgiam:\n  \
                 [serve]\n  \
                 address = \"127.0.0.1, ::1, 172.17.0.1\"\n  \
                 password_file = \"~/.config/pgiam/password\"\n\
                 Start the container with the password and, on Linux, this host name:\n  \
                 docker run --add-host host.docker.internal:host-gateway -e PGPASSWORD …",
            ),
            _ => None,
        }
    }
}

/// Returns the address of a running target, for a role and a database of the target.
pub(super) fn address_at(
    running: &RunningTarget,
    user: Option<String>,
    database: Option<&str>,
) -> ConnectionString {
    ConnectionString {
        host: client_host(&running.addresses()),
        port: running.target.port,
        user,
        database: running.named(database),
    }
}

fn is_exposed(running: &RunningTarget) -> bool {
    let addresses = running.addresses();
    let mut addresses = addresses.iter();
    addresses.any(|address| !address.to_canonical().is_loopback())
}

/// Returns the password of the clients, if pgiam requires one.
fn password(serve: &ServeSettings) -> anyhow::Result<Option<LocalPassword>> {
    let variable = environment::read_secret(password_file::VARIABLE);
    Ok(password_file::load(
        serve.password_file.as_deref(),
        variable,
    )?)
}

/// Returns true if the database name selects the target on its port, by the rules of
/// [`route`](crate::postgres::route): several targets share the port, or it is the hub's.
fn picked_by_name(file: &ConfigFile, config: &TargetConfig, flags: &TargetLayer) -> bool {
    let described = flags.host.is_some() || flags.db.is_some();
    if described && !file.targets.contains_key(config.name.as_str()) {
        return false; // Served alone: see `ConfigFile::target`.
    }
    let shares = |(name, layer): (&String, &TargetLayer)| {
        let own = layer.port.or(file.defaults.port);
        config.name != *name && own.unwrap_or(TargetDefaults::port()) == config.settings.local_port
    };
    file.serve.hub_port == Some(config.settings.local_port) || file.targets.iter().any(shares)
}

/// Returns `TARGET`, or `TARGET/DATABASE`.
fn by_name(config: &TargetConfig) -> String {
    match &config.settings.database {
        Some(database) => format!("{}/{database}", config.name),
        None => config.name.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_of_targets_that_share_a_port() {
        let text = "[serve]\nhub_port = 6000\n[defaults]\nuser = 'db_user'\ndatabase = 'app'\n\
             [targets.one]\nhost = 'one.abc.eu-central-1.rds.amazonaws.com'\n\
             [targets.two]\nhost = 'two.abc.eu-central-1.rds.amazonaws.com'\n\
             [targets.alone]\nhost = 'three.abc.eu-central-1.rds.amazonaws.com'\nport = 5434";
        let file: ConfigFile = toml::from_str(text).unwrap();
        let database = |name: &str, port: Option<u16>| {
            let flags = TargetLayer {
                port,
                ..TargetLayer::default()
            };
            let config = file.clone().target(Some(name), &flags).unwrap();
            picked_by_name(&file, &config, &flags).then(|| by_name(&config))
        };
        assert_eq!(database("one", None).as_deref(), Some("one/app"));
        assert_eq!(database("two", None).as_deref(), Some("two/app"));
        assert_eq!(database("alone", None), None);
        assert_eq!(database("alone", Some(6000)).as_deref(), Some("alone/app"));
        assert_eq!(database("one", Some(7000)), None);
    }
}
