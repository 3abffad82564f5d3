//! `pgiam check`: tests every requirement of a connection, in order.

use anyhow::Context;

use super::chosen;
use super::login::on_demand;
use super::serve::state_dir;
use crate::base::foreign_text::visible_json;
use crate::check::{self, CheckError, CheckEvent, CheckRun};
use crate::cli::CheckArgs;
use crate::cli::exit;
use crate::cli::terminal;
use crate::cli::terminal::Progress;
use crate::platform::StopSignals;

/// Checks one target; returns 0 when nothing has failed, else 1.
///
/// # Errors
/// Invalid configuration, or a signal.
pub async fn check(args: &CheckArgs) -> anyhow::Result<u8> {
    let config = chosen::config(
        args.target.name.as_deref(),
        &args.target.database,
        &args.program,
        &args.state,
    )
    .await?;
    let mut signals = StopSignals::install().context("cannot listen for signals")?;
    if !args.output.json {
        tokio::select! {
            offered = on_demand::offer_for_target(&config) => offered?,
            signal = signals.next() => anyhow::bail!("stopped by {signal}"),
        }
    }
    let mut check = CheckRun::new(
        config,
        !args.no_speed,
        state_dir(args.state.state_dir.as_ref())?,
    )?;
    let mut shown = ProgressOutput {
        json: args.output.json,
        width: terminal::text_width(),
        progress: None,
        trouble: None,
    };
    if !shown.json {
        let head = check::head(check.config(), shown.width);
        terminal::write(head).context("cannot write to standard output")?;
    }
    let checked = {
        let mut tell = |event: CheckEvent<'_>| shown.event(event);
        tokio::select! {
            checked = check.run(&mut tell) => Ok(checked),
            signal = signals.next() => Err(signal),
        }
    };
    shown.progress = None;
    check.finish().await;
    let checked = match checked {
        Ok(checked) => checked.map_err(unusable)?,
        Err(signal) => anyhow::bail!("stopped by {signal}"),
    };
    if let Some(error) = shown.trouble {
        return Err(error).context("cannot write to standard output");
    }
    let rest = match shown.json {
        true => visible_json(&format!("{:#}\n", checked.json())).into_owned(),
        false => check::not_tried(&checked.left, shown.width),
    };
    terminal::write(rest).context("cannot write to standard output")?;
    Ok(match checked.cause() {
        Some(_) => exit::FAILED,
        None => 0,
    })
}

/// Wraps a configuration error, which has an exit code of its own.
fn unusable(error: CheckError) -> anyhow::Error {
    match error {
        CheckError::Config(error) => error.into(),
        CheckError::Setup(error) => error.into(),
    }
}

/// Progress output.
struct ProgressOutput {
    json: bool,
    width: usize,
    progress: Option<Progress>,
    /// Error from writing to standard output.
    trouble: Option<std::io::Error>,
}

impl ProgressOutput {
    fn event(&mut self, event: CheckEvent<'_>) {
        match event {
            CheckEvent::Begins(step) => self.progress = Some(Progress::start(step.doing())),
            CheckEvent::Taken(taken) => {
                self.progress = None;
                if self.json || self.trouble.is_some() {
                    return;
                }
                let written = terminal::write(check::line(taken, self.width));
                self.trouble = written.err();
            }
        }
    }
}
