//! What is not known: a placeholder in the text, and beside it how to find the value.

/// What placeholders begin with. It is no part of any id, so nothing is taken for one by mistake.
pub(super) const PREFIX: &str = "REPLACE_WITH_";

/// The placeholders that were used.
#[derive(Debug, Default)]
pub(super) struct Gaps(Vec<(String, String)>);

impl Gaps {
    /// The value, or what stands for it. `how` is a command, or a sentence.
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

    /// What stands for a value that is not known.
    pub(super) fn open(&mut self, name: &str, how: String) -> String {
        let placeholder = format!("{PREFIX}{name}");
        if !self.0.iter().any(|(known, _)| *known == placeholder) {
            self.0.push((placeholder.clone(), how));
        }
        placeholder
    }

    /// One note for each.
    pub(super) fn notes(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|(placeholder, how)| format!("{placeholder} is not known from here: {how}"))
            .collect()
    }
}
