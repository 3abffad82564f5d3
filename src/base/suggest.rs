//! The word that somebody who has mistyped one most likely meant.

/// How alike two words must be for the one to be taken for the other, from 0 to 1. As clap does it
/// for flags and commands, so that suggestions come as readily for names in files.
const ALIKE: f64 = 0.7;

/// The one of `known` that is most like `word`; `None` where none is like it.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let likeness = |known: &str| strsim::jaro(&word, &known.to_lowercase());
    known
        .into_iter()
        .map(|known| (likeness(known), known))
        .filter(|(likeness, _)| *likeness > ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known)
}

/// The same as a sentence to put behind a message, or nothing.
#[must_use]
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known)
        .map(|known| format!("did you mean \"{known}\"? "))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_is_found_and_strangers_are_not() {
        let known = ["orders", "users", "reports"];
        for (word, expected) in [
            ("ordres", Some("orders")),
            ("Orders", Some("orders")),
            ("user", Some("users")),
            ("report", Some("reports")),
            ("kafka", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
        assert_eq!(did_you_mean("ordres", known), "did you mean \"orders\"? ");
        assert_eq!(did_you_mean("kafka", known), "");
    }
}
