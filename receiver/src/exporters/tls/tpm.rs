//! `tpm`: a key in a Trusted Platform Module. There is no support for one.

use serde::{Deserialize, Serialize};

use crate::config::{Mistakes, Secret};

/// `tpm`, which must be off.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tpm {
    /// Whether the key is there.
    pub enabled: bool,
    /// The device.
    pub path: String,
    /// What opens its hierarchy.
    pub owner_auth: Secret,
    /// What opens the key.
    pub auth: Secret,
}

impl Tpm {
    /// Whether it is off.
    pub fn is_off(&self) -> bool {
        !self.enabled
    }

    /// It must be off.
    pub fn check(&self) -> Mistakes {
        let mut wrong = Mistakes::default();
        let message = "a key in a TPM cannot be had: give `key_file` or `key_pem`";
        wrong.require(self.is_off(), "enabled", message);
        wrong
    }
}
