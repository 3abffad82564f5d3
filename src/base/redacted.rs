//! Values that must not be shown: tokens, passwords, keys.

use std::fmt;
use std::ops::Range;

use zeroize::{Zeroize, ZeroizeOnDrop};

mod known;

pub(crate) use known::{remember, remember_token};

pub(crate) const STARS: &str = "********";

/// A secret. Prints as stars in `Debug` and `Display` and is overwritten when dropped.
///
/// Comparing two secrets compares their values in variable time. Use that for bookkeeping, not to
/// check a value from a client.
#[derive(Clone, PartialEq, Eq)]
pub struct Redacted<T: Zeroize>(T);

impl<T: Zeroize> Redacted<T> {
    /// Wraps a secret.
    pub fn new(secret: T) -> Self {
        Self(secret)
    }

    /// Returns the secret itself. Callers must not print, log or keep it.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> From<T> for Redacted<T> {
    fn from(secret: T) -> Self {
        Self::new(secret)
    }
}

impl<T: Zeroize> fmt::Debug for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STARS)
    }
}

impl<T: Zeroize> fmt::Display for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STARS)
    }
}

impl<T: Zeroize> Zeroize for Redacted<T> {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> Drop for Redacted<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> ZeroizeOnDrop for Redacted<T> {}

/// Names of secret values: the query parameters and headers of a signed request, and the keys under
/// which AWS tools and database clients print credentials. In lower case; compared without regard
/// to case. A name that ends with one of them counts, too: `PGPASSWORD`.
const SECRET_NAMES: [&str; 22] = [
    "x-amz-signature",
    "x-amz-security-token",
    "x-amz-credential",
    "secretaccesskey",
    "secret_access_key",
    "sessiontoken",
    "session_token",
    "accesstoken",
    "bearer_token",
    "webidentitytoken",
    "web_identity_token",
    "refreshtoken",
    "refresh_token",
    "idtoken",
    "id_token",
    "clientsecret",
    "client_secret",
    "access_token",
    "tokenvalue",
    "signature",
    "password",
    "passwd",
];
/// Header with a value of several words.
const AUTHORIZATION: &str = "authorization";
/// Prefixes of tokens that are recognized without a name: those of STS, Session Manager and IAM
/// Identity Center, and JWTs.
const TOKENS: [&str; 7] = ["IQoJ", "FwoG", "FwoD", "FQoG", "AAEAA", "aoaAAAA", "eyJ"];
/// Placeholder for the password in a hint that shows a URL.
const PLACEHOLDER: &str = "PASSWORD";
/// Minimum length of a token. No word that begins with one of these prefixes is as long.
const SHORTEST_TOKEN: usize = 64;

/// Removes recognizable secrets from a text of foreign origin.
///
/// Values of `X-Amz-Signature=…` and the like, of `"SecretAccessKey": "…"` and of
/// `AWS_SESSION_TOKEN=…` become stars, as do session tokens and the values that `remember` knows.
/// Use it for messages of other programs and for URLs. It is a second line of defence and does not
/// permit printing secrets. Takes time in proportion to the text's length.
pub fn redact(text: &str) -> String {
    let text = &*known::hide(text);
    // ASCII only, so that offsets in the lower-case copy are offsets in the text.
    let lower = text.to_ascii_lowercase();
    let mut out = String::with_capacity(text.len());
    let (mut at, mut copied) = (0, 0);
    while at < text.len() {
        let secret = secret_at(text, &lower, at);
        match secret {
            Some(secret) => {
                out.push_str(&text[copied..secret.start]);
                out.push_str(STARS);
                (at, copied) = (secret.end, secret.end);
            }
            None => at += 1,
        }
    }
    out.push_str(&text[copied..]);
    out
}

/// Returns the secret that begins at `at`, or that follows a name there.
fn secret_at(text: &str, lower: &str, at: usize) -> Option<Range<usize>> {
    let rest = lower.get(at..)?;
    // A file name: /etc/passwd.
    let is_file = rest.starts_with("passwd") && text[..at].ends_with('/');
    let named = match *rest.as_bytes().first()? {
        _ if is_file => None,
        b'a' if rest.starts_with(AUTHORIZATION) => header_value(text, at + AUTHORIZATION.len()),
        b'a' | b'b' | b'c' | b'i' | b'p' | b'r' | b's' | b't' | b'w' | b'x' => SECRET_NAMES
            .iter()
            .find(|name| rest.starts_with(**name))
            .map(|name| value_range(text, at + name.len())),
        _ => None,
    };
    let found = named
        .or_else(|| bare_token(text, at))
        .or_else(|| password_of_url(text, at));
    found
        .filter(|range| !range.is_empty())
        .map(|range| with_inner(text, lower, range))
}

/// Extends the range of a value that is itself a name, or ends with one, by the value behind that.
fn with_inner(text: &str, lower: &str, Range { start, mut end }: Range<usize>) -> Range<usize> {
    let mut at = start;
    while at < end {
        let rest = lower.get(at..).unwrap_or_default();
        let name = SECRET_NAMES.iter().find(|name| rest.starts_with(**name));
        if let Some(name) = name {
            end = end.max(value_range(text, at + name.len()).end);
        }
        at += 1;
    }
    start..end
}

/// Returns the value behind a name that ends at `from`: an optional quote, `=` or `:`, an optional
/// quote, then everything up to that quote, or to the end of the word. Empty if no `=` or `:`
/// follows.
fn value_range(text: &str, from: usize) -> Range<usize> {
    let Some(start) = behind_sign(text, from) else {
        return from..from;
    };
    let quote = text[..start]
        .chars()
        .next_back()
        .filter(|c| "'\"".contains(*c));
    let escaped = text[..start].trim_end_matches(['\'', '"']).ends_with('\\');
    let ends = |c: char| match quote {
        // A JSON string inside another one, and a value without a closing quote, end with the outer
        // one.
        Some(quote) if !escaped => c == quote || matches!(c, '"' | '\\' | '\n' | '\r'),
        _ => c.is_whitespace() || "\"'\\&,;<>{}()[]".contains(c),
    };
    let length = text[start..].find(ends);
    start..length.map_or(text.len(), |length| start + length)
}

/// Returns the value of a header up to the end of its line, or of the string that contains it.
fn header_value(text: &str, from: usize) -> Option<Range<usize>> {
    let start = behind_sign(text, from)?;
    let length = text[start..].find(['\r', '\n', '"', '\\']);
    Some(start..length.map_or(text.len(), |length| start + length))
}

fn behind_sign(text: &str, from: usize) -> Option<usize> {
    const AROUND: [char; 4] = ['"', '\'', '\\', ' '];
    let rest = &text[from..];
    let after_sign = rest.trim_start_matches(AROUND).strip_prefix(['=', ':'])?;
    Some(text.len() - after_sign.trim_start_matches(AROUND).len())
}

/// Returns the token that begins here, at the start of a word.
fn bare_token(text: &str, at: usize) -> Option<Range<usize>> {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || b"+/=%-_.".contains(&b);
    let bytes = text.as_bytes();
    let begins = at == 0 || !bytes.get(at - 1).is_some_and(u8::is_ascii_alphanumeric);
    if !begins || !TOKENS.iter().any(|token| text[at..].starts_with(token)) {
        return None;
    }
    let length = bytes[at..].iter().take_while(|b| is_part(**b)).count();
    (length >= SHORTEST_TOKEN).then_some(at..at + length)
}

/// Returns the password in a URL if its `//` begins here: `//user:WORD@host`.
fn password_of_url(text: &str, at: usize) -> Option<Range<usize>> {
    let rest = text[at..].strip_prefix("//")?;
    // An unencoded password may contain any other character, including `@`.
    let end = rest.find(|c: char| c.is_whitespace() || "/\"'`<>".contains(c));
    let authority = &rest[..end.unwrap_or(rest.len())];
    let userinfo = &authority[..authority.rfind('@')?];
    let (user, password) = userinfo.split_once(':')?;
    if password == PLACEHOLDER {
        return None;
    }
    let start = at + "//".len() + user.len() + 1;
    Some(start..start + password.len())
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[test]
    fn stars_are_all_one_sees() {
        let secret = Redacted::new("hunter2".to_owned());
        assert_eq!(
            format!("{secret}|{secret:?}|{secret:#?}"),
            "********|********|********"
        );
        assert_eq!(format!("{:?}", Some(&secret)), "Some(********)");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn overwritten_when_dropped() {
        struct Counts(Arc<AtomicUsize>);
        impl Zeroize for Counts {
            fn zeroize(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let count = Arc::new(AtomicUsize::new(0));
        drop(Redacted::new(Counts(count.clone())));
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn secrets_of_presigned_urls_are_taken_out() {
        let url = "h:5432/?Action=connect&X-Amz-Credential=AKIA%2F2026&X-Amz-Date=2026\
                   &X-Amz-Security-Token=abc%2Bd%3D&x-amz-signature=0123abcd tail";
        assert_eq!(
            redact(url),
            "h:5432/?Action=connect&X-Amz-Credential=********&X-Amz-Date=2026\
             &X-Amz-Security-Token=********&x-amz-signature=******** tail"
        );
    }

    #[test]
    fn secrets_in_the_output_of_aws_tools_are_taken_out() {
        assert_eq!(
            redact(r#"bad: {"SecretAccessKey": "wJalr/+EXAMPLE", "SessionToken":"IQoJ=="} ü"#),
            r#"bad: {"SecretAccessKey": "********", "SessionToken":"********"} ü"#
        );
        assert_eq!(
            redact("AWS_SECRET_ACCESS_KEY=abc/def aws_session_token = xyz"),
            "AWS_SECRET_ACCESS_KEY=******** aws_session_token = ********"
        );
    }

    #[test]
    fn secrets_without_a_parameter_of_their_own_are_taken_out() {
        let token = format!("IQoJb3JpZ2lu{}", "Xx/+".repeat(40));
        for (text, shown) in [
            (
                format!("token {token}, expired"),
                "token ********, expired".to_owned(),
            ),
            (
                "Authorization: AWS4-HMAC-SHA256 Credential=AKIA/x, Signature=00ff\nHost: a"
                    .to_owned(),
                "Authorization: ********\nHost: a".to_owned(),
            ),
            (
                "postgres://u@h/d?password=p%40ss!word&x=1 PGPASSWORD=a#b".to_owned(),
                "postgres://u@h/d?password=********&x=1 PGPASSWORD=********".to_owned(),
            ),
            (
                r#"{"x-amz-sso_bearer_token": "aoa1"} WebIdentityToken=JWT.x&ExternalId=y"#
                    .to_owned(),
                r#"{"x-amz-sso_bearer_token": "********"} WebIdentityToken=********&ExternalId=y"#
                    .to_owned(),
            ),
            (
                "password='two words' \"password\": \"two words\", rest".to_owned(),
                "password='********' \"password\": \"********\", rest".to_owned(),
            ),
            (
                r#"{"reason":"{\"SessionToken\": \"abc\"} passwd='x","b":1}"#.to_owned(),
                r#"{"reason":"{\"SessionToken\": \"********\"} passwd='********","b":1}"#
                    .to_owned(),
            ),
        ] {
            assert_eq!(redact(&text), shown);
        }
    }

    #[test]
    fn passwords_in_urls_are_taken_out() {
        for (text, shown) in [
            (
                "invalid URI: http://u:PASSWD9@example.com/x",
                "invalid URI: http://u:********@example.com/x",
            ),
            (
                "`https://u:PASSWD9@local host'",
                "`https://u:********@local host'",
            ),
            (
                "http://USER:PASSWORD@HOST:PORT",
                "http://USER:PASSWORD@HOST:PORT",
            ),
            (
                "//:p@ss@h:1 //u:@h //u@h:1",
                "//:********@h:1 //u:@h //u@h:1",
            ),
            (
                "https://h:1/a@b and https://h:1?q=a, b@c",
                "https://h:1/a@b and https://h:1?q=a, b@c",
            ),
        ] {
            assert_eq!(redact(text), shown);
        }
        let slashes = "//".repeat(500_000);
        assert_eq!(redact(&slashes), slashes);
        let urls = "//x:".repeat(250_000);
        assert_eq!(redact(&urls), urls);
    }

    #[test]
    fn a_megabyte_of_names_takes_no_longer_than_a_megabyte_of_words() {
        let names = "sessiontoken".repeat(100_000);
        assert_eq!(redact(&names), names);
        let values = "password=x ".repeat(100_000);
        assert_eq!(redact(&values).len(), "password=******** ".len() * 100_000);
    }

    #[test]
    fn harmless_text_stays_as_it_is() {
        for text in [
            "",
            "no SessionToken here",
            "SessionToken",
            "ends with SessionToken=",
            "größe=1",
            "sh: 1: /etc/passwd: Permission denied",
            "password authentication failed for user \"app\"",
            "Signature expired: 20260101T000000Z is now earlier than 20260101T001500Z",
            "IQoJ is how they begin",
        ] {
            assert_eq!(redact(text), text);
        }
    }
}
