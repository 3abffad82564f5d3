//! The least IAM policy for a target's users. Actions, resource types and condition keys are those
//! of the Service Authorization Reference.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Artefact, MARK, Principal, SetupFacts};
use crate::aws::token::dsql;
use crate::base::names::Region;
use crate::config::{Auth, Bastion, Endpoint, EndpointKind, SsmSettings, Via};
use crate::setup::placeholders::Placeholders;

/// AWS's own document for forwarding to a host behind the node.
const DOCUMENT: &str = "AWS-StartPortForwardingSessionToRemoteHost";

/// AWS's own document for forwarding to a port of the node: that of the relay.
const RELAY_DOCUMENT: &str = "AWS-StartPortForwardingSession";

/// Version of the policy language with variables (IAM User Guide, "Version").
const VERSION: &str = "2012-10-17";

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Policy {
    version: &'static str,
    statement: Vec<Statement>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Statement {
    sid: &'static str,
    effect: &'static str,
    action: Vec<String>,
    resource: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    condition: BTreeMap<&'static str, BTreeMap<String, String>>,
}

impl Statement {
    fn allow(sid: &'static str, actions: &[&str], resource: Vec<String>) -> Self {
        Self {
            sid,
            effect: "Allow",
            action: actions.iter().map(|action| (*action).to_owned()).collect(),
            resource,
            condition: BTreeMap::new(),
        }
    }

    fn when(mut self, operator: &'static str, key: impl Into<String>, value: &str) -> Self {
        let keys = self.condition.entry(operator).or_default();
        keys.insert(key.into(), value.to_owned());
        self
    }
}

/// Partition, region and account for a target's ARNs.
struct ArnScope {
    partition: String,
    region: Region,
    account: String,
}

impl ArnScope {
    fn of(facts: &SetupFacts, gaps: &mut Placeholders) -> Self {
        Self {
            partition: facts.partition(gaps),
            region: facts.region(gaps).into(),
            account: facts.account(gaps),
        }
    }

    fn arn(&self, service: &str, resource: &str) -> String {
        let Self {
            partition,
            region,
            account,
        } = self;
        format!("arn:{partition}:{service}:{region}:{account}:{resource}")
    }
}

/// Returns the policy, as JSON.
#[must_use]
pub fn policy(facts: &SetupFacts) -> Artefact {
    let mut gaps = Placeholders::default();
    let place = ArnScope::of(facts, &mut gaps);
    let mut statement = Vec::new();
    if facts.auth == Auth::Iam {
        statement.push(login(facts, &place, &mut gaps));
    }
    if let Via::Ssm(settings) = &facts.via {
        statement.extend(tunnel(facts, settings, &place));
    }
    statement.extend(discovery(facts, &place));
    let version = VERSION;
    // A policy consists of maps with text keys, so serialising cannot fail.
    let text = serde_json::to_string_pretty(&Policy { version, statement }).unwrap_or_default();
    let mut notes = usage(facts);
    notes.extend(gaps.notes());
    Artefact {
        text: text + "\n",
        notes,
    }
}

fn login(facts: &SetupFacts, place: &ArnScope, gaps: &mut Placeholders) -> Statement {
    let role = facts.role(gaps);
    let (action, resource) = match (&facts.endpoint, facts.kind()) {
        (Some(endpoint), Some(EndpointKind::Dsql)) => {
            let id = endpoint.host.split('.').next().unwrap_or_default();
            let action = format!("dsql:{}", dsql::action(&role));
            (action, place.arn("dsql", &format!("cluster/{id}")))
        }
        _ => {
            let id = gaps.fill(facts.resource_id.as_deref(), "RESOURCE_ID", || {
                resource_id_command(facts)
            });
            let user = format!("dbuser:{id}/{}", literally(&role));
            ("rds-db:connect".to_owned(), place.arn("rds-db", &user))
        }
    };
    Statement::allow("DatabaseLogin", &[&action], vec![resource])
}

/// Escapes a name so that IAM takes every character literally (IAM User Guide, "Policy variables",
/// special characters).
fn literally(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        match c {
            '*' | '?' | '$' => text.extend(['$', '{', c, '}']),
            c => text.push(c),
        }
    }
    text
}

/// Returns the command that shows the resource id of the database.
fn resource_id_command(facts: &SetupFacts) -> String {
    let options = facts.options();
    let host = facts
        .endpoint
        .as_ref()
        .map(|endpoint| endpoint.host.as_str());
    let instances = |host: &str| {
        format!(
            "aws rds describe-db-instances{options} --query \"DBInstances[?Endpoint.Address=='{host}'].[DbiResourceId, DBClusterIdentifier]\" --output text (for a member of a cluster, use the DbClusterResourceId of the cluster)"
        )
    };
    let clusters = |condition: String| {
        format!(
            "aws rds describe-db-clusters{options} --query \"DBClusters[?{condition}].DbClusterResourceId\" --output text"
        )
    };
    match (host, facts.kind()) {
        (Some(host), Some(EndpointKind::Instance)) => instances(host),
        (Some(host), Some(EndpointKind::Cluster)) => clusters(format!("Endpoint=='{host}'")),
        (Some(host), Some(EndpointKind::Reader)) => clusters(format!("ReaderEndpoint=='{host}'")),
        (Some(host), Some(EndpointKind::Custom)) => {
            clusters(format!("contains(CustomEndpoints || `[]`, '{host}')"))
        }
        (Some(_), Some(EndpointKind::Proxy)) => format!(
            "use the part of the proxy's ARN that begins with prx-: aws rds describe-db-proxies{options} --query \"DBProxies[].[Endpoint, DBProxyArn]\" --output text"
        ),
        _ => format!(
            "aws rds describe-db-clusters{options} --query \"DBClusters[].[DBClusterIdentifier, DbClusterResourceId]\" --output text, or for an instance without cluster aws rds describe-db-instances{options} --query \"DBInstances[].[DBInstanceIdentifier, DbiResourceId]\" --output text"
        ),
    }
}

fn tunnel(facts: &SetupFacts, settings: &SsmSettings, place: &ArnScope) -> Vec<Statement> {
    let start = |sid, resource| {
        // Without this check, a user with access to the node gets a shell there by naming no
        // document (Systems Manager User Guide, "Enforce a session document permission check").
        // Every statement that allows the action needs it.
        Statement::allow(sid, &["ssm:StartSession"], resource).when(
            "BoolIfExists",
            "ssm:SessionDocumentAccessCheck",
            "true",
        )
    };
    let any_node = || {
        vec![
            place.arn("ec2", "instance/*"),
            place.arn("ssm", "managed-instance/*"),
        ]
    };
    let nodes = match &settings.bastion {
        Bastion::Nodes(nodes) => {
            let arns = nodes.iter().map(|node| node_arn(place, node)).collect();
            start("TunnelNode", arns)
        }
        Bastion::Tag { key, value } => start("TunnelNode", any_node()).when(
            "StringEquals",
            format!("ssm:resourceTag/{key}"),
            value,
        ),
        Bastion::Auto => start("TunnelNode", any_node()).when(
            "StringLike",
            format!("ssm:resourceTag/{MARK}"),
            "*",
        ),
    };
    // A statement of its own: a condition on tags never matches the document, which has none.
    let document = start("TunnelDocument", vec![document_arn(place, settings)]);
    // As in AWS's examples: the identity decides, not the region.
    let own = format!("arn:{}:ssm:*:*:session/{}-*", place.partition, own(facts));
    let sessions = Statement::allow(
        "OwnSessions",
        &[
            "ssmmessages:OpenDataChannel",
            "ssm:ResumeSession",
            "ssm:TerminateSession",
        ],
        vec![own],
    );
    let mut statements = vec![nodes, document, sessions];
    statements.extend(facts.kms_key.as_deref().map(|key| encryption(place, key)));
    statements
}

/// Returns the prefix of the user's session ids (Systems Manager User Guide, "Allow a user to end
/// only sessions they started").
fn own(facts: &SetupFacts) -> &'static str {
    match facts.principal {
        Principal::User { .. } => "${aws:username}",
        Principal::Role { .. } | Principal::Unknown => "${aws:userid}",
    }
}

fn node_arn(place: &ArnScope, node: &str) -> String {
    let task = node.strip_prefix("ecs:").and_then(|task| {
        let mut parts = task.rsplitn(3, '_').skip(1);
        let (id, cluster) = (parts.next()?, parts.next()?);
        Some(format!("task/{cluster}/{id}"))
    });
    match task {
        Some(task) => place.arn("ecs", &task),
        None if node.starts_with("mi-") => place.arn("ssm", &format!("managed-instance/{node}")),
        None => place.arn("ec2", &format!("instance/{node}")),
    }
}

fn document_arn(place: &ArnScope, settings: &SsmSettings) -> String {
    let ArnScope {
        partition, region, ..
    } = place;
    match settings.document.as_deref() {
        _ if settings.relay.is_some() => {
            format!("arn:{partition}:ssm:{region}::document/{RELAY_DOCUMENT}")
        }
        Some(arn) if arn.starts_with("arn:") => arn.to_owned(),
        Some(name) if !name.starts_with("AWS-") => place.arn("ssm", &format!("document/{name}")),
        // AWS's own documents belong to no account.
        document => format!(
            "arn:{partition}:ssm:{region}::document/{}",
            document.unwrap_or(DOCUMENT)
        ),
    }
}

fn encryption(place: &ArnScope, key: &str) -> Statement {
    let allow = |arn| Statement::allow("SessionEncryption", &["kms:GenerateDataKey"], vec![arn]);
    if key.starts_with("alias/") {
        // A policy cannot name a key by its alias (KMS Developer Guide, "Use aliases to control
        // access").
        return allow(place.arn("kms", "key/*")).when(
            "ForAnyValue:StringEquals",
            "kms:ResourceAliases",
            key,
        );
    }
    allow(match key.starts_with("arn:") {
        true => key.to_owned(),
        false => place.arn("kms", &format!("key/{key}")),
    })
}

/// Returns the statements for lookups at every start, if the target needs them.
fn discovery(facts: &SetupFacts, place: &ArnScope) -> Vec<Statement> {
    let bastion = match &facts.via {
        Via::Ssm(settings) => Some(&settings.bastion),
        Via::Direct => None,
    };
    let auto = bastion == Some(&Bastion::Auto);
    let tag = matches!(bastion, Some(Bastion::Tag { .. }));
    let is_dsql = facts.kind() == Some(EndpointKind::Dsql);
    let mut statements = Vec::new();
    if (facts.looked_up.is_some() || auto) && !is_dsql {
        statements.push(find_database(facts, place, auto));
    }
    let nodes: &[&str] = match (auto, tag) {
        (true, _) => &["ec2:DescribeInstances", "ssm:DescribeInstanceInformation"],
        (false, true) => &["ssm:DescribeInstanceInformation"],
        (false, false) => return statements,
    };
    // Neither action supports resources; the region can still be restricted.
    let find = Statement::allow("FindBastion", nodes, vec!["*".to_owned()]);
    statements.push(find.when("StringEquals", "aws:RequestedRegion", &place.region));
    statements
}

/// Returns the statement for looking up the database, and for a bastion its VPC.
fn find_database(facts: &SetupFacts, place: &ArnScope, vpc: bool) -> Statement {
    // The call for one cluster or instance is allowed by its ARN. The VPC of a cluster is that of a
    // member, and the ARNs of proxies lack their names.
    let one = facts.arn.as_deref().filter(|_| !vpc).and_then(|arn| {
        let action = match arn.split(':').nth(5)? {
            "cluster" => "rds:DescribeDBClusters",
            "db" => "rds:DescribeDBInstances",
            _ => return None,
        };
        Some((action, arn))
    });
    if let Some((action, arn)) = one {
        return Statement::allow("FindDatabase", &[action], vec![arn.to_owned()]);
    }
    // An identifier may be of any kind, and a list needs permission on all of a kind: `db:*`.
    let kinds = [
        "cluster",
        "cluster-endpoint",
        "db",
        "db-proxy",
        "db-proxy-endpoint",
    ];
    let arns = kinds.map(|kind| place.arn("rds", &format!("{kind}:*")));
    Statement::allow(
        "FindDatabase",
        &[
            "rds:DescribeDBClusterEndpoints",
            "rds:DescribeDBClusters",
            "rds:DescribeDBInstances",
            "rds:DescribeDBProxies",
            "rds:DescribeDBProxyEndpoints",
        ],
        arns.to_vec(),
    )
}

/// Returns the instructions.
fn usage(facts: &SetupFacts) -> Vec<String> {
    let (name, options) = (facts.slug(), facts.options());
    let mut notes = vec![
        format!(
            "Create a policy from it, and attach it to the role (or the permission set in IAM Identity Center) of the target's users: aws iam create-policy{options} --policy-name pgiam-{name} --policy-document file://policy.json"
        ),
        format!("Then test the result: {}", facts.check()),
    ];
    if facts.auth == Auth::Passthrough {
        notes.push("The target has auth = \"passthrough\", so the policy contains no permission to log in to the database.".to_owned());
    }
    if facts.kind() == Some(EndpointKind::Other) {
        let host = facts.endpoint.as_ref().map(Endpoint::to_string);
        notes.push(format!(
            "{} is not the name of an RDS or DSQL endpoint, and its CNAME lookup failed.",
            host.unwrap_or_default()
        ));
    }
    if let Via::Ssm(settings) = &facts.via {
        notes.extend(usage_of_tunnel(facts, settings));
    }
    if let Some(identifier) = &facts.looked_up {
        notes.push(format!(
            "The policy contains FindDatabase because the target has db = \"{identifier}\"; with host = \"…\" and the id of a bastion it is not needed."
        ));
    }
    notes
}

fn usage_of_tunnel(facts: &SetupFacts, settings: &SsmSettings) -> Vec<String> {
    let mut notes = Vec::new();
    notes.push(match facts.principal {
        Principal::User { .. } => "${aws:username} is for IAM users; for roles, including those of IAM Identity Center, use ${aws:userid} instead.",
        Principal::Role { .. } | Principal::Unknown => "${aws:userid} is for roles, including those of IAM Identity Center; for an IAM user, use ${aws:username} instead.",
    }.to_owned());
    if let Some(relay) = settings.relay {
        notes.push(format!(
            "The policy allows sessions to ports of the node itself, for the relay. IAM cannot limit the port: such a session reaches any port on which the node listens on loopback, so only the relay (port {}) should listen there without a login of its own. What can be reached behind the node is limited by the allow list of the relay.",
            relay.port
        ));
        notes.push(format!(
            "Where no relay answers, pgiam uses {DOCUMENT}. The policy does not allow it, because it reaches every host of the VPC: add its ARN to TunnelDocument only for a time without a relay."
        ));
    }
    if settings.bastion == Bastion::Auto {
        notes.push(format!(
            "With bastion = \"auto\", pgiam looks up the bastion (FindDatabase, FindBastion), and the policy allows only nodes with the tag {MARK}, which those of pgiam setup bastion have. To tag another node: aws ec2 create-tags{} --resources INSTANCE_ID --tags Key={MARK},Value=true",
            facts.options()
        ));
    }
    if let Bastion::Nodes(nodes) = &settings.bastion
        && nodes.iter().any(|node| node.starts_with("ecs:"))
    {
        notes.push(
            "Each new ECS task has a new id; task/CLUSTER/* allows all tasks of the cluster."
                .to_owned(),
        );
    }
    if facts.kms_key.is_none() {
        notes.push(format!(
            "If the account encrypts sessions with a KMS key, add kms:GenerateDataKey on it. To show the key: aws ssm get-document{} --name SSM-SessionManagerRunShell --query Content --output text",
            facts.options()
        ));
    }
    notes
}
