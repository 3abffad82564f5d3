//! Text from other parties: AWS, the bastion's agent, servers, certificates, DNS, clients.
//!
//! Such text is not trusted. It may contain terminal commands, line breaks that forge a log line,
//! marks that reverse the reading direction, a megabyte of noise, or a secret quoted in an error
//! message. [`ForeignText`] removes all of that when it is created, so that errors, logs, status
//! and tables can show it unchanged.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use crate::base::redacted::redact;

/// Maximum bytes shown of one text. AWS's longest refusals have about 700.
pub const LONGEST: usize = 1000;
/// Maximum bytes examined. Redacting and escaping change the length.
const LOOKED_AT: usize = 4 * LONGEST;

/// Text of foreign origin that is safe to show: one line, no control characters, labelled secrets
/// redacted, at most [`LONGEST`] bytes and a note of how many are omitted.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ForeignText(String);

impl ForeignText {
    /// Redacts, escapes and shortens `text`.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let read = &text[..text.floor_char_boundary(LOOKED_AT)];
        let redacted = redact(read);
        let mut safe = String::with_capacity(redacted.len().min(LONGEST));
        for (at, c) in redacted.char_indices() {
            let before = safe.len();
            push_visible(&mut safe, c);
            if safe.len() > LONGEST {
                safe.truncate(before);
                let left = redacted.len() - at + (text.len() - read.len());
                safe.push_str(&format!("… ({left} more bytes)"));
                return Self(safe);
            }
        }
        if text.len() > read.len() {
            safe.push_str(&format!("… ({} more bytes)", text.len() - read.len()));
        }
        Self(safe)
    }

    /// Converts bytes like [`ForeignText::new`]; invalid UTF-8 is replaced.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let read = &bytes[..bytes.len().min(LOOKED_AT + 4)];
        let text = String::from_utf8_lossy(read);
        let mut safe = Self::new(&text);
        if bytes.len() > read.len() && !safe.0.ends_with("more bytes)") {
            safe.0.push('…');
        }
        safe
    }

    /// Converts a text with line breaks for readers like [`ForeignText::new`]: to one line, with
    /// single spaces between the words.
    #[must_use]
    pub fn folded(text: &str) -> Self {
        let read = &text[..text.floor_char_boundary(LOOKED_AT)];
        let words: Vec<&str> = read.split_whitespace().collect();
        let mut safe = Self::new(&words.join(" "));
        if text.len() > read.len() && !safe.0.ends_with("more bytes)") {
            safe.0
                .push_str(&format!("… ({} more bytes)", text.len() - read.len()));
        }
        safe
    }

    /// Returns the safe text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the safe text as a `String`.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

impl Deref for ForeignText {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ForeignText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ForeignText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl From<&str> for ForeignText {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for ForeignText {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

impl From<ForeignText> for String {
    fn from(text: ForeignText) -> Self {
        text.0
    }
}

impl PartialEq<str> for ForeignText {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for ForeignText {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

/// Returns `true` for a character that is not displayed as itself: it controls a terminal, ends a
/// line, or changes the reading of its neighbours. These are control characters (C0, DEL, C1), line
/// and paragraph separators, direction marks (UAX #9), and characters without width.
#[must_use]
pub fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

fn push_visible(text: &mut String, c: char) {
    if is_invisible(c) {
        text.extend(c.escape_default());
    } else {
        text.push(c);
    }
}

/// Returns the text in one line, with invisible characters escaped as in Rust: `\n`, `\u{1b}`.
/// Existing escapes stay unchanged.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_invisible) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    text.chars().for_each(|c| push_visible(&mut safe, c));
    Cow::Owned(safe)
}

/// Returns JSON in which no character acts on a terminal. Characters that JSON allows unescaped
/// inside strings (DEL, C1, direction marks) are written as `\u` escapes with the same meaning.
/// Line breaks and tabs between the values stay.
#[must_use]
pub fn visible_json(json: &str) -> Cow<'_, str> {
    let acts = |c: char| is_invisible(c) && !matches!(c, '\n' | '\t' | '\r');
    if !json.contains(acts) {
        return Cow::Borrowed(json);
    }
    let mut safe = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if acts(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                safe.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_shown_instead() {
        for (hostile, safe) in [
            ("\u{1b}]0;owned\u{7}", "\\u{1b}]0;owned\\u{7}"),
            (
                "a\r\n2026-01-01 INFO forged",
                "a\\r\\n2026-01-01 INFO forged",
            ),
            ("nul\0del\u{7f}c1\u{9b}2J", "nul\\u{0}del\\u{7f}c1\\u{9b}2J"),
            (
                "\u{202e}txt\u{2066}x\u{2069}",
                "\\u{202e}txt\\u{2066}x\\u{2069}",
            ),
            (
                "a\u{2028}b\u{2029}c\u{85}d",
                "a\\u{2028}b\\u{2029}c\\u{85}d",
            ),
            ("größe \"q\" C:\\dir → 日本", "größe \"q\" C:\\dir → 日本"),
        ] {
            assert_eq!(ForeignText::new(hostile).as_str(), safe);
            assert_eq!(visible(hostile), safe);
            assert_eq!(visible(safe), safe, "twice is once");
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters_and_say_so() {
        let text = "ü".repeat(600_000);
        let safe = ForeignText::new(&text);
        assert_eq!(
            safe.as_str(),
            format!("{}… (1199000 more bytes)", "ü".repeat(500))
        );
        let escaped = ForeignText::new(&"\u{1b}".repeat(1000));
        assert!(escaped.len() < LONGEST + 40 && escaped.ends_with(" more bytes)"));
        assert_eq!(ForeignText::new(&"x".repeat(LONGEST)).len(), LONGEST);
        assert!(ForeignText::of_bytes(&vec![0xff; 1_000_000]).len() < LONGEST + 40);
        let words = ForeignText::folded(&"word\r\n".repeat(200_000));
        assert!(words.starts_with("word word") && words.len() < LONGEST + 40);
    }

    #[test]
    fn secrets_are_gone_even_where_the_text_is_cut() {
        let token = "IQoJb3JpZ2luX2VjE".repeat(400);
        let echoed = format!(
            "The Canonical String should have been\n'POST\n/\n\nhost:sts\nx-amz-security-token:{token}\n\nhost;x-amz-security-token\n0123'"
        );
        let safe = ForeignText::new(&echoed);
        assert!(!safe.contains("IQoJ"), "{safe}");
        assert!(safe.contains("\\nx-amz-security-token:********"), "{safe}");
    }

    #[test]
    fn folded_texts_are_one_line() {
        assert_eq!(
            ForeignText::folded("----ERROR----\nSetting  up\r\n\tfailed\u{1b}[2J"),
            "----ERROR---- Setting up failed\\u{1b}[2J"
        );
    }

    #[test]
    fn json_keeps_its_meaning() {
        let value =
            serde_json::json!({"a": "x\u{7f}\u{9b}\u{202e}\u{e0041}\u{1b}\n", "b": [1, "ü"]});
        for text in [
            serde_json::to_string(&value).unwrap(),
            serde_json::to_string_pretty(&value).unwrap(),
        ] {
            let safe = visible_json(&text);
            assert!(!safe.contains(|c| is_invisible(c) && c != '\n'), "{safe:?}");
            let back: serde_json::Value = serde_json::from_str(&safe).unwrap();
            assert_eq!(back, value);
        }
        assert_eq!(visible_json("{\n}"), "{\n}");
    }

    /// Pseudo-random texts of all parts with a meaning somewhere (xorshift, Marsaglia 2003).
    #[test]
    fn whatever_the_text_is_the_result_is_one_short_line_without_commands_or_secrets() {
        const PARTS: &[&str] = &[
            "\u{1b}[31m",
            "\u{1b}]0;t\u{7}",
            "\r\n",
            "\n",
            "\0",
            "\u{7f}",
            "\u{9b}",
            "\u{202e}",
            "\u{2067}",
            "\u{2028}",
            "\u{feff}",
            "\u{e0001}",
            "ü",
            "日本",
            "\\n",
            "\\",
            "\"",
            "'",
            "=",
            ":",
            " ",
            "x",
            "X-Amz-Signature=",
            "x-amz-security-token:",
            "SecretAccessKey\": \"",
            "password=",
            "TokenValue",
            "Authorization: ",
            "Bearer ",
            "&",
            ",",
            "; ",
            "a long run of words ",
        ];
        const SECRET: &str = "S3CR3TS3CR3TS3CR3T";
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            usize::try_from(seed % below as u64).unwrap()
        };
        for _ in 0..3000 {
            let mut text = String::new();
            for _ in 0..next(60) {
                text.push_str(PARTS[next(PARTS.len())]);
                if next(300) == 0 {
                    text.push_str(&PARTS[next(PARTS.len())].repeat(next(2000)));
                }
            }
            let name = [
                "X-Amz-Signature=",
                "session_token: ",
                "password=",
                "\"TokenValue\":\"",
            ][next(4)];
            text.push_str(&format!(" {name}{SECRET} "));
            let safe = ForeignText::new(&text);
            assert!(!safe.contains(is_invisible), "{safe:?}");
            assert!(!safe.contains(SECRET), "{text:?} -> {safe:?}");
            assert!(safe.len() <= LONGEST + 40, "{}", safe.len());
            assert_eq!(visible(&safe), safe.as_str());
            let json = serde_json::to_string(&text).unwrap();
            let shown = visible_json(&json);
            assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
        }
    }
}
