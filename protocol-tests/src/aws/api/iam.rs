//! `iam:SimulatePrincipalPolicy`: what a user's policies say, without trying.

use http::StatusCode;

use super::ApiError;
use super::query::{Call, IAM, unknown};
use super::xml::Xml;
use crate::aws::iam::{Entity, Refusal, User};

/// Most results on a page, and how many there are when nobody asks.
const PAGE: std::ops::RangeInclusive<usize> = 1..=1000;
const USUAL_PAGE: usize = 100;

pub(super) fn answer(call: &Call<'_>, action: &str) -> Result<Xml, ApiError> {
    match action {
        "SimulatePrincipalPolicy" => simulate(call),
        _ => Err(unknown(&IAM, action)),
    }
}

fn simulate(call: &Call<'_>) -> Result<Xml, ApiError> {
    let source = call.form.get("PolicySourceArn");
    let source = source.ok_or_else(|| null("policySourceArn"))?;
    let actions = call.form.values("ActionNames.member");
    if actions.is_empty() {
        return Err(null("actionNames"));
    }
    if let Some(wrong) = actions.iter().find(|action| !is_action(action)) {
        let text = format!("Invalid Action Name: {wrong}");
        return Err(ApiError::new("InvalidInput", text));
    }
    let entity = Entity::of_arn(source).ok_or_else(|| {
        let text =
            format!("Invalid Entity Arn: {source} does not clearly define entity type and name.");
        ApiError::new("InvalidInput", text)
    })?;
    call.allow("iam:SimulatePrincipalPolicy", source)?;
    let user = call.cloud.iam.principal(source).ok_or_else(|| ApiError {
        status: StatusCode::NOT_FOUND,
        code: "NoSuchEntity".to_owned(),
        message: format!(
            "The {} with name {} cannot be found.",
            entity.kind, entity.name
        ),
    })?;
    let resources = call.form.values("ResourceArns.member");
    page(call, &user, &actions, &resources)
}

fn null(name: &str) -> ApiError {
    let text = format!(
        "1 validation error detected: Value null at '{name}' failed to satisfy constraint: Member \
         must not be null"
    );
    ApiError::new("ValidationError", text)
}

/// `service:Action`.
fn is_action(action: &str) -> bool {
    let parts = action.split_once(':');
    parts.is_some_and(|(service, name)| !service.is_empty() && !name.is_empty())
}

fn page(
    call: &Call<'_>,
    user: &User,
    actions: &[&str],
    resources: &[&str],
) -> Result<Xml, ApiError> {
    let limit = call.form.number("MaxItems")?.unwrap_or(USUAL_PAGE);
    if !PAGE.contains(&limit) {
        let text = format!(
            "1 validation error detected: Value '{limit}' at 'maxItems' failed to satisfy \
             constraint: Member must have value between {} and {}",
            PAGE.start(),
            PAGE.end()
        );
        return Err(ApiError::new("ValidationError", text));
    }
    let limit = call.cloud.api.page_size(limit);
    let start: usize = match call.form.get("Marker") {
        None => 0,
        Some(marker) => marker
            .strip_prefix("from/")
            .and_then(|n| n.parse().ok())
            .ok_or_else(|| ApiError::new("ValidationError", format!("Invalid Marker: {marker}")))?,
    };
    let end = start + limit;
    let more = actions.len() > end;
    let shown = actions.iter().skip(start).take(limit);
    let mut xml = Xml::default();
    xml.text("IsTruncated", more)
        .maybe("Marker", more.then(|| format!("from/{end}")))
        .list("EvaluationResults", "member", shown, |xml, action| {
            evaluate(xml, user, action, resources);
        });
    Ok(xml)
}

/// One result for an action. With several resources it is about none of them: it has a pattern for
/// their ARNs and a decision that holds for one at least, and those of each stand within.
fn evaluate(xml: &mut Xml, user: &User, action: &str, resources: &[&str]) {
    let decide = |resource: &&str| (decision(user, action, resource), (*resource).to_owned());
    let decided: Vec<(Option<Refusal>, String)> = match resources {
        [] => vec![decide(&"*")],
        _ => resources.iter().map(decide).collect(),
    };
    let refusals = || decided.iter().map(|(refusal, _)| *refusal);
    // An explicit refusal weighs most, then a permission.
    let hardest = refusals().flatten().max();
    let overall = match hardest {
        Some(Refusal::Implicit) if refusals().any(|refusal| refusal.is_none()) => None,
        hardest => hardest,
    };
    let name = match &decided[..] {
        [(_, only)] => only.clone(),
        _ => {
            let service = action.split(':').next().unwrap_or_default();
            format!("arn:aws:{service}:${{Region}}:${{Account}}:${{ResourceType}}/${{ResourceId}}")
        }
    };
    xml.text("EvalActionName", action)
        .text("EvalResourceName", name)
        .text("EvalDecision", word(overall));
    matched(xml, overall);
    xml.nest("OrganizationsDecisionDetail", |xml| {
        let allowed = overall != Some(Refusal::Organization);
        xml.text("AllowedByOrganizations", allowed);
    });
    if decided.len() > 1 {
        xml.list(
            "ResourceSpecificResults",
            "member",
            decided,
            |xml, (refusal, resource)| {
                xml.text("EvalResourceName", resource)
                    .text("EvalResourceDecision", word(refusal));
                matched(xml, refusal);
            },
        );
    }
}

/// What speaks against the action on this resource. `rds-db:connect` is allowed for the database
/// users of the user's list, which stand at the end of the resource's ARN.
fn decision(user: &User, action: &str, resource: &str) -> Option<Refusal> {
    // The document of a session has an entry of its own in the list of what is refused.
    let of_document = match action == "ssm:StartSession" && resource.contains(":document/") {
        true => user.refusal("ssm:StartSession:document", resource),
        false => None,
    };
    let refusal = user.refusal(action, resource).max(of_document);
    if !action.eq_ignore_ascii_case("rds-db:connect") || refusal.is_some() {
        return refusal;
    }
    let db_user = resource.rsplit('/').next().unwrap_or_default();
    (!user.is_mapped_to(db_user)).then_some(Refusal::Implicit)
}

fn word(refusal: Option<Refusal>) -> &'static str {
    match refusal {
        None => "allowed",
        Some(Refusal::Implicit) => "implicitDeny",
        Some(Refusal::Explicit | Refusal::Organization) => "explicitDeny",
    }
}

/// Nothing matches when nothing allows; a policy of the organisation is not shown.
fn matched(xml: &mut Xml, refusal: Option<Refusal>) {
    let matched = match refusal {
        None => Some("allow-all"),
        Some(Refusal::Explicit) => Some("deny-some"),
        Some(Refusal::Implicit | Refusal::Organization) => None,
    };
    xml.list("MatchedStatements", "member", matched, |xml, policy| {
        xml.text("SourcePolicyId", policy)
            .text("SourcePolicyType", "IAM Policy")
            .nest("StartPosition", |xml| {
                xml.text("Line", 3).text("Column", 19);
            })
            .nest("EndPosition", |xml| {
                xml.text("Line", 8).text("Column", 6);
            });
    })
    .text("MissingContextValues", "");
}
