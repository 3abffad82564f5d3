//! Types for the names that travel together as text, so that the compiler notices swapped arguments.
//!
//! Each one dereferences to `str` and clones without a copy of the text. Conversion from text is
//! explicit; the caller has validated the text.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! names {
    ($($(#[$meta:meta])* $name:ident;)*) => {$(
        $(#[$meta])*
        #[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Returns the text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl From<&$name> for String {
            fn from(name: &$name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                Self::from(&name)
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }

        impl PartialEq<String> for $name {
            fn eq(&self, other: &String) -> bool {
                *self.0 == **other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                &*self.0 == *other
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    )*};
}

names! {
    /// Name of an AWS region, such as `eu-central-1`.
    Region;
    /// Target of a Session Manager session (SSM API Reference, `StartSession`, `Target`): the id of
    /// a managed node, `i-…` or `mi-…`, or a container, `ecs:CLUSTER_TASK_RUNTIME`.
    NodeId;
    /// Id of a Session Manager session (SSM API Reference, `StartSession`, `SessionId`).
    SessionId;
    /// Name of a target, as in `[targets.NAME]`.
    TargetName;
}
