//! Reloads the configuration file when it changes, or on SIGHUP, without dropping connections.

use crate::commands::resolve_target;
use crate::postgres::prepare_all;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::connection_string::client_host;
use super::serve::{log_ignored_target, ready_line};
use super::start_errors::WaitEffect;
use crate::admin::TargetStop;
use crate::cli::ServeArgs;
use crate::config::{
    ConfigError, ConfigFile, MAX_FILE_BYTES, ServeSettings, TargetConfig, fingerprint,
};
use crate::platform::permissions::{self, FileRole};
use crate::platform::{self, HangUp, service};
use crate::postgres::PgServer;
use crate::postgres::shared::Proxy;
use crate::postgres::target::PgTarget;
use crate::targets::served_target::AwsContexts;

/// Interval of the checks of the file. Editors replace files, and directories may be on the network
/// or shared with a container, so only reading works everywhere. A change counts after two equal
/// readings, so it is loaded within two seconds even on a busy machine.
const LOOK: Duration = Duration::from_millis(500);

/// The configuration at a moment.
pub(super) struct LoadedConfiguration {
    pub(super) serve: ServeSettings,
    /// The file that was read; `None` without a file, with only flags.
    pub(super) file: Option<PathBuf>,
    /// The file is in a parent directory.
    is_above: bool,
    /// Contents as loaded. The file may change right after it is read.
    loaded: Option<FileReading>,
    configs: Vec<Result<TargetConfig, ConfigError>>,
}

impl LoadedConfiguration {
    /// Loads the configuration from file, variables and flags.
    ///
    /// # Errors
    /// Errors that affect all targets.
    pub(super) fn load(args: &ServeArgs) -> Result<Self, ConfigError> {
        let file = ConfigFile::load(args.program.config.as_deref())?;
        if let Some(reason) = &file.ignored {
            warn!(reason, "ignored a configuration file in a parent directory");
        }
        if let (Some(path), true) = (&file.path, file.is_above) {
            info!(file = %path.display(), "using the configuration file of a parent directory");
        }
        Self::of(file, args)
    }

    /// Loads the configuration again. A file that was chosen at the start stays the same one.
    fn load_again(&self, args: &ServeArgs) -> Result<Self, ConfigError> {
        match &self.file {
            Some(path) => Self::of(ConfigFile::reload(path, self.is_above)?, args),
            None => Self::load(args),
        }
    }

    fn of(file: ConfigFile, args: &ServeArgs) -> Result<Self, ConfigError> {
        let serve = ServeSettings::from_layer(args.serve_layer().or(file.serve.clone()))?;
        let (path, is_above) = (file.path.clone(), file.is_above);
        let loaded = FileReading::Contents(file.fingerprint.clone());
        let configs = file.targets(&args.targets, &args.layer())?;
        Ok(Self {
            serve,
            loaded: path.is_some().then_some(loaded),
            file: path,
            is_above,
            configs,
        })
    }

    /// Returns the targets with a valid configuration.
    ///
    /// # Errors
    /// The first error, if no target is valid.
    pub(super) fn valid_targets(&self) -> Result<Vec<&TargetConfig>, ConfigError> {
        let valid: Vec<_> = self.configs.iter().flatten().collect();
        match self.configs.iter().find_map(|config| config.as_ref().err()) {
            Some(error) if valid.is_empty() => Err(error.clone()),
            _ => Ok(valid),
        }
    }

    /// Returns the targets to serve, and the errors of the others. An unchanged target of
    /// `before` is kept, with its tunnel and state; `None`: the program has just started.
    pub(super) async fn targets(
        &self,
        aws_contexts: &Arc<AwsContexts>,
        before: Option<&[Arc<PgTarget>]>,
    ) -> (Vec<Arc<PgTarget>>, Vec<anyhow::Error>) {
        let (mut targets, mut failed) = (Vec::new(), Vec::new());
        for config in &self.configs {
            let config = match config {
                Ok(config) => config,
                Err(error) => {
                    failed.push(error.clone().into());
                    continue;
                }
            };
            if let Some(same) = before
                .unwrap_or_default()
                .iter()
                .find(|served| served.config == *config)
            {
                targets.push(Arc::clone(same));
                continue;
            }
            let lazy =
                || PgTarget::new(config.clone(), Arc::clone(aws_contexts)).map_err(Into::into);
            // A reload shows no prompts.
            let made = match before {
                None => resolve_target::served_target(config.clone(), aws_contexts).await,
                Some(_) => lazy(),
            };
            let made = match made {
                // The lookup is repeated in the background, and by the next connection.
                Err(error)
                    if self.configs.len() > 1 || WaitEffect::of(&error) == WaitEffect::Passing =>
                {
                    lazy()
                }
                made => made,
            };
            match made {
                Ok(served) => targets.push(Arc::new(served)),
                Err(error) => failed.push(error),
            }
        }
        (targets, failed)
    }
}

/// Result of reading the file. Contents count: time stamps and lengths do not change in stores that
/// set them to a constant, and within one tick of the file system's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
enum FileReading {
    Contents(Vec<u8>),
    /// It cannot be read, for this reason.
    Unreadable(String),
}

impl FileReading {
    /// Reads the file. `None`: it does not exist, because it is being replaced or was deleted.
    fn of(path: &Path) -> Option<Self> {
        match permissions::read(FileRole::ConfigFile, path, MAX_FILE_BYTES) {
            Ok(bytes) => Some(Self::Contents(fingerprint(&bytes))),
            Err(error) if error.io() == Some(ErrorKind::NotFound) => None,
            Err(error) => Some(Self::Unreadable(error.to_string())),
        }
    }

    /// Reads the file on a blocking thread: it may be on the network. Cancel-safe.
    async fn look(path: &Path) -> Option<Self> {
        let path = path.to_owned();
        let look = tokio::task::spawn_blocking(move || Self::of(&path));
        look.await.ok().flatten()
    }
}

/// Decides from successive readings when to load a change.
#[derive(Debug)]
struct ChangeDetector {
    /// The file as loaded.
    seen: Option<FileReading>,
    /// The file at the last reading.
    last: Option<FileReading>,
}

impl ChangeDetector {
    fn new(seen: Option<FileReading>) -> Self {
        Self {
            last: seen.clone(),
            seen,
        }
    }

    /// Returns true if the file differs from the loaded one and equals the previous reading: a
    /// program that writes it in place may not have finished.
    fn has_changed(&mut self, now: Option<FileReading>) -> bool {
        let Some(now) = now else { return false };
        let is_settled = self.last.as_ref() == Some(&now);
        let has_changed = self.seen.as_ref() != Some(&now);
        self.last = Some(now);
        has_changed && is_settled
    }
}

/// Waits for changes and applies them.
pub(super) struct ReloadTriggers<'a> {
    args: &'a ServeArgs,
    configured: LoadedConfiguration,
    aws_contexts: Arc<AwsContexts>,
    asked: ReloadSources,
    watch: ChangeDetector,
}

/// Sources of a reload other than the file.
pub(super) struct ReloadSources {
    pub(super) hang_up: HangUp,
    /// Ends the program: the meaning of a SIGHUP when its terminal is gone.
    pub(super) stop: CancellationToken,
    /// The program was started at a terminal.
    pub(super) at_terminal: bool,
    /// Requests of the control socket to reload.
    pub(super) control: mpsc::Receiver<()>,
    /// Requests of the control socket to stop a target.
    pub(super) stops: mpsc::Receiver<TargetStop>,
}

/// A change of the served targets.
pub(super) enum TargetChange {
    /// Load the configuration.
    Reload,
    /// Stop this target.
    Stop(TargetStop),
}

impl<'a> ReloadTriggers<'a> {
    pub(super) fn watch(
        args: &'a ServeArgs,
        configured: LoadedConfiguration,
        aws_contexts: Arc<AwsContexts>,
        asked: ReloadSources,
    ) -> Self {
        let loaded = configured.loaded.clone();
        Self {
            args,
            configured,
            aws_contexts,
            asked,
            watch: ChangeDetector::new(loaded),
        }
    }

    /// Waits for SIGHUP, a change of the file, or a request. Cancel-safe.
    pub(super) async fn next(&mut self) -> TargetChange {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(()) = self.asked.control.recv() => {
                    info!("reloading the configuration on request");
                    return TargetChange::Reload;
                }
                Some(target) = self.asked.stops.recv() => return TargetChange::Stop(target),
                () = self.asked.hang_up.next() => {
                    if platform::terminal_is_gone(self.asked.at_terminal) {
                        info!("the terminal has closed; stopping");
                        self.asked.stop.cancel();
                        std::future::pending::<()>().await;
                    }
                    info!("reloading the configuration after SIGHUP");
                    return TargetChange::Reload;
                }
                _ = look.tick() => {
                    let Some(file) = &self.configured.file else { continue };
                    let now = FileReading::look(file).await;
                    if self.watch.has_changed(now) {
                        info!(file = %file.display(), "the configuration has changed; reloading it");
                        return TargetChange::Reload;
                    }
                }
            }
        }
    }

    /// Applies a change. An invalid configuration is ignored.
    pub(super) async fn take_over(
        &mut self,
        change: TargetChange,
        server: &mut PgServer,
        proxy: &Arc<Proxy>,
    ) {
        if let TargetChange::Stop(TargetStop { name, now }) = change {
            let grace = Duration::from_secs(self.args.drain.drain_timeout);
            if server.stop_target(&name, (!now).then_some(grace)) {
                let name = name.as_str();
                info!(name, "stopped a target on request, until the next reload");
                service::status(&serving(server));
            }
            return;
        }
        service::reloading();
        // Whatever triggered the reload, the same contents are not loaded twice.
        self.watch = ChangeDetector::new(self.configured.file.as_deref().and_then(FileReading::of));
        self.serve_anew(server, proxy).await;
        service::ready(&serving(server));
    }

    async fn serve_anew(&mut self, server: &mut PgServer, proxy: &Arc<Proxy>) {
        let unused = |reason: String| {
            error!(
                reason,
                "cannot reload the configuration; keeping the running configuration"
            );
            proxy.serving.observed.change_unused(reason);
        };
        let configured = match self.configured.load_again(self.args) {
            Ok(configured) => configured,
            Err(failed) => return unused(failed.to_string()),
        };
        let before = server.served().targets();
        let (targets, failed) = configured.targets(&self.aws_contexts, Some(&before)).await;
        let mut left_out: Vec<String> = failed.iter().map(log_ignored_target).collect();
        if targets.is_empty() {
            return unused(format!("no valid target: {}", left_out.join("; ")));
        }
        match server.reload(&targets).await {
            Ok(failed) => left_out.extend(
                failed
                    .into_iter()
                    .map(|error| log_ignored_target(&error.into())),
            ),
            Err(failed) => return unused(failed.to_string()),
        }
        proxy.serving.observed.leave_out(left_out);
        if configured.serve != self.configured.serve {
            warn!("[serve] has changed; restart pgiam to apply it");
        }
        self.watch = ChangeDetector::new(configured.loaded.clone());
        self.configured = configured;
        let kept = targets
            .iter()
            .filter(|served| is_in(&before, served))
            .count();
        info!(targets = targets.len(), kept, "reloaded the configuration");
        let fresh: Vec<_> = targets
            .into_iter()
            .filter(|served| !is_in(&before, served))
            .collect();
        // AWS may be slow; a signal must not wait.
        let (served, proxy) = (server.served(), Arc::clone(proxy));
        let host = client_host(server.addresses());
        tokio::spawn(async move {
            prepare_all(&fresh, &proxy).await;
            for row in served.rows() {
                if is_in(&fresh, &row.served) {
                    info!("{}", ready_line(&row, &host));
                }
            }
        });
    }
}

/// Returns the status text for the service manager.
pub(super) fn serving(server: &PgServer) -> String {
    let targets = server.served().targets();
    let all = match targets.len() {
        1 => "serving 1 target".to_owned(),
        count => format!("serving {count} targets"),
    };
    let mut not_ready = targets.iter().filter(|served| served.not_ready().is_some());
    match (not_ready.next(), not_ready.count()) {
        (None, _) => all,
        (Some(one), 0) => {
            let reason = one.not_ready().map(|reason| reason.to_string());
            format!(
                "{all}; {} is not ready: {}",
                one.config.name,
                reason.unwrap_or_default()
            )
        }
        (Some(_), more) => format!("{all}; {} are not ready", more + 1),
    }
}

fn is_in(targets: &[Arc<PgTarget>], served: &Arc<PgTarget>) -> bool {
    targets.iter().any(|other| Arc::ptr_eq(other, served))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    /// Performs two readings in sequence.
    fn changed(watch: &mut ChangeDetector, path: &Path) -> bool {
        let first = watch.has_changed(FileReading::of(path));
        first || watch.has_changed(FileReading::of(path))
    }

    fn loaded(path: &Path) -> ChangeDetector {
        ChangeDetector::new(FileReading::of(path))
    }

    #[test]
    fn contents_count_and_not_time_or_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pgiam.toml");
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let write = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(long_ago).unwrap();
        };
        write("port = 5433");
        let mut watch = loaded(&path);
        assert!(!changed(&mut watch, &path));
        // The same file, of the same length, with the same time.
        write("port = 5434");
        assert!(changed(&mut watch, &path));
        let mut watch = loaded(&path);
        // Rewritten without a change.
        std::fs::write(&path, "port = 5434").unwrap();
        assert!(!changed(&mut watch, &path));
    }

    #[cfg(unix)]
    #[test]
    fn links_that_change_are_followed() {
        use std::os::unix::fs::symlink;
        // As Kubernetes lays out a ConfigMap.
        let dir = tempfile::tempdir().unwrap();
        for (version, text) in [("..1", "a"), ("..2", "b")] {
            std::fs::create_dir(dir.path().join(version)).unwrap();
            std::fs::write(dir.path().join(version).join("pgiam.toml"), text).unwrap();
        }
        symlink("..1", dir.path().join("..data")).unwrap();
        let path = dir.path().join("pgiam.toml");
        symlink("..data/pgiam.toml", &path).unwrap();
        let mut watch = loaded(&path);
        let swapped = dir.path().join("..data_tmp");
        symlink("..2", &swapped).unwrap();
        std::fs::rename(&swapped, dir.path().join("..data")).unwrap();
        std::fs::remove_dir_all(dir.path().join("..1")).unwrap();
        assert!(changed(&mut watch, &path));
    }

    #[test]
    fn a_file_that_is_being_written_or_replaced_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pgiam.toml");
        std::fs::write(&path, "one").unwrap();
        let mut watch = loaded(&path);
        std::fs::write(&path, "tw").unwrap();
        assert!(!watch.has_changed(FileReading::of(&path)));
        std::fs::write(&path, "two").unwrap();
        assert!(!watch.has_changed(FileReading::of(&path)));
        assert!(watch.has_changed(FileReading::of(&path)));
        let mut watch = loaded(&path);
        std::fs::remove_file(&path).unwrap();
        assert!(!changed(&mut watch, &path), "it is being replaced");
        std::fs::write(&path, "two").unwrap();
        assert!(!changed(&mut watch, &path), "the same has come back");
        // A file that becomes unreadable is a change, once.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(changed(&mut watch, &path));
        let mut watch = loaded(&path);
        assert!(!changed(&mut watch, &path));
    }
}
