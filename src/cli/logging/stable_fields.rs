//! Fields of spans as JSON. The fields of the formats for machines are stable, so that fields for
//! people are left out.

use std::fmt;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::Record;
use tracing_subscriber::field::{RecordFields, VisitOutput};
use tracing_subscriber::fmt::FormattedFields;
use tracing_subscriber::fmt::format::{FormatFields, JsonVisitor, Writer};

/// Fields of spans that only the log for people shows.
const FOR_PEOPLE: [&str; 1] = ["program"];

/// Formats fields as JSON, without those for people.
pub(super) struct StableFields;

impl<'writer> FormatFields<'writer> for StableFields {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        let mut visitor = JsonVisitor::new(&mut writer);
        fields.record(&mut ForMachines(&mut visitor));
        visitor.finish()
    }

    fn add_fields(
        &self,
        current: &'writer mut FormattedFields<Self>,
        fields: &Record<'_>,
    ) -> fmt::Result {
        let mut added = String::new();
        let mut visitor = JsonVisitor::new(&mut added);
        fields.record(&mut ForMachines(&mut visitor));
        visitor.finish()?;
        let object = |json: &str| serde_json::from_str::<Map<String, Value>>(json);
        let mut all = object(&current.fields).map_err(|_| fmt::Error)?;
        all.extend(object(&added).map_err(|_| fmt::Error)?);
        current.fields = Value::Object(all).to_string();
        Ok(())
    }
}

/// Passes on the fields that are not for people only.
struct ForMachines<'a>(&'a mut dyn Visit);

impl ForMachines<'_> {
    fn pass(&mut self, field: &Field, record: impl FnOnce(&mut dyn Visit)) {
        if !FOR_PEOPLE.contains(&field.name()) {
            record(self.0);
        }
    }
}

impl Visit for ForMachines<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.pass(field, |visitor| visitor.record_f64(field, value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.pass(field, |visitor| visitor.record_i64(field, value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.pass(field, |visitor| visitor.record_u64(field, value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.pass(field, |visitor| visitor.record_bool(field, value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.pass(field, |visitor| visitor.record_str(field, value));
    }

    fn record_bytes(&mut self, field: &Field, value: &[u8]) {
        self.pass(field, |visitor| visitor.record_bytes(field, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.pass(field, |visitor| visitor.record_debug(field, value));
    }
}
