//! DPoP proofs (RFC 9449, section 4.3), as the AWS CLI and the SDKs make them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;

/// Distance of a proof's own time from the service's clock.
const MAX_SKEW: Duration = Duration::from_secs(300);

/// A proof whose signature is right.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    /// Uncompressed point of the key.
    pub(crate) key: Vec<u8>,
    /// `jti`.
    pub(crate) id: String,
}

/// Fault of a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProofFault(pub(crate) &'static str);

impl Proof {
    /// Reads the header `DPoP` of a POST to `url`.
    pub(crate) fn read(text: &str, url: &str, now: SystemTime) -> Result<Self, ProofFault> {
        let fault = ProofFault;
        let (signed, signature) = text.rsplit_once('.').ok_or(fault("not a JWT"))?;
        let (header, claims) = signed.split_once('.').ok_or(fault("not a JWT"))?;
        let (header, claims) = (object(header)?, object(claims)?);
        if header["typ"] != "dpop+jwt" || header["alg"] != "ES256" {
            return Err(fault("typ or alg"));
        }
        let jwk = &header["jwk"];
        if jwk["kty"] != "EC" || jwk["crv"] != "P-256" || !jwk["d"].is_null() {
            return Err(fault("jwk"));
        }
        let key = [&[4][..], &coordinate(&jwk["x"])?, &coordinate(&jwk["y"])?].concat();
        let signature = decode(signature)?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key)
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| fault("signature"))?;
        if claims["htm"] != "POST" || claims["htu"] != url {
            return Err(fault("htm or htu"));
        }
        let made = claims["iat"].as_u64().ok_or(fault("iat"))?;
        let made = UNIX_EPOCH + Duration::from_secs(made);
        if made > now + MAX_SKEW || now > made + MAX_SKEW {
            return Err(fault("iat"));
        }
        match claims["jti"].as_str() {
            Some(id) if !id.is_empty() => Ok(Self {
                key,
                id: id.to_owned(),
            }),
            _ => Err(fault("jti")),
        }
    }
}

fn decode(text: &str) -> Result<Vec<u8>, ProofFault> {
    let decoded = BASE64_URL_SAFE_NO_PAD.decode(text);
    decoded.map_err(|_| ProofFault("not Base64"))
}

fn object(text: &str) -> Result<Value, ProofFault> {
    serde_json::from_slice(&decode(text)?).map_err(|_| ProofFault("not JSON"))
}

/// 32 bytes of a point.
fn coordinate(value: &Value) -> Result<Vec<u8>, ProofFault> {
    let bytes = decode(value.as_str().unwrap_or_default())?;
    match bytes.len() {
        32 => Ok(bytes),
        _ => Err(ProofFault("jwk")),
    }
}
