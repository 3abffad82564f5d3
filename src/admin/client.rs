//! Client for the control sockets of running pgiams.

use std::io::ErrorKind::{ConnectionRefused, NotFound};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use thiserror::Error;

use super::document::ProcessDocument;
use crate::platform::socket::control::{self, ExistingSocket};

/// Timeout of one request.
const DEADLINE: Duration = Duration::from_secs(3);
/// Maximum bytes of an answer: some thousand connections.
const MOST: usize = 16 * 1024 * 1024;

/// Reason for a missing answer.
#[derive(Debug, Error)]
pub enum AskError {
    /// The socket has no server: the process is gone.
    #[error("it has ended")]
    Gone,
    /// The process exists but does not answer.
    #[error("it does not answer: {0}")]
    Silent(String),
    /// The answer is not a valid status.
    #[error("cannot parse its answer; possible cause: another version of pgiam")]
    Answer(#[from] serde_json::Error),
}

/// Returns every running pgiam of this user, by process id, and those that did not answer.
pub async fn all(state_dir: Option<&Path>) -> StatusAnswers {
    let asked = control::all(state_dir).into_iter().map(async |found| {
        let status = status(&found).await;
        (found, status)
    });
    let mut all = futures_util::future::join_all(asked).await;
    all.retain(|(_, status)| !matches!(status, Err(AskError::Gone)));
    all
}

/// Statuses of processes.
pub type StatusAnswers = Vec<(ExistingSocket, Result<ProcessDocument, AskError>)>;

/// Returns the status of a process.
///
/// # Errors
/// [`AskError`].
pub async fn status(of: &ExistingSocket) -> Result<ProcessDocument, AskError> {
    let body = ask(of, "GET", "/status").await?;
    Ok(serde_json::from_slice(&body)?)
}

/// Requests the end of a process.
///
/// # Errors
/// [`AskError`].
pub async fn stop(which: &ExistingSocket) -> Result<(), AskError> {
    ask(which, "POST", "/stop").await.map(drop)
}

/// Requests the end of one target of a process; with `now`, closes its connections at once.
///
/// # Errors
/// [`AskError`].
pub async fn stop_target(which: &ExistingSocket, name: &str, now: bool) -> Result<(), AskError> {
    let name: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
    let now = if now { "&now=1" } else { "" };
    let path = format!("/stop-target?name={name}{now}");
    ask(which, "POST", &path).await.map(drop)
}

/// Requests that a process reloads its configuration.
///
/// # Errors
/// [`AskError`].
pub async fn reload(which: &ExistingSocket) -> Result<(), AskError> {
    ask(which, "POST", "/reload").await.map(drop)
}

/// Returns `true` if the process still serves its socket.
pub async fn is_there(which: &ExistingSocket) -> bool {
    control::connect(which).await.is_ok()
}

async fn ask(process: &ExistingSocket, method: &str, path: &str) -> Result<Bytes, AskError> {
    let conversation = converse(process, method, path);
    let answer = tokio::time::timeout(DEADLINE, conversation).await;
    answer.unwrap_or_else(|_| {
        let reason = format!("timeout after {} s", DEADLINE.as_secs());
        Err(AskError::Silent(reason))
    })
}

async fn converse(process: &ExistingSocket, method: &str, path: &str) -> Result<Bytes, AskError> {
    fn silent(error: impl std::fmt::Display) -> AskError {
        AskError::Silent(error.to_string())
    }
    let stream = control::connect(process).await;
    let stream = stream.map_err(|error| match error.kind() {
        ConnectionRefused | NotFound => AskError::Gone,
        _ => silent(error),
    })?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(silent)?;
    let request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header(hyper::header::HOST, "pgiam")
        .body(Empty::<Bytes>::new())
        .map_err(silent)?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(silent)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MOST).collect().await;
        let body = body.map_err(silent)?.to_bytes();
        if status.is_success() {
            Ok(body)
        } else {
            Err(silent(String::from_utf8_lossy(&body).trim_end()))
        }
    };
    // The connection has to be polled together with the answer.
    let (answer, _) = tokio::join!(answered, connection);
    answer
}
