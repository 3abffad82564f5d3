//! `pgiam` alone at a terminal, without a configuration: offers the databases that it can see, and
//! what to do with the selected one.

use std::io::IsTerminal;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::pin::Pin;
use std::time::Duration;

use anyhow::{anyhow, bail};

use super::login::choose;
use super::login::on_demand;
use super::prompt;
use super::resolve_target::in_words;
use crate::admission::PassedSockets;
use crate::aws::discover::{Database, DiscoverError, Survey};
use crate::aws::{AwsContext, AwsOptions, profile_in_effect};
use crate::base::environment;
use crate::base::error_text::causes;
use crate::base::names::Region;
use crate::base::quote::{clean, printable, shell};
use crate::cli::logging;
use crate::cli::terminal::{self, HEADING, styled};
use crate::cli::{Cli, Command, ServeArgs};
use crate::config::{ConfigFile, TargetDefaults};
use crate::login::aws_files;
use crate::platform::{self, StopSignals};
use crate::report;

/// Ports that are tried.
const PORTS: u16 = 20;
/// Longest time for the answer of a local port.
const LOOK: Duration = Duration::from_millis(100);
/// Prompt for the role.
const ROLE: &str = "Database role (? for help)";
/// Users of a system or a container that are no roles of people.
const SYSTEM_USERS: [&str; 6] = ["root", "admin", "ubuntu", "ec2-user", "vscode", "node"];
/// Region that is offered if none is configured.
const USUAL_REGION: &str = "us-east-1";

/// Returns `true` if this command line is `pgiam` alone, at a terminal, and no configuration exists.
pub(super) fn applies(args: &ServeArgs) -> bool {
    let flags = args.layer();
    let is_described = flags.host.is_some() || flags.db.is_some();
    let is_asked = args.is_bare && !is_described && args.program.config.is_none();
    let is_seen = || terminal::is_interactive() && std::io::stdout().is_terminal();
    // A file that cannot be used is reported by `serve`.
    let has_none = || ConfigFile::load(None).is_ok_and(|file| file.path.is_none());
    is_asked && is_seen() && !environment::is_ci() && has_none()
}

/// Lets the user select a database and an action, and runs the command for it.
///
/// # Errors
/// AWS cannot be asked, or the error of the command.
pub(super) async fn guide(args: &ServeArgs) -> anyhow::Result<u8> {
    let mut signals = StopSignals::install()?;
    let chosen = tokio::select! {
        chosen = choose(args) => chosen?,
        _ = signals.next() => None,
    };
    let Some(words) = chosen else {
        return super::cancelled();
    };
    let quoted: Vec<String> = words.iter().map(|word| shell(word)).collect();
    terminal::tell(format!("Next time, type:\n  {}", quoted.join(" ")))?;
    let command: Command = Cli::of_words(&words)?;
    if matches!(command, Command::Psql(_)) && args.program.log.is_none() {
        logging::only_errors(); // As for `pgiam psql`: the terminal belongs to psql.
    }
    let running: Pin<Box<dyn Future<Output = anyhow::Result<u8>>>> =
        Box::pin(super::dispatch(&command, PassedSockets::default()));
    running.await
}

/// Returns the command line; `None` if the user cancels.
async fn choose(args: &ServeArgs) -> anyhow::Result<Option<Vec<String>>> {
    terminal::tell(styled(
        HEADING,
        "pgiam has no configuration yet. Select a database:",
    ))?;
    let Some(found) = database(args).await? else {
        return Ok(None);
    };
    let flags = args.layer();
    let db = &found.database.identifier;
    let Some(role) = role(db, flags.user).await? else {
        return Ok(None);
    };
    let port = flags.port.unwrap_or_else(free_port);
    let actions = [
        format!("open psql in {db}"),
        format!("serve {db} on localhost:{port}"),
        match found.count {
            1 => "write pgiam.toml with this database".to_owned(),
            count => format!("write pgiam.toml with all {count} databases"),
        },
    ];
    let action = prompt::select("Action".to_owned(), actions.into()).await?;
    Ok(action.map(|action| found.words(action, role, port)))
}

/// Asks for the role. `None` if the user cancels. A name of the operating system is offered only if it
/// may be a database role.
async fn role(db: &str, given: Option<String>) -> anyhow::Result<Option<String>> {
    let own = platform::os_user().filter(|name| !SYSTEM_USERS.contains(&name.as_str()));
    let offered = given.or(own);
    loop {
        let Some(answer) = prompt::ask(ROLE, offered.clone()).await? else {
            return Ok(None);
        };
        match answer.trim() {
            "" | "?" => terminal::tell(format!(
                "The role is a PostgreSQL user that has rds_iam. For the SQL that creates one, run:\n  pgiam setup sql --db {} --user ROLE",
                shell(db)
            ))?,
            role => return Ok(Some(role.to_owned())),
        }
    }
}

/// Returns the first port from the default on at which nothing listens.
fn free_port() -> u16 {
    let is_free = |port: &u16| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
        TcpStream::connect_timeout(&address, LOOK).is_err()
    };
    let first = TargetDefaults::port();
    let mut ports = first..first.saturating_add(PORTS);
    ports.find(is_free).unwrap_or(first)
}

/// The selected database.
struct SelectedDatabase {
    database: Database,
    region: Region,
    profile: Option<String>,
    /// Number of databases found.
    count: usize,
}

impl SelectedDatabase {
    /// Returns the command line of an action.
    fn words(&self, action: usize, role: String, port: u16) -> Vec<String> {
        let command = ["psql", "serve", "init"].get(action).unwrap_or(&"serve");
        let is_other = *command == "serve" && port != TargetDefaults::port();
        let mut words = vec!["pgiam".to_owned(), (*command).to_owned()];
        if *command != "init" {
            words.extend(["--db".to_owned(), self.database.identifier.clone()]);
        }
        words.extend(["--user".to_owned(), role]);
        if is_other {
            words.extend(["--port".to_owned(), port.to_string()]);
        }
        words.extend(["--region".to_owned(), self.region.to_string()]);
        let profile = self.profile.clone();
        words.extend(
            profile
                .into_iter()
                .flat_map(|name| ["--profile".to_owned(), name]),
        );
        words
    }
}

/// Lets the user select a profile, unless one is in effect, and a database that it can see.
async fn database(args: &ServeArgs) -> anyhow::Result<Option<SelectedDatabase>> {
    let flags = args.layer();
    let given = flags.profile.clone();
    let files = aws_files::read().await?;
    let names: Vec<String> = files
        .profile_names()
        .into_iter()
        .map(str::to_owned)
        .collect();
    let has_keys = std::env::var_os("AWS_ACCESS_KEY_ID").is_some();
    let is_chosen = has_keys || profile_in_effect(given.as_deref()).is_some();
    let is_open = !is_chosen && names.len() > 1;
    loop {
        let profile = match is_open {
            true => match prompt::select("AWS profile".to_owned(), shown(&names)).await? {
                Some(at) => names.get(at).cloned(),
                None => return Ok(None),
            },
            false => given.clone(),
        };
        match database_of(profile, flags.region.clone(), is_open).await {
            Ok(Step::Done(selected)) => return Ok(Some(*selected)),
            Ok(Step::Cancelled) => return Ok(None),
            Ok(Step::Again) if is_open => {}
            Ok(Step::Again) => return Ok(None),
            Err(error) if !is_open => return Err(error),
            // Another profile may work.
            Err(error) => {
                let said = causes(error.as_ref());
                terminal::tell(format!("pgiam: {}", clean(said.trim_end())))?;
            }
        }
    }
}

fn shown(names: &[String]) -> Vec<String> {
    names.iter().map(|name| printable(name)).collect()
}

/// Result of a selection.
enum Step {
    Done(Box<SelectedDatabase>),
    /// Another profile.
    Again,
    Cancelled,
}

/// Lets the user select a database that the profile can see.
/// `has_others`: the user can select another profile.
async fn database_of(
    profile: Option<String>,
    region: Option<Region>,
    has_others: bool,
) -> anyhow::Result<Step> {
    on_demand::offer_for(profile.as_deref()).await?;
    let profile = match profile {
        Some(profile) => Some(profile),
        None => choose::without_profile(region.as_deref()).await?,
    };
    let Some(region) = region_of(profile.clone(), region).await? else {
        return Ok(Step::Cancelled);
    };
    let (region, survey) = super::list::survey(profile.as_deref(), Some(&region)).await?;
    let Survey { databases, .. } = survey;
    let count = databases.len();
    if count == 0 {
        bail!(
            "found no PostgreSQL database in {region}\nhint: check the region and the profile, or name the database:\n  pgiam serve --host NAME.REGION.rds.amazonaws.com"
        );
    }
    let mut items = rows(&databases);
    if has_others {
        items.push("(another profile)".to_owned());
    }
    let selected = prompt::select(format!("Database in {region}"), items).await?;
    Ok(match selected.map(|at| databases.into_iter().nth(at)) {
        None => Step::Cancelled,
        Some(None) => Step::Again,
        Some(Some(database)) => Step::Done(Box::new(SelectedDatabase {
            database,
            region,
            profile,
            count,
        })),
    })
}

/// Returns the region of the profile, or asks for it. `None` if the user cancels.
async fn region_of(
    profile: Option<String>,
    region: Option<Region>,
) -> anyhow::Result<Option<Region>> {
    if region.is_some() {
        return Ok(region);
    }
    let aws = AwsContext::new(AwsOptions {
        profile,
        ..AwsOptions::default()
    });
    let known = aws.region().await.map_err(|error| {
        let explanation = report::explain_lookup(&DiscoverError::Credentials(error));
        anyhow!(in_words(&explanation))
    })?;
    if known.is_some() {
        return Ok(known);
    }
    let asked = prompt::ask("AWS region", Some(USUAL_REGION.to_owned())).await?;
    Ok(asked.map(|region| Region::from(region.trim())))
}

/// Returns one line for each database.
fn rows(databases: &[Database]) -> Vec<String> {
    let names = databases.iter().map(|one| one.identifier.chars().count());
    let width = names.max().unwrap_or_default();
    let row = |one: &Database| {
        let engine = match (one.engine.as_deref(), one.engine_version.as_deref()) {
            (Some("aurora-postgresql"), Some(version)) => format!("Aurora {version}"),
            (_, Some(version)) => format!("PostgreSQL {version}"),
            (_, None) => String::new(),
        };
        let iam = match one.iam {
            Some(false) => "IAM login off",
            Some(true) | None => "",
        };
        let status = one.status.as_deref().filter(|_| !one.is_available());
        let status = status.unwrap_or_default();
        let (name, kind) = (&one.identifier, one.kind.word());
        let line = format!("{name:width$}  {kind:8}  {engine:15}  {iam}  {status}");
        printable(line.trim_end())
    };
    databases.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::list::tests::found;

    #[test]
    fn databases_are_lines_of_a_list() {
        assert_eq!(
            rows(&found().databases),
            [
                "billing  instance  PostgreSQL 17.5  IAM login off  stopped",
                "orders   cluster   Aurora 17.5",
                "orders   instance  Aurora 17.5      IAM login off  stopped",
            ]
        );
    }

    #[test]
    fn an_action_is_a_command_line_that_can_be_parsed() {
        let selected = |profile: Option<&str>| SelectedDatabase {
            database: found().databases.remove(1),
            region: "eu-central-1".into(),
            profile: profile.map(str::to_owned),
            count: 3,
        };
        for (port, action, profile, line) in [
            (
                5433,
                0,
                None,
                "pgiam psql --db orders --user ana --region eu-central-1",
            ),
            (
                5434,
                1,
                Some("dev"),
                "pgiam serve --db orders --user ana --port 5434 --region eu-central-1 --profile dev",
            ),
            (
                5434,
                2,
                Some("dev"),
                "pgiam init --user ana --region eu-central-1 --profile dev",
            ),
        ] {
            let words = selected(profile).words(action, "ana".to_owned(), port);
            assert_eq!(words.join(" "), line);
            Cli::of_words(&words).unwrap();
        }
    }
}
