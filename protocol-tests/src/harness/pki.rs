//! Certificates of one sandbox: a fresh authority, what it signs, and a stranger nobody trusts.
//!
//! Nothing here is ever committed, so no test certificate can run out.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _,
};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest as _, Sha256};

const DAY: Duration = Duration::from_secs(86_400);

/// Who signs a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Signer {
    /// The sandbox authority, whose certificate is at [`Pki::ca_pem_path`].
    #[default]
    Sandbox,
    /// The authority of AWS Certificate Manager, for endpoints whose certificates are not in the
    /// bundle of RDS: RDS Proxy and Aurora DSQL. Its certificate is at [`Pki::public_ca_pem_path`].
    Public,
    /// An authority that no trust file names.
    Stranger,
}

/// The time span a certificate is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Validity {
    /// From yesterday for 30 days.
    #[default]
    Current,
    /// Ended yesterday.
    Expired,
    /// Starts tomorrow.
    NotYet,
}

/// The authorities of one sandbox.
pub struct Pki {
    dir: PathBuf,
    ca: Authority,
    public: Authority,
    stranger: Authority,
    issued: AtomicU32,
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
    path: PathBuf,
}

impl Authority {
    fn new(name: &str, path: PathBuf) -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let now = SystemTime::now();
        params.not_before = (now - 30 * DAY).into();
        params.not_after = (now + 365 * DAY).into();
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let pem = certificate.pem();
        std::fs::write(&path, &pem).with_context(|| format!("writing {}", path.display()))?;
        Ok(Self {
            der: certificate.der().clone(),
            issuer: Issuer::new(params, key),
            pem,
            path,
        })
    }
}

impl fmt::Debug for Pki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pki")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl Pki {
    /// Makes the authorities; certificates and keys are written below `dir`, which must exist.
    pub fn new(dir: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            ca: Authority::new("pgiam sandbox CA", dir.join("ca.pem"))?,
            public: Authority::new("pgiam sandbox public CA", dir.join("public-ca.pem"))?,
            stranger: Authority::new("Stranger CA", dir.join("stranger-ca.pem"))?,
            dir: dir.to_owned(),
            issued: AtomicU32::new(0),
        })
    }

    /// The sandbox authority as a PEM file: what `AWS_CA_BUNDLE` and `--ca-file` name.
    pub fn ca_pem_path(&self) -> &Path {
        &self.ca.path
    }

    /// The sandbox authority as PEM text.
    pub fn ca_pem(&self) -> &str {
        &self.ca.pem
    }

    /// The sandbox authority in DER.
    pub fn ca_der(&self) -> &CertificateDer<'static> {
        &self.ca.der
    }

    /// The authority that plays the one of AWS Certificate Manager, as a PEM file.
    pub fn public_ca_pem_path(&self) -> &Path {
        &self.public.path
    }

    /// The same as PEM text.
    pub fn public_ca_pem(&self) -> &str {
        &self.public.pem
    }

    /// The authority nobody trusts, as a PEM file.
    pub fn stranger_ca_pem_path(&self) -> &Path {
        &self.stranger.path
    }

    /// A current server certificate of the sandbox authority for DNS names or IP addresses.
    pub fn issue(&self, names: &[&str]) -> anyhow::Result<IssuedCert> {
        self.issue_with(names, Signer::Sandbox, Validity::Current)
    }

    /// A server certificate with a chosen signer and time span, for failure tests.
    pub fn issue_with(
        &self,
        names: &[&str],
        signer: Signer,
        validity: Validity,
    ) -> anyhow::Result<IssuedCert> {
        let authority = match signer {
            Signer::Sandbox => &self.ca,
            Signer::Public => &self.public,
            Signer::Stranger => &self.stranger,
        };
        let key = KeyPair::generate()?;
        let certificate = leaf_params(names, validity)?.signed_by(&key, &authority.issuer)?;
        let number = self.issued.fetch_add(1, Ordering::Relaxed);
        let issued = IssuedCert {
            cert_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            cert_path: self.dir.join(format!("server-{number}.pem")),
            key_path: self.dir.join(format!("server-{number}.key")),
            cert_der: certificate.der().clone(),
            key_der: PrivatePkcs8KeyDer::from(key.serialize_der()),
            pin: BASE64_STANDARD.encode(Sha256::digest(key.subject_public_key_info())),
        };
        write_private(&issued.key_path, &issued.key_pem)?;
        std::fs::write(&issued.cert_path, &issued.cert_pem)
            .with_context(|| format!("writing {}", issued.cert_path.display()))?;
        Ok(issued)
    }
}

fn leaf_params(names: &[&str], validity: Validity) -> anyhow::Result<CertificateParams> {
    let list: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
    let mut params = CertificateParams::new(list)?;
    // The common name is what PostgreSQL and OpenSSL show; no client may take it for the identity.
    let shown = names.iter().find(|n| n.parse::<IpAddr>().is_err());
    params
        .distinguished_name
        .push(DnType::CommonName, *shown.unwrap_or(&"sandbox"));
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let now = SystemTime::now();
    let (from, to) = match validity {
        Validity::Current => (now - DAY, now + 90 * DAY),
        Validity::Expired => (now - 10 * DAY, now - DAY),
        Validity::NotYet => (now + DAY, now + 30 * DAY),
    };
    params.not_before = from.into();
    params.not_after = to.into();
    Ok(params)
}

/// Writes a file that only its owner may read, whatever the umask is.
pub(crate) fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("creating {}", path.display()))?;
    file.write_all(text.as_bytes())
        .with_context(|| format!("writing {}", path.display()))
}

/// A certificate with its key, in memory and on disk.
pub struct IssuedCert {
    /// The certificate, PEM.
    pub cert_pem: String,
    /// The private key, PKCS#8 PEM.
    pub key_pem: String,
    /// File with [`Self::cert_pem`].
    pub cert_path: PathBuf,
    /// File with [`Self::key_pem`], mode 0600.
    pub key_path: PathBuf,
    cert_der: CertificateDer<'static>,
    key_der: PrivatePkcs8KeyDer<'static>,
    pin: String,
}

impl fmt::Debug for IssuedCert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedCert")
            .field("cert_path", &self.cert_path)
            .finish_non_exhaustive()
    }
}

impl IssuedCert {
    /// The certificate in DER.
    pub fn cert_der(&self) -> &CertificateDer<'static> {
        &self.cert_der
    }

    /// SHA-256 of the public key with its algorithm, in Base64, as Chromium takes it for a pin.
    pub fn pin(&self) -> &str {
        &self.pin
    }

    /// A rustls server configuration that shows this certificate; `alpn` in order of preference.
    pub fn server_config(&self, alpn: &[&[u8]]) -> anyhow::Result<Arc<ServerConfig>> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        self.server_config_with(provider, alpn).map(Arc::new)
    }

    /// The same with the algorithms of `provider`.
    pub(crate) fn server_config_with(
        &self,
        provider: CryptoProvider,
        alpn: &[&[u8]],
    ) -> anyhow::Result<ServerConfig> {
        let key = PrivateKeyDer::Pkcs8(self.key_der.clone_key());
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![self.cert_der.clone()], key)?;
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::{ServerName, UnixTime};
    use rustls::{CertificateError, Error, RootCertStore};

    use super::*;

    fn verify(pki: &Pki, cert: &IssuedCert, name: &str) -> Result<(), Error> {
        let mut roots = RootCertStore::empty();
        roots.add(pki.ca_der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier
            .verify_server_cert(cert.cert_der(), &[], &name, &[], UnixTime::now())
            .map(|_| ())
    }

    #[test]
    fn each_kind_is_judged_by_a_real_verifier() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::new(dir.path()).unwrap();
        let good = pki
            .issue(&["a.example", "*.b.example", "127.0.0.1"])
            .unwrap();
        for name in ["a.example", "x.b.example", "127.0.0.1"] {
            verify(&pki, &good, name).unwrap();
        }
        assert!(matches!(
            verify(&pki, &good, "c.example").unwrap_err(),
            Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })
        ));
        let names = &["a.example"];
        let stranger = pki
            .issue_with(names, Signer::Stranger, Validity::Current)
            .unwrap();
        assert!(matches!(
            verify(&pki, &stranger, "a.example").unwrap_err(),
            Error::InvalidCertificate(CertificateError::UnknownIssuer)
        ));
        let old = pki
            .issue_with(names, Signer::Sandbox, Validity::Expired)
            .unwrap();
        assert!(matches!(
            verify(&pki, &old, "a.example").unwrap_err(),
            Error::InvalidCertificate(CertificateError::ExpiredContext { .. })
        ));
        let early = pki
            .issue_with(names, Signer::Sandbox, Validity::NotYet)
            .unwrap();
        assert!(matches!(
            verify(&pki, &early, "a.example").unwrap_err(),
            Error::InvalidCertificate(CertificateError::NotValidYetContext { .. })
        ));
    }

    #[test]
    fn keys_are_private_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::new(dir.path()).unwrap();
        let cert = pki.issue(&["a.example"]).unwrap();
        let mode = std::fs::metadata(&cert.key_path)
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{pki:?}{cert:?}").contains("PRIVATE KEY"));
        cert.server_config(&[b"http/1.1"]).unwrap();
    }
}
