//! The files of a server: where they lie, who owns them, what is in them.

use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use super::install::{Install, text_of};

/// Below the base directory.
pub(super) const DATA_DIR: &str = "data";
pub(super) const CERT_FILE: &str = "server.pem";
pub(super) const KEY_FILE: &str = "server.key";

/// In the template: how many other files it has.
const COUNT_FILE: &str = "pgiam-file-count";

/// Longest path of a Unix socket (`sun_path`) less `/.s.PGSQL.65535.lock`.
const MAX_SOCKET_DIR: usize = 107 - 20;

/// A fresh directory for one server, which the server's user can reach and owns.
///
/// It lies below `dir`, unless that path is too long for a Unix socket.
pub(super) fn make_base(install: &Install, dir: &Path) -> anyhow::Result<tempfile::TempDir> {
    let dir = fs::canonicalize(dir).with_context(|| format!("directory {}", dir.display()))?;
    let mut builder = tempfile::Builder::new();
    builder.prefix("postgres-");
    let mut base = builder.tempdir_in(&dir)?;
    if base.path().as_os_str().len() > MAX_SOCKET_DIR {
        base = builder.tempdir_in("/tmp")?;
    } else {
        open_way(install, &dir)?;
    }
    own(install, base.path())?;
    Ok(base)
}

/// Lets the server's user pass through `dir`. Directories above it are left as they are.
fn open_way(install: &Install, dir: &Path) -> anyhow::Result<()> {
    if install.run_as.is_none() {
        return Ok(());
    }
    for step in dir.ancestors() {
        let mode = fs::metadata(step)?.mode();
        if mode & 0o001 != 0 {
            continue;
        }
        ensure!(
            step == dir,
            "the user postgres cannot pass through {} on the way to {}",
            step.display(),
            dir.display()
        );
        fs::set_permissions(step, Permissions::from_mode(mode & 0o7777 | 0o011))?;
    }
    Ok(())
}

fn own(install: &Install, path: &Path) -> anyhow::Result<()> {
    if let Some((uid, gid)) = install.run_as {
        chown(path, Some(uid), Some(gid))
            .with_context(|| format!("giving {} to postgres", path.display()))?;
    }
    Ok(())
}

/// Fills the base directory: data from the template or, with `fresh`, made here; certificate and
/// key.
pub(super) fn create(
    install: &Install,
    base: &Path,
    tls: Option<&(PathBuf, PathBuf)>,
    fresh: bool,
) -> anyhow::Result<()> {
    let data = base.join(DATA_DIR);
    if fresh {
        initdb(install, base, &data)?;
    } else {
        let template = template(install)?;
        text_of(Command::new("cp").arg("-a").arg(&template).arg(&data))?;
    }
    if let Some((certificate, key)) = tls {
        fs::copy(certificate, base.join(CERT_FILE)).context("server certificate")?;
        own(install, &base.join(CERT_FILE))?;
        // The server refuses keys that others may read.
        crate::harness::pki::write_private(&base.join(KEY_FILE), &fs::read_to_string(key)?)?;
        own(install, &base.join(KEY_FILE))?;
    }
    Ok(())
}

/// Appends settings to what `initdb` wrote: the last one counts, so this may be repeated.
pub(super) fn write_settings(base: &Path, settings: &[(String, String)]) -> anyhow::Result<()> {
    let path = base.join(DATA_DIR).join("postgresql.conf");
    let mut text = fs::read_to_string(&path)?;
    for (name, value) in settings {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name} = '{}'", value.replace('\'', "''"));
    }
    fs::write(&path, text).context("writing postgresql.conf")
}

/// Replaces the rules `initdb` wrote.
pub(super) fn write_hba(base: &Path, rules: &str) -> anyhow::Result<()> {
    fs::write(base.join(DATA_DIR).join("pg_hba.conf"), rules).context("writing pg_hba.conf")
}

/// An initialised, never started data directory of this version, made once per machine and user.
///
/// `initdb` takes ten times as long as copying what it made.
fn template(install: &Install) -> anyhow::Result<PathBuf> {
    let uid = install.uid();
    let name = format!("pgiam-pg-template-{}-{uid}", install.version);
    let dir = std::env::temp_dir();
    let (path, lock) = (dir.join(&name), dir.join(format!("{name}.lock")));
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock)
        .with_context(|| format!("opening {}", lock.display()))?;
    // Held until the function returns; whoever waits finds the finished template.
    lock.lock()?;
    if let Ok(found) = fs::symlink_metadata(&path) {
        // The directory is world-writable: take only what is ours.
        if !found.is_dir() || found.uid() != uid || found.mode() & 0o077 != 0 {
            bail!("{} is not a template of ours; remove it", path.display());
        }
        if is_whole(&path) {
            return Ok(path);
        }
        fs::remove_dir_all(&path).context("removing an incomplete template")?;
    }
    let new = tempfile::Builder::new().prefix("pgiam-pg-new-").tempdir()?;
    own(install, new.path())?;
    let data = new.path().join(DATA_DIR);
    initdb(install, new.path(), &data)?;
    fs::write(data.join(COUNT_FILE), count_files(&data)?.to_string())?;
    fs::rename(&data, &path)
        .with_context(|| format!("keeping the template at {}", path.display()))?;
    Ok(path)
}

/// Makes a data directory.
fn initdb(install: &Install, base: &Path, data: &Path) -> anyhow::Result<()> {
    let mut initdb = install.command("initdb", base);
    initdb
        .args(["-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync"])
        .args(["--auth-local=trust", "--auth-host=reject"])
        .arg("-D")
        .arg(data);
    text_of(&mut initdb).map(drop)
}

/// Whether nothing is missing: systems that tidy their temporary directory take single old files.
fn is_whole(template: &Path) -> bool {
    let expected = fs::read_to_string(template.join(COUNT_FILE));
    let expected: Option<usize> = expected.ok().and_then(|text| text.parse().ok());
    match (expected, count_files(template)) {
        (Some(expected), Ok(found)) => found == expected + 1,
        _ => false,
    }
}

fn count_files(dir: &Path) -> anyhow::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        count += if entry.file_type()?.is_dir() {
            count_files(&entry.path())?
        } else {
            1
        };
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tidied_template_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("base")).unwrap();
        fs::write(dir.path().join("PG_VERSION"), "15").unwrap();
        fs::write(dir.path().join("base/1"), "").unwrap();
        assert!(!is_whole(dir.path()), "not counted yet");
        fs::write(dir.path().join(COUNT_FILE), "2").unwrap();
        assert!(is_whole(dir.path()));
        fs::remove_file(dir.path().join("base/1")).unwrap();
        assert!(!is_whole(dir.path()));
    }
}
