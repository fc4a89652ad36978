//! A headless Chromium, driven through chromedriver (WebDriver): pages are opened, asked and photographed.

mod driver;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use driver::Driver;

/// Where Debian's packages chromium and chromium-driver put their programs.
const CHROMIUM: &str = "/usr/bin/chromium";
const CHROMEDRIVER: &str = "/usr/bin/chromedriver";

/// The key by which WebDriver names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// How long a script or a page may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running browser with one window. Dropping it ends it.
#[derive(Debug)]
pub struct Browser {
    driver: Driver,
    profile: TempDir,
}

/// One line of the browser's console: what scripts wrote, failed requests, violations of a page's policy.
#[derive(Clone, Debug)]
pub struct ConsoleLine {
    /// `SEVERE`, `WARNING` or `INFO`.
    pub level: String,
    /// What it says, with where it comes from.
    pub message: String,
}

/// What the browser tells about an element to those who do not see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// Its role, like `button`.
    pub role: String,
    /// Its name.
    pub label: String,
}

impl Browser {
    /// Why there is no browser here, if there is none.
    #[must_use]
    pub fn missing() -> Option<String> {
        let missing: Vec<&str> = [CHROMIUM, CHROMEDRIVER]
            .into_iter()
            .filter(|program| !Path::new(program).exists())
            .collect();
        (!missing.is_empty()).then(|| {
            format!(
                "no {}; install the Debian packages chromium and chromium-driver",
                missing.join(" and no ")
            )
        })
    }

    /// Starts one, with a window of 1,280 × 900.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start() -> Result<Self> {
        let profile = tempfile::Builder::new()
            .prefix("wanproxy-browser-")
            .tempdir()?;
        let driver = Driver::start(Path::new(CHROMEDRIVER)).await?;
        let mut browser = Self { driver, profile };
        let data = format!("--user-data-dir={}", browser.profile.path().display());
        let options = json!({
            "binary": CHROMIUM,
            "args": [
                "--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--force-color-profile=srgb", "--window-size=1280,900", data,
                // Root has no sandbox; the only pages opened are this test's own.
                "--no-sandbox",
            ],
        });
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
            "timeouts": {"script": PATIENCE.as_millis(), "pageLoad": PATIENCE.as_millis()},
        }}});
        browser.driver.begin(&wanted).await?;
        Ok(browser)
    }

    /// Opens `url` and waits until it is loaded.
    ///
    /// # Errors
    /// It cannot be loaded.
    pub async fn open(&self, url: &str) -> Result<()> {
        self.driver.post("url", &json!({"url": url})).await?;
        Ok(())
    }

    /// Runs `script`, the body of a function, and returns what it returns.
    ///
    /// # Errors
    /// It throws.
    pub async fn script(&self, script: &str) -> Result<Value> {
        self.driver
            .post("execute/sync", &json!({"script": script, "args": []}))
            .await
    }

    /// What `script` returns, which is text.
    ///
    /// # Errors
    /// It throws, or returns something else.
    pub async fn text(&self, script: &str) -> Result<String> {
        let value = self.script(script).await?;
        let text = value.as_str().map(str::to_owned);
        text.with_context(|| format!("{script} gave {value}"))
    }

    /// Presses and releases a key: a character, or one of WebDriver's code points for keys.
    ///
    /// # Errors
    /// The browser does not take it.
    pub async fn press(&self, key: char) -> Result<()> {
        let key = key.to_string();
        let actions = json!({"actions": [{"type": "key", "id": "keyboard", "actions": [
            {"type": "keyDown", "value": key}, {"type": "keyUp", "value": key},
        ]}]});
        self.driver.post("actions", &actions).await?;
        Ok(())
    }

    /// Role and name of each element that `selector` finds, as the browser computes them for assistive technology.
    ///
    /// # Errors
    /// The selector is wrong, or an element goes away meanwhile.
    pub async fn spoken(&self, selector: &str) -> Result<Vec<Spoken>> {
        let by = json!({"using": "css selector", "value": selector});
        let found = self.driver.post("elements", &by).await?;
        let mut spoken = Vec::new();
        for element in found.as_array().into_iter().flatten() {
            let id = element[ELEMENT].as_str().context("no element")?;
            let said = async |what: &str| {
                let value = self.driver.get(&format!("element/{id}/{what}")).await?;
                anyhow::Ok(value.as_str().unwrap_or_default().to_owned())
            };
            spoken.push(Spoken {
                role: said("computedrole").await?,
                label: said("computedlabel").await?,
            });
        }
        Ok(spoken)
    }

    /// A command of the DevTools protocol.
    ///
    /// # Errors
    /// The browser refuses it.
    pub async fn devtools(&self, command: &str, parameters: &Value) -> Result<Value> {
        let body = json!({"cmd": command, "params": parameters});
        self.driver.post("goog/cdp/execute", &body).await
    }

    /// From now on the window is so wide and high, in CSS pixels.
    ///
    /// # Errors
    /// The browser refuses it.
    pub async fn resize(&self, width: u32, height: u32, scale: f64) -> Result<()> {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600});
        self.devtools("Emulation.setDeviceMetricsOverride", &size)
            .await?;
        Ok(())
    }

    /// From now on pages are told that people prefer `scheme`, `light` or `dark`.
    ///
    /// # Errors
    /// The browser refuses it.
    pub async fn prefer(&self, scheme: &str) -> Result<()> {
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", &media).await?;
        Ok(())
    }

    /// What the console said since it was asked last, but for what the browser says of its own pages: it begins with one, and may miss the network.
    ///
    /// # Errors
    /// The browser does not answer.
    pub async fn console(&self) -> Result<Vec<ConsoleLine>> {
        let lines = self
            .driver
            .post("se/log", &json!({"type": "browser"}))
            .await?;
        let lines = lines.as_array().into_iter().flatten();
        let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
        Ok(lines
            .map(|line| ConsoleLine {
                level: text(line, "level"),
                message: text(line, "message"),
            })
            .filter(|line| !line.message.starts_with("chrome:"))
            .collect())
    }

    /// What the window shows, as PNG.
    ///
    /// # Errors
    /// The browser gives no picture.
    pub async fn picture(&self) -> Result<Vec<u8>> {
        let text = self.driver.get("screenshot").await?;
        let picture = STANDARD.decode(text.as_str().context("no picture")?)?;
        if !picture.starts_with(b"\x89PNG") {
            bail!("the picture is no PNG");
        }
        Ok(picture)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.driver.end();
        // A browser that did not begin or does not end: its processes are those that name this profile.
        let profile = self.profile.path().as_os_str().as_encoded_bytes();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let id = entry.file_name().to_str().and_then(|id| id.parse().ok());
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let is_ours = command
                .windows(profile.len())
                .any(|window| window == profile);
            if let Some(id) = id.and_then(Pid::from_raw).filter(|_| is_ours) {
                let _gone = kill_process(id, Signal::KILL);
            }
        }
    }
}
