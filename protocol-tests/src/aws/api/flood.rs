//! A body without end.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::time::{Sleep, sleep};

/// What is written at once.
const CHUNK: &[u8] = &[b' '; 64 << 10];
/// Between two bytes of a body that drips.
const PAUSE: Duration = Duration::from_millis(100);

/// Blanks for as long as somebody reads them: a JSON document may begin with any number of them.
#[derive(Debug)]
pub(super) struct Endless {
    written: Arc<AtomicUsize>,
    drips: bool,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Endless {
    pub(super) fn new(written: Arc<AtomicUsize>, drips: bool) -> Self {
        Self {
            written,
            drips,
            pause: None,
        }
    }
}

impl Clone for Endless {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.written), self.drips)
    }
}

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let chunk = if self.drips {
            let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(PAUSE)));
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
            &CHUNK[..1]
        } else {
            CHUNK
        };
        self.written.fetch_add(chunk.len(), Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(chunk)))))
    }
}
