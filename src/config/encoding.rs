//! Encoding of the configuration file: UTF-8, with or without a byte order mark.

/// Returns the bytes as text, without the byte order mark.
///
/// # Errors
/// The actual encoding, as far as it can be recognized, and the remedy.
pub(super) fn text(bytes: Vec<u8>) -> Result<String, String> {
    if let Some(name) = wide_encoding(&bytes) {
        return Err(format!(
            "its encoding is {name}, the default of > in Windows PowerShell.\nhint: convert it to UTF-8 in PowerShell: \
             (Get-Content pgiam.toml) | Set-Content -Encoding utf8 pgiam.toml"
        ));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(match text.strip_prefix('\u{feff}') {
            Some(rest) => rest.to_owned(),
            None => text,
        }),
        Err(error) => {
            let end = error.utf8_error().valid_up_to();
            let before = error.as_bytes().get(..end).unwrap_or_default();
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            Err(format!(
                "line {line} has an invalid byte.\nhint: save the file with the encoding UTF-8, a setting of your editor"
            ))
        }
    }
}

/// Recognizes UTF-16 or UTF-32 by the byte order mark, or by the zero bytes of ASCII characters,
/// which a text in UTF-8 does not contain.
fn wide_encoding(bytes: &[u8]) -> Option<&'static str> {
    Some(match bytes {
        [0xff, 0xfe, 0, 0, ..] | [_, 0, 0, 0, ..] => "UTF-32 (little endian)",
        [0, 0, 0xfe, 0xff, ..] | [0, 0, 0, _, ..] => "UTF-32 (big endian)",
        [0xff, 0xfe, ..] => "UTF-16 (little endian)",
        [0xfe, 0xff, ..] => "UTF-16 (big endian)",
        [first, 0, ..] if *first != 0 => "UTF-16 (little endian)",
        [0, second, ..] if *second != 0 => "UTF-16 (big endian)",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[targets.größe]\r\nhost = \"x\"\r\n";

    fn wide(mark: bool, unit: impl Fn(u16) -> Vec<u8>) -> Vec<u8> {
        let mark = mark.then_some(0xfeff);
        let units = mark.into_iter().chain(TEXT.encode_utf16());
        units.flat_map(unit).collect()
    }

    #[test]
    fn utf8_is_taken_with_and_without_a_mark() {
        assert_eq!(text(TEXT.into()).as_deref(), Ok(TEXT));
        let marked = format!("\u{feff}{TEXT}");
        assert_eq!(text(marked.into()).as_deref(), Ok(TEXT));
        assert_eq!(text(Vec::new()).as_deref(), Ok(""));
        for short in ["a", "\n"] {
            assert_eq!(text(short.into()).as_deref(), Ok(short));
        }
    }

    #[test]
    fn what_powershell_writes_is_named() {
        for mark in [true, false] {
            let little = |unit: u16| unit.to_le_bytes().to_vec();
            let big = |unit: u16| unit.to_be_bytes().to_vec();
            let little_32 = |unit: u16| u32::from(unit).to_le_bytes().to_vec();
            let big_32 = |unit: u16| u32::from(unit).to_be_bytes().to_vec();
            for (bytes, name) in [
                (wide(mark, little), "UTF-16 (little endian)"),
                (wide(mark, big), "UTF-16 (big endian)"),
                (wide(mark, little_32), "UTF-32 (little endian)"),
                (wide(mark, big_32), "UTF-32 (big endian)"),
            ] {
                let said = text(bytes).unwrap_err();
                assert!(said.contains(name), "{mark} {said}");
                assert!(said.contains("Set-Content -Encoding utf8"), "{said}");
            }
        }
        let latin = b"[targets.a]\nuser = \"j\xf6rg\"\n".to_vec();
        let said = text(latin).unwrap_err();
        assert!(said.contains("line 2 has an invalid byte"), "{said}");
    }
}
