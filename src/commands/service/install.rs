//! `pgiam service install` and `uninstall`.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep};

use super::files::{changes, not_ours, origin_of, remove};
use super::manager::{Manager, UnitState};
use super::spec::{Prepared, prepare};
use super::{Consent, consent, state, tool};
use crate::admin::client;
use crate::admin::document::ProcessDocument;
use crate::base::quote::shown;
use crate::cli::terminal::{self, DIM, HEADING, Progress, styled};
use crate::cli::{ServiceInstallArgs, ServiceUninstallArgs, exit};
use crate::commands::connection_string::client_host;
use crate::commands::serve::state_dir;
use crate::commands::status::short;
use crate::commands::up;
use crate::platform::service_manager::systemd::{SERVICE, SOCKET};
use crate::platform::service_manager::{FileOrigin, InstallPlan, launchd};
use crate::platform::{self, service_manager};

/// Interval between two looks at a service that starts.
const LOOK: Duration = Duration::from_millis(50);
/// Pause before a start is repeated.
const AGAIN: Duration = Duration::from_millis(500);
/// Longest time until a service answers whose manager has started it.
const PATIENCE: Duration = Duration::from_secs(30);
const NO_TERMINAL: &str = "pgiam: nothing was changed, because there is no terminal to ask at\nhint: show the plan with --dry-run, or carry it out with --yes";

/// Installs the service and starts it.
///
/// # Errors
/// An invalid configuration, a file that is not pgiam's, or a failed step.
pub(super) async fn install(manager: &Manager, args: &ServiceInstallArgs) -> anyhow::Result<u8> {
    let prepared = prepare(args, manager)?;
    let mut plan = manager.plan(&prepared.spec);
    let changed = changes(manager, &plan)?;
    if !plan.obsolete.is_empty() && !plan.obsolete.iter().any(|path| changed.contains(path)) {
        plan.before.clear();
    }
    manager.must_run().await?;
    if changed.is_empty() && is_active(manager, &prepared).await {
        terminal::write("The service is installed, up to date and running.\n")?;
        return Ok(0);
    }
    ports_are_free(manager, &prepared).await?;
    if !args.confirm.yes {
        terminal::write_text(description(manager, &prepared, &plan, &changed).trim_end())?;
    }
    match consent(args.confirm, "Install and start it?").await? {
        Consent::Given => {}
        Consent::Refused => return Ok(0),
        Consent::Unknown => {
            terminal::tell(NO_TERMINAL)?;
            return Ok(exit::USAGE);
        }
    }
    if args.confirm.yes {
        for note in &prepared.notes {
            terminal::tell(format!("note: {note}"))?;
        }
    }
    let has_stopped = carry_out(&plan).await?;
    let progress = Progress::start("starting the service");
    // A predecessor may take its drain timeout to end.
    let patience = match has_stopped {
        true => PATIENCE + Duration::from_secs(prepared.spec.drain_timeout),
        false => Duration::ZERO,
    };
    let started = start(manager, &plan, Instant::now() + patience).await;
    drop(progress);
    started?;
    report(manager, &prepared).await
}

/// Checks that no other pgiam has a port of the service.
async fn ports_are_free(manager: &Manager, prepared: &Prepared) -> anyhow::Result<()> {
    let service = match manager {
        Manager::Systemd { .. } => UnitState::of(SERVICE).await?.pid(),
        Manager::Launchd { uid, .. } => match state::agent(*uid).await {
            // It runs, but launchctl does not say as which process.
            Some(agent) if agent.pid.is_none() && agent.is_running() => return Ok(()),
            agent => agent.and_then(|agent| agent.pid),
        },
        Manager::Tasks { .. } => return Ok(()),
    };
    let dir = state_dir(prepared.args.state.state_dir.as_ref())?;
    let wanted = prepared.configured.valid_targets()?;
    let wanted = |port: u16| wanted.iter().any(|one| one.settings.local_port == port);
    for (found, status) in client::all(dir.as_deref()).await {
        let Ok(process) = status else { continue };
        let mut ports = process.targets.iter().map(|target| target.port);
        if service != Some(found.pid)
            && let Some(port) = ports.find(|port| wanted(*port))
        {
            let pid = found.pid;
            bail!(
                "port {port} is in use by another pgiam (process {pid})\nhint: stop it and try again:\n  pgiam stop --pid {pid}"
            );
        }
    }
    Ok(())
}

/// Returns true if the manager runs the service, or listens for it.
async fn is_active(manager: &Manager, prepared: &Prepared) -> bool {
    match manager {
        Manager::Systemd { .. } => {}
        Manager::Launchd { uid, .. } => {
            return state::agent(*uid)
                .await
                .is_some_and(|agent| agent.is_running());
        }
        Manager::Tasks { .. } => return false,
    }
    let unit = match prepared.spec.sockets {
        Some(_) => SOCKET,
        None => SERVICE,
    };
    let state = UnitState::of(unit).await;
    state.is_ok_and(|state| state.is_active())
}

/// Describes the installation.
fn description(
    manager: &Manager,
    prepared: &Prepared,
    plan: &InstallPlan,
    changed: &[PathBuf],
) -> String {
    let mut text = format!(
        "pgiam becomes a service of your account ({}).\n\n",
        manager.name()
    );
    // Writing to a String cannot fail.
    let mut line = |what: &str, value: &str| _ = writeln!(text, "  {what:<9}  {value}");
    line("program", &prepared.spec.program);
    if let Some(file) = &prepared.configured.file {
        line("settings", &short(file));
    }
    for (nth, (name, value)) in prepared.spec.environment.iter().enumerate() {
        let title = if nth == 0 { "variables" } else { "" };
        line(title, &format!("{name}={value}"));
    }
    for command in &plan.before {
        line("run", &tool::shown(command));
    }
    for path in changed {
        let what = match plan.obsolete.contains(path) {
            true => "remove",
            false => "write",
        };
        line(what, &short(path));
    }
    for command in &plan.after {
        line("run", &tool::shown(command));
    }
    for file in &plan.files {
        _ = writeln!(text, "\n{}", styled(HEADING, short(&file.path)));
        for line in file.text.lines() {
            _ = writeln!(text, "{}", styled(DIM, format!("  {line}").trim_end()));
        }
    }
    text.push('\n');
    for note in &prepared.notes {
        _ = writeln!(text, "note: {note}");
    }
    text
}

/// Writes and removes the files. Returns true if a service was stopped first, which may take longer
/// than its command.
async fn carry_out(plan: &InstallPlan) -> anyhow::Result<bool> {
    let mut has_stopped = false;
    for command in &plan.before {
        // There may be nothing to stop.
        let output = tool::run(command).await;
        has_stopped |=
            output.is_ok_and(|output| output.is_success || launchd::is_too_early(output.code));
    }
    for path in &plan.obsolete {
        remove(path)?;
    }
    for file in &plan.files {
        file.write()
            .with_context(|| format!("cannot write {}", shown(&file.path)))?;
    }
    Ok(has_stopped)
}

/// Enables and starts the service. With systemd the last command ends when pgiam is ready. launchd
/// refuses an agent until the last process of its predecessor has ended; its command is repeated
/// until `until`.
async fn start(manager: &Manager, plan: &InstallPlan, until: Instant) -> anyhow::Result<()> {
    for command in &plan.after {
        let mut output = tool::run(command).await?;
        while let Manager::Launchd { .. } = manager
            && launchd::is_too_early(output.code)
            && Instant::now() < until
        {
            sleep(AGAIN).await;
            output = tool::run(command).await?;
        }
        if output.is_success {
            continue;
        }
        let reason = state::last_error(manager).await;
        let reason = reason.unwrap_or_else(|| output.message());
        bail!(
            "the service is installed, but does not start\n{reason}\nhint: look at its log, and start it again:\n  pgiam service logs\n  {}",
            tool::shown(command)
        );
    }
    Ok(())
}

/// Reports the running service.
async fn report(manager: &Manager, prepared: &Prepared) -> anyhow::Result<u8> {
    let host = client_host(&prepared.configured.serve.addresses);
    if let Some(sockets) = &prepared.spec.sockets {
        let mut text =
            String::from("Installed. The first client of one of these sockets starts pgiam:\n");
        let runtime = platform::socket::runtime_dir().unwrap_or_default();
        for socket in sockets {
            let socket = match socket.strip_prefix("%t/") {
                Some(rest) => runtime.join(rest).display().to_string(),
                None => socket.clone(),
            };
            _ = writeln!(text, "  {socket}");
        }
        terminal::write(text)?;
        linger().await?;
        return Ok(0);
    }
    let code = match process(manager, prepared).await? {
        Some(process) => {
            terminal::write(format!(
                "Installed and running (process {}).\n\n{}",
                process.pid,
                up::shown(&process, &host)
            ))?;
            up::code(&process)
        }
        None => {
            terminal::write("Installed and started.\n")?;
            0
        }
    };
    linger().await?;
    Ok(code)
}

/// Waits for the status of the service's process.
async fn process(
    manager: &Manager,
    prepared: &Prepared,
) -> anyhow::Result<Option<ProcessDocument>> {
    let dir = state_dir(prepared.args.state.state_dir.as_ref())?;
    let until = Instant::now() + PATIENCE;
    let _progress = Progress::start("waiting for the service");
    loop {
        let pid = match manager {
            Manager::Systemd { .. } => UnitState::of(SERVICE).await?.pid(),
            Manager::Launchd { uid, .. } => state::agent(*uid).await.and_then(|agent| agent.pid),
            Manager::Tasks { .. } => None,
        };
        let all = client::all(dir.as_deref()).await.into_iter();
        let mut processes = all.filter_map(|(_, status)| status.ok());
        let own = |process: &ProcessDocument| {
            let is_own = match pid {
                Some(pid) => process.pid == pid,
                None => process.kind == "serve" && process.config == prepared.configured.file,
            };
            is_own && process.state == "serving"
        };
        if let Some(process) = processes.find(own) {
            return Ok(Some(process));
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        sleep(LOOK).await;
    }
}

/// Tells that systemd ends the service at logout, if it does.
async fn linger() -> anyhow::Result<()> {
    let Some(user) = platform::os_user() else {
        return Ok(());
    };
    let mut show = service_manager::words("loginctl show-user --property=Linger --value");
    show.push(user);
    let output = tool::run(&show).await;
    if output.is_ok_and(|output| output.stdout.trim() == "no") {
        terminal::tell(
            "note: the service ends when you log out; to keep it running:\n  loginctl enable-linger",
        )?;
    }
    Ok(())
}

/// Stops the service and removes its files.
///
/// # Errors
/// A file that is not pgiam's, or a failed step.
pub(super) async fn uninstall(
    manager: &Manager,
    args: &ServiceUninstallArgs,
) -> anyhow::Result<u8> {
    let mut files = Vec::new();
    for path in manager.files() {
        match origin_of(&path)?.0 {
            FileOrigin::Missing => {}
            FileOrigin::Ours => files.push(path),
            origin => return Err(not_ours(manager, &path, origin)),
        }
    }
    if files.is_empty() {
        terminal::tell("pgiam: the service is not installed")?;
        return Ok(exit::NOT_RUNNING);
    }
    let stopping = manager.stopping(&files);
    if !args.confirm.yes {
        let mut text = String::from("The service is stopped and removed:\n\n");
        let mut line = |what: &str, value: String| _ = writeln!(text, "  {what:<9}  {value}");
        stopping
            .iter()
            .for_each(|command| line("run", tool::shown(command)));
        files.iter().for_each(|path| line("remove", short(path)));
        for command in manager.after_removal() {
            line("run", tool::shown(&command));
        }
        text.push('\n');
        terminal::write(text)?;
    }
    match consent(args.confirm, "Remove it?").await? {
        Consent::Given => {}
        Consent::Refused => return Ok(0),
        Consent::Unknown => {
            terminal::tell(NO_TERMINAL)?;
            return Ok(exit::USAGE);
        }
    }
    let progress = Progress::start("stopping the service");
    for command in &stopping {
        // Without a manager nothing runs, and the files can still be removed.
        let output = tool::run(command).await;
        if let Ok(output) = output
            && !output.is_success
        {
            terminal::tell(format!(
                "note: {}: {}",
                tool::shown(command),
                output.message()
            ))?;
        }
    }
    drop(progress);
    for path in &files {
        remove(path)?;
        terminal::write(format!("removed {}\n", short(path)))?;
    }
    for command in manager.after_removal() {
        _ = tool::run(&command).await;
    }
    Ok(0)
}
