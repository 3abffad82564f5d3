//! `sts:GetSessionToken`, with MFA.

use super::super::ApiError;
use super::super::query::Call;
use super::super::xml::Xml;
use super::{credentials, denied, duration};
use crate::aws::iam::User;

/// Default life of the credentials of a user.
const DEFAULT_SECONDS: usize = 12 * 3600;
/// Longest life of the credentials of a user.
const MAX_SECONDS: usize = 36 * 3600;

pub(super) fn answer(call: &Call<'_>) -> Result<Xml, ApiError> {
    let user = call.user;
    if user.session_token.is_some() {
        return Err(denied(
            "Cannot call GetSessionToken with session credentials",
        ));
    }
    let life = duration(&call.form, DEFAULT_SECONDS, MAX_SECONDS)?;
    let serial = call.form.get("SerialNumber");
    let code = call.form.get("TokenCode");
    let accepted = call.cloud.mfa.accept(&user.arn, serial, code);
    let mfa = accepted.map_err(|refusal| denied(refusal.to_string()))?;
    let ends = call.cloud.iam.now() + life;
    let new = User {
        deny: user.deny.clone(),
        db_users: user.db_users.clone(),
        mfa,
        ..User::with_new_key(&user.name, user.arn.clone(), Some(ends))
    };
    call.cloud.iam.add(new.clone());
    let mut xml = Xml::default();
    credentials(&mut xml, &new);
    Ok(xml)
}
