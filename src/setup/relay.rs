//! The relay on the bastion: its script for the instance, and its place in the templates.

use super::SetupFacts;
use crate::config::{DEFAULT_RELAY_PORT, Via};

/// The unit, as the packages have it.
const UNIT: &str = include_str!("../../deploy/systemd/pgiam-relay.service");
/// Marks around the lines of a template that are about the relay.
const BEGIN: &str = "@relay:begin@\n";
const END: &str = "@relay:end@\n";

/// Returns the relay's port if the target has a relay.
pub(super) fn port(facts: &SetupFacts) -> Option<u16> {
    match &facts.via {
        Via::Ssm(settings) => settings.relay.map(|relay| relay.port),
        Via::Direct => None,
    }
}

/// Fills in the lines of a template that are about the relay, or removes them. `script` is the text
/// of the script in the template's language, with the indent of its lines.
pub(super) fn fill(template: &str, facts: &SetupFacts) -> String {
    let Some(port) = port(facts) else {
        let mut parts = template.split(BEGIN);
        let first = parts.next().unwrap_or_default().to_owned();
        let rest = parts.filter_map(|part| part.split_once(END));
        return rest.fold(first, |text, (_, after)| text + after);
    };
    let allow = match &facts.endpoint {
        Some(endpoint) => endpoint.to_string(),
        None => "rds".to_owned(),
    };
    let mut text = template.replace(BEGIN, "").replace(END, "");
    text = text.replace("@relay-port@", &port.to_string());
    text = text.replace("@relay-allow@", &allow);
    // The unit is indented like its mark.
    let mark = "@relay-unit@";
    while let Some(at) = text.find(mark) {
        let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
        let indent = text[line..at].to_owned();
        let unit: Vec<&str> = unit().collect();
        text = text.replacen(mark, &unit.join(&format!("\n{indent}")), 1);
    }
    text
}

/// Returns the lines of the unit, without comments.
fn unit() -> impl Iterator<Item = &'static str> {
    UNIT.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
}

/// Returns notes on the relay.
pub(super) fn notes(facts: &SetupFacts, endpoints: bool) -> Vec<String> {
    let Some(port) = port(facts) else {
        return Vec::new();
    };
    let value = match port {
        DEFAULT_RELAY_PORT => "\"auto\"".to_owned(),
        port => port.to_string(),
    };
    let mut notes = vec![
        "The relay's program: upload the program from pgiam's Linux archive for the instance's architecture to a bucket, and set the bucket, the key and the SHA-256 (sha256sum pgiam), or set a URL in place of bucket and key.".to_owned(),
        format!("Then add relay = {value} to the target, next to bastion."),
    ];
    if endpoints {
        notes.push("Without another way out, the instance reaches a bucket only through a gateway endpoint for S3 in its VPC: set its prefix list, which aws ec2 describe-managed-prefix-lists shows.".to_owned());
    }
    notes
}
