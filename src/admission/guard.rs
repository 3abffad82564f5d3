//! Decision which connections are admitted, and rate limits for the refusals.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracing::warn;

use super::{Arrival, Refusal, is_of_this_machine};
use crate::base::event_limit::{EventDecision, EventLimiter};
use crate::platform::descriptors;
use crate::platform::peer::{KNOWS_TCP_OWNERS, OwnerLookup, PeerOwner};
use crate::platform::user::{UserId, own_user};

/// Maximum number of refusals within [`WINDOW`] that are answered and logged. Connections beyond it
/// are closed and counted: otherwise another user could fill the log, and keep an answer in
/// progress for every connection that this user opens.
const MOST_REFUSALS: u32 = 64;
const WINDOW: Duration = Duration::from_secs(1);

/// Minimum interval between log messages about failed accepts.
const COMPLAINT: Duration = Duration::from_secs(10);

/// Decides which connections are admitted. Entrances with the same clients share one guard.
#[derive(Debug)]
pub struct Guard {
    /// User of the admitted clients; `None`: all clients are admitted.
    own: Option<UserId>,
    /// All clients are admitted; [`Guard::is_owners`] decides when a request needs it.
    decides_later: bool,
    /// Connections that would take one of the last descriptors are refused.
    keeps_reserve: bool,
    lookup: OwnerLookup,
    refusals: EventLimiter,
    /// Closed clients, counted separately.
    gone: EventLimiter,
    /// Places for refused connections that are being answered; each holds a descriptor.
    told: Arc<Semaphore>,
    complained: Mutex<Option<Instant>>,
}

/// Clients whose owner [`Guard::of_clients`] knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownOwners {
    /// Clients of this machine, as far as the system reports them.
    All,
    /// Clients of the Unix sockets.
    OfUnixSockets,
    /// None, with `peer_check = false` or on a system without users.
    None,
}

impl KnownOwners {
    /// Returns the clients whose owner a guard knows with this `peer_check`.
    #[must_use]
    pub fn with(peer_check: bool) -> Self {
        match own_user().filter(|_| peer_check) {
            Some(_) if KNOWS_TCP_OWNERS => Self::All,
            Some(_) => Self::OfUnixSockets,
            None => Self::None,
        }
    }
}

/// Returns `true` if another refusal may be answered, given a `place` for it; otherwise it is
/// counted.
fn lets_through(flood: &EventLimiter, refusal: &Refusal, place: bool) -> bool {
    match flood.next_if(place) {
        EventDecision::Through { held: 0 } => true,
        EventDecision::Through { held } => {
            warn!(
                connections = held,
                "closed more refused connections without an answer"
            );
            true
        }
        EventDecision::First => {
            warn!(
                reason = %refusal,
                "too many refused connections; closing further ones without an answer"
            );
            false
        }
        EventDecision::Held => false,
    }
}

/// Returns the maximum number of refused connections that are answered at a time when this process
/// may have `limit` descriptors: a small share, because such a client may stay silent until its
/// timeout.
fn most_told(limit: Option<u64>) -> usize {
    let all = u64::from(MOST_REFUSALS);
    let share = limit.map_or(all, |limit| (limit / 16).clamp(2, all));
    usize::try_from(share).unwrap_or(1)
}

/// A place among the refusals being answered. It is kept as long as the connection.
#[derive(Debug, Default)]
pub struct Told {
    _place: Option<OwnedSemaphorePermit>,
    quiet: bool,
}

impl Told {
    /// Returns `true` if the log limit for such refusals is reached in this second: this one is
    /// counted, and has no line of its own.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }
}

impl Guard {
    /// Admits the clients of pgiam's user; with `peer_check = false` all clients.
    #[must_use]
    pub fn of_clients(peer_check: bool) -> Self {
        let own = peer_check.then(own_user).flatten();
        let lookup = match own {
            Some(_) => OwnerLookup::open(),
            None => OwnerLookup::default(),
        };
        Self::new(own, true, lookup)
    }

    /// Admits only pgiam's user, for control requests, whatever the configuration, also with the
    /// last descriptors.
    #[must_use]
    pub fn of_control() -> Self {
        Self::new(own_user(), false, OwnerLookup::default())
    }

    /// Admits all clients to public information, also with the last descriptors and without a
    /// lookup, so that a health check succeeds while pgiam runs. [`Guard::is_owners`] decides about
    /// private information.
    #[must_use]
    pub fn of_http(peer_check: bool) -> Self {
        Self {
            decides_later: true,
            keeps_reserve: false,
            ..Self::of_clients(peer_check)
        }
    }

    /// Looks up the owner of a client that was admitted without. Returns `true` if the client
    /// belongs to pgiam's user, and `false` if owners are not looked up or not reported.
    /// Cancel-safe.
    ///
    /// # Errors
    /// The reason why this client may have public information only.
    pub async fn is_owners(&self, arrival: Arrival) -> Result<bool, Refusal> {
        match (self.judge_at_once(arrival), arrival) {
            (Some(judged), _) => judged,
            (None, Arrival::Tcp { peer, ours }) => self.judge_by_tables((ours, peer), None).await,
            // The peer of a Unix socket is always known.
            (None, Arrival::Local { .. }) => Ok(false),
        }
    }

    fn new(own: Option<UserId>, keeps_reserve: bool, lookup: OwnerLookup) -> Self {
        Self {
            own,
            decides_later: false,
            keeps_reserve,
            lookup,
            refusals: EventLimiter::new(MOST_REFUSALS, WINDOW),
            gone: EventLimiter::new(MOST_REFUSALS, WINDOW),
            told: Arc::new(Semaphore::new(most_told(descriptors::limit()))),
            complained: Mutex::new(None),
        }
    }

    #[cfg(test)]
    pub(super) fn with_places(mut self, places: usize) -> Self {
        self.told = Arc::new(Semaphore::new(places));
        self
    }

    /// Decides about a connection with an owner that is known at once; `None` if
    /// [`Guard::judge_by_tables`] has to find it. `last`: the limit of descriptors, if the
    /// connection has one of the last.
    ///
    /// Every TCP client is looked up, whatever its address: a program may bind its end to any
    /// address of the machine and still connect to 127.0.0.1.
    pub(super) fn judge(
        &self,
        arrival: Arrival,
        last: Option<u64>,
    ) -> Option<Result<bool, Refusal>> {
        let judged = self.judge_owner(arrival)?;
        Some(judged.and_then(|is_owners| self.check_reserve(is_owners, last)))
    }

    /// Refuses a connection that has one of the last descriptors. This check comes after the
    /// owner's, so that another user learns nothing about the load.
    fn check_reserve(&self, is_owners: bool, last: Option<u64>) -> Result<bool, Refusal> {
        match last {
            Some(_) if self.keeps_reserve => Err(Refusal::OutOfDescriptors { limit: last }),
            _ => Ok(is_owners),
        }
    }

    fn judge_owner(&self, arrival: Arrival) -> Option<Result<bool, Refusal>> {
        match self.decides_later {
            true => Some(Ok(false)),
            false => self.judge_at_once(arrival),
        }
    }

    /// Decides by an owner that the system reports at once.
    fn judge_at_once(&self, arrival: Arrival) -> Option<Result<bool, Refusal>> {
        let Some(own) = self.own else {
            return Some(Ok(false));
        };
        match arrival {
            Arrival::Local { user } => Some(judge(Ok(PeerOwner::User(user)), own, true)),
            Arrival::Tcp { peer, ours } => {
                let owner = self.lookup.at_once(ours, peer)?;
                Some(judge(Ok(owner), own, is_of_this_machine(ours, peer)))
            }
        }
    }

    /// Decides about a connection by the kernel's tables.
    pub(super) async fn judge_by_tables(
        &self,
        (ours, peer): (SocketAddr, SocketAddr),
        last: Option<u64>,
    ) -> Result<bool, Refusal> {
        let Some(own) = self.own else {
            return self.check_reserve(false, last);
        };
        let owner = self.lookup.in_tables(ours, peer).await;
        let is_owners = judge(owner, own, is_of_this_machine(ours, peer))?;
        self.check_reserve(is_owners, last)
    }

    /// Returns the place for a refusal that is answered and logged; `None`: the connection is
    /// closed and counted. `last`: the connection has one of the last descriptors, which refused
    /// clients do not keep.
    pub(super) fn tells(&self, refusal: &Refusal, last: bool) -> Option<Told> {
        let place = match refusal {
            // The client has sent all its bytes already, or none. They may contain a cancel
            // request, so they are always read.
            Refusal::Gone => {
                let quiet = !lets_through(&self.gone, refusal, true);
                return Some(Told {
                    quiet,
                    ..Told::default()
                });
            }
            Refusal::OutOfDescriptors { .. } => Ok(None),
            Refusal::Foreign { .. } | Refusal::Unknown(_) if last => Err(()),
            Refusal::Foreign { .. } | Refusal::Unknown(_) => {
                let place = Arc::clone(&self.told).try_acquire_owned();
                place.map(Some).map_err(drop)
            }
        };
        let tells = lets_through(&self.refusals, refusal, place.is_ok());
        let told = |_place| Told {
            _place,
            quiet: false,
        };
        place.ok().filter(|_| tells).map(told)
    }

    /// Logs that no connection can be accepted, rate-limited: every entrance meets the error
    /// repeatedly.
    pub(super) fn complain(&self, error: &io::Error) {
        let mut complained = lock(&self.complained);
        if complained.is_some_and(|at| at.elapsed() < COMPLAINT) {
            return;
        }
        *complained = Some(Instant::now());
        if descriptors::are_exhausted(error) {
            let limit = descriptors::limit();
            warn!(
                id = "limit.descriptors",
                limit,
                %error,
                "out of file descriptors; new connections wait until one is free"
            );
        } else {
            warn!(%error, "accept failed; retrying");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counters: a panic cannot leave them inconsistent.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Decides whether pgiam, run by the user `own`, admits a client with this `owner`. Returns `true`
/// if the client belongs to `own`. Clients of other machines, which have no owner here, are
/// authenticated by the password.
pub(super) fn judge(
    owner: io::Result<PeerOwner>,
    own: UserId,
    is_of_this_machine: bool,
) -> Result<bool, Refusal> {
    match owner {
        Ok(PeerOwner::User(peer)) if peer != own => Err(Refusal::Foreign { peer, own }),
        Ok(PeerOwner::User(_)) => Ok(true),
        Ok(PeerOwner::Unknown) => Ok(false),
        Ok(PeerOwner::Gone) => Err(Refusal::Gone),
        Err(error) if descriptors::are_exhausted(&error) => Err(out_of_descriptors(&error)),
        Ok(PeerOwner::NotListed) | Err(_) if !is_of_this_machine => Ok(false),
        // An unknown owner is not admitted.
        Ok(PeerOwner::NotListed) => Err(Refusal::Unknown(io::Error::new(
            io::ErrorKind::NotFound,
            "the kernel does not list its socket; possible causes: another network namespace, or address translation",
        ))),
        Err(error) => Err(Refusal::Unknown(error)),
    }
}

fn out_of_descriptors(error: &io::Error) -> Refusal {
    Refusal::OutOfDescriptors {
        limit: descriptors::limit_reached(error),
    }
}
