//! A real browser without a window: Chromium, driven by its DevTools protocol over a WebSocket.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::judge;
use super::program::starting;

/// Time for the start and for one command, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
/// Time between two looks at a page.
const LOOK: Duration = Duration::from_millis(50);
/// Time that Chromium has for its end.
const END: Duration = Duration::from_secs(10);

/// Switches for a run that is alone on the machine, as root, and leaves nothing behind.
const SWITCHES: [&str; 12] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=900,700",
    "--remote-debugging-port=0",
];

/// A running browser with one page.
pub struct Browser {
    child: Child,
    socket: WebSocketStream<TcpStream>,
    session: String,
    commands: u64,
    /// Faults that pages met, and addresses that they requested, since [`Browser::record`].
    faults: Vec<String>,
    requests: Vec<String>,
    // Last, so that the profile outlives the process.
    _profile: TempDir,
}

impl Browser {
    /// Starts Chromium. `None`, and a word about it, where it is not installed; see
    /// [`judge::find`]. It trusts the certificate with the key of `pin`, beside those that everyone
    /// trusts; see [`crate::aws::sandbox::Sandbox::certificate_pin`].
    ///
    /// # Errors
    /// When the program does not start or does not listen in time.
    pub async fn start(pin: &str) -> anyhow::Result<Option<Self>> {
        match judge::find("PGIAM_CHROMIUM", "Chromium") {
            Some(program) => Self::start_program(&program, pin).await.map(Some),
            None => Ok(None),
        }
    }

    async fn start_program(program: &Path, pin: &str) -> anyhow::Result<Self> {
        let profile = tempfile::Builder::new()
            .prefix("pgiam-browser-")
            .tempdir()
            .context("making the browser's profile")?;
        let mut child = Command::new(program)
            .args(SWITCHES)
            .arg(format!("--ignore-certificate-errors-spki-list={pin}"))
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| starting(program))?;
        let url = timeout(DEADLINE, devtools_url(&mut child)).await;
        let url = url.context("the browser does not listen")??;
        let address = url.strip_prefix("ws://").context("the browser's address")?;
        let address = address.split('/').next().unwrap_or_default();
        let stream = TcpStream::connect(address).await?;
        let (socket, _) = tokio_tungstenite::client_async(&url, stream).await?;
        let mut browser = Self {
            child,
            socket,
            session: String::new(),
            commands: 0,
            faults: Vec::new(),
            requests: Vec::new(),
            _profile: profile,
        };
        let new = json!({ "url": "about:blank" });
        let target = browser.command("Target.createTarget", new).await?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.command("Target.attachToTarget", attach).await?;
        let session = attached["sessionId"].as_str().context("no session")?;
        session.clone_into(&mut browser.session);
        Ok(browser)
    }

    /// Opens an address.
    ///
    /// # Errors
    /// When the page cannot be loaded; the text has Chromium's reason.
    pub async fn open(&mut self, url: &str) -> anyhow::Result<()> {
        let answer = self.command("Page.navigate", json!({ "url": url })).await?;
        match answer["errorText"].as_str() {
            None | Some("") => Ok(()),
            Some(fault) => bail!("{url}: {fault}"),
        }
    }

    /// Waits until the page shows `text`, and returns all that it shows.
    ///
    /// # Errors
    /// When it does not in time; the error has the page's text.
    pub async fn wait_text(&mut self, text: &str) -> anyhow::Result<String> {
        let mut shown = String::new();
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while tokio::time::Instant::now() < deadline {
            // Between two pages there is no body.
            let script = "document.body ? document.body.innerText : ''";
            if let Ok(Value::String(now)) = self.evaluate(script).await {
                if now.contains(text) {
                    return Ok(now);
                }
                shown = now;
            }
            tokio::time::sleep(LOOK).await;
        }
        bail!("the page does not show {text:?}: {shown:?}")
    }

    /// Presses the left mouse button on the first element that matches a CSS selector.
    ///
    /// # Errors
    /// When there is no such element.
    pub async fn click(&mut self, selector: &str) -> anyhow::Result<()> {
        let script = format!(
            "(() => {{ const e = document.querySelector({}); \
             e.scrollIntoView({{ block: 'nearest' }}); const r = e.getBoundingClientRect(); \
             return [r.x + r.width / 2, r.y + r.height / 2]; }})()",
            json!(selector)
        );
        let point = self.evaluate(&script).await?;
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({
                "type": kind,
                "x": point[0],
                "y": point[1],
                "button": "left",
                "clickCount": 1,
            });
            self.command("Input.dispatchMouseEvent", event).await?;
        }
        Ok(())
    }

    /// The address of the page.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn address(&mut self) -> anyhow::Result<String> {
        let address = self.evaluate("location.href").await?;
        Ok(address.as_str().unwrap_or_default().to_owned())
    }

    /// A picture of the page, as PNG.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn screenshot(&mut self) -> anyhow::Result<Vec<u8>> {
        let answer = self.command("Page.captureScreenshot", json!({})).await?;
        let data = answer["data"].as_str().context("no picture")?;
        Ok(BASE64_STANDARD.decode(data)?)
    }

    /// Records from now on what pages request, and what goes wrong in them.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn record(&mut self) -> anyhow::Result<()> {
        for domain in ["Runtime", "Log", "Network"] {
            self.command(&format!("{domain}.enable"), json!({})).await?;
        }
        Ok(())
    }

    /// Errors on the console and uncaught exceptions so far.
    #[must_use]
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// Addresses that pages have requested so far.
    #[must_use]
    pub fn requests(&self) -> &[String] {
        &self.requests
    }

    /// Returns the role and the name of each element that assistive technology finds, as
    /// `role "name"`.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn accessible(&mut self) -> anyhow::Result<Vec<String>> {
        let tree = self
            .command("Accessibility.getFullAXTree", json!({}))
            .await?;
        let nodes = tree["nodes"].as_array().context("no tree")?.iter();
        let seen = nodes.filter(|node| node["ignored"] != true);
        let text = |value: &Value| value["value"].as_str().unwrap_or_default().to_owned();
        let described =
            seen.map(|node| format!("{} {:?}", text(&node["role"]), text(&node["name"])));
        Ok(described.collect())
    }

    /// Sets the width of the page, and the colour scheme (`light` or `dark`) of its user.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn look(&mut self, width: u32, scheme: &str) -> anyhow::Result<()> {
        let size = json!({
            "width": width,
            "height": 900,
            "deviceScaleFactor": 1,
            "mobile": false,
        });
        self.command("Emulation.setDeviceMetricsOverride", size)
            .await?;
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        let media = json!({ "features": features });
        self.command("Emulation.setEmulatedMedia", media).await?;
        Ok(())
    }

    /// Presses and releases a key: one character, or a name such as `Escape`.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn press(&mut self, key: &str) -> anyhow::Result<()> {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            "End" => 35,
            "Home" => 36,
            "ArrowLeft" => 37,
            "ArrowRight" => 39,
            _ => 0,
        };
        let mut event = json!({ "type": "keyDown", "key": key, "windowsVirtualKeyCode": code });
        if code == 0 {
            event["text"] = json!(key);
        } else if key == "Enter" {
            event["text"] = json!("\r");
        }
        self.command("Input.dispatchKeyEvent", event.clone())
            .await?;
        event["type"] = json!("keyUp");
        self.command("Input.dispatchKeyEvent", event).await?;
        Ok(())
    }

    /// Evaluates a script again and again until its value is true in JavaScript's sense, and returns
    /// it.
    ///
    /// # Errors
    /// When it does not become true in time; the error has the page's text.
    pub async fn wait_for(&mut self, script: &str) -> anyhow::Result<Value> {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        let mut last = Value::Null;
        while tokio::time::Instant::now() < deadline {
            match self.evaluate(script).await {
                Ok(value) if is_true(&value) => return Ok(value),
                Ok(value) => last = value,
                Err(error) => last = Value::String(error.to_string()),
            }
            tokio::time::sleep(LOOK).await;
        }
        let text = self.evaluate("document.body.innerText").await;
        bail!("{script} is {last}; the page shows {text:?}")
    }

    /// Ends the browser.
    ///
    /// # Errors
    /// When it does not end in time; it is killed then.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.session.clear();
        // It may be gone before it has answered.
        let _ = self.command("Browser.close", json!({})).await;
        if timeout(END, self.child.wait()).await.is_err() {
            self.child.kill().await?;
            bail!("the browser does not end");
        }
        Ok(())
    }

    /// Evaluates a script and returns its value, after the promise if it is one.
    ///
    /// # Errors
    /// When it throws.
    pub async fn evaluate(&mut self, script: &str) -> anyhow::Result<Value> {
        let input = json!({ "expression": script, "returnByValue": true, "awaitPromise": true });
        let answer = self.command("Runtime.evaluate", input).await?;
        if !answer["exceptionDetails"].is_null() {
            bail!("{script}: {}", answer["exceptionDetails"]);
        }
        Ok(answer["result"]["value"].clone())
    }

    /// Sends a command, to the page if it is attached, and waits for its answer. Events before it are
    /// noted.
    async fn command(&mut self, method: &str, params: Value) -> anyhow::Result<Value> {
        self.commands += 1;
        let id = self.commands;
        let mut command = json!({ "id": id, "method": method, "params": params });
        if !self.session.is_empty() {
            command["sessionId"] = json!(self.session);
        }
        let exchange = async {
            self.socket.send(Message::text(command.to_string())).await?;
            loop {
                let message = self
                    .socket
                    .next()
                    .await
                    .context("the browser has ended")??;
                let Message::Text(text) = message else {
                    continue;
                };
                let mut answer: Value = serde_json::from_str(&text)?;
                if answer["id"] != id {
                    note(&answer, &mut self.faults, &mut self.requests);
                    continue;
                }
                if !answer["error"].is_null() {
                    bail!("{method}: {}", answer["error"]["message"]);
                }
                return Ok(answer["result"].take());
            }
        };
        let answer = timeout(DEADLINE, exchange).await;
        answer.with_context(|| format!("{method}: no answer"))?
    }
}

/// Keeps an event of the page if it is a fault or a request.
fn note(event: &Value, faults: &mut Vec<String>, requests: &mut Vec<String>) {
    let params = &event["params"];
    match event["method"].as_str() {
        Some("Runtime.exceptionThrown") => {
            faults.push(params["exceptionDetails"].to_string());
        }
        Some("Log.entryAdded") if params["entry"]["level"] == "error" => {
            faults.push(params["entry"].to_string());
        }
        Some("Runtime.consoleAPICalled") if params["type"] == "error" => {
            faults.push(params["args"].to_string());
        }
        Some("Network.requestWillBeSent") => {
            let url = params["request"]["url"].as_str();
            requests.extend(url.map(str::to_owned));
        }
        _ => {}
    }
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(it) => *it,
        Value::Number(it) => it.as_f64() != Some(0.0),
        Value::String(it) => !it.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

/// Reads the address of the DevTools from what Chromium writes at its start.
async fn devtools_url(child: &mut Child) -> anyhow::Result<String> {
    let stderr = child.stderr.take().context("the browser's output")?;
    let mut lines = BufReader::new(stderr).lines();
    let mut all = Vec::new();
    while let Some(line) = lines.next_line().await? {
        if let Some(url) = line.strip_prefix("DevTools listening on ") {
            let url = url.trim().to_owned();
            // Chromium stops when it cannot write.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok(url);
        }
        all.push(line);
    }
    bail!("the browser ended at its start: {}", all.join("\n"))
}
