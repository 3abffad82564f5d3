//! The bastion and session steps.

use ssm_channel::AgentVersion;

use super::{CheckRun, StepOutcome, StepVerdict};
use crate::aws::discover;
use crate::config::{Bastion, Via};
use crate::failure::connection::ConnectionError;
use crate::postgres::target::PgContext;
use crate::tunnel::{BastionCandidate, BastionState, RELAY_VERSION, RelayAbsence, RelayState};

impl CheckRun {
    /// Runs the bastion step: selects a bastion and reports if it is usable.
    pub(super) async fn bastion(&self, context: &PgContext) -> StepOutcome {
        let carriers = match context.carriers().await {
            Ok(carriers) => carriers,
            Err(error) => return StepOutcome::failed(context.explain(&error)),
        };
        let why = match chosen(&carriers) {
            Some(chosen) => self.why(context, &chosen.id).await,
            None => String::new(),
        };
        let outcome = judge(&carriers, &why);
        if outcome.verdict != StepVerdict::Warning {
            return outcome;
        }
        // Systems Manager takes minutes to notice that an agent is back, or new: only a session
        // shows if the node works.
        match context.prepare().await {
            Ok(_) => outcome,
            Err(error) => StepOutcome {
                facts: outcome.facts,
                ..StepOutcome::failed(context.explain(&error))
            },
        }
    }

    /// Returns the reason for choosing this bastion.
    async fn why(&self, context: &PgContext, id: &str) -> String {
        let Via::Ssm(settings) = &context.target.settings.via else {
            return String::new();
        };
        let ranked = match (&settings.bastion, self.region().await) {
            (Bastion::Nodes(_), _) => return "as configured".to_owned(),
            (tag @ Bastion::Tag { .. }, _) => return format!("found by {tag}"),
            (Bastion::Auto, None) => return FOUND.to_owned(),
            (Bastion::Auto, Some(region)) => {
                let database = self.database.as_ref();
                let vpc = database.and_then(|database| database.vpc.as_deref());
                discover::bastions_in(&self.aws, &region, vpc).await
            }
        };
        let ranked = ranked.map(|ranked| ranked.nodes).unwrap_or_default();
        let candidate = ranked.into_iter().find(|it| it.node.id == id);
        candidate.map_or_else(|| FOUND.to_owned(), |it| format!("{FOUND}: {}", it.why))
    }
}

/// Reason for a bastion that was not configured.
const FOUND: &str = "found";

/// Runs the session step: opens a session through the bastion.
pub(super) async fn session(context: &PgContext) -> StepOutcome {
    match context.prepare().await {
        Ok(Some(bastion)) => {
            StepOutcome::ok(format!("open through {bastion}")).fact("bastion", &*bastion)
        }
        Ok(None) => StepOutcome::ok("not needed"),
        // The session opened: the agent looks up the database's name in it, and the next step
        // reports the result.
        Err(ConnectionError::Tunnel(error)) if error.is_about_the_name() => StepOutcome::ok("open"),
        Err(error) => StepOutcome::failed(context.explain(&error)),
    }
}

/// Runs the relay step: reports what the session step has found.
pub(super) fn relay(context: &PgContext) -> StepOutcome {
    let Some(relay) = context.transport.stats().relay else {
        return StepOutcome::skipped("no relay is configured");
    };
    let (port, sessions) = (relay.port, relay.sessions);
    let Via::Ssm(settings) = &context.target.settings.via else {
        return StepOutcome::skipped("no tunnel is configured");
    };
    let is_explicit = settings.relay.is_some_and(|relay| relay.is_explicit);
    let outcome = match &relay.state {
        RelayState::InUse { bastion, .. } => StepOutcome::ok(format!(
            "answers on port {port} of {bastion}, protocol {RELAY_VERSION}; a connection may use {sessions} session{}",
            if sessions == 1 { "" } else { "s" }
        )),
        RelayState::Absent(absence) if is_explicit => {
            StepOutcome::warning(absence.to_string()).remedy(remedy(absence))
        }
        RelayState::Absent(absence) => {
            StepOutcome::skipped(format!("{absence}; {}", absence.remedy()))
        }
        RelayState::Untried | RelayState::Trying | RelayState::Failed => {
            StepOutcome::skipped("unknown: no session to it was opened")
        }
    };
    outcome
        .fact("port", port)
        .fact("state", relay.state.as_str())
        .fact("sessions", sessions)
}

fn remedy(absence: &RelayAbsence) -> String {
    format!(
        "Connections use sessions to the database instead. To use the relay, {}.",
        absence.remedy()
    )
}

/// Returns the first carrier without a known fault, or else the first.
fn chosen(carriers: &[BastionCandidate]) -> Option<&BastionCandidate> {
    let best = carriers.iter().find(|it| it.fault().is_none());
    best.or(carriers.first())
}

fn judge(carriers: &[BastionCandidate], why: &str) -> StepOutcome {
    let Some(chosen) = chosen(carriers) else {
        return StepOutcome::skipped("no bastion to check");
    };
    let others = match carriers.len() - 1 {
        0 => String::new(),
        1 => ", one other candidate".to_owned(),
        more => format!(", {more} other candidates"),
    };
    let (id, fault) = (&chosen.id, chosen.fault());
    let outcome = match (&chosen.state, fault) {
        (BastionState::Unknown, _) if id.starts_with("ecs:") => StepOutcome::skipped(format!(
            "{id} is an ECS container, which Systems Manager does not list"
        )),
        (BastionState::Unknown, _) => StepOutcome::skipped(format!(
            "{id}, {why}; its status is unknown, because ssm:DescribeInstanceInformation failed"
        )),
        (_, Some(fault)) => StepOutcome::warning(format!("{id} {fault}"))
            .detail("The session step may still succeed: the status in Systems Manager can be some minutes old."),
        (BastionState::Known { agent, .. }, None) => {
            let agent = agent.as_ref().map(|agent| format!(", agent {agent}"));
            let agent = agent.unwrap_or_default();
            StepOutcome::ok(format!("{id} is online{agent}, {why}{others}"))
        }
        (BastionState::Unlisted, None) => StepOutcome::skipped(id.clone()),
    };
    let outcome = outcome
        .fact("bastion", id.as_str())
        .fact("candidates", carriers.len());
    match &chosen.state {
        BastionState::Known {
            ping,
            last_ping,
            agent,
            ..
        } => outcome
            .fact("ping", ping.clone())
            .fact("last_ping", last_ping.clone())
            .fact("agent", agent.clone()),
        BastionState::Unlisted | BastionState::Unknown => outcome,
    }
}

impl BastionCandidate {
    /// Returns the known fault of the bastion, as Systems Manager reports it.
    fn fault(&self) -> Option<String> {
        let BastionState::Known {
            online,
            ping,
            last_ping,
            agent,
        } = &self.state
        else {
            let unlisted = self.state == BastionState::Unlisted;
            return unlisted.then(|| "is not a managed node in this region".to_owned());
        };
        if !online {
            let last = last_ping.as_ref().map(|at| format!(", last ping {at}"));
            return Some(format!(
                "is not online ({ping}{})",
                last.unwrap_or_default()
            ));
        }
        let needed = AgentVersion::FIRST_WITH_REMOTE_HOST;
        let version: AgentVersion = agent.as_deref()?.parse().ok()?;
        (version < needed).then(|| format!("has agent {version}, older than {needed}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, ping: &str, agent: &str) -> BastionCandidate {
        BastionCandidate {
            id: id.to_owned().into(),
            state: BastionState::Known {
                online: ping == "Online",
                ping: ping.to_owned(),
                last_ping: Some("2026-10-01T12:00:00Z".to_owned()),
                agent: Some(agent.to_owned()),
            },
        }
    }

    fn without(id: &str, state: BastionState) -> BastionCandidate {
        BastionCandidate {
            id: id.to_owned().into(),
            state,
        }
    }

    #[test]
    fn the_first_that_works_is_named() {
        let good = node("i-2", "Online", "3.3.0.0");
        for (carriers, verdict, said) in [
            (
                vec![good.clone()],
                StepVerdict::Ok,
                "i-2 is online, agent 3.3.0.0, why",
            ),
            (
                vec![node("i-1", "ConnectionLost", "3.3.0.0"), good],
                StepVerdict::Ok,
                "i-2 is online, agent 3.3.0.0, why, one other candidate",
            ),
            (
                vec![node("i-1", "ConnectionLost", "3.3.0.0")],
                StepVerdict::Warning,
                "i-1 is not online (ConnectionLost, last ping 2026-10-01T12:00:00Z)",
            ),
            (
                vec![node("i-1", "Online", "3.1.1320.0")],
                StepVerdict::Warning,
                "i-1 has agent 3.1.1320.0, older than 3.1.1374.0",
            ),
            (
                vec![without("i-1", BastionState::Unlisted)],
                StepVerdict::Warning,
                "i-1 is not a managed node in this region",
            ),
            (
                vec![without("i-1", BastionState::Unknown)],
                StepVerdict::Skipped,
                "i-1, why; its status is unknown, because ssm:DescribeInstanceInformation failed",
            ),
            (
                vec![without("ecs:c_t_r", BastionState::Unknown)],
                StepVerdict::Skipped,
                "ecs:c_t_r is an ECS container, which Systems Manager does not list",
            ),
            (vec![], StepVerdict::Skipped, "no bastion to check"),
        ] {
            let outcome = judge(&carriers, "why");
            assert_eq!((outcome.verdict, outcome.said.as_str()), (verdict, said));
        }
    }
}
