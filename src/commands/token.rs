//! `pgiam token`: a login token for other programs.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, anyhow, bail};
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde::Serialize;
use zeroize::Zeroizing;

use super::chosen;
use super::login::on_demand;
use crate::aws::alias::Aliases;
use crate::aws::discover;
use crate::aws::token;
use crate::aws::token::{TokenProvider, TokenRequest};
use crate::aws::{AwsContext, AwsOptions};
use crate::base::names::Region;
use crate::cli::TokenArgs;
use crate::cli::terminal;
use crate::config::{Auth, Endpoint, TargetConfig};
use crate::failure::connection::ConnectionError;
use crate::report::{ErrorContext, explain};

/// Prints a token. Sends nothing to the database.
///
/// # Errors
/// No credentials, an incomplete target, one with `auth = "passthrough"`, or a terminal as standard
/// output without `--show`.
pub async fn token(args: &TokenArgs) -> anyhow::Result<()> {
    if std::io::stdout().is_terminal() && !args.show {
        bail!(
            "not writing the token to a terminal, because it is a password\nhint: pipe it to the command that needs it, or use --show"
        );
    }
    let database = &args.target.database;
    let name = args.target.name.as_deref();
    let config = chosen::config(name, database, &args.program, &args.state).await?;
    if config.settings.login.auth == Auth::Passthrough {
        bail!(
            "target \"{}\" has auth = \"passthrough\": its clients log in with passwords, not with tokens",
            config.name
        );
    }
    on_demand::offer_for(config.settings.profile.as_deref()).await?;
    let (aws, request) = request(&config).await?;
    let token = token::provider(aws).token(&request).await;
    let token = token.map_err(|error| client_error(&config, error.into()))?;
    let text = match args.output.json {
        true => json(&request, token.value.expose(), token.expires_at)?,
        false => Zeroizing::new(format!("{}\n", token.value.expose())),
    };
    terminal::write(text.as_str()).context("cannot write to standard output")
}

/// Returns the request to sign, for the real endpoint, as a connection uses it.
async fn request(config: &TargetConfig) -> anyhow::Result<(Arc<AwsContext>, TokenRequest)> {
    let named = config.resolved().map(|target| target.endpoint);
    let in_name = named.as_ref().and_then(Endpoint::region);
    let aws = Arc::new(AwsContext::new(AwsOptions {
        profile: config.settings.profile.clone(),
        region: in_name.map(Region::from).or_else(|| config.region.clone()),
        ..AwsOptions::default()
    }));
    let Endpoint { host, port } = match (named, config.rds_identifier()) {
        (Some(endpoint), _) => endpoint,
        (None, Some(db)) => {
            let located = discover::locate(&aws, config, db).await;
            let (target, _) = located.map_err(|error| client_error(config, error.into()))?;
            target.endpoint
        }
        (None, None) => bail!("target \"{}\" has neither host nor db", config.name),
    };
    let resolved = Aliases::new(config.settings.login.dns_server)
        .resolve(&host)
        .await;
    let host = resolved.map_err(|error| client_error(config, error.into()))?;
    let user = super::role(config)?;
    let endpoint = Endpoint { host, port };
    let region = region(&aws, endpoint.region()).await?;
    let Endpoint { host, port } = endpoint;
    let request = TokenRequest {
        host,
        port,
        user,
        region,
    };
    Ok((aws, request))
}

/// Converts an error to the text that a client of the target would get.
fn client_error(config: &TargetConfig, error: ConnectionError) -> anyhow::Error {
    let target = config.resolved();
    let said = explain(&error, target.as_ref().map(ErrorContext::target).as_ref());
    let more = [said.detail, said.hint].into_iter().flatten();
    let lines: Vec<String> = [said.message].into_iter().chain(more).collect();
    anyhow!(lines.join("\n"))
}

async fn region(aws: &AwsContext, in_name: Option<&str>) -> anyhow::Result<Region> {
    match in_name {
        Some(region) => Ok(region.into()),
        None => aws.region().await?.context(
            "no AWS region is known: set region in the target, AWS_REGION, or region in the AWS profile",
        ),
    }
}

/// JSON output, for programs.
#[derive(Serialize)]
struct TokenJson<'a> {
    token: &'a str,
    expires_at: String,
    host: &'a str,
    port: u16,
    user: &'a str,
    region: &'a Region,
}

fn json(
    request: &TokenRequest,
    token: &str,
    expires_at: SystemTime,
) -> anyhow::Result<Zeroizing<String>> {
    // Whole seconds, rounded down: the token must not expire before the time shown.
    let seconds = expires_at.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let expires_at = DateTime::from_secs(seconds.cast_signed()).fmt(Format::DateTime)?;
    let TokenRequest {
        host,
        port,
        user,
        region,
    } = request;
    let text = serde_json::to_string_pretty(&TokenJson {
        token,
        expires_at,
        host,
        port: *port,
        user,
        region,
    })?;
    Ok(Zeroizing::new(text + "\n"))
}
