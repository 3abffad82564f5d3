//! SASLprep of passwords (RFC 4013), like PostgreSQL on both sides (`pg_saslprep` in
//! `src/common/saslprep.c`).

use std::borrow::Cow;

use stringprep::tables;
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

/// Prepares a password for the key derivation. Never fails: a password that SASLprep does not allow
/// is used unchanged, because PostgreSQL's passwords need not be valid for SASLprep.
///
/// PostgreSQL departs from RFC 3454 in one point, and both sides of a login must agree: it checks
/// for prohibited characters and the direction of the text before normalisation instead of after
/// it.
pub(super) fn prepare(password: &str) -> Cow<'_, str> {
    // This includes control characters, which are prohibited and so used unchanged.
    if password.is_ascii() {
        return Cow::Borrowed(password);
    }
    let mapped: Zeroizing<String> = Zeroizing::new(password.chars().filter_map(map).collect());
    if mapped.is_empty() || mapped.chars().any(is_prohibited) || !is_one_direction(&mapped) {
        return Cow::Borrowed(password);
    }
    Cow::Owned(mapped.nfkc().collect())
}

/// Maps a character (RFC 4013, 2.1).
fn map(c: char) -> Option<char> {
    if tables::non_ascii_space_character(c) {
        Some(' ')
    } else if tables::commonly_mapped_to_nothing(c) {
        None
    } else {
        Some(c)
    }
}

/// Returns true for a prohibited or unassigned character (RFC 4013, 2.3 and 2.5).
fn is_prohibited(c: char) -> bool {
    tables::non_ascii_space_character(c)
        || tables::ascii_control_character(c)
        || tables::non_ascii_control_character(c)
        || tables::private_use(c)
        || tables::non_character_code_point(c)
        || tables::surrogate_code(c)
        || tables::inappropriate_for_plain_text(c)
        || tables::inappropriate_for_canonical_representation(c)
        || tables::change_display_properties_or_deprecated(c)
        || tables::tagging_character(c)
        || tables::unassigned_code_point(c)
}

/// Returns true if text with a right-to-left character has no left-to-right one, and begins and
/// ends with right-to-left (RFC 3454, 6).
fn is_one_direction(text: &str) -> bool {
    if !text.contains(tables::bidi_r_or_al) {
        return true;
    }
    !text.contains(tables::bidi_l)
        && text.starts_with(tables::bidi_r_or_al)
        && text.ends_with(tables::bidi_r_or_al)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_the_rfc() {
        // RFC 4013, 3; the last two are errors there, so they are used unchanged.
        for (input, output) in [
            ("I\u{ad}X", "IX"),
            ("user", "user"),
            ("USER", "USER"),
            ("\u{aa}", "a"),
            ("\u{2168}", "IX"),
            ("\u{7}", "\u{7}"),
            ("\u{627}1", "\u{627}1"),
        ] {
            assert_eq!(prepare(input), output, "{input:?}");
        }
    }

    #[test]
    fn what_may_not_be_prepared_stays() {
        for raw in [
            "",
            "\u{ad}",           // nothing would be left
            "\u{ad}\u{7}",      // a control character, once it is not plain ASCII
            "\u{fc}\u{e000}",   // private use
            "\u{fc}\u{1f600}",  // not assigned in Unicode 3.2
            "a\u{627}",         // both directions
            "\u{627}a\u{627}",  // both directions
            "\u{340}\u{fc}",    // prohibited, although its normal form is not
            "\u{2168}\u{200e}", // a direction mark
        ] {
            assert_eq!(prepare(raw), raw, "{raw:?}");
        }
    }

    #[test]
    fn spaces_and_compositions_become_one_form() {
        assert_eq!(prepare("a\u{a0}b\u{3000}c"), "a b c");
        assert_eq!(prepare("u\u{308}"), "\u{fc}");
        assert_eq!(prepare("\u{627}\u{661}\u{627}"), "\u{627}\u{661}\u{627}");
    }
}
