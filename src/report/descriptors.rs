//! Reports about exhausted descriptors, which can occur wherever a file or socket is opened.

use super::message::{Message, TOO_MANY};

use std::error::Error;
use std::io;
use std::sync::Arc;

use crate::platform::descriptors;

/// Text of the standard library for exhausted descriptors of the process (`EMFILE`) and of the
/// system (`ENFILE`), for causes that were kept as text. The numbers are the same on Linux, macOS
/// and the BSDs.
const OS_ERROR_TEXTS: [&str; 2] = ["(os error 24)", "(os error 23)"];

/// Reports an error that was caused by exhausted descriptors.
pub(super) fn find_exhaustion(error: &(dyn Error + 'static)) -> Option<Message> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let shared = error.downcast_ref::<Arc<io::Error>>().map(AsRef::as_ref);
        if let Some(error) = error.downcast_ref::<io::Error>().or(shared)
            && descriptors::are_exhausted(error)
        {
            return Some(exhausted(descriptors::limit_reached(error)));
        }
        cause = error.source();
    }
    let text = crate::base::error_text::chain(error);
    let [process, system] = OS_ERROR_TEXTS.map(|written| cfg!(unix) && text.contains(written));
    match (process, system) {
        (true, _) => Some(exhausted(descriptors::limit())),
        (_, true) => Some(exhausted(None)),
        _ => None,
    }
}

/// Reports exhausted descriptors. `limit` is that of this process; `None` if the limit of the
/// system was reached.
pub(super) fn exhausted(limit: Option<u64>) -> Message {
    let message = |text| Message::new("limit.descriptors", TOO_MANY, text);
    match limit {
        Some(limit) => message(format!("pgiam has run out of file descriptors: its limit is {limit}"))
            .detail("Each connection needs one or two file descriptors.")
            .hint(format!(
                "Close unused connections, or lower max_connections. To raise the limit, restart pgiam (which ends its connections) with: {}",
                descriptors::HOW_TO_RAISE
            )),
        None => message("this machine has run out of file descriptors".to_owned())
            .detail("The limit of the whole system is reached.")
            .hint("Close programs with many open files or connections, or raise the limit: `sysctl fs.file-max`"),
    }
}
