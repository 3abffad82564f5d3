//! The running pgiam that serves the target.

use super::{CheckRun, StepOutcome};
use crate::admin::document::TargetDocument;
use crate::admin::running::RunningTarget;
use crate::config::TargetConfig;

impl CheckRun {
    /// Looks for the running pgiam that serves the target; `None` without one. None of its faults
    /// fails the check, which has a connection of its own.
    pub(super) async fn running(&self) -> Option<StepOutcome> {
        let config = self.config();
        let all = RunningTarget::all(self.state_dir.as_deref()).await;
        outcome(config, &all)
    }
}

fn outcome(config: &TargetConfig, all: &[RunningTarget]) -> Option<StepOutcome> {
    let named = |running: &&RunningTarget| running.target.name == *config.name;
    let found = all.iter().find(|running| running.is_of(config));
    let running = found.or_else(|| all.iter().find(named))?;
    let RunningTarget { process, target } = running;
    let said = format!(
        "process {}, port {}: {}",
        process.pid,
        target.port,
        state(target)
    );
    let last_error = target.last_error.as_ref().filter(|_| !target.ready);
    let outcome = if !running.is_of(config) {
        StepOutcome::warning(format!("{said}; it leads to another database"))
            .detail(difference(running, config))
            .remedy("restart the process if it should use this configuration")
    } else if let Some(reason) = &process.change_unused {
        StepOutcome::warning(format!("{said}; it uses an older configuration"))
            .detail(format!("the changed file is not used: {reason}"))
            .remedy("correct the file; pgiam reloads it by itself")
    } else if let Some(error) = last_error {
        StepOutcome::warning(said).detail(format!("last error: {}", error.message))
    } else if !target.ready {
        StepOutcome::warning(said)
    } else {
        StepOutcome::ok(said)
    };
    let socket = target.socket.as_ref();
    let socket = socket.map(|path| path.display().to_string());
    let file = process.config.as_ref();
    let file = file.map(|path| path.display().to_string());
    let outcome = outcome
        .fact("pid", process.pid)
        .fact("port", target.port)
        .fact("socket", socket)
        .fact("config", file)
        .fact("state", target.state.clone());
    Some(outcome)
}

/// Returns the state, with the identifier of the failure.
fn state(target: &TargetDocument) -> String {
    match &target.failing {
        Some(id) => format!("{} [{id}]", target.state),
        None => target.state.clone(),
    }
}

/// Returns the difference between the databases of a running and of a configured target.
fn difference(running: &RunningTarget, config: &TargetConfig) -> String {
    let theirs = &running.target.configured_as;
    match *theirs == config.database_ref.written() {
        true => "it uses another profile or region".to_owned(),
        false => format!("it leads to {theirs}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::StepVerdict;
    use super::*;
    use crate::admin::document::FailureDocument;
    use crate::config::{ConfigFile, TargetLayer};

    fn config() -> TargetConfig {
        let text = "[targets.orders]\ndb = 'orders'\nprofile = 'dev'\nuser = 'db_user'";
        let file: ConfigFile = toml::from_str(text).unwrap();
        file.target(None, &TargetLayer::default()).unwrap()
    }

    fn running() -> RunningTarget {
        let mut running = RunningTarget {
            process: Default::default(),
            target: Default::default(),
        };
        running.process.pid = 4711;
        running.target = TargetDocument {
            name: "orders".to_owned(),
            configured_as: "orders".to_owned(),
            profile: Some("dev".to_owned()),
            user: Some("db_user".to_owned()),
            port: 5433,
            state: "ready".to_owned(),
            ready: true,
            ..TargetDocument::default()
        };
        running
    }

    fn of(change: impl Fn(&mut RunningTarget)) -> (StepVerdict, String, String) {
        let mut running = running();
        change(&mut running);
        let outcome = outcome(&config(), &[running]).unwrap();
        let detail = outcome.detail.unwrap_or_default();
        (outcome.verdict, outcome.said, detail)
    }

    #[test]
    fn a_running_target_that_is_ready() {
        let (verdict, said, detail) = of(|_| ());
        assert_eq!(verdict, StepVerdict::Ok);
        assert_eq!(said, "process 4711, port 5433: ready");
        assert_eq!(detail, "");
        assert_eq!(outcome(&config(), &[]), None);
        let mut other = running();
        other.target.name = "stock".to_owned();
        assert_eq!(outcome(&config(), &[other]), None);
    }

    #[test]
    fn a_running_target_that_fails_or_is_old_is_a_warning() {
        let (verdict, said, detail) = of(|running| {
            running.target.ready = false;
            running.target.state = "failing".to_owned();
            running.target.failing = Some("aws.expired".to_owned());
            running.target.last_error = Some(FailureDocument {
                message: "the credentials have expired".to_owned(),
                ..FailureDocument::default()
            });
        });
        assert_eq!(verdict, StepVerdict::Warning);
        assert_eq!(said, "process 4711, port 5433: failing [aws.expired]");
        assert_eq!(detail, "last error: the credentials have expired");
        type Change = fn(&mut RunningTarget);
        let changes: [(Change, &str, &str); 3] = [
            (
                |running| running.process.change_unused = Some("line 3".to_owned()),
                "older configuration",
                "the changed file is not used: line 3",
            ),
            (
                |running| running.target.configured_as = "orders:reader".to_owned(),
                "another database",
                "it leads to orders:reader",
            ),
            (
                |running| running.target.profile = None,
                "another database",
                "it uses another profile or region",
            ),
        ];
        for (change, expected, reason) in changes {
            let (verdict, said, detail) = of(change);
            assert_eq!(verdict, StepVerdict::Warning);
            assert!(said.ends_with(expected), "{said}");
            assert_eq!(detail, reason);
        }
    }
}
