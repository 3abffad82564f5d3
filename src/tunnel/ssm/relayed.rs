//! The route through `pgiam relay`: decides once per target if there is a relay, and gives its
//! connections streams of one bundle.
//!
//! Without a relay, the target's connections use sessions to the database ([`super::supervisor`]).
//! That is decided once, and checked again from time to time beside the connections.

mod bundle;
mod carriers;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use self::bundle::{NotOpened, RelayBundle};
use self::carriers::CarrierKeeper;
use super::pool::SessionPool;
use super::session::SsmSession;
use super::start::SessionStarter;
use super::state::{Repeatability, StreamSlot};
use super::stream::SsmStream;
use crate::base::background;
use crate::base::error_text::plain;
use crate::base::foreign_text::ForeignText;
use crate::base::names::NodeId;
use crate::base::stream::Stream;
use crate::config::{Endpoint, RelaySettings, SsmSettings};
use crate::striping::{Carrier, CarrierEnd};
use crate::tunnel::relay::{RelayAbsence, RelayState, RelayStats};
use crate::tunnel::{ApiRefusal, TunnelError};

/// Time after which a missing relay is looked for again, and the shortest such time, after the
/// bastion has changed.
const LOOK_AGAIN: Duration = Duration::from_secs(5 * 60);
const LOOK_SOON: Duration = Duration::from_secs(60);
/// Time for the relay's first answer, two round trips not counted. It listens on the loopback
/// interface of the node. The first time is shorter: the agent may discard the first bytes of a
/// session (`driver/first_bytes.rs`), and a second stream then works.
const FIRST_ANSWER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];
/// Pause before the next look for a session without a carrier.
const FREE_SOON: Duration = Duration::from_millis(50);
/// Number of bundles that a connection tries.
const ATTEMPTS: usize = 3;
/// Number of sessions in a row that end before the relay's first answer, after which it counts as
/// absent.
const MOST_LOST: usize = 2;

/// The route of one target through a relay.
pub(super) struct RelayRoute {
    relay: RelaySettings,
    settings: SsmSettings,
    endpoint: Endpoint,
    starter: SessionStarter,
    /// Sessions to the relay.
    pool: Arc<SessionPool>,
    /// Sessions to the database, which count as well.
    to_host: Arc<SessionPool>,
    state: watch::Sender<RouteState>,
    memory: Mutex<RouteMemory>,
}

#[derive(Default)]
struct RouteMemory {
    /// Sessions in a row that ended before the relay's first answer.
    lost: usize,
    /// The absence in the log.
    told: Option<RelayAbsence>,
}

/// Result of the search for a relay.
#[derive(Clone)]
enum RouteState {
    /// It begins with the next connection.
    Untried,
    Trying,
    InUse(Arc<RelayBundle>),
    /// There is none, until it is looked for again.
    Absent(Instant, RelayAbsence),
    /// No session could be opened, which says nothing about the relay.
    Failed(TunnelError),
}

/// Next step of a connection.
enum RouteStep {
    Use(Arc<RelayBundle>),
    /// Use a session to the database.
    Without,
    Wait,
}

impl RelayRoute {
    /// Creates the route beside the sessions to the database that `to_host` has.
    pub(super) fn new(
        relay: RelaySettings,
        settings: SsmSettings,
        endpoint: Endpoint,
        starter: &SessionStarter,
        to_host: Arc<SessionPool>,
    ) -> Arc<Self> {
        let starter = starter.to_relay(relay);
        let pool = SessionPool::new(starter.clone(), settings.clone(), starter.destination());
        Arc::new(Self {
            relay,
            settings,
            endpoint,
            starter,
            pool,
            to_host,
            state: watch::Sender::new(RouteState::Untried),
            memory: Mutex::default(),
        })
    }

    /// Opens a stream through the relay, writes `hello` and waits for the first bytes of the far
    /// side; with an empty `hello` it waits for the relay only. `None`: there is no relay. The
    /// caller sets the deadline. Cancel-safe.
    ///
    /// # Errors
    /// The relay's refusal, or the reason why no session could be opened.
    pub(super) async fn open(
        self: &Arc<Self>,
        hello: &Bytes,
    ) -> Result<Option<Stream>, TunnelError> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let Some(bundle) = self.bundle().await? else {
                return Ok(None);
            };
            match bundle.dial(&self.endpoint, hello).await {
                Ok(stream) => return Ok(Some(stream)),
                Err(NotOpened::Over(error)) => last = Some(error),
                Err(NotOpened::NotAllowed(words)) if !self.relay.is_explicit => {
                    let bastion = bundle.bastion().clone();
                    self.do_without(RelayAbsence::NotAllowed { bastion, words });
                    return Ok(None);
                }
                Err(NotOpened::NotAllowed(words)) => {
                    return Err(bundle.not_allowed(&self.endpoint, words));
                }
                Err(NotOpened::Other(error)) => return Err(error),
            }
        }
        match last {
            Some(error) => Err(error),
            None => Ok(None),
        }
    }

    /// Returns the bastion of a relay that has answered; `None`: there is no relay.
    ///
    /// # Errors
    /// The reason why no session could be opened.
    pub(super) async fn prepare(self: &Arc<Self>) -> Result<Option<NodeId>, TunnelError> {
        for _ in 0..ATTEMPTS {
            match self.bundle().await? {
                None => return Ok(None),
                Some(bundle) if bundle.is_confirmed().await => {
                    return Ok(Some(bundle.bastion().clone()));
                }
                Some(_) => {}
            }
        }
        Ok(None)
    }

    /// Returns the bundle of a relay, which may not have answered yet; `None`: there is no relay.
    async fn bundle(self: &Arc<Self>) -> Result<Option<Arc<RelayBundle>>, TunnelError> {
        let mut state = self.state.subscribe();
        loop {
            match self.next() {
                RouteStep::Use(bundle) => return Ok(Some(bundle)),
                RouteStep::Without => return Ok(None),
                RouteStep::Wait => {}
            }
            let settled = |state: &RouteState| !matches!(state, RouteState::Trying);
            match state.wait_for(settled).await.as_deref() {
                Ok(RouteState::Failed(error)) => return Err(error.clone()),
                Ok(_) => {}
                Err(_) => return Err(TunnelError::ShuttingDown),
            }
        }
    }

    /// Returns the next step of a connection, and begins the search for a relay if it is due.
    fn next(self: &Arc<Self>) -> RouteStep {
        let now = Instant::now();
        let mut search = false;
        let mut step = RouteStep::Wait;
        self.state.send_if_modified(|state| match state {
            RouteState::InUse(bundle) if !bundle.is_over() => {
                step = RouteStep::Use(Arc::clone(bundle));
                false
            }
            RouteState::Absent(until, _) => {
                step = RouteStep::Without;
                search = now >= *until;
                if search {
                    *until = now + LOOK_AGAIN;
                }
                false
            }
            RouteState::Trying => false,
            RouteState::Untried | RouteState::InUse(_) | RouteState::Failed(_) => {
                search = true;
                *state = RouteState::Trying;
                true
            }
        });
        if search {
            // A task of its own: a client that gives up must not stop it for the others.
            self.starter.tasks.spawn(Arc::clone(self).search());
        }
        step
    }

    /// Looks for a relay, and keeps its carriers while it is in use.
    async fn search(self: Arc<Self>) {
        let found = background::outcome(Box::pin(self.connect())).await;
        match found.unwrap_or_else(|stopped| Err(NoRelay::Failed(TunnelError::Internal(stopped)))) {
            Ok(keeper) => {
                let bundle = Arc::clone(keeper.bundle());
                if background::outcome(Box::pin(keeper.run())).await.is_err() {
                    bundle
                        .end(TunnelError::Internal(background::TaskStopped))
                        .await;
                }
                self.state.send_if_modified(|state| match state {
                    RouteState::InUse(current) if Arc::ptr_eq(current, &bundle) => {
                        *state = RouteState::Untried;
                        true
                    }
                    _ => false,
                });
            }
            Err(NoRelay::Absent(absence)) => self.do_without(absence),
            Err(NoRelay::Failed(error)) => {
                debug!(%error, "cannot open a session to the relay");
                self.state.send_if_modified(|state| match state {
                    // The search was beside connections that do without.
                    RouteState::Absent(..) => false,
                    state => {
                        *state = RouteState::Failed(error);
                        true
                    }
                });
            }
        }
    }

    /// Opens a session and waits for the relay's answer. Streams may be opened meanwhile.
    async fn connect(self: &Arc<Self>) -> Result<CarrierKeeper, NoRelay> {
        let (session, mut stream) = loop {
            match self.pool.open_alone(None, self.most_sessions()).await {
                Ok(Some(opened)) => break opened,
                // The sessions of an ended bundle are about to be free.
                Ok(None) => sleep(FREE_SOON).await,
                Err(error) => return Err(refused(error)),
            }
        };
        for patience in FIRST_ANSWER {
            let (bundle, mut carrier) = self.begin(&session, stream)?;
            let (_, round_trip) = session.is_proven();
            match timeout(patience + 2 * round_trip, carrier.ready()).await {
                Ok(Ok(())) => return Ok(self.in_use(bundle, session, carrier)),
                Ok(Err(end)) => return Err(self.not_ready(&bundle, &session, end).await),
                Err(_) => {}
            }
            // Connections that wait for this bundle must not begin a further search.
            self.unless_absent(RouteState::Trying);
            bundle
                .end(TunnelError::Stranded {
                    bastion: session.bastion().to_string(),
                })
                .await;
            let destination = self.starter.destination();
            let slot = StreamSlot::new(destination, Repeatability::Repeatable, None);
            match session.open(slot) {
                Ok(again) => stream = again,
                Err(_) => break,
            }
        }
        let (bastion, port) = (session.bastion().clone(), self.relay.port);
        session.retire();
        Err(NoRelay::Absent(RelayAbsence::Silent { bastion, port }))
    }

    /// Begins a bundle with one carrier, which connections may use at once.
    fn begin(
        &self,
        session: &SsmSession,
        stream: SsmStream,
    ) -> Result<(Arc<RelayBundle>, Carrier), NoRelay> {
        let timeout = self.settings.dial_timeout;
        let bundle = RelayBundle::new(session.bastion().clone(), timeout, &self.starter);
        let carrier = bundle.attach(0, 1, stream).map_err(NoRelay::Failed)?;
        self.unless_absent(RouteState::InUse(Arc::clone(&bundle)));
        Ok((bundle, carrier))
    }

    /// Changes the state, unless connections do without a relay until its answer.
    fn unless_absent(&self, next: RouteState) {
        self.state.send_if_modified(|state| match state {
            RouteState::Absent(..) => false,
            state => {
                *state = next;
                true
            }
        });
    }

    fn in_use(
        self: &Arc<Self>,
        bundle: Arc<RelayBundle>,
        session: SsmSession,
        carrier: Carrier,
    ) -> CarrierKeeper {
        bundle.confirm();
        self.starter.dial_worked(session.bastion());
        *self.lock() = RouteMemory::default();
        self.state
            .send_replace(RouteState::InUse(Arc::clone(&bundle)));
        info!(
            bastion = %session.bastion(),
            port = self.relay.port,
            sessions = self.relay.sessions,
            "connections use the relay of the bastion"
        );
        CarrierKeeper::new(Arc::clone(self), bundle, session, carrier)
    }

    /// Returns the reason for a carrier that has ended before the relay's answer.
    async fn not_ready(
        &self,
        bundle: &RelayBundle,
        session: &SsmSession,
        end: CarrierEnd,
    ) -> NoRelay {
        let (bastion, port) = (session.bastion().clone(), self.relay.port);
        let none = match end {
            CarrierEnd::NotRelay(error) => NoRelay::Absent(RelayAbsence::NotRelay {
                bastion,
                port,
                reason: ForeignText::new(&error.to_string()),
            }),
            CarrierEnd::Refused(refusal) => NoRelay::Absent(RelayAbsence::Refused {
                bastion,
                words: ForeignText::new(&refusal.words),
            }),
            CarrierEnd::Closed => NoRelay::Absent(RelayAbsence::NothingListens { bastion, port }),
            CarrierEnd::Lost(error) => match TunnelError::of(&error) {
                Some(TunnelError::DialRefused { .. }) => {
                    NoRelay::Absent(RelayAbsence::NothingListens { bastion, port })
                }
                Some(error) => self.session_lost(error.clone()),
                None => self.session_lost(TunnelError::ChannelLost {
                    reason: plain(&error),
                }),
            },
            CarrierEnd::Detached | CarrierEnd::BundleOver => {
                NoRelay::Failed(TunnelError::ShuttingDown)
            }
        };
        session.retire();
        match &none {
            // First the state: connections that wait for the bundle look at it.
            NoRelay::Absent(absence) => {
                self.starter.dial_failed(session.bastion());
                self.do_without(absence.clone());
                bundle
                    .end(TunnelError::Stranded {
                        bastion: session.bastion().to_string(),
                    })
                    .await;
            }
            NoRelay::Failed(error) => {
                self.unless_absent(RouteState::Failed(error.clone()));
                bundle.end(error.clone()).await;
            }
        }
        none
    }

    /// Counts a session that has ended before the relay's answer.
    fn session_lost(&self, error: TunnelError) -> NoRelay {
        let mut memory = self.lock();
        memory.lost += 1;
        match memory.lost {
            MOST_LOST.. => {
                memory.lost = 0;
                let reason = ForeignText::new(&error.to_string());
                NoRelay::Absent(RelayAbsence::SessionLost(reason))
            }
            _ => NoRelay::Failed(error),
        }
    }

    /// Lets the connections use sessions to the database, and tells the reason once.
    fn do_without(&self, absence: RelayAbsence) {
        let pause = match self.starter.has_other_bastions() {
            true => LOOK_SOON,
            false => LOOK_AGAIN,
        };
        let until = Instant::now() + pause;
        self.state
            .send_replace(RouteState::Absent(until, absence.clone()));
        let told = self.lock().told.replace(absence.clone());
        if told.as_ref() == Some(&absence) {
            return;
        }
        let (reason, remedy) = (absence.to_string(), absence.remedy());
        if self.relay.is_explicit {
            warn!(%reason, remedy, "cannot use the relay; using sessions to the database");
        } else {
            info!(%reason, remedy, "found no relay; using sessions to the database");
        }
    }

    /// Notes the bastion of a connection without the relay. A relay may run on this one.
    pub(super) fn note_bastion(&self, bastion: &NodeId) {
        let soon = Instant::now() + LOOK_SOON;
        self.state.send_if_modified(|state| {
            if let RouteState::Absent(until, absence) = state
                && absence.bastion().is_some_and(|absent| absent != bastion)
            {
                *until = soon.min(*until);
            }
            false
        });
    }

    /// Returns the reason why connections do without a relay.
    pub(super) fn absence(&self) -> Option<RelayAbsence> {
        match &*self.state.borrow() {
            RouteState::Absent(_, absence) => Some(absence.clone()),
            _ => None,
        }
    }

    /// Returns the maximum number of sessions to the relay now.
    fn most_sessions(&self) -> usize {
        let others = self.to_host.open_sessions();
        self.relay.sessions.saturating_sub(others).max(1)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, RouteMemory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reason why a search found no relay.
enum NoRelay {
    /// Connections do without it.
    Absent(RelayAbsence),
    /// Connections fail: a session to the database would fail as well.
    Failed(TunnelError),
}

/// Returns the meaning of a session that could not be opened.
fn refused(error: TunnelError) -> NoRelay {
    if let Some(reason) = denied(&error) {
        return NoRelay::Absent(RelayAbsence::Denied(reason));
    }
    match error {
        // The pool remembers a session that ended early.
        TunnelError::NameNotResolved { .. }
        | TunnelError::SessionEnded { .. }
        | TunnelError::ChannelLost { .. }
        | TunnelError::Protocol { .. } => NoRelay::Absent(RelayAbsence::SessionLost(
            ForeignText::new(&error.to_string()),
        )),
        error => NoRelay::Failed(error),
    }
}

/// Returns AWS's words if it refuses the session document or its use, so that another one may work.
pub(super) fn denied(error: &TunnelError) -> Option<ForeignText> {
    match error {
        TunnelError::Api {
            kind:
                ApiRefusal::AccessDenied
                | ApiRefusal::DeniedByOrganisation
                | ApiRefusal::InvalidDocument,
            answer,
            ..
        } => Some(answer.message.clone()),
        TunnelError::AllBastions(tried, _) => {
            let mut reasons = tried.iter().map(|(_, error)| denied(error));
            let first = reasons.next().flatten()?;
            reasons.all(|reason| reason.is_some()).then_some(first)
        }
        _ => None,
    }
}

/// Status.
impl RelayRoute {
    /// Returns the route's state, and the sessions to the relay.
    pub(super) fn stats(&self) -> (RelayStats, crate::tunnel::TunnelStats) {
        let state = match &*self.state.borrow() {
            RouteState::Untried => RelayState::Untried,
            RouteState::Trying => RelayState::Trying,
            RouteState::InUse(bundle) => RelayState::InUse {
                bastion: bundle.bastion().clone(),
                carriers: bundle.ready(),
            },
            RouteState::Absent(_, absence) => RelayState::Absent(absence.clone()),
            RouteState::Failed(_) => RelayState::Failed,
        };
        let stats = RelayStats {
            port: self.relay.port,
            sessions: self.relay.sessions,
            state,
        };
        (stats, self.pool.stats())
    }

    /// Returns the readiness of a route that is in use or being tried.
    pub(super) fn readiness(&self) -> Option<crate::tunnel::Readiness> {
        use crate::tunnel::Readiness::{Interrupted, Starting, Up};
        match &*self.state.borrow() {
            RouteState::InUse(bundle) if bundle.is_over() => None,
            RouteState::InUse(bundle) if bundle.ready() > 0 => Some(Up),
            RouteState::InUse(_) => Some(Interrupted),
            RouteState::Trying => Some(Starting),
            RouteState::Untried | RouteState::Absent(..) | RouteState::Failed(_) => None,
        }
    }

    /// Returns the step that the search waits for, as a noun.
    pub(super) fn step(&self) -> Option<&'static str> {
        self.starter.step()
    }

    /// Ends all sessions to the relay and waits for that.
    pub(super) async fn shutdown(&self) {
        self.pool.shutdown().await;
    }
}
