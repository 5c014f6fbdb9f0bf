//! The API server of the node: stopped and started again, and tokens that only its key can sign.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use procfs::process::{ProcState, Process};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use snug_tests::agent::eventually;

use crate::node::{Node, signal};

const NAME: &str = "kube-apiserver";
/// The file with the node's processes: name, pid and start time in each line.
const NOTES: &str = "processes";

/// An API server that has been killed. It starts again when the guard is dropped.
pub(crate) struct Stopped<'a> {
    node: &'a Node,
    /// Starts it as before.
    command: Option<Command>,
}

impl Node {
    /// Kills the API server.
    pub(crate) fn stop_api_server(&self) -> Result<Stopped<'_>> {
        let notes = fs::read_to_string(self.file(NOTES))?;
        let pid = notes.lines().find_map(|line| line.strip_prefix(NAME)?.trim_start().split(' ').next());
        let pid = pid.context("the API server is not noted")?;
        let process = Process::new(pid.parse()?)?;
        let log = File::options().append(true).open(self.file("log").join(NAME))?;
        let mut command = Command::new(process.exe()?);
        command.args(process.cmdline()?.get(1..).context("it has no arguments")?);
        command.env_clear().envs(process.environ()?).process_group(0);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        signal("KILL", pid)?;
        eventually(Duration::from_secs(10), "the API server has ended", || {
            let state = process.stat().ok().and_then(|stat| stat.state().ok());
            Ok(matches!(state, None | Some(ProcState::Zombie | ProcState::Dead)).then_some(()))
        })?;
        Ok(Stopped { node: self, command: Some(command) })
    }

    /// A token with other times: `expires` is in seconds from now, and may be negative. All else is as in `token`, and the signature is
    /// that of the cluster.
    pub(crate) fn signed_again(&self, token: &str, expires: i64) -> Result<String> {
        let parts: Vec<&str> = token.split('.').collect();
        let [_, claims, _] = parts.as_slice() else { return Err(anyhow!("no JWT")) };
        let mut claims: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims)?)?;
        ensure!(claims["exp"].is_i64(), "it has no expiry: {claims}");
        let expires = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())? + expires;
        claims["exp"] = expires.into();
        for time in ["iat", "nbf"] {
            claims[time] = (expires - 3600).into();
        }
        let encoded = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", encoded(&json!({ "alg": "ES256", "typ": "JWT" })), encoded(&claims));
        let key = PrivateKeyDer::from_pem_file(self.file("pki/accounts.key"))
            .map_err(|error| anyhow!("{error}"))?;
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_der(), &random);
        let signature = key.map_err(|error| anyhow!("{error}"))?.sign(&random, text.as_bytes());
        let signature = signature.map_err(|error| anyhow!("{error}"))?;
        Ok(format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl Stopped<'_> {
    /// Starts it again, and waits until it serves.
    pub(crate) fn start(mut self) -> Result<()> {
        self.start_once()?;
        let node = self.node;
        eventually(Duration::from_secs(60), "the API server is ready", || {
            Ok(node.kubectl(&["get", "--raw", "/readyz"]).ok())
        })?;
        Ok(())
    }

    fn start_once(&mut self) -> Result<()> {
        let Some(mut command) = self.command.take() else { return Ok(()) };
        let pid = command.spawn()?.id();
        let began = Process::new(pid.try_into()?)?.stat()?.starttime;
        // Whoever stops the node ends the processes that are noted.
        let notes = fs::read_to_string(self.node.file(NOTES))?;
        let lines = notes.lines().map(|line| match line.starts_with(NAME) {
            true => format!("{NAME} {pid} {began}\n"),
            false => format!("{line}\n"),
        });
        fs::write(self.node.file(NOTES), lines.collect::<String>())?;
        Ok(())
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.start_once() {
            eprintln!("the API server does not start again: {error:#}");
        }
    }
}
