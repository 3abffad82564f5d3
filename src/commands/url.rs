//! `pgiam url`: what to give to a client program.

use anyhow::{Context, bail};
use serde::Serialize;

use crate::cli::{UrlArgs, UrlForm};
use crate::config::{File, Layer, Plan};
use crate::quote::{dotnet, dsn, percent, shell};
use crate::terminal;

/// Prints it.
///
/// # Errors
/// When the configuration cannot be meant, or says too little for an address.
pub async fn url(args: &UrlArgs) -> anyhow::Result<()> {
    let address = address(args)?;
    let text = match args.output.json {
        true => serde_json::to_string_pretty(&address.all()).context("cannot write JSON")?,
        false => address.written(args.format),
    };
    terminal::write(format_args!("{text}\n")).context("cannot write to standard output")
}

/// Where a client connects, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    host: &'static str,
    port: u16,
    user: String,
    database: Option<String>,
}

/// Every form at once.
#[derive(Serialize)]
struct All {
    host: &'static str,
    port: u16,
    user: String,
    database: Option<String>,
    uri: String,
    jdbc: String,
    dotnet: String,
    dsn: String,
    env: String,
}

fn address(args: &UrlArgs) -> anyhow::Result<Address> {
    let (file, looked_at) = File::load(args.program.config.as_deref())?;
    let mut flags = args.what.database.layer();
    flags.port = args.port;
    let plan = file
        .clone()
        .plan(args.what.target.as_deref(), &flags, &looked_at)?;
    let port = plan.local_port;
    if port == 0 {
        bail!(
            "target \"{}\" takes whatever port is free (port = 0), another one at each start; pgiam status shows it, and --port PORT puts it in",
            plan.name
        );
    }
    let user = super::role(&plan)?;
    let database = match picked_by_name(&file, &plan, &flags) {
        true => Some(by_name(&plan)),
        false => plan.database.clone(),
    };
    Ok(Address {
        host: "localhost",
        port,
        user,
        database,
    })
}

/// Whether the database name picks the target on its port, as [`route`](crate::route) has it: several
/// targets share the port, or it is the hub's.
fn picked_by_name(file: &File, plan: &Plan, flags: &Layer) -> bool {
    let described = flags.host.is_some() || flags.db.is_some();
    if described && !file.targets.contains_key(&plan.name) {
        return false; // Served by itself: see `File::plan`.
    }
    let shares = |(name, layer): (&String, &Layer)| {
        let own = layer.port.or(file.defaults.port);
        *name != plan.name && own.unwrap_or(crate::config::DEFAULT_LOCAL_PORT) == plan.local_port
    };
    file.serve.hub_port == Some(plan.local_port) || file.targets.iter().any(shares)
}

/// `TARGET`, or `TARGET/DATABASE`.
fn by_name(plan: &Plan) -> String {
    match &plan.database {
        Some(database) => format!("{}/{database}", plan.name),
        None => plan.name.clone(),
    }
}

impl Address {
    fn written(&self, form: UrlForm) -> String {
        match form {
            UrlForm::Uri => self.uri(),
            UrlForm::Jdbc => self.jdbc(),
            UrlForm::Dotnet => self.dotnet(),
            UrlForm::Dsn => self.dsn(),
            UrlForm::Env => self.env(),
        }
    }

    /// The way from a client to pgiam stays on this machine, and pgiam makes TLS to the database: so
    /// every form says that there is none on the way.
    fn uri(&self) -> String {
        let Self { host, port, .. } = self;
        let (user, database) = (percent(&self.user), self.database.as_deref());
        let database = percent(database.unwrap_or_default());
        format!("postgresql://{user}@{host}:{port}/{database}?sslmode=disable")
    }

    fn jdbc(&self) -> String {
        let Self { host, port, .. } = self;
        let (user, database) = (percent(&self.user), self.database.as_deref());
        let database = percent(database.unwrap_or_default());
        format!("jdbc:postgresql://{host}:{port}/{database}?user={user}&sslmode=disable")
    }

    fn dotnet(&self) -> String {
        let Self { host, port, .. } = self;
        let database = self.database.as_deref().map(dotnet);
        let database = database.map(|name| format!("Database={name};"));
        format!(
            "Host={host};Port={port};Username={};{}SSL Mode=Disable",
            dotnet(&self.user),
            database.unwrap_or_default()
        )
    }

    fn dsn(&self) -> String {
        let Self { host, port, .. } = self;
        let database = self.database.as_deref().map(dsn);
        let database = database.map(|name| format!(" dbname={name}"));
        format!(
            "host={host} port={port} user={}{} sslmode=disable",
            dsn(&self.user),
            database.unwrap_or_default()
        )
    }

    fn env(&self) -> String {
        let mut lines = vec![
            format!("export PGHOST={}", self.host),
            format!("export PGPORT={}", self.port),
            format!("export PGUSER={}", shell(&self.user)),
        ];
        lines.push(match &self.database {
            Some(database) => format!("export PGDATABASE={}", shell(database)),
            // One that is set already would be another target's.
            None => "unset PGDATABASE".to_owned(),
        });
        lines.push("export PGSSLMODE=disable".to_owned());
        lines.push(format!("export DATABASE_URL={}", shell(&self.uri())));
        lines.join("\n")
    }

    fn all(self) -> All {
        All {
            uri: self.uri(),
            jdbc: self.jdbc(),
            dotnet: self.dotnet(),
            dsn: self.dsn(),
            env: self.env(),
            host: self.host,
            port: self.port,
            user: self.user,
            database: self.database,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(user: &str, database: Option<&str>) -> String {
        let address = Address {
            host: "localhost",
            port: 5433,
            user: user.to_owned(),
            database: database.map(str::to_owned),
        };
        let all = address.all();
        [all.uri, all.jdbc, all.dotnet, all.dsn, all.env].join("\n")
    }

    #[test]
    fn url_forms() {
        insta::assert_snapshot!(
            [
                written("db_user", Some("app")),
                written("db_user", None),
                written("ana@example.com", Some("orders/app")),
                written("we\"ird Na'me;$x+%", Some("a b\\c&d=e?#f")),
            ]
            .join("\n\n")
        );
    }

    #[test]
    fn url_of_targets_that_share_a_port() {
        let text = "[serve]\nhub_port = 6000\n[defaults]\nuser = 'db_user'\ndatabase = 'app'\n\
             [targets.one]\nhost = 'one.abc.eu-central-1.rds.amazonaws.com'\n\
             [targets.two]\nhost = 'two.abc.eu-central-1.rds.amazonaws.com'\n\
             [targets.alone]\nhost = 'three.abc.eu-central-1.rds.amazonaws.com'\nport = 5434";
        let file: File = toml::from_str(text).unwrap();
        let database = |name: &str, port: Option<u16>| {
            let flags = Layer {
                port,
                ..Layer::default()
            };
            let plan = file.clone().plan(Some(name), &flags, "").unwrap();
            picked_by_name(&file, &plan, &flags).then(|| by_name(&plan))
        };
        assert_eq!(database("one", None).as_deref(), Some("one/app"));
        assert_eq!(database("two", None).as_deref(), Some("two/app"));
        assert_eq!(database("alone", None), None);
        assert_eq!(database("alone", Some(6000)).as_deref(), Some("alone/app"));
        assert_eq!(database("one", Some(7000)), None);
    }
}
