//! Connection strings and variables for client programs, in forms that their parsers read alike.
//!
//! `protocol-tests/judges/clients` feeds every form to the parsers and drivers of eight languages.
//! Rules that follow from their differences:
//!
//! - A URL has no parameters. SQLAlchemy passes those of libpq on to asyncpg and pg8000, and
//!   Tortoise to its driver, which refuse them; `?host=DIR` is ignored by drivers that then connect
//!   to localhost:5432.
//! - A URL always names a TCP host. An empty host with a user is an invalid URL for Node.js and
//!   Ruby.
//! - A URL path keeps the characters that RFC 3986 allows and shells do not interpret
//!   ([`quote::path`]): Node's drivers do not decode `%2F`.

mod files;

use std::net::IpAddr;

use serde::Serialize;

pub(super) use self::files::UNUSED_PASSWORD;
use crate::base::quote::{dotnet, dsn, path, percent, posix};
use crate::postgres::client::password_file;

/// libpq variables that would redirect a client, or make it require features that a local
/// connection lacks (PostgreSQL docs, "Environment Variables").
pub(super) const MISLEADING: [&str; 11] = [
    // For programs that serve, not for their clients.
    password_file::VARIABLE,
    "PGHOSTADDR",
    "PGSERVICE",
    "PGSSLROOTCERT",
    "PGSSLNEGOTIATION",
    "PGSSLCERTMODE",
    "PGREQUIRESSL",
    "PGREQUIREAUTH",
    "PGREQUIREPEER",
    "PGCHANNELBINDING",
    "PGGSSENCMODE",
];

/// Address and role of a client's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConnectionString {
    /// Name or address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// `None`: the client's own default.
    pub(super) user: Option<String>,
    /// `None`: the target's default.
    pub(super) database: Option<String>,
}

/// Every form at once; `None` for a form that cannot express a name.
#[derive(Serialize)]
pub(super) struct AllForms {
    host: String,
    port: u16,
    user: Option<String>,
    database: Option<String>,
    uri: String,
    jdbc: String,
    dotnet: String,
    dsn: String,
    env: String,
    odbc: Option<String>,
    dotenv: Option<String>,
    service: Option<String>,
    /// Also `None` if it would contain the local password.
    pgpass: Option<String>,
    docker: String,
}

/// Returns the host that local clients use for a server that listens on `addresses`.
pub(super) fn client_host(addresses: &[IpAddr]) -> String {
    let localhost = |address: &&IpAddr| {
        let address = address.to_canonical();
        address.is_unspecified() || matches!(address.to_string().as_str(), "127.0.0.1" | "::1")
    };
    match (addresses.iter().find(localhost), addresses.first()) {
        (None, Some(other)) => other.to_canonical().to_string(),
        _ => "localhost".to_owned(),
    }
}

impl ConnectionString {
    /// Returns `host:port` of a URL (RFC 3986, section 3.2.2: brackets around IPv6 addresses).
    fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        }
    }

    /// Returns a URL, for libpq, `DATABASE_URL` and most drivers.
    pub(super) fn uri(&self) -> String {
        let user = self.user.as_deref().map(percent);
        let user = user.map(|user| format!("{user}@")).unwrap_or_default();
        let database = path(self.database.as_deref().unwrap_or_default());
        format!("postgresql://{user}{}/{database}", self.authority())
    }

    /// Returns a URL of the JDBC driver. The driver refuses a second `/`, and decodes everything
    /// after the first.
    ///
    /// The connection to pgiam stays on this machine, and pgiam uses TLS to the database. So every
    /// form for a single driver disables TLS.
    pub(super) fn jdbc(&self) -> String {
        let database = percent(self.database.as_deref().unwrap_or_default());
        let user = self.user.as_deref().map(percent);
        let user = user.map(|user| format!("user={user}&")).unwrap_or_default();
        let authority = self.authority();
        format!("jdbc:postgresql://{authority}/{database}?{user}sslmode=disable")
    }

    /// Returns a connection string of .NET.
    pub(super) fn dotnet(&self) -> String {
        let Self { host, port, .. } = self;
        let part = |name: &str, value: &Option<String>| {
            let value = value.as_deref().map(dotnet);
            value
                .map(|value| format!("{name}={value};"))
                .unwrap_or_default()
        };
        let user = part("Username", &self.user);
        let database = part("Database", &self.database);
        format!("Host={host};Port={port};{user}{database}SSL Mode=Disable")
    }

    /// Returns keywords and values, for libpq and Go.
    pub(super) fn dsn(&self) -> String {
        let Self { host, port, .. } = self;
        let part = |name: &str, value: &Option<String>| {
            let value = value.as_deref().map(dsn);
            value
                .map(|value| format!(" {name}={value}"))
                .unwrap_or_default()
        };
        let user = part("user", &self.user);
        let database = part("dbname", &self.database);
        format!("host={host} port={port}{user}{database} sslmode=disable")
    }

    /// Returns commands for a POSIX shell. They unset variables that would redirect a client.
    pub(super) fn env(&self) -> String {
        let mut unset: Vec<&str> = MISLEADING[1..].to_vec();
        let mut lines = Vec::new();
        for (name, value) in self.variables() {
            lines.push(format!("export {name}={}", posix(&value)));
        }
        for (name, value) in [("PGUSER", &self.user), ("PGDATABASE", &self.database)] {
            if value.is_none() {
                unset.push(name);
            }
        }
        lines.push(format!("unset {}", unset.join(" ")));
        lines.join("\n")
    }

    /// Returns the same values as variables of libpq and most other drivers.
    pub(super) fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            ("PGHOST", self.host.clone()),
            ("PGPORT", self.port.to_string()),
        ];
        variables.extend(self.user.clone().map(|user| ("PGUSER", user)));
        let database = self.database.clone();
        variables.extend(database.map(|database| ("PGDATABASE", database)));
        variables.push(("PGSSLMODE", "disable".to_owned()));
        variables.push(("DATABASE_URL", self.uri()));
        variables
    }

    /// Returns all forms, for the target `name`. `is_open`: pgiam requires no password.
    pub(super) fn all(self, name: &str, is_open: bool) -> AllForms {
        let pgpass = is_open.then(|| self.pgpass(UNUSED_PASSWORD).ok());
        AllForms {
            odbc: self.odbc().ok(),
            dotenv: self.dotenv().ok(),
            service: self.service(name).ok(),
            pgpass: pgpass.flatten(),
            docker: self.docker(),
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

    fn at(host: &str, user: Option<&str>, database: Option<&str>) -> ConnectionString {
        ConnectionString {
            host: host.to_owned(),
            port: 5433,
            user: user.map(str::to_owned),
            database: database.map(str::to_owned),
        }
    }

    fn written(user: Option<&str>, database: Option<&str>) -> String {
        let all = at("localhost", user, database).all("orders", true);
        [all.uri, all.jdbc, all.dotnet, all.dsn, all.env].join("\n")
    }

    #[test]
    fn connection_string_forms() {
        insta::assert_snapshot!(
            [
                written(Some("db_user"), Some("app")),
                written(Some("db_user"), None),
                written(None, Some("app")),
                written(Some("ana@example.com"), Some("orders/app")),
                written(Some("we\"ird Na'me;$x+%"), Some("a b\\c&d=e?#f")),
            ]
            .join("\n\n")
        );
    }

    #[test]
    fn urls_have_no_parameters_and_name_a_host() {
        for database in [None, Some("app"), Some("orders/app"), Some("a?b&c=d")] {
            let uri = at("localhost", Some("a?b@c"), database).uri();
            assert!(!uri.contains('?'), "{uri}");
            assert!(uri.contains("@localhost:5433/"), "{uri}");
        }
    }

    #[test]
    fn ipv6_addresses_have_brackets_in_urls_only() {
        let all = at("2001:db8::7", Some("u"), Some("d")).all("orders", true);
        assert_eq!(all.uri, "postgresql://u@[2001:db8::7]:5433/d");
        assert!(
            all.jdbc
                .starts_with("jdbc:postgresql://[2001:db8::7]:5433/d?")
        );
        assert!(all.dsn.starts_with("host=2001:db8::7 port=5433 "));
        assert!(all.dotnet.starts_with("Host=2001:db8::7;Port=5433;"));
    }

    #[test]
    fn clients_are_sent_to_an_address_that_is_listened_on() {
        for (addresses, expected) in [
            (&["127.0.0.1", "::1"][..], "localhost"),
            (&["::1"], "localhost"),
            (&["192.0.2.7", "127.0.0.1"], "localhost"),
            (&["0.0.0.0"], "localhost"),
            (&["::"], "localhost"),
            (&["::ffff:127.0.0.1"], "localhost"),
            (&["127.0.0.2"], "127.0.0.2"),
            (&["192.0.2.7", "192.0.2.8"], "192.0.2.7"),
            (&["2001:db8::7"], "2001:db8::7"),
        ] {
            let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
            assert_eq!(client_host(&addresses), expected, "{addresses:?}");
        }
    }
}
