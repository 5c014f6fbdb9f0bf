//! Makes keys, certificates and kubeconfigs of a test cluster.
//!
//! Arguments: the folder for them, the name of the node, its address, the cluster IP of the API server, and the API server's URL.

use std::{env, fs, path::PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use serde_json::json;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [folder, node, address, service, server] = arguments.as_slice() else {
        anyhow::bail!("expected a folder, the node, its address, the cluster IP and the server's URL");
    };
    Pki { folder: folder.into() }.make(node, address, service, server)
}

/// The folder with all keys, certificates and kubeconfigs.
struct Pki {
    folder: PathBuf,
}

/// Subject of a certificate.
struct Subject<'a> {
    file: &'a str,
    name: &'a str,
    group: Option<&'a str>,
    /// DNS names and addresses of a server; empty for a client.
    serves: &'a [&'a str],
}

impl Pki {
    fn make(&self, node: &str, address: &str, service: &str, server: &str) -> Result<()> {
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("cannot create {}", self.folder.display()))?;
        let key = KeyPair::generate()?;
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "snug-test-cluster");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let certificate = authority.self_signed(&key)?;
        self.write("ca.crt", &certificate.pem())?;
        self.write("ca.key", &key.serialize_pem())?;
        let issuer = Issuer::new(authority, key);

        let accounts = KeyPair::generate()?;
        self.write("accounts.key", &accounts.serialize_pem())?;
        self.write("accounts.pub", &accounts.public_key_pem())?;

        let client = |file, name, group| Subject { file, name, group, serves: &[] };
        let node_name = format!("system:node:{node}");
        let of_server = ["localhost", "kubernetes", "kubernetes.default.svc", "127.0.0.1", service, address];
        let of_kubelet = [node, address, "127.0.0.1"];
        for subject in [
            Subject { file: "apiserver", name: "kube-apiserver", group: None, serves: &of_server },
            Subject { file: "kubelet-server", name: node, group: None, serves: &of_kubelet },
            client("apiserver-client", "apiserver-kubelet-client", Some("system:masters")),
            client("admin", "admin", Some("system:masters")),
            client("node", &node_name, Some("system:nodes")),
            client("kube-controller-manager", "system:kube-controller-manager", None),
            client("kube-scheduler", "system:kube-scheduler", None),
        ] {
            self.issue(&subject, &issuer)?;
        }
        for user in ["admin", "node", "kube-controller-manager", "kube-scheduler"] {
            self.kubeconfig(user, server)?;
        }
        Ok(())
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    fn issue(&self, subject: &Subject<'_>, issuer: &Issuer<'_, KeyPair>) -> Result<()> {
        let names: Vec<String> = subject.serves.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, subject.name);
        if let Some(group) = subject.group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![if subject.serves.is_empty() {
            ExtendedKeyUsagePurpose::ClientAuth
        } else {
            ExtendedKeyUsagePurpose::ServerAuth
        }];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, issuer)?;
        self.write(&format!("{}.crt", subject.file), &certificate.pem())?;
        self.write(&format!("{}.key", subject.file), &key.serialize_pem())
    }

    fn kubeconfig(&self, user: &str, server: &str) -> Result<()> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "test", "cluster": {
                "server": server, "certificate-authority": self.path("ca.crt"),
            } }],
            "users": [{ "name": user, "user": {
                "client-certificate": self.path(&format!("{user}.crt")),
                "client-key": self.path(&format!("{user}.key")),
            } }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": user } }],
            "current-context": "test",
        });
        self.write(&format!("{user}.conf"), &config.to_string())
    }

    fn write(&self, file: &str, content: &str) -> Result<()> {
        let path = self.path(file);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    }
}
