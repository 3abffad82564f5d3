//! `sts:AssumeRoleWithWebIdentity`. The token is a text that the role knows; nothing in it is read.

use super::super::ApiError;
use super::super::query::Form;
use super::super::xml::Xml;
use super::assume_role::role_session;
use super::{assumed_role, credentials, denied, duration, need, session_name};
use crate::aws::cloud::Cloud;
use crate::aws::events::Event;

const DEFAULT_SECONDS: usize = 3600;
const MAX_SECONDS: usize = 12 * 3600;

pub(super) fn answer(cloud: &Cloud, form: &Form) -> Result<Xml, ApiError> {
    let arn = need(form, "RoleArn")?;
    let session = session_name(form)?;
    let token = need(form, "WebIdentityToken")?;
    let life = duration(form, DEFAULT_SECONDS, MAX_SECONDS)?;
    let role = cloud.roles.get(arn).filter(|r| r.web_identity.is_some());
    let role = role.ok_or_else(|| {
        denied("Not authorized to perform sts:AssumeRoleWithWebIdentity".to_owned())
    })?;
    if role.web_identity.as_deref() != Some(token) {
        return Err(ApiError::new(
            "InvalidIdentityToken",
            "The ID Token provided is not a valid JWT. (You may see this error if you sent an \
             Access Token)",
        ));
    }
    let new = role_session(cloud.iam.now() + life, &role, session);
    cloud.iam.add(new.clone());
    cloud.events.push(Event::RoleAssumed {
        role_arn: role.arn.clone(),
        session_name: session.to_owned(),
        seconds: life.as_secs(),
        external_id: None,
        mfa: None,
        user_arn: "web identity".to_owned(),
    });
    let mut xml = Xml::default();
    xml.text(
        "SubjectFromWebIdentityToken",
        "system:serviceaccount:default:dev",
    )
    .text("Audience", "sts.amazonaws.com");
    credentials(&mut xml, &new);
    assumed_role(&mut xml, &new);
    Ok(xml)
}
