//! What the fuzz targets share.

#![forbid(unsafe_code)]

/// Cuts `data` into pieces of the given lengths, which are used in turn and over again. A zero
/// counts as one; without lengths it is one piece. Long data comes in longer pieces, about 2,000 at
/// most: a machine may look at all it has for each piece, and a run should take no seconds.
pub fn cut<'a>(mut data: &'a [u8], lengths: &[u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut lengths = lengths.iter().cycle();
    let shortest = (data.len() / 2_000).max(1);
    std::iter::from_fn(move || {
        if data.is_empty() {
            return None;
        }
        let length = lengths
            .next()
            .map_or(data.len(), |length| usize::from(*length).max(shortest));
        let piece;
        (piece, data) = data.split_at(length.min(data.len()));
        Some(piece)
    })
}
