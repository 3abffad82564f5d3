//! The files in which the AWS CLI keeps logins and short-lived keys.
//!
//! Three directories below `~/.aws`: `sso/cache` (tokens and client registrations of IAM Identity
//! Center), `cli/cache` (keys of roles) and `login/cache` (logins of `aws login`);
//! [`cache_dir`](crate::cache_dir) gives their paths. The AWS CLI neither locks nor replaces these
//! files, it overwrites them in place: a reader may meet a part of a file
//! ([`CacheFault::may_be_partial`]). A writer must write another file and rename it.
//!
//! Names and formats: observed in AWS CLI 2.36, and read in botocore 1.44.

mod credentials;
mod json;
mod login_token;
mod name;
mod registration;
mod secret;
mod sso_token;

pub use credentials::{AssumedRole, CLI_MARGIN, CachedCredentials, PERSON_MARGIN};
pub use json::{CacheFault, MAX_CACHE_FILE_BYTES, UnknownKeys};
pub use login_token::LoginToken;
pub use name::{SsoCacheKey, session_token_file};
pub use registration::{GrantKind, Registration};
pub use secret::SecretText;
pub use sso_token::{
    Freshness, NewAccess, NotRefreshable, REFRESH_WINDOW, RefreshGrant, SsoAccess, SsoToken,
};
