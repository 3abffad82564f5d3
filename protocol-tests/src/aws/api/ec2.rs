//! `ec2:DescribeInstances`.

use http::StatusCode;

use super::query::{Call, EC2, Filter, unknown};
use super::xml::Xml;
use super::{ApiError, allow};
use crate::aws::inventory::Ec2Instance;

/// Least and most items that may be asked for on a page.
const PAGE: std::ops::RangeInclusive<usize> = 5..=1000;
/// When everything was started.
const STARTED: &str = "2025-03-01T09:30:00.000Z";

pub(super) fn answer(call: &Call<'_>, action: &str) -> Result<Xml, ApiError> {
    match action {
        "DescribeInstances" => describe(call),
        _ => Err(unknown(&EC2, action)),
    }
}

fn describe(call: &Call<'_>) -> Result<Xml, ApiError> {
    check_permission(call)?;
    if call.form.get("DryRun") == Some("true") {
        let text = "Request would have succeeded, but DryRun flag is set.";
        return Err(ApiError {
            status: StatusCode::PRECONDITION_FAILED,
            ..ApiError::new("DryRunOperation", text)
        });
    }
    let ids = call.form.values("InstanceId");
    let filters = call.form.filters("Filter", "Value");
    check_filters(&filters)?;
    let mut found = call.cloud.inventory.lists().machines;
    check_ids(&ids, |id| found.contains_key(id))?;
    found.retain(|id, machine| {
        let named = ids.is_empty() || ids.contains(&id.as_str());
        named && filters.iter().all(|filter| fits(filter, machine))
    });
    page(call, &ids, found.into_values().collect())
}

/// EC2 puts a sentence of its own before that of IAM, and names no resource: lists have none.
fn check_permission(call: &Call<'_>) -> Result<(), ApiError> {
    let action = "ec2:DescribeInstances";
    allow(call.user, action, action, "*").map_err(|error| {
        let words = error.message.replace(" on resource: *", "");
        ApiError {
            status: StatusCode::FORBIDDEN,
            code: "UnauthorizedOperation".to_owned(),
            message: format!("You are not authorized to perform this operation. {words}"),
        }
    })
}

fn check_ids(ids: &[&str], known: impl Fn(&str) -> bool) -> Result<(), ApiError> {
    let is_id = |id: &str| {
        let digits = id.strip_prefix("i-").unwrap_or_default();
        matches!(digits.len(), 8 | 17) && digits.bytes().all(|b| b.is_ascii_hexdigit())
    };
    if let Some(id) = ids.iter().find(|id| !is_id(id)) {
        let text = format!("Invalid id: \"{id}\"");
        return Err(ApiError::new("InvalidInstanceID.Malformed", text));
    }
    let missing: Vec<&str> = ids.iter().copied().filter(|id| !known(id)).collect();
    let text = match missing[..] {
        [] => return Ok(()),
        [id] => format!("The instance ID '{id}' does not exist"),
        _ => format!("The instance IDs '{}' do not exist", missing.join(", ")),
    };
    Err(ApiError::new("InvalidInstanceID.NotFound", text))
}

fn check_filters(filters: &[Filter<'_>]) -> Result<(), ApiError> {
    const KNOWN: [&str; 8] = [
        "instance-id",
        "instance-state-code",
        "instance-state-name",
        "private-ip-address",
        "subnet-id",
        "tag-key",
        "tag-value",
        "vpc-id",
    ];
    for filter in filters {
        let text = if !KNOWN.contains(&filter.name) && !filter.name.starts_with("tag:") {
            format!("The filter '{}' is invalid", filter.name)
        } else if filter.values.is_empty() {
            "The filter must have at least one value".to_owned()
        } else {
            continue;
        };
        return Err(ApiError::new("InvalidParameterValue", text));
    }
    Ok(())
}

fn fits(filter: &Filter<'_>, machine: &Ec2Instance) -> bool {
    let any = |value: &str| filter.values.iter().any(|pattern| is_like(value, pattern));
    let some = |value: &Option<String>| value.as_deref().is_some_and(any);
    if let Some(name) = filter.name.strip_prefix("tag:") {
        return machine.tags.get(name).is_some_and(|value| any(value));
    }
    match filter.name {
        "instance-id" => any(&machine.id),
        "instance-state-code" => any(&state_code(&machine.state).to_string()),
        "instance-state-name" => any(&machine.state),
        "private-ip-address" => some(&machine.private_ip),
        "subnet-id" => some(&machine.subnet),
        "tag-key" => machine.tags.keys().any(|name| any(name)),
        "tag-value" => machine.tags.values().any(|value| any(value)),
        _ => some(&machine.vpc),
    }
}

/// Filter values may hold `*` for any text, `?` for any character, and a backslash before one of
/// them that stands for itself (EC2 user guide, "List and filter using the CLI and API").
fn is_like(value: &str, pattern: &str) -> bool {
    let mut rest = pattern.chars();
    let Some(first) = rest.next() else {
        return value.is_empty();
    };
    let mut tail = value.chars();
    match first {
        '*' => {
            let mut ends = value.char_indices().map(|(at, _)| at).chain([value.len()]);
            ends.any(|at| is_like(&value[at..], rest.as_str()))
        }
        '?' => tail.next().is_some() && is_like(tail.as_str(), rest.as_str()),
        _ => {
            let mut escaped = rest.clone();
            let (literal, rest) = match (first, escaped.next()) {
                ('\\', Some(c)) => (c, escaped),
                _ => (first, rest),
            };
            tail.next() == Some(literal) && is_like(tail.as_str(), rest.as_str())
        }
    }
}

fn page(call: &Call<'_>, ids: &[&str], found: Vec<Ec2Instance>) -> Result<Xml, ApiError> {
    let asked = call.form.number("MaxResults")?;
    if let Some(most) = asked {
        if !ids.is_empty() {
            let text = "The parameter instancesSet cannot be used with the parameter maxResults";
            return Err(ApiError::new("InvalidParameterCombination", text));
        }
        if !PAGE.contains(&most) {
            let text = format!(
                "Value ( {most} ) for parameter maxResults is invalid. Expecting a value between \
                 {} and {}.",
                PAGE.start(),
                PAGE.end()
            );
            return Err(ApiError::new("InvalidParameterValue", text));
        }
    }
    let limit = call.cloud.api.page_size(asked.unwrap_or(*PAGE.end()));
    let start = match call.form.get("NextToken") {
        None => 0,
        Some(token) => token
            .strip_prefix("from-")
            .and_then(|n| n.parse().ok())
            .ok_or_else(|| {
                let text = format!("Value ( {token} ) for parameter nextToken is invalid.");
                ApiError::new("InvalidParameterValue", text)
            })?,
    };
    let end = start + limit;
    let more = (found.len() > end).then(|| format!("from-{end}"));
    let shown = found.into_iter().skip(start).take(limit);
    let mut xml = Xml::default();
    xml.list("reservationSet", "item", shown, |xml, machine| {
        describe_one(call, xml, &machine);
    })
    .maybe("nextToken", more);
    Ok(xml)
}

/// A reservation with one instance: each machine was started by itself.
fn describe_one(call: &Call<'_>, xml: &mut Xml, machine: &Ec2Instance) {
    let digits = machine.id.trim_start_matches("i-");
    let iam = &call.cloud.iam;
    let groups = |xml: &mut Xml| {
        xml.list(
            "groupSet",
            "item",
            &machine.security_groups,
            |xml, group| {
                xml.text("groupId", group).text("groupName", "sandbox");
            },
        );
    };
    xml.text("reservationId", format!("r-{digits}"))
        .text("ownerId", iam.account())
        .text("groupSet", "")
        .list("instancesSet", "item", [machine], |xml, machine| {
            xml.text("instanceId", &machine.id)
                .text("imageId", "ami-0a1b2c3d4e5f60718")
                .nest("instanceState", |xml| {
                    xml.text("code", state_code(&machine.state))
                        .text("name", &machine.state);
                })
                .text("privateDnsName", private_name(machine, iam.region()))
                .text("dnsName", "")
                .text("instanceType", "t4g.nano")
                .text("launchTime", STARTED)
                .nest("placement", |xml| {
                    xml.text("availabilityZone", format!("{}a", iam.region()))
                        .text("tenancy", "default");
                })
                .maybe("subnetId", machine.subnet.as_ref())
                .maybe("vpcId", machine.vpc.as_ref())
                .maybe("privateIpAddress", machine.private_ip.as_ref());
            groups(xml);
            xml.text("architecture", "arm64")
                .list("tagSet", "item", &machine.tags, |xml, (name, value)| {
                    xml.text("key", name).text("value", value);
                })
                .text("platformDetails", "Linux/UNIX");
        });
}

fn private_name(machine: &Ec2Instance, region: &str) -> String {
    let address = machine.private_ip.as_deref();
    let name = address.map(|ip| format!("ip-{}.{region}.compute.internal", ip.replace('.', "-")));
    name.unwrap_or_default()
}

fn state_code(state: &str) -> u8 {
    match state {
        "pending" => 0,
        "shutting-down" => 32,
        "terminated" => 48,
        "stopping" => 64,
        "stopped" => 80,
        _ => 16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_values_may_have_gaps() {
        for (value, pattern) in [
            ("bastion", "bastion"),
            ("bastion-1", "bastion*"),
            ("my-bastion-1", "*bastion?1"),
            ("", "*"),
            ("a*b", "a\\*b"),
            ("a\\", "a\\"),
        ] {
            assert!(is_like(value, pattern), "{value} {pattern}");
        }
        for (value, pattern) in [("bastion", "Bastion"), ("axb", "a\\*b"), ("", "?")] {
            assert!(!is_like(value, pattern), "{value} {pattern}");
        }
    }
}
