//! Startup parameters → target and rewritten startup. Pure.
//!
//! A listener with one target always routes to it. If targets share a local port, the database name
//! selects one: `TARGET` or `TARGET/DATABASE`. The same applies to all targets on the hub's port.

use crate::failure::RouteError;
use crate::failure::route::KnownTarget;
use std::sync::Arc;

use bytes::Bytes;
use pg_handshake::Startup;

use crate::base::foreign_text::ForeignText;
use crate::config::{Auth, EndpointKind, ResolvedTarget};
use crate::postgres::target::{PgPortTargets, PgTarget};

/// The targets of a listener.
#[derive(Clone, Copy, Debug)]
pub struct OfferedTargets<'a> {
    /// The targets, at least one.
    pub targets: &'a [Arc<ResolvedTarget>],
    /// True if the database name selects the target even when there is only one.
    pub by_name: bool,
}

/// Result of routing: the target and the StartupMessage to send there.
#[derive(Debug)]
pub struct RoutedStartup {
    /// The chosen target.
    pub target: Arc<ResolvedTarget>,
    /// The client's parameters after substitution; all others are unchanged.
    pub startup: Startup,
    /// The effective database role, which the token is signed for.
    pub user: String,
    /// The effective database, for logs and messages; `None` if the server's default applies.
    pub database: Option<String>,
    /// NegotiateProtocolVersion for a client whose protocol version the server would refuse.
    pub negotiated: Option<Bytes>,
    /// Parameters that were removed as configured in the target.
    pub ignored: Vec<String>,
    /// The database to try if the requested one does not exist.
    pub fallback: Option<DatabaseFallback>,
}

/// The target's default database, for a client that named a role but no database, or one named
/// after the role. libpq sends the role's name as the database if none is given, so the two cases
/// look the same. PostgreSQL decides: the default applies if the database does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseFallback {
    /// The database to try first, which is named after the role.
    pub named: String,
    /// The target's default database.
    pub default: String,
    /// Database name that the client sent; `None` if it sent none.
    sent: Option<Vec<u8>>,
    /// True while the startup packet names the default.
    used: bool,
}

/// Returns the target of the port that the client requests, if it exists.
pub(crate) fn requested<'a>(
    port_targets: &'a PgPortTargets,
    startup: &Startup,
) -> Option<&'a Arc<PgTarget>> {
    if !port_targets.picks_by_name() {
        return port_targets.targets.first();
    }
    let (name, _) = split_name(startup.get("database").unwrap_or_default());
    port_targets.named(name)
}

/// Returns the target of the port that the client requests.
///
/// # Errors
/// [`RouteError::UnknownTarget`], [`RouteError::Stopped`].
pub(crate) fn choose<'a>(
    port_targets: &'a PgPortTargets,
    startup: &Startup,
) -> Result<&'a Arc<PgTarget>, RouteError> {
    requested(port_targets, startup).ok_or_else(|| {
        let (name, _) = split_name(startup.get("database").unwrap_or_default());
        match port_targets.stopped(name).cloned() {
            Some(target) => RouteError::Stopped { target },
            None => unknown(port_targets.known(), startup),
        }
    })
}

/// Selects the target among those of one listener and applies the substitution rules.
///
/// - `user` of the target replaces the client's if that is `os_user` (libpq's default) or missing.
/// - `database` replaces the client's at once only if neither was chosen: the user is `os_user` or
///   missing, and the database is missing or has the same name.
/// - If the client chose a role, and no database or one named after the role, its request is tried
///   first; the target's `database` becomes [`RoutedStartup::fallback`]. This does not apply to
///   `auth = "passthrough"`: the client's own login cannot be repeated at another database.
/// - If the database name selects the target, the client chose only the part after the slash.
///
/// # Errors
/// [`RouteError`].
pub fn route(
    offer: OfferedTargets<'_>,
    mut startup: Startup,
    os_user: Option<&str>,
) -> Result<RoutedStartup, RouteError> {
    let client_user = given(&startup, "user");
    let named = given(&startup, "database");
    let by_name = offer.by_name || offer.targets.len() > 1;
    let user_chosen = client_user.is_some() && client_user.as_deref() != os_user.map(str::as_bytes);
    let like_the_user = named.is_none() || named == client_user;
    let (target, asked) = if by_name {
        let (name, database) = split_name(named.as_deref().unwrap_or_default());
        let target = find(offer.targets, name).ok_or_else(|| none(offer.targets, &startup))?;
        let database = database.map(<[u8]>::to_vec);
        (
            target,
            database.map_or(RequestedDatabase::Nothing, RequestedDatabase::Exactly),
        )
    } else {
        let only = offer.targets.first().ok_or_else(|| none(&[], &startup))?;
        let asked = match (&named, like_the_user) {
            (Some(database), false) => RequestedDatabase::Exactly(database.clone()),
            (_, true) if user_chosen => RequestedDatabase::LikeTheUser,
            _ => RequestedDatabase::Nothing,
        };
        (only, asked)
    };
    let target = Arc::clone(target);

    let is_iam = target.settings.login.auth == Auth::Iam;
    if is_iam && text(&startup, "replication").is_some_and(|value| !is_off(&value)) {
        let target = target.name.clone();
        return Err(RouteError::Replication { target });
    }
    let user = set_user(&mut startup, client_user.as_deref(), &target, os_user)?;
    let default = target.settings.database.as_deref();
    let database = match (asked, default) {
        (RequestedDatabase::Exactly(database), _) => {
            if by_name {
                startup.set("database", &database)?;
            }
            Some(String::from_utf8_lossy(&database).into_owned())
        }
        (RequestedDatabase::LikeTheUser, _) => {
            named.map(|database| String::from_utf8_lossy(&database).into_owned())
        }
        (RequestedDatabase::Nothing, Some(default)) => {
            startup.set("database", default.as_bytes())?;
            Some(default.to_owned())
        }
        // The client's database was its own default, and is wrong for another user. Without the
        // parameter the server uses the (new) user name, as libpq would have.
        (RequestedDatabase::Nothing, None) => {
            startup.remove("database");
            None
        }
    };
    let may_fall_back = is_iam && user_chosen && like_the_user && !by_name;
    let fallback = default.filter(|default| may_fall_back && *default != user);
    let fallback = fallback.map(|default| DatabaseFallback {
        named: user.clone(),
        default: default.to_owned(),
        sent: startup.get("database").map(<[u8]>::to_vec),
        used: false,
    });
    let ignored = target.settings.login.ignore_startup_parameters.iter();
    let ignored = ignored
        .filter(|name| startup.remove(name))
        .cloned()
        .collect();
    Ok(RoutedStartup {
        target,
        startup,
        user,
        database,
        negotiated: None,
        ignored,
        fallback,
    })
}

/// Database that a client requested.
enum RequestedDatabase {
    /// No database, or libpq's default for a user that the client has not chosen either.
    Nothing,
    /// No database, or the name of the role that the client chose.
    LikeTheUser,
    /// This database.
    Exactly(Vec<u8>),
}

impl RoutedStartup {
    /// Replaces the named database by the target's default. Returns whether there is a default that
    /// was not in use already.
    pub fn use_default(&mut self) -> bool {
        let Some(fallback) = self.fallback.as_mut().filter(|fallback| !fallback.used) else {
            return false;
        };
        let default = fallback.default.as_bytes();
        fallback.used = self.startup.set("database", default).is_ok();
        if fallback.used {
            self.database = Some(fallback.default.clone());
        }
        fallback.used
    }

    /// Restores the database that the client named.
    pub fn use_named(&mut self) {
        let Some(fallback) = self.fallback.as_mut().filter(|fallback| fallback.used) else {
            return;
        };
        fallback.used = false;
        self.database = fallback.sent.as_ref().map(|_| fallback.named.clone());
        let restored = match &fallback.sent {
            Some(sent) => self.startup.set("database", sent).is_ok(),
            None => self.startup.remove("database"),
        };
        debug_assert!(restored, "it was in the packet before");
    }

    /// Returns the fallback while its default is in use.
    #[must_use]
    pub fn replaced(&self) -> Option<&DatabaseFallback> {
        self.fallback.as_ref().filter(|fallback| fallback.used)
    }

    /// Returns the database to display: the requested one, or the one that the server uses by
    /// default.
    #[must_use]
    pub fn shown_database(&self) -> &str {
        let named = self.fallback.as_ref().map(|fallback| &*fallback.named);
        self.database.as_deref().or(named).unwrap_or_default()
    }

    /// Removes what an endpoint of this `kind` does not support.
    pub fn adapt_to(&mut self, kind: EndpointKind) {
        // "RDS Proxy supports only version 3.0" (RDS User Guide): it refuses newer versions.
        if kind == EndpointKind::Proxy {
            self.negotiated = self.startup.downgrade();
        }
    }
}

/// Replaces a user that the client has not chosen by the target's; returns the effective user.
fn set_user(
    startup: &mut Startup,
    client_user: Option<&[u8]>,
    target: &ResolvedTarget,
    os_user: Option<&str>,
) -> Result<String, RouteError> {
    let replace = match client_user {
        None => true,
        Some(user) => os_user.map(str::as_bytes) == Some(user) && target.settings.user.is_some(),
    };
    if replace {
        let Some(user) = &target.settings.user else {
            return Err(RouteError::NoUser {
                target: target.name.clone(),
            });
        };
        startup.set("user", user.as_bytes())?;
    }
    let user = startup.get("user").unwrap_or_default();
    match (std::str::from_utf8(user), target.settings.login.auth) {
        (Ok(user), _) => Ok(user.to_owned()),
        // No token is signed for it; the server knows its own encoding.
        (Err(_), Auth::Passthrough) => Ok(String::from_utf8_lossy(user).into_owned()),
        (Err(_), Auth::Iam) => Err(RouteError::UserNotUtf8),
    }
}

/// Splits `TARGET/DATABASE` into its two parts; the second may be missing or empty. Works on bytes,
/// because the encoding is the server's.
fn split_name(asked: &[u8]) -> (&[u8], Option<&[u8]>) {
    match asked.iter().position(|byte| *byte == b'/') {
        Some(at) => (
            &asked[..at],
            Some(&asked[at + 1..]).filter(|database| !database.is_empty()),
        ),
        None => (asked, None),
    }
}

fn find<'a>(targets: &'a [Arc<ResolvedTarget>], name: &[u8]) -> Option<&'a Arc<ResolvedTarget>> {
    targets.iter().find(|target| target.name.as_bytes() == name)
}

fn none(targets: &[Arc<ResolvedTarget>], startup: &Startup) -> RouteError {
    let known = targets.iter().map(|target| KnownTarget {
        name: target.name.to_string(),
        endpoint: target.endpoint.to_string(),
    });
    unknown(known.collect(), startup)
}

/// Creates the error for a name that matches no target. The name in it is empty if the client sent
/// libpq's default, which can match a target only by accident.
///
/// `known` contains the valid names and the endpoints of their targets.
fn unknown(known: Vec<KnownTarget>, startup: &Startup) -> RouteError {
    let named =
        given(startup, "database").filter(|named| Some(named) != given(startup, "user").as_ref());
    let named = named.unwrap_or_default();
    let (asked, _) = split_name(&named);
    RouteError::UnknownTarget {
        asked: ForeignText::of_bytes(asked),
        known,
    }
}

/// Returns whether PostgreSQL parses `value` as false (`parse_bool`: any unique prefix of a word).
fn is_off(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    let prefix_of = |word: &str, least| value.len() >= least && word.starts_with(&value);
    value == "0" || prefix_of("false", 1) || prefix_of("no", 1) || prefix_of("off", 2)
}

/// Returns a parameter that is present and not empty.
fn given(startup: &Startup, name: &str) -> Option<Vec<u8>> {
    startup
        .get(name)
        .filter(|value| !value.is_empty())
        .map(<[u8]>::to_vec)
}

/// Returns a parameter as text. Invalid UTF-8 is shown lossily here and refused where it matters.
fn text(startup: &Startup, name: &str) -> Option<String> {
    startup
        .get(name)
        .map(|value| String::from_utf8_lossy(value).into_owned())
}

#[cfg(test)]
mod tests {
    use pg_handshake::ProtocolVersion;

    use super::*;
    use crate::config::{ConfigFile, TargetLayer};

    fn targets(names: &[&str]) -> Vec<Arc<ResolvedTarget>> {
        let mut text = String::from("[defaults]\nvia='direct'\nuser='db_user'\ndatabase='app'\n");
        for name in names {
            text +=
                &format!("[targets.{name}]\nhost='{name}.abc.eu-central-1.rds.amazonaws.com'\n");
        }
        let file: ConfigFile = toml::from_str(&text).unwrap();
        file.resolved_targets(&[], &TargetLayer::default())
            .unwrap()
            .into_iter()
            .map(Arc::new)
            .collect()
    }

    fn without_defaults(name: &str) -> Vec<Arc<ResolvedTarget>> {
        let mut target = ResolvedTarget::clone(&targets(&[name])[0]);
        (target.settings.user, target.settings.database) = (None, None);
        vec![Arc::new(target)]
    }

    fn on(targets: &[Arc<ResolvedTarget>], startup: Startup) -> Result<RoutedStartup, RouteError> {
        let by_name = false;
        route(OfferedTargets { targets, by_name }, startup, Some("ana"))
    }

    fn on_hub(
        targets: &[Arc<ResolvedTarget>],
        startup: Startup,
    ) -> Result<RoutedStartup, RouteError> {
        let by_name = true;
        route(OfferedTargets { targets, by_name }, startup, Some("ana"))
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

    fn sent(routed: &RoutedStartup, name: &str) -> Option<String> {
        text(&routed.startup, name)
    }

    #[test]
    fn defaults_of_libpq_are_replaced() {
        let libpq = startup(&[
            ("user", "ana"),
            ("database", "ana"),
            ("application_name", "psql"),
        ]);
        let routed = on(&targets(&["orders"]), libpq).unwrap();
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
        let routed = on(&targets(&["orders"]), chosen).unwrap();
        assert_eq!(sent(&routed, "user").as_deref(), Some("reports"));
        assert_eq!(sent(&routed, "database").as_deref(), Some("sales"));
    }

    #[test]
    fn without_configured_defaults_nothing_is_invented() {
        let own = startup(&[("user", "ana"), ("database", "ana")]);
        let routed = on(&without_defaults("orders"), own).unwrap();
        assert_eq!(
            (routed.user.as_str(), sent(&routed, "database")),
            ("ana", None)
        );
        let error = on(&without_defaults("orders"), startup(&[])).unwrap_err();
        assert_eq!(
            error,
            RouteError::NoUser {
                target: "orders".into()
            }
        );
    }

    /// Returns the requested database and its fallback; `None` is the server's default.
    fn asks(
        target: &[Arc<ResolvedTarget>],
        params: &[(&str, &str)],
    ) -> (Option<String>, Option<String>) {
        let mut routed = on(target, startup(params)).unwrap();
        let first = sent(&routed, "database");
        let second = routed.use_default().then(|| sent(&routed, "database"));
        assert!(!routed.use_default(), "once is enough");
        routed.use_named();
        assert_eq!(sent(&routed, "database"), first, "and back again");
        (first, second.flatten())
    }

    #[test]
    fn only_what_was_not_chosen_is_replaced() {
        let orders = targets(&["orders"]);
        let mut own = ResolvedTarget::clone(&orders[0]);
        own.settings.login.auth = Auth::Passthrough;
        let passthrough = [Arc::new(own)];
        let mut same = ResolvedTarget::clone(&orders[0]);
        same.settings.database = Some("reports".into());
        let same = [Arc::new(same)];
        let bare = without_defaults("orders");
        type Case<'a> = (
            &'a [Arc<ResolvedTarget>],
            &'a [(&'a str, &'a str)],
            Option<&'a str>,
            Option<&'a str>,
        );
        let cases: &[Case<'_>] = &[
            // The client chose neither.
            (&orders, &[], Some("app"), None),
            (&orders, &[("user", "ana")], Some("app"), None),
            (
                &orders,
                &[("user", "ana"), ("database", "ana")],
                Some("app"),
                None,
            ),
            (
                &orders,
                &[("user", "ana"), ("database", "")],
                Some("app"),
                None,
            ),
            // The client chose the database.
            (
                &orders,
                &[("user", "ana"), ("database", "sales")],
                Some("sales"),
                None,
            ),
            (
                &orders,
                &[("user", "ana"), ("database", "db_user")],
                Some("db_user"),
                None,
            ),
            (&orders, &[("database", "ana")], Some("ana"), None),
            (
                &orders,
                &[("user", "reports"), ("database", "sales")],
                Some("sales"),
                None,
            ),
            // The client chose the role, and perhaps the database.
            (
                &orders,
                &[("user", "reports"), ("database", "reports")],
                Some("reports"),
                Some("app"),
            ),
            (&orders, &[("user", "reports")], None, Some("app")),
            (&orders, &[("user", "db_user")], None, Some("app")),
            (
                &orders,
                &[("user", "app"), ("database", "app")],
                Some("app"),
                None,
            ),
            (&same, &[("user", "reports")], None, None),
            // There is no default.
            (
                &bare,
                &[("user", "reports"), ("database", "reports")],
                Some("reports"),
                None,
            ),
            (&bare, &[("user", "reports")], None, None),
            // The client's own login cannot be repeated.
            (
                &passthrough,
                &[("user", "reports"), ("database", "reports")],
                Some("reports"),
                None,
            ),
            (&passthrough, &[("user", "reports")], None, None),
            (
                &passthrough,
                &[("user", "ana"), ("database", "ana")],
                Some("app"),
                None,
            ),
        ];
        for (target, params, first, second) in cases {
            let (is_first, is_second) = asks(target, params);
            let is = (is_first.as_deref(), is_second.as_deref());
            assert_eq!(is, (*first, *second), "{params:?}");
        }
    }

    #[test]
    fn the_database_behind_a_targets_name_was_chosen() {
        let both = targets(&["orders", "stock"]);
        let exactly = startup(&[("user", "reports"), ("database", "orders/reports")]);
        let routed = on(&both, exactly).unwrap();
        assert_eq!(routed.shown_database(), "reports");
        assert_eq!(routed.fallback, None);
        let nothing = startup(&[("user", "reports"), ("database", "orders")]);
        let routed = on(&both, nothing).unwrap();
        assert_eq!((routed.shown_database(), &routed.fallback), ("app", &None));
    }

    #[test]
    fn without_an_account_name_every_user_is_chosen() {
        let orders = targets(&["orders"]);
        let offer = OfferedTargets {
            targets: &orders,
            by_name: false,
        };
        let asked = startup(&[("user", "ana"), ("database", "ana")]);
        let routed = route(offer, asked, None).unwrap();
        assert_eq!(
            (routed.user.as_str(), routed.shown_database()),
            ("ana", "ana")
        );
        assert_eq!(routed.fallback.unwrap().default, "app");
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
            let answer = on(&targets(&["orders"]), asked);
            assert_eq!(
                matches!(answer, Err(RouteError::Replication { .. })),
                refused,
                "{value}"
            );
        }
    }

    #[test]
    fn a_shared_port_is_routed_by_database_name() {
        let both = targets(&["orders", "stock"]);
        let named = startup(&[("user", "ana"), ("database", "stock")]);
        let routed = on(&both, named).unwrap();
        assert_eq!(routed.target.name, "stock");
        assert_eq!(sent(&routed, "database").as_deref(), Some("app"));
        let with_database = startup(&[("user", "x"), ("database", "orders/sales")]);
        let routed = on(&both, with_database).unwrap();
        assert_eq!(routed.target.name, "orders");
        assert_eq!(sent(&routed, "database").as_deref(), Some("sales"));
        for (database, expected) in [("ana", ""), ("nosuch", "nosuch"), ("stocks/x", "stocks")] {
            let unknown = startup(&[("user", "ana"), ("database", database)]);
            let Err(RouteError::UnknownTarget { asked, known }) = on(&both, unknown) else {
                panic!("{database} was routed");
            };
            assert_eq!(asked, expected);
            let names: Vec<&str> = known.iter().map(|target| target.name.as_str()).collect();
            assert_eq!(names, ["orders", "stock"]);
            assert!(known[0].endpoint.starts_with("orders.abc."), "{known:?}");
        }
    }

    #[test]
    fn behind_the_targets_name_any_bytes_pass() {
        let both = targets(&["orders", "stock"]);
        let mut asked = startup(&[("user", "x")]);
        asked.set("database", b"orders/J\xfc/b").unwrap();
        let routed = on(&both, asked.clone()).unwrap();
        assert_eq!(routed.target.name, "orders");
        assert_eq!(routed.startup.get("database"), Some(&b"J\xfc/b"[..]));
        assert_eq!(routed.database.as_deref(), Some("J\u{fffd}/b"));
        // Names that are displayed alike are not equal.
        asked.set("user", b"J\xfc").unwrap();
        asked.set("database", b"J\xfd").unwrap();
        let Err(RouteError::UnknownTarget { asked, .. }) = on(&both, asked) else {
            panic!("it was routed");
        };
        assert_eq!(asked, "J\u{fffd}", "chosen, not libpq's default");
        let mut own = startup(&[("user", "x"), ("database", "orders/")]);
        let routed = on(&both, own.clone()).unwrap();
        assert_eq!(sent(&routed, "database").as_deref(), Some("app"));
        own.set("database", b"orders\xfc").unwrap();
        assert!(on(&both, own).is_err());
    }

    #[test]
    fn on_the_hub_even_a_single_target_wants_its_name() {
        let one = targets(&["orders"]);
        let none = startup(&[("user", "ana")]);
        let refused = on_hub(&one, none).unwrap_err();
        assert!(
            matches!(&refused, RouteError::UnknownTarget { asked, .. } if asked.is_empty()),
            "{refused:?}"
        );
        let other = startup(&[("user", "ana"), ("database", "sales")]);
        assert!(on_hub(&one, other).is_err());
        // libpq sends the user's name as database by default; a target may have that name.
        let same = startup(&[("user", "orders"), ("database", "orders")]);
        let routed = on_hub(&one, same).unwrap();
        assert_eq!(sent(&routed, "database").as_deref(), Some("app"));
        assert_eq!(routed.user, "orders");
    }

    #[test]
    fn passthrough_lets_replication_and_any_encoding_through() {
        let mut target = ResolvedTarget::clone(&targets(&["orders"])[0]);
        target.settings.login.auth = Auth::Passthrough;
        let target = [Arc::new(target)];
        let mut asked = startup(&[("replication", "database")]);
        asked.set("user", b"J\xfcrgen").unwrap();
        let routed = on(&target, asked.clone()).unwrap();
        assert_eq!(sent(&routed, "replication").as_deref(), Some("database"));
        assert_eq!(routed.startup.get("user"), Some(&b"J\xfcrgen"[..]));
        asked.remove("replication");
        let refused = on(&targets(&["orders"]), asked).unwrap_err();
        assert_eq!(refused, RouteError::UserNotUtf8);
    }

    #[test]
    fn ignored_parameters_are_left_out_and_named() {
        let mut target = ResolvedTarget::clone(&targets(&["orders"])[0]);
        target.settings.login.ignore_startup_parameters =
            vec!["extra_float_digits".into(), "search_path".into()];
        let asked = startup(&[("user", "x"), ("extra_float_digits", "3"), ("b", "c")]);
        let routed = on(&[Arc::new(target)], asked).unwrap();
        assert_eq!(routed.ignored, ["extra_float_digits"]);
        assert_eq!(sent(&routed, "extra_float_digits"), None);
        assert_eq!(sent(&routed, "b").as_deref(), Some("c"));
    }

    #[test]
    fn a_server_that_knows_only_the_first_version_is_asked_for_that() {
        let asked = || {
            let mut asked = Startup::new(ProtocolVersion::V3_2);
            asked.set("user", b"x").unwrap();
            asked.set("_pq_.something", b"on").unwrap();
            asked
        };
        let mut plain = on(&targets(&["orders"]), asked()).unwrap();
        plain.adapt_to(EndpointKind::Instance);
        assert_eq!(plain.startup.version(), ProtocolVersion::V3_2);
        assert_eq!(sent(&plain, "_pq_.something").as_deref(), Some("on"));
        assert_eq!(plain.negotiated, None);
        let mut routed = on(&targets(&["orders"]), asked()).unwrap();
        routed.adapt_to(EndpointKind::Proxy);
        assert_eq!(routed.startup.version(), ProtocolVersion::V3_0);
        assert_eq!(sent(&routed, "_pq_.something"), None);
        let told = routed.negotiated.unwrap();
        assert_eq!(told[0], b'v');
    }
}
