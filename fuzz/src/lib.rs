//! What the fuzz targets share.

#![forbid(unsafe_code)]

/// Cuts `data` into pieces of the given lengths, which are used in turn and over again. A zero
/// counts as one; without lengths it is one piece.
pub fn cut<'a>(mut data: &'a [u8], lengths: &[u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut lengths = lengths.iter().cycle();
    std::iter::from_fn(move || {
        if data.is_empty() {
            return None;
        }
        let length = lengths
            .next()
            .map_or(data.len(), |length| usize::from(*length).max(1));
        let piece;
        (piece, data) = data.split_at(length.min(data.len()));
        Some(piece)
    })
}
