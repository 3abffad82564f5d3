//! The permission step: IAM's simulation of the caller's policies (`iam:SimulatePrincipalPolicy`).
//!
//! The simulation evaluates the policies of one identity. It does not see everything that decides
//! (policies of the organisation, permissions boundaries of sessions, conditions). A denial is
//! therefore only a warning; the login step decides.

use std::sync::Arc;

use roxmltree::{Document, Node};

use super::{CheckRun, StepOutcome};
use crate::aws::query::{Query, QueryError};
use crate::base::names::Region;
use crate::base::partition::Partition;
use crate::config::{Endpoint, EndpointKind};
use crate::postgres::target::PgContext;
use crate::report;

/// IAM's error code for an unknown entity.
const NO_SUCH_ENTITY: &str = "NoSuchEntity";
/// Name prefix of roles created by IAM Identity Center.
const OF_SSO: &str = "AWSReservedSSO_";
/// Path of those roles, with or without a region after it (IAM Identity Center User Guide,
/// "Referencing permission sets in resource policies").
const SSO_PATH: &str = "aws-reserved/sso.amazonaws.com/";

/// Permission to simulate.
struct SimulatedPermission {
    action: &'static str,
    resource: String,
}

impl CheckRun {
    /// Runs the permission step: checks that a policy allows the login.
    pub(super) async fn permission(&mut self, context: &Arc<PgContext>) -> StepOutcome {
        let Some(region) = self.region().await else {
            return StepOutcome::skipped("no AWS region is known");
        };
        let user = match self.login_check(context) {
            Ok(login_check) => login_check.user().to_owned(),
            Err(error) => return StepOutcome::failed(context.explain(&error)),
        };
        let Some(arn) = self.identity.arn.as_deref() else {
            return StepOutcome::skipped("your identity is unknown (see credentials)");
        };
        let Some(wanted) = self.wanted(&user, &region) else {
            return StepOutcome::skipped(
                "the resource id of the database is unknown (see settings)",
            );
        };
        let principals = match principals(arn, &region) {
            Ok(principals) => principals,
            Err(reason) => return StepOutcome::skipped(reason),
        };
        for principal in principals {
            match self.simulate(&principal, &wanted, &region).await {
                Err(error) if is_unknown(&error) => {}
                Err(error) => return StepOutcome::skipped(refusal(&error)),
                Ok(answer) => return judge(&answer, &wanted),
            }
        }
        StepOutcome::skipped("IAM cannot find your role, because its path is unknown")
    }

    /// Returns the resource of the permission for a login as `user`.
    fn wanted(&self, user: &str, region: &Region) -> Option<SimulatedPermission> {
        let Endpoint { host, .. } = self.endpoint.as_ref()?;
        let partition = Partition::of(region).name;
        let account = self.identity.account.as_deref()?;
        if EndpointKind::of(host) == EndpointKind::Dsql {
            let id = host.split('.').next()?;
            return Some(SimulatedPermission {
                action: match user {
                    "admin" => "dsql:DbConnectAdmin",
                    _ => "dsql:DbConnect",
                },
                resource: format!("arn:{partition}:dsql:{region}:{account}:cluster/{id}"),
            });
        }
        let id = self.database.as_ref()?.resource_id.as_deref()?;
        Some(SimulatedPermission {
            action: "rds-db:connect",
            resource: format!("arn:{partition}:rds-db:{region}:{account}:dbuser:{id}/{user}"),
        })
    }

    async fn simulate(
        &self,
        principal: &str,
        wanted: &SimulatedPermission,
        region: &Region,
    ) -> Result<SimulationResult, QueryError> {
        let params = [
            ("PolicySourceArn", principal),
            ("ActionNames.member.1", wanted.action),
            ("ResourceArns.member.1", &wanted.resource),
        ];
        let query = Query {
            service: "iam",
            name: "iam:SimulatePrincipalPolicy",
            version: "2010-05-08",
            action: "SimulatePrincipalPolicy",
            params: params
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            region,
        };
        Ok(read(&self.aws.query(query).await?))
    }
}

/// Result of the simulation.
#[derive(Clone, Debug, PartialEq, Eq)]
enum SimulationResult {
    Allowed,
    /// No policy allows it.
    Implicit,
    /// A policy denies it.
    Explicit {
        by_organisation: bool,
    },
    /// Any other result.
    Odd(String),
}

fn read(xml: &str) -> SimulationResult {
    let document = match Document::parse(xml) {
        Ok(document) => document,
        Err(error) => return SimulationResult::Odd(format!("not XML: {error}")),
    };
    let text = |name: &str| {
        let mut nodes = document.descendants();
        let node = nodes.find(|node| node.has_tag_name_of(name));
        node.and_then(|node| node.text()).map(str::trim)
    };
    match text("EvalDecision") {
        Some("allowed") => SimulationResult::Allowed,
        Some("implicitDeny") => SimulationResult::Implicit,
        Some("explicitDeny") => SimulationResult::Explicit {
            by_organisation: text("AllowedByOrganizations") == Some("false"),
        },
        other => SimulationResult::Odd(other.unwrap_or("no decision").to_owned()),
    }
}

/// Names without the namespace, which carries a version.
trait LocalName {
    fn has_tag_name_of(&self, name: &str) -> bool;
}

impl LocalName for Node<'_, '_> {
    fn has_tag_name_of(&self, name: &str) -> bool {
        self.tag_name().name() == name
    }
}

fn judge(answer: &SimulationResult, wanted: &SimulatedPermission) -> StepOutcome {
    let SimulatedPermission { action, resource } = wanted;
    let outcome = match answer {
        SimulationResult::Allowed => StepOutcome::ok(format!("{action} is allowed on {resource}")),
        SimulationResult::Implicit => StepOutcome::warning(format!("your policies do not allow {action} on {resource}"))
            .detail("The IAM simulation ignores resource policies and some conditions; the login step decides.")
            .remedy(report::add_statement(action, &format!("\"{resource}\""))),
        SimulationResult::Explicit { by_organisation } => {
            let whose = match by_organisation {
                true => "an organisation policy (SCP)",
                false => "one of your policies",
            };
            StepOutcome::warning(format!("{whose} denies {action} on {resource}"))
                .detail("The IAM simulation ignores the conditions of a real login; the login step decides.")
        }
        SimulationResult::Odd(answer) => StepOutcome::skipped(format!("unexpected answer from IAM: {answer}")),
    };
    let decision = match answer {
        SimulationResult::Allowed => Some("allowed"),
        SimulationResult::Implicit => Some("implicitDeny"),
        SimulationResult::Explicit { .. } => Some("explicitDeny"),
        SimulationResult::Odd(_) => None,
    };
    outcome
        .fact("action", *action)
        .fact("resource", resource.clone())
        .fact("decision", decision)
}

/// Returns the ARNs to which the caller's policies may be attached, in the order to try: a
/// session's ARN names its role without the role's path.
fn principals(caller: &str, region: &Region) -> Result<Vec<String>, String> {
    let parts: Vec<&str> = caller.splitn(6, ':').collect();
    let &[_, partition, service, _, account, entity] = &parts[..] else {
        return Err(format!("unknown form of ARN: {caller}"));
    };
    let iam = |entity: String| format!("arn:{partition}:iam::{account}:{entity}");
    match (service, entity.split_once('/')) {
        ("iam", Some(("user", _))) => Ok(vec![caller.to_owned()]),
        ("sts", Some(("assumed-role", session))) => {
            let role = session.split('/').next().unwrap_or_default();
            let plain = iam(format!("role/{role}"));
            if !role.starts_with(OF_SSO) {
                return Ok(vec![plain]);
            }
            Ok(vec![
                iam(format!("role/{SSO_PATH}{region}/{role}")),
                iam(format!("role/{SSO_PATH}{role}")),
                plain,
            ])
        }
        ("iam", None) if entity == "root" => {
            Err("the account's root user has no policies".to_owned())
        }
        _ => Err("IAM can simulate only users and roles".to_owned()),
    }
}

fn is_unknown(error: &QueryError) -> bool {
    matches!(error, QueryError::Refused { answer, .. } if answer.code == NO_SUCH_ENTITY)
}

fn refusal(error: &QueryError) -> String {
    if error.is_denied() {
        return "your policy does not allow iam:SimulatePrincipalPolicy".to_owned();
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::super::StepVerdict;
    use super::*;

    #[test]
    fn policies_belong_to_roles_and_not_to_sessions() {
        let of = |caller: &str| principals(caller, &"eu-central-1".into());
        let user = "arn:aws:iam::123456789012:user/team/dev";
        assert_eq!(of(user).unwrap(), [user]);
        assert_eq!(
            of("arn:aws-cn:sts::123456789012:assumed-role/Developer/me@corp").unwrap(),
            ["arn:aws-cn:iam::123456789012:role/Developer"]
        );
        let role = "AWSReservedSSO_Dev_0123456789abcdef";
        assert_eq!(
            of(&format!("arn:aws:sts::123456789012:assumed-role/{role}/me")).unwrap(),
            [
                format!(
                    "arn:aws:iam::123456789012:role/aws-reserved/sso.amazonaws.com/eu-central-1/{role}"
                ),
                format!("arn:aws:iam::123456789012:role/aws-reserved/sso.amazonaws.com/{role}"),
                format!("arn:aws:iam::123456789012:role/{role}"),
            ]
        );
        for other in [
            "arn:aws:iam::123456789012:root",
            "arn:aws:sts::123456789012:federated-user/me",
            "me",
        ] {
            assert!(of(other).is_err(), "{other}");
        }
    }

    #[test]
    fn the_decision_is_read() {
        let xml = |decision: &str, organisation: &str| {
            format!(
                "<SimulatePrincipalPolicyResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\">\
                 <SimulatePrincipalPolicyResult><EvaluationResults><member>\
                 <EvalDecision>{decision}</EvalDecision><OrganizationsDecisionDetail>\
                 <AllowedByOrganizations>{organisation}</AllowedByOrganizations>\
                 </OrganizationsDecisionDetail></member></EvaluationResults>\
                 </SimulatePrincipalPolicyResult></SimulatePrincipalPolicyResponse>"
            )
        };
        for (decision, organisation, expected) in [
            ("allowed", "true", SimulationResult::Allowed),
            ("implicitDeny", "true", SimulationResult::Implicit),
            (
                "explicitDeny",
                "true",
                SimulationResult::Explicit {
                    by_organisation: false,
                },
            ),
            (
                "explicitDeny",
                "false",
                SimulationResult::Explicit {
                    by_organisation: true,
                },
            ),
            (
                "perhaps",
                "true",
                SimulationResult::Odd("perhaps".to_owned()),
            ),
        ] {
            assert_eq!(read(&xml(decision, organisation)), expected);
        }
        assert_eq!(
            read("<a/>"),
            SimulationResult::Odd("no decision".to_owned())
        );
        assert!(matches!(read("<"), SimulationResult::Odd(_)));
    }

    #[test]
    fn a_denial_is_no_failure() {
        let wanted = SimulatedPermission {
            action: "rds-db:connect",
            resource: "arn:aws:rds-db:eu-central-1:123456789012:dbuser:cluster-ABC/me".to_owned(),
        };
        for (answer, verdict) in [
            (SimulationResult::Allowed, StepVerdict::Ok),
            (SimulationResult::Implicit, StepVerdict::Warning),
            (
                SimulationResult::Explicit {
                    by_organisation: true,
                },
                StepVerdict::Warning,
            ),
            (SimulationResult::Odd("x".to_owned()), StepVerdict::Skipped),
        ] {
            assert_eq!(judge(&answer, &wanted).verdict, verdict, "{answer:?}");
        }
    }
}
