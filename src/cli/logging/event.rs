//! Fields of events and connections, as text that is safe to show.

use std::borrow::Cow;
use std::fmt;

use tracing::field::{Field, Visit};

use super::safe::safe;

/// Value of a field.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FieldValue {
    pub(super) text: String,
    pub(super) number: Option<f64>,
}

/// Fields in the order of their recording. A later value replaces an earlier one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Fields {
    all: Vec<(&'static str, FieldValue)>,
}

impl Fields {
    /// Returns the value of a field; `None` if it is missing or empty.
    pub(super) fn get(&self, name: &str) -> Option<&FieldValue> {
        let found = self.all.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, value)| value)
            .filter(|value| !value.text.is_empty())
    }

    /// Returns the text of a field; `None` if it is missing or empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).map(|value| value.text.as_str())
    }

    /// Returns the fields that are not empty, in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &FieldValue)> {
        let all = self.all.iter().map(|(name, value)| (*name, value));
        all.filter(|(_, value)| !value.text.is_empty())
    }

    fn set(&mut self, field: &Field, text: &str, number: Option<f64>) {
        let name = field.name();
        // The metadata of the `log` crate, which the event itself has, too.
        if name.starts_with("log.") {
            return;
        }
        let name = name.strip_prefix("r#").unwrap_or(name);
        let text = match name {
            // A remedy has its commands on lines of their own. Its names are escaped already.
            "hint" => {
                let lines: Vec<Cow<'_, str>> = text.split('\n').map(safe).collect();
                lines.join("\n")
            }
            _ => safe(text).into_owned(),
        };
        let value = FieldValue { text, number };
        match self.all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.all.push((name, value)),
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "durations and counts are shown with few digits"
)]
impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value, None);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, &value.to_string(), Some(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, &value.to_string(), Some(value as f64));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, &value.to_string(), Some(value as f64));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, &format!("{value:?}"), None);
    }
}
