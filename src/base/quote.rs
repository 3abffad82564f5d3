//! Quoting of values for other languages. Each function accepts any text without NUL, which none of
//! these languages can represent; names from the configuration never contain it.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Characters to escape in a part of a URI: all except the unreserved ones of RFC 3986, section
/// 2.3. Java's decoder reads a bare `+` as a space, and libpq does not; both read the escaped form
/// the same.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Characters to escape in the path of a URI: `RESERVED` without some that a path may contain (RFC
/// 3986, section 3.3). `@` stays escaped, because SQLAlchemy reads it as the end of a password; so
/// do characters that shells interpret. `decodeURI`, as node-postgres uses it, decodes none of the
/// unescaped ones, and postgres.js and Sequelize decode nothing in a path.
const PATH_RESERVED: &AsciiSet = &RESERVED
    .remove(b'/')
    .remove(b':')
    .remove(b'+')
    .remove(b'=')
    .remove(b',');

/// Quotes the path of a URI: `orders/app` stays unchanged.
#[must_use]
pub fn path(text: &str) -> String {
    utf8_percent_encode(text, PATH_RESERVED).to_string()
}

/// Returns a path for a message: control characters and marks that are not visible are escaped.
#[must_use]
pub fn shown(path: &std::path::Path) -> String {
    printable(&path.to_string_lossy())
}

/// Quotes a part of a URI.
#[must_use]
pub fn percent(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// Quotes an SQL identifier like PostgreSQL's `quote_ident` for one that needs quotes
/// (`ruleutils.c`, `quote_identifier`).
#[must_use]
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes an SQL string like PostgreSQL's `quote_literal` (`quote.c`): correct for any value of
/// `standard_conforming_strings`.
#[must_use]
pub fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''").replace('\\', "\\\\");
    if doubled.contains('\\') {
        format!("E'{doubled}'")
    } else {
        format!("'{doubled}'")
    }
}

/// Quotes a word of a command that the user can paste: for PowerShell on Windows, elsewhere for a POSIX
/// shell.
#[must_use]
pub fn shell(word: &str) -> String {
    match cfg!(windows) {
        true => on_windows(word),
        false => posix(word),
    }
}

/// Quotes a word for PowerShell, if it needs it. Words without quotes mean the same in `cmd`.
fn on_windows(word: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"_%+=:./\\-".contains(&b);
    match !word.is_empty() && word.bytes().all(is_plain) {
        true => word.to_owned(),
        false => powershell(word),
    }
}

/// Returns a string literal of PowerShell, which also takes typographic quotes for single ones.
#[must_use]
pub fn powershell(text: &str) -> String {
    let mut literal = String::from("'");
    for c in text.chars() {
        literal.push(c);
        if matches!(c, '\'' | '\u{2018}'..='\u{201b}') {
            literal.push(c);
        }
    }
    literal.push('\'');
    literal
}

/// Quotes a word for a POSIX shell.
#[must_use]
pub fn posix(word: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(&b);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Quotes a value of a libpq connection string (PostgreSQL, "Keyword/Value Connection Strings").
#[must_use]
pub fn dsn(value: &str) -> String {
    let needs_quotes = |c: char| c.is_whitespace() || c == '\'' || c == '\\';
    if !value.is_empty() && !value.contains(needs_quotes) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', r"\\").replace('\'', r"\'"))
}

/// Quotes a value of a .NET connection string (`DbConnectionStringBuilder`, "Remarks").
#[must_use]
pub fn dotnet(value: &str) -> String {
    let needs_quotes =
        |c: char| c.is_whitespace() || c.is_control() || matches!(c, ';' | '\'' | '"' | '=');
    if !value.is_empty() && !value.contains(needs_quotes) {
        return value.to_owned();
    }
    format!("\"{}\"", value.replace('"', "\"\""))
}

/// Returns a role and a database for a connection string of psqlODBC. The driver takes values as they
/// are, up to the next `;`, and keeps braces around them. Other values are in `pqopt`, which passes
/// keywords of libpq on, and in which `}` is doubled (psqlODBC, "Configuration Options").
#[must_use]
pub fn odbc(user: Option<&str>, database: Option<&str>) -> String {
    let is_plain = |value: &str| {
        !value.is_empty() && value.trim() == value && !value.contains([';', '{', '}'])
    };
    if user.into_iter().chain(database).all(is_plain) {
        let user = user.map(|user| format!("UID={user};"));
        let database = database.map(|database| format!("Database={database};"));
        return database.into_iter().chain(user).collect();
    }
    let user = user.map(|user| format!("user={}", dsn(user)));
    let database = database.map(|database| format!("dbname={}", dsn(database)));
    let all: Vec<String> = user.into_iter().chain(database).collect();
    format!("pqopt={{{}}};", all.join(" ").replace('}', "}}"))
}

/// Quotes a value of a `.env` file. `None`: POSIX shells, python-dotenv and Node.js read no notation
/// of it alike. They agree on single quotes, unless there is a single quote or an escaped backslash
/// inside; python-dotenv replaces `${NAME}` in every kind of quotes.
#[must_use]
pub fn dotenv(value: &str) -> Option<String> {
    if value.contains(char::is_control) || value.contains("${") {
        return None;
    }
    let plain = posix(value);
    if plain == value {
        return Some(plain);
    }
    if !value.contains('\'') {
        let is_read_alike = !value.contains(r"\\") && !value.ends_with('\\');
        return is_read_alike.then_some(plain);
    }
    let is_read_alike = !value.contains(['"', '$', '`', '\\']);
    is_read_alike.then(|| format!("\"{value}\""))
}

/// Quotes a field of a `.pgpass` file (PostgreSQL docs, "The Password File"): without the backslash,
/// a field `*` is a wildcard, and a line that begins with `#` is a comment.
#[must_use]
pub fn pgpass(field: &str) -> String {
    let escaped = field.replace('\\', r"\\").replace(':', r"\:");
    match field == "*" || field.starts_with('#') {
        true => format!(r"\{escaped}"),
        false => escaped,
    }
}

/// Quotes a string for HCL, Terraform's language ("Strings and templates").
#[must_use]
pub fn hcl(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted.replace("${", "$${").replace("%{", "%%{")
}

/// Quotes a string for YAML, in double quotes: JSON strings are valid there (YAML 1.2, section
/// 5.7).
#[must_use]
pub fn yaml(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Converts text for a comment that ends with its line.
#[must_use]
pub fn comment(text: &str) -> String {
    // All characters that a language may read as the end of a line; YAML has three more than ASCII.
    let ends = crate::base::foreign_text::is_invisible;
    text.chars()
        .map(|c| if ends(c) { '\u{fffd}' } else { c })
        .collect()
}

/// Returns foreign text in one line, with terminal control characters escaped.
pub(crate) fn printable(text: &str) -> String {
    crate::base::foreign_text::visible(text).into_owned()
}

/// Escapes terminal control characters in a text that may contain foreign words, line by line.
#[must_use]
pub fn clean(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(printable).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_leaves_only_what_every_decoder_leaves() {
        assert_eq!(percent("db_user-1.x~"), "db_user-1.x~");
        assert_eq!(percent("a b+c/d?e@f:g%"), "a%20b%2Bc%2Fd%3Fe%40f%3Ag%25");
        assert_eq!(percent("ü&'"), "%C3%BC%26%27");
    }

    #[test]
    fn paths_keep_what_drivers_do_not_decode() {
        assert_eq!(path("orders/a+b=c,d:e"), "orders/a+b=c,d:e");
        assert_eq!(path("a b@c?d#e&f$g;h%"), "a%20b%40c%3Fd%23e%26f%24g%3Bh%25");
        assert_eq!(path("é'"), "%C3%A9%27");
    }

    #[test]
    fn a_path_forges_no_line() {
        let path = std::path::Path::new("x\nERROR forged\u{202e}");
        assert_eq!(shown(path), "x\\nERROR forged\\u{202e}");
    }

    #[test]
    fn sql() {
        assert_eq!(identifier(r#"we"ird Name"#), r#""we""ird Name""#);
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"back\slash'"), r"E'back\\slash'''");
    }

    #[test]
    fn shells() {
        assert_eq!(posix("tag:Name=bastion"), "tag:Name=bastion");
        assert_eq!(posix(""), "''");
        assert_eq!(posix("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(on_windows(r"C:\tools\pgiam.exe"), r"C:\tools\pgiam.exe");
        for (word, quoted) in [
            ("", "''"),
            ("it's $HOME", "'it''s $HOME'"),
            ("O\u{2019}Neil", "'O\u{2019}\u{2019}Neil'"),
            ("a,b", "'a,b'"),
            ("@all", "'@all'"),
        ] {
            assert_eq!(on_windows(word), quoted);
        }
    }

    #[test]
    fn connection_strings() {
        assert_eq!(dsn("app"), "app");
        assert_eq!(dsn(""), "''");
        assert_eq!(dsn(r"it's a\b"), r"'it\'s a\\b'");
        assert_eq!(dotnet("orders/app"), "orders/app");
        assert_eq!(dotnet(r#"a;b "c""#), r#""a;b ""c""""#);
    }

    #[test]
    fn odbc_values_have_no_quotes_of_their_own() {
        let written = |user, database| odbc(Some(user), Some(database));
        assert_eq!(
            written("it's \"x\"=1", r"a\b"),
            r#"Database=a\b;UID=it's "x"=1;"#
        );
        assert_eq!(odbc(None, Some("app")), "Database=app;");
        assert_eq!(odbc(None, None), "");
        assert_eq!(
            written("UID=x;Server=evil", "it's }"),
            r"pqopt={user=UID=x;Server=evil dbname='it\'s }}'};"
        );
        assert_eq!(odbc(Some(" a"), None), "pqopt={user=' a'};");
    }

    #[test]
    fn env_files_have_one_notation_for_all_readers() {
        for (value, written) in [
            ("db_user", "db_user"),
            ("", "''"),
            ("$HOME #1", "'$HOME #1'"),
            (r"a\nb", r"'a\nb'"),
            ("it's #1!", "\"it's #1!\""),
        ] {
            assert_eq!(dotenv(value).as_deref(), Some(written), "{value}");
        }
        for value in [
            "a\nb", "${HOME}", r"a\", r"a\\b", "it's $x", "it's `x`", r#"'""#,
        ] {
            assert_eq!(dotenv(value), None, "{value}");
        }
    }

    #[test]
    fn fields_of_password_files() {
        assert_eq!(pgpass(r"a:b\c"), r"a\:b\\c");
        assert_eq!(pgpass("*"), r"\*");
        assert_eq!(pgpass("#a"), r"\#a");
        assert_eq!(pgpass("a*#"), "a*#");
    }

    #[test]
    fn templates() {
        assert_eq!(hcl("a\"b\\${c}%{d}\n"), "\"a\\\"b\\\\$${c}%%{d}\\n\"");
        assert_eq!(yaml("a: \"b\" #c"), r#""a: \"b\" #c""#);
        assert_eq!(comment("a\nb"), "a\u{fffd}b");
    }
}
