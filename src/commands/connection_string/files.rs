//! Forms for files of other programs, and for ODBC. Unlike a URL, none of them can express every
//! name.

use anyhow::bail;

use super::ConnectionString;
use crate::base::quote::{dotenv, odbc, pgpass, printable};

/// Name of this machine in a container (Docker docs, "Networking": Docker Desktop defines it, and
/// `--add-host=host.docker.internal:host-gateway` on Linux).
const HOST_OF_CONTAINERS: &str = "host.docker.internal";
/// Value of a field that libpq does not compare.
const ANY: &str = "*";
/// Password for clients that insist on one, when pgiam requires none.
pub(in crate::commands) const UNUSED_PASSWORD: &str = "unused";

impl ConnectionString {
    /// Returns a connection string of ODBC, for the driver of the PostgreSQL project.
    ///
    /// # Errors
    /// A name has a control character.
    pub(in crate::commands) fn odbc(&self) -> anyhow::Result<String> {
        self.check("an ODBC connection string", "control characters", |value| {
            !value.contains(char::is_control)
        })?;
        let Self { host, port, .. } = self;
        let user = self.user.as_deref();
        // The driver requires a database; this is libpq's default.
        let names = odbc(user, self.database.as_deref().or(user));
        Ok(format!(
            "Driver={{PostgreSQL Unicode}};Server={host};Port={port};{names}SSLmode=disable;"
        ))
    }

    /// Returns the variables as lines of a `.env` file.
    ///
    /// # Errors
    /// The readers of such files disagree about a name.
    pub(in crate::commands) fn dotenv(&self) -> anyhow::Result<String> {
        self.check(
            "a .env file",
            "characters that programs read differently there",
            |value| dotenv(value).is_some(),
        )?;
        let variables = self.variables().into_iter();
        let lines = variables.filter_map(|(name, value)| {
            let value = dotenv(&value)?;
            Some(format!("{name}={value}"))
        });
        Ok(lines.collect::<Vec<_>>().join("\n"))
    }

    /// Returns the section `name` of a connection service file.
    ///
    /// # Errors
    /// libpq would not read a name as it is: it ends a value with the line, and removes spaces there.
    pub(in crate::commands) fn service(&self, name: &str) -> anyhow::Result<String> {
        self.check(
            "a pg_service.conf",
            "control characters or a space at its end",
            |value| {
                let ends_with_space = value.ends_with(|c: char| c.is_ascii_whitespace());
                !value.contains(char::is_control) && !ends_with_space
            },
        )?;
        let mut lines = vec![
            format!("[{name}]"),
            format!("host={}", self.host),
            format!("port={}", self.port),
        ];
        for (key, value) in [("user", &self.user), ("dbname", &self.database)] {
            lines.extend(value.iter().map(|value| format!("{key}={value}")));
        }
        lines.push("sslmode=disable".to_owned());
        Ok(lines.join("\n"))
    }

    /// Returns a line of a password file.
    ///
    /// # Errors
    /// A name has a control character.
    pub(in crate::commands) fn pgpass(&self, password: &str) -> anyhow::Result<String> {
        self.check("a .pgpass file", "control characters", |value| {
            !value.contains(char::is_control)
        })?;
        let port = self.port.to_string();
        let field = |value: &Option<String>| value.as_deref().map_or(ANY.to_owned(), pgpass);
        let fields = [
            pgpass(&self.host),
            port,
            field(&self.database),
            field(&self.user),
            pgpass(password),
        ];
        Ok(fields.join(":"))
    }

    /// Returns the URL for a client in a container on this machine.
    pub(in crate::commands) fn docker(&self) -> String {
        let inside = Self {
            host: HOST_OF_CONTAINERS.to_owned(),
            ..self.clone()
        };
        inside.uri()
    }

    /// Fails if `is_written` refuses the role or the database.
    fn check(
        &self,
        form: &str,
        reason: &str,
        is_written: impl Fn(&str) -> bool,
    ) -> anyhow::Result<()> {
        for (what, value) in [("role", &self.user), ("database", &self.database)] {
            if let Some(value) = value.as_deref().filter(|value| !is_written(value)) {
                bail!(
                    "{form} cannot express the {what} \"{}\": it has {reason}\nhint: a URL can express every name:\n  pgiam url --format uri",
                    printable(value)
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(user: &str, database: &str) -> ConnectionString {
        ConnectionString {
            host: "localhost".to_owned(),
            port: 5433,
            user: Some(user.to_owned()),
            database: Some(database.to_owned()),
        }
    }

    #[test]
    fn forms_of_files() {
        let all = |address: &ConnectionString| {
            [
                address.odbc().unwrap(),
                address.dotenv().unwrap(),
                address.service("orders").unwrap(),
                address.pgpass("pass:word").unwrap(),
                address.docker(),
            ]
            .join("\n\n")
        };
        let nameless = ConnectionString {
            user: None,
            database: None,
            ..named("", "")
        };
        insta::assert_snapshot!(
            [
                all(&named("db_user", "app")),
                all(&named("ana:b\\c{d};", " it's #1")),
                all(&nameless),
            ]
            .join("\n\n---\n\n")
        );
    }

    #[test]
    fn a_name_that_a_form_cannot_express_is_an_error() {
        let hostile = named("db_user", "a\nhost=evil");
        for (form, failed) in [
            ("ODBC", hostile.odbc()),
            (".env", hostile.dotenv()),
            ("pg_service.conf", hostile.service("orders")),
            (".pgpass", hostile.pgpass("x")),
            (".env", named("${HOME}", "app").dotenv()),
            ("pg_service.conf", named("db_user ", "app").service("x")),
        ] {
            let said = failed.unwrap_err().to_string();
            assert!(said.contains(form) && said.lines().count() == 3, "{said}");
        }
    }
}
