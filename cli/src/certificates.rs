//! `snug certificates`: an authority, a certificate for the agents and one for their clients.
//!
//! All agents share one certificate, in a Secret, under the name of their Service. A certificate made by each agent could be verified
//! only by whoever knows it from elsewhere, and publishing it would need a permission to write. The key of the authority is thrown
//! away, so nobody can issue further certificates: to replace one is to replace all.

use std::{
    fs::{self, OpenOptions},
    io::{IsTerminal as _, Write},
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use serde_json::json;

/// Options of `snug certificates`.
#[derive(Debug, Args)]
pub struct Options {
    /// Namespace of the agents
    #[arg(short = 'n', long, default_value = "snug", value_name = "NAMESPACE")]
    namespace: String,
    /// Further DNS name or IP address under which clients connect to agents; can be repeated
    #[arg(long, value_name = "NAME", value_parser = parse_host)]
    host: Vec<String>,
    /// How many days the certificates are valid
    #[arg(long, default_value_t = 1095, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36500))]
    days: u32,
    /// Write files to this folder, for hosts without a cluster, instead of printing Secrets
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// A DNS name, also with a wildcard for its first label, or an IP address.
fn parse_host(text: &str) -> Result<String, String> {
    let is_label = |label: &str| {
        let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        !label.is_empty() && label.len() <= 63 && label.chars().all(is_inner)
    };
    let is_name = text.len() <= 253 && text.strip_prefix("*.").unwrap_or(text).split('.').all(is_label);
    if is_name || text.parse::<IpAddr>().is_ok() {
        Ok(text.to_owned())
    } else {
        Err("neither a DNS name nor an IP address".to_owned())
    }
}

/// A certificate with its key, in PEM.
struct Pair {
    certificate: String,
    key: String,
}

/// The results, in PEM.
struct Certificates {
    authority: String,
    agent: Pair,
    client: Pair,
}

/// Makes certificates and prints or writes them.
///
/// # Errors
/// When a name is invalid, a file cannot be written, or private keys would be printed to a terminal.
pub fn run(options: &Options, out: &mut impl Write) -> Result<()> {
    let made = Certificates::make(options)?;
    if let Some(folder) = &options.directory {
        return made.write(folder);
    }
    if std::io::stdout().is_terminal() {
        bail!(
            "the output has private keys: send it to `kubectl apply -f -`, or write files with --directory"
        );
    }
    Ok(out.write_all(made.secrets(&options.namespace)?.as_bytes())?)
}

impl Certificates {
    fn make(options: &Options) -> Result<Self> {
        let from = SystemTime::now() - Duration::from_secs(3600);
        let until = from + Duration::from_secs(u64::from(options.days) * 86_400);
        let params = |name: &str, names: Vec<String>| -> Result<CertificateParams> {
            let mut params = CertificateParams::new(names)?;
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            (params.not_before, params.not_after) = (from.into(), until.into());
            Ok(params)
        };
        let key = KeyPair::generate()?;
        let mut authority = params("snug", Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = authority.self_signed(&key)?.pem();
        let issuer = Issuer::new(authority, key);
        let issue = |name: &str, names: Vec<String>, usage| -> Result<Pair> {
            let mut params = params(name, names)?;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            // An agent's certificate must not pass as that of a client.
            params.extended_key_usages = vec![usage];
            let key = KeyPair::generate()?;
            Ok(Pair { certificate: params.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem() })
        };
        let service = format!("snug-agent.{}.svc", options.namespace);
        let mut names = vec![service, "snug-agent".to_owned()];
        names.extend(options.host.iter().cloned());
        let agent = issue("snug-agent", names, ExtendedKeyUsagePurpose::ServerAuth)
            .with_context(|| format!("cannot make a certificate for {}", options.host.join(", ")))?;
        let client = issue("snug-client", Vec::new(), ExtendedKeyUsagePurpose::ClientAuth)?;
        Ok(Self { authority: certificate, agent, client })
    }

    /// The Secrets of `deploy/` as a list in YAML.
    fn secrets(&self, namespace: &str) -> Result<String> {
        let secret = |name: &str, pair: &Pair| {
            json!({
                "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
                "metadata": {
                    "name": name, "namespace": namespace, "labels": { "app.kubernetes.io/name": "snug-agent" },
                },
                "stringData": { "ca.crt": self.authority, "tls.crt": pair.certificate, "tls.key": pair.key },
            })
        };
        let items = [secret("snug-agent-tls", &self.agent), secret("snug-agent-client", &self.client)];
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
        serde_saphyr::to_string(&list).context("cannot write YAML")
    }

    fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        for (file, content, mode) in [
            ("ca.crt", &self.authority, 0o644),
            ("tls.crt", &self.agent.certificate, 0o644),
            ("tls.key", &self.agent.key, 0o600),
            ("client.crt", &self.client.certificate, 0o644),
            ("client.key", &self.client.key, 0o600),
        ] {
            let path = folder.join(file);
            let mut options = OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
            #[cfg(not(unix))]
            let _: u32 = mode;
            let written = options.open(&path).and_then(|mut file| file.write_all(content.as_bytes()));
            written.with_context(|| {
                format!("cannot write {}; files that exist are not replaced", path.display())
            })?;
        }
        Ok(())
    }
}
