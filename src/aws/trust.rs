//! Certificate authorities trusted for AWS, and an HTTP client that uses them.

use std::path::Path;
use std::sync::Arc;

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, ConnectorBuilder};
use aws_smithy_types::base64;
use aws_types::sdk_config::SharedHttpClient;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::{CredentialsError, files};
use crate::base::foreign_text::ForeignText;

/// Trust of one context: the same roots for the SDK's HTTPS and for the WebSocket.
#[derive(Clone, Debug)]
pub(super) struct TrustRoots {
    /// Client for AWS services.
    pub(super) http: SharedHttpClient,
    /// Client for services on this machine only, such as the EC2 metadata: a proxy cannot reach
    /// them, and none should see the credentials in their answers.
    pub(super) local_http: SharedHttpClient,
    pub(super) roots: Arc<RootCertStore>,
}

/// Trusts the certificates of `bundle` and no others, as the AWS CLI does with `AWS_CA_BUNDLE` (the
/// Rust SDK does not know that variable); without a bundle, those of the operating system.
///
/// # Errors
/// [`CredentialsError::CaBundle`] when the file cannot be read or contains no usable certificate.
pub(super) async fn load(bundle: Option<&Path>) -> Result<TrustRoots, CredentialsError> {
    let certificates = match bundle {
        Some(path) => from_file(path).await?,
        None => from_system().await,
    };
    let (roots, accepted) = usable(certificates);
    match bundle {
        Some(path) if accepted.is_empty() => {
            return Err(unusable(path, "it contains no valid CA certificate"));
        }
        None if accepted.is_empty() => tracing::warn!(
            "found no CA certificates on this system, so connections to AWS will fail; install \
             them (package ca-certificates) or set AWS_CA_BUNDLE"
        ),
        _ => {}
    }
    let tls = tls_context(&accepted);
    Ok(TrustRoots {
        http: http_client(tls.clone(), ProxyConfig::from_env()),
        local_http: http_client(tls, ProxyConfig::disabled()),
        roots: Arc::new(roots),
    })
}

fn unusable(path: &Path, reason: impl Into<ForeignText>) -> CredentialsError {
    CredentialsError::CaBundle {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

async fn from_file(path: &Path) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let bytes = files::read(path)
        .await
        .map_err(|reason| unusable(path, reason))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let certificates =
        certificates.map_err(|error| unusable(path, format!("it is not valid PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(unusable(path, "it contains no PEM certificate"));
    }
    Ok(certificates)
}

async fn from_system() -> Vec<CertificateDer<'static>> {
    // Reads a hundred files on some systems, and queries the keychain on others.
    let loaded = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await;
    let Ok(loaded) = loaded else {
        return Vec::new();
    };
    for error in &loaded.errors {
        tracing::debug!(%error, "cannot load a CA certificate of this system");
    }
    loaded.certs
}

/// Returns the certificates that rustls accepts as roots. Real bundles contain single certificates
/// that it does not accept; the others stay usable.
fn usable(
    certificates: Vec<CertificateDer<'static>>,
) -> (RootCertStore, Vec<CertificateDer<'static>>) {
    let mut roots = RootCertStore::empty();
    let mut accepted = Vec::with_capacity(certificates.len());
    for certificate in certificates {
        match roots.add(certificate.clone()) {
            Ok(()) => accepted.push(certificate),
            Err(error) => tracing::debug!(%error, "ignored an invalid CA certificate"),
        }
    }
    (roots, accepted)
}

/// Creates the SDK's TLS context. The SDK takes roots as PEM only and panics on text that it cannot
/// parse, so the accepted certificates are encoded again.
fn tls_context(roots: &[CertificateDer<'static>]) -> TlsContext {
    let mut store = TrustStore::empty();
    for root in roots {
        store.add_pem_certificate(pem(root));
    }
    // `build` is fallible in its signature only; the default context trusts the system's roots.
    TlsContext::builder()
        .with_trust_store(store)
        .build()
        .unwrap_or_default()
}

/// Creates an HTTP client like the SDK's default one (rustls on aws-lc), but with these roots and
/// proxies.
fn http_client(tls: TlsContext, proxy: ProxyConfig) -> SharedHttpClient {
    // Not `build_https`: that one ignores HTTPS_PROXY.
    Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = ConnectorBuilder::default()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(tls.clone())
            .proxy_config(proxy.clone());
        connector.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            connector.set_sleep_impl(components.sleep_impl());
        }
        connector.build()
    })
}

fn pem(der: &CertificateDer<'_>) -> Vec<u8> {
    const LINE: usize = 64; // RFC 7468, section 2
    let text = base64::encode(der);
    let mut out = b"-----BEGIN CERTIFICATE-----\n".to_vec();
    for line in text.as_bytes().chunks(LINE) {
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.extend_from_slice(b"-----END CERTIFICATE-----\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::roots::rds_roots;

    fn write(dir: &tempfile::TempDir, content: &[u8]) -> std::path::PathBuf {
        let path = dir.path().join("bundle.pem");
        std::fs::write(&path, content).unwrap();
        path
    }

    async fn refusal(content: &[u8]) -> String {
        let dir = tempfile::tempdir().unwrap();
        match load(Some(&write(&dir, content))).await {
            Err(CredentialsError::CaBundle { reason, .. }) => reason.into(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_bundle_replaces_the_roots_of_the_system() {
        let dir = tempfile::tempdir().unwrap();
        let two: Vec<u8> = rds_roots()[..2].iter().flat_map(|der| pem(der)).collect();
        let trust = load(Some(&write(&dir, &two))).await.unwrap();
        assert_eq!(trust.roots.len(), 2);
    }

    #[tokio::test]
    async fn one_bad_certificate_does_not_spoil_a_bundle() {
        let dir = tempfile::tempdir().unwrap();
        let mut bundle = pem(&CertificateDer::from(vec![0x30, 0x00]));
        bundle.extend(pem(&rds_roots()[0]));
        let trust = load(Some(&write(&dir, &bundle))).await.unwrap();
        assert_eq!(trust.roots.len(), 1);
    }

    #[tokio::test]
    async fn unusable_bundles_are_refused_with_the_reason() {
        assert_eq!(refusal(b"").await, "it contains no PEM certificate");
        assert_eq!(refusal(b"hello\n").await, "it contains no PEM certificate");
        let cut = b"-----BEGIN CERTIFICATE-----\nMIIC\n";
        assert!(refusal(cut).await.starts_with("it is not valid PEM: "));
        let no_root = pem(&CertificateDer::from(vec![0x30, 0x00]));
        assert_eq!(
            refusal(&no_root).await,
            "it contains no valid CA certificate"
        );
    }

    #[tokio::test]
    async fn a_missing_bundle_is_named() {
        let error = load(Some(Path::new("/nonexistent/ca.pem")))
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot use the CA bundle /nonexistent/ca.pem: No such file or directory (os error 2)"
        );
    }
}
