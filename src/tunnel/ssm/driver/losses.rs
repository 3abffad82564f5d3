//! Reports messages dropped for lack of room, at a limited rate.

use std::time::Duration;

use tokio::time::Instant;

/// Shortest time between reports.
const INTERVAL: Duration = Duration::from_secs(60);

/// Reported losses of a session.
#[derive(Debug, Default)]
pub(super) struct LossReports {
    /// Number of losses in the last report, and its time.
    reported: Option<(u64, Instant)>,
}

impl LossReports {
    /// Takes the number dropped so far; returns the number to report now.
    pub(super) fn unreported(&mut self, dropped: u64) -> Option<u64> {
        let before = self.reported.map_or(0, |(before, _)| before);
        if dropped == before {
            return None;
        }
        let now = Instant::now();
        if self.reported.is_some_and(|(_, at)| now < at + INTERVAL) {
            return None;
        }
        self.reported = Some((dropped, now));
        Some(dropped - before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tells_once_a_minute() {
        let mut losses = LossReports::default();
        assert_eq!(losses.unreported(0), None);
        assert_eq!(losses.unreported(1), Some(1));
        assert_eq!(losses.unreported(100), None);
        tokio::time::advance(INTERVAL).await;
        assert_eq!(losses.unreported(1), None);
        assert_eq!(losses.unreported(150), Some(149));
        tokio::time::advance(INTERVAL * 2).await;
        assert_eq!(losses.unreported(150), None);
    }
}
