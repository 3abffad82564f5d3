//! Which database and which bastion a command is about: looked up before anything is started, and
//! asked for where several would do and somebody is there to answer.

use std::io::{self, BufRead, Write};
use std::sync::Arc;

use thiserror::Error;
use tokio::task::spawn_blocking;
use tracing::debug;

use crate::aws::AwsContext;
use crate::aws::discover;
use crate::aws::discover::{Candidate, Database, DiscoverError, NotLocated, Ranked};
use crate::base::error_text::chain;
use crate::base::quote::printable;
use crate::cli::terminal;
use crate::cli::terminal::Progress;
use crate::config::{Auth, Bastion, ConfigError, Endpoint, Plan, SsmSettings, Target, Via};
use crate::postgres::target::slot::{Contexts, Slot};
use crate::report::{self, Explanation};

/// How often an answer that is none is asked for again.
const ATTEMPTS: usize = 3;
/// Most candidates that are shown.
const MOST_SHOWN: usize = 9;

/// A target, with what was found out about it.
#[derive(Clone, Debug)]
pub struct Settled {
    /// The plan, with the bastion that was chosen.
    pub plan: Plan,
    /// The same with its endpoint.
    pub target: Target,
    /// What was looked up at RDS, if anything was.
    pub database: Option<Database>,
    /// What was found, in a line.
    pub line: String,
    /// What should be looked at, each with its remedy.
    pub warnings: Vec<String>,
    /// What to write into the target's table so as not to be asked again.
    pub keep: Option<String>,
}

/// Why it is not settled.
#[derive(Debug, Error)]
pub enum SettleError {
    /// The database was not found.
    #[error("{}", in_words(&report::explain_lookup(.0)))]
    Discover(#[from] DiscoverError),
    /// What was found does not go with the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Looks up the database where it is given by its identifier, and a bastion where none is named. Where
/// several bastions are equally good, somebody at a terminal is asked; otherwise the first is taken,
/// and the line says which others there were.
///
/// That no bastion was found is no error here: the tunnel will say so, with the remedy.
///
/// # Errors
/// [`SettleError`].
pub async fn settle(plan: Plan, aws: &AwsContext) -> Result<Settled, SettleError> {
    let progress = Progress::start(format!("looking for {}", plan.wanted));
    let (target, database) = Box::pin(locate(&plan, aws)).await?;
    let region = match &target.region {
        Some(region) => Some(region.clone()),
        None => discover::region(aws, None).await.ok(),
    };
    let ranked = match (wants_bastion(&plan), &region) {
        (true, Some(region)) => {
            progress.now(format!("looking for a bastion in {region}"));
            Box::pin(rank(aws, region, &target.endpoint, database.as_ref())).await
        }
        _ => None,
    };
    drop(progress);
    let asked = match &ranked {
        Some(ranked) => ask_for_bastion(&plan.name, ranked).await,
        None => None,
    };
    let mut settled = Settled {
        line: line(&plan, &target, database.as_ref(), region.as_deref()),
        warnings: database
            .as_ref()
            .map_or_else(Vec::new, |database| warnings(database, &plan)),
        keep: None,
        plan,
        target,
        database,
    };
    settled.take(ranked, asked);
    Ok(settled)
}

/// A target to serve. Where somebody is at the terminal and something has to be looked up for it, that
/// is done at once: there may be a question, and what was found is said. Elsewhere the first connection
/// waits for it.
///
/// # Errors
/// [`SettleError`], [`SetupError`].
pub(crate) async fn slot(plan: Plan, contexts: &Arc<Contexts>) -> anyhow::Result<Slot> {
    let open = plan.lookup().is_some() || wants_bastion(&plan);
    if !open || !terminal::is_interactive() {
        return Ok(Slot::new(plan, Arc::clone(contexts))?);
    }
    let aws = contexts.of(plan.profile.as_deref(), plan.region.as_deref());
    let settled = settle(plan.clone(), &aws).await?;
    for warning in &settled.warnings {
        let mark = terminal::styled(terminal::WARNING, "warning:");
        terminal::tell(format_args!("{mark} {warning}"))?;
    }
    // A line each, for what it says and for what is to be copied.
    let line = settled.line.replace("; ", "\n  ");
    terminal::tell(terminal::styled(terminal::DIM, line))?;
    if let Some(keep) = &settled.keep {
        let name = &plan.name;
        terminal::tell(format_args!(
            "To be asked no more, write this under [targets.{name}]:\n  {keep}"
        ))?;
    }
    let slot = Slot::settled(plan, settled.target, Arc::clone(contexts))?;
    Ok(slot)
}

impl Settled {
    fn take(&mut self, ranked: Option<Ranked>, asked: Option<Candidate>) {
        let via = bastion_in_words(&self.plan.via, ranked.as_ref(), asked.as_ref());
        self.line = format!("{}; {via}", self.line);
        self.warnings.extend(ranked.and_then(|ranked| ranked.note));
        let Some(Candidate { node, .. }) = asked else {
            return;
        };
        self.keep = Some(format!("bastion = \"{}\"", node.id));
        for via in [&mut self.plan.via, &mut self.target.via] {
            if let Via::Ssm(settings) = via {
                settings.bastion = Bastion::Nodes(vec![node.id.clone()]);
            }
        }
    }
}

/// The target, and what RDS says about its database where that has to be asked.
async fn locate(plan: &Plan, aws: &AwsContext) -> Result<(Target, Option<Database>), SettleError> {
    if let Some(target) = plan.target() {
        return Ok((target, None));
    }
    let Some(db) = plan.lookup() else {
        return Err(DiscoverError::NoRegion.into()); // A plan has one of the two.
    };
    match discover::locate(aws, plan, db).await {
        Ok((target, database)) => Ok((target, Some(database))),
        Err(NotLocated::Discover(error)) => Err(error.into()),
        Err(NotLocated::Config(error)) => Err(error.into()),
    }
}

fn wants_bastion(plan: &Plan) -> bool {
    matches!(
        &plan.via,
        Via::Ssm(SsmSettings {
            bastion: Bastion::Auto,
            ..
        })
    )
}

async fn rank(
    aws: &AwsContext,
    region: &str,
    endpoint: &Endpoint,
    database: Option<&Database>,
) -> Option<Ranked> {
    let ranked = match database {
        Some(database) => discover::bastions_in(aws, region, database.vpc.as_deref()).await,
        None => discover::bastions(aws, region, Some(endpoint)).await,
    };
    match ranked {
        Ok(ranked) => Some(ranked),
        Err(error) => {
            debug!(reason = &*chain(&error), "no bastion was looked for");
            None
        }
    }
}

/// Where the database is and how it is.
fn line(plan: &Plan, target: &Target, database: Option<&Database>, region: Option<&str>) -> String {
    let place = match region {
        Some(region) => format!(" in {region}"),
        None => String::new(),
    };
    let Some(database) = database else {
        return format!("{}: {}{place}", plan.name, target.endpoint);
    };
    let readers = match plan.lookup() {
        Some(db) if db.reader => "readers of ",
        _ => "",
    };
    let (kind, identifier) = (database.kind.word(), &database.identifier);
    let iam = match database.iam {
        Some(true) => ", IAM login on",
        Some(false) => ", IAM login off",
        None => "",
    };
    format!("{}: {readers}{kind} {identifier}{place}{iam}", plan.name)
}

fn bastion_in_words(via: &Via, ranked: Option<&Ranked>, asked: Option<&Candidate>) -> String {
    let settings = match via {
        Via::Direct => return "directly".to_owned(),
        Via::Ssm(settings) => settings,
    };
    let Some(ranked) = ranked else {
        return match &settings.bastion {
            Bastion::Auto => "the bastion is looked for with the first connection".to_owned(),
            bastion => format!("bastion {bastion}"),
        };
    };
    if let Some(Candidate { node, .. }) = asked {
        return format!("bastion {} (chosen)", node.id);
    }
    let Some(Candidate { node, why }) = ranked.nodes.first() else {
        return "no bastion is online".to_owned();
    };
    let others = ranked.nodes.iter().take(ranked.equals).skip(1);
    let others: Vec<&str> = others
        .map(|other| other.node.id.as_str())
        .take(MOST_SHOWN)
        .collect();
    let others = match others.as_slice() {
        [] => String::new(),
        others => format!(", as good as {}", others.join(", ")),
    };
    format!("bastion {} ({why}){others}", node.id)
}

/// What keeps logins from working, as far as RDS tells.
#[must_use]
pub fn warnings(database: &Database, plan: &Plan) -> Vec<String> {
    let profile = plan.profile.as_deref();
    let off = database.iam == Some(false) && plan.login.auth == Auth::Iam;
    let off = off.then(|| report::explain_iam_off(database, profile));
    let down = !database.is_available();
    let down = down.then(|| report::explain_status(database, profile));
    off.iter().chain(&down).map(in_words).collect()
}

/// An explanation as text for a terminal.
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

/// The bastion that somebody has chosen; `None` where there is nothing to choose, or nobody to ask.
async fn ask_for_bastion(target: &str, ranked: &Ranked) -> Option<Candidate> {
    if ranked.equals < 2 || !terminal::is_interactive() {
        return None;
    }
    let equals: Vec<Candidate> = ranked.nodes.iter().take(ranked.equals).cloned().collect();
    let options: Vec<String> = equals.iter().map(option).collect();
    let question = format!("Which bastion is to carry the tunnel of {target}?");
    let asking = spawn_blocking(move || {
        let (mut input, mut output) = (io::stdin().lock(), io::stderr().lock());
        pick(&mut input, &mut output, &question, &options)
    });
    let picked = asking.await.ok()?.ok()??;
    equals.into_iter().nth(picked)
}

fn option(Candidate { node, why }: &Candidate) -> String {
    let name = node.name.as_deref().map(printable).unwrap_or_default();
    format!("{}  {name}  ({why})", node.id)
}

/// Shows numbered options and reads which one is meant; an empty line is the first. `None` when what
/// is typed is no answer, or nobody types.
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
                _ => writeln!(output, "That is none of them.")?,
            },
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::discover::tests::Account;
    use crate::config::{File, Layer};

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
            "Which?\n  1  i-0\n  2  i-1\n1 to 2 [1]: That is none of them.\n1 to 2 [1]: "
        );
        assert_eq!(picked("10\n9\n", 20).0, Some(8), "no more are shown");
    }

    fn plan(lines: &str) -> Plan {
        let text = format!("[targets.shop]\nregion = 'eu-central-1'\n{lines}\n");
        let file: File = toml::from_str(&text).unwrap();
        file.plan(None, &Layer::default(), "").unwrap()
    }

    async fn settled(account: &Account, lines: &str) -> Settled {
        settle(plan(lines), &account.aws).await.unwrap()
    }

    #[tokio::test]
    async fn what_was_found_is_said_in_a_line() {
        let account = Account::furnished().await;
        let found = settled(&account, "db = 'orders'").await;
        assert_eq!(
            found.line,
            "shop: cluster orders in eu-central-1, IAM login on; bastion i-0123456789abcdef0 (same VPC, named bastion)"
        );
        assert_eq!(found.target.endpoint.port, 5444);
        assert_eq!((found.keep, found.warnings), (None, Vec::new()));
        assert_eq!(found.plan.via, found.target.via);
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
            assert_eq!(settled(&account, lines).await.line, line);
        }
        let unknown = settle(plan("db = 'ordres'"), &account.aws)
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
        let found = settled(&account, "db = 'billing'\nbastion = 'i-1'").await;
        let [off, status] = &found.warnings[..] else {
            panic!("{:?}", found.warnings);
        };
        assert!(
            off.contains("--enable-iam-database-authentication"),
            "{off}"
        );
        assert!(status.contains("modifying"), "{status}");
        let own = settled(
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
        let mut found = settled(&account, host).await;
        assert!(
            found.line.ends_with(
                "bastion i-0123456789abcdef0 (named bastion), as good as i-0aaaaaaaaaaaaaaa1"
            ),
            "{}",
            found.line
        );
        let ranked = discover::bastions_in(&account.aws, "eu-central-1", None);
        let ranked = ranked.await.unwrap();
        let second = ranked.nodes[1].clone();
        found.take(Some(ranked), Some(second));
        assert_eq!(
            found.keep.as_deref(),
            Some("bastion = \"i-0aaaaaaaaaaaaaaa1\"")
        );
        assert_eq!(found.target.via.to_string(), "ssm i-0aaaaaaaaaaaaaaa1");
        assert_eq!(found.plan.via, found.target.via);
        account.deny(&["ssm:DescribeInstanceInformation"]);
        let blind = settled(&account, host).await;
        assert!(
            blind
                .line
                .ends_with("; the bastion is looked for with the first connection")
        );
    }

    #[test]
    fn names_from_elsewhere_cannot_move_the_cursor() {
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
    }
}
