//! Splitting of headers and commands into words.

use thiserror::Error;

/// An open quote, or a backslash at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("unbalanced quote or trailing backslash")]
pub struct UnbalancedQuote;

/// Splits as Python's `shlex.split` does in POSIX mode. Whitespace is blank, tab, CR and LF; `#` and
/// all characters of a shell other than quotes and the backslash are ordinary.
///
/// # Errors
/// [`UnbalancedQuote`].
pub fn split_posix(text: &str) -> Result<Vec<String>, UnbalancedQuote> {
    let mut words = Vec::new();
    // `None` between two words.
    let mut word: Option<String> = None;
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '\\' => {
                let next = rest.next().ok_or(UnbalancedQuote)?;
                word.get_or_insert_default().push(next);
            }
            '\'' | '"' => quoted(c, &mut rest, word.get_or_insert_default())?,
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Adds the text up to the closing quote. A backslash is an escape only in double quotes, and only
/// before a double quote or a backslash.
fn quoted(
    quote: char,
    rest: &mut std::str::Chars<'_>,
    word: &mut String,
) -> Result<(), UnbalancedQuote> {
    loop {
        match rest.next().ok_or(UnbalancedQuote)? {
            c if c == quote => return Ok(()),
            '\\' if quote == '"' => {
                let next = rest.next().ok_or(UnbalancedQuote)?;
                if !matches!(next, '"' | '\\') {
                    word.push('\\');
                }
                word.push(next);
            }
            c => word.push(c),
        }
    }
}

/// Splits by the rules of the C runtime on Windows, as the CLI does there: only `"` quotes, 2n
/// backslashes before it are n, and 2n+1 are n and a literal quote.
///
/// # Errors
/// [`UnbalancedQuote`].
pub fn split_windows(text: &str) -> Result<Vec<String>, UnbalancedQuote> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut is_quoted = false;
    let mut backslashes = 0;
    for c in text.chars() {
        if c == '\\' {
            backslashes += 1;
            continue;
        }
        if c == '"' {
            let word = word.get_or_insert_default();
            word.extend(std::iter::repeat_n('\\', backslashes / 2));
            if backslashes % 2 == 1 {
                word.push('"');
            } else {
                is_quoted = !is_quoted;
            }
            backslashes = 0;
            continue;
        }
        if backslashes > 0 {
            let word = word.get_or_insert_default();
            word.extend(std::iter::repeat_n('\\', backslashes));
            backslashes = 0;
        }
        match c {
            ' ' | '\t' if !is_quoted => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    if is_quoted {
        return Err(UnbalancedQuote);
    }
    if backslashes > 0 {
        let word = word.get_or_insert_default();
        word.extend(std::iter::repeat_n('\\', backslashes));
    }
    words.extend(word);
    Ok(words)
}
