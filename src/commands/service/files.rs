//! Files of a service: those of pgiam, and those that it leaves alone.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

use super::manager::Manager;
use crate::base::quote::{shell, shown};
use crate::platform::service_manager::{FileOrigin, InstallPlan, origin};

/// Returns the files to write or to remove.
pub(super) fn changes(manager: &Manager, plan: &InstallPlan) -> anyhow::Result<Vec<PathBuf>> {
    let mut changed = Vec::new();
    for file in &plan.files {
        let (origin, text) = origin_of(&file.path)?;
        match origin {
            FileOrigin::Ours if text == file.text => {}
            FileOrigin::Ours | FileOrigin::Missing => changed.push(file.path.clone()),
            FileOrigin::Changed | FileOrigin::Foreign => {
                return Err(not_ours(manager, &file.path, origin));
            }
        }
    }
    for path in &plan.obsolete {
        match origin_of(path)?.0 {
            FileOrigin::Missing => {}
            FileOrigin::Ours => changed.push(path.clone()),
            origin => return Err(not_ours(manager, path, origin)),
        }
    }
    Ok(changed)
}

pub(super) fn origin_of(path: &Path) -> anyhow::Result<(FileOrigin, String)> {
    origin(path).with_context(|| format!("cannot read {}", shown(path)))
}

/// Returns the error about a file that pgiam leaves alone.
pub(super) fn not_ours(manager: &Manager, path: &Path, origin: FileOrigin) -> anyhow::Error {
    let remove = match manager {
        Manager::Tasks { .. } => "del",
        Manager::Systemd { .. } | Manager::Launchd { .. } => "rm",
    };
    let remedy = match (origin, manager) {
        (FileOrigin::Changed, Manager::Systemd { .. }) => {
            "keep your changes in a drop-in (systemctl --user edit pgiam), remove the file, and try again"
        }
        (FileOrigin::Changed, _) => "remove the file, try again, and repeat your changes",
        _ => "if you no longer need the file, remove it and try again",
    };
    let fault = match origin {
        FileOrigin::Changed => "has been changed since pgiam wrote it",
        _ => "was not written by pgiam service install",
    };
    let word = shell(&path.to_string_lossy());
    anyhow!(
        "{} {fault}\nhint: {remedy}:\n  {remove} {word}",
        shown(path)
    )
}

/// Removes a file, if it exists.
pub(super) fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", shown(path)))
        }
        _ => Ok(()),
    }
}
