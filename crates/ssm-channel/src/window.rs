//! How much may be under way. Nothing else in the crate knows a limit for sending.

/// The farthest a message may be ahead of the oldest unacknowledged one. The agent keeps 10,000
/// messages that arrive ahead of a missing one and drops the rest; staying below spares those.
const MAX_SPAN: u64 = 8_192;

/// The send window: a fixed number of unacknowledged messages.
#[derive(Debug)]
pub(crate) struct Window {
    limit: usize,
}

impl Window {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit }
    }

    /// How many more messages may be taken, with `in_flight` unacknowledged ones (sent or waiting
    /// to be) and `span` numbers from the oldest of them to the next new one.
    pub(crate) fn room(&self, in_flight: usize, span: u64) -> usize {
        let by_span = usize::try_from(MAX_SPAN.saturating_sub(span)).unwrap_or(usize::MAX);
        self.limit.saturating_sub(in_flight).min(by_span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_hold() {
        let window = Window::new(10);
        assert_eq!(window.room(0, 0), 10);
        assert_eq!(window.room(4, 4), 6);
        assert_eq!(window.room(11, 11), 0);
        assert_eq!(window.room(1, MAX_SPAN - 2), 2);
        assert_eq!(window.room(1, MAX_SPAN + 1), 0);
    }
}
