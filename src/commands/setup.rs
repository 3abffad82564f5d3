//! `pgiam setup`: prints the administrator's part of the setup to standard output; instructions and
//! missing information go to standard error.

use std::borrow::Cow;
use std::time::Duration;

use anyhow::Context;
use tokio::time::timeout;
use tracing::debug;

use crate::aws::alias::Aliases;
use crate::aws::discover;
use crate::aws::discover::{Database, DiscoverError};
use crate::aws::{AwsContext, AwsOptions, FOR_A_COMMAND, KeyState};
use crate::base::foreign_text::visible;
use crate::base::names::Region;
use crate::cli::terminal;
use crate::cli::terminal::Progress;
use crate::cli::{ProgramArgs, SetupArgs, SetupCommand, StateArgs, TargetArgs};
use crate::config::{Auth, ConfigError, Endpoint, EndpointKind, TargetConfig};
use crate::report::explain_credentials;
use crate::setup::cloudformation::cloudformation;
use crate::setup::policy::policy;
use crate::setup::sql::sql;
use crate::setup::terraform::terraform;
use crate::setup::{Artefact, Principal, SetupFacts};

/// Timeout of each lookup. Unanswered values are left open in the output.
const PATIENCE: Duration = Duration::from_secs(10);

/// Document with the Session Manager preferences of a region (Systems Manager User Guide, "Session
/// document schema").
const PREFERENCES: &str = "SSM-SessionManagerRunShell";

/// Prints the setup.
///
/// # Errors
/// Invalid configuration, or standard output cannot be written to. A missing answer of AWS is not
/// an error: the value is left open.
pub async fn setup(args: &SetupArgs) -> anyhow::Result<()> {
    let (target, state, program) = flags_of(&args.command);
    let name = target.name.as_deref();
    let config = super::chosen::config(name, &target.database, program, state).await?;
    if matches!(args.command, SetupCommand::Sql(_)) && config.settings.user.is_none() {
        // SQL with a placeholder role would be run unchanged.
        return Err(ConfigError::Missing {
            target: config.name,
            key: "user",
            hint: "set the role for the SQL with pgiam setup sql --user ROLE, or user = \"ROLE\" for the target",
        }
        .into());
    }
    super::login::on_demand::offer_for(config.settings.profile.as_deref()).await?;
    let (mut facts, unseen) = gather(&config).await;
    let flags = target.database.layer();
    facts.described = target.name.is_none() && (flags.host.is_some() || flags.db.is_some());
    let artefact = match &args.command {
        SetupCommand::Policy(_) => policy(&facts),
        SetupCommand::Sql(_) => sql(&facts),
        SetupCommand::Bastion(args) if args.terraform => terraform(&facts, args.endpoints),
        SetupCommand::Bastion(args) => cloudformation(&facts, args.endpoints),
    };
    let Artefact { text, notes } = artefact;
    terminal::write(text).context("cannot write to standard output")?;
    // A closed standard error does not stop the output.
    for note in unseen.into_iter().chain(notes) {
        let lines: Vec<Cow<'_, str>> = note.lines().map(visible).collect();
        _ = terminal::tell(format_args!("- {}", lines.join("\n  ")));
    }
    Ok(())
}

fn flags_of(command: &SetupCommand) -> (&TargetArgs, &StateArgs, &ProgramArgs) {
    match command {
        SetupCommand::Policy(args) => (&args.target, &args.state, &args.program),
        SetupCommand::Sql(args) => (&args.target, &args.state, &args.program),
        SetupCommand::Bastion(args) => (&args.target, &args.state, &args.program),
    }
}

/// Returns the facts about a target, and the reasons for missing ones.
async fn gather(config: &TargetConfig) -> (SetupFacts, Vec<String>) {
    let progress = Progress::start("looking up your identity");
    let mut facts = SetupFacts::of(config);
    let mut unseen = Vec::new();
    if let Some(endpoint) = &mut facts.endpoint
        && endpoint.kind() == EndpointKind::Other
        && config.settings.login.auth == Auth::Iam
    {
        let aliases = Aliases::new(config.settings.login.dns_server);
        match aliases.resolve(&endpoint.host).await {
            Ok(host) => endpoint.host = host,
            Err(error) => unseen.push(format!("The CNAME lookup failed: {error}.")),
        }
    }
    let in_name = facts.endpoint.as_ref().and_then(Endpoint::region);
    facts.region = in_name.map(Region::from).or(facts.region);
    let aws = AwsContext::new(AwsOptions {
        profile: config.settings.profile.clone(),
        region: facts.region.clone(),
        ..AwsOptions::default()
    });
    if facts.region.is_none() {
        facts.region = aws.region().await.ok().flatten();
    }
    let Some(region) = facts.region.clone() else {
        return (facts, unseen);
    };
    if let Err(error) = aws.credentials().await {
        let said = explain_credentials(&error);
        unseen.push(format!(
            "pgiam could not query AWS: {}. {}",
            said.message,
            said.hint.unwrap_or_default()
        ));
        return (facts, unseen);
    }
    add_identity(&aws, &region, &mut facts, &mut unseen).await;
    progress.now("looking up the database");
    match timeout(PATIENCE, find(&aws, &region, config, &facts)).await {
        Ok(Ok(Some(database))) => add_database(&mut facts, database),
        Ok(Ok(None)) => {}
        Ok(Err(error)) => unseen.push(format!("The database lookup failed: {error}.")),
        Err(_) => unseen.push("The database lookup timed out.".to_owned()),
    }
    progress.now("reading the Session Manager preferences");
    facts.kms_key = session_key(&aws, &region).await;
    (facts, unseen)
}

async fn add_identity(
    aws: &AwsContext,
    region: &Region,
    facts: &mut SetupFacts,
    unseen: &mut Vec<String>,
) {
    let identity = aws.identity(region, FOR_A_COMMAND).await;
    match identity.keys {
        Some(KeyState::Expired) => unseen.push("The AWS credentials have expired.".to_owned()),
        Some(KeyState::Rejected { code }) => {
            unseen.push(format!("AWS does not accept the credentials ({code})."));
        }
        Some(KeyState::Accepted) | None => {}
    }
    facts.account = identity.account;
    facts.principal = identity
        .arn
        .as_deref()
        .map_or(Principal::Unknown, Principal::of);
}

/// Returns the database as RDS reports it.
async fn find(
    aws: &AwsContext,
    region: &Region,
    config: &TargetConfig,
    facts: &SetupFacts,
) -> Result<Option<Database>, DiscoverError> {
    match (config.rds_identifier(), &facts.endpoint) {
        (Some(db), _) => discover::find(aws, region, db).await.map(Some),
        (None, Some(endpoint)) if is_rds(endpoint) => discover::at(aws, region, endpoint).await,
        (None, _) => Ok(None),
    }
}

fn is_rds(endpoint: &Endpoint) -> bool {
    !matches!(endpoint.kind(), EndpointKind::Dsql | EndpointKind::Other)
}

fn add_database(facts: &mut SetupFacts, database: Database) {
    facts.endpoint = facts.endpoint.take().or(database.endpoint);
    // The database's own account, where another one uses it.
    let of_arn = database
        .arn
        .as_deref()
        .and_then(|arn| arn.split(':').nth(4));
    let of_arn = of_arn
        .filter(|account| !account.is_empty())
        .map(str::to_owned);
    facts.account = of_arn.or(facts.account.take());
    facts.arn = database.arn;
    facts.resource_id = database.resource_id;
    facts.database = facts.database.take().or(database.database);
    facts.vpc = database.vpc;
    facts.subnets = database.subnets;
    facts.security_groups = database.security_groups;
    facts.iam = database.iam;
}

/// Returns the key of session encryption. Few identities may read it; a denial is not an error.
async fn session_key(aws: &AwsContext, region: &Region) -> Option<String> {
    let client = aws.ssm(region).await.ok()?;
    let asked = client.get_document().name(PREFERENCES).send();
    let answer = match timeout(PATIENCE, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            debug!(
                reason = &*crate::base::error_text::chain(&error),
                "cannot read the Session Manager preferences"
            );
            return None;
        }
        Err(_) => return None,
    };
    let content: serde_json::Value = serde_json::from_str(answer.content()?).ok()?;
    let key = content.pointer("/inputs/kmsKeyId")?.as_str()?;
    Some(key.to_owned()).filter(|key| !key.is_empty())
}
