//! Reports about databases that were looked up at RDS.

use std::time::Duration;

use super::{CANNOT_CONNECT, Said};
use crate::discover::DiscoverError;

pub(super) fn discovery(error: &DiscoverError) -> Said {
    Said::new("discover.unreachable", CANNOT_CONNECT, error.to_string())
}

pub(super) fn timed_out(after: Duration) -> Said {
    Said::new(
        "discover.timeout",
        CANNOT_CONNECT,
        format!("the database was not found at RDS within {} s", after.as_secs()),
    )
    .hint("Write host = \"…\" instead of db to do without looking it up, or raise connect_timeout if AWS is slow from here.")
}
