//! Chooses the session for the next stream: the decision alone, without clocks and locks.
//!
//! One session carries 0.7 MB/s from the database, however many streams share it, and an open
//! stream cannot move. So a new stream goes to a session without traffic. If all have traffic, a
//! further session is worth its start. If there may be no further one, the least loaded session
//! takes the stream.

use super::state::SessionLoad;

/// Availability of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Availability {
    /// Carries streams and accepts more.
    Up(SessionLoad),
    /// Its connection is being replaced, for an unknown time.
    Interrupted,
    /// Accepts no new streams.
    Leaving,
    /// Over.
    Ended,
}

/// Choice for the next stream. Sessions are identified by their index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placement {
    /// This session.
    Place(usize),
    /// This session, if a further one is not available soon.
    BetterFurther(usize),
    /// A further session must be started.
    Further,
    /// Wait for an interrupted session: there may be no further one.
    Wait,
}

/// Chooses among `sessions`, of which there may be `most` at a time.
pub(super) fn choose(sessions: &[Availability], most: usize) -> Placement {
    let loads = sessions.iter().enumerate();
    let least = loads
        .filter_map(|(place, standing)| match standing {
            Availability::Up(load) => Some((*load, place)),
            _ => None,
        })
        .min();
    let counts = |s: &&Availability| matches!(s, Availability::Up(_) | Availability::Interrupted);
    let may_grow = sessions.iter().filter(counts).count() < most;
    match least {
        Some((load, place)) if load.busy == 0 && !load.troubled => Placement::Place(place),
        Some((_, place)) if may_grow => Placement::BetterFurther(place),
        Some((_, place)) => Placement::Place(place),
        None if may_grow => Placement::Further,
        None => Placement::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(busy: usize, streams: usize) -> Availability {
        Availability::Up(SessionLoad {
            troubled: false,
            busy,
            streams,
        })
    }

    fn troubled(busy: usize, streams: usize) -> Availability {
        Availability::Up(SessionLoad {
            troubled: true,
            busy,
            streams,
        })
    }

    #[test]
    fn a_quiet_session_takes_any_number() {
        assert_eq!(choose(&[up(0, 50)], 4), Placement::Place(0));
        assert_eq!(choose(&[up(1, 1), up(0, 50)], 4), Placement::Place(1));
        assert_eq!(choose(&[up(0, 3), up(0, 2)], 4), Placement::Place(1));
    }

    #[test]
    fn busy_everywhere_calls_for_a_further_one() {
        assert_eq!(
            choose(&[up(2, 2), up(1, 9)], 4),
            Placement::BetterFurther(1)
        );
        assert_eq!(choose(&[up(2, 2), up(1, 9)], 2), Placement::Place(1));
        assert_eq!(choose(&[up(1, 3), up(1, 2)], 2), Placement::Place(1));
    }

    #[test]
    fn a_troubled_session_is_the_last_resort() {
        assert_eq!(choose(&[troubled(0, 1), up(0, 9)], 4), Placement::Place(1));
        assert_eq!(choose(&[troubled(0, 1), up(5, 9)], 2), Placement::Place(1));
        assert_eq!(choose(&[troubled(0, 1)], 2), Placement::BetterFurther(0));
        assert_eq!(choose(&[troubled(0, 1)], 1), Placement::Place(0));
    }

    #[test]
    fn sessions_on_their_way_out_do_not_count() {
        let leaving = [Availability::Leaving, Availability::Ended];
        assert_eq!(choose(&leaving, 1), Placement::Further);
        assert_eq!(choose(&[], 1), Placement::Further);
    }

    #[test]
    fn an_interrupted_session_counts_and_takes_nothing() {
        assert_eq!(choose(&[Availability::Interrupted], 1), Placement::Wait);
        assert_eq!(choose(&[Availability::Interrupted], 2), Placement::Further);
        assert_eq!(
            choose(&[Availability::Interrupted, up(0, 1)], 2),
            Placement::Place(1)
        );
    }
}
