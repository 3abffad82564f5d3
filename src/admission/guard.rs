//! Whose connections are admitted, and how much is said of those that are not.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracing::warn;

use super::{Arrival, Refusal};
use crate::base::flood::{Flood, Flow};
use crate::platform::descriptors;
use crate::platform::peer::{self, Owner, OwnerLookup};

/// Most refusals that are told to their clients and to the log, within [`WINDOW`]. Beyond them
/// connections are closed and counted: another user could otherwise fill the log, and keep as many
/// answers under way as he opens connections.
const MOST_REFUSALS: u32 = 64;
const WINDOW: Duration = Duration::from_secs(1);

/// How often it is logged that connections cannot be accepted.
const COMPLAINT: Duration = Duration::from_secs(10);

/// Decides which connections are admitted. One for all entrances with the same clients.
#[derive(Debug)]
pub struct Guard {
    /// The user whose clients are admitted; `None`: everybody's are.
    own: Option<u32>,
    /// Connections that would take one of the last descriptors are refused.
    keeps_reserve: bool,
    lookup: OwnerLookup,
    refusals: Flood,
    /// Clients that were gone, counted apart.
    gone: Flood,
    /// Places for refused strangers that are being told; each holds a descriptor.
    told: Arc<Semaphore>,
    complained: Mutex<Option<Instant>>,
}

/// Whether one more refusal is told, if there is a `place` for it; if not, it is counted.
fn lets_through(flood: &Flood, refusal: &Refusal, place: bool) -> bool {
    match flood.next_if(place) {
        Flow::Through { held: 0 } => true,
        Flow::Through { held } => {
            warn!(
                connections = held,
                "closed more refused connections without an answer"
            );
            true
        }
        Flow::First => {
            warn!(
                reason = %refusal,
                "too many connections are refused at a time; closing the others without an answer"
            );
            false
        }
        Flow::Held => false,
    }
}

/// How many refused strangers may be told at a time when this process may have `limit` descriptors:
/// a small share, as they may be silent until their time is over.
fn most_told(limit: Option<u64>) -> usize {
    let all = u64::from(MOST_REFUSALS);
    let share = limit.map_or(all, |limit| (limit / 16).clamp(2, all));
    usize::try_from(share).unwrap_or(1)
}

/// A place among the refused clients that are being told. Goes with the connection.
#[derive(Debug, Default)]
pub struct Told {
    _place: Option<OwnedSemaphorePermit>,
    quiet: bool,
}

impl Told {
    /// Whether the log has enough of such refusals for this second: this one is counted there, and has
    /// no line of its own.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }
}

impl Guard {
    /// Admits the clients of the user who runs pgiam, and with `peer_check = false` everybody's.
    #[must_use]
    pub fn of_clients(peer_check: bool) -> Self {
        let own = peer_check.then(peer::own_uid).flatten();
        let lookup = match own {
            Some(_) => OwnerLookup::open(),
            None => OwnerLookup::default(),
        };
        Self::new(own, true, lookup)
    }

    /// Admits the user who runs pgiam to what controls it, whatever is configured, and also with the
    /// last descriptors.
    #[must_use]
    pub fn of_control() -> Self {
        Self::new(peer::own_uid(), false, OwnerLookup::default())
    }

    /// Admits everybody to what anybody may see, also with the last descriptors: a health check is to
    /// hear that pgiam lives. [`super::Admitted::is_owners`] is never true here.
    #[must_use]
    pub fn of_everybody() -> Self {
        Self::new(None, false, OwnerLookup::default())
    }

    fn new(own: Option<u32>, keeps_reserve: bool, lookup: OwnerLookup) -> Self {
        Self {
            own,
            keeps_reserve,
            lookup,
            refusals: Flood::new(MOST_REFUSALS, WINDOW),
            gone: Flood::new(MOST_REFUSALS, WINDOW),
            told: Arc::new(Semaphore::new(most_told(descriptors::limit()))),
            complained: Mutex::new(None),
        }
    }

    #[cfg(test)]
    pub(super) fn with_places(mut self, places: usize) -> Self {
        self.told = Arc::new(Semaphore::new(places));
        self
    }

    /// The decision about a connection whose owner is known at once; `None` where
    /// [`Guard::judge_by_tables`] has to find it. `last`: the limit of descriptors, when the
    /// connection has one of the last.
    ///
    /// Every TCP client is looked for, whatever its address: a program may give its end any address
    /// of the machine, and 127.0.0.1 answers it all the same.
    pub(super) fn judge(
        &self,
        arrival: Arrival,
        last: Option<u64>,
    ) -> Option<Result<bool, Refusal>> {
        let judged = self.whose(arrival)?;
        Some(judged.and_then(|is_owners| self.spare(is_owners, last)))
    }

    /// Refuses to take one of the last descriptors. Comes after the owner: another user learns nothing
    /// about how this one is doing.
    fn spare(&self, is_owners: bool, last: Option<u64>) -> Result<bool, Refusal> {
        match last {
            Some(_) if self.keeps_reserve => Err(Refusal::OutOfDescriptors { limit: last }),
            _ => Ok(is_owners),
        }
    }

    fn whose(&self, arrival: Arrival) -> Option<Result<bool, Refusal>> {
        let Some(own) = self.own else {
            return Some(Ok(false));
        };
        match arrival {
            Arrival::Unix { uid } => Some(judge(Ok(Owner::User(uid)), own, true)),
            Arrival::Tcp { peer, ours } => {
                let owner = self.lookup.at_once(ours, peer)?;
                Some(judge(Ok(owner), own, is_of_this_machine(ours, peer)))
            }
        }
    }

    /// The same, by the kernel's tables.
    pub(super) async fn judge_by_tables(
        &self,
        (ours, peer): (SocketAddr, SocketAddr),
        last: Option<u64>,
    ) -> Result<bool, Refusal> {
        let Some(own) = self.own else {
            return self.spare(false, last);
        };
        let owner = self.lookup.in_tables(ours, peer).await;
        let is_owners = judge(owner, own, is_of_this_machine(ours, peer))?;
        self.spare(is_owners, last)
    }

    /// The place in which a refusal is told to its client and to the log; `None`: the connection is
    /// closed, and counted. `last`: the connection has one of the last descriptors, which strangers
    /// do not keep.
    pub(super) fn tells(&self, refusal: &Refusal, last: bool) -> Option<Told> {
        let place = match refusal {
            // Its words are here already, or none are. It may have left a cancel request, so it is
            // always heard.
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

    /// Logs that no connection can be accepted, now and then: every entrance meets it, again and
    /// again.
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
            warn!(%error, "accept failed; trying again");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counters: a panic leaves nothing half done that matters.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether no other machine can be at the other end: loopback addresses do not leave theirs (RFC
/// 1122, 3.2.1.3, and RFC 4291, 2.5.3), so one at either end is enough.
pub(super) fn is_of_this_machine(ours: SocketAddr, peer: SocketAddr) -> bool {
    peer::is_loopback(ours.ip()) || peer::is_loopback(peer.ip())
}

/// Whether a client may be admitted whose `owner` is this, by a program of the user `own`, and whether
/// it is that user's. Other machines' clients, which nobody here owns, are admitted, or not, by the
/// password.
pub(super) fn judge(
    owner: io::Result<Owner>,
    own: u32,
    is_of_this_machine: bool,
) -> Result<bool, Refusal> {
    match owner {
        Ok(Owner::User(peer)) if peer != own => Err(Refusal::Foreign { peer, own }),
        Ok(Owner::User(_)) => Ok(true),
        Ok(Owner::Unknown) => Ok(false),
        Ok(Owner::Gone) => Err(Refusal::Gone),
        Err(error) if descriptors::are_exhausted(&error) => Err(out_of_descriptors(&error)),
        Ok(Owner::NotListed) | Err(_) if !is_of_this_machine => Ok(false),
        // Not knowing is not a reason to let somebody in.
        Ok(Owner::NotListed) => Err(Refusal::Unknown(io::Error::new(
            io::ErrorKind::NotFound,
            "the kernel lists no such socket here, as when it is in another network namespace or its addresses were translated on the way",
        ))),
        Err(error) => Err(Refusal::Unknown(error)),
    }
}

fn out_of_descriptors(error: &io::Error) -> Refusal {
    Refusal::OutOfDescriptors {
        limit: descriptors::limit_reached(error),
    }
}
