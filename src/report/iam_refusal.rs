//! Reports about a token that a database rejected. The IAM service knows the reason and the
//! database may know it. pgiam can only add the facts known about the token, the keys and the
//! clock.

use super::context::ErrorContext;
use super::hint::Hint;
use super::phrases::{
    ServerErrorAddition, caller_identity, check_keys_hint, of_profile, partition, profile_option,
    quote_identifier, renew_hint,
};
use super::{role, token_evidence};

use crate::aws::KeyState;
use crate::config::EndpointKind;

/// Returns what to add to the server's error when it rejects the token or its signer.
pub(super) fn login_refused(
    id: &'static str,
    state: &str,
    context: &ErrorContext<'_>,
) -> ServerErrorAddition {
    let profile = context.target.settings.profile.as_deref();
    let identity = context.evidence.map(|evidence| &evidence.identity);
    let keys = identity.and_then(|identity| identity.keys.as_ref());
    let (id, hint) = match (token_evidence::wrong_clock(context), keys) {
        (Some(clock), _) => (
            "aws.clock",
            Hint::from(format!(
                "Set this machine's clock and turn on time synchronisation: the clock is {clock}, and a token contains its creation time."
            )),
        ),
        (None, Some(KeyState::Expired)) => (
            "aws.expired",
            Hint::from(format!(
                "AWS reports that the credentials{} have expired.",
                of_profile(profile)
            ))
            .and(renew_hint(profile)),
        ),
        (None, Some(KeyState::Rejected { code })) => (
            "aws.rejected",
            Hint::from(format!(
                "AWS rejected the credentials{} ({code}).",
                of_profile(profile)
            ))
            .and(check_keys_hint(profile)),
        ),
        (None, Some(KeyState::Accepted) | None) if state == "28P01" => (
            id,
            Hint::from(role::role_hint(Some(context)))
                .and(role::grant_hint(context.user, true))
                .and("The database treated the token as an ordinary password.")
                .and(role::enable_iam_hint(Some(context))),
        ),
        (None, keys) => (
            id,
            Hint::from(role::role_hint(Some(context)))
                .and(match role::other_target_role(Some(context)) {
                    Some(_) => format!("To log in as \"{}\" instead:", context.user),
                    None => String::new(),
                })
                .and(permission_hint(context, keys.is_some())),
        ),
    };
    ServerErrorAddition {
        detail: token_evidence::describe_token(context),
        ..ServerErrorAddition::hint(id, hint)
    }
}

/// Returns the required permission and other possible causes.
fn permission_hint(context: &ErrorContext<'_>, keys_accepted: bool) -> Hint {
    let region = token_region(context).unwrap_or("REGION");
    let partition = partition(region);
    let account = context
        .evidence
        .and_then(|it| it.identity.account.as_deref());
    let account = account.unwrap_or("ACCOUNT");
    let profile = profile_option(context.target.settings.profile.as_deref());
    let (user, kind) = (context.user, token_evidence::endpoint_kind(context));
    // An endpoint's name begins with that of the instance or cluster, except for custom endpoints.
    let host = context
        .evidence
        .map_or(&context.target.endpoint.host, |it| &it.request.host);
    let name = host.split('.').next().unwrap_or_default();
    if kind == EndpointKind::Dsql {
        let permission = Hint::from(format!(
            "Check that your identity has {} on:",
            token_evidence::dsql_action(user)
        ))
        .run(format!(
            "arn:{partition}:dsql:{region}:{account}:cluster/{name}"
        ))
        .and("To see your identity, run:")
        .run(format!("aws sts get-caller-identity{profile}"));
        return match user {
            "admin" => permission,
            _ => permission
                .and("The role must also be linked to your identity. As admin, run:")
                .run(format!(
                    "AWS IAM GRANT {} TO 'ARN-OF-YOUR-IDENTITY';",
                    quote_identifier(user)
                )),
        };
    }
    let named = |option: &str| format!(" {option} {name}");
    let (id, command, selected) = match kind {
        EndpointKind::Proxy => (
            "the prx-… at the end of the DBProxyArn",
            "describe-db-proxies",
            String::new(),
        ),
        EndpointKind::Cluster | EndpointKind::Reader => (
            "the DbClusterResourceId",
            "describe-db-clusters",
            named("--db-cluster-identifier"),
        ),
        EndpointKind::Custom => (
            "the DbClusterResourceId",
            "describe-db-clusters",
            String::new(),
        ),
        EndpointKind::Instance | EndpointKind::Dsql | EndpointKind::Other => (
            "the DbiResourceId (Aurora: the cluster's DbClusterResourceId)",
            "describe-db-instances",
            named("--db-instance-identifier"),
        ),
    };
    Hint::from("Check that your identity has rds-db:connect on:")
        .run(format!(
            "arn:{partition}:rds-db:{region}:{account}:dbuser:RESOURCE-ID/{user}"
        ))
        .and(format!("RESOURCE-ID is {id} in the output of:"))
        .run(format!(
            "aws rds {command}{selected} --region {region}{profile}"
        ))
        .and(other_causes(context, kind, keys_accepted))
}

/// Returns the causes besides a missing permission, and the places that show the reason.
fn other_causes(context: &ErrorContext<'_>, kind: EndpointKind, keys_accepted: bool) -> Hint {
    let causes = match keys_accepted {
        true => "Other possible causes: IAM authentication is off; more than 200 logins a second.",
        false => {
            "Other possible causes: IAM authentication is off; the credentials are no longer valid; more than 200 logins a second."
        }
    };
    let profile = context.target.settings.profile.as_deref();
    let causes = match keys_accepted {
        true => Hint::from(causes),
        false => Hint::from(causes)
            .and("To test the credentials, run:")
            .run(caller_identity(profile)),
    };
    let log = match kind {
        EndpointKind::Proxy => {
            "For the reason, see the CloudWatch metrics IamDbAuthConnectionFailure… and the proxy's log. To enable the log, run: `aws rds modify-db-proxy --db-proxy-name NAME --debug-logging`"
        }
        _ => {
            "For the reason, see the CloudWatch metrics IamDbAuthConnectionFailure… and the iam-db-auth-error log, if its export is on."
        }
    };
    causes.and(log)
}

fn token_region<'a>(context: &ErrorContext<'a>) -> Option<&'a str> {
    match context.evidence {
        Some(evidence) => Some(&evidence.request.region),
        None => context.target.region.as_deref(),
    }
}
