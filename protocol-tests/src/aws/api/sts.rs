//! `sts:GetCallerIdentity`.

use super::ApiError;
use super::query::{Call, STS, unknown};
use super::xml::Xml;

pub(super) fn answer(call: &Call<'_>, action: &str) -> Result<Xml, ApiError> {
    match action {
        "GetCallerIdentity" => Ok(identity(call)),
        _ => Err(unknown(&STS, action)),
    }
}

fn identity(call: &Call<'_>) -> Xml {
    let user = call.user;
    let mut xml = Xml::default();
    xml.text("Arn", &user.arn)
        .text("UserId", user_id(&user.access_key_id))
        .text("Account", call.cloud.iam.account());
    xml
}

/// Unique ids of users start with AIDA, of roles with AROA; any stable text does here.
fn user_id(access_key_id: &str) -> String {
    let tail: String = access_key_id.chars().skip(4).collect();
    format!("AIDA{tail}")
}
