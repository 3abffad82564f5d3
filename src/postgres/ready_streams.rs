//! Streams to the database of a target that are kept for the next logins: dialled, and inside
//! verified TLS, with nothing of a login in them.
//!
//! `database/ready.rs` opens them. Here is the state: how many there are to be, until when each may
//! be used, and which one a login takes.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::debug;

use super::server_memory::ServerCapabilities;
use crate::base::jitter::doubled;
use crate::base::stream::Stream;
use crate::observe::ReadyCounts;
use crate::tunnel::SpareMark;

/// Age at which a stream is replaced, and at which it is not used any more. A server closes a
/// connection that has sent no startup packet after its `authentication_timeout`, 60 s by default.
const RENEW_AFTER: Duration = Duration::from_secs(45);
const USABLE_FOR: Duration = Duration::from_secs(50);
/// Time after a login during which streams are kept for the next ones.
const RECENT: Duration = Duration::from_secs(3 * 60);
/// Pause after a stream could not be opened: first, and at most. It doubles.
const FAILED_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Pause after the server reported that it has no connection left.
const FULL_PAUSE: Duration = Duration::from_secs(5 * 60);
/// Longest time that a login waits for a stream that is being opened.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Allowance for a wait on a busy machine.
const WAIT_ALLOWANCE: Duration = Duration::from_millis(20);

/// A stream without a login.
pub(in crate::postgres) struct ReadyStream {
    /// The name that its certificate was verified for.
    pub(in crate::postgres) name: String,
    /// The server that it leads to.
    pub(in crate::postgres) capabilities: Arc<ServerCapabilities>,
    /// Inside verified TLS.
    pub(in crate::postgres) stream: Stream,
    /// TLS version.
    pub(in crate::postgres) tls: String,
    pub(in crate::postgres) mark: SpareMark,
    /// Time at which its dial began, by both clocks: a suspend of the machine stops the first one.
    pub(in crate::postgres) began: (Instant, SystemTime),
}

impl ReadyStream {
    fn age(&self, now: Instant) -> Duration {
        let by_wall = self.began.1.elapsed().unwrap_or_default();
        now.saturating_duration_since(self.began.0).max(by_wall)
    }

    /// Returns `Pending` if the server has sent nothing and the stream has not ended.
    fn poll_spoiled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut byte = [0];
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut ReadBuf::new(&mut byte));
        read.map(|_| ())
    }

    /// Closes the stream in order, as far as it goes at once: the server's log stays clean.
    fn close(mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        _ = Pin::new(&mut self.stream).poll_shutdown(&mut cx);
    }
}

/// The streams of one target. Cheap to clone.
#[derive(Clone, Default)]
pub(in crate::postgres) struct ReadyStreams(Arc<ReadyState>);

#[derive(Default)]
struct ReadyState {
    state: Mutex<Kept>,
    /// Wakes the keeper: a stream was taken, a login succeeded, or all is over.
    changed: Notify,
    /// Wakes the logins that wait for a stream.
    arrived: Notify,
}

#[derive(Default)]
struct Kept {
    streams: Vec<ReadyStream>,
    /// Times at which the dials in progress began.
    opening: Vec<Instant>,
    /// Logins that wait for one of them.
    waiting: usize,
    /// Time that the last one took.
    took: Option<Duration>,
    last_login: Option<Instant>,
    /// A stream failed, or ended before its time: none is opened before the next login.
    needs_login: bool,
    /// Pause after failures: until then, and its length.
    pause: Option<(Instant, Duration)>,
    /// The server has no connection left, most likely until then.
    full_until: Option<Instant>,
    /// A task keeps the streams.
    has_keeper: bool,
    /// No further client comes.
    closed: bool,
    hits: u64,
    misses: u64,
    stale: u64,
}

/// Next step of the keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::postgres) enum KeeperStep {
    /// Open streams, and look again later.
    Open {
        /// Number of streams.
        count: usize,
        /// Time of the step, which identifies them.
        began: Instant,
        /// Time of the next look.
        look_at: Instant,
    },
    /// There is nothing to keep.
    End,
}

/// Offer to a login.
enum Offer {
    Take(ReadyStream),
    /// A stream is being opened, and is expected before this time.
    Wait(Instant),
    None,
}

impl ReadyStreams {
    /// Records a successful login. Returns `true` if a keeper must be started.
    pub(in crate::postgres) fn logged_in(&self) -> bool {
        let mut kept = self.lock();
        kept.last_login = Some(Instant::now());
        kept.needs_login = false;
        let starts = !kept.closed && !std::mem::replace(&mut kept.has_keeper, true);
        drop(kept);
        self.0.changed.notify_one();
        starts
    }

    /// Returns the next step of the keeper of up to `most` streams, and closes those that are too
    /// old or not needed.
    pub(in crate::postgres) fn step(&self, most: usize) -> KeeperStep {
        let now = Instant::now();
        let mut kept = self.lock();
        let kept = &mut *kept;
        let until = kept.last_login.map(|at| at + RECENT);
        let until = until.filter(|until| now < *until && !kept.closed);
        let paused = kept.paused_until(now);
        let Some(until) = until else {
            kept.keep_only(|_| false);
            kept.opening.clear();
            kept.has_keeper = false;
            return KeeperStep::End;
        };
        kept.keep_only(|stream| stream.age(now) < USABLE_FOR);
        let renew_at = |stream: &ReadyStream| {
            let left = RENEW_AFTER.saturating_sub(stream.age(now));
            (!left.is_zero()).then(|| now + left)
        };
        let fresh: Vec<Instant> = kept.streams.iter().filter_map(renew_at).collect();
        let last = |stream: &ReadyStream| now + USABLE_FOR.saturating_sub(stream.age(now));
        let ends = kept.streams.iter().map(last);
        let times = fresh.iter().copied().chain(ends).chain(paused);
        let look_at = times.fold(until, Instant::min);
        let count = match kept.needs_login || paused.is_some() {
            true => 0,
            false => most.saturating_sub(fresh.len() + kept.opening.len()),
        };
        kept.opening.extend(std::iter::repeat_n(now, count));
        KeeperStep::Open {
            count,
            began: now,
            look_at,
        }
    }

    /// Waits until the keeper has to look again: a stream was taken or has ended, or a login has
    /// succeeded. Cancel-safe.
    pub(in crate::postgres) async fn changed(&self) {
        let spoiled = std::future::poll_fn(|cx| match self.lock().keep_unspoiled(cx) {
            0 => Poll::Pending,
            _ => Poll::Ready(()),
        });
        tokio::select! {
            () = self.0.changed.notified() => {}
            () = spoiled => {}
        }
    }

    /// Adds a stream whose dial began at `began`; `None` if it failed.
    pub(in crate::postgres) fn opened(
        &self,
        began: Instant,
        stream: Option<ReadyStream>,
        most: usize,
    ) {
        let now = Instant::now();
        let mut kept = self.lock();
        if let Some(place) = kept.opening.iter().position(|at| *at == began) {
            kept.opening.swap_remove(place);
        }
        match stream {
            Some(stream) if kept.closed || kept.is_full(now) => stream.close(),
            Some(stream) => {
                debug!("a connection is ready for the next client");
                (kept.took, kept.pause) = (Some(now - began), None);
                kept.streams.push(stream);
                while kept.streams.len() > most {
                    kept.streams.remove(0).close(); // The oldest one.
                }
            }
            None => {
                let pause = doubled(kept.pause.map(|(_, pause)| pause), FAILED_PAUSE);
                kept.pause = Some((now + pause, pause));
                kept.needs_login = true;
            }
        }
        drop(kept);
        self.0.arrived.notify_waiters();
    }

    /// Returns a stream to the server with these facts and this name, if there is one or one will
    /// be there sooner than another could be opened. `take` takes it from the transport.
    /// Cancel-safe.
    pub(in crate::postgres) async fn take(
        &self,
        name: &str,
        capabilities: &Arc<ServerCapabilities>,
        take: impl Fn(&SpareMark) -> bool,
    ) -> Option<ReadyStream> {
        let mut waiting = None;
        loop {
            let arrived = self.0.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            let offer = self.offer(name, capabilities, &take, waiting.is_some());
            // The keeper replaces the stream, or waits for the end of the others again.
            self.0.changed.notify_one();
            match offer {
                Offer::Take(stream) => return Some(stream),
                Offer::Wait(until) => {
                    let (until, _) = *waiting.get_or_insert_with(|| (until, Waiting::new(self)));
                    tokio::select! {
                        () = arrived.as_mut() => {}
                        () = tokio::time::sleep_until(until) => return self.missed(),
                    }
                }
                Offer::None => return self.missed(),
            }
        }
    }

    fn offer(
        &self,
        name: &str,
        capabilities: &Arc<ServerCapabilities>,
        take: impl Fn(&SpareMark) -> bool,
        waits: bool,
    ) -> Offer {
        let now = Instant::now();
        let mut kept = self.lock();
        if kept.closed {
            return Offer::None;
        }
        kept.keep_unspoiled(&mut Context::from_waker(Waker::noop()));
        // The name may lead to another server by now.
        kept.keep_only(|stream| {
            let same = stream.name == name && Arc::ptr_eq(&stream.capabilities, capabilities);
            same && stream.age(now) < USABLE_FOR
        });
        let taken = kept.streams.iter().position(|stream| take(&stream.mark));
        if let Some(place) = taken {
            kept.hits += 1;
            return Offer::Take(kept.streams.remove(place));
        }
        let is_spare = kept.streams.is_empty() && (waits || kept.waiting < kept.opening.len());
        let (Some(first), Some(took)) = (kept.opening.iter().min(), kept.took) else {
            return Offer::None;
        };
        let until = *first + (took * 3 / 2 + WAIT_ALLOWANCE).min(LONGEST_WAIT);
        match is_spare && now < until {
            true => Offer::Wait(until),
            false => Offer::None,
        }
    }

    /// Counts a login without a ready stream, if one was to be expected.
    fn missed(&self) -> Option<ReadyStream> {
        let mut kept = self.lock();
        kept.misses += u64::from(!kept.closed && kept.has_keeper);
        None
    }

    /// Counts a stream that gave no answer to a login.
    pub(in crate::postgres) fn was_stale(&self) {
        let mut kept = self.lock();
        kept.stale += 1;
        // The others most likely have the same fault.
        kept.needs_login = true;
        kept.keep_only(|_| false);
    }

    /// Closes the streams, and keeps none for some minutes: the server has no connection left.
    pub(in crate::postgres) fn server_is_full(&self) {
        let mut kept = self.lock();
        if kept.has_keeper {
            debug!(
                minutes = FULL_PAUSE.as_secs() / 60,
                "the server has no connection left; keeping none ready"
            );
        }
        kept.full_until = Some(Instant::now() + FULL_PAUSE);
        kept.keep_only(|_| false);
    }

    /// Closes the streams for good.
    pub(in crate::postgres) fn close(&self) {
        let mut kept = self.lock();
        kept.closed = true;
        kept.keep_only(|_| false);
        drop(kept);
        self.0.changed.notify_one();
        self.0.arrived.notify_waiters();
    }

    /// Returns the number of streams, and the counts so far.
    pub(in crate::postgres) fn counts(&self) -> ReadyCounts {
        let kept = self.lock();
        ReadyCounts {
            ready: kept.streams.len(),
            hits: kept.hits,
            misses: kept.misses,
            stale: kept.stale,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Every change leaves the state usable.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Closes the other streams.
    fn keep_only(&mut self, keeps: impl Fn(&ReadyStream) -> bool) {
        let gone = self.streams.extract_if(.., |stream| !keeps(stream));
        gone.for_each(ReadyStream::close);
    }

    /// Closes the streams that have ended, or on which the server has sent something. Returns their
    /// number.
    fn keep_unspoiled(&mut self, cx: &mut Context<'_>) -> usize {
        let gone = self
            .streams
            .extract_if(.., |stream| stream.poll_spoiled(cx).is_ready());
        let count = gone.map(ReadyStream::close).count();
        if count > 0 {
            // The server is restarting, or has less patience than expected, or the session has ended.
            self.needs_login = true;
            debug!(count, "connections that were kept ready have ended");
        }
        count
    }

    fn is_full(&self, now: Instant) -> bool {
        self.full_until.is_some_and(|until| now < until)
    }

    /// Returns the end of the pauses.
    fn paused_until(&self, now: Instant) -> Option<Instant> {
        let failed = self.pause.map(|(until, _)| until);
        let pauses = [failed, self.full_until].into_iter().flatten();
        pauses.filter(|until| now < *until).max()
    }
}

/// A login that waits for a stream.
struct Waiting<'a>(&'a ReadyStreams);

impl<'a> Waiting<'a> {
    fn new(streams: &'a ReadyStreams) -> Self {
        streams.lock().waiting += 1;
        Self(streams)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}

#[cfg(test)]
mod tests;
