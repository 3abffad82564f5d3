//! `pgiam list`: the databases and bastions that the credentials can see.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::{Context, anyhow};
use serde_json::{Value, json};

use crate::aws::discover;
use crate::aws::discover::{Database, DiscoverError, FailedCall, Node, Survey};
use crate::aws::{AwsContext, AwsOptions};
use crate::base::error_text::chain;
use crate::base::foreign_text::visible_json;
use crate::base::names::Region;
use crate::base::quote::printable;
use crate::cli::ListArgs;
use crate::cli::terminal;
use crate::cli::terminal::{BAD, DIM, GOOD, HEADING, Progress, Table, WARNING, styled};
use crate::cli::wrap::{LongWords, words};
use crate::commands::login::{choose, on_demand};
use crate::commands::resolve_target::in_words;
use crate::commands::seen_names;
use crate::config::Endpoint;
use crate::report;

/// Most columns for the name of a node, which is for display only.
const NODE_NAME: usize = 18;

/// Prints databases and bastions.
///
/// # Errors
/// No region is known, no lookup succeeded, or standard output cannot be written to.
pub async fn list(args: &ListArgs) -> anyhow::Result<()> {
    let (profile, region) = (
        args.profile.as_deref(),
        args.region.as_deref().map(Region::from),
    );
    let mut chosen = None;
    if !args.output.json {
        on_demand::offer_for(profile).await?;
        if profile.is_none() {
            chosen = choose::without_profile(args.region.as_deref()).await?;
        }
    }
    let profile = profile.or(chosen.as_deref());
    let (region, survey) = survey(profile, region.as_ref()).await?;
    let text = match args.output.json {
        true => visible_json(&format!("{:#}\n", document(&region, profile, &survey))).into_owned(),
        false => tables((&region, profile), &survey, terminal::stdout_width()),
    };
    terminal::write(text).context("cannot write to standard output")
}

/// Returns the databases and nodes of the region.
pub(super) async fn survey(
    profile: Option<&str>,
    region: Option<&Region>,
) -> anyhow::Result<(Region, Survey)> {
    let aws = AwsContext::new(AwsOptions {
        profile: profile.map(str::to_owned),
        region: region.cloned(),
        ..AwsOptions::default()
    });
    let explained = |error: DiscoverError| anyhow!(in_words(&report::explain_lookup(&error)));
    let region = discover::region(&aws, region).await.map_err(explained)?;
    let _progress = Progress::start(format!("listing databases and bastions in {region}"));
    let survey = discover::survey(&aws, &region).await.map_err(explained)?;
    seen_names::remember(&survey, &region, profile);
    Ok((region, survey))
}

/// Returns everything as JSON, for programs. Unknown values are `null`.
fn document(region: &Region, profile: Option<&str>, survey: &Survey) -> Value {
    let databases: Vec<Value> = survey.databases.iter().map(database).collect();
    let nodes: Vec<Value> = survey.nodes.iter().map(node).collect();
    let missing: Vec<Value> = survey.missing.iter().map(missing).collect();
    json!({
        "region": region.as_str(),
        "profile": profile,
        "databases": databases,
        "bastions": nodes,
        "missing": missing,
    })
}

fn database(one: &Database) -> Value {
    let host = |at: &Option<Endpoint>| at.as_ref().map(|at| at.host.clone());
    json!({
        "kind": one.kind.word(),
        "identifier": one.identifier,
        "host": host(&one.endpoint),
        "reader_host": host(&one.reader),
        "port": one.endpoint.as_ref().map(|at| at.port),
        "region": one.region.as_str(),
        "resource_id": one.resource_id,
        "arn": one.arn,
        "iam": one.iam,
        "status": one.status,
        "engine": one.engine,
        "engine_version": one.engine_version,
        "database": one.database,
        "vpc": one.vpc,
        "security_groups": one.security_groups,
        "subnets": one.subnets,
        "ca": one.ca,
    })
}

fn node(one: &Node) -> Value {
    json!({
        "id": one.id,
        "name": one.name,
        "online": one.online,
        "ping": one.ping,
        "last_ping": one.last_ping,
        "agent": one.agent,
        "platform": one.platform,
        "vpc": one.vpc,
        "marked": one.marked,
    })
}

fn missing(call: &FailedCall) -> Value {
    json!({
        "action": call.action,
        "denied": call.error.is_denied(),
        "reason": chain(&call.error).as_str(),
    })
}

/// Returns the tables, for a terminal of so many columns if there is one.
fn tables(
    (region, profile): (&Region, Option<&str>),
    survey: &Survey,
    columns: Option<usize>,
) -> String {
    let mut text = String::new();
    let mut databases = Table::new(&["database", "kind", "engine", "IAM", "status"]);
    for one in &survey.databases {
        databases.row(database_row(one));
    }
    let mut nodes = Table::new(&["bastion", "name", "state", "VPC", "tag"]);
    for one in &survey.nodes {
        nodes.row(node_row(one));
    }
    let calls = survey.missing.iter();
    let (of_rds, other): (Vec<_>, Vec<_>) = calls.partition(|call| call.action.starts_with("rds:"));
    section(
        &mut text,
        &databases.within(columns),
        &format!("found no PostgreSQL databases in {region}"),
    );
    unseen(&mut text, of_rds, columns);
    text.push('\n');
    section(
        &mut text,
        &nodes.within(columns),
        &format!("found no managed nodes in {region}"),
    );
    unseen(&mut text, other, columns);
    let usable = |one: &&Database| one.is_available() && one.iam != Some(false);
    let mut databases = survey.databases.iter();
    if let Some(first) = databases.clone().find(usable).or(databases.next()) {
        let profile = profile.map(|profile| format!(" --profile {profile}"));
        let profile = profile.unwrap_or_default();
        let db = &first.identifier;
        let next = format!("pgiam serve --db {db} --user ROLE --region {region}{profile}");
        // Writing to a String cannot fail.
        _ = writeln!(
            text,
            "\nNext, serve one database:\n  {next}\nor write a configuration file for all of them:\n  pgiam init"
        );
    }
    text
}

/// Appends the rows of a table, or the reason for their absence.
fn section(text: &mut String, rows: &str, nothing: &str) {
    match rows.is_empty() {
        true => _ = writeln!(text, "{}", styled(HEADING, nothing)),
        false => text.push_str(rows),
    }
}

fn database_row(one: &Database) -> [String; 5] {
    let engine = match (one.engine.as_deref(), one.engine_version.as_deref()) {
        (Some("aurora-postgresql"), Some(version)) => format!("aurora {version}"),
        (_, Some(version)) => version.to_owned(),
        (engine, None) => engine.unwrap_or("-").to_owned(),
    };
    let iam = match one.iam {
        Some(true) => styled(GOOD, "on"),
        Some(false) => styled(BAD, "off"),
        None => "-".to_owned(),
    };
    let status = one.status.as_deref().unwrap_or("-");
    let style = if one.is_available() { GOOD } else { WARNING };
    [
        one.identifier.clone(),
        one.kind.word().to_owned(),
        engine,
        iam,
        styled(style, status),
    ]
}

fn node_row(one: &Node) -> [String; 5] {
    let state = match one.online {
        true => styled(GOOD, "online"),
        false => styled(DIM, "offline"),
    };
    let name = printable(one.name.as_deref().unwrap_or("-"));
    let name = match name.char_indices().nth(NODE_NAME) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name,
    };
    [
        one.id.to_string(),
        name,
        state,
        one.vpc.clone().unwrap_or_else(|| "-".to_owned()),
        if one.marked { "marked" } else { "" }.to_owned(),
    ]
}

/// Appends the missing information and the reason for each.
fn unseen(text: &mut String, calls: Vec<&FailedCall>, columns: Option<usize>) {
    let columns = columns.unwrap_or(usize::MAX);
    let mut add = |intro: String, below: Vec<String>| {
        let indented = below.iter().map(|line| format!("  {line}"));
        let lines = words(&intro, columns, LongWords::Whole).into_iter();
        for line in lines.chain(indented) {
            _ = writeln!(text, "{}", styled(WARNING, line));
        }
    };

    let calls = calls.into_iter();
    let (denied, failed): (Vec<_>, Vec<_>) = calls.partition(|call| call.error.is_denied());
    if !denied.is_empty() {
        let actions: BTreeSet<&str> = denied.iter().map(|call| call.action).collect();
        add(
            "The list may be incomplete: your policy does not allow:".to_owned(),
            actions.into_iter().map(str::to_owned).collect(),
        );
    }
    for call in failed {
        let reason = printable(&chain(&call.error));
        let room = columns.saturating_sub(2);
        add(
            format!("{} failed:", call.action),
            words(&reason, room, LongWords::Whole),
        );
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::aws::api_error::ApiAnswer;
    use crate::aws::discover::DatabaseKind;

    fn db(kind: DatabaseKind, identifier: &str, engine: &str) -> Database {
        let host = format!("{identifier}.cluster-abc.eu-central-1.rds.amazonaws.com");
        let reader = host.replace("cluster-", "cluster-ro-");
        let is_cluster = kind == DatabaseKind::Cluster;
        Database {
            kind,
            identifier: identifier.to_owned(),
            endpoint: Some(Endpoint { host, port: 5432 }),
            reader: is_cluster.then_some(Endpoint {
                host: reader,
                port: 5432,
            }),
            region: "eu-central-1".to_owned().into(),
            resource_id: Some("cluster-ABC".to_owned()),
            arn: None,
            iam: Some(is_cluster),
            status: Some(if is_cluster { "available" } else { "stopped" }.to_owned()),
            engine: Some(engine.to_owned()),
            engine_version: Some("17.5".to_owned()),
            database: is_cluster.then(|| "app".to_owned()),
            vpc: Some("vpc-0a1b2c3d4e5f60718".to_owned()),
            security_groups: vec!["sg-1".to_owned()],
            subnets: Vec::new(),
            ca: None,
        }
    }

    pub(in crate::commands) fn machine(id: &str, name: &str, online: bool) -> Node {
        Node {
            id: id.to_owned().into(),
            name: Some(name.to_owned()),
            online,
            ping: "Online".to_owned(),
            last_ping: None,
            agent: Some("3.3.1.0".to_owned()),
            platform: Some("Linux".to_owned()),
            vpc: Some("vpc-0a1b2c3d4e5f60718".to_owned()),
            marked: online,
        }
    }

    pub(in crate::commands) fn found() -> Survey {
        let refused = |action, denied, code: &str| FailedCall {
            action,
            error: DiscoverError::Refused {
                action,
                denied,
                answer: ApiAnswer {
                    code: code.into(),
                    message: "".into(),
                    request_id: None,
                    clock: None,
                },
                region: "eu-central-1".to_owned().into(),
            },
        };
        Survey {
            databases: vec![
                db(DatabaseKind::Instance, "billing", "postgres"),
                db(DatabaseKind::Cluster, "orders", "aurora-postgresql"),
                db(DatabaseKind::Instance, "orders", "aurora-postgresql"),
            ],
            nodes: vec![
                machine(
                    "i-0123456789abcdef0",
                    "a name that is far\u{1b}[2J too long",
                    true,
                ),
                machine("i-0123456789abcdef1", "bastion", false),
            ],
            missing: vec![
                refused("rds:DescribeDBProxies", true, "AccessDenied"),
                refused("rds:DescribeDBProxyEndpoints", true, "AccessDenied"),
                refused("ec2:DescribeInstances", false, "InternalError"),
            ],
        }
    }

    #[test]
    fn people_see_tables_of_eighty_columns() {
        let text = tables((&"eu-central-1".into(), Some("dev")), &found(), None);
        let plain = anstream::adapter::strip_str(&text).to_string();
        assert!(!plain.contains('\u{1b}'));
        insta::assert_snapshot!(plain);
        for line in plain.lines() {
            assert!(console::measure_text_width(line) <= 80, "{line}");
        }
    }

    #[test]
    fn narrow_terminals_show_paragraphs() {
        let region = "eu-central-1".into();
        let text = tables((&region, Some("dev")), &found(), Some(60));
        let plain = anstream::adapter::strip_str(&text).to_string();
        insta::assert_snapshot!(plain);
        let next = plain.lines().filter(|line| !line.contains("pgiam serve"));
        for line in next {
            assert!(console::measure_text_width(line) <= 60, "{line}");
        }
    }

    #[test]
    fn nothing_is_said_to_be_nothing() {
        let nothing = Survey {
            databases: Vec::new(),
            nodes: Vec::new(),
            missing: Vec::new(),
        };
        let text = tables((&"eu-central-1".into(), None), &nothing, Some(60));
        let plain = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(
            plain,
            "found no PostgreSQL databases in eu-central-1\n\nfound no managed nodes in eu-central-1\n"
        );
    }

    #[test]
    fn programs_get_everything_under_stable_names() {
        let mut survey = found();
        survey.databases.truncate(2);
        survey.nodes.truncate(1);
        survey.missing.truncate(1);
        let document = document(&"eu-central-1".into(), None, &survey);
        insta::assert_snapshot!(format!("{document:#}"));
    }
}
