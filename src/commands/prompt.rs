//! Selection from a list at the terminal.

use std::io::ErrorKind;

use anyhow::Context;
use console::Term;
use dialoguer::{FuzzySelect, Input};
use tokio::task::spawn_blocking;

/// Lets the user select an item, by typing a part of it or with the arrow keys. `None` if the user
/// cancels. Not cancel-safe: the prompt stays on the terminal until a key is pressed.
///
/// # Errors
/// The terminal cannot be read.
pub(super) async fn select(prompt: String, items: Vec<String>) -> anyhow::Result<Option<usize>> {
    let selecting = move || {
        let selected = FuzzySelect::new()
            .with_prompt(format!("{prompt} (type to filter)"))
            .items(&items)
            .default(0)
            .interact_on_opt(&Term::stderr());
        // An interrupted prompt leaves the cursor hidden.
        _ = Term::stderr().show_cursor();
        selected
    };
    match spawn_blocking(selecting).await? {
        Err(dialoguer::Error::IO(error)) if error.kind() == ErrorKind::Interrupted => Ok(None),
        selected => selected.context("cannot read the choice from the terminal"),
    }
}

/// Asks for a line of text, which may be empty if there is no default. `None` if the user cancels. Not
/// cancel-safe, as [`select`].
///
/// # Errors
/// The terminal cannot be read.
pub(super) async fn ask(
    prompt: &'static str,
    default: Option<String>,
) -> anyhow::Result<Option<String>> {
    let asking = move || {
        let input = Input::<String>::new().with_prompt(prompt);
        let input = match default {
            Some(default) => input.default(default),
            None => input.allow_empty(true),
        };
        let answer = input.interact_text_on(&Term::stderr());
        _ = Term::stderr().show_cursor();
        answer
    };
    match spawn_blocking(asking).await? {
        Err(dialoguer::Error::IO(error))
            if matches!(
                error.kind(),
                ErrorKind::Interrupted | ErrorKind::UnexpectedEof
            ) =>
        {
            Ok(None)
        }
        answer => answer
            .map(Some)
            .context("cannot read the answer from the terminal"),
    }
}
