//! `sts:AssumeRole`, with MFA, external ids and role chains.

use std::time::Duration;

use super::super::ApiError;
use super::super::query::Call;
use super::super::xml::Xml;
use super::{assumed_role, credentials, denied, duration, invalid, need, session_name};
use crate::aws::events::Event;
use crate::aws::iam::User;
use crate::aws::roles::Role;

/// Default and, for a session that assumes another role, longest life.
const HOUR: usize = 3600;
/// Longest life of any role's sessions.
const MAX_SECONDS: usize = 12 * HOUR;

pub(super) fn answer(call: &Call<'_>) -> Result<Xml, ApiError> {
    let arn = need(&call.form, "RoleArn")?;
    let session = session_name(&call.form)?;
    let life = duration(&call.form, HOUR, MAX_SECONDS)?;
    let user = call.user;
    let serial = call.form.get("SerialNumber");
    let code = call.form.get("TokenCode");
    let accepted = call.cloud.mfa.accept(&user.arn, serial, code);
    let mfa = accepted.map_err(|refusal| denied(refusal.to_string()))? || user.mfa;
    call.allow("sts:AssumeRole", arn)?;
    let external_id = call.form.get("ExternalId");
    let role = call.cloud.roles.get(arn);
    let role = role.filter(|role| role.admits(user, external_id, mfa));
    // The service does not tell whether the role exists.
    let role = role.ok_or_else(|| {
        denied(format!(
            "User: {} is not authorized to perform: sts:AssumeRole on resource: {arn}",
            user.arn
        ))
    })?;
    check_life(user, &role, life)?;
    let new = role_session(call.cloud.iam.now() + life, &role, session);
    call.cloud.iam.add(new.clone());
    call.cloud.events.push(Event::RoleAssumed {
        role_arn: role.arn.clone(),
        session_name: session.to_owned(),
        seconds: life.as_secs(),
        external_id: external_id.map(str::to_owned),
        mfa: serial.map(str::to_owned),
        user_arn: user.arn.clone(),
    });
    let mut xml = Xml::default();
    credentials(&mut xml, &new);
    assumed_role(&mut xml, &new);
    Ok(xml)
}

fn check_life(user: &User, role: &Role, life: Duration) -> Result<(), ApiError> {
    if life > role.max_session {
        return Err(invalid(
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
        ));
    }
    if user.is_role_session() && life.as_secs() > HOUR as u64 {
        return Err(invalid(
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by \
             role chaining.",
        ));
    }
    Ok(())
}

/// Credentials of a session of the role until `ends`.
pub(super) fn role_session(ends: std::time::SystemTime, role: &Role, session: &str) -> User {
    User {
        deny: role.deny.clone(),
        db_users: role.db_users.clone(),
        ..User::with_new_key(session, role.session_arn(session), Some(ends))
    }
}
