//! AES-256-GCM on the stream payloads of an encrypted session, the agent's end.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;

/// Bytes of the data key that KMS makes for a session.
const DATA_KEY: usize = 64;

/// Both directions' keys: the first half of the data key is the agent's to encrypt with, the second
/// half the client's.
pub(super) struct SessionCipher {
    seal: LessSafeKey,
    open: LessSafeKey,
}

impl SessionCipher {
    /// `None` when the data key does not have 64 bytes.
    pub(super) fn new(data_key: &[u8]) -> Option<Self> {
        let whole: &[u8; DATA_KEY] = data_key.try_into().ok()?;
        let (first, second) = whole.split_at(DATA_KEY / 2);
        let key = |half: &[u8]| {
            UnboundKey::new(&AES_256_GCM, half)
                .map(LessSafeKey::new)
                .ok()
        };
        Some(Self {
            seal: key(first)?,
            open: key(second)?,
        })
    }

    /// Nonce, ciphertext and tag in one piece.
    pub(super) fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce)?;
        let mut out = Vec::with_capacity(NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag =
            self.seal
                .seal_in_place_separate_tag(nonce, Aad::empty(), &mut out[NONCE_LEN..])?;
        out.extend_from_slice(tag.as_ref());
        Ok(out)
    }

    /// What the client sealed.
    pub(super) fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let (nonce, rest) = sealed.split_first_chunk().ok_or(Unspecified)?;
        let mut plain = rest.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self
            .open
            .open_in_place(nonce, Aad::empty(), &mut plain)?
            .len();
        plain.truncate(length);
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_direction_has_its_own_key() {
        let data_key: Vec<u8> = (0..64).collect();
        let agent = SessionCipher::new(&data_key).unwrap();
        let mut turned = data_key.clone();
        turned.rotate_left(32);
        let client = SessionCipher::new(&turned).unwrap();
        let sealed = agent.seal(b"hello").unwrap();
        assert_eq!(sealed.len(), 12 + 5 + 16);
        assert_eq!(client.open(&sealed).unwrap(), b"hello");
        assert!(agent.open(&sealed).is_err());
        assert_ne!(agent.seal(b"hello").unwrap(), sealed);
        for end in 0..sealed.len() {
            assert!(client.open(&sealed[..end]).is_err());
        }
        assert!(SessionCipher::new(&data_key[1..]).is_none());
    }
}
