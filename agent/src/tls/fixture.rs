//! Authorities and certificates for tests.

use std::{fs, path::Path, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub(crate) fn write(folder: &Path, file: &str, content: &str) {
    fs::write(folder.join(file), content).unwrap();
}

/// An authority for certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: rcgen::Certificate,
}

/// What a client presents.
#[derive(Clone)]
pub(crate) struct Identity(pub(crate) CertificateDer<'static>, pub(crate) Arc<PrivateKeyDer<'static>>);

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    pub(crate) fn issue(
        &self,
        usage: ExtendedKeyUsagePurpose,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, String, Identity) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["snug-agent".to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let identity = Identity(
            certificate.der().clone(),
            Arc::new(PrivateKeyDer::try_from(key.serialize_der()).unwrap()),
        );
        (certificate.pem(), key.serialize_pem(), identity)
    }

    pub(crate) fn client(&self) -> Identity {
        self.issue(ExtendedKeyUsagePurpose::ClientAuth, |_| {}).2
    }

    pub(crate) fn serve_from(&self, folder: &Path) {
        let (certificate, key, _) = self.issue(ExtendedKeyUsagePurpose::ServerAuth, |_| {});
        fs::write(folder.join("tls.crt"), certificate).unwrap();
        fs::write(folder.join("tls.key"), key).unwrap();
        fs::write(folder.join("ca.crt"), self.certificate.pem()).unwrap();
    }
}
