//! TLS on both sides: self-signed towards local clients, verify-full towards the database.

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;

mod guess;
pub mod local;
pub mod roots;
pub mod upstream;
pub(crate) mod words;

/// The one crypto library of the program, named explicitly so that nothing depends on a process-wide
/// default.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}
