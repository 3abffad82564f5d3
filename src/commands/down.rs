//! `pgiam down`: ends the servers that `pgiam up` started.

use std::time::Duration;

use super::serve::state_dir;
use super::status::end_all;
use crate::admin::ProcessKind;
use crate::admin::client;
use crate::admin::document::ProcessDocument;
use crate::cli::terminal;
use crate::cli::{DownArgs, exit};

/// Ends the servers that `pgiam up` started.
///
/// # Errors
/// The terminal cannot be written to.
pub async fn down(args: &DownArgs) -> anyhow::Result<u8> {
    let state_dir = state_dir(args.state.state_dir.as_ref())?;
    let (mut chosen, mut others) = (Vec::new(), Vec::new());
    for (found, status) in client::all(state_dir.as_deref()).await {
        let Ok(process) = status else { continue };
        if is_chosen(&process, &args.targets) {
            chosen.push(found);
        } else if process.kind == ProcessKind::Serve.as_str() {
            others.push(process);
        }
    }
    if chosen.is_empty() {
        terminal::tell(nothing(&args.targets, &others))?;
        return Ok(exit::NOT_RUNNING);
    }
    end_all(&chosen, Duration::from_secs(args.timeout)).await
}

/// Returns `true` for a process of `pgiam up`, if targets are named for one that serves only those.
fn is_chosen(process: &ProcessDocument, targets: &[String]) -> bool {
    let named = |name: &String| targets.is_empty() || targets.contains(name);
    process.log.is_some() && process.targets.iter().all(|target| named(&target.name))
}

fn nothing(targets: &[String], others: &[ProcessDocument]) -> String {
    let which = match targets.is_empty() {
        true => String::new(),
        false => format!(" that serves only {}", targets.join(", ")),
    };
    let first = format!("pgiam: no server of pgiam up{which} is running");
    match others.first() {
        None => format!("{first}\nhint: list the running processes:\n  pgiam status"),
        Some(other) if other.log.is_some() => {
            format!("{first}\nhint: stop all servers of pgiam up:\n  pgiam down")
        }
        Some(other) => format!(
            "{first}\nhint: pgiam serve runs as process {pid}; stop it:\n  pgiam stop --pid {pid}",
            pid = other.pid
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::admin::document::TargetDocument;

    fn process(log: bool, targets: &[&str]) -> ProcessDocument {
        let target = |name: &&str| TargetDocument {
            name: (*name).to_owned(),
            ..TargetDocument::default()
        };
        ProcessDocument {
            pid: 4711,
            kind: "serve".to_owned(),
            log: log.then(|| PathBuf::from("/log")),
            targets: targets.iter().map(target).collect(),
            ..ProcessDocument::default()
        }
    }

    #[test]
    fn servers_of_a_terminal_or_with_other_targets_stay() {
        let orders = ["orders".to_owned()];
        assert!(is_chosen(&process(true, &["orders", "reports"]), &[]));
        assert!(!is_chosen(&process(false, &["orders"]), &[]));
        assert!(is_chosen(&process(true, &["orders"]), &orders));
        assert!(!is_chosen(&process(true, &["orders", "reports"]), &orders));
    }

    #[test]
    fn the_remedy_fits_what_runs() {
        let orders = ["orders".to_owned()];
        let said = [
            nothing(&[], &[]),
            nothing(&[], &[process(false, &["orders"])]),
            nothing(&orders, &[process(true, &["orders", "reports"])]),
        ];
        insta::assert_snapshot!(said.join("\n\n"));
    }
}
