//! The certificate we show to local clients that ask for TLS: self-signed, made once, kept in the
//! state directory.
//!
//! Loopback traffic does not need it; clients do, whose settings insist on TLS (`sslmode=require`).
//! Who wants `verify-full` points `sslrootcert` at the kept `server.crt`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::Bytes;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::platform;

/// Sub-directory of the state directory; it appears whole or not at all.
const DIR: &str = "local-tls";
const CERTIFICATE: &str = "server.crt";
const KEY: &str = "server.key";

/// Why there is no local certificate.
#[derive(Debug, Error)]
pub enum LocalTlsError {
    /// The state directory cannot be used.
    #[error("cannot use {path}: {source}")]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// A kept file does not hold what we wrote.
    #[error(
        "{path} is damaged ({reason}); delete the directory {DIR} and a new certificate will be made"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The certificate could not be made.
    #[error("cannot make a self-signed certificate: {0}")]
    Generate(#[from] rcgen::Error),
    /// rustls does not accept the pair.
    #[error("the local certificate is not usable: {0}")]
    Rustls(#[from] rustls::Error),
}

/// What a local client that asks for TLS is shown.
#[derive(Debug, Clone)]
pub struct LocalTls {
    /// The TLS server settings.
    pub config: Arc<ServerConfig>,
    /// Where the certificate is kept, for clients that pin it.
    pub certificate: PathBuf,
    /// The hash of the certificate, to which a client may bind its login
    /// ([`end_point`]).
    pub end_point: Option<Bytes>,
}

/// Loads the kept certificate from `state_dir`, or makes and keeps one.
///
/// # Errors
/// [`LocalTlsError`].
pub fn load_or_create(state_dir: &Path) -> Result<LocalTls, LocalTlsError> {
    let dir = state_dir.join(DIR);
    if !dir.join(CERTIFICATE).exists() {
        create(state_dir, &dir)?;
    }
    let certificate_path = dir.join(CERTIFICATE);
    let certificate = CertificateDer::from_pem_file(&certificate_path)
        .map_err(|e| damaged(&certificate_path, e))?;
    let key_path = dir.join(KEY);
    let key = PrivateKeyDer::from_pem_file(&key_path).map_err(|e| damaged(&key_path, e))?;
    let end_point = end_point(&certificate);
    let mut config = ServerConfig::builder_with_provider(super::provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![pg_handshake::ALPN.to_vec()];
    Ok(LocalTls {
        config: Arc::new(config),
        certificate: certificate_path,
        end_point,
    })
}

/// The channel binding data `tls-server-end-point` (RFC 5929, 4.1): the certificate hashed with the
/// hash function of its own signature, or with SHA-256 if that is MD5 or SHA-1.
///
/// Ours are signed with ECDSA and SHA-256; the others are for a certificate that the user has put
/// in its place. `None` for signatures without such a hash function (Ed25519) or that name it
/// elsewhere (RSA-PSS): then channel binding is not offered.
fn end_point(certificate: &CertificateDer<'_>) -> Option<Bytes> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let algorithm = match parsed.signature_algorithm.algorithm.to_id_string().as_str() {
        // RFC 4055, 5 and RFC 8017, A.2.4: RSA with MD5, SHA-1, SHA-256, 384, 512, 224.
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.113549.1.1.11" => {
            &digest::SHA256
        }
        "1.2.840.113549.1.1.12" => &digest::SHA384,
        "1.2.840.113549.1.1.13" => &digest::SHA512,
        "1.2.840.113549.1.1.14" => &digest::SHA224,
        // RFC 5758, 3.2: ECDSA with SHA-1, 224, 256, 384, 512.
        "1.2.840.10045.4.1" | "1.2.840.10045.4.3.2" => &digest::SHA256,
        "1.2.840.10045.4.3.1" => &digest::SHA224,
        "1.2.840.10045.4.3.3" => &digest::SHA384,
        "1.2.840.10045.4.3.4" => &digest::SHA512,
        _ => return None,
    };
    Some(Bytes::copy_from_slice(
        digest::digest(algorithm, certificate).as_ref(),
    ))
}

fn damaged(path: &Path, error: rustls::pki_types::pem::Error) -> LocalTlsError {
    match error {
        rustls::pki_types::pem::Error::Io(source) => LocalTlsError::File {
            path: path.to_owned(),
            source,
        },
        other => LocalTlsError::Damaged {
            path: path.to_owned(),
            reason: other.to_string(),
        },
    }
}

/// Writes the pair into a fresh directory and renames it into place. When another process was
/// faster, its pair stays: a rename never replaces a directory that has files in it.
fn create(state_dir: &Path, dir: &Path) -> Result<(), LocalTlsError> {
    let file_error = |path: &Path| {
        let path = path.to_owned();
        move |source| LocalTlsError::File { path, source }
    };
    let mut params =
        CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into(), "::1".into()])?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "pgiam on localhost");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;

    platform::create_private_dir(state_dir).map_err(file_error(state_dir))?;
    let fresh = tempfile::Builder::new()
        .prefix(".local-tls-")
        .tempdir_in(state_dir)
        .map_err(file_error(state_dir))?;
    for (name, pem) in [(KEY, key.serialize_pem()), (CERTIFICATE, certificate.pem())] {
        let path = fresh.path().join(name);
        platform::write_private_file(&path, pem.as_bytes()).map_err(file_error(&path))?;
    }
    match std::fs::rename(fresh.path(), dir) {
        Ok(()) => {
            // The directory has moved; there is nothing left to remove under the old name.
            let _moved = fresh.keep();
            Ok(())
        }
        Err(_) if dir.join(CERTIFICATE).exists() => Ok(()),
        Err(source) => Err(LocalTlsError::File {
            path: dir.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_once_and_kept_private() {
        let state = tempfile::tempdir().unwrap();
        let below = state.path().join("a/b");
        let path = load_or_create(&below).unwrap().certificate;
        let first = std::fs::read(&path).unwrap();
        let path = load_or_create(&below).unwrap().certificate;
        assert_eq!(first, std::fs::read(&path).unwrap());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&below.join(DIR).join(KEY)), 0o600);
            assert_eq!(mode(&below), 0o700);
        }
        let left: Vec<_> = std::fs::read_dir(&below).unwrap().collect();
        assert_eq!(left.len(), 1, "no temporary directory is left: {left:?}");
    }

    #[test]
    fn a_damaged_file_is_named() {
        let state = tempfile::tempdir().unwrap();
        let path = load_or_create(state.path()).unwrap().certificate;
        std::fs::write(&path, "nonsense").unwrap();
        let error = load_or_create(state.path()).unwrap_err().to_string();
        assert!(
            error.contains("server.crt") && error.contains("delete the directory"),
            "{error}"
        );
    }

    #[test]
    fn the_end_point_is_hashed_as_the_signature_is() {
        let state = tempfile::tempdir().unwrap();
        let ours = load_or_create(state.path()).unwrap();
        let der = CertificateDer::from_pem_file(&ours.certificate).unwrap();
        let expected = digest::digest(&digest::SHA256, &der);
        assert_eq!(ours.end_point.as_deref(), Some(expected.as_ref()));

        let signed_with = |algorithm| {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let params = CertificateParams::new(vec!["localhost".into()]).unwrap();
            params.self_signed(&key).unwrap().der().clone()
        };
        let der = signed_with(&rcgen::PKCS_ECDSA_P384_SHA384);
        let expected = digest::digest(&digest::SHA384, &der);
        assert_eq!(end_point(&der).as_deref(), Some(expected.as_ref()));
        assert_eq!(end_point(&signed_with(&rcgen::PKCS_ED25519)), None);
        assert_eq!(end_point(&CertificateDer::from(vec![0x30, 0x03])), None);
    }

    #[test]
    fn racing_starts_agree_on_one_certificate() {
        let state = tempfile::tempdir().unwrap();
        let certificates: Vec<Vec<u8>> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        std::fs::read(load_or_create(state.path()).unwrap().certificate).unwrap()
                    })
                })
                .collect();
            starts
                .into_iter()
                .map(|start| start.join().unwrap())
                .collect()
        });
        assert!(certificates.windows(2).all(|pair| pair[0] == pair[1]));
    }
}
