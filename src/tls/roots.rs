//! Amazon RDS certificate authorities compiled into the binary.
//!
//! See `certs/README.md` for their origin and the missing regions.

use std::sync::LazyLock;

use rustls::pki_types::{CertificateDer, pem::PemObject};

/// Roots of 27 regions, each with an RSA 2048, an RSA 4096 and an ECC 384 root.
const RDS_ROOTS_PEM: &str = include_str!("../../certs/rds-roots.pem");

static RDS_ROOTS: LazyLock<Vec<CertificateDer<'static>>> = LazyLock::new(|| {
    // A broken certificate would be a broken build; the test below counts them. At run time the
    // remaining ones are still useful.
    CertificateDer::pem_slice_iter(RDS_ROOTS_PEM.as_bytes())
        .filter_map(Result::ok)
        .collect()
});

/// Returns the embedded roots of RDS and Aurora, as DER; parsed once.
///
/// They are certificate authorities for database endpoints only: do not use them for AWS APIs.
pub fn rds_roots() -> Vec<CertificateDer<'static>> {
    RDS_ROOTS.clone()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use aws_smithy_types::date_time::{DateTime, Format};
    use x509_parser::prelude::*;

    use super::*;

    const ROOTS: usize = 81;

    fn sha256_hex(bytes: &[u8]) -> String {
        // The hash of a cipher suite, which avoids another crate for one test.
        let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
        let hash = suite.tls13().unwrap().common.hash_provider.hash(bytes);
        hash.as_ref().iter().map(|b| format!("{b:02x}")).collect()
    }

    fn signed_by_itself(cert: &X509Certificate<'_>) -> bool {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        provider
            .signature_verification_algorithms
            .all
            .iter()
            .any(|algorithm| {
                algorithm
                    .verify_signature(
                        &cert.public_key().subject_public_key.data,
                        cert.tbs_certificate.as_ref(),
                        &cert.signature_value.data,
                    )
                    .is_ok()
            })
    }

    /// Parses the comment lines of the file: subject, end and fingerprint.
    fn comments() -> Vec<(String, String, String)> {
        RDS_ROOTS_PEM
            .lines()
            .filter_map(|line| line.strip_prefix("# CN="))
            .map(|line| {
                let (cn, rest) = line.split_once(" notAfter=").unwrap();
                let (end, fingerprint) = rest.split_once(" sha256=").unwrap();
                (cn.to_owned(), end.to_owned(), fingerprint.to_owned())
            })
            .collect()
    }

    #[test]
    fn every_root_is_a_current_self_signed_authority() {
        let roots = rds_roots();
        assert_eq!(roots.len(), ROOTS);
        for der in &roots {
            let (rest, cert) = X509Certificate::from_der(der).unwrap();
            assert!(rest.is_empty());
            let name = cert.subject().to_string();
            assert_eq!(cert.subject(), cert.issuer(), "{name}");
            assert!(signed_by_itself(&cert), "{name}");
            assert!(cert.is_ca(), "{name}");
            assert!(cert.validity().is_valid(), "{name} has ended");
        }
    }

    #[test]
    fn altered_roots_are_noticed() {
        let (_, cert) = X509Certificate::from_der(&RDS_ROOTS[0]).unwrap();
        assert!(signed_by_itself(&cert));
        let mut der = RDS_ROOTS[0].to_vec();
        // A byte of the validity dates: the certificate still parses.
        let at = der.windows(4).position(|w| w == b"2121").unwrap() + 3;
        der[at] = b'2';
        let (_, cert) = X509Certificate::from_der(&der).unwrap();
        assert!(!signed_by_itself(&cert));
    }

    #[test]
    fn comments_say_what_the_certificates_are() {
        let comments = comments();
        assert_eq!(comments.len(), ROOTS);
        for ((cn, end, fingerprint), der) in comments.iter().zip(RDS_ROOTS.iter()) {
            let (_, cert) = X509Certificate::from_der(der).unwrap();
            let subject = cert.subject().iter_common_name().next().unwrap();
            assert_eq!(subject.as_str().unwrap(), cn);
            assert_eq!(&sha256_hex(der), fingerprint, "{cn}");
            let seconds = cert.validity().not_after.timestamp();
            let expected = DateTime::from_secs(seconds).fmt(Format::DateTime).unwrap();
            assert_eq!(end, &expected, "{cn}");
        }
    }

    #[test]
    fn each_region_has_its_three_roots_once() {
        let names: BTreeSet<String> = comments().into_iter().map(|(cn, _, _)| cn).collect();
        let fingerprints: BTreeSet<String> = comments().into_iter().map(|(_, _, f)| f).collect();
        assert_eq!((names.len(), fingerprints.len()), (ROOTS, ROOTS));
        for kind in ["RSA2048", "RSA4096", "ECC384"] {
            let end = format!(" Root CA {kind} G1");
            assert_eq!(names.iter().filter(|n| n.ends_with(&end)).count(), 27);
        }
        assert!(names.contains("Amazon RDS eu-central-1 Root CA RSA2048 G1"));
        assert!(
            !names
                .iter()
                .any(|n| n.contains("Beta") || n.contains("Preview"))
        );
    }

    #[test]
    fn readme_lists_the_same_fingerprints() {
        let readme = include_str!("../../certs/README.md");
        for (cn, end, fingerprint) in comments() {
            let row = format!("| {cn} | {end} | `{fingerprint}` |");
            assert!(readme.contains(&row), "{row}");
        }
        let rows = readme.matches("| Amazon RDS ").count();
        assert_eq!(rows, ROOTS);
    }

    #[test]
    fn rustls_takes_all_of_them() {
        let mut store = rustls::RootCertStore::empty();
        assert_eq!(store.add_parsable_certificates(rds_roots()), (ROOTS, 0));
    }
}
