//! The certificate we show to local clients that ask for TLS: self-signed, made once, kept in the
//! state directory.
//!
//! Loopback traffic does not need it; clients do, whose settings insist on TLS (`sslmode=require`).
//! Who wants `verify-full` points `sslrootcert` at the kept `server.crt`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

use crate::platform;

/// Sub-directory of the state directory; it appears whole or not at all.
const DIR: &str = "local-tls";
const CERTIFICATE: &str = "server.crt";
const KEY: &str = "server.key";
/// ALPN protocol name of PostgreSQL (PostgreSQL docs, "SSL Session Encryption").
const ALPN: &[u8] = b"postgresql";

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

/// Loads the kept certificate from `state_dir`, or makes and keeps one. Returns the TLS server
/// settings and the path of the certificate, which clients may pin.
///
/// # Errors
/// [`LocalTlsError`].
pub fn load_or_create(state_dir: &Path) -> Result<(Arc<ServerConfig>, PathBuf), LocalTlsError> {
    let dir = state_dir.join(DIR);
    if !dir.join(CERTIFICATE).exists() {
        create(state_dir, &dir)?;
    }
    let certificate_path = dir.join(CERTIFICATE);
    let certificate = CertificateDer::from_pem_file(&certificate_path)
        .map_err(|e| damaged(&certificate_path, e))?;
    let key_path = dir.join(KEY);
    let key = PrivateKeyDer::from_pem_file(&key_path).map_err(|e| damaged(&key_path, e))?;
    let mut config = ServerConfig::builder_with_provider(super::provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok((Arc::new(config), certificate_path))
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
        let (_, path) = load_or_create(&below).unwrap();
        let first = std::fs::read(&path).unwrap();
        let (_, path) = load_or_create(&below).unwrap();
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
        let (_, path) = load_or_create(state.path()).unwrap();
        std::fs::write(&path, "nonsense").unwrap();
        let error = load_or_create(state.path()).unwrap_err().to_string();
        assert!(
            error.contains("server.crt") && error.contains("delete the directory"),
            "{error}"
        );
    }

    #[test]
    fn racing_starts_agree_on_one_certificate() {
        let state = tempfile::tempdir().unwrap();
        let certificates: Vec<Vec<u8>> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| std::fs::read(load_or_create(state.path()).unwrap().1).unwrap())
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
