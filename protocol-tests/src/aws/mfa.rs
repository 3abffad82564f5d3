//! MFA devices of the users: one-time passwords by time (RFC 6238), as virtual devices make them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;

use crate::aws::iam::Iam;
use crate::harness::sync::lock;

/// Seconds that one code is shown.
const STEP: u64 = 30;
/// Bytes of a device's seed; AWS's are as long.
const SEED_LENGTH: usize = 40;
const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// The account's MFA devices; clones share them.
#[derive(Clone)]
pub struct Mfa {
    iam: Iam,
    devices: Arc<Mutex<HashMap<String, Device>>>,
}

struct Device {
    owner: String,
    seed: Vec<u8>,
    /// Time step of the last code that was accepted.
    used: Option<u64>,
}

/// Refusal of a code, in the words of STS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MfaRefusal {
    #[error(
        "MultiFactorAuthentication failed, must provide both MFA serial number and one time pass \
         code."
    )]
    Incomplete,
    #[error(
        "MultiFactorAuthentication failed, unable to validate MFA code.  Please verify your MFA \
         serial number is valid and associated with this user."
    )]
    NotYours,
    #[error("MultiFactorAuthentication failed with invalid MFA one time pass code. ")]
    WrongCode,
}

impl fmt::Debug for Mfa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut serials: Vec<String> = lock(&self.devices).keys().cloned().collect();
        serials.sort();
        f.debug_struct("Mfa")
            .field("serials", &serials)
            .finish_non_exhaustive()
    }
}

impl Mfa {
    pub(crate) fn new(iam: &Iam) -> Self {
        Self {
            iam: iam.clone(),
            devices: Arc::default(),
        }
    }

    /// Gives the user with this ARN a virtual device and returns its serial number, which is an ARN.
    ///
    /// # Panics
    /// When the cryptographic library has no randomness.
    pub fn enable(&self, user_arn: &str) -> String {
        let mut seed = vec![0; SEED_LENGTH];
        #[expect(
            clippy::expect_used,
            reason = "a machine without randomness runs no tests"
        )]
        aws_lc_rs::rand::fill(&mut seed).expect("a random seed");
        let name = user_arn.rsplit('/').next().unwrap_or_default();
        let (partition, account) = (self.iam.partition().name, self.iam.account());
        let serial = format!("arn:{partition}:iam::{account}:mfa/{name}");
        let device = Device {
            owner: user_arn.to_owned(),
            seed,
            used: None,
        };
        lock(&self.devices).insert(serial.clone(), device);
        serial
    }

    /// The seed of a device in Base32, as it is typed into an authenticator.
    pub fn seed(&self, serial: &str) -> Option<String> {
        let devices = lock(&self.devices);
        devices.get(serial).map(|device| base32(&device.seed))
    }

    /// The code that the device shows now; it may have been used.
    pub fn code(&self, serial: &str) -> Option<String> {
        let devices = lock(&self.devices);
        let device = devices.get(serial)?;
        Some(code(&device.seed, self.step()))
    }

    /// A code that will be accepted: the one that the device shows now, or the next one if it was
    /// used. `None` if that was used, too: the service accepts no later one.
    pub fn next_code(&self, serial: &str) -> Option<String> {
        let devices = lock(&self.devices);
        let device = devices.get(serial)?;
        let now = self.step();
        let step = device.used.map_or(now, |used| now.max(used + 1));
        (step <= now + 1).then(|| code(&device.seed, step))
    }

    /// Accepts a code of the user's own device. A code is accepted once, and one step of 30 seconds
    /// early or late.
    pub(crate) fn accept(
        &self,
        user_arn: &str,
        serial: Option<&str>,
        given: Option<&str>,
    ) -> Result<bool, MfaRefusal> {
        let (serial, given) = match (serial, given) {
            (None, None) => return Ok(false),
            (Some(serial), Some(given)) => (serial, given),
            _ => return Err(MfaRefusal::Incomplete),
        };
        let now = self.step();
        let mut devices = lock(&self.devices);
        let device = devices.get_mut(serial);
        let device = device.filter(|device| device.owner == user_arn);
        let device = device.ok_or(MfaRefusal::NotYours)?;
        let first = device.used.map_or(0, |used| used + 1).max(now - 1);
        let found = (first..=now + 1).find(|step| code(&device.seed, *step) == given);
        device.used = Some(found.ok_or(MfaRefusal::WrongCode)?);
        Ok(true)
    }

    fn step(&self) -> u64 {
        step(self.iam.now())
    }
}

fn step(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs()) / STEP
}

/// The six digits of a seed at a time step (RFC 4226, section 5.3).
fn code(seed: &[u8], step: u64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, seed);
    let digest = hmac::sign(&key, &step.to_be_bytes());
    let digest = digest.as_ref();
    let offset = usize::from(digest[digest.len() - 1] & 0xf);
    let mut word = [0; 4];
    word.copy_from_slice(&digest[offset..offset + 4]);
    let number = u32::from_be_bytes(word) & 0x7fff_ffff;
    format!("{:06}", number % 1_000_000)
}

/// The code that a device with this seed in Base32 shows now; `None` if the text is no seed.
pub fn current_code(seed: &str) -> Option<String> {
    let seed = from_base32(seed)?;
    Some(code(&seed, step(SystemTime::now())))
}

fn base32(bytes: &[u8]) -> String {
    let bits = |n: usize| (bytes[n / 8] >> (7 - n % 8)) & 1;
    let all: Vec<usize> = (0..bytes.len() * 8).collect();
    let letters = all.chunks(5).map(|group| {
        let value = group.iter().fold(0, |value, n| value << 1 | bits(*n));
        char::from(ALPHABET[usize::from(value << (5 - group.len()))])
    });
    letters.collect()
}

fn from_base32(text: &str) -> Option<Vec<u8>> {
    let mut bits = Vec::new();
    for letter in text.trim_end_matches('=').bytes() {
        let upper = letter.to_ascii_uppercase();
        let value = ALPHABET.iter().position(|known| *known == upper)?;
        bits.extend((0..5).rev().map(|n| (value >> n) & 1 == 1));
    }
    let byte = |group: &[bool]| group.iter().fold(0, |b, bit| b << 1 | u8::from(*bit));
    Some(bits.chunks_exact(8).map(byte).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of RFC 6238, appendix B, cut to six digits.
    #[test]
    fn codes_are_those_of_rfc_6238() {
        let seed = b"12345678901234567890";
        for (seconds, digits) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(code(seed, seconds / STEP), digits, "{seconds}");
        }
    }

    /// The vectors of RFC 4648, section 10.
    #[test]
    fn seeds_are_written_in_base32() {
        for (text, encoded) in [
            ("", ""),
            ("f", "MY"),
            ("fo", "MZXQ"),
            ("foob", "MZXW6YQ"),
            ("foobar", "MZXW6YTBOI"),
        ] {
            assert_eq!(base32(text.as_bytes()), encoded);
            assert_eq!(from_base32(encoded).as_deref(), Some(text.as_bytes()));
        }
        assert_eq!(from_base32("0"), None);
    }

    #[test]
    fn a_code_is_accepted_once_and_from_its_owner() {
        let iam = Iam::new("eu-central-1", "123456789012");
        let mfa = Mfa::new(&iam);
        let dev = "arn:aws:iam::123456789012:user/dev";
        let serial = mfa.enable(dev);
        assert_eq!(serial, "arn:aws:iam::123456789012:mfa/dev");
        let accept = |who: &str, code: &str| mfa.accept(who, Some(&serial), Some(code));
        assert_eq!(mfa.accept(dev, None, None), Ok(false));
        assert_eq!(
            mfa.accept(dev, Some(&serial), None),
            Err(MfaRefusal::Incomplete)
        );
        let first = mfa.next_code(&serial).unwrap();
        let other = "arn:aws:iam::123456789012:user/other";
        assert_eq!(accept(other, &first), Err(MfaRefusal::NotYours));
        assert_eq!(accept(dev, &first), Ok(true));
        assert_eq!(accept(dev, &first), Err(MfaRefusal::WrongCode));
        let second = mfa.next_code(&serial).unwrap();
        assert_eq!(accept(dev, &second), Ok(true));
    }
}
