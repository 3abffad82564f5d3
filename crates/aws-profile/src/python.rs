//! Text functions of Python's standard library, which decide about the grammar.

/// Returns `true` for the characters that `str.isspace` and `\s` match. Rust does not count the
/// four separators U+001C to U+001F.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Trims as `str.strip` does.
pub(crate) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// Trims the end as `str.rstrip` does.
pub(crate) fn strip_end(text: &str) -> &str {
    text.trim_end_matches(is_space)
}

/// Returns the number of characters before the first one that is not whitespace.
pub(crate) fn indentation(line: &str) -> usize {
    line.chars().take_while(|&c| is_space(c)).count()
}

/// Splits at every boundary of `str.splitlines`. The pieces of CRLF include an empty one.
pub(crate) fn split_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| {
        matches!(
            c,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'
                ..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    })
}

/// Most digits that `int` accepts (`sys.int_info.default_max_str_digits`).
const MAX_DIGITS: usize = 4300;

/// Parses an integer as `int` does: whitespace around it, a sign and single underscores between
/// digits. Saturates. Digits of other scripts are not supported.
pub(crate) fn integer(text: &str) -> Option<i64> {
    let text = strip(text);
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut groups = digits.split('_');
    if !groups.all(|group| !group.is_empty() && group.bytes().all(|b| b.is_ascii_digit())) {
        return None;
    }
    let digits = digits.bytes().filter(u8::is_ascii_digit);
    if digits.clone().count() > MAX_DIGITS {
        return None;
    }
    let value = digits.fold(0_i64, |value, digit| {
        value
            .saturating_mul(10)
            .saturating_add(i64::from(digit - b'0'))
    });
    Some(if negative { -value } else { value })
}

/// Splits at LF, CRLF and CR, as files opened as text do.
pub(crate) fn file_lines(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let end = end.unwrap_or(bytes.len());
        let (line, rest) = bytes.split_at(end);
        let skipped = match rest {
            [b'\r', b'\n', ..] => 2,
            [] => 0,
            _ => 1,
        };
        bytes = rest.get(skipped..).unwrap_or_default();
        Some(line)
    })
}
