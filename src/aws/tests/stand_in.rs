//! A stand-in for AWS services in unit tests.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_types::retry::RetryConfig;
use aws_types::region::Region;
use protocol_tests::aws::sandbox::Sandbox;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::aws::{AwsContext, AwsOptions};
use crate::base::single_flight::Clock;

/// Time of the tests in seconds since 1970: `2026-11-30T12:00:00Z`.
pub(in crate::aws) const NOW: i64 = 1_796_040_000;

/// Returns a clock that stands at [`NOW`].
pub(in crate::aws) fn clock() -> Clock {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW.unsigned_abs());
    Arc::new(move || now)
}

/// Starts a sandbox of AWS, and returns it with the configuration for its services.
pub(in crate::aws) async fn sandbox() -> (Sandbox, SdkConfig) {
    let sandbox = Sandbox::builder().region("eu-central-1").start();
    let sandbox = sandbox.await.unwrap();
    let path = sandbox.dir().join("config");
    let config = format!("[profile dev]\nendpoint_url = {}\n", sandbox.endpoint_url());
    std::fs::write(&path, config).unwrap();
    let aws = AwsContext::new(AwsOptions {
        profile: Some("dev".to_owned()),
        region: Some("eu-central-1".into()),
        ca_bundle: Some(sandbox.pki().ca_pem_path().to_owned()),
        config_file: Some(path.clone()),
        credentials_file: Some(path),
        ..AwsOptions::default()
    });
    let config = aws.sdk_config().await.unwrap();
    (sandbox, config)
}

/// An answer, and what happens before it.
struct Answer {
    status: u16,
    body: String,
    before: Box<dyn FnOnce() + Send>,
}

/// A service on loopback. It answers requests in their order and records them; one without an
/// answer gets status 599.
#[derive(Clone)]
pub(in crate::aws) struct StandIn {
    url: String,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl StandIn {
    pub(in crate::aws) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let this = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            answers: Arc::default(),
            requests: Arc::default(),
        };
        let server = this.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                server.clone().serve(stream).await;
            }
        });
        this
    }

    pub(in crate::aws) fn answer(&self, status: u16, body: impl Into<String>) {
        self.answer_after(status, body, || {});
    }

    pub(in crate::aws) fn answer_after(
        &self,
        status: u16,
        body: impl Into<String>,
        before: impl FnOnce() + Send + 'static,
    ) {
        let answer = Answer {
            status,
            body: body.into(),
            before: Box::new(before),
        };
        self.answers.lock().unwrap().push_back(answer);
    }

    /// Returns the requests since the last call, with their bodies, and forgets unused answers.
    pub(in crate::aws) fn requests(&self) -> Vec<String> {
        self.answers.lock().unwrap().clear();
        std::mem::take(&mut *self.requests.lock().unwrap())
    }

    /// Returns a configuration for this service, without credentials.
    pub(in crate::aws) fn config(&self) -> SdkConfig {
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .endpoint_url(&self.url)
            .retry_config(RetryConfig::disabled())
            .build()
    }

    async fn serve(self, mut stream: TcpStream) {
        let mut request = Vec::new();
        while !is_whole(&request) {
            if !matches!(stream.read_buf(&mut request).await, Ok(1..)) {
                return;
            }
        }
        let request = String::from_utf8(request).unwrap();
        self.requests.lock().unwrap().push(request);
        let next = self.answers.lock().unwrap().pop_front();
        let (status, body) = match next {
            Some(answer) => {
                (answer.before)();
                (answer.status, answer.body)
            }
            None => (599, "{}".to_owned()),
        };
        let answer = format!(
            "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        _ = stream.write_all(answer.as_bytes()).await;
        _ = stream.shutdown().await;
    }
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let head = head.to_ascii_lowercase();
    let mut lines = head.lines();
    let length = lines.find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}
