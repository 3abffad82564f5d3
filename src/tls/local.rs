//! Certificate for local clients that request TLS: self-signed, created once, kept in the state
//! directory.
//!
//! Loopback traffic does not need TLS, but some clients are configured to require it
//! (`sslmode=require`). For `verify-full`, set `sslrootcert` to the kept `server.crt`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::Bytes;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::base::environment::origin_hint;
use crate::base::quote;
use crate::base::quote::shown;
use crate::base::tls_words;
use crate::platform;
use crate::platform::permissions::{CheckedDir, FileRole, PathError};

/// Sub-directory of the state directory; it is created atomically.
const DIR: &str = "local-tls";
const CERTIFICATE: &str = "server.crt";
const KEY: &str = "server.key";
/// Maximum size of a PEM file in bytes, far above that of any chain or key.
const LONGEST_PEM: u64 = 1 << 20;

/// Reason why there is no local certificate.
#[derive(Debug, Error)]
pub enum LocalTlsError {
    /// The kept files have unsafe permissions, or cannot be read.
    #[error("{}{}", .0, origin_hint("state_dir"))]
    Unsafe(#[from] PathError),
    /// A kept file has unexpected contents.
    #[error(
        "invalid local certificate in {path}: {reason}\nhint: delete the directory, and pgiam creates a new certificate:\n  rm -r {}",
        quote::shell(&.dir.to_string_lossy()), path = shown(.path)
)]
    Damaged {
        /// Path of the file.
        path: PathBuf,
        /// Directory of the file.
        dir: PathBuf,
        /// Problem with the file.
        reason: String,
    },
    /// The certificate could not be generated.
    #[error("cannot create a self-signed certificate: {0}")]
    Generate(#[from] rcgen::Error),
    /// rustls does not accept the pair.
    #[error("invalid local certificate: {0}")]
    Rustls(#[from] rustls::Error),
}

/// Location of the certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateLocation {
    /// In this file, for clients that pin it.
    At(PathBuf),
    /// In memory: the next start generates another one.
    InMemory {
        /// Reason why it cannot be kept.
        reason: String,
    },
}

/// TLS setup for local clients.
#[derive(Debug, Clone)]
pub struct LocalTls {
    /// TLS server settings.
    pub config: Arc<ServerConfig>,
    /// Location of the certificate.
    pub kept: CertificateLocation,
    /// Hash of the certificate, to which a client may bind its login (`tls-server-end-point`).
    pub end_point: Option<Bytes>,
}

/// A certificate and its key, in PEM.
struct CertificatePair {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

/// Loads the kept certificate from `state_dir`, or generates one and keeps it there. If it cannot
/// be kept (no home directory, a read-only file system), it stays in memory. Existing files with
/// unsafe permissions are an error: other users could know the key. Clients may ask for `alpn`, the
/// protocol's name for ALPN (RFC 7301).
///
/// # Errors
/// [`LocalTlsError`].
pub fn load_or_create(
    state_dir: Option<&Path>,
    alpn: Option<&[u8]>,
) -> Result<LocalTls, LocalTlsError> {
    let local_tls = |pair: &CertificatePair, kept: CertificateLocation| local_tls(pair, kept, alpn);
    let Some(state_dir) = state_dir else {
        let reason = "this account has no home directory".to_owned();
        return local_tls(&make()?, CertificateLocation::InMemory { reason });
    };
    let path = state_dir.join(DIR).join(CERTIFICATE);
    if let Some(kept) = load(state_dir)? {
        return local_tls(&kept, CertificateLocation::At(path));
    }
    let fresh = make()?;
    match keep(state_dir, &fresh) {
        Ok(()) => {}
        Err(CertificateNotStored::Unsafe(error)) => return Err(error.into()),
        Err(CertificateNotStored::Unwritable(path, error)) => {
            let reason = format!("cannot write {}: {error}", path.display());
            return local_tls(&fresh, CertificateLocation::InMemory { reason });
        }
    }
    // Load the current pair, which another process may have written at the same time.
    match load(state_dir)? {
        Some(kept) => local_tls(&kept, CertificateLocation::At(path)),
        None => {
            let path = state_dir.join(DIR);
            let reason = format!("it has no {CERTIFICATE}");
            Err(damaged(&path, path.clone(), reason))
        }
    }
}

fn local_tls(
    pair: &CertificatePair,
    kept: CertificateLocation,
    alpn: Option<&[u8]>,
) -> Result<LocalTls, LocalTlsError> {
    let dir = match &kept {
        CertificateLocation::At(path) => path.parent().map(Path::to_owned).unwrap_or_default(),
        CertificateLocation::InMemory { .. } => PathBuf::new(),
    };
    let broken = |name: &'static str| {
        let dir = &dir;
        move |error: pem::Error| damaged(dir, dir.join(name), in_words(&error))
    };
    let certificate =
        CertificateDer::from_pem_slice(&pair.certificate).map_err(broken(CERTIFICATE))?;
    let key = PrivateKeyDer::from_pem_slice(&pair.key).map_err(broken(KEY))?;
    let end_point = end_point(&certificate);
    let mut config = ServerConfig::builder_with_details(super::provider(), super::clock())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .map_err(|error| match (&kept, error) {
            (CertificateLocation::InMemory { .. }, error) => error.into(),
            (CertificateLocation::At(_), rustls::Error::InconsistentKeys(_)) => {
                let reason = format!("{CERTIFICATE} and {KEY} do not match");
                damaged(&dir, dir.clone(), reason)
            }
            (CertificateLocation::At(_), error) => {
                damaged(&dir, dir.clone(), tls_words::in_words(&error))
            }
        })?;
    config.alpn_protocols = alpn.map(<[u8]>::to_vec).into_iter().collect();
    Ok(LocalTls {
        config: Arc::new(config),
        kept,
        end_point,
    })
}

fn damaged(dir: &Path, path: PathBuf, reason: String) -> LocalTlsError {
    LocalTlsError::Damaged {
        path,
        dir: dir.to_owned(),
        reason,
    }
}

/// Describes the problem with a PEM file. The library's messages contain names as lists of bytes.
fn in_words(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => {
            "it is truncated: the END line is missing".to_owned()
        }
        pem::Error::IllegalSectionStart { .. } => "its BEGIN line is invalid".to_owned(),
        pem::Error::NoItemsFound => "it contains no PEM data".to_owned(),
        pem::Error::Base64Decode(_) => "it is not valid base64".to_owned(),
        other => other.to_string(),
    }
}

/// Loads the kept pair; `None` if there is none, or if access is denied.
fn load(state_dir: &Path) -> Result<Option<CertificatePair>, LocalTlsError> {
    let dir = state_dir.join(DIR);
    if !is_there(state_dir) {
        return Ok(None);
    }
    // Checked even if it is empty: the sockets go there as well.
    match CheckedDir::open(FileRole::StateDir, state_dir) {
        // Access is denied: the directory belongs to root.
        Err(error) if error.io() == Some(io::ErrorKind::PermissionDenied) => return Ok(None),
        opened => opened?,
    };
    if !is_there(&dir) {
        return Ok(None);
    }
    let kept = CheckedDir::open(FileRole::CertificateDir, &dir)?;
    if !is_there(&dir.join(CERTIFICATE)) {
        return Ok(None);
    }
    let certificate = kept.read(FileRole::Certificate, CERTIFICATE, LONGEST_PEM)?;
    CertificateDer::from_pem_slice(&certificate)
        .map_err(|error| damaged(&dir, dir.join(CERTIFICATE), in_words(&error)))?;
    let key = match kept.read(FileRole::Key, KEY, LONGEST_PEM) {
        Err(error) if error.io() == Some(io::ErrorKind::NotFound) => {
            let reason = format!("it has no {KEY}");
            return Err(damaged(&dir, dir.clone(), reason));
        }
        key => key?.into(),
    };
    Ok(Some(CertificatePair { certificate, key }))
}

/// Returns `true` if the path exists, as far as access permits.
fn is_there(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

/// Returns the channel binding data `tls-server-end-point` (RFC 5929, 4.1): the certificate hashed
/// with the hash function of its own signature, or with SHA-256 if that is MD5 or SHA-1.
///
/// pgiam's own certificates are signed with ECDSA and SHA-256; the others are for a certificate
/// that the user has put in its place. `None` for signatures without such a hash function (Ed25519)
/// or with a parameter for it (RSA-PSS): then channel binding is not offered.
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

fn make() -> Result<CertificatePair, rcgen::Error> {
    let mut params =
        CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into(), "::1".into()])?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "pgiam on localhost");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(CertificatePair {
        certificate: certificate.pem().into_bytes(),
        key: key.serialize_pem().into_bytes().into(),
    })
}

/// Reason why a new pair is not kept.
enum CertificateNotStored {
    Unsafe(PathError),
    Unwritable(PathBuf, io::Error),
}

/// Writes the pair into a temporary directory and renames it into place. If another process was
/// faster, its pair stays: a rename never replaces a directory that contains files.
fn keep(state_dir: &Path, pair: &CertificatePair) -> Result<(), CertificateNotStored> {
    let unwritable = |path: &Path| {
        let path = path.to_owned();
        move |error| CertificateNotStored::Unwritable(path, error)
    };
    platform::create_private_dir(state_dir).map_err(unwritable(state_dir))?;
    CheckedDir::open(FileRole::StateDir, state_dir).map_err(|error| match error {
        PathError::File { path, source, .. } => CertificateNotStored::Unwritable(path, source),
        other => CertificateNotStored::Unsafe(other),
    })?;
    let fresh = platform::private_temp_dir(state_dir, ".local-tls-");
    let fresh = fresh.map_err(unwritable(state_dir))?;
    for (name, pem) in [(KEY, &pair.key[..]), (CERTIFICATE, &pair.certificate[..])] {
        let path = fresh.path().join(name);
        platform::write_private_file(&path, pem).map_err(unwritable(&path))?;
    }
    let dir = state_dir.join(DIR);
    match std::fs::rename(fresh.path(), &dir) {
        Ok(()) => {
            // The directory has moved; there is nothing left to remove under the old name.
            let _moved = fresh.keep();
            Ok(())
        }
        // Another process's pair, or the rest of one: it is checked next.
        Err(_) if is_there(&dir) => Ok(()),
        Err(error) => Err(CertificateNotStored::Unwritable(dir, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_or_create(state_dir: &Path) -> Result<LocalTls, LocalTlsError> {
        super::load_or_create(Some(state_dir), None)
    }

    fn file(tls: &LocalTls) -> &Path {
        match &tls.kept {
            CertificateLocation::At(path) => path,
            CertificateLocation::InMemory { reason } => panic!("it is not kept: {reason}"),
        }
    }

    #[test]
    fn made_once_and_kept_private() {
        let state = tempfile::tempdir().unwrap();
        let below = state.path().join("a/b");
        let tls = load_or_create(&below).unwrap();
        let first = std::fs::read(file(&tls)).unwrap();
        let tls = load_or_create(&below).unwrap();
        assert_eq!(first, std::fs::read(file(&tls)).unwrap());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&below.join(DIR).join(KEY)), 0o600);
            assert_eq!(mode(&below), 0o700);
            assert_eq!(mode(&below.join(DIR)), 0o700);
        }
        let left: Vec<_> = std::fs::read_dir(&below).unwrap().collect();
        assert_eq!(left.len(), 1, "no temporary directory is left: {left:?}");
    }

    #[test]
    fn a_damaged_file_is_named() {
        let state = tempfile::tempdir().unwrap();
        let tls = load_or_create(state.path()).unwrap();
        let dir = state.path().join(DIR);
        let remedy = format!("rm -r {}", dir.display());
        let pem = |name: &str| std::fs::read(dir.join(name)).unwrap();
        let (certificate, key) = (pem(CERTIFICATE), pem(KEY));
        let other = make().unwrap();
        let cut = |pem: &[u8]| pem[..pem.len() / 2].to_vec();
        assert_eq!(file(&tls), dir.join(CERTIFICATE));
        for (name, pem, named, reason) in [
            (
                CERTIFICATE,
                b"nonsense".to_vec(),
                CERTIFICATE,
                "contains no PEM data",
            ),
            (CERTIFICATE, Vec::new(), CERTIFICATE, "contains no PEM data"),
            (
                CERTIFICATE,
                cut(&certificate),
                CERTIFICATE,
                "the END line is missing",
            ),
            (KEY, cut(&key), KEY, "the END line is missing"),
            (CERTIFICATE, other.certificate, "", "do not match"),
        ] {
            std::fs::write(dir.join(name), pem).unwrap();
            let said = load_or_create(state.path()).unwrap_err().to_string();
            let path = dir.join(named).display().to_string();
            let path = path.trim_end_matches('/');
            assert!(
                said.starts_with(&format!("invalid local certificate in {path}: ")),
                "{said}"
            );
            assert!(said.contains(reason) && said.ends_with(&remedy), "{said}");
            std::fs::write(dir.join(CERTIFICATE), &certificate).unwrap();
            std::fs::write(dir.join(KEY), &key).unwrap();
        }
        load_or_create(state.path()).unwrap();
    }

    #[test]
    fn the_end_point_is_hashed_as_the_signature_is() {
        let state = tempfile::tempdir().unwrap();
        let ours = load_or_create(state.path()).unwrap();
        let der = CertificateDer::from_pem_file(file(&ours)).unwrap();
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
                        std::fs::read(file(&load_or_create(state.path()).unwrap())).unwrap()
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

    #[cfg(unix)]
    #[test]
    fn what_others_could_know_or_change_is_refused_with_the_remedy() {
        use std::os::unix::fs::PermissionsExt;
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let state = tempfile::tempdir().unwrap();
        let state = state.path().join("state");
        load_or_create(&state).unwrap();
        let dir = state.join(DIR);
        let (key, certificate) = (dir.join(KEY), dir.join(CERTIFICATE));
        for (path, mode, remedy) in [
            (&state, 0o777, "chmod 700 "),
            (&state, 0o770, "chmod 700 "),
            (&dir, 0o777, "chmod 700 "),
            (&key, 0o644, "chmod 600 "),
            (&key, 0o640, "chmod 600 "),
            (&certificate, 0o666, "chmod go-w "),
        ] {
            let before = std::fs::metadata(path).unwrap().permissions().mode();
            set(path, mode);
            let said = load_or_create(&state).unwrap_err().to_string();
            let expected = format!("{remedy}{}", path.display());
            assert!(said.contains(&expected), "{said}\n{expected}");
            set(path, before);
            load_or_create(&state).unwrap();
        }
        // Only root can change the owner.
        if crate::platform::peer::own_uid() == Some(0) {
            for path in [&state, &dir, &key, &certificate] {
                std::os::unix::fs::chown(path, Some(12_345), None).unwrap();
                let said = load_or_create(&state).unwrap_err().to_string();
                let expected = match path == &state {
                    true => format!("chown 0 {}", state.display()),
                    false => format!("rm -r {}", dir.display()),
                };
                assert!(said.contains("belongs to user id 12345"), "{said}");
                assert!(said.contains(&expected), "{said}");
                std::os::unix::fs::chown(path, Some(0), None).unwrap();
            }
        }
        // A link to another user's directory.
        std::fs::remove_dir_all(&dir).unwrap();
        std::os::unix::fs::symlink("/", &dir).unwrap();
        let said = load_or_create(&state).unwrap_err().to_string();
        assert!(said.contains("is not a directory"), "{said}");
    }

    #[test]
    fn without_a_place_it_stays_in_memory() {
        let reason = |state_dir| match super::load_or_create(state_dir, None).unwrap().kept {
            CertificateLocation::InMemory { reason } => reason,
            CertificateLocation::At(path) => panic!("{}", path.display()),
        };
        assert!(reason(None).contains("no home directory"));
        if cfg!(unix) {
            // Home directories of service accounts; even root cannot write there.
            for home in ["/dev/null/.local/state/pgiam", "/proc/nonexistent/pgiam"] {
                let said = reason(Some(Path::new(home)));
                assert!(said.contains(&format!("cannot write {home}")), "{said}");
            }
        }
    }

    #[test]
    fn a_directory_without_a_certificate_is_named() {
        let state = tempfile::tempdir().unwrap();
        let tls = load_or_create(state.path()).unwrap();
        std::fs::remove_file(file(&tls)).unwrap();
        let said = load_or_create(state.path()).unwrap_err().to_string();
        assert!(said.contains("it has no server.crt"), "{said}");
    }
}
