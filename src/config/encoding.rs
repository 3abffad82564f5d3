//! Encoding of the configuration file: UTF-8 or UTF-16, each with or without a byte order mark.

/// Returns the bytes as text, without the byte order mark.
///
/// # Errors
/// The actual encoding, as far as it can be recognized, and the remedy.
pub(super) fn text(bytes: Vec<u8>) -> Result<String, String> {
    let text = match wide_encoding(&bytes) {
        Some(Wide::LittleEndian) => from_utf16(&bytes, u16::from_le_bytes)?,
        Some(Wide::BigEndian) => from_utf16(&bytes, u16::from_be_bytes)?,
        Some(Wide::Utf32) => {
            return Err(format!("its encoding is UTF-32.\nhint: {REMEDY}"));
        }
        None => from_utf8(bytes)?,
    };
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

const REMEDY: &str = "save the file with the encoding UTF-8, a setting of your editor";

fn from_utf8(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|error| {
        let end = error.utf8_error().valid_up_to();
        let before = error.as_bytes().get(..end).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("line {line} has an invalid byte.\nhint: {REMEDY}")
    })
}

/// Decodes UTF-16, the default of `>` in Windows PowerShell.
fn from_utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, String> {
    let (units, rest) = bytes.as_chunks::<2>();
    let mut text = String::with_capacity(units.len());
    let decoded = char::decode_utf16(units.iter().map(|pair| unit(*pair)));
    let cut = (!rest.is_empty()).then_some(Err(()));
    for character in decoded.map(|one| one.map_err(|_| ())).chain(cut) {
        let Ok(character) = character else {
            let line = text.matches('\n').count() + 1;
            return Err(format!("line {line} is not valid UTF-16.\nhint: {REMEDY}"));
        };
        text.push(character);
    }
    Ok(text)
}

/// An encoding with units of more than one byte.
enum Wide {
    LittleEndian,
    BigEndian,
    Utf32,
}

/// Recognizes UTF-16 or UTF-32 by the byte order mark, or by the zero bytes of ASCII characters,
/// which a text in UTF-8 does not contain.
fn wide_encoding(bytes: &[u8]) -> Option<Wide> {
    Some(match bytes {
        [0xff, 0xfe, 0, 0, ..] | [_, 0, 0, 0, ..] => Wide::Utf32,
        [0, 0, 0xfe, 0xff, ..] | [0, 0, 0, _, ..] => Wide::Utf32,
        [0xff, 0xfe, ..] => Wide::LittleEndian,
        [0xfe, 0xff, ..] => Wide::BigEndian,
        [first, 0, ..] if *first != 0 => Wide::LittleEndian,
        [0, second, ..] if *second != 0 => Wide::BigEndian,
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
    fn utf16_is_taken_with_and_without_a_mark() {
        let little = |unit: u16| unit.to_le_bytes().to_vec();
        let big = |unit: u16| unit.to_be_bytes().to_vec();
        for mark in [true, false] {
            assert_eq!(text(wide(mark, little)).as_deref(), Ok(TEXT), "{mark}");
            assert_eq!(text(wide(mark, big)).as_deref(), Ok(TEXT), "{mark}");
        }
        // A mark and no text.
        assert_eq!(text(b"\xff\xfe".to_vec()).as_deref(), Ok(""));
        let cut = [wide(true, little), vec![b'a']].concat();
        // The first half of a character of two units.
        let half = [wide(true, big), vec![0xd8, 0x3d, 0, b'a']].concat();
        for bytes in [cut, half] {
            let said = text(bytes).unwrap_err();
            assert!(
                said.starts_with("line 3 is not valid UTF-16.\nhint: "),
                "{said}"
            );
        }
    }

    #[test]
    fn other_encodings_are_refused() {
        for mark in [true, false] {
            let little = |unit: u16| u32::from(unit).to_le_bytes().to_vec();
            let big = |unit: u16| u32::from(unit).to_be_bytes().to_vec();
            for bytes in [wide(mark, little), wide(mark, big)] {
                let said = text(bytes).unwrap_err();
                assert!(said.contains("UTF-32"), "{mark} {said}");
            }
        }
        let latin = b"[targets.a]\nuser = \"j\xf6rg\"\n".to_vec();
        let said = text(latin).unwrap_err();
        assert!(said.contains("line 2 has an invalid byte"), "{said}");
    }
}
