//! Signature Version 4, recomputed from the published algorithm.
//!
//! Written from the "Create a signed AWS API request" chapter of the IAM user guide and from nothing
//! else, so that it can judge what `aws-sigv4` and the program under test produce. It checks; it has
//! no signing entry point besides [`signature`], which both sides of a check need.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// The only algorithm the sandbox knows.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Last component of every credential scope.
pub const TERMINATOR: &str = "aws4_request";

/// What is wrong with the shape of a signed request, before any secret is looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub &'static str);

/// The day, region and service a signature is good for, taken from a credential string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// `YYYYMMDD`, UTC.
    pub date: String,
    /// Region name, for example `eu-central-1`.
    pub region: String,
    /// Signing name of the service, for example `ssm`.
    pub service: String,
}

impl Scope {
    /// The text that goes into the string to sign: `date/region/service/aws4_request`.
    pub fn to_text(&self) -> String {
        format!(
            "{}/{}/{}/{TERMINATOR}",
            self.date, self.region, self.service
        )
    }
}

/// Splits `ACCESSKEY/date/region/service/aws4_request`.
pub fn parse_credential(text: &str) -> Result<(String, Scope), ParseError> {
    let parts: Vec<&str> = text.split('/').collect();
    let [key, date, region, service, terminator] = parts[..] else {
        return Err(ParseError("Credential must have five parts"));
    };
    if terminator != TERMINATOR {
        return Err(ParseError("Credential must end in aws4_request"));
    }
    if [key, date, region, service].iter().any(|p| p.is_empty()) {
        return Err(ParseError("Credential has an empty part"));
    }
    let scope = Scope {
        date: date.to_owned(),
        region: region.to_owned(),
        service: service.to_owned(),
    };
    Ok((key.to_owned(), scope))
}

/// The parts of an `Authorization` header, or of the `X-Amz-*` query parameters that replace it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// Access key id: not a secret.
    pub access_key_id: String,
    /// Credential scope.
    pub scope: Scope,
    /// Lower-case header names in the order they were signed.
    pub signed_headers: Vec<String>,
    /// Lower-case hex.
    pub signature: String,
}

/// Takes an `Authorization: AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=…` value apart.
pub fn parse_authorization(value: &str) -> Result<Authorization, ParseError> {
    let rest = value
        .strip_prefix(ALGORITHM)
        .ok_or(ParseError("Authorization is not AWS4-HMAC-SHA256"))?;
    let (mut credential, mut headers, mut signature) = (None, None, None);
    for part in rest.split(',') {
        let (name, value) = part
            .trim()
            .split_once('=')
            .ok_or(ParseError("Authorization part without '='"))?;
        let slot = match name {
            "Credential" => &mut credential,
            "SignedHeaders" => &mut headers,
            "Signature" => &mut signature,
            _ => return Err(ParseError("Authorization has an unknown part")),
        };
        if slot.replace(value).is_some() {
            return Err(ParseError("Authorization names a part twice"));
        }
    }
    let (Some(credential), Some(headers), Some(signature)) = (credential, headers, signature)
    else {
        return Err(ParseError(
            "Authorization lacks Credential, SignedHeaders or Signature",
        ));
    };
    let (access_key_id, scope) = parse_credential(credential)?;
    Ok(Authorization {
        access_key_id,
        scope,
        signed_headers: parse_signed_headers(headers)?,
        signature: signature.to_owned(),
    })
}

/// Splits `a;b;c`; the list must be sorted, lower-case and free of repetitions.
pub fn parse_signed_headers(text: &str) -> Result<Vec<String>, ParseError> {
    let names: Vec<String> = text.split(';').map(str::to_owned).collect();
    if names
        .iter()
        .any(|n| n.is_empty() || n.bytes().any(|b| b.is_ascii_uppercase()))
    {
        return Err(ParseError("SignedHeaders must be lower-case names"));
    }
    if !names.is_sorted_by(|a, b| a < b) {
        return Err(ParseError("SignedHeaders must be sorted"));
    }
    Ok(names)
}

/// Everything but letters, digits and `-._~` becomes `%XX` (upper case); `/` is kept when asked.
pub fn uri_encode(text: &[u8], keep_slash: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for &byte in text {
        let plain =
            byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (keep_slash && byte == b'/');
        if plain {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Reverses percent encoding; with `form`, `+` means a space, as AWS reads query strings.
pub fn percent_decode(text: &str, form: bool) -> Result<Vec<u8>, ParseError> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let high = bytes.next().and_then(hex_digit);
                let low = bytes.next().and_then(hex_digit);
                let (Some(high), Some(low)) = (high, low) else {
                    return Err(ParseError("broken percent encoding"));
                };
                out.push(high << 4 | low);
            }
            b'+' if form => out.push(b' '),
            other => out.push(other),
        }
    }
    Ok(out)
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|d| u8::try_from(d).ok())
}

/// Decoded name/value pairs of a raw query string, in their order. Values must be UTF-8.
pub fn query_pairs(raw: &str) -> Result<Vec<(String, String)>, ParseError> {
    let text = |part: &str| {
        String::from_utf8(percent_decode(part, true)?).map_err(|_| ParseError("query is not UTF-8"))
    };
    raw.split('&')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((text(name)?, text(value)?))
        })
        .collect()
}

/// The canonical query string: each name and value encoded, sorted by encoded name, then value.
pub fn canonical_query(pairs: &[(String, String)]) -> String {
    let mut encoded: Vec<(String, String)> = pairs
        .iter()
        .map(|(n, v)| {
            (
                uri_encode(n.as_bytes(), false),
                uri_encode(v.as_bytes(), false),
            )
        })
        .collect();
    encoded.sort();
    let parts: Vec<String> = encoded.iter().map(|(n, v)| format!("{n}={v}")).collect();
    parts.join("&")
}

/// The canonical path: dot segments removed, then encoded once more, as every service but S3 does.
pub fn canonical_path(raw: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in raw.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    let mut path = format!("/{}", kept.join("/"));
    if raw.ends_with('/') && path.len() > 1 {
        path.push('/');
    }
    uri_encode(path.as_bytes(), true)
}

/// A request reduced to what is signed. Header names are lower-case; values as received.
#[derive(Debug)]
pub struct Canonical<'a> {
    /// `GET`, `POST`, …
    pub method: &'a str,
    /// Path as it was on the wire.
    pub path: &'a str,
    /// Decoded query parameters, without `X-Amz-Signature`.
    pub query: &'a [(String, String)],
    /// The signed headers in order; repeated headers already joined with commas.
    pub headers: &'a [(String, String)],
    /// Hex SHA-256 of the body, or the literal the signer declared.
    pub payload_hash: &'a str,
}

impl Canonical<'_> {
    /// The canonical request text.
    pub fn to_text(&self) -> String {
        let mut headers = String::new();
        for (name, value) in self.headers {
            let value: Vec<&str> = value.split_ascii_whitespace().collect();
            // Writing to a String cannot fail.
            let _ = writeln!(headers, "{name}:{}", value.join(" "));
        }
        let names: Vec<&str> = self.headers.iter().map(|(n, _)| n.as_str()).collect();
        format!(
            "{}\n{}\n{}\n{headers}\n{}\n{}",
            self.method,
            canonical_path(self.path),
            canonical_query(self.query),
            names.join(";"),
            self.payload_hash,
        )
    }
}

/// Lower-case hex SHA-256.
pub fn sha256_hex(data: &[u8]) -> String {
    hex(&Sha256::digest(data))
}

/// Lower-case hex.
pub fn hex(data: &[u8]) -> String {
    let mut out = String::with_capacity(data.len() * 2);
    for byte in data {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

fn hmac(key: &[u8], data: &[u8]) -> Vec<u8> {
    #[expect(
        clippy::expect_used,
        reason = "HMAC hashes keys that are too long, so every length is accepted"
    )]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes any key length");
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

/// The signature a holder of `secret` makes over `canonical` at `amz_date`, in lower-case hex.
pub fn signature(secret: &str, amz_date: &str, scope: &Scope, canonical: &Canonical<'_>) -> String {
    let text = format!(
        "{ALGORITHM}\n{amz_date}\n{}\n{}",
        scope.to_text(),
        sha256_hex(canonical.to_text().as_bytes())
    );
    let mut key = hmac(format!("AWS4{secret}").as_bytes(), scope.date.as_bytes());
    for part in [&scope.region, &scope.service, TERMINATOR] {
        key = hmac(&key, part.as_bytes());
    }
    hex(&hmac(&key, text.as_bytes()))
}

/// Compares two texts without telling by the time taken where they differ.
pub fn same_secret(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |d, (x, y)| d | (x ^ y)) == 0
}

/// Reads `YYYYMMDDTHHMMSSZ`.
pub fn parse_amz_date(text: &str) -> Option<SystemTime> {
    let bytes = text.as_bytes();
    if bytes.len() != 16 || bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<u64> {
        let digits = text.get(from..to)?;
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        digits.parse().ok()
    };
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let (hour, minute, second) = (number(9, 11)?, number(11, 13)?, number(13, 15)?);
    if year < 1970 || !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    if day < 1 || day > days_in_month(year, month) {
        return None;
    }
    let days = (1970..year).map(days_in_year).sum::<u64>()
        + (1..month).map(|m| days_in_month(year, m)).sum::<u64>()
        + (day - 1);
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Writes `YYYYMMDDTHHMMSSZ`; times before 1970 become 1970.
pub fn format_amz_date(time: SystemTime) -> String {
    let total = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (mut days, rest) = (total / 86_400, total % 86_400);
    let (mut year, mut month) = (1970, 1);
    while days >= days_in_year(year) {
        days -= days_in_year(year);
        year += 1;
    }
    while days >= days_in_month(year, month) {
        days -= days_in_month(year, month);
        month += 1;
    }
    format!(
        "{year:04}{month:02}{:02}T{:02}{:02}{:02}Z",
        days + 1,
        rest / 3_600,
        rest / 60 % 60,
        rest % 60
    )
}

/// Writes `YYYY-MM-DDTHH:MM:SSZ`; times before 1970 become 1970.
pub fn format_iso_date(time: SystemTime) -> String {
    let basic = format_amz_date(time);
    let [year, month, day] = [&basic[..4], &basic[4..6], &basic[6..8]];
    let [hour, minute, second] = [&basic[9..11], &basic[11..13], &basic[13..15]];
    format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z")
}

fn days_in_year(year: u64) -> u64 {
    (1..=12).map(|m| days_in_month(year, m)).sum()
}

fn days_in_month(year: u64, month: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_go_there_and_back() {
        for (text, seconds) in [
            ("19700101T000000Z", 0),
            ("20000229T235959Z", 951_868_799),
            ("20260101T000000Z", 1_767_225_600),
            ("21000301T120000Z", 4_107_585_600),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(parse_amz_date(text), Some(time), "{text}");
            assert_eq!(format_amz_date(time), text);
        }
    }

    #[test]
    fn impossible_dates_are_refused() {
        for text in [
            "",
            "20260230T000000Z",
            "21000229T000000Z",
            "20261301T000000Z",
            "20260101T240000Z",
            "20260101T000000",
            "2026-101T000000Z",
            "20260101 000000Z",
            "+0260101T000000Z",
        ] {
            assert_eq!(parse_amz_date(text), None, "{text}");
        }
    }

    #[test]
    fn encoding_follows_the_unreserved_set() {
        assert_eq!(uri_encode(b"aZ09-._~ /+%", false), "aZ09-._~%20%2F%2B%25");
        assert_eq!(uri_encode("a/\u{e4}".as_bytes(), true), "a/%C3%A4");
        assert_eq!(percent_decode("a%2fb%20c+d", true).unwrap(), b"a/b c d");
        assert_eq!(percent_decode("c+d", false).unwrap(), b"c+d");
        for broken in ["%", "%2", "%zz", "%+1"] {
            assert!(percent_decode(broken, true).is_err(), "{broken}");
        }
    }

    #[test]
    fn query_is_sorted_by_encoded_name_then_value() {
        let pairs = query_pairs("b=2&a=2&a=1&e&%41=%2b").unwrap();
        assert_eq!(canonical_query(&pairs), "A=%2B&a=1&a=2&b=2&e=");
    }

    #[test]
    fn path_is_normalised_and_encoded_again() {
        assert_eq!(canonical_path(""), "/");
        assert_eq!(canonical_path("/"), "/");
        assert_eq!(canonical_path("/a//b/./c/../d/"), "/a/b/d/");
        assert_eq!(canonical_path("/a%40b@c"), "/a%2540b%40c");
    }

    #[test]
    fn credentials_need_five_parts() {
        let (key, scope) = parse_credential("AKIA/20260101/eu-central-1/ssm/aws4_request").unwrap();
        assert_eq!(key, "AKIA");
        assert_eq!(scope.to_text(), "20260101/eu-central-1/ssm/aws4_request");
        for broken in [
            "",
            "AKIA",
            "AKIA/20260101/eu-central-1/ssm",
            "AKIA/20260101/eu-central-1/ssm/aws5_request",
            "AKIA//eu-central-1/ssm/aws4_request",
            "AKIA/20260101/eu-central-1/ssm/aws4_request/x",
        ] {
            assert!(parse_credential(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn authorization_headers_are_taken_apart() {
        let good = "AWS4-HMAC-SHA256 Credential=K/20260101/r/ssm/aws4_request, \
                    SignedHeaders=host;x-amz-date, Signature=abc";
        let parsed = parse_authorization(good).unwrap();
        assert_eq!(parsed.signed_headers, ["host", "x-amz-date"]);
        assert_eq!(parsed.signature, "abc");
        for (from, to) in [
            ("SHA256", "SHA512"),
            ("Signature=abc", "Signature"),
            ("host;x-amz-date", "x-amz-date;host"),
            ("host;x-amz-date", "Host"),
            ("host;x-amz-date", "host;host"),
            (", Signature=abc", ""),
            ("Signature=abc", "Other=abc"),
        ] {
            let broken = good.replace(from, to);
            assert!(parse_authorization(&broken).is_err(), "{broken}");
        }
    }

    /// The worked example of the AWS General Reference (IAM ListUsers, 30 Aug 2015).
    #[test]
    fn published_example() {
        let scope = Scope {
            date: "20150830".to_owned(),
            region: "us-east-1".to_owned(),
            service: "iam".to_owned(),
        };
        let query = query_pairs("Action=ListUsers&Version=2010-05-08").unwrap();
        let headers = [
            (
                "content-type".to_owned(),
                "application/x-www-form-urlencoded; charset=utf-8".to_owned(),
            ),
            ("host".to_owned(), "iam.amazonaws.com".to_owned()),
            ("x-amz-date".to_owned(), "20150830T123600Z".to_owned()),
        ];
        let canonical = Canonical {
            method: "GET",
            path: "/",
            query: &query,
            headers: &headers,
            payload_hash: &sha256_hex(b""),
        };
        assert_eq!(
            sha256_hex(canonical.to_text().as_bytes()),
            "f536975d06c0309214f805bb90ccff089219ecd68b2577efef23edd43b7e1a59"
        );
        assert_eq!(
            signature(
                "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
                "20150830T123600Z",
                &scope,
                &canonical
            ),
            "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
    }
}
