//! Current connections.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use super::Observed;
use crate::base::foreign_text::ForeignText;
use crate::base::names::TargetName;

/// Maximum characters kept of a client's program name; PostgreSQL keeps 63 bytes.
const LONGEST_NAME: usize = 63;

/// Byte counters of one connection, and of all connections to its target. Counting is a relaxed
/// addition to each.
#[derive(Debug, Default)]
pub struct Traffic {
    up: AtomicU64,
    down: AtomicU64,
    target_up: Counter,
    target_down: Counter,
}

impl Traffic {
    pub(super) fn new(target_up: Counter, target_down: Counter) -> Self {
        Self {
            target_up,
            target_down,
            ..Self::default()
        }
    }

    /// Counts bytes sent to the server.
    pub fn sent(&self, bytes: usize) {
        self.up.fetch_add(bytes as u64, Ordering::Relaxed);
        self.target_up.inc_by(bytes as u64);
    }

    /// Counts bytes sent to the client.
    pub fn received(&self, bytes: usize) {
        self.down.fetch_add(bytes as u64, Ordering::Relaxed);
        self.target_down.inc_by(bytes as u64);
    }
}

/// A connection after its startup packet.
#[derive(Clone, Copy, Debug)]
pub struct NewConnection<'a> {
    /// Name of the target.
    pub target: &'a TargetName,
    /// Database role; empty if there is none.
    pub user: &'a str,
    /// Database; empty if there is none.
    pub database: &'a str,
    /// Name of the client program (`application_name`).
    pub program: &'a [u8],
    /// Origin of the connection.
    pub peer: &'a str,
    /// Time of arrival.
    pub since: Instant,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    /// Unique number of the connection in this process.
    pub id: u64,
    /// Name of the target.
    pub target: TargetName,
    /// Database role; empty if there is none.
    pub user: String,
    database: Mutex<String>,
    /// Name of the client program.
    pub program: String,
    /// Origin of the connection.
    pub peer: String,
    /// Time of arrival.
    pub since: Instant,
    open: AtomicBool,
    traffic: Traffic,
}

impl Connection {
    /// Returns the database; empty if there is none.
    #[must_use]
    pub fn database(&self) -> String {
        // It is replaced as a whole.
        let database = self.database.lock();
        database.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns `true` if the login is complete.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Returns the bytes sent to the server.
    #[must_use]
    pub fn bytes_up(&self) -> u64 {
        self.traffic.up.load(Ordering::Relaxed)
    }

    /// Returns the bytes sent to the client.
    #[must_use]
    pub fn bytes_down(&self) -> u64 {
        self.traffic.down.load(Ordering::Relaxed)
    }
}

/// Keeps a connection in the list while it lives.
#[derive(Debug)]
pub struct LiveConnection {
    observed: Arc<Observed>,
    connection: Arc<Connection>,
}

impl LiveConnection {
    pub(super) fn new(observed: Arc<Observed>, connection: Arc<Connection>) -> Self {
        Self {
            observed,
            connection,
        }
    }

    /// Marks the login as complete.
    pub fn opened(&self) {
        self.connection.open.store(true, Ordering::Release);
    }

    /// Sets the database that the connection turned out to use.
    pub fn leads_to(&self, database: &str) {
        let known = self.connection.database.lock();
        *known.unwrap_or_else(PoisonError::into_inner) = cut(database.as_bytes());
    }

    /// Returns the byte counters.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.connection.traffic
    }
}

impl Drop for LiveConnection {
    fn drop(&mut self) {
        self.observed.forget(self.connection.id);
    }
}

/// List of the current connections.
#[derive(Debug, Default)]
pub(super) struct Live(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    last_id: u64,
    all: BTreeMap<u64, Arc<Connection>>,
}

impl Live {
    pub(super) fn add(&self, connection: NewConnection<'_>, traffic: Traffic) -> Arc<Connection> {
        let mut known = self.lock();
        known.last_id += 1;
        let id = known.last_id;
        let connection = Arc::new(Connection {
            id,
            target: connection.target.to_owned(),
            user: cut(connection.user.as_bytes()),
            database: Mutex::new(cut(connection.database.as_bytes())),
            program: cut(connection.program),
            peer: connection.peer.to_owned(),
            since: connection.since,
            open: AtomicBool::new(false),
            traffic,
        });
        known.all.insert(id, Arc::clone(&connection));
        connection
    }

    pub(super) fn remove(&self, id: u64) {
        self.lock().all.remove(&id);
    }

    pub(super) fn all(&self) -> Vec<Arc<Connection>> {
        self.lock().all.values().cloned().collect()
    }

    pub(super) fn count(&self) -> usize {
        self.lock().all.len()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // A panic cannot leave half of an entry.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shortens a client's program name and removes terminal control characters.
fn cut(text: &[u8]) -> String {
    let text = ForeignText::of_bytes(text);
    text.chars().take(LONGEST_NAME).collect()
}
