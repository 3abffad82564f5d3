//! Offset between the local clock and AWS's, from the `Date` headers of answers.
//!
//! Signatures contain the time, and a database reports only a wrong password when a token is too
//! old. Every answer of AWS contains the time as well, so pgiam can name the real reason.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::{
    RuntimeComponents, RuntimeComponentsBuilder,
};
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::date_time::Format;
use aws_types::sdk_config::SharedHttpClient;

use tokio::time::Instant;

use crate::base::single_flight::Clock;

/// Maximum round trip of an answer for its time to be used. After a longer one the machine may have
/// slept, or its clock may have been set, and the header's time may be from before or after that.
/// AWS tolerates minutes.
const LONGEST_ROUND_TRIP: Duration = Duration::from_secs(10);

/// Lifetime of an offset. Clocks do not drift far in that time, and a wrong clock has been set by
/// then.
const WORTH: Duration = Duration::from_secs(10 * 60);

/// Difference between wall clock and monotonic clock after which an offset is discarded: the clock
/// was set, or the machine slept and set it afterwards.
const STEP: Duration = Duration::from_secs(60);

/// Offset in seconds up to which AWS accepts signed requests (IAM User Guide, "Signature Version 4
/// for API requests"). A larger offset is the first problem to fix.
const TOLERATED: u64 = 5 * 60;

/// Offset between the clock of AWS and the local one.
///
/// Displayed as a statement about the local clock: `7 min behind AWS`, `12 s ahead of AWS`, `in
/// step with AWS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOffset {
    /// AWS time minus local wall-clock time, in seconds. Accurate to a second plus the network
    /// delay of one answer.
    pub seconds: i64,
}

impl ClockOffset {
    /// Returns the offset from the `Date` header of an answer that has just arrived; `None` if the
    /// header is not a valid time.
    pub(crate) fn from_date_header(date: &str, now: SystemTime) -> Option<Self> {
        difference(date, now).map(|seconds| Self { seconds })
    }

    /// Returns `true` if this offset alone may cause a signature to be refused.
    #[must_use]
    pub fn is_wrong(self) -> bool {
        self.seconds.unsigned_abs() > TOLERATED
    }
}

impl fmt::Display for ClockOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.seconds {
            0 => return f.write_str("in sync with AWS"),
            1.. => "behind",
            _ => "ahead of",
        };
        let seconds = self.seconds.unsigned_abs();
        // The largest unit of which there are two or more.
        const UNITS: [(u64, &str); 3] = [(24 * 3600, "days"), (3600, "h"), (60, "min")];
        let fits = |&&(unit, _): &&(u64, &str)| rounded(seconds, unit) >= 2;
        let (unit, name) = UNITS.iter().find(fits).copied().unwrap_or((1, "s"));
        write!(f, "{} {name} {direction} AWS", rounded(seconds, unit))
    }
}

fn rounded(seconds: u64, unit: u64) -> u64 {
    seconds.saturating_add(unit / 2) / unit
}

/// Returns the time of a `Date` header (RFC 9110, section 6.6.1) minus `now`, in seconds; `None` if
/// the header is not a valid time.
pub(crate) fn difference(date: &str, now: SystemTime) -> Option<i64> {
    let theirs = DateTime::from_str(date, Format::HttpDate).ok()?;
    Some(theirs.secs() - DateTime::from(now).secs())
}

/// A wall-clock time that is out of range for signatures and certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongEra {
    /// Before 1970, where Unix time begins.
    #[error("this machine's clock is set to a time before 1970")]
    Before,
    /// After 9999: signatures have four digits for the year.
    #[error("this machine's clock is set to a time after the year 9999")]
    After,
}

/// First second of the year 10000, in Unix time.
const YEAR_10000: u64 = 253_402_300_800;

/// Returns `now` if a signature can be made for it.
///
/// # Errors
/// [`WrongEra`].
pub(crate) fn signable(now: SystemTime) -> Result<SystemTime, WrongEra> {
    match now.duration_since(SystemTime::UNIX_EPOCH) {
        Err(_) => Err(WrongEra::Before),
        Ok(since) if since.as_secs() >= YEAR_10000 => Err(WrongEra::After),
        Ok(_) => Ok(now),
    }
}

/// Records the time in the answers of AWS.
pub(crate) struct ClockWatch {
    clock: Clock,
    seen: Mutex<Option<OffsetSample>>,
}

/// An offset and the time of its answer, by the wall clock and by the monotonic clock.
#[derive(Clone, Copy)]
struct OffsetSample {
    offset: ClockOffset,
    wall: SystemTime,
    steady: Instant,
}

impl ClockWatch {
    pub(super) fn new(clock: Clock) -> Arc<Self> {
        let seen = Mutex::new(None);
        Arc::new(Self { clock, seen })
    }

    /// Returns the local wall-clock time, to be taken before a request.
    pub(crate) fn now(&self) -> SystemTime {
        (self.clock)()
    }

    /// Records an answer with this `Date` header to a request sent at `asked`.
    pub(crate) fn answered(&self, date: Option<&str>, asked: SystemTime) {
        let now = self.now();
        let way = now.duration_since(asked);
        if way.is_err() || way.is_ok_and(|way| way > LONGEST_ROUND_TRIP) {
            return;
        }
        let Some(seconds) = date.and_then(|date| difference(date, now)) else {
            return;
        };
        let seen = OffsetSample {
            offset: ClockOffset { seconds },
            wall: now,
            steady: Instant::now(),
        };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
    }

    /// Returns the offset of the last answer, unless it is too old.
    pub(super) fn offset(&self) -> Option<ClockOffset> {
        let seen = (*self.seen.lock().unwrap_or_else(PoisonError::into_inner))?;
        let passed = seen.steady.elapsed();
        let expected = seen.wall + passed;
        let now = self.now();
        let step = now
            .duration_since(expected)
            .unwrap_or_else(|back| back.duration());
        (passed <= WORTH && step <= STEP).then_some(seen.offset)
    }

    /// Wraps a client so that its answers are recorded. This covers every service and credential
    /// provider that uses the client; an interceptor of the SDK would have to be added to each.
    pub(super) fn watching(self: &Arc<Self>, client: SharedHttpClient) -> SharedHttpClient {
        let watch = self.clone();
        SharedHttpClient::new(ClockRecorder {
            inner: client,
            watch,
        })
    }
}

impl fmt::Debug for ClockWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClockWatch").field(&self.offset()).finish()
    }
}

/// A client or connector of the SDK, and the recorder of its answers.
#[derive(Debug)]
struct ClockRecorder<T> {
    inner: T,
    watch: Arc<ClockWatch>,
}

impl HttpClient for ClockRecorder<SharedHttpClient> {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(ClockRecorder {
            inner: self.inner.http_connector(settings, components),
            watch: self.watch.clone(),
        })
    }

    fn validate_base_client_config(
        &self,
        components: &RuntimeComponentsBuilder,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        self.inner.validate_base_client_config(components, config)
    }

    fn validate_final_config(
        &self,
        components: &RuntimeComponents,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        self.inner.validate_final_config(components, config)
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.inner.connector_metadata()
    }
}

impl HttpConnector for ClockRecorder<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (asked, watch) = (self.watch.now(), self.watch.clone());
        let answering = self.inner.call(request);
        HttpConnectorFuture::new(async move {
            let answer = answering.await?;
            // Only the head has arrived by now; a long body does not count.
            let date = answer.headers().try_get("date").and_then(Result::ok);
            watch.answered(date, asked);
            Ok(answer)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn offsets_read_well() {
        for (seconds, text) in [
            (0, "in sync with AWS"),
            (12, "12 s behind AWS"),
            (-12, "12 s ahead of AWS"),
            (89, "89 s behind AWS"),
            (90, "2 min behind AWS"),
            (-420, "7 min ahead of AWS"),
            (3600, "60 min behind AWS"),
            (3 * 3600 - 60, "3 h behind AWS"),
            (-30 * 86_400, "30 days ahead of AWS"),
            (i64::MIN, "106751991167301 days ahead of AWS"),
        ] {
            let offset = ClockOffset { seconds };
            assert_eq!(offset.to_string(), text);
        }
    }

    #[test]
    fn a_header_is_compared_with_the_local_clock() {
        let now = at(1_790_000_000) + Duration::from_millis(900);
        for (date, expected) in [
            ("Mon, 21 Sep 2026 14:13:20 GMT", Some(0)),
            ("Mon, 21 Sep 2026 14:20:20 GMT", Some(420)),
            ("Mon, 21 Sep 2026 14:13:08 GMT", Some(-12)),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(difference(date, now), expected, "{date}");
        }
    }

    #[test]
    fn what_took_long_tells_nothing() {
        let time = Arc::new(Mutex::new(at(1_790_000_000)));
        let hand = time.clone();
        let watch = ClockWatch::new(Arc::new(move || *hand.lock().unwrap()));
        let date = Some("Mon, 21 Sep 2026 14:20:20 GMT");
        assert_eq!(watch.offset(), None);
        watch.answered(None, watch.now());
        watch.answered(Some("never"), watch.now());
        // Machine slept or clock set forward; clock set back.
        watch.answered(date, watch.now() - Duration::from_secs(11));
        watch.answered(date, watch.now() + Duration::from_secs(1));
        assert_eq!(watch.offset(), None);
        watch.answered(date, watch.now() - Duration::from_secs(10));
        let seen = ClockOffset { seconds: 420 };
        assert_eq!(watch.offset(), Some(seen));
        // An answer without the header keeps the known offset; the next one replaces it.
        watch.answered(None, watch.now());
        assert_eq!(watch.offset(), Some(seen));
        *time.lock().unwrap() += Duration::from_secs(420);
        watch.answered(date, watch.now());
        assert_eq!(watch.offset().unwrap().seconds, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_long_ago_or_before_the_clock_was_set_tells_nothing() {
        let time = Arc::new(Mutex::new(at(1_790_000_000)));
        let hand = time.clone();
        let watch = ClockWatch::new(Arc::new(move || *hand.lock().unwrap()));
        let pass = async |seconds, for_the_wall| {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            *time.lock().unwrap() += Duration::from_secs(for_the_wall);
        };
        let see = || watch.answered(Some("Mon, 21 Sep 2026 14:20:20 GMT"), watch.now());
        see();
        pass(600, 600).await;
        assert!(watch.offset().is_some());
        pass(1, 1).await;
        assert_eq!(watch.offset(), None, "long ago");
        see();
        pass(10, 70).await;
        assert!(watch.offset().is_some());
        pass(0, 1).await;
        assert_eq!(watch.offset(), None, "set forward");
        see();
        assert!(watch.offset().is_some());
        pass(61, 0).await;
        assert_eq!(watch.offset(), None, "set back");
    }
}
