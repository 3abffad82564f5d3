//! Values that must not be seen: tokens, passwords, keys.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

const STARS: &str = "********";

/// A secret. Prints as stars in `Debug` and `Display` and is overwritten when dropped.
///
/// Comparing two secrets compares their values; that is not constant-time, so use it for
/// bookkeeping and not to check what a stranger sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Redacted<T: Zeroize>(T);

impl<T: Zeroize> Redacted<T> {
    /// Wraps a secret.
    pub fn new(secret: T) -> Self {
        Self(secret)
    }

    /// The secret itself. Whoever calls this must not print, log or keep it.
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

/// Names after which a value is a secret: the query parameters of a presigned URL, and the keys
/// under which AWS tools print credentials. Compared without regard to case.
const SECRET_NAMES: [&str; 9] = [
    "x-amz-signature",
    "x-amz-security-token",
    "x-amz-credential",
    "secretaccesskey",
    "secret_access_key",
    "sessiontoken",
    "session_token",
    "accesstoken",
    "tokenvalue",
];

/// A text of foreign origin with the secrets taken out that it names as such.
///
/// Values of `X-Amz-Signature=…` and the like, of `"SecretAccessKey": "…"` and of
/// `AWS_SESSION_TOKEN=…` become stars. For messages of other programs and for URLs; it is a second
/// line of defence and no licence to print secrets.
pub fn redact(text: &str) -> String {
    // ASCII only, so that offsets in the lower-case copy are offsets in the text.
    let lower = text.to_ascii_lowercase();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some((start, name)) = next_name(&lower, at) {
        let value = value_range(text, start + name.len());
        out.push_str(&text[at..value.start]);
        if !value.is_empty() {
            out.push_str(STARS);
        }
        at = value.end;
    }
    out.push_str(&text[at..]);
    out
}

fn next_name(lower: &str, from: usize) -> Option<(usize, &'static str)> {
    SECRET_NAMES
        .iter()
        .filter_map(|name| Some((from + lower[from..].find(name)?, *name)))
        .min()
}

/// The value behind a name that ends at `from`: an optional quote, `=` or `:`, an optional quote,
/// then everything up to something that cannot belong to a base64 or percent-encoded value.
/// Empty when no `=` or `:` follows.
fn value_range(text: &str, from: usize) -> std::ops::Range<usize> {
    let rest = &text[from..];
    let after_name = rest.trim_start_matches(['"', '\'', '\\', ' ']);
    let Some(after_sign) = after_name.strip_prefix(['=', ':']) else {
        return from..from;
    };
    let value = after_sign.trim_start_matches(['"', '\'', '\\', ' ']);
    let start = from + rest.len() - value.len();
    let length = value
        .find(|c: char| !(c.is_ascii_alphanumeric() || "+/=%-_.~*".contains(c)))
        .unwrap_or(value.len());
    start..start + length
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
    fn harmless_text_stays_as_it_is() {
        for text in [
            "",
            "no SessionToken here",
            "SessionToken",
            "ends with SessionToken=",
            "größe=1",
        ] {
            assert_eq!(redact(text), text);
        }
    }
}
