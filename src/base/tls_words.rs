//! Messages for TLS errors: rustls names its own types.

use std::error::Error;
use std::io;

use rustls::{CertificateError, OtherError};

/// Message of rustls for a connection that ends without the end of TLS, with a link to its manual.
const NO_GOODBYE: &str = "peer closed connection without sending TLS close_notify";

/// Rewrites a text that quotes a TLS error among the causes of `error`.
pub(crate) fn translated(mut text: String, error: &(dyn Error + 'static)) -> String {
    if let Some(tls) = behind(error) {
        text = text.replace(&tls.to_string(), &in_words(tls));
    }
    if let Some(start) = text.find(NO_GOODBYE) {
        let behind = start + NO_GOODBYE.len();
        // The link is part of the same sentence.
        let end = match text[behind..].strip_prefix(": ") {
            Some(link) => text.len() - link.len() + link.find(' ').unwrap_or(link.len()),
            None => behind,
        };
        text.replace_range(
            start..end,
            "the server closed it without a TLS close_notify",
        );
    }
    text
}

/// Returns the rustls error among the causes of another one.
fn behind<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut links = std::iter::successors(Some(error), |link| (**link).source());
    links.find_map(|link| {
        let inside = link
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        link.downcast_ref::<rustls::Error>()
            .or_else(|| inside?.downcast_ref::<rustls::Error>())
            // An `io::Error` inside another one has no link of its own.
            .or_else(|| behind(inside?.downcast_ref::<io::Error>()?))
    })
}

/// Returns the reason why there is no TLS connection.
pub(crate) fn in_words(error: &rustls::Error) -> String {
    use rustls::Error as E;
    match error {
        E::InvalidMessage(_) => "the answer is not TLS".to_owned(),
        E::InappropriateMessage { .. } | E::InappropriateHandshakeMessage { .. } => {
            "unexpected TLS message".to_owned()
        }
        E::AlertReceived(alert) => format!(
            "received TLS alert {}{}",
            u8::from(*alert),
            spaced(&format!("{alert:?}"))
        ),
        E::PeerIncompatible(why) => format!(
            "no TLS parameters in common{}",
            in_brackets(&format!("{why:?}"))
        ),
        E::PeerMisbehaved(why) => {
            format!("TLS protocol violation{}", in_brackets(&format!("{why:?}")))
        }
        E::InvalidCertificate(refusal) => {
            format!("invalid certificate: {}", of_certificate(refusal))
        }
        E::FailedToGetCurrentTime => {
            "this machine's clock is set to a time before 1970, so no certificate can be verified"
                .to_owned()
        }
        other => other.to_string(),
    }
}

fn in_brackets(name: &str) -> String {
    match spaced(name).strip_prefix(", ") {
        Some(words) => format!(" ({words})"),
        None => String::new(),
    }
}

/// Converts the name of a variant to words behind a comma: `TooManyKeyUpdateRequests` to `, too
/// many key update requests`. Returns nothing for a variant with a number in it, which has no name.
fn spaced(name: &str) -> String {
    let name = name.split(['(', '{', ' ']).next().unwrap_or_default();
    if name.is_empty() || name == "AlertDescription" {
        return String::new();
    }
    let mut words = String::from(",");
    let mut capital_before = false;
    for c in name.chars() {
        let capital = c.is_ascii_uppercase();
        // Abbreviations stay together: `UnknownCA`.
        if capital && !capital_before {
            words.push(' ');
        }
        words.push(c.to_ascii_lowercase());
        capital_before = capital;
    }
    words
}

/// Describes a refused certificate, with pgiam's own words where rustls's are unclear.
pub(crate) fn of_certificate(refusal: &CertificateError) -> String {
    use CertificateError as C;
    match refusal {
        C::BadEncoding => "it cannot be parsed".to_owned(),
        C::BadSignature => "its signature does not match its issuer's key".to_owned(),
        C::Revoked => "it was revoked".to_owned(),
        C::UnknownIssuer => "its issuer is not trusted".to_owned(),
        C::Expired | C::ExpiredContext { .. } => "it has expired".to_owned(),
        C::NotValidYet | C::NotValidYetContext { .. } => "it is not valid yet".to_owned(),
        C::NotValidForName => "it is for another name".to_owned(),
        C::NotValidForNameContext { presented, .. } => for_names(presented),
        C::InvalidPurpose | C::InvalidPurposeContext { .. } => {
            "it is not a server certificate".to_owned()
        }
        C::UnhandledCriticalExtension => {
            "it has a critical extension that pgiam does not support".to_owned()
        }
        C::UnsupportedSignatureAlgorithmContext { .. } => {
            "its signature algorithm is not supported".to_owned()
        }
        // Written by webpki for errors without a name in rustls:
        // "Other(OtherError(CaUsedAsEndEntity))".
        C::Other(OtherError(inner)) => of_webpki(&inner.to_string()),
        other => other.to_string(),
    }
}

fn of_webpki(name: &str) -> String {
    match name {
        "CaUsedAsEndEntity" => "it is a CA certificate, not a server certificate".to_owned(),
        "RequiredEkuNotFound" | "RequiredEkuNotFoundContext" => {
            "it is not a server certificate".to_owned()
        }
        "UnsupportedCertVersion" => "it is not an X.509 version 3 certificate".to_owned(),
        "NameConstraintViolation" => {
            "its issuer may not sign certificates for this name".to_owned()
        }
        "PathLenConstraintViolated" | "MaximumPathDepthExceeded" => {
            "its certificate chain is too long".to_owned()
        }
        other => format!("it violates the certificate rules ({other})"),
    }
}

/// Lists the names of a certificate, which rustls writes as `DnsName("other.example")`.
fn for_names(presented: &[String]) -> String {
    const MOST: usize = 5;
    let names: Vec<&str> = presented.iter().take(MOST).map(|name| bare(name)).collect();
    match (names.as_slice(), presented.len() - names.len()) {
        ([], _) => "it contains no name".to_owned(),
        (_, 0) => format!("it is for {}", names.join(", ")),
        (_, more) => format!("it is for {} and {more} more names", names.join(", ")),
    }
}

fn bare(name: &str) -> &str {
    let inside = name
        .split_once("(\"")
        .and_then(|(_, rest)| rest.strip_suffix("\")"));
    inside.unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use rustls::{AlertDescription, PeerIncompatible, PeerMisbehaved};

    use super::*;

    #[test]
    fn errors_of_tls_name_no_types_of_a_library() {
        use rustls::Error as E;
        let wrong_name = CertificateError::NotValidForNameContext {
            expected: rustls::pki_types::ServerName::try_from("localhost").unwrap(),
            presented: vec!["DnsName(\"other.example\")".to_owned()],
        };
        for (error, words) in [
            (
                E::AlertReceived(AlertDescription::HandshakeFailure),
                "received TLS alert 40, handshake failure",
            ),
            (
                E::AlertReceived(AlertDescription::UnknownCA),
                "received TLS alert 48, unknown ca",
            ),
            (
                E::AlertReceived(AlertDescription::from(0xff)),
                "received TLS alert 255",
            ),
            (
                PeerMisbehaved::TooManyWarningAlertsReceived.into(),
                "TLS protocol violation (too many warning alerts received)",
            ),
            (
                PeerIncompatible::NoCipherSuitesInCommon.into(),
                "no TLS parameters in common (no cipher suites in common)",
            ),
            (
                wrong_name.into(),
                "invalid certificate: it is for other.example",
            ),
            (
                E::FailedToGetCurrentTime,
                "this machine's clock is set to a time before 1970, so no certificate can be verified",
            ),
        ] {
            assert_eq!(in_words(&error), words);
            // An error of tokio-rustls, and the same wrapped by another library.
            let io = io::Error::new(io::ErrorKind::InvalidData, error);
            let text = format!("IO error: {io}");
            assert_eq!(translated(text, &io), format!("IO error: {words}"));
            let outer = io::Error::other(io);
            assert_eq!(translated(outer.to_string(), &outer), words);
        }
    }

    #[test]
    fn no_link_to_a_manual_for_programmers_is_shown() {
        let error = io::Error::other("x");
        for (text, expected) in [
            (
                "read: peer closed connection without sending TLS close_notify: https://docs.rs/rustls/x.html#unexpected-eof",
                "read: the server closed it without a TLS close_notify",
            ),
            (
                "peer closed connection without sending TLS close_notify: https://docs.rs/x (3 tries)",
                "the server closed it without a TLS close_notify (3 tries)",
            ),
            (
                "peer closed connection without sending TLS close_notify",
                "the server closed it without a TLS close_notify",
            ),
        ] {
            assert_eq!(translated(text.to_owned(), &error), expected);
        }
    }
}
