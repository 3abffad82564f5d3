//! `pgiam url`: connection strings for client programs.

use anyhow::{Context, bail};

use super::connection_string::{ConnectionString, client_host};
use crate::cli::terminal;
use crate::cli::{UrlArgs, UrlFormat};
use crate::config::{ConfigFile, ServeSettings, TargetConfig, TargetDefaults, TargetLayer};

/// Prints the connection string.
///
/// # Errors
/// Invalid configuration, or too little of it for an address.
pub async fn url(args: &UrlArgs) -> anyhow::Result<()> {
    let address = address(args)?;
    let text = match args.output.json {
        true => serde_json::to_string_pretty(&address.all()).context("cannot write JSON")?,
        false => written(&address, args.format),
    };
    terminal::write(format_args!("{text}\n")).context("cannot write to standard output")
}

fn address(args: &UrlArgs) -> anyhow::Result<ConnectionString> {
    let file = ConfigFile::load(args.program.config.as_deref())?;
    let mut flags = args.target.database.layer();
    flags.port = args.port;
    let config = file.clone().target(args.target.name.as_deref(), &flags)?;
    let port = config.settings.local_port;
    if port == 0 {
        bail!(
            "target \"{}\" uses a new free port at each start (port = 0)\nhint: set --port PORT to the port that pgiam status shows",
            config.name
        );
    }
    let user = super::role(&config)?;
    let database = match picked_by_name(&file, &config, &flags) {
        true => Some(by_name(&config)),
        false => config.settings.database.clone(),
    };
    let serve = ServeSettings::from_layer(file.serve.clone())?;
    Ok(ConnectionString {
        host: client_host(&serve.addresses),
        port,
        user: Some(user),
        database,
    })
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

fn written(address: &ConnectionString, form: UrlFormat) -> String {
    match form {
        UrlFormat::Uri => address.uri(),
        UrlFormat::Jdbc => address.jdbc(),
        UrlFormat::Dotnet => address.dotnet(),
        UrlFormat::Dsn => address.dsn(),
        UrlFormat::Env => address.env(),
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
