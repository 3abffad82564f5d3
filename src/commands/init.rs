//! `pgiam init`: generates a configuration file from the resources found at AWS.

mod text;

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::aws::discover::{Database, FailedCall, Survey};
use crate::base::names::Region;
use crate::base::suggest::did_you_mean;
use crate::cli::InitArgs;
use crate::cli::terminal;

/// Default name of the file, which pgiam searches first.
const FILE: &str = "pgiam.toml";
/// Argument for standard output.
const STDOUT: &str = "-";

/// Writes the configuration file.
///
/// # Errors
/// A requested database does not exist or none was found, or the file exists or cannot be written.
pub async fn init(args: &InitArgs) -> anyhow::Result<()> {
    let path = args.file.clone().unwrap_or_else(|| PathBuf::from(FILE));
    let is_file = path != Path::new(STDOUT);
    if is_file && !args.force && path.exists() {
        return Err(in_the_way(&path));
    }
    let (profile, region) = (
        args.profile.as_deref(),
        args.region.as_deref().map(Region::from),
    );
    super::login::on_demand::offer_for(profile).await?;
    let (region, mut survey) = super::list::survey(profile, region.as_ref()).await?;
    choose(&mut survey, &region, &args.db)?;
    let written = text::CommonSettings {
        region: &region,
        profile,
        user: args.user.as_deref(),
    };
    let text = text::file(&written, &survey);
    if !is_file {
        return terminal::write(text).context("cannot write to standard output");
    }
    write(&path, &text, args.force)?;
    let first = survey.databases.first().map(text::name);
    let (path, first) = (path.display(), first.unwrap_or_default());
    let count = survey.databases.len();
    let targets = if count == 1 { "target" } else { "targets" };
    terminal::tell(format_args!(
        "wrote {path} with {count} {targets}\nNext, review the file and run:\n  pgiam check {first}\n  pgiam serve"
    ))?;
    Ok(())
}

/// Keeps the requested databases.
fn choose(survey: &mut Survey, region: &Region, wanted: &[String]) -> anyhow::Result<()> {
    let is = |one: &Database, name: &String| one.identifier.eq_ignore_ascii_case(name);
    for name in wanted {
        if survey.databases.iter().any(|one| is(one, name)) {
            continue;
        }
        let known = survey.databases.iter().map(|one| one.identifier.as_str());
        let suggestion = did_you_mean(name, known);
        bail!(
            "found no PostgreSQL database \"{name}\" in {region}\nhint: {suggestion}pgiam list shows the databases that your credentials can see"
        );
    }
    if !wanted.is_empty() {
        let databases = &mut survey.databases;
        databases.retain(|one| wanted.iter().any(|name| is(one, name)));
    }
    if survey.databases.is_empty() {
        let denied = survey.missing.iter().filter(|call| call.error.is_denied());
        let denied: Vec<&str> = denied.map(|call: &FailedCall| call.action).collect();
        let hint = match denied.as_slice() {
            [] => "check region and profile (--region, --profile)".to_owned(),
            denied => format!(
                "the list may be incomplete: your policy does not allow {}",
                denied.join(", ")
            ),
        };
        bail!("found no PostgreSQL database in {region}\nhint: {hint}");
    }
    Ok(())
}

fn in_the_way(path: &Path) -> anyhow::Error {
    anyhow::anyhow!(
        "{} already exists\nhint: replace it with --force, or write to standard output:\n  pgiam init -",
        path.display()
    )
}

fn write(path: &Path, text: &str, force: bool) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let mut options = OpenOptions::new();
    options.write(true);
    match force {
        true => options.create(true).truncate(true),
        false => options.create_new(true),
    };
    let mut file = match options.open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(in_the_way(path)),
        opened => opened.with_context(|| format!("cannot write {}", path.display()))?,
    };
    file.write_all(text.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}
