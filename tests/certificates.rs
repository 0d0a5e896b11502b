//! Certificates of one test's own authority.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// An authority, and files of what it vouches for.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
}

/// The files of a certificate and its key.
pub struct Identity {
    /// The certificate.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

impl Authority {
    /// A new one, whose files are in `directory`.
    pub fn new(directory: &Path) -> Result<Self> {
        let mut params = CertificateParams::new([])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Self { issuer, directory: directory.to_owned() })
    }

    /// The file of its own certificate.
    pub fn file(&self) -> Result<PathBuf> {
        let path = self.directory.join("ca.pem");
        fs::write(&path, self.issuer.pem())?;
        Ok(path)
    }

    /// A certificate for `localhost`, in files of this name.
    pub fn identity(&self, name: &str) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(["localhost".to_owned()])?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let identity = Identity {
            cert: self.directory.join(format!("{name}.pem")),
            key: self.directory.join(format!("{name}.key")),
        };
        fs::write(&identity.cert, certificate.pem())?;
        fs::write(&identity.key, key.serialize_pem())?;
        Ok(identity)
    }
}
