//! The credentials and clock steps.

use std::time::{Duration, SystemTime};

use super::{CheckRun, StepOutcome, StepVerdict};
use crate::aws::{
    ClockOffset, CredentialSource, CredentialsError, FOR_A_COMMAND, Identity, KeyState,
};
use crate::report;

/// Region for GetCallerIdentity when no region is known: STS answers in every region, and most
/// accounts are in this one's partition.
const SOMEWHERE: &str = "us-east-1";
/// Clock error in seconds from which it deserves a warning although everything works: it will grow.
const WORTH_A_LOOK: u64 = 60;
/// Allowance in seconds for the resolution of `Date` headers (whole seconds) and the latency to
/// AWS.
const IN_STEP: u64 = 2;

impl CheckRun {
    /// Runs the credentials step: presence, validity, identity, source and expiry.
    pub(super) async fn credentials(&mut self) -> StepOutcome {
        let credentials = match self.aws.credentials().await {
            Ok(credentials) => credentials,
            Err(error) => return StepOutcome::failed(report::explain_credentials(&error)),
        };
        let region = self.region().await;
        let region = region.unwrap_or_else(|| SOMEWHERE.into());
        self.identity = self.aws.identity(&region, FOR_A_COMMAND).await;
        let found = FoundCredentials {
            source: CredentialSource::of(&credentials).cloned(),
            ends_in: credentials.expiry().map(|end| {
                let left = end.duration_since(SystemTime::now());
                left.unwrap_or_default()
            }),
            profile: self.aws.profile().map(str::to_owned),
        };
        judge(&found, &self.identity, self.aws.clock_offset())
    }

    /// Runs the clock step.
    pub(super) fn clock(&self) -> StepOutcome {
        clock(self.aws.clock_offset())
    }
}

/// Credentials and their source.
struct FoundCredentials {
    source: Option<CredentialSource>,
    ends_in: Option<Duration>,
    profile: Option<String>,
}

fn judge(found: &FoundCredentials, identity: &Identity, clock: Option<ClockOffset>) -> StepOutcome {
    let source = match &found.source {
        Some(source) => format!("from {source}"),
        None => "from an unknown source".to_owned(),
    };
    let ends = found.ends_in.map(|left| format!(", {} left", rough(left)));
    let source = source + &ends.unwrap_or_default();
    let outcome = match (&identity.keys, &identity.arn) {
        (Some(KeyState::Accepted), Some(arn)) => StepOutcome::ok(format!("{arn}, {source}")),
        (Some(KeyState::Accepted), None) => StepOutcome::ok(source),
        (Some(KeyState::Expired), _) => {
            StepOutcome::failed(report::explain_credentials(&CredentialsError::Expired {
                at: None,
                profile: found.profile.clone(),
            }))
        }
        (Some(KeyState::Rejected { code }), _) => match clock.filter(|clock| clock.is_wrong()) {
            // The next step reports it.
            Some(_) => StepOutcome::warning(format!("{source}; AWS rejected them"))
                .detail(code.clone()),
            None => StepOutcome::failed(report::explain_credentials(&CredentialsError::Rejected {
                profile: found.profile.clone(),
                code: code.as_str().into(),
                message: "sts:GetCallerIdentity was refused".into(),
                clock: None,
            })),
        },
        (None, _) => StepOutcome::warning(format!("{source}; sts:GetCallerIdentity failed"))
            .remedy("Check the network. Behind a proxy, set HTTPS_PROXY; behind TLS inspection, set AWS_CA_BUNDLE. Another possible cause: an organisation policy (SCP) denies sts:GetCallerIdentity."),
    };
    let left = found.ends_in.map(|left| left.as_secs());
    let reason = found.source.as_ref().map(|source| source.reason());
    let outcome = match (reason, outcome.verdict) {
        (Some(reason), StepVerdict::Ok) => outcome.detail(reason),
        _ => outcome,
    };
    outcome
        .fact("reason", reason)
        .fact("arn", identity.arn.clone())
        .fact("account", identity.account.clone())
        .fact("source", found.source.as_ref().map(ToString::to_string))
        .fact("expires_in_s", left)
}

fn clock(clock: Option<ClockOffset>) -> StepOutcome {
    let Some(clock) = clock else {
        return StepOutcome::skipped("AWS returned no time to compare the clock with");
    };
    let off = clock.seconds.unsigned_abs();
    let outcome = if clock.is_wrong() {
        StepOutcome::failed(report::explain_clock(clock))
    } else if off > WORTH_A_LOOK {
        StepOutcome::warning(clock.to_string()).remedy(
            "Turn on time synchronisation: AWS rejects signatures that are more than 5 min off.",
        )
    } else if off > IN_STEP {
        StepOutcome::ok(clock.to_string())
    } else {
        StepOutcome::ok(ClockOffset { seconds: 0 }.to_string())
    };
    outcome.fact("offset_s", clock.seconds)
}

/// Formats a remaining time in the largest unit with a value of at least two.
fn rough(left: Duration) -> String {
    match left.as_secs() {
        s if s >= 2 * 24 * 3600 => format!("{} days", s / (24 * 3600)),
        s if s >= 2 * 3600 => format!("{} h", s / 3600),
        s if s >= 2 * 60 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> FoundCredentials {
        FoundCredentials {
            source: Some(CredentialSource::environment()),
            ends_in: Some(Duration::from_secs(3500)),
            profile: None,
        }
    }

    fn identity(keys: Option<KeyState>) -> Identity {
        Identity {
            account: Some("123456789012".to_owned()),
            arn: keys
                .as_ref()
                .filter(|keys| **keys == KeyState::Accepted)
                .map(|_| "arn:aws:iam::123456789012:user/dev".to_owned()),
            keys,
        }
    }

    #[test]
    fn who_and_from_where_is_said() {
        let outcome = judge(&found(), &identity(Some(KeyState::Accepted)), None);
        assert_eq!(outcome.verdict, StepVerdict::Ok);
        assert_eq!(
            outcome.said,
            "arn:aws:iam::123456789012:user/dev, from the environment, 58 min left"
        );
        assert_eq!(outcome.facts["expires_in_s"], 3500);
        assert_eq!(outcome.detail.as_deref(), Some("AWS_ACCESS_KEY_ID is set"));
        assert_eq!(outcome.facts["reason"], "AWS_ACCESS_KEY_ID is set");
        let unknown = judge(&found(), &identity(None), None);
        assert_eq!(unknown.verdict, StepVerdict::Warning);
    }

    #[test]
    fn keys_that_aws_refuses_are_a_failure_unless_it_is_the_clock() {
        let rejected = || {
            identity(Some(KeyState::Rejected {
                code: "SignatureDoesNotMatch".to_owned(),
            }))
        };
        let id = |identity: &Identity, seconds| {
            let outcome = judge(&found(), identity, Some(ClockOffset { seconds }));
            (outcome.verdict, outcome.id)
        };
        assert_eq!(
            id(&rejected(), 0),
            (StepVerdict::Failed, Some("aws.rejected"))
        );
        assert_eq!(id(&rejected(), 960), (StepVerdict::Warning, None));
        let over = identity(Some(KeyState::Expired));
        assert_eq!(id(&over, 0), (StepVerdict::Failed, Some("aws.expired")));
    }

    #[test]
    fn a_clock_is_judged_by_its_distance() {
        for (seconds, verdict, said) in [
            (1, StepVerdict::Ok, "in sync with AWS"),
            (-20, StepVerdict::Ok, "20 s ahead of AWS"),
            (90, StepVerdict::Warning, "2 min behind AWS"),
            (-300, StepVerdict::Warning, "5 min ahead of AWS"),
            (
                420,
                StepVerdict::Failed,
                "this machine's clock is 7 min behind AWS",
            ),
        ] {
            let outcome = clock(Some(ClockOffset { seconds }));
            assert_eq!((outcome.verdict, outcome.said.as_str()), (verdict, said));
        }
        assert_eq!(clock(None).verdict, StepVerdict::Skipped);
    }
}
