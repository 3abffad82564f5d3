//! Words of a bash command line up to the cursor, and words in the form that bash inserts there.

/// Quoting that is open at the end of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quote {
    None,
    Single,
    Double,
}

/// A command line as bash reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BashLine {
    /// The words without quotes. The last one ends at the cursor, and may be empty.
    pub(super) words: Vec<String>,
    quote: Quote,
    /// Bytes at the start of the last word, without its quotes, that bash leaves in place: readline
    /// replaces only the text after a character that breaks words.
    kept: usize,
}

impl BashLine {
    /// Splits a line. `breaks` is `COMP_WORDBREAKS`.
    pub(super) fn parse(line: &str, breaks: &str) -> Self {
        let mut words: Vec<String> = Vec::new();
        let (mut word, mut is_open) = (String::new(), false);
        let (mut quote, mut kept) = (Quote::None, 0);
        let mut chars = line.chars();
        while let Some(c) = chars.next() {
            match (quote, c) {
                (Quote::None, '\'') => (quote, kept) = (Quote::Single, word.len()),
                (Quote::None, '"') => (quote, kept) = (Quote::Double, word.len()),
                (Quote::Single, '\'') | (Quote::Double, '"') => quote = Quote::None,
                (Quote::None, '\\') => word.extend(chars.next()),
                (Quote::Double, '\\') => match chars.next() {
                    Some(next @ ('"' | '\\' | '$' | '`')) => word.push(next),
                    next => word.extend(['\\'].into_iter().chain(next)),
                },
                (Quote::None, c) if c.is_whitespace() => {
                    if is_open {
                        words.push(std::mem::take(&mut word));
                    }
                    (is_open, kept) = (false, 0);
                    continue;
                }
                (Quote::None, c) => {
                    word.push(c);
                    if breaks.contains(c) {
                        kept = word.len();
                    }
                }
                (_, c) => word.push(c),
            }
            is_open = true;
        }
        words.push(word);
        Self { words, quote, kept }
    }

    /// Returns a completed word as bash inserts it, `None` if it does not begin as the line does.
    pub(super) fn insertion(&self, value: &str) -> Option<String> {
        let typed = self.words.last().map_or("", String::as_str);
        value.starts_with(typed).then_some(())?;
        let rest = value.get(self.kept..)?;
        Some(match self.quote {
            // Readline adds the closing quote.
            Quote::Single => rest.replace('\'', r"'\''"),
            Quote::Double => escaped(rest, |c| matches!(c, '"' | '\\' | '$' | '`')),
            Quote::None => escaped(rest, |c| !(c.is_alphanumeric() || "_@%+=:,./-".contains(c))),
        })
    }
}

fn escaped(text: &str, is_special: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_special(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `COMP_WORDBREAKS` of bash.
    const BREAKS: &str = " \t\n\"'><=;|&(:";

    fn words(line: &str) -> Vec<String> {
        BashLine::parse(line, BREAKS).words
    }

    #[test]
    fn words_are_those_of_bash() {
        assert_eq!(words("pgiam check "), ["pgiam", "check", ""]);
        assert_eq!(words("pgiam  check or"), ["pgiam", "check", "or"]);
        assert_eq!(
            words(r#"pgiam 'a b' "c \"d" e\ f"#),
            ["pgiam", "a b", "c \"d", "e f"]
        );
        assert_eq!(words("pgiam ''"), ["pgiam", ""]);
        assert_eq!(words("pgiam --db=a:b"), ["pgiam", "--db=a:b"]);
        assert_eq!(words(r#"pgiam "open w"#), ["pgiam", "open w"]);
        assert_eq!(words(""), [""]);
        assert_eq!(words(r"pgiam \"), ["pgiam", ""]);
    }

    #[test]
    fn insertions_replace_what_readline_replaces() {
        for (line, value, expected) in [
            ("pgiam check or", "orders", Some("orders")),
            ("pgiam check or", "users", None),
            ("pgiam check my", "my db", Some(r"my\ db")),
            (r"pgiam check my\ d", "my db", Some(r"my\ db")),
            ("pgiam check 'my d", "my db", Some("my db")),
            ("pgiam check \"a", "a$b", Some(r"a\$b")),
            ("pgiam check 'a", "a'b", Some(r"a'\''b")),
            ("pgiam check orders:", "orders:reader", Some("reader")),
            ("pgiam check --db=or", "--db=orders", Some("orders")),
            ("pgiam check --db=\"or", "--db=orders", Some("orders")),
            ("pgiam check --db='a:", "--db=a:b", Some("a:b")),
            ("pgiam check it", "it's", Some(r"it\'s")),
            ("pgiam check größ", "größe", Some("größe")),
        ] {
            let insertion = BashLine::parse(line, BREAKS).insertion(value);
            assert_eq!(insertion.as_deref(), expected, "{line}");
        }
    }
}
