//! Paginated lists, read within limits.

use std::cell::Cell;
use std::task::{Context, Poll};

use futures_util::stream::{self, StreamExt};
use thiserror::Error;

/// Maximum pages of one list. 100 databases or 50 nodes make a page, so this exceeds every account.
const MOST_PAGES: usize = 200;
/// Maximum bytes of all pages of one list together.
const MOST_BYTES: usize = 64 << 20;

tokio::task_local! {
    /// Bytes received for the list that this task reads.
    static RECEIVED: Cell<usize>;
}

/// Counts the body of an answer for the list that this task reads, if any.
pub(super) fn received(bytes: usize) {
    _ = RECEIVED.try_with(|all| all.set(all.get().saturating_add(bytes)));
}

/// A list that does not end within the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum PageLimitExceeded {
    /// It has too many pages.
    #[error("the list has more than {MOST_PAGES} pages")]
    Pages,
    /// Its pages have too many bytes in total.
    #[error("the list is longer than {} MiB", MOST_BYTES >> 20)]
    Bytes,
}

/// Counters for the pages of one list and their bytes.
#[derive(Debug, Default)]
pub(crate) struct PageLimits {
    pages: usize,
    bytes: usize,
}

impl PageLimits {
    /// Counts a page of `bytes`.
    ///
    /// # Errors
    /// [`PageLimitExceeded`] when the list exceeds a limit with this page.
    pub(crate) fn page(&mut self, bytes: usize) -> Result<(), PageLimitExceeded> {
        self.pages += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        match (self.pages > MOST_PAGES, self.bytes > MOST_BYTES) {
            (true, _) => Err(PageLimitExceeded::Pages),
            (_, true) => Err(PageLimitExceeded::Bytes),
            _ => Ok(()),
        }
    }
}

/// Reads all pages of a list and keeps the rows that `rows` extracts from each, so that only one
/// page at a time is in memory. `next` polls the SDK's paginator, which ends at a marker that comes
/// twice. Cancel-safe: nothing continues after this is dropped.
///
/// # Errors
/// That of a page; inside, [`PageLimitExceeded`].
pub(crate) async fn all<P, R, E, I: IntoIterator<Item = R>>(
    next: impl FnMut(&mut Context<'_>) -> Poll<Option<Result<P, E>>>,
    mut rows: impl FnMut(P) -> I,
) -> Result<Result<Vec<R>, PageLimitExceeded>, E> {
    let read = async {
        let mut pages = std::pin::pin!(stream::poll_fn(next));
        let (mut bounds, mut found) = (PageLimits::default(), Vec::new());
        while let Some(page) = pages.next().await {
            let page = page?;
            if let Err(endless) = bounds.page(RECEIVED.with(Cell::take)) {
                return Ok(Err(endless));
            }
            found.extend(rows(page));
        }
        Ok(Ok(found))
    };
    RECEIVED.scope(Cell::new(0), read).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a list of `pages` pages of `bytes` bytes each.
    async fn list(pages: usize, bytes: usize) -> Result<Vec<usize>, PageLimitExceeded> {
        let mut left = 0..pages;
        let next = move |_: &mut Context<'_>| {
            received(bytes);
            Poll::Ready(left.next().map(Ok::<_, ()>))
        };
        all(next, |page| [page]).await.unwrap()
    }

    #[tokio::test]
    async fn a_list_ends_at_its_bounds() {
        assert_eq!(list(3, 10).await, Ok(vec![0, 1, 2]));
        assert_eq!(list(MOST_PAGES, 10).await.unwrap().len(), MOST_PAGES);
        assert_eq!(
            list(MOST_PAGES + 1, 10).await,
            Err(PageLimitExceeded::Pages)
        );
        assert_eq!(list(usize::MAX, 10).await, Err(PageLimitExceeded::Pages));
        assert_eq!(list(4, 16 << 20).await.unwrap().len(), 4);
        assert_eq!(list(5, 16 << 20).await, Err(PageLimitExceeded::Bytes));
    }
}
