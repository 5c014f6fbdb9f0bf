//! A headless Chromium, driven over its DevTools protocol.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

/// Debian's program.
const PROGRAM: &str = "chromium";
/// Nothing takes as long, not even on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(90);

/// A browser with one page. It ends with this value.
pub struct Browser {
    process: Child,
    socket: WebSocket<TcpStream>,
    session: String,
    sent: u64,
    /// Events of the page so far: method and parameters.
    events: Vec<(String, Value)>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts the browser.
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub fn start() -> Result<Self> {
        let profile = tempfile::tempdir()?;
        let mut process = Command::new(PROGRAM)
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
            ])
            .args(["--disable-extensions", "--hide-scrollbars", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {PROGRAM}; run `cargo xtask setup browser`"))?;
        let log = BufReader::new(process.stderr.take().context("no log")?);
        let mut lines = log.lines();
        let address = loop {
            let line = lines.next().context("the browser ended")??;
            if let Some((_, address)) = line.split_once("DevTools listening on ") {
                break address.to_owned();
            }
        };
        // The log must be read, or the browser stops when its pipe is full.
        std::thread::spawn(move || lines.for_each(drop));
        let host = address.strip_prefix("ws://").and_then(|it| it.split('/').next()).context("no address")?;
        let stream = TcpStream::connect(host)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let (socket, _) = tungstenite::client(address.as_str(), stream)
            .map_err(|error| anyhow!("no handshake: {error}"))?;
        let (session, events) = (String::new(), Vec::new());
        let mut browser = Self { process, socket, session, sent: 0, events, _profile: profile };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }))?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", &attach)?;
        attached["sessionId"].as_str().context("no session")?.clone_into(&mut browser.session);
        for domain in ["Page", "Runtime", "Network", "Log"] {
            browser.call(&format!("{domain}.enable"), &json!({}))?;
        }
        Ok(browser)
    }

    /// Calls a method of the protocol and returns its result.
    ///
    /// # Errors
    /// When the browser does not answer, or with an error.
    pub fn call(&mut self, method: &str, parameters: &Value) -> Result<Value> {
        self.sent += 1;
        let id = self.sent;
        let mut request = json!({ "id": id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            request["sessionId"] = self.session.as_str().into();
        }
        self.socket.send(Message::text(request.to_string()))?;
        loop {
            let answer = self.receive()?;
            if answer["id"] == id {
                ensure!(answer.get("error").is_none(), "{method}: {}", answer["error"]);
                return Ok(answer["result"].clone());
            }
        }
    }

    fn receive(&mut self) -> Result<Value> {
        let message = self.socket.read().context("the browser does not answer")?;
        let answer: Value = serde_json::from_str(message.to_text()?)?;
        if let Some(method) = answer["method"].as_str() {
            self.events.push((method.to_owned(), answer["params"].clone()));
        }
        Ok(answer)
    }

    /// Opens a file and waits until it is loaded.
    ///
    /// # Errors
    /// When it is not loaded.
    pub fn open(&mut self, file: &Path) -> Result<()> {
        self.events.clear();
        let url = format!("file://{}", file.display());
        self.call("Page.navigate", &json!({ "url": url }))?;
        let started = Instant::now();
        while !self.events.iter().any(|(method, _)| method == "Page.loadEventFired") {
            ensure!(started.elapsed() < TIMEOUT, "{url} is not loaded");
            self.receive()?;
        }
        Ok(())
    }

    /// Events of the page since it was opened, by the name of their method.
    pub fn events(&self, method: &str) -> Vec<&Value> {
        self.events.iter().filter(|(name, _)| name == method).map(|(_, parameters)| parameters).collect()
    }

    /// The value of an expression of JavaScript; of a promise, when it is kept.
    ///
    /// # Errors
    /// When the expression throws.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.call("Runtime.evaluate", &parameters)?;
        if let Some(thrown) = result.get("exceptionDetails") {
            bail!("{thrown}");
        }
        Ok(result["result"]["value"].clone())
    }

    /// Sets the size of the page, its colours (`light` or `dark`) and its medium (`screen` or `print`).
    ///
    /// # Errors
    /// When the browser refuses.
    pub fn show(&mut self, size: (u32, u32), colors: &str, medium: &str) -> Result<()> {
        let (width, height) = size;
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", &metrics)?;
        let features = json!([{ "name": "prefers-color-scheme", "value": colors }]);
        self.call("Emulation.setEmulatedMedia", &json!({ "media": medium, "features": features }))?;
        Ok(())
    }

    /// Presses and releases a key, such as `ArrowRight` with the code 39.
    ///
    /// # Errors
    /// When the browser refuses.
    pub fn press(&mut self, key: &str, code: u32) -> Result<()> {
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let event =
                json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text });
            self.call("Input.dispatchKeyEvent", &event)?;
        }
        Ok(())
    }

    /// Writes a picture of the page.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn picture(&mut self, file: &Path) -> Result<()> {
        let picture = self.call("Page.captureScreenshot", &json!({ "format": "png" }))?;
        let bytes = STANDARD.decode(picture["data"].as_str().context("no picture")?)?;
        fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))
    }

    /// The bytes of the printed page.
    ///
    /// # Errors
    /// When it cannot be printed.
    pub fn printed(&mut self) -> Result<Vec<u8>> {
        let printed = self.call("Page.printToPDF", &json!({}))?;
        Ok(STANDARD.decode(printed["data"].as_str().context("no document")?)?)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its own children end with it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
