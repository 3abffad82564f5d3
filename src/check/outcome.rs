//! Result of a step.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::base::foreign_text::ForeignText;
use crate::report::Explanation;

/// Verdict of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StepVerdict {
    /// Correct.
    Ok,
    /// Connections work, but this deserves attention.
    Warning,
    /// Connections do not work because of this.
    Failed,
    /// Unknown, without harm: the text gives the reason.
    Skipped,
}

/// Result of a step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepOutcome {
    /// Verdict of the step.
    #[serde(rename = "result")]
    pub verdict: StepVerdict,
    /// Finding, in one line.
    pub said: String,
    /// Message of the other side, or further information.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Command or action that helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Error identifier in `docs/errors.md`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'static str>,
    /// SQLSTATE that a client gets for this error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
    /// The finding in structured form, for programs.
    #[serde(flatten)]
    pub facts: Map<String, Value>,
}

impl StepOutcome {
    fn new(verdict: StepVerdict, said: impl Into<String>) -> Self {
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
        Self::new(StepVerdict::Ok, said)
    }

    pub(super) fn warning(said: impl Into<String>) -> Self {
        Self::new(StepVerdict::Warning, said)
    }

    pub(super) fn skipped(reason: impl Into<String>) -> Self {
        Self::new(StepVerdict::Skipped, reason)
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
            ..Self::new(StepVerdict::Failed, message)
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

    /// Adds a structured fact for programs.
    pub(super) fn fact(mut self, name: &str, value: impl Into<Value>) -> Self {
        let value = safe_value(value.into());
        if !value.is_null() {
            self.facts.insert(name.to_owned(), value);
        }
        self
    }
}

/// Escapes a text from a server, a certificate or AWS.
fn safe(text: &str) -> String {
    ForeignText::new(text).into_string()
}

/// Escapes each text in a JSON value.
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
        let outcome = StepOutcome::ok(format!("PostgreSQL 15{token}"))
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
