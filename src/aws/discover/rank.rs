//! Ranking of managed nodes as bastions.

use std::cmp::Reverse;

use super::nodes::MARK;
use super::{FailedCall, Node, PartialListing};

/// Words in a node name that indicate a bastion.
const NAMES: [&str; 2] = ["bastion", "jump"];

/// A usable node, and the reason for its rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RankedNode {
    /// The node.
    pub node: Node,
    /// Reason for its rank, in a few words.
    pub why: String,
}

/// The managed nodes that can carry a tunnel.
#[derive(Clone, Debug, Default)]
pub struct NodeRanking {
    /// Online nodes, best first.
    pub nodes: Vec<RankedNode>,
    /// Number of nodes at the head of the list with equal rank: only their ids decide the order.
    pub equals: usize,
    /// Offline nodes, best first.
    pub offline: Vec<RankedNode>,
    /// Note about the choice for the user.
    pub note: Option<String>,
    /// Calls that failed, so that information is missing.
    pub missing: Vec<FailedCall>,
}

/// Location of a node relative to the database, in order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum NodeLocation {
    /// In the database's VPC.
    Same,
    /// The VPC of the node or of the database is unknown.
    Unknown,
    /// In another VPC.
    Other,
}

impl NodeLocation {
    fn of(node: &Node, vpc: Option<&str>) -> Self {
        match (node.vpc.as_deref(), vpc) {
            (Some(own), Some(vpc)) if own == vpc => Self::Same,
            (Some(_), Some(_)) => Self::Other,
            _ => Self::Unknown,
        }
    }
}

/// Ranks nodes as bastions for a database in `vpc`. Nodes that are known to be in another VPC are
/// left out, unless they are marked or there are no others.
pub(super) fn rank(seen: PartialListing<Node>, vpc: Option<&str>) -> NodeRanking {
    let PartialListing { found, missing } = seen;
    let elsewhere = |node: &Node| NodeLocation::of(node, vpc) == NodeLocation::Other;
    let (online, offline): (Vec<_>, Vec<_>) = found.into_iter().partition(|node| node.online);
    let is_only = online.len() == 1;
    let (far, near): (Vec<_>, Vec<_>) = online.into_iter().partition(elsewhere);
    // The VPC of a marked node may be connected to the database's VPC: such a node comes last.
    let marked = far.iter().filter(|node| node.marked).cloned();
    let (mut nodes, is_far) = match near.is_empty() {
        true => (far, true),
        false => (near.into_iter().chain(marked).collect(), false),
    };
    let key = |node: &Node| (elsewhere(node), sort_key(node, vpc), node.id.clone());
    nodes.sort_by_key(key);
    let equals = match nodes.first() {
        Some(first) => {
            let best = sort_key(first, vpc);
            nodes
                .iter()
                .take_while(|node| !elsewhere(node) || is_far)
                .take_while(|node| sort_key(node, vpc) == best)
                .count()
        }
        None => 0,
    };
    let mut offline: Vec<Node> = offline
        .into_iter()
        .filter(|node| node.marked || !elsewhere(node))
        .collect();
    offline.sort_by_key(key);
    let note = match (nodes.first(), vpc) {
        (Some(first), Some(vpc)) if is_far => Some(format!(
            "no online managed node is in the database's VPC {vpc}; {} is in {} and can reach the database only if the VPCs are connected (peering, transit gateway)",
            first.id,
            first.vpc.as_deref().unwrap_or("another VPC"),
        )),
        _ => None,
    };
    let candidate = |node: Node| {
        let why = reason(&node, vpc, is_only);
        RankedNode { node, why }
    };
    NodeRanking {
        equals,
        nodes: nodes.into_iter().map(candidate).collect(),
        offline: offline.into_iter().map(candidate).collect(),
        note,
        missing,
    }
}

/// Sort key of a node; a smaller key is better.
fn sort_key(node: &Node, vpc: Option<&str>) -> (Reverse<bool>, NodeLocation, bool, Reverse<bool>) {
    let marked = Reverse(node.marked);
    let named = Reverse(named(node).is_some());
    (marked, NodeLocation::of(node, vpc), !is_linux(node), named)
}

fn is_linux(node: &Node) -> bool {
    node.platform.as_deref() == Some("Linux")
}

/// Returns the node's name if it indicates a bastion.
fn named(node: &Node) -> Option<&str> {
    let name = node.name.as_deref()?;
    let lower = name.to_ascii_lowercase();
    NAMES
        .iter()
        .any(|word| lower.contains(word))
        .then_some(name)
}

fn reason(node: &Node, vpc: Option<&str>, is_only: bool) -> String {
    let mut why = Vec::new();
    if node.marked {
        why.push(format!("tag {MARK}"));
    }
    match NodeLocation::of(node, vpc) {
        NodeLocation::Same => why.push("same VPC".to_owned()),
        NodeLocation::Other => why.push("another VPC".to_owned()),
        NodeLocation::Unknown => {}
    }
    if let Some(name) = named(node) {
        why.push(format!("named {name}"));
    }
    if !node.online {
        why.push("offline".to_owned());
    } else if is_only {
        why.push("the only one online".to_owned());
    }
    if why.is_empty() {
        why.push("online".to_owned());
    }
    why.join(", ")
}
