//! Selects the managed nodes for a target's next session, in the order to try.

mod auto;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_ssm::Client;
use tokio::time::Instant;
use tracing::debug;

use super::api::nodes::{self, ManagedNode};
use crate::aws::AwsContext;
use crate::aws::calls::within;
use crate::base::names::{NodeId, Region};
use crate::config::{Bastion, Endpoint};
use crate::tunnel::{ApiRefusal, TunnelError};

/// Age at which the list of nodes is looked up again.
const LOOKUP_AGE: Duration = Duration::from_secs(60);
/// Timeout for looking them up, all pages together.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(16);
/// Time for which a failed node is tried after all others. A restart of the node or of its agent
/// takes about as long.
const FAILURE_AGE: Duration = Duration::from_secs(60);
/// Part of IAM's refusals that shows a missing permission on the document, which is the same for
/// all nodes.
const OF_DOCUMENT: &str = ":document/";

/// The nodes of one target, and their recent failures.
pub(super) struct BastionSet {
    wanted: Bastion,
    /// AWS context for the lookup of unnamed nodes, and the database they are for.
    aws: Arc<AwsContext>,
    endpoint: Endpoint,
    memory: Mutex<BastionFailures>,
}

#[derive(Default)]
struct BastionFailures {
    /// The nodes found, and the time of the lookup.
    found: Option<(Instant, Vec<NodeId>)>,
    /// The node last logged as chosen.
    told: Option<NodeId>,
    failed: HashMap<NodeId, Instant>,
}

impl BastionSet {
    pub(super) fn new(wanted: Bastion, aws: Arc<AwsContext>, endpoint: Endpoint) -> Self {
        Self {
            wanted,
            aws,
            endpoint,
            memory: Mutex::new(BastionFailures::default()),
        }
    }

    /// Returns the nodes to try, in order; never empty. Nodes configured by id keep their order.
    /// Nodes found by lookup begin with the online ones (offline ones follow, because Systems
    /// Manager notices an agent that is back only after minutes). Recently failed nodes come last.
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`TunnelError::NoBastion`], and as for [`nodes::online_nodes`] when they had to be looked
    /// up.
    pub(super) async fn candidates(
        &self,
        client: &Client,
        region: &Region,
    ) -> Result<Vec<NodeId>, TunnelError> {
        if let Bastion::Nodes(ids) = &self.wanted {
            return Ok(self.memory().ordered(ids));
        }
        if let Some(ids) = self.memory().looked_up() {
            return Ok(ids);
        }
        let looking = self.look(client, region);
        let until = Instant::now() + LOOKUP_DEADLINE;
        let ids = within("ssm:DescribeInstanceInformation", until, looking).await;
        let ids = ids.unwrap_or_else(|late| Err(TunnelError::Late(Box::new(late))));
        match ids {
            Ok(ids) => self.found(ids, region),
            Err(error) => self.found_before(error),
        }
    }

    async fn look(&self, client: &Client, region: &Region) -> Result<Vec<NodeId>, TunnelError> {
        let Bastion::Tag { key, value } = &self.wanted else {
            return self.choose(region).await;
        };
        let nodes: Vec<ManagedNode> = nodes::online_nodes(client, region, key, value).await?;
        for node in &nodes {
            debug!(id = %node.id, ping = node.ping, agent = ?node.agent, "managed node with {}", self.wanted);
        }
        Ok(nodes.into_iter().map(|node| node.id).collect())
    }

    fn found(&self, ids: Vec<NodeId>, region: &Region) -> Result<Vec<NodeId>, TunnelError> {
        if ids.is_empty() {
            return Err(TunnelError::NoBastion {
                wanted: self.wanted.to_string(),
                region: region.to_owned(),
            });
        }
        let mut memory = self.memory();
        let ordered = memory.ordered(&ids);
        memory.found = Some((Instant::now(), ids));
        Ok(ordered)
    }

    /// Returns the nodes of the last lookup when a new one failed: an error that also prevents a
    /// session is reported by StartSession.
    fn found_before(&self, error: TunnelError) -> Result<Vec<NodeId>, TunnelError> {
        let memory = self.memory();
        let Some((_, ids)) = &memory.found else {
            return Err(error);
        };
        debug!(reason = %error, "lookup of managed nodes with {} failed; using the nodes of the last lookup", self.wanted);
        Ok(memory.ordered(ids))
    }

    /// Records that this node provided no session, or no connection to the database.
    pub(super) fn failed(&self, id: &NodeId) {
        let mut memory = self.memory();
        memory.failed.insert(id.to_owned(), Instant::now());
        // All of them at once: most likely they were replaced by others with the same tag.
        if let Some((_, ids)) = &memory.found
            && ids.iter().all(|id| memory.has_failed(id))
        {
            memory.found = None;
        }
    }

    /// Returns true if there is a node without a recent failure, as far as is known.
    pub(super) fn has_others(&self) -> bool {
        let memory = self.memory();
        let found = memory.found.as_ref().map(|(_, ids)| ids);
        let ids = match &self.wanted {
            Bastion::Nodes(ids) => Some(ids),
            Bastion::Tag { .. } | Bastion::Auto => found,
        };
        ids.is_some_and(|ids| ids.iter().any(|id| !memory.has_failed(id)))
    }

    /// Records that this node provided a connection.
    pub(super) fn note_success(&self, id: &NodeId) {
        self.memory().failed.remove(id);
    }

    fn memory(&self) -> MutexGuard<'_, BastionFailures> {
        // Each change is one assignment; a panic cannot leave half of one.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BastionFailures {
    fn looked_up(&self) -> Option<Vec<NodeId>> {
        let (at, ids) = self.found.as_ref()?;
        (at.elapsed() < LOOKUP_AGE).then(|| self.ordered(ids))
    }

    fn ordered(&self, ids: &[NodeId]) -> Vec<NodeId> {
        let mut ids = ids.to_vec();
        ids.sort_by_key(|id| self.has_failed(id)); // Stable.
        ids
    }

    fn has_failed(&self, id: &NodeId) -> bool {
        let at = self.failed.get(id);
        at.is_some_and(|at| at.elapsed() < FAILURE_AGE)
    }
}

/// Returns true if another node may work after this error: it concerns the node, not the caller,
/// the local network, or AWS as a whole.
pub(super) fn should_try_next(error: &TunnelError) -> bool {
    match error {
        TunnelError::Api { kind, answer, .. } => match kind {
            ApiRefusal::TargetNotConnected => true,
            ApiRefusal::AccessDenied => !answer.message.contains(OF_DOCUMENT),
            // A mistyped id or an error at AWS: the next node costs one more call and gives an
            // answer.
            ApiRefusal::Other => true,
            ApiRefusal::DeniedByOrganisation
            | ApiRefusal::CredentialsExpired
            | ApiRefusal::CredentialsRejected
            | ApiRefusal::InvalidDocument
            | ApiRefusal::Throttled => false,
        },
        TunnelError::HandshakeTimeout { .. }
        | TunnelError::AgentTooOld { .. }
        | TunnelError::NoMultiplexing { .. }
        | TunnelError::DialRefused { .. }
        | TunnelError::DialTimeout { .. }
        | TunnelError::NameNotResolved { .. }
        | TunnelError::AgentSilent { .. }
        | TunnelError::SessionEnded { .. }
        | TunnelError::ChannelLost { .. }
        | TunnelError::Protocol { .. } => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::AwsOptions;
    use crate::aws::api_error::ApiAnswer;
    use crate::tunnel::EndCause;

    fn ids(list: &[&str]) -> Vec<NodeId> {
        list.iter().map(|&id| id.into()).collect()
    }

    fn bastions(wanted: Bastion) -> BastionSet {
        let aws = Arc::new(AwsContext::new(AwsOptions::default()));
        let host = "orders.cluster-abc.eu-central-1.rds.amazonaws.com".to_owned();
        BastionSet::new(wanted, aws, Endpoint { host, port: 5432 })
    }

    fn nodes(list: &[&str]) -> BastionSet {
        bastions(Bastion::Nodes(ids(list)))
    }

    /// A client that these tests never use: a list needs no lookup, and a tag has one behind it.
    fn nobody() -> Client {
        let config = aws_sdk_ssm::Config::builder()
            .behavior_version(aws_sdk_ssm::config::BehaviorVersion::latest())
            .build();
        Client::from_conf(config)
    }

    async fn order(bastions: &BastionSet) -> Vec<NodeId> {
        bastions
            .candidates(&nobody(), &"eu-central-1".into())
            .await
            .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_failed_goes_to_the_end_for_a_while() {
        let bastions = nodes(&["i-1", "i-2", "i-3"]);
        assert_eq!(order(&bastions).await, ["i-1", "i-2", "i-3"]);
        bastions.failed(&"i-1".into());
        assert_eq!(order(&bastions).await, ["i-2", "i-3", "i-1"]);
        tokio::time::advance(FAILURE_AGE / 2).await;
        bastions.failed(&"i-3".into());
        assert_eq!(order(&bastions).await, ["i-2", "i-1", "i-3"]);
        tokio::time::advance(FAILURE_AGE / 2).await;
        assert_eq!(order(&bastions).await, ["i-1", "i-2", "i-3"]);
    }

    #[tokio::test(start_paused = true)]
    async fn others_are_those_that_have_not_failed() {
        for bastions in [nodes(&["i-1", "i-2"]), with_tag(&["i-1", "i-2"])] {
            assert!(bastions.has_others());
            bastions.failed(&"i-1".into());
            assert!(bastions.has_others());
            bastions.failed(&"i-2".into());
            assert!(!bastions.has_others());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_works_again_takes_its_place() {
        let bastions = nodes(&["i-1", "i-2"]);
        bastions.failed(&"i-1".into());
        bastions.failed(&"i-2".into());
        assert_eq!(order(&bastions).await, ["i-1", "i-2"], "all have failed");
        bastions.note_success(&"i-2".into());
        assert_eq!(order(&bastions).await, ["i-2", "i-1"]);
    }

    fn with_tag(list: &[&str]) -> BastionSet {
        let bastions = bastions(Bastion::Tag {
            key: "Name".to_owned(),
            value: "bastion".to_owned(),
        });
        bastions.memory().found = Some((Instant::now(), ids(list)));
        bastions
    }

    #[tokio::test(start_paused = true)]
    async fn found_nodes_are_remembered_for_a_while() {
        let bastions = with_tag(&["i-1", "i-2"]);
        bastions.failed(&"i-1".into());
        assert_eq!(order(&bastions).await, ["i-2", "i-1"]);
        tokio::time::advance(LOOKUP_AGE).await;
        assert_eq!(bastions.memory().looked_up(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lookup_that_fails_leaves_the_nodes_of_the_last_one() {
        let bastions = with_tag(&["i-1", "i-2"]);
        bastions.failed(&"i-1".into());
        tokio::time::advance(LOOKUP_AGE).await;
        let again = bastions.found_before(TunnelError::NoRegion).unwrap();
        assert_eq!(again, ["i-1", "i-2"]);
        let nothing_yet = nodes(&[]);
        assert!(matches!(
            nothing_yet.found_before(TunnelError::NoRegion),
            Err(TunnelError::NoRegion)
        ));
    }

    #[test]
    fn a_tag_that_nobody_carries_is_named() {
        let error = with_tag(&[])
            .found(Vec::new(), &"eu-central-1".into())
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "no managed node in eu-central-1 matches tag Name=bastion"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn found_nodes_that_have_all_failed_are_looked_up_anew() {
        let bastions = with_tag(&["i-1", "i-2"]);
        bastions.failed(&"i-1".into());
        assert!(bastions.memory().found.is_some());
        bastions.failed(&"i-2".into());
        assert!(bastions.memory().found.is_none());
    }

    fn refused(kind: ApiRefusal, message: &str) -> TunnelError {
        TunnelError::Api {
            operation: "StartSession",
            kind,
            answer: ApiAnswer {
                code: "".into(),
                message: message.into(),
                request_id: None,
                clock: None,
            },
            bastion: "i-1".to_owned(),
            region: "eu-central-1".to_owned().into(),
        }
    }

    #[test]
    fn errors_about_the_node_lead_to_the_next_one() {
        let some = String::new;
        let endpoint = Endpoint {
            host: some(),
            port: 5432,
        };
        let of_node = "not authorized to perform: ssm:StartSession on resource: \
                       arn:aws:ec2:eu-central-1:111122223333:instance/i-1";
        let of_document = "not authorized to perform: ssm:StartSession on resource: \
                           arn:aws:ssm:eu-central-1::document/AWS-StartPortForwardingSessionToRemoteHost";
        for (next, error) in [
            (true, refused(ApiRefusal::TargetNotConnected, "")),
            (true, refused(ApiRefusal::AccessDenied, of_node)),
            (false, refused(ApiRefusal::AccessDenied, of_document)),
            (false, refused(ApiRefusal::DeniedByOrganisation, of_node)),
            (false, refused(ApiRefusal::CredentialsExpired, "")),
            (false, refused(ApiRefusal::CredentialsRejected, "")),
            (false, refused(ApiRefusal::InvalidDocument, "")),
            (false, refused(ApiRefusal::Throttled, "")),
            (true, refused(ApiRefusal::Other, "")),
            (
                true,
                TunnelError::HandshakeTimeout {
                    bastion: some(),
                    after: FAILURE_AGE,
                },
            ),
            (
                true,
                TunnelError::AgentTooOld {
                    bastion: some(),
                    version: some(),
                    needed: some(),
                },
            ),
            (
                true,
                TunnelError::NoMultiplexing {
                    bastion: some(),
                    version: some(),
                },
            ),
            (
                true,
                TunnelError::DialRefused {
                    bastion: some(),
                    endpoint: endpoint.clone(),
                },
            ),
            (
                true,
                TunnelError::DialTimeout {
                    bastion: some(),
                    endpoint,
                    after: FAILURE_AGE,
                },
            ),
            (
                true,
                TunnelError::SessionEnded {
                    cause: EndCause::Agent,
                    reason: some().into(),
                },
            ),
            (
                true,
                TunnelError::ChannelLost {
                    reason: some().into(),
                },
            ),
            (false, TunnelError::NoRegion),
            (
                false,
                TunnelError::ApiUnreachable {
                    region: some().into(),
                    host: None,
                    reason: some().into(),
                },
            ),
            (
                false,
                TunnelError::ChannelConnect {
                    host: some(),
                    port: 443,
                    reason: some().into(),
                },
            ),
            (
                false,
                TunnelError::DataKey {
                    key: some().into(),
                    denied: true,
                    reason: some().into(),
                },
            ),
            (false, TunnelError::ShuttingDown),
        ] {
            assert_eq!(should_try_next(&error), next, "{error:?}");
        }
    }

    #[test]
    fn an_unknown_name_and_a_silent_agent_lead_to_the_next_one() {
        let bastion = || "i-1".to_owned();
        let endpoint = Endpoint {
            host: "db".to_owned(),
            port: 5432,
        };
        let unknown = TunnelError::NameNotResolved {
            bastion: bastion(),
            endpoint,
            reason: "no such host".into(),
        };
        let silent = TunnelError::AgentSilent {
            bastion: bastion(),
            after: FAILURE_AGE,
        };
        assert!(should_try_next(&unknown) && should_try_next(&silent));
    }
}
