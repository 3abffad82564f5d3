//! The settings step: the database as RDS reports it.

use std::time::{Duration, SystemTime};

use x509_parser::prelude::{FromDer, X509Certificate};

use super::{CheckRun, StepOutcome};
use crate::aws::discover;
use crate::aws::discover::{Database, DatabaseKind, DiscoverError};
use crate::base::names::Region;
use crate::config::{Auth, EndpointKind};
use crate::postgres::target::PgContext;
use crate::report;
use crate::tls::roots::rds_roots;

/// States in which a database accepts no connections until an administrator acts (RDS User Guide,
/// "Viewing DB instance status").
const DOWN: [&str; 6] = [
    "creating",
    "deleting",
    "failed",
    "inaccessible-encryption-credentials",
    "stopped",
    "stopping",
];

impl CheckRun {
    /// Runs the settings step: status, IAM, version and CA of the database.
    pub(super) async fn settings(&mut self, context: &PgContext) -> StepOutcome {
        let Some(endpoint) = self.endpoint.clone() else {
            return StepOutcome::skipped("the endpoint is unknown");
        };
        if matches!(endpoint.kind(), EndpointKind::Dsql | EndpointKind::Other) {
            return StepOutcome::skipped("RDS has no settings for this kind of endpoint");
        }
        if self.database.is_none() {
            let Some(region) = self.region().await else {
                return StepOutcome::skipped("no AWS region is known");
            };
            match discover::at(&self.aws, &region, &endpoint).await {
                Ok(Some(database)) => self.database = Some(database),
                Ok(None) => {
                    return StepOutcome::skipped(format!(
                        "RDS lists no database with this endpoint in {region}; it may belong to another account"
                    ));
                }
                Err(error) => return StepOutcome::skipped(unknown(&error)),
            }
        }
        let Some(database) = &self.database else {
            return StepOutcome::skipped("the database is unknown");
        };
        judge(
            database,
            &ExpectedSettings {
                iam: context.target.settings.login.auth == Auth::Iam,
                built_in_roots: context.target.settings.ca_file.is_none(),
                profile: context.target.settings.profile.as_deref(),
                now: SystemTime::now(),
            },
        )
    }
}

/// Returns the reason why RDS or another service gave no answer.
pub(super) fn unknown(error: &DiscoverError) -> String {
    match error {
        DiscoverError::Refused { action, .. } if error.is_denied() => {
            format!("your policy does not allow {action}")
        }
        other => other.to_string(),
    }
}

/// Expected settings.
struct ExpectedSettings<'a> {
    /// Logins use tokens.
    iam: bool,
    /// The built-in trust roots are used.
    built_in_roots: bool,
    profile: Option<&'a str>,
    now: SystemTime,
}

fn judge(database: &Database, wanted: &ExpectedSettings<'_>) -> StepOutcome {
    let status = database.status.as_deref();
    let outcome = if status.is_some_and(|status| DOWN.contains(&status)) {
        StepOutcome::failed(report::explain_status(database, wanted.profile))
    } else if wanted.iam && database.iam == Some(false) {
        StepOutcome::failed(report::explain_iam_off(database, wanted.profile))
    } else if !database.is_postgres() {
        StepOutcome::warning(summary(database)).detail("The database engine is not PostgreSQL.")
    } else if !database.is_available() {
        StepOutcome::warning(summary(database))
            .detail("The database may not accept connections in this state.")
    } else {
        authority(database, wanted)
    };
    outcome
        .fact("identifier", database.identifier.clone())
        .fact("status", database.status.clone())
        .fact("iam", database.iam)
        .fact("engine", database.engine.clone())
        .fact("engine_version", database.engine_version.clone())
        .fact("ca", database.ca.clone())
        .fact("resource_id", database.resource_id.clone())
}

/// Checks the CA and its expiry; everything else is in order.
fn authority(database: &Database, wanted: &ExpectedSettings<'_>) -> StepOutcome {
    let ok = StepOutcome::ok(summary(database));
    let Some(ca) = database.ca.as_deref().filter(|_| wanted.built_in_roots) else {
        return ok;
    };
    match root_of(ca, &database.region) {
        Some(until) if until > wanted.now => ok,
        Some(_) => StepOutcome::warning(summary(database)).detail(format!("The CA {ca} has expired.")),
        None => StepOutcome::warning(summary(database)).detail(format!(
            "The CA {ca} is not among the built-in roots. If the tls step fails, set ca_file to a bundle that contains it."
        )),
    }
}

/// Returns the expiry of the built-in root with this identifier (`rds-ca-rsa2048-g1`).
fn root_of(ca: &str, region: &Region) -> Option<SystemTime> {
    let kind = ca.strip_prefix("rds-ca-")?.to_ascii_uppercase();
    let (kind, generation) = kind.rsplit_once('-')?;
    let name = format!("Amazon RDS {region} Root CA {kind} {generation}");
    rds_roots().iter().find_map(|der| {
        let (_, root) = X509Certificate::from_der(der).ok()?;
        let mut names = root.subject().iter_common_name();
        let is_it = names.any(|it| it.as_str().is_ok_and(|it| it == name));
        let until = u64::try_from(root.validity().not_after.timestamp()).ok()?;
        is_it.then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(until))
    })
}

/// Formats `available, aurora-postgresql 17.5, IAM login on, CA rds-ca-rsa2048-g1`.
fn summary(database: &Database) -> String {
    let engine = database.engine.as_ref().map(|engine| {
        let version = database.engine_version.as_deref().unwrap_or_default();
        format!("{engine} {version}").trim_end().to_owned()
    });
    let iam = database.iam.map(|on| match on {
        true => "IAM login on".to_owned(),
        false => "IAM login off".to_owned(),
    });
    let ca = database.ca.as_ref().map(|ca| format!("CA {ca}"));
    let parts = [database.status.clone(), engine, iam, ca];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    match (parts.is_empty(), database.kind) {
        (false, _) => parts.join(", "),
        (true, DatabaseKind::Proxy) => "an RDS Proxy".to_owned(),
        (true, _) => database.identifier.clone(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::StepVerdict;
    use super::*;

    pub(in super::super) fn database() -> Database {
        Database {
            kind: DatabaseKind::Cluster,
            identifier: "orders".to_owned(),
            endpoint: None,
            reader: None,
            region: "eu-central-1".to_owned().into(),
            resource_id: Some("cluster-ABC".to_owned()),
            arn: Some("arn:aws:rds:eu-central-1:123456789012:cluster:orders".to_owned()),
            iam: Some(true),
            status: Some("available".to_owned()),
            engine: Some("aurora-postgresql".to_owned()),
            engine_version: Some("17.5".to_owned()),
            database: None,
            vpc: None,
            security_groups: Vec::new(),
            subnets: Vec::new(),
            ca: Some("rds-ca-rsa2048-g1".to_owned()),
        }
    }

    fn judged(change: impl FnOnce(&mut Database), iam: bool) -> StepOutcome {
        let mut database = database();
        change(&mut database);
        judge(
            &database,
            &ExpectedSettings {
                iam,
                built_in_roots: true,
                profile: Some("dev"),
                now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000),
            },
        )
    }

    #[test]
    fn what_is_in_order_is_said_in_one_line() {
        let outcome = judged(|_| {}, true);
        assert_eq!(outcome.verdict, StepVerdict::Ok);
        assert_eq!(
            outcome.said,
            "available, aurora-postgresql 17.5, IAM login on, CA rds-ca-rsa2048-g1"
        );
        assert_eq!(outcome.facts["iam"], true);
    }

    #[test]
    fn iam_must_be_on_for_tokens() {
        let off = |database: &mut Database| database.iam = Some(false);
        let outcome = judged(off, true);
        assert_eq!(
            (outcome.verdict, outcome.id),
            (StepVerdict::Failed, Some("rds.iam-off"))
        );
        assert_eq!(judged(off, false).verdict, StepVerdict::Ok);
        assert_eq!(
            judged(|database| database.iam = None, true).verdict,
            StepVerdict::Ok
        );
    }

    #[test]
    fn a_stopped_database_is_a_failure_and_a_busy_one_is_not() {
        let with = |status: &str| judged(|it| it.status = Some(status.to_owned()), true);
        let stopped = with("stopped");
        assert_eq!(
            (stopped.verdict, stopped.id),
            (StepVerdict::Failed, Some("rds.status"))
        );
        assert_eq!(with("backing-up").verdict, StepVerdict::Warning);
    }

    #[test]
    fn the_ca_is_looked_for_among_the_built_in_roots() {
        for ca in ["rds-ca-rsa2048-g1", "rds-ca-rsa4096-g1", "rds-ca-ecc384-g1"] {
            assert!(root_of(ca, &"eu-central-1".into()).is_some(), "{ca}");
        }
        assert_eq!(root_of("rds-ca-2019", &"eu-central-1".into()), None);
        assert_eq!(root_of("rds-ca-rsa2048-g1", &"us-gov-west-1".into()), None);
        let old = judged(
            |database| database.ca = Some("rds-ca-2019".to_owned()),
            true,
        );
        assert_eq!(old.verdict, StepVerdict::Warning);
    }
}
