//! Reports about a token that a database rejected. The IAM service knows the reason and the
//! database may know it. pgiam can only add the facts known about the token, the keys and the
//! clock.

use super::context::ErrorContext;
use super::phrases::{
    ServerErrorAddition, check_keys_hint, of_profile, partition, profile_option, quote_identifier,
    renew_hint,
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
            format!(
                "Set this machine's clock and turn on time synchronisation: the clock is {clock}, and a token contains its creation time."
            ),
        ),
        (None, Some(KeyState::Expired)) => (
            "aws.expired",
            format!(
                "AWS reports that the credentials{} have expired. {}",
                of_profile(profile),
                renew_hint(profile)
            ),
        ),
        (None, Some(KeyState::Rejected { code })) => (
            "aws.rejected",
            format!(
                "AWS rejected the credentials{} ({code}). {}",
                of_profile(profile),
                check_keys_hint(profile)
            ),
        ),
        (None, Some(KeyState::Accepted) | None) if state == "28P01" => (
            id,
            format!(
                "{}{} {} The database treated the token as an ordinary password.",
                role::role_hint(Some(context)),
                role::grant_hint(context.user),
                role::enable_iam_hint()
            ),
        ),
        (None, keys) => (
            id,
            format!(
                "{}{}",
                role::role_hint(Some(context)),
                permission_hint(context, keys.is_some())
            ),
        ),
    };
    ServerErrorAddition {
        detail: token_evidence::describe_token(context),
        ..ServerErrorAddition::hint(id, hint)
    }
}

/// Returns the required permission and other possible causes.
fn permission_hint(context: &ErrorContext<'_>, keys_accepted: bool) -> String {
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
        let link = match user {
            "admin" => String::new(),
            _ => format!(
                " The role must also be linked to your identity. As admin, run: AWS IAM GRANT {} TO 'ARN-OF-YOUR-IDENTITY';",
                quote_identifier(user)
            ),
        };
        return format!(
            "Check that your identity (aws sts get-caller-identity{profile}) has {} on arn:{partition}:dsql:{region}:{account}:cluster/{name}.{link}",
            token_evidence::dsql_action(user)
        );
    }
    let arguments = |option: &str| format!("{option} {name} --region {region}{profile}");
    let (id, log) = match kind {
        EndpointKind::Proxy => (
            format!(
                "the prx-… at the end of the DBProxyArn in aws rds describe-db-proxies --region {region}{profile}"
            ),
            "the proxy's log (to enable it, run: aws rds modify-db-proxy --db-proxy-name NAME --debug-logging)",
        ),
        EndpointKind::Cluster | EndpointKind::Reader => (
            format!(
                "the DbClusterResourceId in aws rds describe-db-clusters {}",
                arguments("--db-cluster-identifier")
            ),
            DATABASE_LOG,
        ),
        EndpointKind::Custom => (
            format!(
                "the DbClusterResourceId in aws rds describe-db-clusters --region {region}{profile}"
            ),
            DATABASE_LOG,
        ),
        EndpointKind::Instance | EndpointKind::Dsql | EndpointKind::Other => (
            format!(
                "the DbiResourceId in aws rds describe-db-instances {} (Aurora: the cluster's DbClusterResourceId)",
                arguments("--db-instance-identifier")
            ),
            DATABASE_LOG,
        ),
    };
    let valid = if keys_accepted {
        String::new()
    } else {
        format!(
            " the credentials are no longer valid (to test, run: aws sts get-caller-identity{profile});"
        )
    };
    format!(
        "Check that your identity has rds-db:connect on arn:{partition}:rds-db:{region}:{account}:dbuser:RESOURCE-ID/{user}; RESOURCE-ID is {id}. Other possible causes: IAM authentication is off;{valid} more than 200 logins a second. For the reason, see the CloudWatch metrics IamDbAuthConnectionFailure… and {log}."
    )
}

/// The database log that contains the reason (RDS User Guide, "Troubleshooting for IAM DB
/// authentication").
const DATABASE_LOG: &str = "the iam-db-auth-error log, if its export is on";

fn token_region<'a>(context: &ErrorContext<'a>) -> Option<&'a str> {
    match context.evidence {
        Some(evidence) => Some(&evidence.request.region),
        None => context.target.region.as_deref(),
    }
}
