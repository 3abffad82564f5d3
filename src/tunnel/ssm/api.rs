//! The two Systems Manager calls a tunnel needs.

use std::time::Duration;

use aws_sdk_ssm::Client;
use aws_sdk_ssm::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ssm::operation::RequestId;
use ssm_channel::Token;
use tracing::debug;

use crate::config::Endpoint;
use crate::tunnel::{ApiAnswer, ApiRefusal, TunnelError, chain};

/// The document that forwards to a host behind the managed node.
const DOCUMENT: &str = "AWS-StartPortForwardingSessionToRemoteHost";
/// Shown in the session history of the account.
const REASON: &str = "pgiam";
/// How long saying goodbye to AWS may take; the session would time out there by itself.
const TERMINATE_DEADLINE: Duration = Duration::from_secs(3);

/// A session that AWS has opened and nobody has joined yet.
pub(super) struct Started {
    pub(super) session_id: String,
    /// What it takes to join it, or what AWS left out.
    pub(super) ticket: Result<Ticket, TunnelError>,
}

/// What admits to a session's data channel.
pub(super) struct Ticket {
    pub(super) token: Token,
    pub(super) stream_url: String,
}

/// `ssm:StartSession` for a forward to `endpoint` through `bastion`.
///
/// # Errors
/// [`TunnelError::Api`] with AWS's answer, [`TunnelError::ApiUnreachable`],
/// [`TunnelError::IncompleteAnswer`].
pub(super) async fn start_session(
    client: &Client,
    region: &str,
    bastion: &str,
    endpoint: &Endpoint,
) -> Result<Started, TunnelError> {
    let answer = client
        .start_session()
        .target(bastion)
        .document_name(DOCUMENT)
        .reason(REASON)
        .parameters("host", vec![endpoint.host.clone()])
        .parameters("portNumber", vec![endpoint.port.to_string()])
        .send()
        .await
        .map_err(|error| refusal(&error, bastion, region))?;
    let missing = TunnelError::IncompleteAnswer;
    let ticket = match (answer.token_value, answer.stream_url) {
        (Some(token), Some(stream_url)) => Ok(Ticket {
            token: Token::new(token),
            stream_url,
        }),
        (None, _) => Err(missing("TokenValue")),
        (_, None) => Err(missing("StreamUrl")),
    };
    let session_id = answer.session_id.ok_or(missing("SessionId"))?;
    Ok(Started { session_id, ticket })
}

/// `ssm:TerminateSession`, best effort within a deadline: the session is of no more use to us
/// whatever AWS answers.
pub(super) async fn terminate_session(client: &Client, session_id: &str) {
    let call = client.terminate_session().session_id(session_id).send();
    match tokio::time::timeout(TERMINATE_DEADLINE, call).await {
        Ok(Ok(_)) => debug!(session_id, "SSM session terminated"),
        Ok(Err(error)) => debug!(
            session_id,
            reason = chain(&error),
            "TerminateSession failed"
        ),
        Err(_) => debug!(session_id, "TerminateSession did not answer in time"),
    }
}

fn refusal<E>(error: &SdkError<E>, bastion: &str, region: &str) -> TunnelError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let Some(response) = error.raw_response() else {
        return TunnelError::ApiUnreachable {
            region: region.to_owned(),
            reason: chain(error),
        };
    };
    // An overloaded service, or a proxy on the way, answers with a status and nothing else.
    let bare = || {
        format!(
            "HTTP status {}, no reason given",
            response.status().as_u16()
        )
    };
    let code = error.code().map_or_else(bare, str::to_owned);
    let message = error.message().unwrap_or_default().to_owned();
    TunnelError::Api {
        operation: "StartSession",
        kind: classify(&code, &message),
        answer: ApiAnswer {
            request_id: error.request_id().map(str::to_owned),
            code,
            message,
        },
        bastion: bastion.to_owned(),
        region: region.to_owned(),
    }
}

fn classify(code: &str, message: &str) -> ApiRefusal {
    match code {
        "TargetNotConnected" => ApiRefusal::TargetNotConnected,
        "AccessDeniedException" if message.contains("service control policy") => {
            ApiRefusal::DeniedByOrganisation
        }
        "AccessDeniedException" | "AccessDenied" => ApiRefusal::AccessDenied,
        "ExpiredTokenException" | "ExpiredToken" => ApiRefusal::CredentialsExpired,
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "InvalidClientTokenId"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature" => ApiRefusal::CredentialsRejected,
        "InvalidDocument" => ApiRefusal::InvalidDocument,
        "ThrottlingException" | "Throttling" | "TooManyRequestsException" => ApiRefusal::Throttled,
        _ => ApiRefusal::Other,
    }
}
