//! The account's KMS keys: data keys are really encrypted and bound to their encryption context.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use uuid::Uuid;

use crate::harness::sync::lock;

/// Public name-value pairs that a data key is bound to.
pub type EncryptionContext = BTreeMap<String, String>;

/// Why KMS refuses, in its own words. Display is the `message` of the answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KmsError {
    #[error("{0}")]
    NotFound(String),
    #[error("{0} is disabled.")]
    Disabled(String),
    /// Not made by any key of this account, damaged, or bound to another context: KMS does not
    /// tell which, and says nothing else either.
    #[error("")]
    InvalidCiphertext,
    #[error("The key ID in the request does not identify a CMK that can perform this operation.")]
    IncorrectKey,
    /// The cryptographic library refused; never seen.
    #[error("An error occurred on the server side.")]
    Internal,
}

impl KmsError {
    /// `__type` of the answer.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "NotFoundException",
            Self::Disabled(_) => "DisabledException",
            Self::InvalidCiphertext => "InvalidCiphertextException",
            Self::IncorrectKey => "IncorrectKeyException",
            Self::Internal => "KMSInternalException",
        }
    }
}

/// A key as it goes out to a caller of `GenerateDataKey`.
pub(crate) struct DataKey {
    pub(crate) plaintext: Vec<u8>,
    pub(crate) blob: Vec<u8>,
}

/// The keys of one account and region; clones share them.
#[derive(Clone)]
pub struct Kms {
    /// `arn:aws:kms:region:account`.
    prefix: Arc<str>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    keys: HashMap<Uuid, Key>,
    aliases: HashMap<String, Uuid>,
}

struct Key {
    master: LessSafeKey,
    disabled: bool,
}

impl fmt::Debug for Kms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<String> = lock(&self.state).keys.keys().map(|k| self.arn(k)).collect();
        f.debug_struct("Kms")
            .field("keys", &keys)
            .finish_non_exhaustive()
    }
}

impl Kms {
    /// No keys yet; `prefix` is how the ARNs of this account's keys begin, up to the account.
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.into(),
            state: Arc::default(),
        }
    }

    /// Makes a symmetric key and returns its ARN.
    ///
    /// # Panics
    /// When the cryptographic library has no randomness.
    pub fn create_key(&self) -> String {
        let mut secret = [0; 32];
        #[expect(
            clippy::expect_used,
            reason = "a machine without randomness runs no tests"
        )]
        let master = aws_lc_rs::rand::fill(&mut secret)
            .and_then(|()| UnboundKey::new(&AES_256_GCM, &secret))
            .map(LessSafeKey::new)
            .expect("a random key");
        let id = Uuid::new_v4();
        let key = Key {
            master,
            disabled: false,
        };
        lock(&self.state).keys.insert(id, key);
        self.arn(&id)
    }

    /// Lets `alias/NAME` stand for the key with this ARN; false when there is no such key.
    pub fn alias(&self, alias: &str, key_arn: &str) -> bool {
        let mut state = lock(&self.state);
        let id = self.find(&state, key_arn).ok();
        id.map(|id| state.aliases.insert(alias.to_owned(), id))
            .is_some()
    }

    /// Disables or enables a key; false when there is no such key.
    pub fn set_disabled(&self, key: &str, disabled: bool) -> bool {
        let mut state = lock(&self.state);
        let id = self.find(&state, key).ok();
        let key = id.and_then(|id| state.keys.get_mut(&id));
        key.map(|key| key.disabled = disabled).is_some()
    }

    fn arn(&self, id: &Uuid) -> String {
        format!("{}:key/{id}", self.prefix)
    }

    /// The ARN behind a key id, key ARN, alias name or alias ARN.
    pub(crate) fn resolve(&self, name: &str) -> Result<String, KmsError> {
        self.find(&lock(&self.state), name).map(|id| self.arn(&id))
    }

    fn find(&self, state: &State, name: &str) -> Result<Uuid, KmsError> {
        let own = name
            .strip_prefix(&*self.prefix)
            .and_then(|n| n.strip_prefix(':'));
        let short = own.unwrap_or(name);
        if short.starts_with("alias/") {
            let found = state.aliases.get(short).copied();
            return found.ok_or_else(|| {
                KmsError::NotFound(format!("Alias {}:{short} is not found.", self.prefix))
            });
        }
        let id = Uuid::parse_str(short.strip_prefix("key/").unwrap_or(short)).ok();
        let id = id.filter(|id| state.keys.contains_key(id));
        id.ok_or_else(|| {
            let arn = if name.starts_with("arn:") {
                name.to_owned()
            } else {
                format!("{}:key/{name}", self.prefix)
            };
            KmsError::NotFound(format!("Key '{arn}' does not exist"))
        })
    }

    /// `length` random bytes, plain and encrypted under the key.
    pub(crate) fn generate_data_key(
        &self,
        key: &str,
        length: usize,
        context: &EncryptionContext,
    ) -> Result<DataKey, KmsError> {
        let state = lock(&self.state);
        let id = self.find(&state, key)?;
        let key = self.usable(&state, &id)?;
        let mut plaintext = vec![0; length];
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut plaintext).map_err(|_| KmsError::Internal)?;
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| KmsError::Internal)?;
        let mut blob = [id.as_bytes(), &nonce[..]].concat();
        let mut sealed = plaintext.clone();
        let unique = Nonce::assume_unique_for_key(nonce);
        key.master
            .seal_in_place_append_tag(unique, Aad::from(bound(context)), &mut sealed)
            .map_err(|_| KmsError::Internal)?;
        blob.extend_from_slice(&sealed);
        Ok(DataKey { plaintext, blob })
    }

    /// The ARN of the key that `blob` was made with, if it is one of this account.
    pub(crate) fn key_of(&self, blob: &[u8]) -> Result<String, KmsError> {
        let id = blob.first_chunk().map(|id| Uuid::from_bytes(*id));
        let id = id.filter(|id| lock(&self.state).keys.contains_key(id));
        id.map(|id| self.arn(&id))
            .ok_or(KmsError::InvalidCiphertext)
    }

    /// The plain data key, given exactly the context it was made with.
    pub(crate) fn decrypt(
        &self,
        blob: &[u8],
        context: &EncryptionContext,
    ) -> Result<Vec<u8>, KmsError> {
        let state = lock(&self.state);
        let (id, rest) = blob
            .split_first_chunk()
            .ok_or(KmsError::InvalidCiphertext)?;
        let (nonce, sealed) = rest
            .split_first_chunk()
            .ok_or(KmsError::InvalidCiphertext)?;
        let id = Uuid::from_bytes(*id);
        if !state.keys.contains_key(&id) {
            return Err(KmsError::InvalidCiphertext);
        }
        let key = self.usable(&state, &id)?;
        let mut plain = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = key
            .master
            .open_in_place(nonce, Aad::from(bound(context)), &mut plain)
            .map_err(|_| KmsError::InvalidCiphertext)?;
        Ok(opened.to_vec())
    }

    fn usable<'a>(&self, state: &'a State, id: &Uuid) -> Result<&'a Key, KmsError> {
        let key = state.keys.get(id).ok_or(KmsError::InvalidCiphertext)?;
        if key.disabled {
            return Err(KmsError::Disabled(self.arn(id)));
        }
        Ok(key)
    }
}

/// The context as additional authenticated data: sorted, and unambiguous through its lengths.
fn bound(context: &EncryptionContext) -> Vec<u8> {
    let mut out = Vec::new();
    for part in context.iter().flat_map(|(name, value)| [name, value]) {
        out.extend_from_slice(&(part.len() as u64).to_be_bytes());
        out.extend_from_slice(part.as_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(pairs: &[(&str, &str)]) -> EncryptionContext {
        let pairs = pairs.iter();
        pairs
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn a_data_key_opens_with_its_own_context_only() {
        let kms = Kms::new("arn:aws:kms:eu-central-1:123456789012");
        let arn = kms.create_key();
        let right = context(&[("a", "1"), ("b", "2")]);
        let key = kms.generate_data_key(&arn, 64, &right).unwrap();
        assert_eq!(key.plaintext.len(), 64);
        assert_eq!(kms.key_of(&key.blob), Ok(arn.clone()));
        assert_eq!(kms.decrypt(&key.blob, &right), Ok(key.plaintext.clone()));
        for wrong in [
            context(&[]),
            context(&[("a", "1")]),
            context(&[("a", "1"), ("b", "3")]),
            context(&[("a", "1b2")]),
        ] {
            let opened = kms.decrypt(&key.blob, &wrong);
            assert_eq!(opened, Err(KmsError::InvalidCiphertext));
        }
        let mut damaged = key.blob.clone();
        damaged[40] ^= 1;
        assert_eq!(
            kms.decrypt(&damaged, &right),
            Err(KmsError::InvalidCiphertext)
        );
        for end in 0..key.blob.len() {
            assert!(kms.decrypt(&key.blob[..end], &right).is_err());
        }
        kms.set_disabled(&arn, true);
        assert_eq!(kms.decrypt(&key.blob, &right), Err(KmsError::Disabled(arn)));
    }

    #[test]
    fn keys_have_four_kinds_of_names() {
        let kms = Kms::new("arn:aws:kms:eu-central-1:123456789012");
        let arn = kms.create_key();
        assert!(kms.alias("alias/sessions", &arn));
        let id = arn.rsplit('/').next().unwrap();
        let alias_arn = "arn:aws:kms:eu-central-1:123456789012:alias/sessions";
        for name in [arn.as_str(), id, "alias/sessions", alias_arn] {
            assert_eq!(kms.resolve(name), Ok(arn.clone()), "{name}");
        }
        let missing = kms.resolve("alias/none").unwrap_err().to_string();
        assert!(missing.ends_with("alias/none is not found."), "{missing}");
        assert!(kms.resolve("no-such-key").is_err());
        assert!(
            kms.resolve("arn:aws:kms:eu-west-1:123456789012:key/x")
                .is_err()
        );
    }
}
