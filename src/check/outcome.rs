//! What a step has found out.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::base::foreign_text::ForeignText;
use crate::report::Explanation;

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Connections work, and something about it should be looked at.
    Warning,
    /// Connections do not work, and this is why.
    Failed,
    /// Not found out, which is no harm: what is said tells why.
    Skipped,
}

/// What a step has found out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// How it went.
    #[serde(rename = "result")]
    pub verdict: Verdict,
    /// The fact, in one line.
    pub said: String,
    /// What the other side said, or what else there is to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What to type, or to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The identifier in `docs/errors.md`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'static str>,
    /// The SQLSTATE that a client gets for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
    /// The same as `said`, for programs.
    #[serde(flatten)]
    pub facts: Map<String, Value>,
}

impl Outcome {
    fn new(verdict: Verdict, said: impl Into<String>) -> Self {
        Self {
            verdict,
            said: safe(&said.into()),
            detail: None,
            remedy: None,
            id: None,
            sqlstate: None,
            facts: Map::new(),
        }
    }

    pub(super) fn ok(said: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, said)
    }

    pub(super) fn warning(said: impl Into<String>) -> Self {
        Self::new(Verdict::Warning, said)
    }

    pub(super) fn skipped(reason: impl Into<String>) -> Self {
        Self::new(Verdict::Skipped, reason)
    }

    pub(super) fn failed(explanation: Explanation) -> Self {
        let Explanation {
            id,
            sqlstate,
            message,
            detail,
            hint,
        } = explanation;
        Self {
            detail,
            remedy: hint,
            id: Some(id),
            sqlstate: (!sqlstate.is_empty()).then_some(sqlstate),
            ..Self::new(Verdict::Failed, message)
        }
    }

    pub(super) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(safe(&detail.into()));
        self
    }

    pub(super) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Something of it for programs.
    pub(super) fn fact(mut self, name: &str, value: impl Into<Value>) -> Self {
        let value = safe_value(value.into());
        if !value.is_null() {
            self.facts.insert(name.to_owned(), value);
        }
        self
    }
}

/// A text that may hold words of a server, a certificate or AWS.
fn safe(text: &str) -> String {
    ForeignText::new(text).into_string()
}

/// The same for each text in a value.
fn safe_value(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(safe(&text)),
        Value::Array(values) => values.into_iter().map(safe_value).collect(),
        Value::Object(map) => {
            let safe = map.into_iter().map(|(key, value)| (key, safe_value(value)));
            Value::Object(safe.collect())
        }
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_a_server_repeats_is_redacted_everywhere() {
        let token = "X-Amz-Security-Token=SECRET1&X-Amz-Signature=SECRET2\x1b[2J";
        let outcome = Outcome::ok(format!("PostgreSQL 15{token}"))
            .detail(token)
            .fact("server_version", token)
            .fact("rows", vec![token]);
        let text = serde_json::to_string(&outcome).unwrap();
        assert!(
            !text.contains("SECRET") && !text.contains("\\u001b"),
            "{text}"
        );
    }
}
