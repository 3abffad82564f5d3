//! Unknown values: a placeholder in the text, and a note that says how to find the value.

/// Prefix of placeholders. No id contains it, so no placeholder is mistaken for a value.
pub(super) const PREFIX: &str = "REPLACE_WITH_";

/// The placeholders in use.
#[derive(Debug, Default)]
pub(super) struct Placeholders(Vec<(String, String)>);

impl Placeholders {
    /// Returns the value, or a placeholder. `how` is a command, or a sentence.
    pub(super) fn fill(
        &mut self,
        value: Option<&str>,
        name: &str,
        how: impl FnOnce() -> String,
    ) -> String {
        match value {
            Some(value) => value.to_owned(),
            None => self.open(name, how()),
        }
    }

    /// Returns the placeholder for an unknown value.
    pub(super) fn open(&mut self, name: &str, how: String) -> String {
        let placeholder = format!("{PREFIX}{name}");
        if !self.0.iter().any(|(known, _)| *known == placeholder) {
            self.0.push((placeholder.clone(), how));
        }
        placeholder
    }

    /// Returns one note for each placeholder.
    pub(super) fn notes(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|(placeholder, how)| format!("Replace {placeholder}: {how}"))
            .collect()
    }
}
