//! Numbers with their noun.

use std::fmt::Display;

/// Returns `1 connection`, or `2 connections`.
#[must_use]
pub fn counted<N: Display + PartialEq + From<u8>>(count: N, noun: &str) -> String {
    let end = if count == N::from(1) { "" } else { "s" };
    format!("{count} {noun}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_no_plural() {
        let said = [0_usize, 1, 2].map(|count| counted(count, "connection"));
        assert_eq!(said, ["0 connections", "1 connection", "2 connections"]);
    }
}
