//! Verify-full TLS to the database: the certificate must chain to a trusted root *and* contain the
//! endpoint's name. Neither check can be disabled.
//!
//! Trust: the Amazon RDS roots embedded in the binary (instances and clusters) plus the public web
//! roots (RDS Proxy presents ACM certificates), or only those in `--ca-file`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme,
};
use thiserror::Error;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::roots;
use crate::base::error_text::chain;
use crate::base::foreign_text::ForeignText;
use crate::base::quote::shown;
use crate::base::stream::Stream;
use crate::base::tls_words;
use crate::platform::permissions::{self, FileRole, PathError};
use crate::tls::key_share::KeyShareMemory;

/// Maximum size of a CA file in bytes: the bundles of all operating systems are far below 1 MiB.
const LONGEST_CA_FILE: u64 = 8 << 20;
/// Maximum number of certificate names shown.
const MOST_NAMES: usize = 5;

/// Reason why the trust roots cannot be used.
#[derive(Debug, Error)]
pub enum TrustError {
    /// `--ca-file` cannot be read.
    #[error("cannot read the CA file {path}: {reason}", path = shown(.path))]
    CaFile {
        /// Path of the file.
        path: PathBuf,
        /// Problem with the file.
        reason: String,
    },
    /// The file has unsafe permissions, or is not a file.
    #[error(transparent)]
    Refused(#[from] PathError),
    /// rustls refuses the roots.
    #[error("invalid trust roots: {0}")]
    Roots(String),
}

/// Reason why the TLS connection to the database failed.
#[derive(Clone, Debug, Error)]
pub enum UpstreamTlsError {
    /// The certificate is for other names.
    #[error("the certificate presented for {expected} is for {}", listed(.presented))]
    NameMismatch {
        /// Name that was verified.
        expected: String,
        /// Names in the certificate.
        presented: Vec<ForeignText>,
    },
    /// No trusted root signed the certificate.
    #[error("the certificate of {subject} is signed by \"{issuer}\", which is not trusted")]
    UnknownIssuer {
        /// Subject of the certificate.
        subject: ForeignText,
        /// Last issuer of the presented chain.
        issuer: ForeignText,
    },
    /// The certificate has expired, or is not valid yet.
    #[error(
        "the certificate of {subject} is not valid now: it is valid from {not_before} to {not_after}"
    )]
    NotValidNow {
        /// Subject of the certificate.
        subject: ForeignText,
        /// Start of validity.
        not_before: String,
        /// End of validity.
        not_after: String,
    },
    /// The certificate is refused for another reason.
    #[error("invalid certificate: {0}")]
    Certificate(ForeignText),
    /// The handshake failed.
    #[error("TLS handshake failed: {0}")]
    Handshake(ForeignText),
    /// The connection broke during the handshake.
    #[error("the connection ended during the TLS handshake: {0}")]
    Io(Arc<io::Error>),
}

/// Opens verified TLS connections to databases. Cheap to clone.
#[derive(Clone)]
pub struct UpstreamTls {
    connector: TlsConnector,
}

impl UpstreamTls {
    /// Trusts the built-in roots, or only those in `ca_file` (PEM). Offers `alpn`, the protocol's
    /// name for ALPN (RFC 7301).
    ///
    /// # Errors
    /// [`TrustError`] for a file without a usable certificate.
    pub fn new(ca_file: Option<&Path>, alpn: Option<&[u8]>) -> Result<Self, TrustError> {
        let roots = match ca_file {
            Some(path) => from_file(path)?,
            None => built_in(),
        };
        let roots_error = |error: &(dyn std::error::Error + 'static)| {
            TrustError::Roots(chain(error).into_string())
        };
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), super::provider())
            .build()
            .map_err(|error| roots_error(&error))?;
        let mut config = ClientConfig::builder_with_details(super::provider(), super::clock())
            .with_safe_default_protocol_versions()
            .map_err(|error| roots_error(&error))?
            // The wrapper only explains refusals of the webpki verifier; it accepts nothing itself.
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ExplainingVerifier { inner }))
            .with_no_client_auth();
        // A server of another protocol that supports ALPN refuses.
        config.alpn_protocols = alpn.map(<[u8]>::to_vec).into_iter().collect();
        config.resumption = Resumption::store(Arc::new(KeyShareMemory::new()));
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
        })
    }

    /// Performs the handshake on `stream`, verifying the certificate for `host`. The caller sets
    /// the deadline.
    ///
    /// # Errors
    /// [`UpstreamTlsError`]; in that case pgiam has sent no data beyond the handshake.
    pub async fn connect(
        &self,
        host: &str,
        stream: Stream,
    ) -> Result<TlsStream<Stream>, UpstreamTlsError> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| UpstreamTlsError::Handshake(chain(&error)))?;
        self.connector.connect(name, stream).await.map_err(explain)
    }
}

fn built_in() -> RootCertStore {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots::rds_roots());
    store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    store
}

fn from_file(path: &Path) -> Result<RootCertStore, TrustError> {
    let refuse = |reason: String| TrustError::CaFile {
        path: path.to_owned(),
        reason,
    };
    let mut store = RootCertStore::empty();
    let read = permissions::read(FileRole::CaFile, path, LONGEST_CA_FILE);
    let pem = read.map_err(|error| match error {
        PathError::File { source, .. } => refuse(source.to_string()),
        other => TrustError::Refused(other),
    })?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| refuse(chain(&error).into_string()))?;
        store
            .add(certificate)
            .map_err(|error| refuse(chain(&error).into_string()))?;
    }
    if store.is_empty() {
        return Err(refuse("it contains no PEM certificate".to_owned()));
    }
    Ok(store)
}

/// The webpki verifier, with errors that name the certificate.
#[derive(Debug)]
struct ExplainingVerifier {
    inner: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for ExplainingVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.inner
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(|error| match error {
                rustls::Error::InvalidCertificate(refusal) => {
                    let refusal = describe(&refusal, end_entity, intermediates, server_name);
                    CertificateError::Other(OtherError(Arc::new(refusal))).into()
                }
                other => other,
            })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Describes a refusal with details of the certificate. Runs on failure only.
fn describe(
    refusal: &CertificateError,
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    server_name: &ServerName<'_>,
) -> UpstreamTlsError {
    let Ok((_, leaf)) = X509Certificate::from_der(end_entity) else {
        return UpstreamTlsError::Certificate("it cannot be parsed".into());
    };
    match refusal {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            UpstreamTlsError::NameMismatch {
                expected: server_name.to_str().into_owned(),
                presented: names(&leaf),
            }
        }
        CertificateError::UnknownIssuer => {
            let last = intermediates
                .last()
                .and_then(|der| X509Certificate::from_der(der).ok());
            UpstreamTlsError::UnknownIssuer {
                subject: leaf.subject().to_string().into(),
                issuer: last
                    .map_or_else(
                        || leaf.issuer().to_string(),
                        |(_, last)| last.issuer().to_string(),
                    )
                    .into(),
            }
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => UpstreamTlsError::NotValidNow {
            subject: leaf.subject().to_string().into(),
            not_before: leaf.validity().not_before.to_string(),
            not_after: leaf.validity().not_after.to_string(),
        },
        other => UpstreamTlsError::Certificate(tls_words::of_certificate(other).into()),
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<ForeignText> {
    let sans = certificate.subject_alternative_name().ok().flatten();
    let names: Vec<ForeignText> = sans
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).into()),
            _ => None,
        })
        .collect();
    if names.is_empty() {
        vec!["no DNS name".into()]
    } else {
        names
    }
}

/// Lists the names of a certificate, which may have thousands.
fn listed(names: &[ForeignText]) -> String {
    let (first, rest) = names.split_at(names.len().min(MOST_NAMES));
    let first: Vec<&str> = first.iter().map(|name| &**name).collect();
    match rest.len() {
        0 => first.join(", "),
        more => format!("{} and {more} more names", first.join(", ")),
    }
}

/// Extracts the typed error from the layers that rustls and tokio-rustls wrap around it.
fn explain(error: io::Error) -> UpstreamTlsError {
    let Some(tls) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    else {
        return UpstreamTlsError::Io(Arc::new(error));
    };
    if let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(refusal))) = tls
        && let Some(refusal) = refusal.downcast_ref::<UpstreamTlsError>()
    {
        return refusal.clone();
    }
    UpstreamTlsError::Handshake(tls_words::in_words(tls).into())
}
