//! The bastion as a CloudFormation template: `bastion.yaml` with the known values filled in.

use super::{Artefact, SetupFacts, relay};
use crate::base::quote;
use crate::config::{EndpointKind, Via};

/// The template. Lines `@default:NAME@` become the default of a parameter, or nothing.
const TEMPLATE: &str = include_str!("bastion.yaml");

/// The template's name in the printed commands.
const FILE: &str = "bastion.yaml";

/// PostgreSQL's port, for targets with an unknown endpoint.
const PORT: u16 = 5432;

/// Returns the template; with `endpoints`, it enables VPC endpoints.
#[must_use]
pub fn cloudformation(facts: &SetupFacts, endpoints: bool) -> Artefact {
    let commands = StackCommands::of(facts);
    let header = format!(
        "\
# Bastion for the pgiam target {target}. It accepts no inbound connections.
#
# Create it:
#   {deploy}
# Show its id and the line for pgiam.toml:
#   {outputs}
# Delete it:
#   {delete}",
        target = quote::comment(&facts.target),
        deploy = commands.deploy,
        outputs = commands.outputs,
        delete = commands.delete,
    );
    let group = facts.security_groups.first();
    let mut text = relay::fill(TEMPLATE, facts)
        .replace("@header@", &header)
        .replace("@description@", &quote::yaml(&description(facts)))
        .replace("@port@", &port(facts).to_string())
        .replace("@kms@", &quote::yaml(key_arn(facts).unwrap_or_default()))
        .replace("@endpoints@", if endpoints { "true" } else { "false" })
        .replace("@name@", &quote::yaml(&format!("pgiam-{}", facts.slug())));
    for (parameter, known) in [
        ("VpcId", facts.vpc.as_ref()),
        ("SubnetId", None),
        ("DatabaseSecurityGroupId", group),
    ] {
        let line = known.map(|value| format!("    Default: {}\n", quote::yaml(value)));
        text = text.replace(
            &format!("@default:{parameter}@\n"),
            &line.unwrap_or_default(),
        );
    }
    Artefact {
        text,
        notes: notes(facts, &commands, endpoints),
    }
}

/// Commands for the stack.
struct StackCommands {
    deploy: String,
    outputs: String,
    delete: String,
}

impl StackCommands {
    fn of(facts: &SetupFacts) -> Self {
        let stack = format!("--stack-name {}", stack(facts));
        let options = facts.options();
        let program = [
            ("RelayBucket", None, "BUCKET"),
            ("RelayKey", None, "KEY"),
            ("RelaySha256", None, "SHA256"),
        ];
        let program = program.into_iter().filter(|_| relay::port(facts).is_some());
        let parameters: Vec<String> = [
            ("VpcId", facts.vpc.as_deref(), "VPC_ID"),
            ("SubnetId", None, "SUBNET_ID"),
            (
                "DatabaseSecurityGroupId",
                facts.security_groups.first().map(String::as_str),
                "SECURITY_GROUP_ID",
            ),
        ]
        .into_iter()
        .chain(program)
        .map(|(name, known, open)| format!("{name}={}", quote::shell(known.unwrap_or(open))))
        .collect();
        Self {
            deploy: format!(
                "aws cloudformation deploy{options} {stack} --template-file {FILE} --capabilities CAPABILITY_IAM --parameter-overrides {}",
                parameters.join(" ")
            ),
            outputs: format!(
                "aws cloudformation describe-stacks{options} {stack} --query \"Stacks[].Outputs\" --output table"
            ),
            delete: format!("aws cloudformation delete-stack{options} {stack}"),
        }
    }
}

/// Returns the stack's description for the console.
fn description(facts: &SetupFacts) -> String {
    format!(
        "Bastion for the pgiam target {name}: no public address, no key pair, no inbound rule. To delete it: aws cloudformation delete-stack --stack-name {stack}",
        name = facts.slug(),
        stack = stack(facts),
    )
}

fn stack(facts: &SetupFacts) -> String {
    format!("pgiam-bastion-{}", facts.slug())
}

fn notes(facts: &SetupFacts, commands: &StackCommands, endpoints: bool) -> Vec<String> {
    let mut notes = vec![
        format!("Create it: {}", commands.deploy),
        format!(
            "Show its id, then set bastion of the target to it: {}",
            commands.outputs
        ),
        format!("Delete it: {}", commands.delete),
    ];
    notes.extend(relay::notes(facts, endpoints));
    notes.extend(network_notes(facts));
    notes.extend(way_out(endpoints, "CreateVpcEndpoints=true"));
    notes
}

/// Returns the database's port.
pub(super) fn port(facts: &SetupFacts) -> u16 {
    facts
        .endpoint
        .as_ref()
        .map_or(PORT, |endpoint| endpoint.port)
}

/// Returns the key of the sessions, if its ARN is known.
pub(super) fn key_arn(facts: &SetupFacts) -> Option<&str> {
    facts
        .kms_key
        .as_deref()
        .filter(|key| key.starts_with("arn:"))
}

/// Returns notes on unknown values of the bastion's network.
pub(super) fn network_notes(facts: &SetupFacts) -> Vec<String> {
    let options = facts.options();
    let mut notes = Vec::new();
    let of_vpc = facts
        .vpc
        .as_ref()
        .map(|vpc| format!(" --filters Name=vpc-id,Values={}", quote::shell(vpc)));
    let mut subnet = format!(
        "SUBNET_ID: choose a private subnet of the database's VPC. List them: aws ec2 describe-subnets{options}{} --query \"Subnets[].[SubnetId, AvailabilityZone, MapPublicIpOnLaunch, Tags]\"",
        of_vpc.unwrap_or_default()
    );
    if !facts.subnets.is_empty() {
        subnet.push_str(&format!(
            ". The database is in one of these: {}",
            facts.subnets.join(", ")
        ));
    }
    notes.push(subnet);
    if facts.vpc.is_none() || facts.security_groups.is_empty() {
        notes.push(format!(
            "VPC_ID and SECURITY_GROUP_ID: use those of the database: aws rds describe-db-instances{options} --query \"DBInstances[].[Endpoint.Address, DBSubnetGroup.VpcId, VpcSecurityGroups]\""
        ));
    } else if facts.security_groups.len() > 1 {
        notes.push(format!(
            "The database has several security groups: {}. Use any of them.",
            facts.security_groups.join(", ")
        ));
    }
    if facts.kind() == Some(EndpointKind::Dsql) {
        notes.push("An Aurora DSQL cluster has a public endpoint, which needs no bastion: set via = \"direct\". With PrivateLink only, use the security group of its VPC endpoint.".to_owned());
    } else if facts.via == Via::Direct {
        notes.push(
            "The target has via = \"direct\", which uses no bastion; remove that line.".to_owned(),
        );
    }
    if facts.kms_key.is_some() && key_arn(facts).is_none() {
        notes.push("Sessions are encrypted with a KMS key. pgiam could not look up its ARN; add it, or the bastion cannot decrypt.".to_owned());
    }
    notes
}

/// Returns notes on the bastion's connection to AWS.
pub(super) fn way_out(endpoints: bool, switch: &str) -> Vec<String> {
    vec![match endpoints {
        true => "The VPC endpoints apply to the whole VPC: allow all other machines in it that use Systems Manager (EndpointClientCidr, endpoint_client_cidr). The VPC must not have endpoints for the same services yet.".to_owned(),
        false => format!(
            "The subnet needs a NAT gateway or VPC endpoints for ssm and ssmmessages; {switch} creates the endpoints."
        ),
    }]
}
