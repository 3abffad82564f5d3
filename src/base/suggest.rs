//! Suggestions for mistyped words.

/// Minimum similarity of a suggestion, from 0 to 1. It is clap's value for flags and commands, so
/// that names in files get suggestions as readily.
const ALIKE: f64 = 0.7;

/// Maximum difference in similarity between the most similar word and others shown beside it.
const ABOUT_AS_ALIKE: f64 = 0.08;

/// Returns the word of `known` most similar to `word`; `None` if none is similar.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    ranked(word, known).into_iter().next()
}

/// Returns the words of `known` that are about as similar to `word` as the most similar one, which
/// comes first.
#[must_use]
pub fn ranked<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let word = word.to_lowercase();
    let likeness = |known: &str| strsim::jaro(&word, &known.to_lowercase());
    let mut all: Vec<(f64, &str)> = known
        .into_iter()
        .map(|known| (likeness(known), known))
        .filter(|(likeness, _)| *likeness > ALIKE)
        .collect();
    all.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let best = all.first().map_or(1.0, |(likeness, _)| *likeness);
    all.retain(|(likeness, _)| best - likeness <= ABOUT_AS_ALIKE);
    all.into_iter().map(|(_, known)| known).collect()
}

/// Returns a suggestion as a sentence to append to a message, or nothing.
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
