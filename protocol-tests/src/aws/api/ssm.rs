//! `ssm` in the AWS JSON 1.1 protocol: sessions and the list of managed nodes.

use std::sync::Arc;

use http::header;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::json::{self, Call};
use super::{ApiError, Reply, Request, allow};
use crate::aws::agent;
use crate::aws::cloud::Cloud;
use crate::aws::events::Event;
use crate::aws::preferences::watch_limits;
use crate::aws::session::{PortParameters, Session, SessionInfo, Side};

mod documents;
mod nodes;

pub use documents::SessionDocument;

pub(crate) async fn answer(cloud: &Arc<Cloud>, request: &Request) -> Reply {
    json::serve(
        cloud,
        request,
        "ssm",
        "AmazonSSM.",
        |call, operation| match operation {
            "StartSession" => call.start_session(),
            "ResumeSession" => call.resume_session(),
            "TerminateSession" => call.terminate_session(),
            "DescribeInstanceInformation" => call.describe_nodes(),
            _ => Err(ApiError::new("UnknownOperationException", "")),
        },
    )
    .await
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StartSession {
    target: Option<String>,
    document_name: Option<String>,
    reason: Option<String>,
    #[serde(default)]
    parameters: std::collections::HashMap<String, Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SessionId {
    session_id: Option<String>,
}

impl Call<'_> {
    fn allow(&self, action: &str, resource: &str) -> Result<(), ApiError> {
        allow(self.user, action, action, resource)
    }

    fn arn(&self, rest: &str) -> String {
        self.cloud.iam.resource_arn("ssm", rest)
    }

    /// What a policy names: an instance, a task of a cluster, or a managed instance.
    fn node_arn(&self, target: &str) -> String {
        let iam = &self.cloud.iam;
        if let Some(task) = target.strip_prefix("ecs:") {
            let mut parts = task.splitn(3, '_');
            let (cluster, task) = (parts.next(), parts.next());
            let (cluster, task) = (cluster.unwrap_or_default(), task.unwrap_or_default());
            iam.resource_arn("ecs", &format!("task/{cluster}/{task}"))
        } else if target.starts_with("mi-") {
            self.arn(&format!("managed-instance/{target}"))
        } else {
            iam.resource_arn("ec2", &format!("instance/{target}"))
        }
    }

    fn start_session(&self) -> Result<Value, ApiError> {
        let input: StartSession = self.input()?;
        let target = required("target", input.target)?;
        let document = input.document_name.as_deref().unwrap_or_default();
        self.allow("ssm:StartSession", &self.node_arn(&target))?;
        let document_arn = documents::arn(&self.cloud.iam, document);
        allow(
            self.user,
            "ssm:StartSession:document",
            "ssm:StartSession",
            &document_arn,
        )?;
        let parameters = self.parameters(document, &input.parameters)?;
        let node = self.cloud.node(&target).filter(|n| n.settings().online);
        let Some(node) = node else {
            let text = format!("{target} is not connected.");
            return Err(ApiError::new("TargetNotConnected", text));
        };
        let session = self.new_session(target, parameters, input.reason);
        let token = session.issue_token(Side::Client);
        let settings = node.settings();
        if !settings.external && !settings.dead {
            let work = agent::serve(self.cloud.clone(), session.clone(), node);
            self.cloud.tasks.spawn(work);
        }
        Ok(json!({
            "SessionId": session.info.id,
            "TokenValue": token,
            "StreamUrl": self.stream_url(&session),
        }))
    }

    fn parameters(
        &self,
        document: &str,
        given: &std::collections::HashMap<String, Vec<String>>,
    ) -> Result<PortParameters, ApiError> {
        let known = match document {
            documents::REMOTE_HOST | documents::LOCAL_PORT => Some(SessionDocument::default()),
            other => self.cloud.document(other),
        };
        let known = known.ok_or_else(|| {
            let text = format!("Document with name {document} does not exist.");
            ApiError::new("InvalidDocument", text)
        })?;
        documents::port_parameters(&known, document == documents::LOCAL_PORT, given)
    }

    fn new_session(
        &self,
        target: String,
        parameters: PortParameters,
        reason: Option<String>,
    ) -> Arc<Session> {
        let random = Uuid::new_v4().simple().to_string();
        let cell = self
            .cloud
            .cell_numbers
            .then(crate::aws::session::random_cell);
        let info = SessionInfo {
            id: format!("{}-{}", self.user.name, &random[..17]),
            target,
            owner_arn: self.user.arn.clone(),
            parameters,
            cell,
        };
        let Cloud {
            link,
            events,
            tasks,
            ..
        } = &**self.cloud;
        events.push(Event::StartSession {
            session_id: info.id.clone(),
            target: info.target.clone(),
            host: info.parameters.host.clone(),
            port: info.parameters.port,
            user_arn: info.owner_arn.clone(),
        });
        if let Some(reason) = reason {
            events.push(Event::SessionReason {
                session_id: info.id.clone(),
                reason,
            });
        }
        let session = Session::new(info, link.clone(), events.clone(), tasks.clone());
        self.cloud.add_session(session.clone());
        let limits = self.cloud.preferences.limits();
        tasks.spawn(watch_limits(session.clone(), limits));
        session
    }

    /// The gateway lives on the same port as the API when the client came to an address of the
    /// sandbox's own, and under its own service name otherwise.
    fn stream_url(&self, session: &Session) -> String {
        let host = self.request.headers.get(header::HOST);
        let host = host.and_then(|h| h.to_str().ok()).unwrap_or_default();
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let iam = &self.cloud.iam;
        let authority = match name {
            "localhost" | "127.0.0.1" | "[::1]" => host.to_owned(),
            name if self.cloud.names.iter().any(|own| own == name) => host.to_owned(),
            _ => format!("ssmmessages.{}.{}", iam.region(), iam.partition().suffix),
        };
        let id = &session.info.id;
        let cell = session.info.cell.as_deref();
        let cell = cell.map_or(String::new(), |cell| format!("&cell-number={cell}"));
        format!("wss://{authority}/v1/data-channel/{id}?role=publish_subscribe{cell}")
    }

    /// The caller's own session; others' are as unknown as missing ones.
    fn known_session(&self) -> Result<(String, Arc<Session>), ApiError> {
        let input: SessionId = self.input()?;
        let id = required("sessionId", input.session_id)?;
        let session = self.cloud.session(&id);
        match session.filter(|s| s.info.owner_arn == self.user.arn) {
            Some(session) => Ok((id, session)),
            None => {
                let text = format!("Session {id} does not exist.");
                Err(ApiError::new("DoesNotExistException", text))
            }
        }
    }

    fn resume_session(&self) -> Result<Value, ApiError> {
        let (id, session) = self.known_session()?;
        self.allow("ssm:ResumeSession", &self.arn(&format!("session/{id}")))?;
        let granted = !session.has_ended();
        self.cloud.events.push(Event::ResumeSession {
            session_id: id.clone(),
            granted,
        });
        // A session that is over has no token; the call as such still succeeds.
        let token = granted.then(|| session.issue_token(Side::Client));
        let mut answer = json!({
            "SessionId": id,
            "StreamUrl": self.stream_url(&session),
        });
        if granted || !self.cloud.api.leaves_token_out() {
            answer["TokenValue"] = json!(token.unwrap_or_default());
        }
        Ok(answer)
    }

    fn terminate_session(&self) -> Result<Value, ApiError> {
        let (id, session) = self.known_session()?;
        self.allow("ssm:TerminateSession", &self.arn(&format!("session/{id}")))?;
        self.cloud.events.push(Event::TerminateSession {
            session_id: id.clone(),
        });
        session.end("");
        Ok(json!({ "SessionId": id }))
    }

    fn describe_nodes(&self) -> Result<Value, ApiError> {
        self.allow("ssm:DescribeInstanceInformation", &self.arn("*"))?;
        nodes::describe(self.cloud, &self.input()?)
    }
}

fn required(name: &str, value: Option<String>) -> Result<String, ApiError> {
    value.filter(|v| !v.is_empty()).ok_or_else(|| {
        let text = format!(
            "1 validation error detected: Value null at '{name}' failed to satisfy constraint: \
             Member must not be null"
        );
        ApiError::new("ValidationException", text)
    })
}
