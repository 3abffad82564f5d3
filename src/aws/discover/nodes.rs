//! Managed nodes: data from Systems Manager, completed with data from EC2.

use std::collections::{HashMap, HashSet};
use std::task::Context;

use aws_sdk_ssm::operation::describe_instance_information::DescribeInstanceInformationOutput;
use aws_sdk_ssm::types::{InstanceInformation, InstanceInformationStringFilter, PingStatus};
use aws_smithy_types::date_time::Format;
use tracing::debug;

use super::ask::LookupContext;
use super::ec2::{self, InstanceFacts};
use super::{DiscoverError, FailedCall, Node, PartialListing, is_id};
use crate::aws::NODES_A_PAGE;
use crate::base::error_text::chain;
use crate::base::foreign_text::ForeignText;

/// Key of the tag that marks a node as a bastion, whatever its value. Systems Manager filters by
/// it, so no EC2 permission is needed.
pub const MARK: &str = "pgiam:bastion";
pub(super) const LIST: &str = "ssm:DescribeInstanceInformation";

/// Returns every managed node, sorted by id.
///
/// # Errors
/// [`DiscoverError`] when Systems Manager does not list them.
pub(super) async fn all(asker: &LookupContext<'_>) -> Result<PartialListing<Node>, DiscoverError> {
    let (listed, marked) = tokio::join!(list(asker, None), list(asker, Some(MARK)));
    let (marked, listed) = match (marked, listed) {
        (Ok(marked), Ok(listed)) => (marked, listed),
        // The full list timed out, but the marked nodes are known.
        (Ok(marked), Err(error)) if !marked.is_empty() => {
            debug!(reason = &*chain(&error), "cannot list all managed nodes");
            (marked.clone(), marked)
        }
        (_, Err(error)) | (Err(error), _) => return Err(error),
    };
    let marked: HashSet<_> = marked.into_iter().map(|node| node.id).collect();
    let mut found = listed;
    for node in &mut found {
        node.marked = marked.contains(&node.id);
    }
    found.sort_by(|a, b| a.id.cmp(&b.id));
    found.dedup_by(|a, b| a.id == b.id);
    let ids: Vec<&str> = found.iter().map(|node| node.id.as_str()).collect();
    let ids: Vec<&str> = ids.into_iter().filter(|id| id.starts_with("i-")).collect();
    let missing = match ec2::machines(&asker.optional(), &ids).await {
        Ok(machines) => {
            describe(&mut found, machines);
            Vec::new()
        }
        Err(error) => vec![FailedCall {
            action: ec2::LIST,
            error,
        }],
    };
    Ok(PartialListing { found, missing })
}

async fn list(asker: &LookupContext<'_>, tag: Option<&str>) -> Result<Vec<Node>, DiscoverError> {
    let filter = tag.and_then(|tag| {
        let filter = InstanceInformationStringFilter::builder();
        filter.key("tag-key").values(tag).build().ok()
    });
    let client = asker.aws.ssm(asker.region).await?;
    let mut pages = client
        .describe_instance_information()
        .max_results(NODES_A_PAGE)
        .set_filters(filter.map(|filter| vec![filter]))
        .into_paginator()
        .send();
    let next = |cx: &mut Context<'_>| pages.poll_next(cx);
    let nodes = |page: DescribeInstanceInformationOutput| {
        let listed = page.instance_information_list.unwrap_or_default();
        listed.into_iter().filter_map(node)
    };
    asker.list(LIST, next, nodes).await
}

/// Converts an entry to a node; `None` for an entry without id.
fn node(information: InstanceInformation) -> Option<Node> {
    let ping = information.ping_status;
    let last_ping = information.last_ping_date_time;
    // The computer name includes the domain, which every node of a VPC has.
    let computer = information.computer_name;
    let computer = computer.map(|name| name.split('.').next().unwrap_or_default().to_owned());
    Some(Node {
        id: information.instance_id.filter(|id| is_id(id))?.into(),
        name: information.name.or(computer).map(shown),
        online: ping == Some(PingStatus::Online),
        ping: ping.map_or_else(
            || "unknown".to_owned(),
            |ping| shown(ping.as_str().to_owned()),
        ),
        last_ping: last_ping.and_then(|at| at.fmt(Format::DateTime).ok()),
        agent: information.agent_version.map(shown),
        platform: information
            .platform_type
            .map(|platform| shown(platform.as_str().to_owned())),
        vpc: None,
        marked: false,
    })
}

/// Sanitizes a text from AWS for display.
fn shown(text: String) -> String {
    ForeignText::from(text).into_string()
}

fn describe(nodes: &mut [Node], mut machines: HashMap<String, InstanceFacts>) {
    for node in nodes {
        let Some(machine) = machines.remove(node.id.as_str()) else {
            continue;
        };
        node.vpc = machine.vpc.filter(|vpc| is_id(vpc));
        let name = machine.name.map(shown);
        node.name = name.or(node.name.take());
    }
}
