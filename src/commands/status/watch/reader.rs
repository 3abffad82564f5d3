//! Readings of the status. Each process answers by itself, so that one that hangs delays no other.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::admin::client::AskError;
use crate::admin::document::ProcessDocument;
use crate::platform::socket::control::ExistingSocket;

/// Time for the answers of one reading; a running process needs a few milliseconds. A later answer
/// is part of the next reading.
const PATIENCE: Duration = Duration::from_millis(300);

type StatusResult = Result<ProcessDocument, AskError>;

/// Statuses of processes, and the reasons of those without one.
pub(super) type StatusReading = (Vec<ProcessDocument>, Vec<(u32, String)>);

/// Asks processes for their status.
#[derive(Debug, Default)]
pub(super) struct StatusReader {
    requests: JoinSet<(u32, StatusResult)>,
    /// Processes with a request in progress.
    waiting: HashSet<u32>,
    last: HashMap<u32, Result<ProcessDocument, String>>,
    /// End of the reading in progress.
    until: Option<Instant>,
}

impl StatusReader {
    /// Begins a reading. Asks each process that has no request in progress.
    pub(super) fn begin<F>(&mut self, found: Vec<ExistingSocket>, ask: impl Fn(ExistingSocket) -> F)
    where
        F: Future<Output = StatusResult> + Send + 'static,
    {
        let pids: HashSet<u32> = found.iter().map(|one| one.pid).collect();
        self.last.retain(|pid, _| pids.contains(pid));
        for one in found {
            let pid = one.pid;
            if self.waiting.insert(pid) {
                let answer = ask(one);
                self.requests.spawn(async move { (pid, answer.await) });
            }
        }
        self.until = Some(Instant::now() + PATIENCE);
    }

    /// Waits for the first status; the reading goes on after it.
    ///
    /// # Errors
    /// The running processes, none of which has a status, with their reasons.
    pub(super) async fn first(&mut self) -> Result<(), Vec<(u32, AskError)>> {
        let mut failed = Vec::new();
        while let Some(request) = self.requests.join_next().await {
            match request {
                Ok((pid, Err(error))) if !matches!(error, AskError::Gone) => {
                    failed.push((pid, error));
                }
                Ok((pid, answer)) => {
                    let is_status = answer.is_ok();
                    self.note(pid, answer);
                    if is_status {
                        for (pid, error) in failed {
                            self.note(pid, Err(error));
                        }
                        return Ok(());
                    }
                }
                Err(_) => {}
            }
        }
        Err(failed)
    }

    /// Waits for the end of the reading: all processes have answered, or [`PATIENCE`] is over. Never
    /// resolves without a reading in progress. Cancel-safe.
    pub(super) async fn end(&mut self) -> StatusReading {
        let Some(until) = self.until else {
            return std::future::pending().await;
        };
        while let Ok(Some(request)) = timeout_at(until, self.requests.join_next()).await {
            if let Ok((pid, answer)) = request {
                self.note(pid, answer);
            }
        }
        self.until = None;
        self.known()
    }

    /// Returns `true` during a reading.
    pub(super) fn is_reading(&self) -> bool {
        self.until.is_some()
    }

    /// Returns the last answers. A process whose answer is late keeps its last status.
    pub(super) fn known(&self) -> StatusReading {
        let (mut processes, mut failed) = (Vec::new(), Vec::new());
        for (pid, answer) in &self.last {
            match answer {
                Ok(process) => processes.push(process.clone()),
                Err(reason) => failed.push((*pid, reason.clone())),
            }
        }
        let unknown = self
            .waiting
            .iter()
            .filter(|pid| !self.last.contains_key(pid));
        failed.extend(unknown.map(|pid| (*pid, SILENT.to_owned())));
        failed.sort_unstable();
        (processes, failed)
    }

    fn note(&mut self, pid: u32, answer: StatusResult) {
        self.waiting.remove(&pid);
        let answer = match answer {
            Ok(process) => Ok(process),
            Err(AskError::Gone) => {
                self.last.remove(&pid);
                return;
            }
            Err(AskError::Silent(_)) => Err(SILENT.to_owned()),
            Err(error) => Err(error.to_string()),
        };
        self.last.insert(pid, answer);
    }
}

const SILENT: &str = "does not answer";

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    /// Timeout of a request.
    const REQUEST: Duration = Duration::from_secs(3);

    fn found(pids: &[u32]) -> Vec<ExistingSocket> {
        let of = |pid: &u32| ExistingSocket {
            pid: *pid,
            path: format!("/run/pgiam.{pid}.sock").into(),
        };
        pids.iter().map(of).collect()
    }

    fn status(pid: u32, uptime_seconds: f64) -> ProcessDocument {
        ProcessDocument {
            pid,
            uptime_seconds,
            ..ProcessDocument::default()
        }
    }

    /// Begins a reading at which these processes hang, and the others answer after 5 ms.
    fn begin(reader: &mut StatusReader, pids: &[u32], hanging: &'static [u32], uptime: f64) {
        reader.begin(found(pids), move |socket| async move {
            if hanging.contains(&socket.pid) {
                sleep(REQUEST).await;
                return Err(AskError::Silent("timeout".to_owned()));
            }
            sleep(Duration::from_millis(5)).await;
            Ok(status(socket.pid, uptime))
        });
    }

    fn shown((mut processes, failed): StatusReading) -> (Vec<(u32, f64)>, Vec<u32>) {
        processes.sort_by_key(|process| process.pid);
        let processes = processes.iter().map(|it| (it.pid, it.uptime_seconds));
        let failed = failed.into_iter().map(|(pid, reason)| {
            assert_eq!(reason, "does not answer");
            pid
        });
        (processes.collect(), failed.collect())
    }

    #[tokio::test(start_paused = true)]
    async fn a_hung_process_delays_neither_the_first_picture_nor_the_others() {
        let (mut reader, start) = (StatusReader::default(), Instant::now());
        begin(&mut reader, &[1, 2, 3], &[2], 1.0);
        reader.first().await.unwrap();
        assert!(start.elapsed() < Duration::from_millis(20));
        assert!(reader.is_reading());
        assert_eq!(
            shown(reader.end().await),
            (vec![(1, 1.0), (3, 1.0)], vec![2])
        );
        assert!(start.elapsed() <= PATIENCE + Duration::from_millis(1));
        for second in 2..8_u32 {
            sleep(Duration::from_millis(700)).await;
            let (begun, uptime) = (Instant::now(), f64::from(second));
            begin(&mut reader, &[1, 2, 3], &[2], uptime);
            let now = shown(reader.end().await);
            assert_eq!(now, (vec![(1, uptime), (3, uptime)], vec![2]));
            assert!(begun.elapsed() <= PATIENCE + Duration::from_millis(1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_keeps_the_last_status_until_its_timeout() {
        let mut reader = StatusReader::default();
        begin(&mut reader, &[1, 2], &[], 1.0);
        assert_eq!(
            shown(reader.end().await),
            (vec![(1, 1.0), (2, 1.0)], vec![])
        );
        let hung = Instant::now();
        let mut uptime = 1.0;
        while hung.elapsed() < REQUEST {
            uptime += 1.0;
            begin(&mut reader, &[1, 2], &[2], uptime);
            let now = shown(reader.end().await);
            if hung.elapsed() < REQUEST {
                assert_eq!(now, (vec![(1, uptime), (2, 1.0)], vec![]));
            }
            sleep(Duration::from_millis(700)).await;
        }
        begin(&mut reader, &[1, 2], &[2], 9.0);
        assert_eq!(shown(reader.end().await), (vec![(1, 9.0)], vec![2]));
        // Its socket is removed, or it answers again.
        begin(&mut reader, &[1], &[], 10.0);
        let (processes, _) = shown(reader.end().await);
        assert_eq!(processes, [(1, 10.0)]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_any_status_the_reasons_are_returned() {
        let (mut reader, start) = (StatusReader::default(), Instant::now());
        begin(&mut reader, &[7], &[7], 0.0);
        let failed = reader.first().await.unwrap_err();
        assert!(
            matches!(&failed[..], [(7, AskError::Silent(_))]),
            "{failed:?}"
        );
        assert_eq!(start.elapsed().as_secs(), REQUEST.as_secs());
        let mut reader = StatusReader::default();
        reader.begin(found(&[8]), async |_| Err(AskError::Gone));
        assert!(reader.first().await.unwrap_err().is_empty());
        let mut reader = StatusReader::default();
        begin(&mut reader, &[], &[], 0.0);
        assert!(reader.first().await.unwrap_err().is_empty());
    }
}
