//! logfmt: the fields of a JSON line as `key=value`, on one line.
//!
//! Rules of <https://brandur.org/logfmt> and of go-logfmt, which Loki and Heroku use: a value is
//! quoted if it is empty or contains a space, `=`, a quote or a control character. Quoted values
//! have the escapes of JSON.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::base::foreign_text::{is_invisible, visible_json};

/// Keys at the beginning of a line, in this order. The others follow in alphabetical order.
const FIRST: [&str; 4] = ["timestamp", "level", "message", "target"];

/// Converts a JSON line, including its line feed. Members of objects and lists get dotted keys:
/// `span.peer`. `spans` is left out if it only repeats `span`.
pub(super) fn line(json: &str) -> String {
    let Ok(Value::Object(mut fields)) = serde_json::from_str(json) else {
        // The layer writes one object per line. Keep what cannot be read, as one value.
        return format!("message={}\n", quoted(json.trim_end()));
    };
    if let (Some(span), Some(Value::Array(spans))) = (fields.get("span"), fields.get("spans"))
        && spans.len() == 1
        && spans.first() == Some(span)
    {
        fields.remove("spans");
    }
    let mut line = String::with_capacity(json.len());
    for key in FIRST {
        if let Some(value) = fields.remove(key) {
            pair(&mut line, key, &value);
        }
    }
    all(&mut line, "", &fields);
    line.push('\n');
    line
}

fn all(line: &mut String, prefix: &str, fields: &Map<String, Value>) {
    for (key, value) in fields {
        pair(line, &format!("{prefix}{key}"), value);
    }
}

fn pair(line: &mut String, key: &str, value: &Value) {
    let text = match value {
        Value::Object(fields) => return all(line, &format!("{key}."), fields),
        Value::Array(values) => {
            let places = values.iter().enumerate();
            return places.for_each(|(at, value)| pair(line, &format!("{key}.{at}"), value));
        }
        Value::String(text) => plain_or_quoted(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    };
    let space = if line.is_empty() { "" } else { " " };
    // Writing to a String cannot fail.
    _ = write!(line, "{space}{}={text}", bare_key(key));
}

/// Returns the key without characters that end a key.
fn bare_key(key: &str) -> String {
    let ends = |c: char| c.is_whitespace() || matches!(c, '=' | '"') || is_invisible(c);
    key.replace(ends, "_")
}

fn plain_or_quoted(text: &str) -> String {
    let needs_quotes =
        |c: char| c.is_whitespace() || matches!(c, '=' | '"' | '\\') || is_invisible(c);
    match text.is_empty() || text.contains(needs_quotes) {
        true => quoted(text),
        false => text.to_owned(),
    }
}

fn quoted(text: &str) -> String {
    visible_json(&Value::from(text).to_string()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_json_are_pairs() {
        let json = r#"{"timestamp":"2026-11-30T12:00:00.5Z","level":"INFO","total_ms":1.5,"tls":true,"reason":"","message":"connection ready","target":"pgiam::postgres","span":{"name":"conn","user":"a b"},"spans":[{"name":"conn","user":"a b"}],"hint":"x=\"y\"\nz","path":"C:\\x"}"#;
        assert_eq!(
            line(json),
            "timestamp=2026-11-30T12:00:00.5Z level=INFO message=\"connection ready\" target=pgiam::postgres hint=\"x=\\\"y\\\"\\nz\" path=\"C:\\\\x\" reason=\"\" span.name=conn span.user=\"a b\" tls=true total_ms=1.5\n"
        );
    }

    #[test]
    fn other_shapes_stay_on_one_line() {
        let nested =
            r#"{"span":{"name":"b"},"spans":[{"name":"a"},{"name":"b"}],"a key=":[1,null]}"#;
        assert_eq!(
            line(nested),
            "a_key_.0=1 a_key_.1=null span.name=b spans.0.name=a spans.1.name=b\n"
        );
        assert_eq!(line("not\njson\n"), "message=\"not\\njson\"\n");
        let hostile = line("{\"m\":\"\u{202e}\\u001b[2J\u{9b}\"}");
        assert_eq!(hostile, "m=\"\\u202e\\u001b[2J\\u009b\"\n");
    }
}
