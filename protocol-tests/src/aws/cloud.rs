//! What all parts of the sandbox share: the account's state.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use http_body_util::Full;

use crate::aws::agent::AgentControl;
use crate::aws::api::{Api, Reply, Request, SessionDocument};
use crate::aws::console::Console;
use crate::aws::events::{Event, EventLog};
use crate::aws::iam::{AuthError, Iam, User};
use crate::aws::identity_center::IdentityCenter;
use crate::aws::inventory::Inventory;
use crate::aws::kms::Kms;
use crate::aws::mfa::Mfa;
use crate::aws::preferences::Preferences;
use crate::aws::roles::Roles;
use crate::aws::session::Session;
use crate::harness::sync::{Tasks, lock};
use crate::network::link::Link;
use crate::network::vpc::Vpc;

/// The account, region and network that one sandbox plays.
pub(crate) struct Cloud {
    pub(crate) iam: Iam,
    pub(crate) vpc: Vpc,
    pub(crate) inventory: Inventory,
    pub(crate) events: EventLog,
    pub(crate) link: Link,
    pub(crate) api: Api,
    pub(crate) kms: Kms,
    pub(crate) identity_center: IdentityCenter,
    pub(crate) console: Console,
    pub(crate) mfa: Mfa,
    pub(crate) roles: Roles,
    pub(crate) preferences: Preferences,
    /// `StreamUrl`s carry a cell number.
    pub(crate) cell_numbers: bool,
    /// Names it is reached by, besides those of loopback and of AWS.
    pub(crate) names: Vec<String>,
    /// Access key of the nodes' role.
    pub(crate) node_key: String,
    pub(crate) tasks: Tasks,
    pub(crate) nodes: Mutex<BTreeMap<String, AgentControl>>,
    documents: Mutex<HashMap<String, SessionDocument>>,
    sessions: Mutex<HashMap<String, Arc<Session>>>,
}

impl Cloud {
    pub(crate) fn new(
        iam: Iam,
        node_key: &str,
        cell_numbers: bool,
        names: Vec<String>,
    ) -> Arc<Self> {
        let kms = iam.resource_arn("kms", "");
        Arc::new(Self {
            kms: Kms::new(kms.trim_end_matches(':')),
            identity_center: IdentityCenter::new(&iam),
            console: Console::new(&iam),
            mfa: Mfa::new(&iam),
            roles: Roles::default(),
            preferences: Preferences::default(),
            cell_numbers,
            names,
            node_key: node_key.to_owned(),
            iam,
            vpc: Vpc::new(),
            inventory: Inventory::default(),
            events: EventLog::new(),
            link: Link::new(),
            api: Api::default(),
            tasks: Tasks::new(),
            nodes: Mutex::default(),
            documents: Mutex::default(),
            sessions: Mutex::default(),
        })
    }

    pub(crate) fn session(&self, id: &str) -> Option<Arc<Session>> {
        lock(&self.sessions).get(id).cloned()
    }

    pub(crate) fn add_session(&self, session: Arc<Session>) {
        lock(&self.sessions).insert(session.info.id.clone(), session);
    }

    /// Sessions that have not ended.
    pub(crate) fn open_sessions(&self) -> Vec<Arc<Session>> {
        let sessions = lock(&self.sessions);
        let open = sessions.values().filter(|s| !s.has_ended());
        open.cloned().collect()
    }

    /// Every session there was.
    pub(crate) fn all_sessions(&self) -> Vec<Arc<Session>> {
        lock(&self.sessions).values().cloned().collect()
    }

    pub(crate) fn add_document(&self, name: &str, document: SessionDocument) {
        lock(&self.documents).insert(name.to_owned(), document);
    }

    /// One of the account's own documents, by its name or its ARN.
    pub(crate) fn document(&self, name: &str) -> Option<SessionDocument> {
        let own = self.iam.resource_arn("ssm", "document/");
        let name = name.strip_prefix(&own).unwrap_or(name);
        lock(&self.documents).get(name).cloned()
    }

    /// What the role of the nodes may do at present.
    pub(crate) fn node_role(&self) -> Option<User> {
        self.iam.get(&self.node_key)
    }

    pub(crate) fn node(&self, target: &str) -> Option<AgentControl> {
        lock(&self.nodes).get(target).cloned()
    }

    pub(crate) fn authenticate(&self, request: &Request, service: &str) -> Result<User, AuthError> {
        let Request {
            method,
            uri,
            headers,
            body,
        } = request;
        self.iam.authenticate(method, uri, headers, body, service)
    }

    /// Writes a refusal into the event log.
    pub(crate) fn note_denied(&self, action: &str, code: &str) {
        self.events.push(Event::ApiDenied {
            action: action.to_owned(),
            code: code.to_owned(),
        });
    }

    /// A refusal by the gateway, which speaks neither of the API protocols.
    pub(crate) fn forbid(&self, action: &str, code: &str) -> Reply {
        self.note_denied(action, code);
        let mut reply = Reply::new(Full::new(Bytes::from_static(
            b"{\"message\":\"Forbidden\"}",
        )));
        *reply.status_mut() = StatusCode::FORBIDDEN;
        if let Ok(value) = HeaderValue::from_str(code) {
            reply.headers_mut().insert("x-amzn-errortype", value);
        }
        reply
    }
}
