//! Codes of MFA devices: asks for them, and gets the keys that take them.

use std::io::{self, BufRead, Read};

use anyhow::{Context, bail};
use aws_credential_types::Credentials;
use aws_profile::{Keys, RoleChain, Source};
use tokio::task::spawn_blocking;

use super::explained;
use crate::aws::assume_role::{AssumeRoleError, ChainStart, MfaCode, RoleAssumer};
use crate::aws::cache_files::CacheFiles;
use crate::aws::call_error::CallError;
use crate::aws::{AwsContext, AwsOptions};
use crate::base::quote::printable;
use crate::base::redacted::Redacted;
use crate::base::single_flight::system_clock;
use crate::cli::terminal;
use crate::login::plan::{KeysDevice, LoginPlan};

/// Value of `--mfa-code` for standard input.
const STANDARD_INPUT: &str = "-";
/// Longest line that is read as a code.
const LONGEST_LINE: u64 = 100;
/// Number of codes that the user may enter for one device.
const ATTEMPTS: usize = 3;

/// Source of the codes.
#[derive(Debug, Default)]
pub(super) struct MfaCodes {
    /// Code of the command line, or `-`.
    given: Option<Redacted<String>>,
}

impl MfaCodes {
    pub(super) fn new(given: Option<&Redacted<String>>) -> Self {
        Self {
            given: given.cloned(),
        }
    }

    /// Returns `true` if the user can enter another code.
    fn may_ask_again() -> bool {
        terminal::is_interactive()
    }

    /// Returns a code for a device: that of the command line, or one that the user enters.
    async fn next(&mut self, serial: &str, profile: &str) -> anyhow::Result<MfaCode> {
        let given = self.given.take();
        let text = match given {
            Some(given) if given.expose() == STANDARD_INPUT => line().await?,
            Some(given) => given.expose().clone(),
            None if Self::may_ask_again() => {
                terminal::tell(format!("MFA code for {}:", printable(serial)))?;
                line().await?
            }
            None => bail!(
                "profile {} needs a code of the MFA device {}; log in at a terminal, or pass the code:\n  pgiam login {} --mfa-code -",
                printable(profile),
                printable(serial),
                crate::base::quote::shell(profile),
            ),
        };
        let code = text.trim();
        // STS API Reference, `AssumeRole`: six digits.
        if code.len() != 6 || !code.bytes().all(|byte| byte.is_ascii_digit()) {
            bail!("an MFA code has six digits; read it from the device, and log in again");
        }
        Ok(MfaCode::new(code))
    }
}

/// Reads a line of standard input.
async fn line() -> anyhow::Result<String> {
    let read = || {
        let mut line = String::new();
        let mut input = io::stdin().lock().take(LONGEST_LINE);
        input.read_line(&mut line).map(|_| line)
    };
    let line = spawn_blocking(read).await?;
    line.context("cannot read the MFA code from standard input")
}

/// Gets the keys of a plan that take codes, and caches them.
///
/// # Errors
/// There is no code, or AWS refused it.
pub(super) async fn log_in(
    aws: &AwsContext,
    plan: &LoginPlan,
    codes: &mut MfaCodes,
) -> anyhow::Result<()> {
    let config = aws.sdk_config().await.map_err(|error| explained(&error))?;
    let assumer = RoleAssumer::new(config, CacheFiles::of_environment(), system_clock());
    match (&plan.roles, &plan.mfa) {
        (Some(chain), _) => roles(&assumer, chain, codes).await?,
        (None, Some(device)) => keys(&assumer, (plan, device), codes).await?,
        (None, None) => {}
    }
    Ok(())
}

/// Assumes the roles of a chain. Each device takes one code.
async fn roles(
    assumer: &RoleAssumer,
    chain: &RoleChain,
    codes: &mut MfaCodes,
) -> anyhow::Result<()> {
    let base = base(&chain.base).await?;
    // A login is always a new one, whatever is cached.
    let mut start = ChainStart::of_base(base.clone(), chain);
    let (mut code, mut attempts) = (None, 0);
    // The role that the last code was entered for, and whether an earlier one was accepted.
    let (mut asked_for, mut accepted) = (String::new(), false);
    loop {
        let given = code.take();
        let spent = given.is_some();
        match assumer.assume(start, given).await {
            Ok(_) => return Ok(()),
            Err(AssumeRoleError::MfaRequired {
                serial,
                profile,
                role_arn,
            }) => {
                if spent {
                    (attempts, accepted) = (0, true);
                }
                code = Some(codes.next(&serial, &profile).await?);
                asked_for = role_arn;
            }
            Err(error)
                if spent
                    && is_refused_code(&error, &asked_for)
                    && attempts + 1 < ATTEMPTS
                    && MfaCodes::may_ask_again() =>
            {
                attempts += 1;
                terminal::tell(format!("{error}"))?;
            }
            Err(error) => return Err(error.into()),
        }
        // Behind the roles whose codes were accepted.
        let behind = match accepted {
            true => assumer.cached(chain).await,
            false => None,
        };
        start = behind.unwrap_or_else(|| ChainStart::of_base(base.clone(), chain));
    }
}

/// Returns `true` if AWS refused the code for this role. Another code does not help against other
/// refusals, such as that of a trust policy.
fn is_refused_code(error: &AssumeRoleError, asked_for: &str) -> bool {
    let AssumeRoleError::Role {
        role_arn,
        source: CallError::Refused { code, message, .. },
        ..
    } = error
    else {
        return false;
    };
    let about_code = message.as_str().starts_with("MultiFactorAuthentication");
    role_arn == asked_for && code.as_str() == "AccessDenied" && about_code
}

/// Gets temporary keys for access keys without a role.
async fn keys(
    assumer: &RoleAssumer,
    (plan, device): (&LoginPlan, &KeysDevice),
    codes: &mut MfaCodes,
) -> anyhow::Result<()> {
    let profile = &plan.profile.name;
    let keys = of_keys(&device.keys);
    let code = codes.next(&device.serial, profile).await?;
    assumer.session_token(&keys, &device.serial, code).await?;
    Ok(())
}

/// Returns the credentials with which the first role is assumed.
async fn base(source: &Source) -> anyhow::Result<Credentials> {
    let profile = match source {
        Source::StaticKeys(keys) => return Ok(of_keys(&keys.keys)),
        Source::Environment(keys) => return Ok(of_keys(keys)),
        Source::Sso(sso) => Some(&sso.profile),
        Source::Process(process) => Some(&process.profile),
        Source::LoginSession(session) => Some(&session.profile),
        _ => None,
    };
    let profile = profile.context("the source of the role has no profile")?;
    let aws = AwsContext::new(AwsOptions {
        profile: Some(profile.to_string()),
        ..AwsOptions::default()
    });
    aws.credentials().await.map_err(|error| explained(&error))
}

fn of_keys(keys: &Keys) -> Credentials {
    let token = keys.session_token.as_ref();
    let builder = Credentials::builder()
        .access_key_id(keys.access_key_id.as_str())
        .secret_access_key(keys.secret_access_key.expose())
        .provider_name("profile");
    match token {
        Some(token) => builder.session_token(token.expose()).build(),
        None => builder.build(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refused_code_is_asked_for_again() {
        let refused = |code: &str, message: &str| AssumeRoleError::Role {
            profile: "admin".to_owned(),
            role_arn: "arn:aws:iam::111122223333:role/Admin".to_owned(),
            source: CallError::Refused {
                action: "sts:AssumeRole",
                code: code.into(),
                message: message.into(),
                status: 403,
            },
        };
        let own = "arn:aws:iam::111122223333:role/Admin";
        let wrong = "MultiFactorAuthentication failed with invalid MFA one time pass code. ";
        let denied = "User: me is not authorized to perform: sts:AssumeRole";
        for (error, role, expected) in [
            (refused("AccessDenied", wrong), own, true),
            (refused("AccessDenied", wrong), "another role", false),
            (refused("AccessDenied", denied), own, false),
            (refused("Throttling", wrong), own, false),
        ] {
            assert_eq!(is_refused_code(&error, role), expected, "{error}");
        }
    }
}
