//! `pgiam logout`: ends logins, and removes their tokens and keys.

use anyhow::Context;

use crate::aws::{AwsContext, AwsOptions};
use crate::cli::LogoutArgs;
use crate::cli::terminal;
use crate::commands::login::{Subject, explained};
use crate::login::aws_files;
use crate::login::logout::{self, LoggedOut};
use crate::login::plan::Login;

/// Logs out.
///
/// # Errors
/// The profile does not exist or cannot be used.
pub async fn logout(args: &LogoutArgs) -> anyhow::Result<()> {
    let files = aws_files::read().await?;
    let (done, of) = match args.all {
        true => {
            let aws = AwsContext::new(AwsOptions::default());
            let config = aws.sdk_config().await.map_err(|error| explained(&error))?;
            let codes = logout::code_files(&files, &aws_files::variable);
            (logout::of_all(&config, &codes).await?, None)
        }
        false => {
            let subject = Subject::new(args.name.as_deref(), &args.program, &files)?;
            let plan = subject.plan(&files)?;
            let aws = subject.context();
            let config = aws.sdk_config().await.map_err(|error| explained(&error))?;
            let (roles, of) = match &plan.login {
                Login::Sso(login) => (
                    logout::role_files(&files, &aws_files::variable, login),
                    match &login.session {
                        Some(session) => format!("SSO session {session}"),
                        None => login.start_url.clone(),
                    },
                ),
                _ => (Vec::new(), format!("profile {}", plan.profile.name)),
            };
            (logout::of_plan(&config, &plan, &roles).await?, Some(of))
        }
    };
    terminal::write_text(in_words(done, of.as_deref())).context("cannot write to standard output")
}

/// Describes the result. `of` is the login; `None`: all.
fn in_words(done: LoggedOut, of: Option<&str>) -> String {
    let files = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    };
    match (done, of) {
        (LoggedOut { logins: 0, keys: 0 }, Some(of)) => {
            format!("There is no login of {of} on this machine")
        }
        (LoggedOut { logins: 0, keys: 0 }, None) => "There is no login on this machine".to_owned(),
        (LoggedOut { logins, keys }, of) => format!(
            "Logged out of {}: removed {} and {}",
            of.unwrap_or("all sessions"),
            files(logins, "login"),
            files(keys, "key file")
        ),
    }
}
