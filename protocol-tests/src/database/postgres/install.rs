//! Finding the server programs and the operating system user they may run as.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use nix::unistd::{User, geteuid};

/// The programs of one PostgreSQL version.
#[derive(Debug, Clone)]
pub(super) struct Install {
    pub(super) bindir: PathBuf,
    /// For example `15.18`.
    pub(super) version: String,
    /// Set when we are root: the user and group to run as, because the server refuses root.
    pub(super) run_as: Option<(u32, u32)>,
}

impl Install {
    pub(super) fn find() -> anyhow::Result<Self> {
        let bindir = candidates()
            .into_iter()
            .find(|dir| ["postgres", "initdb"].iter().all(|p| dir.join(p).is_file()))
            .context(
                "no PostgreSQL server found in /usr/lib/postgresql, pg_config --bindir or PATH; \
                 on Debian and Ubuntu: apt-get install postgresql",
            )?;
        Self::of(bindir, run_as()?)
    }

    /// The programs in this directory.
    pub(super) fn at(bindir: &Path) -> anyhow::Result<Self> {
        let bindir = std::fs::canonicalize(bindir)
            .with_context(|| format!("no PostgreSQL at {}", bindir.display()))?;
        let run_as = run_as()?;
        if let Some(closed) = bindir
            .ancestors()
            .find(|dir| run_as.is_some() && !is_open(dir))
        {
            bail!(
                "the user postgres cannot pass through {} on the way to {}: open it with chmod o+x, \
                 or install below another directory",
                closed.display(),
                bindir.display()
            );
        }
        Self::of(bindir, run_as)
    }

    fn of(bindir: PathBuf, run_as: Option<(u32, u32)>) -> anyhow::Result<Self> {
        let mut version = Command::new(bindir.join("postgres"));
        let version = text_of(version.arg("--version"))?;
        // "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"
        let version = version
            .split_whitespace()
            .nth(2)
            .with_context(|| format!("strange version: {version:?}"))?
            .to_owned();
        Ok(Self {
            bindir,
            version,
            run_as,
        })
    }

    /// The user id the server's files belong to.
    pub(super) fn uid(&self) -> u32 {
        self.run_as.map_or(geteuid().as_raw(), |(uid, _)| uid)
    }

    /// One of the server programs, to be run as the right user and away from the terminal's
    /// signals: Ctrl-C is for us, and we tell the server.
    pub(super) fn command(&self, program: &str, cwd: &Path) -> Command {
        let mut command = Command::new(self.bindir.join(program));
        if let Some((uid, gid)) = self.run_as {
            command.uid(uid).gid(gid);
        }
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command.env("LC_ALL", "C").current_dir(cwd).process_group(0);
        command
    }
}

/// Whether everybody may pass through.
fn is_open(dir: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(dir).is_ok_and(|found| found.mode() & 0o001 != 0)
}

fn run_as() -> anyhow::Result<Option<(u32, u32)>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    match User::from_name("postgres")? {
        Some(user) => Ok(Some((user.uid.as_raw(), user.gid.as_raw()))),
        None => bail!("run by root, but there is no user postgres to run the server as"),
    }
}

/// Directories that may hold the programs, best first.
fn candidates() -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let major = entry.file_name().to_str()?.parse().ok()?;
            Some((major, entry.path().join("bin")))
        })
        .collect();
    versions.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    let mut dirs: Vec<PathBuf> = versions.into_iter().map(|(_, dir)| dir).collect();
    if let Ok(dir) = text_of(Command::new("pg_config").arg("--bindir")) {
        dirs.push(PathBuf::from(dir.trim()));
    }
    if let Some(path) = std::env::var_os("PATH") {
        dirs.extend(std::env::split_paths(&path));
    }
    dirs
}

/// Runs a program that is expected to succeed and returns what it prints.
pub(super) fn text_of(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().display().to_string();
    let output = command
        .output()
        .with_context(|| format!("running {program}"))?;
    if !output.status.success() {
        bail!(
            "{program}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
