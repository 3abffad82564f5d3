//! Calls to AWS services within a deadline. A call that times out reports its state: not sent for
//! lack of credentials, throttled, or unanswered. Only observed facts are reported.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use tokio::time::{Instant, timeout_at};

use super::http::TOO_MANY_REQUESTS;
use super::query::throttles;

/// Name of the step in which a caller waits for credentials.
pub(crate) const CREDENTIALS_STEP: &str = "AWS credentials";

tokio::task_local! {
    /// Attempts of this task's call. Credentials are loaded by a separate task, so its requests do
    /// not count.
    static TRIES: CallAttempts;
}

/// Attempts of one call. They also count for the call that it is part of.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallAttempts {
    seen: Arc<Mutex<AttemptCounts>>,
    outer: Option<Arc<CallAttempts>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct AttemptCounts {
    sent: u32,
    throttled: u32,
    host: String,
    /// Status of the last answer; `None` while an attempt waits for its answer.
    status: Option<u16>,
}

impl CallAttempts {
    fn lock(&self) -> MutexGuard<'_, AttemptCounts> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn each(&self, note: impl Fn(&mut AttemptCounts)) {
        let all = std::iter::successors(Some(self), |tries| tries.outer.as_deref());
        all.for_each(|tries| note(&mut tries.lock()));
    }

    /// Records an answer that arrived completely.
    pub(super) fn answered(&self, answer: &HttpResponse) {
        let status = answer.status().as_u16();
        let throttled = status >= 400 && is_throttling(answer);
        self.each(|seen| {
            seen.status = Some(status);
            seen.throttled += u32::from(throttled);
        });
    }
}

/// Returns `true` if an error means too many calls, in any of the forms that the services use.
fn is_throttling(answer: &HttpResponse) -> bool {
    let body = answer.body().bytes().unwrap_or_default();
    let text = String::from_utf8_lossy(&body[..body.len().min(4 << 10)]).into_owned();
    let mut words = text.split(|c: char| !c.is_ascii_alphanumeric());
    answer.status().as_u16() == TOO_MANY_REQUESTS || words.any(throttles)
}

/// Records that a request of the current task's call is sent to `host`.
pub(super) fn sent(host: &str) -> Option<CallAttempts> {
    let tries = TRIES.try_with(CallAttempts::clone).ok()?;
    tries.each(|seen| {
        seen.sent += 1;
        host.clone_into(&mut seen.host);
        seen.status = None;
    });
    Some(tries)
}

/// Returns the host and port that the current task's call was last sent to; `None` if it was not
/// sent.
pub(crate) fn host() -> Option<String> {
    let host = TRIES.try_with(|tries| tries.lock().host.clone()).ok();
    host.filter(|host| !host.is_empty())
}

/// A call that timed out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call} {}", self.description())]
pub struct CallTimeout {
    /// Service and action as in IAM policies: `ssm:StartSession`.
    pub call: &'static str,
    /// Time that the call waited.
    pub after: Duration,
    /// Observed reason for the missing answer.
    pub kind: CallTimeoutKind,
    seen: AttemptCounts,
}

/// State of a call when it timed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallTimeoutKind {
    /// Waiting for credentials to sign the request; it was not sent.
    Credentials,
    /// Waiting to retry after AWS throttled the call.
    Throttled,
    /// Waiting for an answer.
    Silent,
}

impl CallTimeout {
    fn new(call: &'static str, after: Duration, seen: AttemptCounts) -> Self {
        let kind = match seen {
            AttemptCounts { sent: 0, .. } => CallTimeoutKind::Credentials,
            AttemptCounts { throttled: 1.., .. } => CallTimeoutKind::Throttled,
            _ => CallTimeoutKind::Silent,
        };
        Self {
            call,
            after,
            kind,
            seen,
        }
    }

    fn description(&self) -> impl fmt::Display {
        let Self {
            after, kind, seen, ..
        } = self;
        let AttemptCounts { sent, host, .. } = seen;
        let after = after.as_secs_f64().round();
        let tries = match sent {
            1 => "1 try".to_owned(),
            sent => format!("{sent} tries"),
        };
        match (kind, seen.status) {
            (CallTimeoutKind::Credentials, _) => {
                format!("was not sent: no AWS credentials after {after} s")
            }
            (CallTimeoutKind::Throttled, _) => {
                format!("was throttled by {host} for {after} s ({tries})")
            }
            (CallTimeoutKind::Silent, None) => {
                format!("got no answer from {host} within {after} s ({tries})")
            }
            (CallTimeoutKind::Silent, Some(status)) => format!(
                "got no valid answer from {host} within {after} s ({tries}, last HTTP status {status})"
            ),
        }
    }
}

/// Runs a call, all its attempts included, within a deadline. Cancel-safe if `call` is.
///
/// # Errors
/// [`CallTimeout`].
pub(crate) async fn within<T>(
    name: &'static str,
    until: Instant,
    call: impl Future<Output = T>,
) -> Result<T, CallTimeout> {
    let began = Instant::now();
    let tries = CallAttempts {
        outer: TRIES.try_with(|outer| Arc::new(outer.clone())).ok(),
        ..CallAttempts::default()
    };
    let watched = TRIES.scope(tries.clone(), call);
    match timeout_at(until, watched).await {
        Ok(answer) => Ok(answer),
        Err(_) => Err(CallTimeout::new(
            name,
            began.elapsed(),
            tries.lock().clone(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use aws_smithy_types::body::SdkBody;

    use super::*;

    fn answer(status: u16, body: &'static str) -> HttpResponse {
        let status = status.try_into().unwrap();
        HttpResponse::new(status, SdkBody::from(body))
    }

    async fn late(answers: &[Option<HttpResponse>]) -> CallTimeout {
        let call = async {
            assert_eq!(host(), None);
            for answer in answers {
                let tries = sent("ssm.example.com").unwrap();
                assert_eq!(host().as_deref(), Some("ssm.example.com"));
                if let Some(answer) = answer {
                    tries.answered(answer);
                }
            }
            std::future::pending::<()>().await;
        };
        let until = Instant::now() + Duration::from_secs(15);
        within("ssm:StartSession", until, call).await.unwrap_err()
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_waited_for_is_said_as_far_as_it_was_seen() {
        let throttled = || Some(answer(400, r#"{"__type":"ThrottlingException"}"#));
        let xml = || {
            Some(answer(
                503,
                "<Error><Code>RequestLimitExceeded</Code></Error>",
            ))
        };
        let broken = || Some(answer(500, "the word Throttlings is no code"));
        for (answers, kind, words) in [
            (
                vec![],
                CallTimeoutKind::Credentials,
                "was not sent: no AWS credentials after 15 s",
            ),
            (
                vec![None],
                CallTimeoutKind::Silent,
                "got no answer from ssm.example.com within 15 s (1 try)",
            ),
            (
                vec![broken(), None],
                CallTimeoutKind::Silent,
                "got no answer from ssm.example.com within 15 s (2 tries)",
            ),
            (
                vec![broken()],
                CallTimeoutKind::Silent,
                "got no valid answer from ssm.example.com within 15 s (1 try, last HTTP status 500)",
            ),
            (
                vec![throttled(), throttled()],
                CallTimeoutKind::Throttled,
                "was throttled by ssm.example.com for 15 s (2 tries)",
            ),
            (
                vec![xml(), None],
                CallTimeoutKind::Throttled,
                "was throttled by ssm.example.com for 15 s (2 tries)",
            ),
            (
                vec![Some(answer(429, ""))],
                CallTimeoutKind::Throttled,
                "was throttled by ssm.example.com for 15 s (1 try)",
            ),
        ] {
            let late = late(&answers).await;
            assert_eq!(late.kind, kind, "{late}");
            assert_eq!(late.to_string(), format!("ssm:StartSession {words}"));
        }
        assert!(sent("x").is_none(), "outside of a call nothing is counted");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_within_a_call_counts_for_both() {
        let soon = |seconds| Instant::now() + Duration::from_secs(seconds);
        let inner = async {
            let called = async { _ = sent("rds.example.com") };
            assert!(
                within("rds:DescribeDBClusters", soon(1), called)
                    .await
                    .is_ok()
            );
            std::future::pending::<()>().await;
        };
        let late = within("ssm:StartSession", soon(3), inner)
            .await
            .unwrap_err();
        assert_eq!(
            late.to_string(),
            "ssm:StartSession got no answer from rds.example.com within 3 s (1 try)"
        );
    }
}
