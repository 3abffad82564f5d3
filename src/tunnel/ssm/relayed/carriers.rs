//! Keeps the carriers of a bundle: further sessions while streams are limited, replacements for
//! those that end, and none without use.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use stripe::MAX_SUBFLOWS;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info};

use super::bundle::RelayBundle;
use super::{RelayRoute, SsmSession, SsmStream};
use crate::base::foreign_text::ForeignText;
use crate::base::jitter::{doubled, jitter};
use crate::striping::{BundleState, Carrier, CarrierEnd};
use crate::tunnel::TunnelError;
use crate::tunnel::ssm::placement::Availability;
use crate::tunnel::ssm::pool::{LAST_STAYS, REFUSED_PAUSE, SWEEP};

/// Sessions that are started at a time. One takes about a second on the way to AWS, and AWS limits
/// the calls per second.
const STARTS: usize = 4;
/// Age at which a stream's wait for credit no longer calls for a further session. It is renewed
/// twice a second while it lasts.
const RECENT: Duration = Duration::from_millis(700);
/// Time without such a wait after which an ended session is not replaced while others live.
const WANTED: Duration = Duration::from_secs(5);
/// [`REFUSED_PAUSE`] without any carrier, while connections wait.
const URGENT_PAUSE: Duration = Duration::from_secs(1);
/// Time without any carrier after which the connections fail. The relay closes its own ends after
/// 60 s (`src/relay/`).
const GIVE_UP: Duration = Duration::from_secs(45);

type Opened = Result<Option<(SsmSession, SsmStream)>, TunnelError>;

/// A carrier with its session.
struct KeptCarrier {
    generation: u16,
    session: SsmSession,
}

/// The carriers of one bundle.
pub(super) struct CarrierKeeper {
    route: Arc<RelayRoute>,
    bundle: Arc<RelayBundle>,
    carriers: BTreeMap<u8, KeptCarrier>,
    generations: [u16; MAX_SUBFLOWS as usize],
    ends: FuturesUnordered<BoxFuture<'static, (u8, u16, CarrierEnd)>>,
    starts: FuturesUnordered<BoxFuture<'static, Opened>>,
    /// Wanted number of carriers.
    goal: usize,
    /// Last wait for credit that has raised the goal.
    grown_for: Option<Instant>,
    /// No session is started before this; length of the pause.
    refused: Option<(Instant, Duration)>,
    /// Time since which there is no carrier that the relay has accepted, and the reason.
    bare: Option<(Instant, TunnelError)>,
    /// Last time with an open stream, and with a wait for credit.
    used: Instant,
    limited: Instant,
}

impl CarrierKeeper {
    /// Creates the keeper of a bundle with one carrier.
    pub(super) fn new(
        route: Arc<RelayRoute>,
        bundle: Arc<RelayBundle>,
        session: SsmSession,
        carrier: Carrier,
    ) -> Self {
        let now = Instant::now();
        let mut keeper = Self {
            route,
            bundle,
            carriers: BTreeMap::new(),
            generations: [0; MAX_SUBFLOWS as usize],
            ends: FuturesUnordered::new(),
            starts: FuturesUnordered::new(),
            goal: 1,
            grown_for: None,
            refused: None,
            bare: None,
            used: now,
            limited: now,
        };
        keeper.keep(0, 1, session, carrier);
        keeper
    }

    pub(super) fn bundle(&self) -> &Arc<RelayBundle> {
        &self.bundle
    }

    /// Keeps the carriers until the bundle is over.
    pub(super) async fn run(mut self) {
        let mut state = self.bundle.state();
        let stop = self.route.starter.stop.clone();
        let idle_timeout = self.route.settings.idle_timeout;
        let pause = (idle_timeout / 4).min(SWEEP);
        let mut sweep = Instant::now() + pause;
        let error = loop {
            let seen = state.borrow_and_update().clone();
            if let Some(reason) = &seen.over {
                break self.relay_lost(reason);
            }
            if let Some(error) = self.look(&seen) {
                break error;
            }
            self.start();
            let wake = self.next_start().map_or(sweep, |at| at.min(sweep));
            tokio::select! {
                Some((index, generation, end)) = self.ends.next() => {
                    if let Some(error) = self.ended(index, generation, end) {
                        break error;
                    }
                }
                Some(opened) = self.starts.next() => self.opened(opened),
                changed = state.changed() => if changed.is_err() {
                    break TunnelError::ShuttingDown;
                },
                () = stop.cancelled() => break TunnelError::ShuttingDown,
                () = sleep_until(wake) => {}
            }
            if Instant::now() >= sweep {
                sweep = Instant::now() + pause;
                if self.sweep(idle_timeout) {
                    debug!("closing the unused session to the relay");
                    break TunnelError::ShuttingDown;
                }
            }
        };
        self.carriers
            .values()
            .for_each(|carrier| carrier.session.retire());
        self.bundle.end(error).await;
        // A start that is under way adds its session to the pool, which closes it when it is idle.
        while self.starts.next().await.is_some() {}
    }

    /// Follows the bundle's state: sets the wanted number of carriers. Returns the error of all
    /// connections when there has been no carrier for too long.
    fn look(&mut self, seen: &BundleState) -> Option<TunnelError> {
        let now = Instant::now();
        if seen.streams > 0 {
            self.used = now;
        }
        if let Some(at) = seen
            .limited_at
            .filter(|at| self.grown_for.is_none_or(|last| last < *at))
        {
            self.grown_for = Some(at);
            self.limited = at;
            if now < at + RECENT {
                let most = self.route.most_sessions().min(usize::from(MAX_SUBFLOWS));
                let doubled = 2 * self.carriers.len().max(1);
                self.goal = self.goal.max(doubled).min(most.max(1));
            }
        }
        if seen.ready > 0 {
            self.bare = None;
            // Sessions that end early are no reason for a pause while others work.
            self.route.pool.note_success();
        }
        let (since, reason) = self.bare.as_ref()?;
        if seen.streams == 0 || now >= *since + GIVE_UP {
            return Some(reason.clone());
        }
        self.goal = self.goal.max(1);
        None
    }

    /// Returns the time of the next start if one is wanted and has to wait.
    fn next_start(&self) -> Option<Instant> {
        let wanted = self.carriers.len() + self.starts.len() < self.goal;
        let refused = self.refused.map(|(until, _)| until);
        let give_up = self.bare.as_ref().map(|(since, _)| *since + GIVE_UP);
        let refused = refused.filter(|until| wanted && Instant::now() < *until);
        [refused, give_up].into_iter().flatten().min()
    }

    /// Starts what is wanted.
    fn start(&mut self) {
        let now = Instant::now();
        if self.refused.is_some_and(|(until, _)| now < until) {
            return;
        }
        while self.carriers.len() + self.starts.len() < self.goal && self.starts.len() < STARTS {
            let pool = Arc::clone(&self.route.pool);
            let bastion = self.bundle.bastion().clone();
            let most = self.route.most_sessions();
            let start = async move { pool.open_alone(Some(&bastion), most).await };
            self.starts.push(Box::pin(start));
        }
    }

    fn opened(&mut self, opened: Opened) {
        match opened {
            Ok(Some((session, stream))) => {
                self.refused = None;
                self.attach(session, stream);
            }
            Ok(None) => self.pause(REFUSED_PAUSE.0),
            Err(error) => {
                debug!(%error, "cannot open another session to the relay");
                if let Some((_, reason)) = &mut self.bare {
                    *reason = error;
                    self.pause(URGENT_PAUSE);
                } else {
                    let pause = doubled(self.refused.map(|(_, pause)| pause), REFUSED_PAUSE);
                    self.pause(pause);
                }
            }
        }
    }

    /// Starts nothing for a while, and what lives is enough meanwhile.
    fn pause(&mut self, pause: Duration) {
        self.refused = Some((Instant::now() + jitter(pause), pause));
        self.goal = self.carriers.len().max(1);
    }

    fn attach(&mut self, session: SsmSession, stream: SsmStream) {
        let free = (0..MAX_SUBFLOWS).find(|index| !self.carriers.contains_key(index));
        let Some(index) = free else { return };
        let generation = self.generations[usize::from(index)].saturating_add(1);
        match self.bundle.attach(index, generation, stream) {
            Ok(carrier) => self.keep(index, generation, session, carrier),
            Err(error) => debug!(%error, "cannot add a session to the connections"),
        }
    }

    fn keep(&mut self, index: u8, generation: u16, session: SsmSession, mut carrier: Carrier) {
        self.generations[usize::from(index)] = generation;
        self.carriers.insert(
            index,
            KeptCarrier {
                generation,
                session,
            },
        );
        let ended = async move { (index, generation, carrier.ended().await) };
        self.ends.push(Box::pin(ended));
    }

    /// Handles the end of a carrier. Returns the error of all connections if the bundle is over.
    fn ended(&mut self, index: u8, generation: u16, end: CarrierEnd) -> Option<TunnelError> {
        let current = |carrier: &KeptCarrier| carrier.generation == generation;
        if !self.carriers.get(&index).is_some_and(current) {
            return None;
        }
        self.carriers.remove(&index);
        let error = match end {
            // Its process is gone, and its connections to the database with it.
            CarrierEnd::Lost(error) if self.carriers.is_empty() && is_refused(&error) => {
                return Some(self.relay_lost("it is not running any more"));
            }
            CarrierEnd::Lost(error) => TunnelError::of(&error).cloned(),
            CarrierEnd::Closed => None,
            CarrierEnd::Detached => return None,
            // A relay that was restarted does not know the bundle.
            CarrierEnd::Refused(refusal) if self.carriers.is_empty() => {
                return Some(self.relay_lost(&refusal.words));
            }
            CarrierEnd::NotRelay(error) if self.carriers.is_empty() => {
                return Some(self.relay_lost(&error.to_string()));
            }
            CarrierEnd::BundleOver => return Some(self.relay_lost("the connection is over")),
            CarrierEnd::Refused(_) | CarrierEnd::NotRelay(_) => {
                self.pause(REFUSED_PAUSE.0);
                return None;
            }
        };
        let error = error.unwrap_or_else(|| self.relay_lost("it closed the connection"));
        let left = self.carriers.len();
        info!(bastion = %self.bundle.bastion(), reason = %error, left, "lost a session to the relay");
        if self.limited.elapsed() >= WANTED {
            self.goal = left.max(1);
        }
        if left == 0 {
            let again = self.bare.is_some();
            self.bare.get_or_insert((Instant::now(), error));
            if again {
                self.pause(URGENT_PAUSE);
            }
        }
        None
    }

    /// Detaches carriers whose session accepts nothing new, and unused ones. Returns true if the
    /// last one is unused as well.
    fn sweep(&mut self, idle_timeout: Duration) -> bool {
        let dial_timeout = self.route.settings.dial_timeout;
        let leaving = self.carriers.iter().filter(|(_, carrier)| {
            matches!(
                carrier.session.standing(dial_timeout),
                Availability::Leaving | Availability::Ended
            )
        });
        let mut drop: Vec<u8> = leaving.map(|(index, _)| *index).collect();
        let unused = self.used.elapsed() >= idle_timeout || self.limited.elapsed() >= idle_timeout;
        if unused && self.carriers.len() > 1 {
            debug!(
                sessions = self.carriers.len(),
                "closing unused sessions to the relay"
            );
            drop.extend(self.carriers.keys().skip(1));
            self.goal = 1;
        }
        for index in drop {
            let Some(carrier) = self.carriers.remove(&index) else {
                continue;
            };
            // What it has not delivered goes over the others; the session ends with its stream.
            self.bundle.detach(index, carrier.generation);
            carrier.session.retire();
        }
        if self.carriers.is_empty() && self.bare.is_none() {
            let reason = "its session accepts no more data";
            self.bare = Some((Instant::now(), self.relay_lost(reason)));
        }
        self.used.elapsed() >= idle_timeout * LAST_STAYS
    }

    fn relay_lost(&self, reason: &str) -> TunnelError {
        TunnelError::RelayLost {
            bastion: self.bundle.bastion().to_string(),
            reason: ForeignText::new(reason),
        }
    }
}

/// Returns true if the agent could not connect to the relay's port.
fn is_refused(error: &io::Error) -> bool {
    matches!(
        TunnelError::of(error),
        Some(TunnelError::DialRefused { .. })
    )
}
