//! Which managed node is the best bastion.

use std::cmp::Reverse;

use super::nodes::MARK;
use super::{Missing, Node, Seen};

/// What a bastion's name has in it, if it says anything.
const NAMES: [&str; 2] = ["bastion", "jump"];

/// A node that can be taken, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node: Node,
    /// What speaks for it, in a few words.
    pub why: String,
}

/// The managed nodes that can carry a tunnel.
#[derive(Clone, Debug, Default)]
pub struct Ranked {
    /// Those that are online, the best first.
    pub nodes: Vec<Candidate>,
    /// How many of the first are equally good: between these, only the ids decide.
    pub equals: usize,
    /// Those that are not online, the best first.
    pub offline: Vec<Candidate>,
    /// What should be known about the choice.
    pub note: Option<String>,
    /// The calls that had no answer, so that less is known.
    pub missing: Vec<Missing>,
}

/// What is known about where a node is. The order is that of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// In the database's VPC.
    Same,
    /// It is not known where the node is, or where the database is.
    Unknown,
    /// In another VPC.
    Other,
}

impl Place {
    fn of(node: &Node, vpc: Option<&str>) -> Self {
        match (node.vpc.as_deref(), vpc) {
            (Some(own), Some(vpc)) if own == vpc => Self::Same,
            (Some(_), Some(_)) => Self::Other,
            _ => Self::Unknown,
        }
    }
}

/// Orders nodes as bastions for a database in `vpc`. Those that are known to be in another VPC are
/// left out, unless they are marked or there is no other one.
pub(super) fn rank(seen: Seen<Node>, vpc: Option<&str>) -> Ranked {
    let Seen { found, missing } = seen;
    let elsewhere = |node: &Node| Place::of(node, vpc) == Place::Other;
    let (online, offline): (Vec<_>, Vec<_>) = found.into_iter().partition(|node| node.online);
    let is_only = online.len() == 1;
    let (far, near): (Vec<_>, Vec<_>) = online.into_iter().partition(elsewhere);
    // Who has marked one in another VPC may have connected the two: it comes last.
    let marked = far.iter().filter(|node| node.marked).cloned();
    let (mut nodes, is_far) = match near.is_empty() {
        true => (far, true),
        false => (near.into_iter().chain(marked).collect(), false),
    };
    let key = |node: &Node| (elsewhere(node), merits(node, vpc), node.id.clone());
    nodes.sort_by_key(key);
    let equals = match nodes.first() {
        Some(first) => {
            let best = merits(first, vpc);
            nodes
                .iter()
                .take_while(|node| !elsewhere(node) || is_far)
                .take_while(|node| merits(node, vpc) == best)
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
            "no managed node that is online is in the database's VPC {vpc}; {} is in {}, from where there is a way only if the VPCs are connected (peering, transit gateway)",
            first.id,
            first.vpc.as_deref().unwrap_or("another one"),
        )),
        _ => None,
    };
    let candidate = |node: Node| {
        let why = why(&node, vpc, is_only);
        Candidate { node, why }
    };
    Ranked {
        equals,
        nodes: nodes.into_iter().map(candidate).collect(),
        offline: offline.into_iter().map(candidate).collect(),
        note,
        missing,
    }
}

/// What makes a node better than another, the least first.
fn merits(node: &Node, vpc: Option<&str>) -> (Reverse<bool>, Place, bool, Reverse<bool>) {
    let marked = Reverse(node.marked);
    let named = Reverse(named(node).is_some());
    (marked, Place::of(node, vpc), !is_linux(node), named)
}

fn is_linux(node: &Node) -> bool {
    node.platform.as_deref() == Some("Linux")
}

/// The node's name, if it is that of a bastion.
fn named(node: &Node) -> Option<&str> {
    let name = node.name.as_deref()?;
    let lower = name.to_ascii_lowercase();
    NAMES
        .iter()
        .any(|word| lower.contains(word))
        .then_some(name)
}

fn why(node: &Node, vpc: Option<&str>, is_only: bool) -> String {
    let mut why = Vec::new();
    if node.marked {
        why.push(format!("tag {MARK}"));
    }
    match Place::of(node, vpc) {
        Place::Same => why.push("same VPC".to_owned()),
        Place::Other => why.push("another VPC".to_owned()),
        Place::Unknown => {}
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
