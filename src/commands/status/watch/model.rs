//! State of the screen: the last readings, the selection, the filter and the open window.

use std::collections::HashSet;

use super::rows::{Readings, Row, Rows, SPACIOUS, TargetRef};
use crate::admin::document::{ProcessDocument, TargetDocument};
use crate::commands::status::rates::RateMeter;

/// A table of the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pane {
    #[default]
    Targets,
    Connections,
    Errors,
}

impl Pane {
    pub(super) const ALL: [Self; 3] = [Self::Targets, Self::Connections, Self::Errors];

    /// Returns the pane that is `step` further.
    pub(super) fn next(self, step: usize) -> Self {
        let [targets, connections, errors] = Self::ALL;
        match (self as usize + step) % Self::ALL.len() {
            0 => targets,
            1 => connections,
            _ => errors,
        }
    }
}

/// Selection in a pane.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    /// Key of the selected row; `None`: the first row.
    key: Option<String>,
    /// Its index at the last drawing, for a row that has disappeared.
    pub(super) index: usize,
    /// Index of the first row that is shown.
    pub(super) first: usize,
}

impl Selection {
    /// Finds the selected row again. A row that has disappeared is replaced by its neighbour.
    fn find(&mut self, rows: &[Row]) {
        let found = self
            .key
            .as_ref()
            .and_then(|key| rows.iter().position(|row| row.key == *key));
        self.index = found
            .unwrap_or(self.index)
            .min(rows.len().saturating_sub(1));
        if found.is_none() && self.key.is_some() {
            self.key = rows.get(self.index).map(|row| row.key.clone());
        }
        if self.key.is_none() {
            self.index = 0;
        }
    }

    fn select(&mut self, rows: &[Row], index: usize) {
        self.index = index.min(rows.len().saturating_sub(1));
        self.key = rows.get(self.index).map(|row| row.key.clone());
    }
}

/// A window above the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) title: String,
    pub(super) lines: Vec<String>,
    /// First line that is shown.
    pub(super) first: usize,
    /// Request that `y` sends.
    pub(super) asks: Option<Request>,
}

/// Request to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Stops a target.
    StopTarget(TargetRef),
    /// Closes the connections of a stopped target.
    CloseConnections(TargetRef),
    /// Reloads the configuration of this process.
    Reload(u32),
}

/// The state.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) processes: Vec<ProcessDocument>,
    /// Processes that do not answer, with the reasons.
    pub(super) silent: Vec<(u32, String)>,
    /// Processes that have ended, and the number of readings since.
    pub(super) ended: Vec<(String, u32)>,
    pub(super) meter: RateMeter,
    pub(super) pane: Pane,
    selections: [Selection; 3],
    pub(super) filter: String,
    /// The filter is being edited.
    pub(super) editing: bool,
    pub(super) window: Option<Window>,
    /// A message instead of the keys, until the next key.
    pub(super) message: Option<String>,
    /// Rows of the pane that were visible, for the keys that scroll by a page.
    pub(super) page: usize,
}

/// Number of readings for which an ended process is named.
const ENDED_READINGS: u32 = 30;

impl Model {
    /// Takes a reading: the processes that have answered, and those that have not.
    pub(super) fn read(&mut self, processes: Vec<ProcessDocument>, silent: Vec<(u32, String)>) {
        let pids: HashSet<u32> = processes
            .iter()
            .map(|process| process.pid)
            .chain(silent.iter().map(|(pid, _)| *pid))
            .collect();
        let gone = self
            .processes
            .iter()
            .filter(|known| !pids.contains(&known.pid));
        let gone: Vec<(String, u32)> = gone
            .map(|it| (format!("pgiam {} {}", it.kind, it.pid), 0))
            .collect();
        for (_, readings) in &mut self.ended {
            *readings += 1;
        }
        self.ended
            .retain(|(_, readings)| *readings < ENDED_READINGS);
        self.ended.extend(gone);
        self.meter.read(&processes);
        self.meter.keep(&pids);
        // A process that does not answer keeps its last status.
        let is_silent =
            |process: &ProcessDocument| silent.iter().any(|(pid, _)| *pid == process.pid);
        let kept = self
            .processes
            .drain(..)
            .filter(|process| is_silent(process));
        let mut all: Vec<ProcessDocument> = kept.chain(processes).collect();
        all.sort_by_key(|process| process.pid);
        self.processes = all;
        self.silent = silent;
    }

    /// Returns the rows of a pane in a terminal of `width` columns.
    pub(super) fn rows(&self, pane: Pane, width: usize) -> Rows {
        let readings = Readings {
            processes: &self.processes,
            meter: &self.meter,
            filter: &self.filter,
            width,
        };
        match pane {
            Pane::Targets => readings.target_rows(),
            Pane::Connections => readings.connection_rows(),
            Pane::Errors => readings.error_rows(),
        }
    }

    /// Returns the selection of a pane, found again in `rows`.
    pub(super) fn selection(&mut self, pane: Pane, rows: &[Row]) -> &mut Selection {
        let [targets, connections, errors] = &mut self.selections;
        let selection = match pane {
            Pane::Targets => targets,
            Pane::Connections => connections,
            Pane::Errors => errors,
        };
        selection.find(rows);
        selection
    }

    /// Moves the selection of the current pane.
    pub(super) fn select(&mut self, to: impl FnOnce(usize) -> usize) {
        let (pane, rows) = (self.pane, self.rows(self.pane, SPACIOUS).rows);
        let selection = self.selection(pane, &rows);
        let index = to(selection.index);
        selection.select(&rows, index);
    }

    /// Returns the selected row of the current pane.
    pub(super) fn selected(&mut self) -> Option<Row> {
        let pane = self.pane;
        let mut rows = self.rows(pane, SPACIOUS).rows;
        let index = self.selection(pane, &rows).index;
        (index < rows.len()).then(|| rows.swap_remove(index))
    }

    /// Returns the target that the selected row belongs to, or the only target.
    pub(super) fn target(&mut self) -> Option<TargetRef> {
        let own = self.selected().and_then(|row| row.target);
        own.or_else(|| {
            let mut all = self.processes.iter().flat_map(|process| {
                process.targets.iter().map(|target| TargetRef {
                    pid: process.pid,
                    name: target.name.clone(),
                })
            });
            let first = all.next()?;
            all.next().is_none().then_some(first)
        })
    }

    /// Returns the document of a target, and that of its process.
    pub(super) fn document(&self, of: &TargetRef) -> Option<(&ProcessDocument, &TargetDocument)> {
        let process = self
            .processes
            .iter()
            .find(|process| process.pid == of.pid)?;
        let target = process
            .targets
            .iter()
            .find(|target| target.name == of.name)?;
        Some((process, target))
    }

    /// Opens a window.
    pub(super) fn open(&mut self, title: impl Into<String>, lines: Vec<String>) {
        self.window = Some(Window {
            title: title.into(),
            lines,
            first: 0,
            asks: None,
        });
    }
}
