//! Roles that a profile assumes.

use std::collections::HashSet;
use std::sync::Arc;

use crate::error::{ResolveError, SourceFault};
use crate::files::Profile;
use crate::identity::{Role, RoleChain, Source};
use crate::python::integer;
use crate::resolve::{Search, environment, faulty, profile};
use crate::setting::Location;

/// Source of the credentials that assume a role: `source_profile` or `credential_source`, and its
/// line.
struct RoleSource {
    kind: SourceKind,
    value: Arc<str>,
    location: Location,
}

#[derive(PartialEq)]
enum SourceKind {
    Profile,
    Credentials,
}

/// A profile of the chain that assumes a role.
struct Step<'a> {
    profile: Profile<'a>,
    role: Role,
    source: RoleSource,
}

impl Step<'_> {
    fn fault(&self, fault: SourceFault) -> ResolveError {
        ResolveError::Role {
            profile: self.profile.name().to_owned(),
            location: self.source.location.clone(),
            fault,
        }
    }
}

/// Follows the sources of a profile; returns `None` if the profile does not assume a role, or does
/// so with a web identity.
pub(super) fn chain(
    search: &Search<'_>,
    first: &Profile<'_>,
) -> Result<Option<RoleChain>, ResolveError> {
    let Some(mut step) = step(first)? else {
        return Ok(None);
    };
    let mut roles = Vec::new();
    let mut visited = HashSet::from([first.name.clone()]);
    let base = loop {
        if step.source.kind == SourceKind::Credentials {
            let base = named_source(search, &step)?;
            roles.push(step.role);
            break base;
        }
        let source = source_profile(search, &step, &mut visited)?;
        // Keys take precedence over the role of a source profile.
        let next = match profile::has_key(&source) {
            true => None,
            false => self::step(&source)?,
        };
        let Some(next) = next else {
            let without = SourceFault::WithoutCredentials(source.name().to_owned());
            let base = base(search, &source)?.ok_or_else(|| step.fault(without))?;
            roles.push(step.role);
            break base;
        };
        roles.push(std::mem::replace(&mut step, next).role);
    };
    roles.reverse();
    Ok(Some(RoleChain {
        base: Box::new(base),
        roles,
    }))
}

/// Reads the role of a profile. An empty `role_arn` counts.
fn step<'a>(profile: &Profile<'a>) -> Result<Option<Step<'a>>, ResolveError> {
    let has_web_identity = profile.contains("web_identity_token_file");
    let Some(role_arn) = profile.get("role_arn").filter(|_| !has_web_identity) else {
        return Ok(None);
    };
    let fault = |fault| ResolveError::Role {
        profile: profile.name().to_owned(),
        location: role_arn.location(),
        fault,
    };
    let source_profile = profile.get("source_profile");
    let (kind, key, source) = match (source_profile, profile.get("credential_source")) {
        (Some(_), Some(_)) => return Err(fault(SourceFault::Both)),
        (None, None) => return Err(fault(SourceFault::Missing)),
        (Some(found), None) => (SourceKind::Profile, "source_profile", found),
        (None, Some(found)) => (SourceKind::Credentials, "credential_source", found),
    };
    let duration = profile.setting("duration_seconds")?;
    Ok(Some(Step {
        role: Role {
            profile: profile.name.clone(),
            role_arn: role_arn.setting(&profile.name, "role_arn")?,
            external_id: profile.setting("external_id")?,
            session_name: profile.setting("role_session_name")?,
            duration_seconds: duration.and_then(|text| integer(text.as_str())),
            mfa_serial: profile.setting("mfa_serial")?,
        },
        source: RoleSource {
            kind,
            value: source.setting(&profile.name, key)?.value,
            location: source.location(),
        },
        profile: profile.clone(),
    }))
}

/// Returns the source profile of a step. A profile may be its own source if it has keys; any other
/// return to a profile of the chain is a loop.
fn source_profile<'a>(
    search: &Search<'a>,
    step: &Step<'_>,
    visited: &mut HashSet<Arc<str>>,
) -> Result<Profile<'a>, ResolveError> {
    let name = &step.source.value;
    let source = search.files.profile(name);
    let source = source.map_err(|problem| faulty(name, problem))?;
    let source = source.ok_or_else(|| step.fault(SourceFault::NotFound(name.to_string())))?;
    let is_new = visited.insert(name.clone());
    if !is_new && *name != step.role.profile {
        return Err(step.fault(SourceFault::Loop(name.to_string())));
    }
    if !is_new && !profile::has_key(&source) {
        return Err(step.fault(SourceFault::OwnSourceWithoutKeys));
    }
    Ok(source)
}

/// Returns the credentials of a source profile. The environment does not count.
fn base(search: &Search<'_>, source: &Profile<'_>) -> Result<Option<Source>, ResolveError> {
    match environment::web_identity(Some(source), None)? {
        Some(web) => Ok(Some(Source::WebIdentity(web))),
        None => search.source_of(source),
    }
}

/// Returns the credentials that `credential_source` names, also if the request names the profile.
fn named_source(search: &Search<'_>, step: &Step<'_>) -> Result<Source, ResolveError> {
    let variables = search.variables;
    let (name, source) = match &*step.source.value {
        "Environment" => {
            let keys = environment::keys(variables, search.request.now)?;
            ("Environment", keys.map(Source::Environment))
        }
        "EcsContainer" => {
            let container = environment::container(variables);
            ("EcsContainer", container.map(Source::Container))
        }
        "Ec2InstanceMetadata" => {
            let is_disabled = environment::is_metadata_disabled(variables);
            (
                "Ec2InstanceMetadata",
                (!is_disabled).then_some(Source::Instance),
            )
        }
        other => return Err(step.fault(SourceFault::UnknownCredentialSource(other.to_owned()))),
    };
    source.ok_or_else(|| step.fault(SourceFault::EmptyCredentialSource(name)))
}
