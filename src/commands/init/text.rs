//! The configuration file as text, with findings as comments.

use std::collections::HashSet;
use std::fmt::Write as _;

use crate::aws::discover::{Database, DatabaseKind, NodeRanking, RankedNode, Survey};
use crate::base::names::Region;
use crate::base::quote::printable;
use crate::config::{DEFAULT_UPSTREAM_PORT, Endpoint, TargetDefaults};

/// Most bastions listed as alternatives.
const MOST_OTHERS: usize = 4;

/// Settings common to all targets.
pub(super) struct CommonSettings<'a> {
    pub(super) region: &'a Region,
    pub(super) profile: Option<&'a str>,
    pub(super) user: Option<&'a str>,
}

/// Returns the whole file.
pub(super) fn file(head: &CommonSettings<'_>, survey: &Survey) -> String {
    let ranked: Vec<NodeRanking> = survey
        .databases
        .iter()
        .map(|one| survey.bastions(one.vpc.as_deref()))
        .collect();
    let mut all = ranked.iter().map(best);
    // Common to all targets: written once.
    let common = all.next().filter(|first| all.all(|other| other == *first));
    let (mut text, mut taken) = (String::new(), HashSet::new());
    defaults(&mut text, head, common.and(ranked.first()));
    for (port, (one, ranked)) in
        (TargetDefaults::port()..).zip(survey.databases.iter().zip(&ranked))
    {
        let name = unique(one, &survey.databases, &taken);
        taken.insert(name.clone());
        target(&mut text, one, &name, port);
        if common.is_none() {
            bastion(&mut text, ranked);
        }
    }
    text
}

fn best(ranked: &NodeRanking) -> Option<&str> {
    ranked.nodes.first().map(|one| one.node.id.as_str())
}

/// Returns the name of a target with a unique identifier.
pub(super) fn name(one: &Database) -> &str {
    &one.identifier
}

/// Returns a target's name when a database of another kind has the same identifier, or when that
/// name is `taken`: a proxy and a cluster may each have an endpoint of one name.
fn unique(one: &Database, all: &[Database], taken: &HashSet<String>) -> String {
    let same = all
        .iter()
        .filter(|other| other.identifier == one.identifier);
    let name = match (same.count(), one.kind) {
        (1, _) | (_, DatabaseKind::Cluster) => name(one).to_owned(),
        (_, kind) => format!("{}-{}", name(one), kind.word()),
    };
    let further = (2..).map(|number| format!("{name}-{number}"));
    let mut names = std::iter::once(name.clone()).chain(further);
    names.find(|name| !taken.contains(name)).unwrap_or(name)
}

fn defaults(text: &mut String, head: &CommonSettings<'_>, ranked: Option<&NodeRanking>) {
    let CommonSettings {
        region,
        profile,
        user,
    } = head;
    text.push_str(
        "# Written by pgiam init. Each flag of pgiam serve is a key, here or in a target;\n# the \
         target's value takes precedence. This file contains no secrets.\n\n[defaults]\n",
    );
    line(text, "region", region, None);
    match profile {
        Some(profile) => line(text, "profile", profile, None),
        None => text
            .push_str("# profile = \"dev\"    # AWS profile; default: that of the environment.\n"),
    }
    match user {
        Some(user) => line(text, "user", user, None),
        None => text.push_str(
            "# user = \"db_user\"   # Role to log in as; pgiam setup sql prints its GRANT.\n",
        ),
    }
    if let Some(ranked) = ranked {
        bastion(text, ranked);
    }
}

fn target(text: &mut String, one: &Database, name: &str, port: u16) {
    // Writing to a String cannot fail.
    _ = writeln!(text, "\n# {}", about(one));
    _ = writeln!(text, "[targets.{name}]");
    match &one.endpoint {
        Some(at) => {
            line(text, "host", &short(at), None);
            if let Some(reader) = &one.reader {
                text.push_str("# Reader endpoint:\n");
                off(text, "host", &short(reader), "");
            }
            off(
                text,
                "db",
                &one.identifier,
                "Instead of host: pgiam looks up the endpoint at each start.",
            );
        }
        None => line(text, "db", &one.identifier, Some("It has no endpoint yet.")),
    }
    if let Some(database) = &one.database {
        line(text, "database", database, None);
    }
    _ = writeln!(text, "port = {port}");
}

/// Returns the endpoint, with the port only if it is not the default.
fn short(endpoint: &Endpoint) -> String {
    match endpoint.port {
        DEFAULT_UPSTREAM_PORT => endpoint.host.clone(),
        _ => endpoint.to_string(),
    }
}

fn about(one: &Database) -> String {
    let kind = match one.kind {
        DatabaseKind::Instance => "Instance",
        DatabaseKind::Cluster => "Cluster",
        DatabaseKind::Proxy => "RDS Proxy",
        DatabaseKind::Endpoint => "Endpoint",
    };
    let mut facts = vec![format!("{kind} {}", one.identifier)];
    let engine = [&one.engine, &one.engine_version];
    let engine: Vec<&str> = engine.into_iter().flatten().map(String::as_str).collect();
    if !engine.is_empty() {
        facts.push(engine.join(" "));
    }
    facts.extend(one.status.clone());
    facts.push(match one.iam {
        Some(true) => "IAM login on".to_owned(),
        Some(false) => "IAM login off (pgiam check shows how to turn it on)".to_owned(),
        None => "IAM login unknown".to_owned(),
    });
    printable(&facts.join(", "))
}

fn bastion(text: &mut String, ranked: &NodeRanking) {
    let Some((first, others)) = ranked.nodes.split_first() else {
        text.push_str(
            "# bastion = \"auto\"   # No managed node is online. pgiam setup bastion prints a template for one.\n",
        );
        return;
    };
    let id = |one: &RankedNode| one.node.id.clone();
    line(text, "bastion", &id(first), Some(&reason(first)));
    for other in others.iter().take(MOST_OTHERS) {
        off(text, "bastion", &id(other), &reason(other));
    }
    if let Some(note) = &ranked.note {
        _ = writeln!(text, "# {}", printable(note));
    }
}

/// Returns the reason for a node, with its name unless the reason contains it.
fn reason(RankedNode { node, why }: &RankedNode) -> String {
    match node.name.as_deref() {
        Some(name) if !why.contains(name) => format!("{name}: {why}"),
        _ => why.clone(),
    }
}

/// Appends a key and its value.
fn line(text: &mut String, key: &str, value: &str, comment: Option<&str>) {
    let value = toml::Value::String(value.to_owned());
    let comment = comment.map(|comment| format!("   # {}", printable(comment)));
    _ = writeln!(text, "{key} = {value}{}", comment.unwrap_or_default());
}

/// Appends a key as a comment.
fn off(text: &mut String, key: &str, value: &str, comment: &str) {
    let value = toml::Value::String(value.to_owned());
    let value = printable(&value.to_string());
    let written = format!("# {key} = {value}   # {}", printable(comment));
    _ = writeln!(text, "{}", written.trim_end_matches([' ', '#']));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::list::tests::{found, machine};
    use std::sync::LazyLock;

    use crate::config::{ConfigFile, TargetConfig, TargetLayer};

    static REGION: LazyLock<Region> = LazyLock::new(|| "eu-central-1".into());

    fn head<'a>(user: Option<&'a str>, profile: Option<&'a str>) -> CommonSettings<'a> {
        CommonSettings {
            region: &REGION,
            profile,
            user,
        }
    }

    /// Returns the targets of a file, as the program parses them.
    fn configs(text: &str) -> Vec<TargetConfig> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pgiam.toml");
        std::fs::write(&path, text).unwrap();
        let file = ConfigFile::load(Some(&path)).unwrap();
        let configs = file.targets(&[], &TargetLayer::default()).unwrap();
        configs.into_iter().map(Result::unwrap).collect()
    }

    #[test]
    fn the_file_holds_what_was_found_and_can_be_read() {
        let text = file(&head(None, None), &found());
        insta::assert_snapshot!(text);
        let configs = configs(&text);
        let targets: Vec<_> = configs
            .iter()
            .map(|config| {
                (
                    config.name.as_str(),
                    config.settings.local_port,
                    config.settings.via.to_string(),
                )
            })
            .collect();
        let via = || "ssm i-0123456789abcdef0".to_owned();
        assert_eq!(
            targets,
            [
                ("billing", 5433, via()),
                ("orders", 5434, via()),
                ("orders-instance", 5435, via()),
            ]
        );
    }

    #[test]
    fn each_database_gets_the_bastion_of_its_vpc() {
        let mut survey = found();
        survey.databases[0].vpc = Some("vpc-2".to_owned());
        survey.databases[1].endpoint = None;
        let mut second = machine("i-2", "jump", true);
        second.vpc = Some("vpc-2".to_owned());
        survey.nodes.push(second);
        let text = file(&head(Some("o\"x\nport = 1"), Some("dev")), &survey);
        let configs = configs(&text);
        let via: Vec<_> = configs
            .iter()
            .map(|config| config.settings.via.to_string())
            .collect();
        assert_eq!(
            via,
            [
                "ssm i-2",
                "ssm i-0123456789abcdef0",
                "ssm i-0123456789abcdef0"
            ]
        );
        assert!(
            configs
                .iter()
                .all(|config| config.settings.user.as_deref() == Some("o\"x\nport = 1"))
        );
        assert!(
            configs
                .iter()
                .all(|config| config.settings.profile.as_deref() == Some("dev"))
        );
        assert_eq!(configs[1].rds_identifier().unwrap().identifier, "orders");
    }

    #[test]
    fn names_from_elsewhere_stay_in_their_comments() {
        let mut survey = found();
        survey.nodes[0].name = Some("x\n[serve]\naddress = \"0.0.0.0\"".to_owned());
        survey.nodes[1].online = true;
        let text = file(&head(None, None), &survey);
        assert!(
            !text.lines().any(|line| line.starts_with("address")),
            "{text}"
        );
        assert_eq!(configs(&text).len(), 3);
        survey.nodes.clear();
        let text = file(&head(None, None), &survey);
        assert!(text.contains("# bastion = \"auto\""), "{text}");
        assert_eq!(configs(&text)[0].settings.via.to_string(), "ssm auto");
    }

    #[test]
    fn every_target_has_a_name_of_its_own() {
        let mut survey = found();
        for _ in 0..2 {
            let mut endpoint = survey.databases[1].clone();
            endpoint.kind = DatabaseKind::Endpoint;
            survey.databases.push(endpoint);
        }
        let configs = configs(&file(&head(None, None), &survey));
        let names: Vec<_> = configs.iter().map(|config| config.name.as_str()).collect();
        let expected = [
            "billing",
            "orders",
            "orders-endpoint",
            "orders-endpoint-2",
            "orders-instance",
        ];
        assert_eq!(names, expected);
    }
}
