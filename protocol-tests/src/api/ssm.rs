//! `ssm` in the AWS JSON 1.1 protocol: sessions and the list of managed nodes.

use std::sync::Arc;

use http::{StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{ApiError, Reply, Request, play_fault, typed_reply};
use crate::agent;
use crate::cloud::Cloud;
use crate::events::Event;
use crate::iam::User;
use crate::session::{PortParameters, Session, SessionInfo, Side};

/// Forwards to a host beyond the node; agents from 3.1.1374.0 on know it.
const REMOTE_HOST: &str = "AWS-StartPortForwardingSessionToRemoteHost";
/// Forwards to the node itself.
const LOCAL_PORT: &str = "AWS-StartPortForwardingSession";

mod nodes;

pub(crate) async fn answer(cloud: &Arc<Cloud>, request: &Request) -> Reply {
    let target = request.headers.get("x-amz-target");
    let target = target.and_then(|t| t.to_str().ok()).unwrap_or_default();
    let operation = target.strip_prefix("AmazonSSM.").unwrap_or_default();
    let user = match cloud.authenticate(request, "ssm") {
        Ok(user) => user,
        Err(error) => {
            let status = StatusCode::from_u16(error.json_status());
            let denied = ApiError {
                status: status.unwrap_or(StatusCode::BAD_REQUEST),
                code: error.json_code().to_owned(),
                message: error.to_string(),
            };
            return refuse(cloud, operation, &denied);
        }
    };
    if let Some(reply) = play_fault(cloud, operation, failure).await {
        return reply;
    }
    let call = Call {
        cloud,
        request,
        user: &user,
    };
    let result = match operation {
        "StartSession" => call.start_session(),
        "ResumeSession" => call.resume_session(),
        "TerminateSession" => call.terminate_session(),
        "DescribeInstanceInformation" => call.describe_nodes(),
        _ => Err(ApiError::new("UnknownOperationException", "")),
    };
    match result {
        Ok(answer) => typed_reply(
            StatusCode::OK,
            "application/x-amz-json-1.1",
            answer.to_string(),
        ),
        Err(error) => refuse(cloud, operation, &error),
    }
}

fn refuse(cloud: &Cloud, operation: &str, error: &ApiError) -> Reply {
    cloud.note_denied(&format!("ssm:{operation}"), &error.code);
    failure(error)
}

/// The service's own exceptions write `message`, access refusals come from another layer that
/// writes `Message`; clients have to take both.
fn failure(error: &ApiError) -> Reply {
    let name = match error.code.as_str() {
        "AccessDeniedException" => "Message",
        _ => "message",
    };
    let mut body = json!({ "__type": error.code });
    if !error.message.is_empty() {
        body[name] = json!(error.message);
    }
    typed_reply(error.status, "application/x-amz-json-1.1", body.to_string())
}

/// One authenticated request.
struct Call<'a> {
    cloud: &'a Arc<Cloud>,
    request: &'a Request,
    user: &'a User,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StartSession {
    target: Option<String>,
    document_name: Option<String>,
    #[serde(default)]
    parameters: std::collections::HashMap<String, Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SessionId {
    session_id: Option<String>,
}

impl Call<'_> {
    fn input<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        serde_json::from_slice(&self.request.body)
            .map_err(|_| ApiError::new("SerializationException", ""))
    }

    fn allow(&self, action: &str, resource: &str) -> Result<(), ApiError> {
        self.allow_as(action, action, resource)
    }

    /// `switch` is the entry in the user's deny list, `action` what the message names.
    fn allow_as(&self, switch: &str, action: &str, resource: &str) -> Result<(), ApiError> {
        let because = if self.user.is_denied(&format!("scp:{switch}")) {
            "with an explicit deny in a service control policy".to_owned()
        } else if self.user.is_denied(switch) {
            format!("because no identity-based policy allows the {action} action")
        } else {
            return Ok(());
        };
        let text = format!(
            "User: {} is not authorized to perform: {action} on resource: {resource} {because}",
            self.user.arn
        );
        Err(ApiError::new("AccessDeniedException", text))
    }

    fn arn(&self, rest: &str) -> String {
        let iam = &self.cloud.iam;
        format!("arn:aws:ssm:{}:{}:{rest}", iam.region(), iam.account())
    }

    fn node_arn(&self, target: &str) -> String {
        let iam = &self.cloud.iam;
        if target.starts_with("i-") {
            format!(
                "arn:aws:ec2:{}:{}:instance/{target}",
                iam.region(),
                iam.account()
            )
        } else {
            self.arn(&format!("managed-instance/{target}"))
        }
    }

    fn start_session(&self) -> Result<Value, ApiError> {
        let input: StartSession = self.input()?;
        let target = required("target", input.target)?;
        let document = input.document_name.as_deref().unwrap_or_default();
        self.allow("ssm:StartSession", &self.node_arn(&target))?;
        let region = self.cloud.iam.region();
        let document_arn = format!("arn:aws:ssm:{region}::document/{document}");
        self.allow_as(
            "ssm:StartSession:document",
            "ssm:StartSession",
            &document_arn,
        )?;
        if document != REMOTE_HOST && document != LOCAL_PORT {
            let text = format!("Document with name {document} does not exist.");
            return Err(ApiError::new("InvalidDocument", text));
        }
        let parameters = port_parameters(document, &input.parameters)?;
        let node = self.cloud.node(&target).filter(|n| n.settings().online);
        let Some(node) = node else {
            let text = format!("{target} is not connected.");
            return Err(ApiError::new("TargetNotConnected", text));
        };
        let session = self.new_session(target, parameters);
        let token = session.issue_token(Side::Client);
        if !node.settings().external {
            let work = agent::serve(self.cloud.clone(), session.clone(), node);
            self.cloud.tasks.spawn(work);
        }
        Ok(json!({
            "SessionId": session.info.id,
            "TokenValue": token,
            "StreamUrl": self.stream_url(&session.info.id),
        }))
    }

    fn new_session(&self, target: String, parameters: PortParameters) -> Arc<Session> {
        let random = Uuid::new_v4().simple().to_string();
        let info = SessionInfo {
            id: format!("{}-{}", self.user.name, &random[..17]),
            target,
            owner_arn: self.user.arn.clone(),
            parameters,
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
        let session = Session::new(info, link.clone(), events.clone(), tasks.clone());
        self.cloud.add_session(session.clone());
        session
    }

    /// The gateway lives on the same port as the API when the client came to a local address, and
    /// under its own service name otherwise.
    fn stream_url(&self, id: &str) -> String {
        let host = self.request.headers.get(header::HOST);
        let host = host.and_then(|h| h.to_str().ok()).unwrap_or_default();
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let authority = match name {
            "localhost" | "127.0.0.1" | "[::1]" => host.to_owned(),
            _ => format!("ssmmessages.{}.amazonaws.com", self.cloud.iam.region()),
        };
        format!("wss://{authority}/v1/data-channel/{id}?role=publish_subscribe")
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
        Ok(json!({
            "SessionId": id,
            "TokenValue": token.unwrap_or_default(),
            "StreamUrl": self.stream_url(&id),
        }))
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

fn port_parameters(
    document: &str,
    given: &std::collections::HashMap<String, Vec<String>>,
) -> Result<PortParameters, ApiError> {
    let invalid = |text: String| ApiError::new("ValidationException", text);
    let known = ["host", "portNumber", "localPortNumber"];
    if let Some(stranger) = given.keys().find(|k| !known.contains(&k.as_str())) {
        return Err(invalid(format!(
            "Parameter \"{stranger}\" is not defined in the document"
        )));
    }
    let single = |name: &str| match given.get(name).map(Vec::as_slice) {
        None => Ok(None),
        Some([one]) => Ok(Some(one.clone())),
        Some(_) => Err(invalid(format!("Parameter \"{name}\" must have one value"))),
    };
    let host = match (document, single("host")?) {
        (LOCAL_PORT, None) => "localhost".to_owned(),
        (REMOTE_HOST, Some(host)) if !host.is_empty() => host,
        _ => {
            return Err(invalid(
                "Parameter \"host\" is wrong for this document".to_owned(),
            ));
        }
    };
    let port = single("portNumber")?.unwrap_or_else(|| "80".to_owned());
    let port = port.parse().ok().filter(|p| *p != 0);
    let port = port.ok_or_else(|| invalid("Parameter \"portNumber\" is not a port".to_owned()))?;
    Ok(PortParameters {
        host,
        port,
        local_port: single("localPortNumber")?.unwrap_or_else(|| "0".to_owned()),
    })
}
