//! The Systems Manager calls a tunnel needs.

pub(super) mod nodes;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_ssm::Client;
use aws_sdk_ssm::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ssm::operation::RequestId;
use ssm_channel::ChannelToken;
use tracing::debug;

use super::proxy::ProxySettings;
use crate::aws::api_error::ApiAnswer;
use crate::aws::calls;
use crate::aws::discover::is_id;
use crate::aws::http::{TOO_MANY_REQUESTS, no_code};
use crate::aws::{ClockOffset, CredentialsError, KeyState, bad_answer, in_words, refused_keys};
use crate::base::names::{Region, SessionId};
use crate::base::partition::Partition;
use crate::base::redacted::remember_token;
use crate::config::Endpoint;
use crate::tunnel::{ApiRefusal, TunnelError};

/// The document that forwards to a host behind the managed node.
const TO_HOST: &str = "AWS-StartPortForwardingSessionToRemoteHost";
/// The document that forwards to a port of the managed node itself.
const TO_PORT: &str = "AWS-StartPortForwardingSession";
/// Reason shown in the account's session history.
const REASON: &str = "pgiam";
/// Timeout for TerminateSession; AWS ends an abandoned session by itself.
const TERMINATE_DEADLINE: Duration = Duration::from_secs(3);

/// HTTP status of the service for a session that is over ("Session is already terminated").
const GONE: [u16; 2] = [404, 410];

/// A session that AWS has opened and no client has joined yet.
pub(super) struct StartedSession {
    pub(super) session_id: SessionId,
    /// Data to join it, or the missing value of AWS's answer.
    pub(super) ticket: Result<SessionTicket, TunnelError>,
}

/// Data that opens a session's data channel.
pub(super) struct SessionTicket {
    pub(super) token: ChannelToken,
    pub(super) stream_url: String,
}

/// Destination of a session.
#[derive(Clone, Debug)]
pub(super) enum SessionRoute {
    /// A host behind the managed node.
    Host {
        /// The host and its port.
        endpoint: Endpoint,
        /// The session document; `None`: AWS's own for a remote host.
        document: Option<String>,
    },
    /// A port on the loopback interface of the managed node.
    Port(u16),
}

impl SessionRoute {
    /// Returns the address that the agent dials.
    pub(super) fn endpoint(&self) -> Endpoint {
        match self {
            Self::Host { endpoint, .. } => endpoint.clone(),
            Self::Port(port) => Endpoint {
                host: "localhost".to_owned(),
                port: *port,
            },
        }
    }
}

/// Calls `ssm:StartSession` for a forward along `route` through `bastion`.
///
/// A custom document gets the same two parameters as AWS's own, `host` and `portNumber`. The third
/// one of AWS's, `localPortNumber`, is for its plugin; it has a default, and a document need not
/// have it.
///
/// # Errors
/// [`TunnelError::Api`] with AWS's answer, [`TunnelError::ApiUnreachable`],
/// [`TunnelError::Credentials`], [`TunnelError::IncompleteAnswer`].
pub(super) async fn start_session(
    client: &Client,
    region: &Region,
    bastion: &str,
    route: &SessionRoute,
) -> Result<StartedSession, TunnelError> {
    let call = client.start_session().target(bastion).reason(REASON);
    let call = match route {
        SessionRoute::Host { endpoint, document } => call
            .document_name(document.as_deref().unwrap_or(TO_HOST))
            .parameters("host", vec![endpoint.host.clone()])
            .parameters("portNumber", vec![endpoint.port.to_string()]),
        SessionRoute::Port(port) => call
            .document_name(TO_PORT)
            .parameters("portNumber", vec![port.to_string()]),
    };
    let answer = call
        .send()
        .await
        .map_err(|error| refusal(&error, "StartSession", bastion, region))?;
    let missing = TunnelError::IncompleteAnswer;
    let ticket = match (answer.token_value, answer.stream_url) {
        (Some(token), Some(stream_url)) => Ok(SessionTicket {
            token: token_of(token),
            stream_url,
        }),
        (None, _) => Err(missing("TokenValue")),
        (_, None) => Err(missing("StreamUrl")),
    };
    let session_id = answer.session_id.filter(|id| is_id(id));
    let session_id = session_id.ok_or(missing("a valid SessionId"))?;
    Ok(StartedSession {
        session_id: session_id.into(),
        ticket,
    })
}

/// Wraps the token, which no text may quote from now on: the gateway could echo it in its last
/// message.
fn token_of(value: String) -> ChannelToken {
    remember_token(&value);
    ChannelToken::new(value)
}

/// Calls `ssm:ResumeSession`; returns the ticket for a session with a lost connection. `None`: AWS
/// returned no token, or reported no such session, so it is over. `bastion` appears in errors only.
///
/// # Errors
/// As for [`start_session`]; [`is_final`] tells which make a retry pointless.
pub(super) async fn resume_session(
    client: &Client,
    region: &Region,
    bastion: &str,
    session_id: &SessionId,
) -> Result<Option<SessionTicket>, TunnelError> {
    let answer = match client.resume_session().session_id(session_id).send().await {
        Ok(answer) => answer,
        Err(error) if status_of(&error).is_some_and(|status| GONE.contains(&status)) => {
            debug!(
                %session_id,
                reason = &*in_words(&error),
                "the session no longer exists"
            );
            return Ok(None);
        }
        Err(error) => return Err(refusal(&error, "ResumeSession", bastion, region)),
    };
    let given = |text: &String| !text.is_empty();
    let Some(token) = answer.token_value.filter(given) else {
        return Ok(None);
    };
    let stream_url = answer.stream_url.filter(given);
    Ok(Some(SessionTicket {
        token: token_of(token),
        stream_url: stream_url.ok_or(TunnelError::IncompleteAnswer("StreamUrl"))?,
    }))
}

/// Returns true if the gateway reports that the session does not exist any more.
pub(super) fn is_gone(error: &TunnelError) -> bool {
    matches!(error, TunnelError::ChannelRefused { status, .. } if GONE.contains(status))
}

fn status_of<E>(error: &SdkError<E>) -> Option<u16> {
    error
        .raw_response()
        .map(|response| response.status().as_u16())
}

/// Returns true if a failed attempt to resume a session means that no later one can work: the
/// credentials have expired or do not allow it, or AWS reports no such session. Temporary failures
/// (the network, throttling, an error at AWS, a clock that is wrong for a while after a suspend)
/// are not final.
pub(super) fn is_final(error: &TunnelError) -> bool {
    match error {
        TunnelError::Api { kind, answer, .. } => match kind {
            ApiRefusal::AccessDenied
            | ApiRefusal::DeniedByOrganisation
            | ApiRefusal::CredentialsExpired => true,
            ApiRefusal::Other => answer.code == "DoesNotExistException",
            ApiRefusal::TargetNotConnected
            | ApiRefusal::CredentialsRejected
            | ApiRefusal::InvalidDocument
            | ApiRefusal::Throttled => false,
        },
        TunnelError::Credentials(error) => have_ended(error),
        TunnelError::NoRegion
        | TunnelError::ForeignStreamUrl { .. }
        | TunnelError::ShuttingDown => true,
        _ => false,
    }
}

/// Returns true if the credentials require an action of the user.
fn have_ended(error: &CredentialsError) -> bool {
    match error {
        CredentialsError::NotFound { .. }
        | CredentialsError::NoSuchProfile { .. }
        | CredentialsError::Config { .. }
        | CredentialsError::CacheFile(_)
        | CredentialsError::Unresolved(_)
        | CredentialsError::Expired { .. }
        | CredentialsError::SsoSession { .. }
        | CredentialsError::MfaRequired { .. }
        | CredentialsError::LoginSession { .. }
        | CredentialsError::AssumeRole { .. }
        | CredentialsError::Malformed(_)
        | CredentialsError::CaBundle { .. } => true,
        // A credential program has failures of its own, such as the network; STS and IAM Identity
        // Center can be overloaded, and a clock can be wrong for a while.
        CredentialsError::Rejected { .. }
        | CredentialsError::Process { .. }
        | CredentialsError::Timeout { .. }
        | CredentialsError::Clock { .. }
        | CredentialsError::Answer { .. }
        | CredentialsError::Era(_)
        | CredentialsError::Internal(_)
        | CredentialsError::Other { .. } => false,
    }
}

/// Calls `ssm:TerminateSession`, best effort within a deadline: the session is useless whatever AWS
/// answers. Returns true if AWS has ended it.
pub(super) async fn terminate_session(client: &Client, session_id: &SessionId) -> bool {
    let call = client.terminate_session().session_id(session_id).send();
    let called = tokio::time::timeout(TERMINATE_DEADLINE, call).await;
    match &called {
        Ok(Ok(_)) => debug!(%session_id, "SSM session terminated"),
        Ok(Err(error)) => debug!(
            %session_id,
            reason = &*in_words(error),
            "TerminateSession failed"
        ),
        Err(_) => debug!(%session_id, "TerminateSession did not answer in time"),
    }
    matches!(called, Ok(Ok(_)))
}

/// Classifies a failed call: credentials, connection to AWS, or AWS's answer.
fn refusal<E>(
    error: &SdkError<E>,
    operation: &'static str,
    bastion: &str,
    region: &Region,
) -> TunnelError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    if let Some(credentials) = CredentialsError::behind(error) {
        return TunnelError::Credentials(Arc::new(credentials.clone()));
    }
    if let Some(reason) = bad_answer(error) {
        return TunnelError::BadAnswer { operation, reason };
    }
    let Some(response) = error.raw_response() else {
        let reason = in_words(error);
        let default = || format!("ssm.{region}.{}", Partition::of(region).dns_suffix);
        let host = calls::host().unwrap_or_else(default);
        let name = host.rsplit_once(':').map_or(&*host, |(name, _)| name);
        let of_proxy = ProxySettings::from_env().blamed_for(name, &reason);
        return of_proxy.unwrap_or_else(|| TunnelError::ApiUnreachable {
            region: region.to_owned(),
            host: Some(host),
            reason,
        });
    };
    let status = response.status().as_u16();
    let date = response.headers().get("date");
    let message = error.message().unwrap_or_default().to_owned();
    // An overloaded service, or a proxy on the path, answers with only a status.
    let (code, kind) = match error.code() {
        Some(code) => (code.to_owned(), classify(code, &message)),
        None if status == TOO_MANY_REQUESTS => (no_code(status), ApiRefusal::Throttled),
        None => (no_code(status), ApiRefusal::Other),
    };
    TunnelError::Api {
        operation,
        kind,
        answer: ApiAnswer {
            request_id: error.request_id().map(Into::into),
            clock: date.and_then(|date| ClockOffset::from_date_header(date, SystemTime::now())),
            code: code.into(),
            message: message.into(),
        },
        bastion: bastion.to_owned(),
        region: region.to_owned(),
    }
}

pub(super) fn classify(code: &str, message: &str) -> ApiRefusal {
    match code {
        "TargetNotConnected" => ApiRefusal::TargetNotConnected,
        "AccessDeniedException" if message.contains("service control policy") => {
            ApiRefusal::DeniedByOrganisation
        }
        "AccessDeniedException" | "AccessDenied" => ApiRefusal::AccessDenied,
        "InvalidDocument" => ApiRefusal::InvalidDocument,
        "ThrottlingException"
        | "ThrottledException"
        | "Throttling"
        | "TooManyRequestsException"
        | "RequestLimitExceeded" => ApiRefusal::Throttled,
        _ => match refused_keys(code) {
            Some(KeyState::Expired) => ApiRefusal::CredentialsExpired,
            Some(_) => ApiRefusal::CredentialsRejected,
            None => ApiRefusal::Other,
        },
    }
}
