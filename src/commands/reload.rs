//! A changed configuration file, and SIGHUP: taken over without dropping a connection.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::choose;
use super::serve::{ready_line, say_left_out};
use crate::cli::ServeArgs;
use crate::config::{ConfigError, File, Plan, Serve};
use crate::platform::{self, HangUp, service};
use crate::server::Server;
use crate::session::{self, Contexts, Proxy, Slot};

/// How often the file is looked at. Editors replace files, and folders may be on the network or
/// shared with a container, so that looking is what works everywhere.
const LOOK: Duration = Duration::from_secs(1);

/// What is configured at a moment.
pub(super) struct Configured {
    pub(super) serve: Serve,
    /// The file that was read; `None`: flags are all there is.
    pub(super) file: Option<PathBuf>,
    plans: Vec<Result<Plan, ConfigError>>,
}

impl Configured {
    /// What file, variables and flags say.
    ///
    /// # Errors
    /// What concerns the whole of it.
    pub(super) fn load(args: &ServeArgs) -> Result<Self, ConfigError> {
        let (file, looked_at) = File::load(args.program.config.as_deref())?;
        let serve = Serve::from_layer(args.serve_layer().over(file.serve.clone()))?;
        let path = file.path.clone();
        let plans = file.plans(&args.targets, &args.layer(), &looked_at)?;
        Ok(Self {
            serve,
            file: path,
            plans,
        })
    }

    /// What is to be served, and why some of it cannot be. What has not changed is taken from
    /// `before`, with its tunnel and all that is known of it; `None`: the program has just begun.
    pub(super) async fn slots(
        &self,
        contexts: &Arc<Contexts>,
        before: Option<&[Arc<Slot>]>,
    ) -> (Vec<Arc<Slot>>, Vec<anyhow::Error>) {
        let (mut slots, mut failed) = (Vec::new(), Vec::new());
        for plan in &self.plans {
            let plan = match plan {
                Ok(plan) => plan,
                Err(error) => {
                    failed.push(error.clone().into());
                    continue;
                }
            };
            if let Some(same) = before
                .unwrap_or_default()
                .iter()
                .find(|slot| slot.plan == *plan)
            {
                slots.push(Arc::clone(same));
                continue;
            }
            let lazy = || Slot::new(plan.clone(), Arc::clone(contexts)).map_err(Into::into);
            // Nobody is asked anything by a file that changes.
            let made = match before {
                None => choose::slot(plan.clone(), contexts).await,
                Some(_) => lazy(),
            };
            let made = match made {
                // With others beside it, it is looked for again, as soon as somebody wants it.
                Err(_) if self.plans.len() > 1 => lazy(),
                made => made,
            };
            match made {
                Ok(slot) => slots.push(Arc::new(slot)),
                Err(error) => failed.push(error),
            }
        }
        (slots, failed)
    }
}

/// Tells a file from a changed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        Some(Self {
            modified: found.modified().ok(),
            length: found.len(),
        })
    }
}

/// Waits for changes, and takes them over.
pub(super) struct Changes<'a> {
    args: &'a ServeArgs,
    configured: Configured,
    contexts: Arc<Contexts>,
    asked: Asked,
    /// The file as it was taken over.
    seen: Option<Stamp>,
    /// The file as it was at the last look, if that is another one.
    changing: Option<Stamp>,
}

/// Who may ask for it besides the file.
pub(super) struct Asked {
    pub(super) hang_up: HangUp,
    /// Ends the program: what a SIGHUP means when its terminal is gone.
    pub(super) stop: CancellationToken,
    /// It was started at a terminal.
    pub(super) at_terminal: bool,
    /// The control socket.
    pub(super) control: mpsc::Receiver<()>,
}

impl<'a> Changes<'a> {
    pub(super) fn watch(
        args: &'a ServeArgs,
        configured: Configured,
        contexts: Arc<Contexts>,
        asked: Asked,
    ) -> Self {
        let seen = configured.file.as_deref().and_then(Stamp::of);
        Self {
            args,
            configured,
            contexts,
            asked,
            seen,
            changing: None,
        }
    }

    /// Waits for SIGHUP, or for a file that is not as it was. Cancel-safe.
    pub(super) async fn next(&mut self) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(()) = self.asked.control.recv() => {
                    info!("asked to read the configuration anew");
                    return;
                }
                () = self.asked.hang_up.next() => {
                    if platform::terminal_is_gone(self.asked.at_terminal) {
                        info!("the terminal is gone");
                        self.asked.stop.cancel();
                        std::future::pending::<()>().await;
                    }
                    info!("SIGHUP: reading the configuration anew");
                    return;
                }
                _ = look.tick() => {
                    let Some(file) = &self.configured.file else { continue };
                    // A file that is gone is being replaced, or is not wanted any more; either way
                    // there is nothing to take over.
                    let Some(now) = Stamp::of(file) else { continue };
                    // Who writes it in place may not have come to its end.
                    let changed = self.seen != Some(now);
                    let settled = self.changing.replace(now) == Some(now);
                    if changed && settled {
                        info!(file = %file.display(), "the configuration has changed");
                        return;
                    }
                }
            }
        }
    }

    /// Serves what is configured now. A configuration that cannot be meant changes nothing.
    pub(super) async fn take_over(&mut self, server: &mut Server, proxy: &Arc<Proxy>) {
        service::reloading();
        // Whoever asked for it: what the file says now is not to be taken over a second time.
        self.seen = self.configured.file.as_deref().and_then(Stamp::of);
        self.serve_anew(server, proxy).await;
        service::ready(&serving(server));
    }

    async fn serve_anew(&mut self, server: &mut Server, proxy: &Arc<Proxy>) {
        let unused = |reason: String| {
            error!(reason, "the configuration stays as it was");
            proxy.observed.change_unused(reason);
        };
        let configured = match Configured::load(self.args) {
            Ok(configured) => configured,
            Err(failed) => return unused(failed.to_string()),
        };
        let before = server.served().slots();
        let (slots, failed) = configured.slots(&self.contexts, Some(&before)).await;
        let mut left_out: Vec<String> = failed.iter().map(say_left_out).collect();
        if slots.is_empty() {
            return unused(format!("no target is left: {}", left_out.join("; ")));
        }
        match server.reload(&slots).await {
            Ok(failed) => {
                left_out.extend(failed.into_iter().map(|error| say_left_out(&error.into())))
            }
            Err(failed) => return unused(failed.to_string()),
        }
        proxy.observed.leave_out(left_out);
        if configured.serve != self.configured.serve {
            warn!("[serve] has changed; that is taken over when pgiam is started anew");
        }
        self.configured = configured;
        let kept = slots.iter().filter(|slot| is_in(&before, slot)).count();
        info!(targets = slots.len(), kept, "configuration taken over");
        let fresh: Vec<_> = slots
            .into_iter()
            .filter(|slot| !is_in(&before, slot))
            .collect();
        // AWS may take its time; a signal must not.
        let (served, proxy) = (server.served(), Arc::clone(proxy));
        tokio::spawn(async move {
            session::look_up_all(&fresh, &proxy).await;
            for row in served.rows() {
                if is_in(&fresh, &row.slot) {
                    info!("{}", ready_line(&row));
                }
            }
        });
    }
}

/// What a service manager shows.
pub(super) fn serving(server: &Server) -> String {
    match server.served().slots().len() {
        1 => "serving 1 target".to_owned(),
        count => format!("serving {count} targets"),
    }
}

fn is_in(slots: &[Arc<Slot>], slot: &Arc<Slot>) -> bool {
    slots.iter().any(|other| Arc::ptr_eq(other, slot))
}
