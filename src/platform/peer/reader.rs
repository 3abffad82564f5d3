//! Reads the kernel's tables of TCP sockets for all who wait, one reading at a time.

use std::io;

use tokio::sync::{mpsc, oneshot};

use super::Owner;
use super::table::{self, Pair};

/// Lookups that one reading answers, and that may wait for the next; more of them wait to be put.
const MOST_WAITING: usize = 1024;

struct Question {
    pair: Pair,
    answer: oneshot::Sender<io::Result<Owner>>,
}

/// The way to the task that reads. However many connections come at once, one thread reads, and each
/// waits for two readings at most: the one that is under way, and its own.
#[derive(Debug)]
pub(super) struct Reader(mpsc::Sender<Question>);

impl Reader {
    /// Must be called inside a Tokio runtime. The task ends when the reader is dropped.
    pub(super) fn start() -> Self {
        let (questions, asked) = mpsc::channel(MOST_WAITING);
        tokio::spawn(read_for(asked));
        Self(questions)
    }

    /// Cancel-safe.
    pub(super) async fn owner(&self, pair: Pair) -> io::Result<Owner> {
        let (answer, answered) = oneshot::channel();
        let ended = || io::Error::other("the lookup of the client's owner was broken off");
        let question = Question { pair, answer };
        self.0.send(question).await.map_err(|_| ended())?;
        answered.await.unwrap_or_else(|_| Err(ended()))
    }
}

async fn read_for(mut asked: mpsc::Receiver<Question>) {
    let mut batch = Vec::new();
    while asked.recv_many(&mut batch, MOST_WAITING).await > 0 {
        let questions = std::mem::take(&mut batch);
        let pairs: Vec<Pair> = questions.iter().map(|question| question.pair).collect();
        let read = tokio::task::spawn_blocking(move || table::owners(&pairs)).await;
        // A panic in there is no answer, which is an error for each.
        let Ok(read) = read else { continue };
        for (nth, question) in questions.into_iter().enumerate() {
            let answer = match &read {
                Ok(owners) => Ok(owners[nth]),
                Err(error) => Err(again(error)),
            };
            // The client may have gone meanwhile, and nobody waits for this.
            _ = question.answer.send(answer);
        }
    }
}

/// The same error for another one who waits for it.
fn again(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}
