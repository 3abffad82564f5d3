//! `pgiam serve --test`: one login per target at the start.

use std::sync::Arc;

use thiserror::Error;
use tracing::info;

use super::resolve_target::in_words;
use crate::postgres::target::PgTarget;

/// Error: the login failed at some targets.
#[derive(Debug, Default, Error)]
#[error("{}", summary(.failed, .all))]
pub(super) struct TestFailed {
    /// Name and reason of each failed target.
    failed: Vec<(String, String)>,
    /// Number of tested targets.
    all: usize,
}

fn summary(failed: &[(String, String)], all: &usize) -> String {
    let reasons = failed
        .iter()
        .map(|(name, reason)| format!("\n{name}: {reason}"));
    let reasons: String = reasons.collect();
    format!(
        "{} of {all} targets failed the connection test{reasons}",
        failed.len()
    )
}

/// Logs in once at every target, in parallel, as a client that leaves user and database to the
/// target. Takes no longer than the timeouts of the slowest.
///
/// # Errors
/// [`TestFailed`] with the reasons, as a client would get them.
pub(super) async fn run(targets: &[Arc<PgTarget>]) -> Result<(), TestFailed> {
    let tests = targets.iter().map(|served| served.test());
    let outcomes = futures_util::future::join_all(tests).await;
    let mut failed = Vec::new();
    for (served, outcome) in targets.iter().zip(outcomes) {
        let name = &served.config.name;
        match outcome {
            Ok(()) => info!(name = name.as_str(), "connection test passed"),
            Err(reason) => failed.push((name.to_string(), in_words(&reason))),
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(TestFailed {
            failed,
            all: targets.len(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_named() {
        let error = TestFailed {
            failed: vec![("orders".into(), "no way [x]\nhint: y".into())],
            all: 2,
        };
        let said = "1 of 2 targets failed the connection test\norders: no way [x]\nhint: y";
        assert_eq!(error.to_string(), said);
    }
}
