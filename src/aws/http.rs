//! HTTP answers that are not from AWS: invalid HTTP, and answers of a proxy or a captive portal.

use std::error::Error;
use std::io;

/// HTTP status of a throttled call.
pub(crate) const TOO_MANY_REQUESTS: u16 = 429;

/// Replacement for the error code of an answer that has only a status, as from an overloaded
/// service.
pub(crate) fn no_code(status: u16) -> String {
    format!("HTTP status {status}, no reason given")
}

/// Returns `true` if a text of [`no_code`] means too many calls.
pub(super) fn throttles(code: &str) -> bool {
    code == no_code(TOO_MANY_REQUESTS)
}

/// Returns the meaning of a status that no service called by pgiam returns.
pub(super) fn of_another(status: u16) -> Option<String> {
    let what = match status {
        300..=399 => "unexpected redirect; possible causes: a proxy or a captive portal",
        407 => "the proxy requires authentication",
        511 => "a captive portal requires a login",
        _ => return None,
    };
    Some(format!("HTTP status {status}: {what}"))
}

/// Returns the problem with an HTTP answer; `None` if there was no answer, or if it broke off.
pub(super) fn broken(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut links = std::iter::successors(Some(error), |link| (**link).source());
    let hyper = links.find_map(|link| link.downcast_ref::<hyper::Error>())?;
    if hyper.is_parse_too_large() {
        return Some("its HTTP header is too long");
    }
    if hyper.is_parse() {
        return Some("it is not valid HTTP");
    }
    let cause = hyper.source()?.downcast_ref::<io::Error>()?;
    let of_tls = cause
        .get_ref()
        .is_some_and(|inner| inner.is::<rustls::Error>());
    let invalid = [io::ErrorKind::InvalidData, io::ErrorKind::InvalidInput];
    (!of_tls && invalid.contains(&cause.kind())).then_some("its body is not valid HTTP")
}
