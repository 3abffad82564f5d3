//! Selects the database and the bastion of a command: looks them up before anything starts, and
//! prompts at a terminal if there are several candidates.

use std::io::{self, BufRead, Write};
use std::sync::Arc;

use thiserror::Error;
use tokio::task::spawn_blocking;
use tracing::debug;

use crate::aws::AwsContext;
use crate::aws::discover;
use crate::aws::discover::{Database, DiscoverError, NodeRanking, NotLocated, RankedNode};
use crate::base::error_text::chain;
use crate::base::names::{Region, TargetName};
use crate::base::quote::printable;
use crate::cli::terminal;
use crate::cli::terminal::Progress;
use crate::config::{
    Auth, Bastion, ConfigError, Endpoint, ResolvedTarget, SsmSettings, TargetConfig, Via,
};
use crate::postgres::target::PgTarget;
use crate::report::{self, Explanation};
use crate::targets::served_target::AwsContexts;

/// Number of prompts before the selection fails.
const ATTEMPTS: usize = 3;
/// Most candidates shown.
const MOST_SHOWN: usize = 9;

/// A target with the results of its lookups.
#[derive(Clone, Debug)]
pub struct LocatedTarget {
    /// The configuration, with the chosen bastion.
    pub config: TargetConfig,
    /// The target, with its endpoint.
    pub target: ResolvedTarget,
    /// Database found at RDS, if it was looked up.
    pub database: Option<Database>,
    /// Findings, in one line.
    pub line: String,
    /// Warnings, each with its remedy.
    pub warnings: Vec<String>,
    /// Line for the target's table that avoids the prompt next time.
    pub keep: Option<String>,
}

/// Error of [`resolve`].
#[derive(Debug, Error)]
pub enum LocateError {
    /// The database was not found.
    #[error("{}", in_words(&report::explain_lookup(.0)))]
    Discover(#[from] DiscoverError),
    /// The database found contradicts the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Looks up a database given by its identifier, and a bastion if none is configured. Several
/// equally good bastions lead to a prompt at a terminal; otherwise the first is used, and the line
/// names the others.
///
/// A missing bastion is not an error here: the tunnel reports it, with the remedy.
///
/// # Errors
/// [`LocateError`].
pub async fn resolve(config: TargetConfig, aws: &AwsContext) -> Result<LocatedTarget, LocateError> {
    let progress = Progress::start(format!("looking up {}", config.database_ref));
    let (target, database) = Box::pin(locate(&config, aws)).await?;
    let region = match &target.region {
        Some(region) => Some(region.clone()),
        None => discover::region(aws, None).await.ok(),
    };
    let ranked = match (wants_bastion(&config), &region) {
        (true, Some(region)) => {
            progress.now(format!("looking for a bastion in {region}"));
            Box::pin(rank(aws, region, &target.endpoint, database.as_ref())).await
        }
        _ => None,
    };
    drop(progress);
    let asked = match &ranked {
        Some(ranked) => ask_for_bastion(&config.name, ranked).await,
        None => None,
    };
    let mut located = LocatedTarget {
        line: line(&config, &target, database.as_ref(), region.as_ref()),
        warnings: database
            .as_ref()
            .map_or_else(Vec::new, |database| warnings(database, &config)),
        keep: None,
        config,
        target,
        database,
    };
    located.take(ranked, asked);
    Ok(located)
}

/// Creates the target to serve. At a terminal lookups run at once, because they may lead
/// to a prompt, and their findings are printed. Otherwise the first connection waits for them.
///
/// # Errors
/// [`LocateError`], [`SetupError`].
pub(crate) async fn served_target(
    config: TargetConfig,
    aws_contexts: &Arc<AwsContexts>,
) -> anyhow::Result<PgTarget> {
    let open = config.rds_identifier().is_some() || wants_bastion(&config);
    if !open || !terminal::is_interactive() {
        return Ok(PgTarget::new(config, Arc::clone(aws_contexts))?);
    }
    let aws = aws_contexts.of(config.settings.profile.as_deref(), config.region.as_ref());
    let located = resolve(config.clone(), &aws).await?;
    for warning in &located.warnings {
        let mark = terminal::styled(terminal::WARNING, "warning:");
        terminal::tell(format_args!("{mark} {warning}"))?;
    }
    // One line per finding and per text to copy.
    let line = located.line.replace("; ", "\n  ");
    terminal::tell(terminal::styled(terminal::DIM, line))?;
    if let Some(keep) = &located.keep {
        let name = &config.name;
        terminal::tell(format_args!(
            "To skip this question, add this line to [targets.{name}]:\n  {keep}"
        ))?;
    }
    let served = PgTarget::located(config, located.target, Arc::clone(aws_contexts))?;
    Ok(served)
}

impl LocatedTarget {
    fn take(&mut self, ranked: Option<NodeRanking>, asked: Option<RankedNode>) {
        let via = bastion_in_words(&self.config.settings.via, ranked.as_ref(), asked.as_ref());
        self.line = format!("{}; {via}", self.line);
        self.warnings.extend(ranked.and_then(|ranked| ranked.note));
        let Some(RankedNode { node, .. }) = asked else {
            return;
        };
        self.keep = Some(format!("bastion = \"{}\"", node.id));
        for via in [&mut self.config.settings.via, &mut self.target.settings.via] {
            if let Via::Ssm(settings) = via {
                settings.bastion = Bastion::Nodes(vec![node.id.clone()]);
            }
        }
    }
}

/// Returns the target, and its database at RDS if a lookup is needed.
async fn locate(
    config: &TargetConfig,
    aws: &AwsContext,
) -> Result<(ResolvedTarget, Option<Database>), LocateError> {
    if let Some(target) = config.resolved() {
        return Ok((target, None));
    }
    let Some(db) = config.rds_identifier() else {
        return Err(DiscoverError::NoRegion.into()); // Unreachable: a config has one of the two.
    };
    match discover::locate(aws, config, db).await {
        Ok((target, database)) => Ok((target, Some(database))),
        Err(NotLocated::Discover(error)) => Err(error.into()),
        Err(NotLocated::Config(error)) => Err(error.into()),
    }
}

fn wants_bastion(config: &TargetConfig) -> bool {
    matches!(
        &config.settings.via,
        Via::Ssm(SsmSettings {
            bastion: Bastion::Auto,
            ..
        })
    )
}

async fn rank(
    aws: &AwsContext,
    region: &Region,
    endpoint: &Endpoint,
    database: Option<&Database>,
) -> Option<NodeRanking> {
    let ranked = match database {
        Some(database) => discover::bastions_in(aws, region, database.vpc.as_deref()).await,
        None => discover::bastions(aws, region, Some(endpoint)).await,
    };
    match ranked {
        Ok(ranked) => Some(ranked),
        Err(error) => {
            debug!(reason = &*chain(&error), "bastion lookup failed");
            None
        }
    }
}

/// Describes the database's endpoint and state.
fn line(
    config: &TargetConfig,
    target: &ResolvedTarget,
    database: Option<&Database>,
    region: Option<&Region>,
) -> String {
    let place = match region {
        Some(region) => format!(" in {region}"),
        None => String::new(),
    };
    let Some(database) = database else {
        return format!("{}: {}{place}", config.name, target.endpoint);
    };
    let readers = match config.rds_identifier() {
        Some(db) if db.reader => "readers of ",
        _ => "",
    };
    let (kind, identifier) = (database.kind.word(), &database.identifier);
    let iam = match database.iam {
        Some(true) => ", IAM login on",
        Some(false) => ", IAM login off",
        None => "",
    };
    format!("{}: {readers}{kind} {identifier}{place}{iam}", config.name)
}

fn bastion_in_words(via: &Via, ranked: Option<&NodeRanking>, asked: Option<&RankedNode>) -> String {
    let settings = match via {
        Via::Direct => return "directly".to_owned(),
        Via::Ssm(settings) => settings,
    };
    let Some(ranked) = ranked else {
        return match &settings.bastion {
            Bastion::Auto => "pgiam looks up the bastion with the first connection".to_owned(),
            bastion => format!("bastion {bastion}"),
        };
    };
    if let Some(RankedNode { node, .. }) = asked {
        return format!("bastion {} (chosen)", node.id);
    }
    let Some(RankedNode { node, why }) = ranked.nodes.first() else {
        return "no bastion is online".to_owned();
    };
    let others = ranked.nodes.iter().take(ranked.equals).skip(1);
    let others: Vec<&str> = others
        .map(|other| other.node.id.as_str())
        .take(MOST_SHOWN)
        .collect();
    let others = match others.as_slice() {
        [] => String::new(),
        others => format!(", equally suitable: {}", others.join(", ")),
    };
    format!("bastion {} ({why}){others}", node.id)
}

/// Returns the settings that prevent logins, as far as RDS reports them.
#[must_use]
pub fn warnings(database: &Database, config: &TargetConfig) -> Vec<String> {
    let profile = config.settings.profile.as_deref();
    let off = database.iam == Some(false) && config.settings.login.auth == Auth::Iam;
    let off = off.then(|| report::explain_iam_off(database, profile));
    let down = !database.is_available();
    let down = down.then(|| report::explain_status(database, profile));
    off.iter().chain(&down).map(in_words).collect()
}

/// Formats an explanation for a terminal.
pub(crate) fn in_words(explanation: &Explanation) -> String {
    let Explanation {
        id,
        message,
        detail,
        hint,
        ..
    } = explanation;
    let detail = detail.iter().map(|detail| format!("\ndetail: {detail}"));
    let hint = hint.iter().map(|hint| format!("\nhint: {hint}"));
    let rest: String = detail.chain(hint).collect();
    format!("{message}{rest} [{id}]")
}

/// Prompts for a bastion; `None` without a choice or without a terminal.
async fn ask_for_bastion(target: &TargetName, ranked: &NodeRanking) -> Option<RankedNode> {
    if ranked.equals < 2 || !terminal::is_interactive() {
        return None;
    }
    let equals: Vec<RankedNode> = ranked.nodes.iter().take(ranked.equals).cloned().collect();
    let options: Vec<String> = equals.iter().map(option).collect();
    let question = format!("Which bastion should pgiam use for {target}?");
    let asking = spawn_blocking(move || {
        let (mut input, mut output) = (io::stdin().lock(), io::stderr().lock());
        pick(&mut input, &mut output, &question, &options)
    });
    let picked = asking.await.ok()?.ok()??;
    equals.into_iter().nth(picked)
}

fn option(RankedNode { node, why }: &RankedNode) -> String {
    let name = node.name.as_deref().map(printable).unwrap_or_default();
    format!("{}  {name}  ({why})", node.id)
}

/// Shows numbered options and reads the choice; an empty line selects the first. `None` after
/// [`ATTEMPTS`] invalid answers or at end of input.
fn pick(
    input: &mut impl BufRead,
    output: &mut impl Write,
    question: &str,
    options: &[String],
) -> io::Result<Option<usize>> {
    writeln!(output, "{question}")?;
    for (number, option) in (1..).zip(options.iter().take(MOST_SHOWN)) {
        writeln!(output, "  {number}  {option}")?;
    }
    let most = options.len().min(MOST_SHOWN);
    for _ in 0..ATTEMPTS {
        write!(output, "1 to {most} [1]: ")?;
        output.flush()?;
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            writeln!(output)?;
            return Ok(None);
        }
        match line.trim() {
            "" => return Ok(Some(0)),
            answer => match answer.parse::<usize>() {
                Ok(number) if (1..=most).contains(&number) => return Ok(Some(number - 1)),
                _ => writeln!(output, "Enter a number from 1 to {most}.")?,
            },
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::discover::tests::Account;
    use crate::config::{ConfigFile, TargetLayer};

    fn picked(typed: &str, options: usize) -> (Option<usize>, String) {
        let options: Vec<String> = (0..options).map(|n| format!("i-{n}")).collect();
        let mut output = Vec::new();
        let picked = pick(&mut typed.as_bytes(), &mut output, "Which?", &options).unwrap();
        (picked, String::from_utf8(output).unwrap())
    }

    #[test]
    fn an_answer_is_a_number_of_the_list() {
        for (typed, expected) in [
            ("\n", Some(0)),
            ("2\n", Some(1)),
            (" 3 \n", Some(2)),
            ("x\n0\n3\n", Some(2)),
            ("4\n4\n4\n1\n", None),
            ("", None),
        ] {
            assert_eq!(picked(typed, 3).0, expected, "{typed:?}");
        }
        let (_, shown) = picked("9\n2\n", 2);
        assert_eq!(
            shown,
            "Which?\n  1  i-0\n  2  i-1\n1 to 2 [1]: Enter a number from 1 to 2.\n1 to 2 [1]: "
        );
        assert_eq!(picked("10\n9\n", 20).0, Some(8), "no more are shown");
    }

    fn config(lines: &str) -> TargetConfig {
        let text = format!("[targets.shop]\nregion = 'eu-central-1'\n{lines}\n");
        let file: ConfigFile = toml::from_str(&text).unwrap();
        file.target(None, &TargetLayer::default()).unwrap()
    }

    async fn located(account: &Account, lines: &str) -> LocatedTarget {
        resolve(config(lines), &account.aws).await.unwrap()
    }

    #[tokio::test]
    async fn what_was_found_is_said_in_a_line() {
        let account = Account::furnished().await;
        let found = located(&account, "db = 'orders'").await;
        assert_eq!(
            found.line,
            "shop: cluster orders in eu-central-1, IAM login on; bastion i-0123456789abcdef0 (same VPC, named bastion)"
        );
        assert_eq!(found.target.endpoint.port, 5444);
        assert_eq!((found.keep, found.warnings), (None, Vec::new()));
        assert_eq!(found.config.settings.via, found.target.settings.via);
        for (lines, line) in [
            (
                "db = 'orders:reader'\nbastion = 'i-1'",
                "shop: readers of cluster orders in eu-central-1, IAM login on; bastion i-1",
            ),
            (
                "host = 'orders.example.com'\nvia = 'direct'",
                "shop: orders.example.com:5432 in eu-central-1; directly",
            ),
        ] {
            assert_eq!(located(&account, lines).await.line, line);
        }
        let unknown = resolve(config("db = 'ordres'"), &account.aws)
            .await
            .unwrap_err();
        let unknown = unknown.to_string();
        assert!(
            unknown.contains("\nhint: Did you mean \"orders\"?"),
            "{unknown}"
        );
    }

    #[tokio::test]
    async fn what_keeps_from_logging_in_is_a_warning() {
        let account = Account::furnished().await;
        account.inventory().update_instance("billing", |billing| {
            billing.iam = false;
            billing.status = "modifying".to_owned();
        });
        let found = located(&account, "db = 'billing'\nbastion = 'i-1'").await;
        let [off, status] = &found.warnings[..] else {
            panic!("{:?}", found.warnings);
        };
        assert!(
            off.contains("--enable-iam-database-authentication"),
            "{off}"
        );
        assert!(status.contains("modifying"), "{status}");
        let own = located(
            &account,
            "db = 'billing'\nbastion = 'i-1'\nauth = 'passthrough'",
        )
        .await;
        assert_eq!(own.warnings.len(), 1);
    }

    #[tokio::test]
    async fn several_bastions_are_named_and_one_that_is_asked_for_stays() {
        let account = Account::furnished().await;
        account.deny(&["ec2:DescribeInstances"]);
        let host = "host = 'orders.cluster-abc.eu-central-1.rds.amazonaws.com'";
        let mut found = located(&account, host).await;
        assert!(
            found.line.ends_with(
                "bastion i-0123456789abcdef0 (named bastion), equally suitable: i-0aaaaaaaaaaaaaaa1"
            ),
            "{}",
            found.line
        );
        let region = "eu-central-1".into();
        let ranked = discover::bastions_in(&account.aws, &region, None);
        let ranked = ranked.await.unwrap();
        let second = ranked.nodes[1].clone();
        found.take(Some(ranked), Some(second));
        assert_eq!(
            found.keep.as_deref(),
            Some("bastion = \"i-0aaaaaaaaaaaaaaa1\"")
        );
        assert_eq!(
            found.target.settings.via.to_string(),
            "ssm i-0aaaaaaaaaaaaaaa1"
        );
        assert_eq!(found.config.settings.via, found.target.settings.via);
        account.deny(&["ssm:DescribeInstanceInformation"]);
        let blind = located(&account, host).await;
        assert!(
            blind
                .line
                .ends_with("; pgiam looks up the bastion with the first connection")
        );
    }

    #[test]
    fn names_from_elsewhere_cannot_move_the_cursor() {
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
    }
}
