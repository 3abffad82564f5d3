//! Signed requests over plain HTTP/1.1.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use protocol_tests::aws::iam::User;
use protocol_tests::aws::sandbox::Sandbox;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) const DOCUMENT: &str = "AWS-StartPortForwardingSessionToRemoteHost";

/// Connects to the sandbox with its own authority as the only trust.
pub(crate) async fn tls(sandbox: &Sandbox) -> TlsStream<TcpStream> {
    let socket = TcpStream::connect(("127.0.0.1", sandbox.port()))
        .await
        .unwrap();
    tls_over(sandbox, socket, "localhost").await.unwrap()
}

/// TLS to the server behind `socket`, which must have a certificate for `name`.
pub(crate) async fn tls_over(
    sandbox: &Sandbox,
    socket: TcpStream,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(sandbox.pki().ca_der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    socket.set_nodelay(true).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await
}

/// Headers that sign the request as `user`.
pub(crate) fn signature(
    user: &User,
    service: &str,
    request: &http::Request<Vec<u8>>,
) -> Vec<(String, String)> {
    let identity = Credentials::new(
        &user.access_key_id,
        &user.secret_access_key,
        user.session_token.clone(),
        None,
        "test",
    )
    .into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(signing_region(service))
        .name(service)
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()
        .unwrap()
        .into();
    let headers = request.headers().iter();
    let signable = SignableRequest::new(
        request.method().as_str(),
        request.uri().to_string(),
        headers.map(|(n, v)| (n.as_str(), v.to_str().unwrap())),
        SignableBody::Bytes(request.body()),
    )
    .unwrap();
    let (instructions, _) = sign(signable, &params).unwrap().into_parts();
    let (headers, _) = instructions.into_parts();
    headers
        .into_iter()
        .map(|h| (h.name().to_owned(), h.value().to_owned()))
        .collect()
}

/// IAM is one for the whole partition.
fn signing_region(service: &str) -> &'static str {
    match service {
        "iam" => "us-east-1",
        _ => "eu-central-1",
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    /// The error code of either protocol's shape.
    pub(crate) fn code(&self) -> String {
        match self.text.starts_with('{') {
            true => self.json()["__type"].as_str().unwrap().to_owned(),
            false => self.texts("Code").concat(),
        }
    }

    /// The texts of all elements with this name, in order.
    pub(crate) fn texts(&self, name: &str) -> Vec<String> {
        let document = roxmltree::Document::parse(&self.text).unwrap();
        let found = document
            .descendants()
            .filter(|e| e.tag_name().name() == name);
        found
            .map(|e| e.text().unwrap_or_default().to_owned())
            .collect()
    }
}

/// Sends a request, signed when there is a user, and reads the answer.
pub(crate) async fn call(
    sandbox: &Sandbox,
    signed: Option<(&User, &str)>,
    request: http::Request<Vec<u8>>,
) -> Answer {
    let host = format!("localhost:{}", sandbox.port());
    call_over(tls(sandbox).await, &host, signed, request).await
}

/// The same over a connection that is there already, to a server that calls itself `host`.
pub(crate) async fn call_over(
    mut stream: TlsStream<TcpStream>,
    host: &str,
    signed: Option<(&User, &str)>,
    mut request: http::Request<Vec<u8>>,
) -> Answer {
    request.headers_mut().insert("host", host.parse().unwrap());
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method(), request.uri());
    let extra = signed.map(|(user, service)| signature(user, service, &request));
    for (name, value) in request.headers() {
        head += &format!("{name}: {}\r\n", value.to_str().unwrap());
    }
    for (name, value) in extra.into_iter().flatten() {
        head += &format!("{name}: {value}\r\n");
    }
    let body = request.into_body();
    head += &format!(
        "content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    let mut all = Vec::new();
    // The server may end without close_notify after its last byte.
    let _ = stream.read_to_end(&mut all).await;
    let all = String::from_utf8(all).unwrap();
    let (head, text) = all.split_once("\r\n\r\n").unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap();
    let headers = lines.map(|l| l.split_once(": ").unwrap());
    Answer {
        status: status.parse().unwrap(),
        headers: headers
            .map(|(n, v)| (n.to_lowercase(), v.to_owned()))
            .collect(),
        text: text.to_owned(),
    }
}

/// An `ssm` operation as `user`.
pub(crate) async fn ssm(sandbox: &Sandbox, user: &User, operation: &str, body: Value) -> Answer {
    let request = ssm_request(operation, &body);
    call(sandbox, Some((user, "ssm")), request).await
}

/// A `kms` operation as `user`.
pub(crate) async fn kms(sandbox: &Sandbox, user: &User, operation: &str, body: Value) -> Answer {
    let request = json_request(&format!("TrentService.{operation}"), &body);
    call(sandbox, Some((user, "kms")), request).await
}

/// An action of the Query protocol as `user`; the parameters as in `A=1&B=2`, each value encoded.
pub(crate) async fn query(
    sandbox: &Sandbox,
    user: &User,
    service: &str,
    parameters: &str,
) -> Answer {
    let request = query_request(service, parameters);
    call(sandbox, Some((user, service)), request).await
}

pub(crate) fn query_request(service: &str, parameters: &str) -> http::Request<Vec<u8>> {
    let version = match service {
        "rds" => "2014-10-31",
        "ec2" => "2016-11-15",
        "iam" => "2010-05-08",
        _ => "2011-06-15",
    };
    http::Request::post("/")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("Version={version}&Action={parameters}").into_bytes())
        .unwrap()
}

pub(crate) fn ssm_request(operation: &str, body: &Value) -> http::Request<Vec<u8>> {
    json_request(&format!("AmazonSSM.{operation}"), body)
}

/// A call of a service without signatures, with a JSON body.
pub(crate) async fn post_json(sandbox: &Sandbox, path: &str, body: &Value) -> Answer {
    let request = http::Request::post(path)
        .header("content-type", "application/json")
        .body(body.to_string().into_bytes())
        .unwrap();
    call(sandbox, None, request).await
}

fn json_request(target: &str, body: &Value) -> http::Request<Vec<u8>> {
    http::Request::post("/")
        .header("x-amz-target", target)
        .header("content-type", "application/x-amz-json-1.1")
        .body(body.to_string().into_bytes())
        .unwrap()
}

pub(crate) fn start_input(target: &str, host: &str, port: u16) -> Value {
    json!({
        "Target": target,
        "DocumentName": DOCUMENT,
        "Parameters": {
            "host": [host],
            "portNumber": [port.to_string()],
            "localPortNumber": ["0"],
        },
    })
}

/// What `StartSession` and `ResumeSession` answer.
pub(crate) struct Started {
    pub(crate) id: String,
    pub(crate) token: String,
    pub(crate) url: String,
}

pub(crate) async fn start_session(sandbox: &Sandbox, host: &str, port: u16) -> Started {
    start_on(
        sandbox,
        protocol_tests::aws::sandbox::DEFAULT_TARGET,
        host,
        port,
    )
    .await
}

/// The same on a node of choice.
pub(crate) async fn start_on(sandbox: &Sandbox, target: &str, host: &str, port: u16) -> Started {
    let input = start_input(target, host, port);
    let answer = ssm(sandbox, sandbox.user(), "StartSession", input).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    started(&answer.json())
}

/// Asks for a new token of a session that lost its connection.
pub(crate) async fn resume(sandbox: &Sandbox, session: &Started) -> Started {
    let body = json!({ "SessionId": session.id });
    let answer = ssm(sandbox, sandbox.user(), "ResumeSession", body).await;
    started(&answer.json())
}

pub(crate) fn started(answer: &Value) -> Started {
    let text = |name: &str| answer[name].as_str().unwrap().to_owned();
    Started {
        id: text("SessionId"),
        token: text("TokenValue"),
        url: text("StreamUrl"),
    }
}
