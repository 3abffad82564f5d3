//! Encryption of Output payloads, for sessions with a KMS key in their preferences.
//!
//! An encrypted payload is a 12-byte nonce, then the AES-256-GCM ciphertext, then its 16-byte tag;
//! there is no associated data. The first half of the data key encrypts the agent's payloads, the
//! second half the client's. Both real programs encrypt Output payloads only: flags and the
//! handshake stay in the clear.

use std::fmt;

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};
use bytes::Bytes;
use zeroize::Zeroizing;

use crate::error::Error;

const NONCE: usize = 12;
const TAG: usize = 16;
const KEY: usize = 32;
/// Bytes that encryption adds to a payload.
pub(crate) const OVERHEAD: usize = NONCE + TAG;

/// Data key of a session, from `kms:GenerateDataKey`. Debug shows neither form of the key; the
/// plain one is overwritten when it is dropped.
#[derive(Clone)]
pub struct DataKey {
    /// The key itself: [`DataKey::LENGTH`] bytes (`Plaintext`).
    pub plaintext: Zeroizing<Vec<u8>>,
    /// The same, encrypted under the KMS key, for the agent (`CiphertextBlob`).
    pub ciphertext: Vec<u8>,
}

impl DataKey {
    /// Number of bytes to request from KMS (`NumberOfBytes`): one AES-256 key for each direction.
    pub const LENGTH: usize = 2 * KEY;
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(***)")
    }
}

/// Both directions' ciphers. The key schedules are overwritten when dropped.
pub(crate) struct Cipher {
    from_agent: Aes256Gcm,
    to_agent: Aes256Gcm,
    sealed: u64,
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cipher")
            .field("sealed", &self.sealed)
            .finish_non_exhaustive()
    }
}

impl Cipher {
    pub(crate) fn new(key: &[u8]) -> Result<Self, Error> {
        let wrong = |_| Error::KeyLength(key.len());
        let (from_agent, to_agent) = key
            .split_at_checked(KEY)
            .ok_or(Error::KeyLength(key.len()))?;
        Ok(Self {
            from_agent: Aes256Gcm::new_from_slice(from_agent).map_err(wrong)?,
            to_agent: Aes256Gcm::new_from_slice(to_agent).map_err(wrong)?,
            sealed: 0,
        })
    }

    /// Encrypts a payload for the agent.
    ///
    /// The nonce is a counter (NIST SP 800-38D, section 8.2.1): the key belongs to this session and
    /// this direction alone, so no nonce repeats. Random nonces would guarantee that only by
    /// probability.
    pub(crate) fn seal(&mut self, plain: &[u8]) -> Result<Bytes, Error> {
        let mut nonce = [0; NONCE];
        nonce[NONCE - 8..].copy_from_slice(&self.sealed.to_be_bytes());
        self.sealed += 1;
        let mut out = Vec::with_capacity(plain.len() + OVERHEAD);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plain);
        let body = out.get_mut(NONCE..).unwrap_or_default();
        let tag = self
            .to_agent
            .encrypt_inout_detached(&nonce.into(), &[], body.into())
            // Only for more than 64 GiB.
            .map_err(|_| Error::PayloadTooLarge(plain.len()))?;
        out.extend_from_slice(&tag);
        Ok(Bytes::from(out))
    }

    /// Decrypts a payload of the agent; `None` when it is invalid.
    pub(crate) fn open(&self, sealed: &[u8]) -> Option<Bytes> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE>()?;
        let (body, tag) = rest.split_last_chunk::<TAG>()?;
        let mut plain = body.to_vec();
        self.from_agent
            .decrypt_inout_detached(
                &(*nonce).into(),
                &[],
                plain.as_mut_slice().into(),
                &(*tag).into(),
            )
            .ok()?;
        Some(Bytes::from(plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the two ends of a session: the agent's key halves are swapped.
    fn ends() -> (Cipher, Cipher) {
        let key: Vec<u8> = (0..64).collect();
        let swapped = [&key[KEY..], &key[..KEY]].concat();
        (Cipher::new(&key).unwrap(), Cipher::new(&swapped).unwrap())
    }

    #[test]
    fn what_one_end_seals_only_the_other_opens() {
        let (mut client, mut agent) = ends();
        for payload in [&b""[..], b"x", &[7; 996]] {
            let sealed = client.seal(payload).unwrap();
            assert_eq!(sealed.len(), payload.len() + OVERHEAD);
            assert_eq!(agent.open(&sealed).unwrap(), payload);
            assert_eq!(client.open(&sealed), None, "the halves differ");
            let back = agent.seal(payload).unwrap();
            assert_eq!(client.open(&back).unwrap(), payload);
        }
    }

    /// The last case of the GCM specification (McGrew and Viega, test case 14): a zero key, a zero
    /// nonce, one zero block.
    #[test]
    fn agrees_with_the_specification() {
        let mut cipher = Cipher::new(&[0; 64]).unwrap();
        let sealed = cipher.seal(&[0; 16]).unwrap();
        let expected = [
            0xce, 0xa7, 0x40, 0x3d, 0x4d, 0x60, 0x6b, 0x6e, 0x07, 0x4e, 0xc5, 0xd3, 0xba, 0xf3,
            0x9d, 0x18, 0xd0, 0xd1, 0xc8, 0xa7, 0x99, 0x99, 0x6b, 0xf0, 0x26, 0x5b, 0x98, 0xb5,
            0xd4, 0x8a, 0xb9, 0x19,
        ];
        assert_eq!(sealed[..12], [0; 12]);
        assert_eq!(sealed[12..], expected);
    }

    #[test]
    fn no_nonce_comes_twice() {
        let (mut client, _) = ends();
        let nonces: std::collections::HashSet<_> = (0..1000)
            .map(|_| client.seal(b"same").unwrap().slice(..NONCE))
            .collect();
        assert_eq!(nonces.len(), 1000);
    }

    #[test]
    fn a_changed_or_shortened_payload_does_not_open() {
        let (client, mut agent) = ends();
        let sealed = agent.seal(b"precious").unwrap();
        for cut in 0..sealed.len() {
            assert_eq!(client.open(&sealed[..cut]), None, "{cut}");
        }
        for at in 0..sealed.len() {
            let mut bad = sealed.to_vec();
            bad[at] ^= 1;
            assert_eq!(client.open(&bad), None, "{at}");
        }
    }

    #[test]
    fn a_key_has_64_bytes_and_is_never_shown() {
        for length in [0, 31, 32, 63, 65, 96] {
            let outcome = Cipher::new(&vec![1; length]);
            assert!(matches!(outcome, Err(Error::KeyLength(n)) if n == length));
        }
        let key = DataKey {
            plaintext: Zeroizing::new(vec![171; 64]),
            ciphertext: vec![205; 8],
        };
        let shown = format!("{key:?} {:?}", Cipher::new(&key.plaintext).unwrap());
        assert!(!shown.contains("171") && !shown.contains("205"), "{shown}");
    }
}
