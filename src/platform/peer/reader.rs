//! Reads the kernel's tables of TCP sockets for all waiting lookups, one reading at a time.

use std::io;

use tokio::sync::{mpsc, oneshot};

use super::{PeerOwner, SocketPair, table};

/// Maximum number of lookups that one reading answers, and that are queued for the next; further
/// ones wait to be queued.
const MOST_WAITING: usize = 1024;

struct LookupRequest {
    pair: SocketPair,
    answer: oneshot::Sender<io::Result<PeerOwner>>,
}

/// Channel to the reading task. However many connections arrive at once, one thread reads, and each
/// lookup waits for two readings at most: the current one, and its own.
#[derive(Debug)]
pub(super) struct TableReader(mpsc::Sender<LookupRequest>);

impl TableReader {
    /// Starts the task. Must be called inside a Tokio runtime. The task ends when the reader is
    /// dropped.
    pub(super) fn start() -> Self {
        let (questions, asked) = mpsc::channel(MOST_WAITING);
        tokio::spawn(read_for(asked));
        Self(questions)
    }

    /// Looks up one owner. Cancel-safe.
    pub(super) async fn owner(&self, pair: SocketPair) -> io::Result<PeerOwner> {
        let (answer, answered) = oneshot::channel();
        let ended = || io::Error::other("the lookup of the client's owner was cancelled");
        let question = LookupRequest { pair, answer };
        self.0.send(question).await.map_err(|_| ended())?;
        answered.await.unwrap_or_else(|_| Err(ended()))
    }
}

async fn read_for(mut asked: mpsc::Receiver<LookupRequest>) {
    let mut batch = Vec::new();
    while asked.recv_many(&mut batch, MOST_WAITING).await > 0 {
        let questions = std::mem::take(&mut batch);
        let pairs: Vec<SocketPair> = questions.iter().map(|question| question.pair).collect();
        let read = tokio::task::spawn_blocking(move || table::owners(&pairs)).await;
        // A panic in the reading gives no answer, which is an error for each lookup.
        let Ok(read) = read else { continue };
        for (nth, question) in questions.into_iter().enumerate() {
            let answer = match &read {
                Ok(owners) => Ok(owners[nth]),
                Err(error) => Err(again(error)),
            };
            // The client may have disconnected and cancelled the lookup.
            _ = question.answer.send(answer);
        }
    }
}

/// Copies an error for another waiting lookup.
fn again(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}
