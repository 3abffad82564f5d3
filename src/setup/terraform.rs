//! The same bastion for Terraform and OpenTofu: `bastion.tf` with the known values filled in.

use super::cloudformation::{key_arn, network_notes, port, way_out};
use super::{Artefact, SetupFacts, relay};
use crate::base::quote;

/// The configuration. Lines `@default:NAME@` become the default of a variable, or nothing.
const TEMPLATE: &str = include_str!("bastion.tf");

/// Returns the configuration; with `endpoints`, it enables VPC endpoints.
#[must_use]
pub fn terraform(facts: &SetupFacts, endpoints: bool) -> Artefact {
    let group = facts.security_groups.first().map(String::as_str);
    let parameters = [
        ("vpc_id", facts.vpc.as_deref(), "VPC_ID"),
        ("subnet_id", None, "SUBNET_ID"),
        ("database_security_group_id", group, "SECURITY_GROUP_ID"),
    ];
    let program = [
        ("relay_bucket", None, "BUCKET"),
        ("relay_key", None, "KEY"),
        ("relay_sha256", None, "SHA256"),
    ];
    let open: String = parameters
        .iter()
        .filter(|(_, known, _)| known.is_none())
        .chain(program.iter().filter(|_| relay::port(facts).is_some()))
        .map(|(name, _, open)| format!(" -var {name}={open}"))
        .collect();
    let header = format!(
        "\
# Bastion for the pgiam target {target}. It accepts no inbound connections.
#
# Create it in an empty directory:
#   terraform init
#   terraform apply{open}
# Delete it:
#   terraform destroy{open}",
        target = quote::comment(&facts.target),
    );
    let option = |name: &str, value: Option<&str>| match value {
        Some(value) => format!("  {name} = {}\n", quote::hcl(value)),
        None => String::new(),
    };
    // The provider has no profile: credentials come from the user's environment.
    let provider = option("region", facts.region.as_deref());
    let mut text = relay::fill(TEMPLATE, facts)
        .replace("@header@", &header)
        .replace("@provider@", &provider)
        .replace("@port@", &port(facts).to_string())
        .replace("@kms@", &quote::hcl(key_arn(facts).unwrap_or_default()))
        .replace("@endpoints@", if endpoints { "true" } else { "false" })
        .replace("@name@", &quote::hcl(&format!("pgiam-{}", facts.slug())));
    for (name, known, _) in parameters {
        let line = known.map(|value| format!("  default     = {}\n", quote::hcl(value)));
        text = text.replace(&format!("@default:{name}@\n"), &line.unwrap_or_default());
    }
    let mut notes = vec![
        format!("Create it in an empty directory: terraform init, then terraform apply{open}"),
        "Then add the output pgiam_toml to the target.".to_owned(),
        format!("Delete it: terraform destroy{open}"),
    ];
    notes.extend(relay::notes(facts, endpoints));
    notes.extend(network_notes(facts));
    notes.extend(way_out(endpoints, "-var create_vpc_endpoints=true"));
    Artefact { text, notes }
}
