//! `ssm:DescribeInstanceInformation`: the managed nodes, and the connection of their agents to
//! Systems Manager.

use std::time::Duration;

use aws_sdk_ssm::Client;
use aws_sdk_ssm::operation::describe_instance_information::DescribeInstanceInformationOutput;
use aws_sdk_ssm::types::{InstanceInformation, InstanceInformationStringFilter, PingStatus};
use aws_smithy_types::date_time::Format;
use tracing::debug;

use super::refusal;
use crate::aws::discover::is_id;
use crate::aws::{NODES_A_PAGE, in_words, pages};
use crate::base::foreign_text::ForeignText;
use crate::base::names::{NodeId, Region};
use crate::tunnel::{ApiRefusal, BastionCandidate, BastionState, TunnelError};

const LIST: &str = "DescribeInstanceInformation";
/// Timeout for looking up a node's status. The refusal it explains waits for it.
const STATUS_DEADLINE: Duration = Duration::from_secs(3);

/// A managed node as Systems Manager reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::tunnel::ssm) struct ManagedNode {
    /// `i-…` or `mi-…`.
    pub(in crate::tunnel::ssm) id: NodeId,
    /// Its agent was in contact recently. Systems Manager takes minutes to notice that it is not.
    pub(in crate::tunnel::ssm) online: bool,
    /// `Online`, `ConnectionLost`, `Inactive`.
    pub(in crate::tunnel::ssm) ping: String,
    /// Last contact of its agent, as in RFC 3339.
    pub(in crate::tunnel::ssm) last_ping: Option<String>,
    /// The agent's version.
    pub(in crate::tunnel::ssm) agent: Option<String>,
}

fn shown(text: String) -> String {
    ForeignText::from(text).into_string()
}

impl ManagedNode {
    /// Returns `None` for an entry without id, which is useless.
    fn of(information: InstanceInformation) -> Option<Self> {
        let last_ping = information
            .last_ping_date_time
            .and_then(|at| at.fmt(Format::DateTime).ok());
        let ping = information.ping_status;
        Some(Self {
            id: information.instance_id.filter(|id| is_id(id))?.into(),
            online: ping == Some(PingStatus::Online),
            ping: ping.map_or_else(
                || "unknown".to_owned(),
                |ping| shown(ping.as_str().to_owned()),
            ),
            last_ping,
            agent: information.agent_version.map(shown),
        })
    }

    fn state(&self) -> BastionState {
        BastionState::Known {
            online: self.online,
            ping: self.ping.clone(),
            last_ping: self.last_ping.clone(),
            agent: self.agent.clone(),
        }
    }
}

/// Returns the managed nodes with a tag: those that are online first, each group by id.
///
/// # Errors
/// [`TunnelError::Api`] with AWS's answer, [`TunnelError::ApiUnreachable`],
/// [`TunnelError::Credentials`], [`TunnelError::BadAnswer`] for an endless list.
pub(in crate::tunnel::ssm) async fn online_nodes(
    client: &Client,
    region: &Region,
    key: &str,
    value: &str,
) -> Result<Vec<ManagedNode>, TunnelError> {
    let wanted = format!("tag {key}={value}");
    let mut pages = client
        .describe_instance_information()
        .max_results(NODES_A_PAGE)
        .set_filters(filter(&format!("tag:{key}"), [value]))
        .into_paginator()
        .send();
    let nodes = |page: DescribeInstanceInformationOutput| {
        let listed = page.instance_information_list.unwrap_or_default();
        listed.into_iter().filter_map(ManagedNode::of)
    };
    let listed = pages::all(|cx| pages.poll_next(cx), nodes).await;
    let nodes = listed
        .map_err(|error| refusal(&error, LIST, &wanted, region))?
        .map_err(|endless| TunnelError::BadAnswer {
            operation: LIST,
            reason: endless.to_string().into(),
        })?;
    Ok(ordered(nodes))
}

/// Returns ids in a fixed order, so that all users of a tag share the same node and its sessions,
/// and the logs of two days can be compared.
fn ordered(mut nodes: Vec<ManagedNode>) -> Vec<ManagedNode> {
    nodes.sort_by(|a, b| (!a.online, &a.id).cmp(&(!b.online, &b.id)));
    nodes
}

/// Returns the filter of both lookups; `None` when it would have no value, which the API refuses.
fn filter<'a>(
    key: &str,
    values: impl IntoIterator<Item = &'a str>,
) -> Option<Vec<InstanceInformationStringFilter>> {
    let values = values.into_iter().map(str::to_owned).collect();
    let filter = InstanceInformationStringFilter::builder()
        .key(key)
        .set_values(Some(values))
        .build();
    filter.ok().map(|filter| vec![filter])
}

/// Returns Systems Manager's information about some nodes, within a deadline; `None` without an
/// answer. A user with permission to start sessions may lack it for this call.
async fn node_status(client: &Client, ids: &[&str]) -> Option<Vec<ManagedNode>> {
    let call = client
        .describe_instance_information()
        .set_filters(filter("InstanceIds", ids.iter().copied()))
        .send();
    match tokio::time::timeout(STATUS_DEADLINE, call).await {
        Ok(Ok(answer)) => {
            let listed = answer.instance_information_list.unwrap_or_default();
            Some(listed.into_iter().filter_map(ManagedNode::of).collect())
        }
        Ok(Err(error)) => {
            debug!(
                reason = &*in_words(&error),
                "cannot get the status of the managed node"
            );
            None
        }
        Err(_) => {
            debug!("getting the status of the managed node timed out");
            None
        }
    }
}

/// Adds the node's status to a `TargetNotConnected`: its ping status and last ping, or that Systems
/// Manager does not know it. Best effort, at most [`STATUS_DEADLINE`]; every other error is
/// returned at once.
pub(in crate::tunnel::ssm) async fn explained(client: &Client, error: TunnelError) -> TunnelError {
    let TunnelError::Api {
        operation,
        kind: ApiRefusal::TargetNotConnected,
        mut answer,
        bastion,
        region,
    } = error
    else {
        return error;
    };
    if is_node(&bastion)
        && let Some(nodes) = node_status(client, &[&bastion]).await
    {
        let node = nodes.iter().find(|node| node.id == bastion);
        let status = status(node, &region);
        answer.message = format!("{} {status}", answer.message).trim().into();
    }
    TunnelError::Api {
        operation,
        kind: ApiRefusal::TargetNotConnected,
        answer,
        bastion,
        region,
    }
}

/// A container is not a managed node of its own.
fn is_node(id: &str) -> bool {
    id.starts_with("i-") || id.starts_with("mi-")
}

/// Returns Systems Manager's information about each of these. Best effort, at most
/// [`STATUS_DEADLINE`].
pub(in crate::tunnel::ssm) async fn carriers(
    client: &Client,
    ids: Vec<NodeId>,
) -> Vec<BastionCandidate> {
    let asked: Vec<&str> = ids.iter().map(NodeId::as_str).collect();
    let asked: Vec<&str> = asked.into_iter().filter(|id| is_node(id)).collect();
    let nodes = match asked.is_empty() {
        true => None,
        false => node_status(client, &asked).await,
    };
    let state = |id: &str| match &nodes {
        Some(nodes) if is_node(id) => nodes
            .iter()
            .find(|node| node.id == id)
            .map_or(BastionState::Unlisted, ManagedNode::state),
        _ => BastionState::Unknown,
    };
    let states: Vec<BastionState> = ids.iter().map(|id| state(id)).collect();
    let both = ids.into_iter().zip(states);
    both.map(|(id, state)| BastionCandidate { id, state })
        .collect()
}

fn status(node: Option<&ManagedNode>, region: &Region) -> String {
    let Some(node) = node else {
        return format!("Systems Manager has no node with this id in {region}.");
    };
    let last = match &node.last_ping {
        Some(at) => format!(", last ping {at}"),
        None => String::new(),
    };
    let agent = match &node.agent {
        Some(version) => format!(", agent {version}"),
        None => String::new(),
    };
    format!("Ping status {}{last}{agent}.", node.ping)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, ping: &str) -> ManagedNode {
        ManagedNode {
            id: id.to_owned().into(),
            online: ping == "Online",
            ping: ping.to_owned(),
            last_ping: None,
            agent: None,
        }
    }

    #[test]
    fn online_nodes_come_first_and_each_group_by_id() {
        let nodes = ordered(vec![
            node("i-3", "Online"),
            node("i-2", "ConnectionLost"),
            node("mi-1", "Online"),
            node("i-1", "Inactive"),
            node("i-0", "Online"),
        ]);
        let ids: Vec<_> = nodes.iter().map(|node| node.id.as_str()).collect();
        assert_eq!(ids, ["i-0", "i-3", "mi-1", "i-1", "i-2"]);
    }

    #[test]
    fn the_status_says_what_is_known() {
        let mut known = node("i-1", "ConnectionLost");
        assert_eq!(
            status(Some(&known), &"x".into()),
            "Ping status ConnectionLost."
        );
        known.last_ping = Some("2026-10-01T12:00:00Z".to_owned());
        known.agent = Some("3.3.0.0".to_owned());
        assert_eq!(
            status(Some(&known), &"x".into()),
            "Ping status ConnectionLost, last ping 2026-10-01T12:00:00Z, agent 3.3.0.0."
        );
        assert_eq!(
            status(None, &"eu-central-1".into()),
            "Systems Manager has no node with this id in eu-central-1."
        );
    }
}
