//! chromedriver as a process, and its commands over HTTP.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::BytesMut;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::origin::read_head;

/// A program that has not said its port, or a command that was not answered by then, never will, even on a machine that is busy compiling.
const LIMIT: Duration = Duration::from_secs(120);

/// How long the browser may take to end; blocks.
const END_LIMIT: Duration = Duration::from_secs(10);

/// The longest answer: a picture in base64.
const ANSWER_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// A running chromedriver and, once begun, its session.
#[derive(Debug)]
pub(super) struct Driver {
    address: SocketAddr,
    session: Option<String>,
    _process: Child,
}

impl Driver {
    /// Starts `program` on a free port.
    pub(super) async fn start(program: &Path) -> Result<Self> {
        let mut process = Command::new(program)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let stdout = process.stdout.take().context("stdout was not captured")?;
        let mut lines = BufReader::new(stdout).lines();
        let port = timeout(LIMIT, async {
            while let Some(line) = lines.next_line().await? {
                if let Some((_, port)) = line.split_once("started successfully on port ") {
                    return Ok(port.trim_end_matches('.').parse()?);
                }
            }
            bail!("it ended before it listened")
        });
        let port: u16 = port.await.context("it does not say where it listens")??;
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            session: None,
            _process: process,
        })
    }

    /// Starts the browser.
    pub(super) async fn begin(&mut self, wanted: &Value) -> Result<()> {
        let session = self.ask("POST", "/session", Some(wanted)).await?;
        let id = session["sessionId"].as_str();
        self.session = Some(id.context("no session")?.to_owned());
        Ok(())
    }

    /// A command that changes something.
    pub(super) async fn post(&self, command: &str, body: &Value) -> Result<Value> {
        self.ask("POST", &self.path(command), Some(body)).await
    }

    /// A question.
    pub(super) async fn get(&self, command: &str) -> Result<Value> {
        self.ask("GET", &self.path(command), None).await
    }

    fn path(&self, command: &str) -> String {
        let session = self.session.as_deref().unwrap_or_default();
        format!("/session/{session}/{command}")
    }

    async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let request = request(self.address, method, path, body);
        let exchange = async {
            let mut connection = TcpStream::connect(self.address).await?;
            connection.write_all(request.as_bytes()).await?;
            let mut buffer = BytesMut::new();
            let head = read_head(&mut connection, &mut buffer).await?;
            let head = head.context("no answer")?;
            // It keeps its connections open, whatever it is asked.
            let length = head.content_length()?.context("an answer without end")?;
            anyhow::ensure!(length <= ANSWER_MAX_BYTES, "an answer of {length} bytes");
            while (buffer.len() as u64) < length {
                anyhow::ensure!(
                    connection.read_buf(&mut buffer).await? > 0,
                    "the answer ended early"
                );
            }
            let status = head.words().nth(1).unwrap_or_default().to_owned();
            anyhow::Ok((status, buffer))
        };
        let (status, answer) = timeout(LIMIT, exchange)
            .await
            .with_context(|| format!("no answer to {method} {path}"))??;
        let value: Value = serde_json::from_slice(&answer).with_context(|| {
            let text = String::from_utf8_lossy(&answer);
            format!("{method} {path} answered {status} {text}")
        })?;
        if status != "200" {
            bail!("{method} {path}: {}", value["value"]["message"]);
        }
        Ok(value["value"].clone())
    }
}

fn request(address: SocketAddr, method: &str, path: &str, body: Option<&Value>) -> String {
    let body = body.map(Value::to_string).unwrap_or_default();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

impl Driver {
    /// Tells the browser to end, which only the driver can do, and waits for that. Blocks.
    pub(super) fn end(&self) {
        let Some(session) = &self.session else { return };
        let request = request(self.address, "DELETE", &format!("/session/{session}"), None);
        if let Ok(mut connection) = std::net::TcpStream::connect_timeout(&self.address, END_LIMIT) {
            let _ = connection.set_read_timeout(Some(END_LIMIT));
            let _ = connection.write_all(request.as_bytes());
            // It answers once the browser has ended.
            let _ = connection.read(&mut [0; 1024]);
        }
    }
}
