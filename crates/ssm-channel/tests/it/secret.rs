//! The encryption of a session, implemented again for the other end.

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};
use ssm_channel::DataKey;
use zeroize::Zeroizing;

use crate::support::REQUEST;

/// Ciphertext of [`key`], as KMS returns it.
pub(crate) const CIPHERTEXT: &[u8] = b"the key, encrypted";
pub(crate) const KEY_ID: &str = "arn:aws:kms:eu-central-1:111122223333:key/k";
pub(crate) const RANDOM: &str = "fresh-and-random";

fn key() -> Vec<u8> {
    (100..164).collect()
}

pub(crate) fn data_key() -> DataKey {
    DataKey {
        plaintext: Zeroizing::new(key()),
        ciphertext: CIPHERTEXT.to_vec(),
    }
}

/// [`REQUEST`] with encryption in front.
pub(crate) fn request_with_kms(challenge: bool) -> String {
    let begin = r#""RequestedClientActions":["#;
    let random = if challenge {
        format!(r#","Challenge":"{RANDOM}""#)
    } else {
        String::new()
    };
    let action = format!(
        r#"{{"ActionType":"KMSEncryption","ActionParameters":{{"KMSKeyId":"{KEY_ID}"{random}}}}}"#
    );
    REQUEST.replace(begin, &format!("{begin}{action},"))
}

/// The agent's two ciphers.
pub(crate) struct Secret {
    seal: Aes256Gcm,
    open: Aes256Gcm,
    sealed: u8,
}

impl Secret {
    pub(crate) fn agent() -> Self {
        let key = key();
        Self {
            seal: Aes256Gcm::new_from_slice(&key[..32]).unwrap(),
            open: Aes256Gcm::new_from_slice(&key[32..]).unwrap(),
            sealed: 0,
        }
    }

    /// The real agent uses random nonces. Tests share no bytes, so a small counter is enough.
    pub(crate) fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        self.sealed = self.sealed.wrapping_add(1);
        let nonce = [self.sealed; 12];
        let mut body = plain.to_vec();
        let tag = self
            .seal
            .encrypt_inout_detached(&nonce.into(), &[], body.as_mut_slice().into())
            .unwrap();
        [&nonce[..], &body, &tag].concat()
    }

    pub(crate) fn open(&mut self, sealed: &[u8]) -> Vec<u8> {
        let (nonce, rest) = sealed.split_first_chunk::<12>().unwrap();
        let (body, tag) = rest.split_last_chunk::<16>().unwrap();
        let mut plain = body.to_vec();
        let (nonce, tag) = ((*nonce).into(), (*tag).into());
        self.open
            .decrypt_inout_detached(&nonce, &[], plain.as_mut_slice().into(), &tag)
            .unwrap();
        plain
    }
}
