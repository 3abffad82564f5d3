//! Startup parameters → target and rewritten startup. Pure.
//!
//! A listener with one target always routes to it. Targets that share a local port are told apart
//! by the database name: `TARGET` or `TARGET/DATABASE`.

use std::sync::Arc;

use pg_handshake::{Startup, StartupError};
use thiserror::Error;

use crate::config::Target;

/// Where a connection goes, and the StartupMessage to send there.
#[derive(Debug)]
pub struct Routed {
    /// The chosen target.
    pub target: Arc<Target>,
    /// The client's parameters after substitution, everything else untouched.
    pub startup: Startup,
    /// The effective database role: the token is signed for it.
    pub user: String,
    /// The effective database, for logs and messages; `None` where the server's default applies.
    pub database: Option<String>,
}

/// Why a startup cannot be routed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RouteError {
    /// Several targets share this port and the database name picks none of them.
    #[error("no target \"{asked}\" on this port")]
    UnknownTarget {
        /// What the client asked for.
        asked: String,
        /// The names that would have worked.
        known: Vec<String>,
    },
    /// Neither the client nor the target names a user.
    #[error("no user name: the client sent none and target \"{target}\" has no user")]
    NoUser {
        /// The target.
        target: String,
    },
    /// The user name is not UTF-8, so no token can be signed for it.
    #[error("the user name is not valid UTF-8")]
    UserNotUtf8,
    /// A replication connection, which IAM login does not allow.
    #[error("replication connections cannot log in with IAM")]
    Replication,
    /// The rewritten startup packet would not be one any more.
    #[error("the configured user or database does not fit into the startup packet: {0}")]
    Startup(#[from] StartupError),
}

/// Chooses the target among those of one listener and applies the substitution rule: `user` of the
/// target replaces the client's when it sent `os_user` (libpq's default) or none; `database`
/// likewise when it sent none or just its user name.
///
/// # Errors
/// [`RouteError`].
pub fn route(
    targets: &[Arc<Target>],
    mut startup: Startup,
    os_user: Option<&str>,
) -> Result<Routed, RouteError> {
    if text(&startup, "replication").is_some_and(|value| !is_off(&value)) {
        return Err(RouteError::Replication);
    }
    let client_user = text(&startup, "user").filter(|user| !user.is_empty());
    let client_database = text(&startup, "database")
        .filter(|database| !database.is_empty() && Some(database) != client_user.as_ref());

    let (target, client_database) = pick(targets, client_database)?;

    let replace_user = match &client_user {
        None => true,
        Some(user) => os_user == Some(user.as_str()) && target.user.is_some(),
    };
    if replace_user {
        let Some(user) = &target.user else {
            return Err(RouteError::NoUser {
                target: target.name.clone(),
            });
        };
        startup.set("user", user.as_bytes())?;
    }
    let user = match startup.get("user").map(std::str::from_utf8) {
        Some(Ok(user)) => user.to_owned(),
        _ => return Err(RouteError::UserNotUtf8),
    };

    let untouched = client_database.is_some() && targets.len() == 1;
    let database = client_database.or_else(|| target.database.clone());
    match &database {
        Some(_) if untouched => {}
        Some(database) => startup.set("database", database.as_bytes())?,
        // The client's database was its own default; with another user it would name nothing.
        // Without the parameter the server uses the (new) user name, as libpq would have.
        None => _ = startup.remove("database"),
    }
    Ok(Routed {
        target,
        startup,
        user,
        database,
    })
}

fn pick(
    targets: &[Arc<Target>],
    database: Option<String>,
) -> Result<(Arc<Target>, Option<String>), RouteError> {
    if let [only] = targets {
        return Ok((Arc::clone(only), database));
    }
    let asked = database.unwrap_or_default();
    let (name, database) = match asked.split_once('/') {
        Some((name, database)) => (name, Some(database).filter(|database| !database.is_empty())),
        None => (asked.as_str(), None),
    };
    match targets.iter().find(|target| target.name == name) {
        Some(target) => Ok((Arc::clone(target), database.map(str::to_owned))),
        None => Err(RouteError::UnknownTarget {
            asked: name.to_owned(),
            known: targets.iter().map(|target| target.name.clone()).collect(),
        }),
    }
}

/// Whether PostgreSQL reads `value` as false (`parse_bool`: a unique prefix of a word will do).
fn is_off(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    let prefix_of = |word: &str, least| value.len() >= least && word.starts_with(&value);
    value == "0" || prefix_of("false", 1) || prefix_of("no", 1) || prefix_of("off", 2)
}

/// A parameter as text; what is not UTF-8 is shown lossily here and refused where it matters.
fn text(startup: &Startup, name: &str) -> Option<String> {
    startup
        .get(name)
        .map(|value| String::from_utf8_lossy(value).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{File, Layer};

    fn targets(names: &[&str]) -> Vec<Arc<Target>> {
        let mut text = String::from("[defaults]\nvia='direct'\nuser='db_user'\ndatabase='app'\n");
        for name in names {
            text +=
                &format!("[targets.{name}]\nhost='{name}.abc.eu-central-1.rds.amazonaws.com'\n");
        }
        let file: File = toml::from_str(&text).unwrap();
        file.targets(&[], &Layer::default(), "")
            .unwrap()
            .into_iter()
            .map(Arc::new)
            .collect()
    }

    fn without_defaults(name: &str) -> Vec<Arc<Target>> {
        let mut target = Target::clone(&targets(&[name])[0]);
        (target.user, target.database) = (None, None);
        vec![Arc::new(target)]
    }

    fn startup(params: &[(&str, &str)]) -> Startup {
        let mut packet = vec![0, 0, 0, 0, 0, 3, 0, 0];
        for (name, value) in params {
            packet.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
        }
        packet.push(0);
        let length = u32::try_from(packet.len()).unwrap();
        packet[..4].copy_from_slice(&length.to_be_bytes());
        Startup::parse(&packet).unwrap()
    }

    fn sent(routed: &Routed, name: &str) -> Option<String> {
        text(&routed.startup, name)
    }

    #[test]
    fn defaults_of_libpq_are_replaced() {
        let libpq = startup(&[
            ("user", "ana"),
            ("database", "ana"),
            ("application_name", "psql"),
        ]);
        let routed = route(&targets(&["orders"]), libpq, Some("ana")).unwrap();
        assert_eq!(sent(&routed, "user").as_deref(), Some("db_user"));
        assert_eq!(sent(&routed, "database").as_deref(), Some("app"));
        assert_eq!(sent(&routed, "application_name").as_deref(), Some("psql"));
        assert_eq!(
            (routed.user.as_str(), routed.database.as_deref()),
            ("db_user", Some("app"))
        );
    }

    #[test]
    fn what_the_client_chose_passes() {
        let chosen = startup(&[("user", "reports"), ("database", "sales")]);
        let routed = route(&targets(&["orders"]), chosen, Some("ana")).unwrap();
        assert_eq!(sent(&routed, "user").as_deref(), Some("reports"));
        assert_eq!(sent(&routed, "database").as_deref(), Some("sales"));
    }

    #[test]
    fn without_configured_defaults_nothing_is_invented() {
        let own = startup(&[("user", "ana"), ("database", "ana")]);
        let routed = route(&without_defaults("orders"), own, Some("ana")).unwrap();
        assert_eq!(
            (routed.user.as_str(), sent(&routed, "database")),
            ("ana", None)
        );
        let error = route(&without_defaults("orders"), startup(&[]), Some("ana")).unwrap_err();
        assert_eq!(
            error,
            RouteError::NoUser {
                target: "orders".into()
            }
        );
    }

    #[test]
    fn replication_is_refused_unless_it_is_off() {
        for (value, refused) in [
            ("true", true),
            ("database", true),
            ("1", true),
            ("off", false),
            ("F", false),
        ] {
            let asked = startup(&[("user", "ana"), ("replication", value)]);
            let answer = route(&targets(&["orders"]), asked, None);
            assert_eq!(
                matches!(answer, Err(RouteError::Replication)),
                refused,
                "{value}"
            );
        }
    }

    #[test]
    fn a_shared_port_is_routed_by_database_name() {
        let both = targets(&["orders", "stock"]);
        let routed = route(
            &both,
            startup(&[("user", "ana"), ("database", "stock")]),
            Some("ana"),
        )
        .unwrap();
        assert_eq!(
            (
                routed.target.name.as_str(),
                sent(&routed, "database").as_deref()
            ),
            ("stock", Some("app"))
        );
        let routed = route(
            &both,
            startup(&[("user", "x"), ("database", "orders/sales")]),
            Some("ana"),
        )
        .unwrap();
        assert_eq!(
            (
                routed.target.name.as_str(),
                sent(&routed, "database").as_deref()
            ),
            ("orders", Some("sales"))
        );
        for asked in ["ana", "nosuch"] {
            let error = route(
                &both,
                startup(&[("user", "ana"), ("database", asked)]),
                Some("ana"),
            )
            .unwrap_err();
            assert!(
                matches!(error, RouteError::UnknownTarget { known, .. } if known == ["orders", "stock"])
            );
        }
    }
}
