//! Who is collected, and by which installation.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The text is not a GUID of the form `41463f53-8812-40f4-890f-865bf6e35190`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a GUID (expected the form 00000000-0000-0000-0000-000000000000)")]
pub struct NotAGuid {
    /// What was given instead.
    pub text: String,
}

macro_rules! guid {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a GUID.
            #[must_use]
            pub const fn new(guid: Uuid) -> Self {
                Self(guid)
            }

            /// The GUID as sixteen bytes, most significant first.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl FromStr for $name {
            type Err = NotAGuid;

            fn from_str(text: &str) -> Result<Self, NotAGuid> {
                // `Uuid` also reads forms without hyphens or with braces; the API and Entra ID print only this one.
                match Uuid::try_parse(text) {
                    Ok(guid) if text.len() == 36 => Ok(Self(guid)),
                    _ => Err(NotAGuid { text: text.to_owned() }),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NotAGuid;

            fn try_from(text: String) -> Result<Self, NotAGuid> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

guid! {
    /// A Microsoft 365 organisation, by its directory (tenant) id. Printed in lower case.
    TenantId
}

guid! {
    /// One ledger, by a random id that it was given when it was made. It tells this installation's marks at a
    /// destination from another's.
    LedgerId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_id_is_a_hyphenated_guid_in_any_case() {
        let id: TenantId = "41463F53-8812-40F4-890F-865BF6E35190".parse().unwrap();
        assert_eq!(id.to_string(), "41463f53-8812-40f4-890f-865bf6e35190");
        for bad in
            ["", "contoso.com", "41463f53881240f4890f865bf6e35190", "{41463f53-8812-40f4-890f-865bf6e35190}"]
        {
            assert!(bad.parse::<TenantId>().is_err(), "{bad}");
        }
    }
}
