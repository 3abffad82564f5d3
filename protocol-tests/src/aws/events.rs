//! What happened inside the sandbox, for tests to assert on and to wait for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::harness::sync::lock;

/// One observable fact. Never holds a secret: no token, no key, no signature.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// `ssm:StartSession` was granted.
    StartSession {
        /// The new session.
        session_id: String,
        /// Managed node the session goes to.
        target: String,
        /// `host` document parameter.
        host: String,
        /// `portNumber` document parameter.
        port: u16,
        /// Who asked.
        user_arn: String,
    },
    /// `ssm:StartSession` came with a `Reason`.
    SessionReason {
        /// The new session.
        session_id: String,
        /// The text for the account's log.
        reason: String,
    },
    /// `ssm:ResumeSession` was answered.
    ResumeSession {
        /// The session asked for.
        session_id: String,
        /// False when the answer had no token because the session is over.
        granted: bool,
    },
    /// `ssm:TerminateSession` was answered.
    TerminateSession {
        /// The session asked for.
        session_id: String,
    },
    /// An API call or a WebSocket upgrade was refused.
    ApiDenied {
        /// `service:Operation`.
        action: String,
        /// AWS error code.
        code: String,
    },
    /// A question of the Query protocol about the account was answered.
    Asked {
        /// `service:Action`.
        action: String,
        /// Who asked.
        user_arn: String,
    },
    /// STS gave credentials for a role.
    RoleAssumed {
        /// The role.
        role_arn: String,
        /// `RoleSessionName`.
        session_name: String,
        /// `DurationSeconds`, or its default.
        seconds: u64,
        /// `ExternalId`.
        external_id: Option<String>,
        /// Serial number of the MFA device, if a code was given.
        mfa: Option<String>,
        /// Caller; the text "web identity" without a signature.
        user_arn: String,
    },
    /// A call of SSO OIDC, the SSO portal or the sign-in service was answered.
    LoginCall {
        /// `service:Operation`, for example `sso-oidc:CreateToken`.
        action: String,
        /// The grant type, or the role asked for.
        detail: String,
    },
    /// A page of the sign-in was shown in a browser.
    PageShown {
        /// Path of the page.
        page: String,
    },
    /// The user has answered on a page of the sign-in.
    PageAnswered {
        /// Path of the page.
        page: String,
        /// The user pressed "Allow access".
        allowed: bool,
    },
    /// A client's WebSocket was accepted and its open message was right.
    GatewayConnected {
        /// The session it belongs to.
        session_id: String,
        /// Access key id that signed the upgrade.
        signed_by: String,
    },
    /// A WebSocket was turned away after the upgrade: wrong token, wrong first message, timeout.
    GatewayRefused {
        /// The session named in the path.
        session_id: String,
        /// What was wrong with it.
        reason: String,
    },
    /// A client's WebSocket is gone.
    GatewayClosed {
        /// The session it belonged to.
        session_id: String,
        /// Who ended it and how.
        reason: String,
    },
    /// An independent agent attached through the agent's side of the gateway.
    AgentConnected {
        /// The session it serves.
        session_id: String,
    },
    /// The session is over for good.
    SessionEnded {
        /// The session.
        session_id: String,
        /// Text that `channel_closed` carries.
        reason: String,
    },
    /// The built-in agent has sent HandshakeComplete.
    HandshakeComplete {
        /// The session.
        session_id: String,
        /// `ClientVersion` of the handshake response.
        client_version: String,
    },
    /// The built-in agent dialled for a new stream.
    Dial {
        /// The session.
        session_id: String,
        /// smux stream id.
        stream: u32,
        /// Name it was asked for.
        host: String,
        /// Port it was asked for.
        port: u16,
        /// `Err` holds the operating system's words.
        result: Result<(), String>,
    },
    /// A stream ended on the agent's side.
    StreamFinished {
        /// The session.
        session_id: String,
        /// smux stream id.
        stream: u32,
        /// Bytes written towards the database.
        to_server: u64,
        /// Bytes read from the database.
        from_server: u64,
    },
    /// The built-in agent resent its oldest unacknowledged message.
    AgentResent {
        /// The session.
        session_id: String,
        /// Sequence number.
        sequence: i64,
    },
    /// The built-in agent threw input away because its port handler was not ready.
    InputDropped {
        /// The session.
        session_id: String,
        /// Sequence number.
        sequence: i64,
    },
    /// The built-in agent acknowledged input and threw it away, because it had not noted yet that the
    /// handshake was complete.
    InputDiscarded {
        /// The session.
        session_id: String,
        /// Sequence number.
        sequence: i64,
    },
    /// The client broke the protocol in a way the real agent would stumble over or silently drop.
    Violation {
        /// The session.
        session_id: String,
        /// What it did.
        what: String,
    },
    /// A data key was made or decrypted by KMS.
    KmsCall {
        /// `GenerateDataKey` or `Decrypt`.
        operation: String,
        /// The key.
        key_arn: String,
        /// Names and values the data key is bound to.
        context: BTreeMap<String, String>,
        /// Who asked.
        user_arn: String,
    },
    /// The node's side of a session is gone.
    AgentLost {
        /// The session it served.
        session_id: String,
        /// Whether the agent could say goodbye.
        graceful: bool,
    },
    /// The database had an IAM token checked.
    DbToken {
        /// Role that logs in.
        db_user: String,
        /// Access key id that signed it, or why it was refused.
        outcome: Result<String, String>,
    },
    /// A client has made TLS with a front.
    FrontTls {
        /// Connections of a front are counted from 1.
        connection: u64,
        /// Without an SSLRequest before it.
        direct: bool,
        /// The protocol agreed on by ALPN.
        alpn: Option<String>,
        /// The name in the ClientHello.
        server_name: Option<String>,
        /// `TLSv1.3` or `TLSv1.2`.
        version: &'static str,
    },
    /// A client has sent a front its startup packet.
    FrontStartup {
        /// The connection.
        connection: u64,
        /// Whether it came in TLS.
        tls: bool,
        /// Major and minor version asked for.
        protocol: (u16, u16),
        /// Names and values in their order.
        parameters: Vec<(String, String)>,
    },
    /// A front has asked a client to prove who it is.
    FrontAuthRequest {
        /// The connection.
        connection: u64,
        /// Code of the Authentication message: 3 is a clear-text password, 10 is SASL.
        request: u32,
    },
    /// A front has refused a client with an error of its own; the server's are not counted.
    FrontRefused {
        /// The connection.
        connection: u64,
        /// SQLSTATE.
        code: String,
        /// Primary message.
        message: String,
    },
    /// A front has handed a CancelRequest on.
    FrontCancel {
        /// The connection.
        connection: u64,
        /// Whether it came in TLS.
        tls: bool,
        /// Bytes of the secret key.
        key_length: usize,
    },
    /// A connection over a [`Line`](crate::network::line::Line) has ended.
    LineClosed {
        /// Connections of a line are counted from 1.
        connection: u64,
        /// How often the client began to talk.
        up: u32,
        /// How often the server did.
        down: u32,
    },
}

impl Event {
    /// The session the event belongs to, when it belongs to one.
    pub fn session_id(&self) -> Option<&str> {
        match self {
            Self::StartSession { session_id, .. }
            | Self::SessionReason { session_id, .. }
            | Self::AgentLost { session_id, .. }
            | Self::ResumeSession { session_id, .. }
            | Self::TerminateSession { session_id }
            | Self::GatewayConnected { session_id, .. }
            | Self::GatewayRefused { session_id, .. }
            | Self::GatewayClosed { session_id, .. }
            | Self::AgentConnected { session_id }
            | Self::SessionEnded { session_id, .. }
            | Self::HandshakeComplete { session_id, .. }
            | Self::Dial { session_id, .. }
            | Self::StreamFinished { session_id, .. }
            | Self::AgentResent { session_id, .. }
            | Self::InputDropped { session_id, .. }
            | Self::InputDiscarded { session_id, .. }
            | Self::Violation { session_id, .. } => Some(session_id),
            Self::ApiDenied { .. }
            | Self::Asked { .. }
            | Self::RoleAssumed { .. }
            | Self::LoginCall { .. }
            | Self::PageShown { .. }
            | Self::PageAnswered { .. }
            | Self::KmsCall { .. }
            | Self::DbToken { .. }
            | Self::FrontTls { .. }
            | Self::FrontStartup { .. }
            | Self::FrontAuthRequest { .. }
            | Self::FrontRefused { .. }
            | Self::FrontCancel { .. }
            | Self::LineClosed { .. } => None,
        }
    }
}

/// An event with the moment it was recorded.
#[derive(Debug, Clone)]
pub struct Logged {
    /// Monotonic clock at [`EventLog::push`].
    pub at: Instant,
    /// What happened.
    pub event: Event,
}

/// Append-only list of [`Event`]s; clones share it.
#[derive(Clone)]
pub struct EventLog(Arc<Inner>);

struct Inner {
    list: Mutex<Vec<Logged>>,
    count: watch::Sender<usize>,
}

impl Default for EventLog {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for EventLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.all()).finish()
    }
}

impl EventLog {
    /// An empty log.
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            list: Mutex::new(Vec::new()),
            count: watch::Sender::new(0),
        }))
    }

    /// Appends an event and wakes everybody who waits.
    pub fn push(&self, event: Event) {
        tracing::debug!(?event, "sandbox");
        let mut list = lock(&self.0.list);
        list.push(Logged {
            at: Instant::now(),
            event,
        });
        let count = list.len();
        drop(list);
        // Two pushes may arrive here in either order; the count only has to grow.
        self.0.count.send_modify(|n| *n = (*n).max(count));
    }

    /// Everything so far, oldest first.
    pub fn all(&self) -> Vec<Event> {
        self.logged().into_iter().map(|l| l.event).collect()
    }

    /// Everything so far with its moments, oldest first.
    pub fn logged(&self) -> Vec<Logged> {
        lock(&self.0.list).clone()
    }

    /// How many events satisfy `wanted` so far.
    pub fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        let list = lock(&self.0.list);
        list.iter().filter(|l| wanted(&l.event)).count()
    }

    /// The first event, past or future, that satisfies `wanted`; `None` when `limit` passes first.
    pub async fn wait_for(
        &self,
        wanted: impl Fn(&Event) -> bool,
        limit: Duration,
    ) -> Option<Event> {
        self.wait_for_nth(1, wanted, limit).await
    }

    /// Like [`Self::wait_for`], but for the `nth` such event, counted from 1.
    pub async fn wait_for_nth(
        &self,
        nth: usize,
        wanted: impl Fn(&Event) -> bool,
        limit: Duration,
    ) -> Option<Event> {
        let mut changed = self.0.count.subscribe();
        let (mut seen, mut found) = (0, 0);
        let search = async {
            loop {
                {
                    let list = lock(&self.0.list);
                    for logged in &list[seen..] {
                        found += usize::from(wanted(&logged.event));
                        if found == nth {
                            return Some(logged.event.clone());
                        }
                    }
                    seen = list.len();
                }
                let _ = changed.wait_for(|n| *n > seen).await;
            }
        };
        tokio::time::timeout(limit, search).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(id: &str) -> Event {
        Event::TerminateSession {
            session_id: id.to_owned(),
        }
    }

    #[tokio::test]
    async fn finds_past_and_future_events_and_gives_up_in_time() {
        let log = EventLog::new();
        log.push(ended("a"));
        let long = Duration::from_secs(5);
        assert_eq!(
            log.wait_for(|e| *e == ended("a"), long).await,
            Some(ended("a"))
        );
        let other = log.clone();
        let waiter = tokio::spawn(async move { other.wait_for(|e| *e == ended("b"), long).await });
        log.push(ended("b"));
        assert_eq!(waiter.await.unwrap(), Some(ended("b")));
        let never = log.wait_for_nth(2, |e| *e == ended("a"), Duration::from_millis(1));
        assert_eq!(never.await, None);
        assert_eq!(log.count(|e| e.session_id() == Some("a")), 1);
    }
}
