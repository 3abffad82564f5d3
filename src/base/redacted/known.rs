//! Secret values in use, so that a text that quotes one without its name is redacted as well.
//!
//! A secret access key has no recognizable shape: 40 characters that could be a hash. The values
//! are therefore recorded when they are validated.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{PoisonError, RwLock};

use super::{Redacted, STARS};

/// Minimum length of a recorded value: redacting a shorter one would hide harmless words.
const SHORTEST: usize = 16;
/// Maximum number of recorded values; the oldest is dropped first. Four targets with two roles
/// each, renewed three times, have fewer.
const MOST: usize = 64;
/// Minimum length of a value's prefix that is redacted at the end of a text, where the text was
/// cut.
const SHORTEST_START: usize = 8;

/// Longest such beginning. Tokens have some kilobytes at most.
const LONGEST_START: usize = 4 * 1024;

static VALUES: RwLock<VecDeque<Redacted<String>>> = RwLock::new(VecDeque::new());
/// Session tokens. They have a list of their own, because there is one for each session and each
/// lost connection, and they must not displace the keys.
static TOKENS: RwLock<VecDeque<Redacted<String>>> = RwLock::new(VecDeque::new());

/// Records `value`: [`super::redact`] removes it from every text from now on, also percent-encoded.
pub(crate) fn remember(value: &str) {
    remember_in(&VALUES, value);
}

/// Records the token of a session.
pub(crate) fn remember_token(value: &str) {
    remember_in(&TOKENS, value);
}

fn remember_in(values: &RwLock<VecDeque<Redacted<String>>>, value: &str) {
    if value.len() < SHORTEST {
        return;
    }
    let encoded = encoded(value);
    let mut values = values.write().unwrap_or_else(PoisonError::into_inner);
    for form in [Some(value), encoded.as_deref()].into_iter().flatten() {
        if values.iter().any(|known| known.expose() == form) {
            continue;
        }
        if values.len() == MOST {
            values.pop_front();
        }
        values.push_back(Redacted::new(form.to_owned()));
    }
}

/// Returns `text` without the recorded values.
pub(super) fn hide(text: &str) -> Cow<'_, str> {
    [&VALUES, &TOKENS]
        .into_iter()
        .fold(Cow::Borrowed(text), |text, values| {
            let values = values.read().unwrap_or_else(PoisonError::into_inner);
            values
                .iter()
                .fold(text, |text, value| hide_one(text, value.expose()))
        })
}

fn hide_one<'a>(text: Cow<'a, str>, value: &str) -> Cow<'a, str> {
    let found = text.contains(value);
    let whole = if found {
        Cow::Owned(text.replace(value, STARS))
    } else {
        text
    };
    // A value can be as long as an answer of AWS, and a text is shorter.
    let longest = value.len().min(whole.len() + 1).min(LONGEST_START);
    let cut = (SHORTEST_START..longest)
        .rev()
        .filter(|&length| value.is_char_boundary(length))
        .find(|&length| whole.ends_with(&value[..length]));
    match cut {
        Some(length) => Cow::Owned(format!("{}{STARS}", &whole[..whole.len() - length])),
        None => whole,
    }
}

/// Returns `value` as encoded in a query parameter or a canonical request, if that differs.
fn encoded(value: &str) -> Option<String> {
    let encoded: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
    // AWS encodes a space as %20; validated values contain none.
    (encoded != value).then_some(encoded)
}

#[cfg(test)]
mod tests {
    use crate::base::redacted::redact;

    use super::*;

    #[test]
    fn a_remembered_value_is_hidden_in_every_form() {
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYREMEMBERED";
        assert!(redact(&format!("it was {secret}.")).contains(secret));
        remember(secret);
        for (text, shown) in [
            (format!("it was {secret}."), "it was ********.".to_owned()),
            (format!("{secret}{secret}"), "****************".to_owned()),
            (
                "x=wJalrXUtnFEMI%2FK7MDENG%2BbPxRfiCYREMEMBERED&y".to_owned(),
                "x=********&y".to_owned(),
            ),
            (
                format!("cut: {}", &secret[..20]),
                "cut: ********".to_owned(),
            ),
            (
                format!("cut: {}", &secret[..7]),
                format!("cut: {}", &secret[..7]),
            ),
        ] {
            assert_eq!(redact(&text), shown);
        }
    }

    #[test]
    fn tokens_of_sessions_do_not_push_out_keys() {
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYSTILLKNOWN";
        remember(secret);
        for n in 0..3 * MOST {
            remember_token(&format!("the token of session {n}"));
        }
        let text = format!("{secret}, the token of session 191");
        assert_eq!(redact(&text), "********, ********");
        assert!(TOKENS.read().unwrap().len() <= MOST);
    }

    #[test]
    fn a_huge_value_costs_no_more_than_the_text() {
        let huge = "h".repeat(800_000);
        // Takes minutes where each beginning of the value is compared.
        for _ in 0..1000 {
            let shown = hide_one(Cow::Borrowed("a line of the log, with hhhhhhhhhh"), &huge);
            assert_eq!(shown, "a line of the log, with ********");
        }
    }

    #[test]
    fn words_are_not_remembered() {
        remember("localhost");
        assert_eq!(redact("localhost refused"), "localhost refused");
    }

    #[test]
    fn the_number_of_values_is_bounded() {
        for n in 0..3 * MOST {
            remember(&format!("a secret of some length {n}"));
        }
        assert!(VALUES.read().unwrap().len() <= MOST);
    }
}
