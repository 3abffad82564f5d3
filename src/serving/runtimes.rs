//! Runtimes of connections: one thread per processor, and each connection stays on its thread.
//!
//! A runtime that moves tasks between threads wakes another thread for every second message of a
//! busy connection, which costs more than the copying. Connections on the thread of a runtime wake
//! only that thread, by their sockets becoming ready.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Stack of a thread, in bytes, as tokio has it for its own.
const STACK: usize = 2 * 1024 * 1024;

/// Runtimes of one thread each. They end when this is dropped, and with them their tasks.
pub struct ConnectionRuntimes {
    /// Never empty.
    runtimes: Vec<ConnectionRuntime>,
    _stop: DropGuard,
}

struct ConnectionRuntime {
    handle: Handle,
    connections: Arc<AtomicUsize>,
}

/// A place of a connection on one of the runtimes, counted until it is dropped.
pub(super) struct RuntimePlace {
    pub(super) handle: Handle,
    connections: Arc<AtomicUsize>,
}

impl Drop for RuntimePlace {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ConnectionRuntimes {
    /// Starts a runtime for each processor that this process may use.
    ///
    /// # Errors
    /// The system's error if a thread or its event queue cannot be created.
    pub fn start() -> io::Result<Self> {
        Self::with(thread::available_parallelism().map_or(1, usize::from))
    }

    fn with(threads: usize) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let runtimes = (0..threads.max(1)).map(|number| ConnectionRuntime::start(number, &stop));
        let runtimes = runtimes.collect::<io::Result<_>>()?;
        Ok(Self {
            runtimes,
            _stop: stop.drop_guard(),
        })
    }

    /// Returns a place on the runtime with the fewest connections.
    pub(super) fn place(&self) -> RuntimePlace {
        let load = |runtime: &&ConnectionRuntime| runtime.connections.load(Ordering::Relaxed);
        let least = self.runtimes.iter().min_by_key(load);
        let ConnectionRuntime {
            handle,
            connections,
        } = least.unwrap_or(&self.runtimes[0]);
        connections.fetch_add(1, Ordering::Relaxed);
        RuntimePlace {
            handle: handle.clone(),
            connections: Arc::clone(connections),
        }
    }
}

impl ConnectionRuntime {
    fn start(number: usize, stop: &CancellationToken) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let stop = stop.clone();
        thread::Builder::new()
            .name(format!("connections-{number}"))
            .stack_size(STACK)
            .spawn(move || {
                runtime.block_on(stop.cancelled());
                // A name lookup may hang in its thread; its answer is no longer needed.
                runtime.shutdown_background();
            })?;
        Ok(Self {
            handle,
            connections: Arc::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_spread_evenly_and_stay_on_their_thread() {
        let runtimes = ConnectionRuntimes::with(3).unwrap();
        let places: Vec<_> = (0..6).map(|_| runtimes.place()).collect();
        let counts = || {
            let all = runtimes.runtimes.iter();
            all.map(|runtime| runtime.connections.load(Ordering::Relaxed))
                .collect::<Vec<_>>()
        };
        assert_eq!(counts(), [2, 2, 2]);
        let thread_of = |place: &RuntimePlace| {
            let (tell, told) = std::sync::mpsc::channel();
            place.handle.spawn(async move {
                let first = thread::current().id();
                tokio::task::yield_now().await;
                _ = tell.send((first, thread::current().id()));
            });
            told.recv().unwrap()
        };
        let threads: Vec<_> = places.iter().map(thread_of).collect();
        assert!(threads.iter().all(|(first, last)| first == last));
        assert_eq!(threads[0], threads[3]);
        assert_ne!(threads[0], threads[1]);
        drop(places);
        assert_eq!(counts(), [0, 0, 0]);
    }

    #[test]
    fn tasks_end_with_the_runtimes() {
        let runtimes = ConnectionRuntimes::with(1).unwrap();
        let (task, ended) = std::sync::mpsc::channel::<()>();
        runtimes.place().handle.spawn(async move {
            let _task = task;
            std::future::pending::<()>().await;
        });
        drop(runtimes);
        // The channel closes when the task is dropped.
        assert!(ended.recv().is_err());
    }
}
