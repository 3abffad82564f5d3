//! `bastion = "auto"`: selects the most suitable nodes for the database.

use std::sync::Arc;

use tracing::{debug, info, warn};

use super::BastionSet;
use crate::aws::discover;
use crate::aws::discover::{DiscoverError, NodeRanking, RankedNode};
use crate::base::error_text::chain;
use crate::base::names::{NodeId, Region};
use crate::tunnel::TunnelError;
use crate::tunnel::ssm::api;

/// Most nodes to try. A user without access to the first few, or without a connection to the
/// database through them, should not go through all machines of an account.
const MOST: usize = 6;

impl BastionSet {
    pub(super) async fn choose(&self, region: &Region) -> Result<Vec<NodeId>, TunnelError> {
        let looking = discover::bastions(&self.aws, region, Some(&self.endpoint));
        let ranked = Box::pin(looking).await.map_err(in_tunnel)?;
        self.tell(&ranked);
        Ok(order(&ranked))
    }

    /// Logs the chosen node and the reason, if it differs from the last one.
    fn tell(&self, ranked: &NodeRanking) {
        for call in &ranked.missing {
            let (action, reason) = (call.action, chain(&call.error));
            let reason = &*reason;
            debug!(action, reason, "a call for the bastion lookup failed");
        }
        let Some(RankedNode { node, why }) = ranked.nodes.first() else {
            return;
        };
        let last = self.memory().told.replace(node.id.clone());
        if last.as_ref() == Some(&node.id) {
            return;
        }
        let others: Vec<&str> = ranked.nodes.iter().skip(1).take(MOST - 1).map(id).collect();
        let others = (!others.is_empty()).then(|| others.join(", "));
        let (name, others) = (node.name.as_deref(), others.as_deref());
        info!(id = %node.id, name, why, others, "found a bastion");
        if let Some(note) = &ranked.note {
            warn!("{note}");
        }
    }
}

fn id(candidate: &RankedNode) -> &str {
    &candidate.node.id
}

/// Orders nodes: online ones, then offline ones. Of the offline ones only marked nodes are used if
/// there are any, because another machine that is switched off is unlikely to be meant as a
/// bastion.
fn order(ranked: &NodeRanking) -> Vec<NodeId> {
    let none_online = ranked.nodes.is_empty();
    let offline = ranked.offline.iter();
    let offline = offline.filter(|one| none_online || one.node.marked);
    let all = ranked.nodes.iter().chain(offline).take(MOST);
    all.map(|one| one.node.id.clone()).collect()
}

/// Converts an error of the lookup to an error of the tunnel.
fn in_tunnel(error: DiscoverError) -> TunnelError {
    match error {
        DiscoverError::Credentials(error) => TunnelError::Credentials(Arc::new(error)),
        DiscoverError::NoRegion => TunnelError::NoRegion,
        DiscoverError::Refused {
            action,
            answer,
            region,
            ..
        } => TunnelError::Api {
            operation: action.split_once(':').map_or(action, |(_, call)| call),
            kind: api::classify(&answer.code, &answer.message),
            answer,
            bastion: "auto".to_owned(),
            region,
        },
        DiscoverError::Unreachable { region, reason, .. } => {
            let host = None;
            TunnelError::ApiUnreachable {
                region,
                host,
                reason,
            }
        }
        DiscoverError::Late(late) => TunnelError::Late(Box::new(late)),
        DiscoverError::Answer { action, reason } => TunnelError::BadAnswer {
            operation: action.split_once(':').map_or(action, |(_, call)| call),
            reason,
        },
        // Errors of a database lookup, which was not requested.
        other @ (DiscoverError::NoDatabase { .. } | DiscoverError::Unusable { .. }) => {
            TunnelError::Protocol {
                reason: other.to_string().into(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::discover::Node;

    fn candidate(id: &str, online: bool, marked: bool) -> RankedNode {
        let node = Node {
            id: id.to_owned().into(),
            name: None,
            online,
            ping: String::new(),
            last_ping: None,
            agent: None,
            platform: None,
            vpc: None,
            marked,
        };
        RankedNode {
            node,
            why: String::new(),
        }
    }

    #[test]
    fn nodes_that_are_off_come_last_if_they_are_meant() {
        let off = |id, marked| candidate(id, false, marked);
        let mut ranked = NodeRanking {
            nodes: vec![candidate("i-1", true, false), candidate("i-2", true, false)],
            offline: vec![off("i-3", true), off("i-4", false)],
            ..NodeRanking::default()
        };
        assert_eq!(order(&ranked), ["i-1", "i-2", "i-3"]);
        ranked.nodes.clear();
        assert_eq!(order(&ranked), ["i-3", "i-4"]);
        ranked.offline.clear();
        assert!(order(&ranked).is_empty());
        ranked.nodes = (0..20)
            .map(|n| candidate(&format!("i-{n}"), true, false))
            .collect();
        assert_eq!(order(&ranked).len(), MOST);
    }
}
