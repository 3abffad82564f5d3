//! `pgiam status --watch`: a screen at a terminal, else the status again and again.

mod columns;
mod details;
mod draw;
mod header;
mod keys;
mod lines;
mod model;
mod reader;
mod rows;
mod screen;
mod theme;
mod window;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use ratatui::crossterm::event::Event;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::none_answers;
use crate::admin::client;
use crate::cli::exit;
use crate::cli::terminal;
use crate::platform::StopSignals;
use crate::platform::job_control::{self, SuspendSignal, SuspendSignals};
use crate::platform::socket::control;
use crate::report::error_entry;
use keys::Action;
use model::{Model, Request};
use reader::StatusReader;
use screen::{Keys, Screen};

/// Refresh interval.
const EVERY: Duration = Duration::from_secs(1);
/// Width at which paragraphs are one line; the window wraps them.
const UNWRAPPED: usize = 10_000;
/// Time after a request until its effect is read.
const EFFECT: Duration = Duration::from_millis(250);
/// Time within which a stop signal takes effect on all threads.
const STOPPING: Duration = Duration::from_millis(50);

/// Shows the status until the user ends it, or in a pipe until no process is left.
pub(super) async fn watch(state_dir: Option<&Path>, json: bool) -> anyhow::Result<u8> {
    if json || !screen::is_usable() {
        return lines::watch(state_dir, json).await;
    }
    let (mut model, mut reader) = (Model::default(), StatusReader::default());
    begin(&mut reader, state_dir);
    if let Err(failed) = reader.first().await {
        terminal::tell(none_answers(&failed))?;
        return Ok(exit::NOT_RUNNING);
    }
    let (processes, _) = reader.known();
    model.read(processes, Vec::new());
    let Ok(screen) = Screen::open() else {
        // No keys can be read, as in a pipe.
        return lines::watch(state_dir, json).await;
    };
    let mut watch = Watch {
        state_dir: state_dir.map(Path::to_owned),
        model,
        reader,
        screen,
        keys: Keys::default(),
        signals: StopSignals::install().context("cannot listen for signals")?,
        suspends: SuspendSignals::install().context("cannot listen for signals")?,
        sending: None,
        soon: None,
    };
    watch.run().await?;
    watch.keys.pause().await;
    let Watch {
        mut model, screen, ..
    } = watch;
    screen
        .close(&mut model)
        .context("cannot write to standard output")?;
    Ok(match model.processes.is_empty() {
        true => exit::NOT_RUNNING,
        false => 0,
    })
}

fn begin(reader: &mut StatusReader, state_dir: Option<&Path>) {
    let found = control::all(state_dir);
    reader.begin(found, async |socket| client::status(&socket).await);
}

/// Returns what `docs/errors.md` says about an error.
fn explanation(id: &str) -> Option<Vec<String>> {
    let text = error_entry(id)?.plain(UNWRAPPED);
    Some(text.lines().map(str::to_owned).collect())
}

/// The running screen.
struct Watch {
    state_dir: Option<PathBuf>,
    model: Model,
    reader: StatusReader,
    screen: Screen,
    keys: Keys,
    signals: StopSignals,
    suspends: SuspendSignals,
    /// The request in progress, with its result as a message.
    sending: Option<JoinHandle<String>>,
    /// Time of a reading before the next regular one.
    soon: Option<Instant>,
}

impl Watch {
    /// Draws, and reacts to keys, signals and readings, until the user ends it.
    async fn run(&mut self) -> anyhow::Result<()> {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.screen
                .draw(&mut self.model)
                .context("cannot write to the terminal")?;
            let (soon, is_reading) = (self.soon, self.reader.is_reading());
            tokio::select! {
                event = self.keys.next() => {
                    // A closed terminal has no more keys.
                    let Ok(event) = event else { return Ok(()) };
                    if !self.handle(event).await? {
                        return Ok(());
                    }
                }
                _ = ticks.tick(), if !is_reading => self.read(),
                () = at(soon), if !is_reading => {
                    self.soon = None;
                    self.read();
                }
                (processes, silent) = self.reader.end() => self.model.read(processes, silent),
                message = sent(&mut self.sending) => {
                    self.sending = None;
                    self.model.message = message;
                    self.soon = Some(Instant::now() + EFFECT);
                }
                _ = self.signals.next() => return Ok(()),
                signal = self.suspends.next() => match signal {
                    SuspendSignal::Suspend => self.suspend(false).await?,
                    // It was stopped by SIGSTOP, and the shell has used the terminal.
                    SuspendSignal::Resumed => self.screen.enter().context(TERMINAL)?,
                },
            }
        }
    }

    fn read(&mut self) {
        begin(&mut self.reader, self.state_dir.as_deref());
    }

    /// Handles a key or a change of size. Returns false to end the screen.
    async fn handle(&mut self, event: Event) -> anyhow::Result<bool> {
        // Only the next drawing has to know a new size.
        let Event::Key(key) = event else {
            return Ok(true);
        };
        match keys::press(&mut self.model, key) {
            Action::None => {}
            Action::Quit => return Ok(false),
            Action::Redraw => self.screen.clear().context(TERMINAL)?,
            Action::Suspend => self.suspend(true).await?,
            Action::Run(words) => return self.give_way(&words).await,
            Action::Send(_) if self.sending.is_some() => {
                self.model.message = Some("the last request is not finished".to_owned());
            }
            Action::Send(request) => self.sending = Some(self.send(request)),
        }
        Ok(true)
    }

    /// Suspends pgiam, with the terminal restored meanwhile.
    async fn suspend(&mut self, whole_job: bool) -> anyhow::Result<()> {
        self.keys.pause().await;
        self.screen.leave();
        if job_control::suspend(whole_job) {
            sleep(STOPPING).await;
        } else {
            self.model.message = Some("no shell could resume pgiam".to_owned());
        }
        self.screen.enter().context(TERMINAL)
    }

    /// Sends a request in the background; returns the message about its result.
    fn send(&self, request: Request) -> JoinHandle<String> {
        let state_dir = self.state_dir.clone();
        tokio::spawn(async move {
            let pid = match &request {
                Request::StopTarget(target) | Request::CloseConnections(target) => target.pid,
                Request::Reload(pid) => *pid,
            };
            let all = control::all(state_dir.as_deref());
            let Some(socket) = all.into_iter().find(|found| found.pid == pid) else {
                return format!("process {pid} has ended");
            };
            let (sent, done) = match &request {
                Request::StopTarget(target) => (
                    client::stop_target(&socket, &target.name, false).await,
                    format!("stopping {}", target.name),
                ),
                Request::CloseConnections(target) => (
                    client::stop_target(&socket, &target.name, true).await,
                    format!("closing the connections of {}", target.name),
                ),
                Request::Reload(_) => (
                    client::reload(&socket).await,
                    "reloading the configuration".to_owned(),
                ),
            };
            match sent {
                Ok(()) => done,
                Err(error) => format!("process {pid}: {error}"),
            }
        })
    }

    /// Runs pgiam with these arguments in place of the screen, and waits for a key. Returns false
    /// to end the screen.
    async fn give_way(&mut self, words: &[String]) -> anyhow::Result<bool> {
        self.keys.pause().await;
        self.screen.leave();
        let shown: Vec<String> = words
            .iter()
            .map(|word| crate::base::quote::shell(word))
            .collect();
        terminal::write(format!("$ pgiam {}\n", shown.join(" ")))?;
        let ended = self.child(words).await;
        let text = match ended {
            Ok(true) => return Ok(false),
            Ok(false) => String::new(),
            Err(error) => format!("cannot run pgiam: {error}\n"),
        };
        terminal::write(format!("{text}\nPress any key to return to the screen."))?;
        ratatui::crossterm::terminal::enable_raw_mode().context(TERMINAL)?;
        let goes_on = self.any_key().await;
        _ = ratatui::crossterm::terminal::disable_raw_mode();
        terminal::write("\n")?;
        self.screen.enter().context(TERMINAL)?;
        Ok(goes_on)
    }

    /// Runs pgiam to its end. Returns true if a signal ends the screen meanwhile.
    async fn child(&mut self, words: &[String]) -> std::io::Result<bool> {
        let mut command = tokio::process::Command::new(std::env::current_exe()?);
        if let Some(dir) = &self.state_dir {
            command.env("PGIAM_STATE_DIR", dir);
        }
        command
            .args(words)
            .stdin(Stdio::inherit())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        loop {
            tokio::select! {
                ended = child.wait() => return ended.map(|_| false),
                signal = self.signals.next() => {
                    // Ctrl-C is for the command.
                    if signal != "SIGINT" {
                        return Ok(true);
                    }
                }
                signal = self.suspends.next() => {
                    if signal == SuspendSignal::Suspend {
                        job_control::suspend(false);
                    }
                }
            }
        }
    }

    /// Waits for a key. Returns false to end the screen.
    async fn any_key(&mut self) -> bool {
        loop {
            tokio::select! {
                event = self.keys.next() => match event {
                    Ok(Event::Key(key)) if key.is_press() => return true,
                    Ok(_) => {}
                    Err(_) => return false,
                },
                _ = self.signals.next() => return false,
                signal = self.suspends.next() => {
                    if signal == SuspendSignal::Resumed {
                        // The shell has left raw mode.
                        _ = ratatui::crossterm::terminal::disable_raw_mode();
                        _ = ratatui::crossterm::terminal::enable_raw_mode();
                    }
                }
            }
        }
    }
}

const TERMINAL: &str = "cannot use the terminal";

/// Resolves at this time; never without one.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Resolves to the message about a request that is finished. Cancel-safe.
async fn sent(sending: &mut Option<JoinHandle<String>>) -> Option<String> {
    match sending {
        Some(sending) => sending.await.ok(),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
