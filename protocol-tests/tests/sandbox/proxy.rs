//! The stand-in for a corporate proxy, and the sandbox behind it under its real names.

use std::time::Duration;

use protocol_tests::aws::sandbox::{DEFAULT_TARGET, Sandbox};
use protocol_tests::network::proxy::{HttpProxy, ProxyMood, ProxyRequest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::client::open_socket_over;
use crate::http::{call_over, ssm_request, start_input, started, tls_over};
use crate::{DB_HOST, PATIENCE};

const SSM: &str = "ssm.eu-central-1.amazonaws.com";

/// Sends a request head and returns the connection with the status line.
async fn ask(proxy: &HttpProxy, head: &str) -> (TcpStream, String) {
    let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let byte = socket.read_u8().await.unwrap();
        answer.push(byte);
    }
    let answer = String::from_utf8(answer).unwrap();
    (socket, answer.lines().next().unwrap().to_owned())
}

fn connect(target: &str, login: &str) -> String {
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{login}\r\n")
}

#[tokio::test]
async fn the_api_and_the_gateway_are_reached_by_their_real_names() {
    let sandbox = Sandbox::builder().start().await.unwrap();
    let proxy = HttpProxy::start(None).await.unwrap();
    let here = ([127, 0, 0, 1], sandbox.port()).into();
    proxy.route("*.eu-central-1.amazonaws.com", here);
    let (socket, status) = ask(&proxy, &connect(&format!("{SSM}:443"), "")).await;
    assert_eq!(status, "HTTP/1.1 200 Connection established");
    let stream = tls_over(&sandbox, socket, SSM).await.unwrap();
    let request = ssm_request("StartSession", &start_input(DEFAULT_TARGET, DB_HOST, 5432));
    let answer = call_over(stream, SSM, Some((sandbox.user(), "ssm")), request).await;
    let session = started(&answer.json());
    let gateway = "ssmmessages.eu-central-1.amazonaws.com";
    assert!(
        session
            .url
            .starts_with(&format!("wss://{gateway}/v1/data-channel/"))
    );
    let (socket, _) = ask(&proxy, &connect(&format!("{gateway}:443"), "")).await;
    let stream = tls_over(&sandbox, socket, gateway).await.unwrap();
    open_socket_over(stream, &session.url, Some(sandbox.user()))
        .await
        .unwrap();
    let both = [format!("{SSM}:443"), format!("{gateway}:443")];
    assert_eq!(proxy.connected(), both);
    proxy.shutdown().await;
}

#[tokio::test]
async fn a_login_is_asked_for_when_there_is_one() {
    let sandbox = Sandbox::builder().start().await.unwrap();
    let proxy = HttpProxy::start(Some(("user", "secret"))).await.unwrap();
    let target = format!("localhost:{}", sandbox.port());
    // "user:wrong" and "user:secret" in Base64.
    for login in ["", "Proxy-Authorization: Basic dXNlcjp3cm9uZw==\r\n"] {
        let (_, status) = ask(&proxy, &connect(&target, login)).await;
        assert_eq!(status, "HTTP/1.1 407 Proxy Authentication Required");
    }
    let login = "Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n";
    let (socket, status) = ask(&proxy, &connect(&target, login)).await;
    assert_eq!(status, "HTTP/1.1 200 Connection established");
    tls_over(&sandbox, socket, "localhost").await.unwrap();
    let statuses: Vec<u16> = proxy.log().iter().map(|r| r.status).collect();
    assert_eq!(statuses, [407, 407, 200]);
    assert_eq!(proxy.connected(), [target]);
}

#[tokio::test]
async fn it_refuses_hangs_and_does_not_know_everybody() {
    let proxy = HttpProxy::start(None).await.unwrap();
    let (_, status) = ask(&proxy, &connect("unknown.example:443", "")).await;
    assert_eq!(status, "HTTP/1.1 502 Bad Gateway");
    proxy.set_mood(ProxyMood::Refusing);
    let (_, status) = ask(&proxy, &connect("localhost:1", "")).await;
    assert_eq!(status, "HTTP/1.1 403 Forbidden");
    proxy.set_mood(ProxyMood::Hanging);
    let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
    socket
        .write_all(connect("localhost:2", "").as_bytes())
        .await
        .unwrap();
    let unanswered = ProxyRequest {
        method: "CONNECT".to_owned(),
        target: "localhost:2".to_owned(),
        status: 0,
    };
    assert!(proxy.wait_for(|r| *r == unanswered, PATIENCE).await);
    let silence = tokio::time::timeout(Duration::from_millis(50), socket.read_u8());
    assert!(silence.await.is_err());
    tokio::time::timeout(PATIENCE, proxy.shutdown())
        .await
        .unwrap();
}

#[tokio::test]
async fn plain_requests_are_forwarded_only_on_demand() {
    let proxy = HttpProxy::start(None).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    proxy.route("plain.example", listener.local_addr().unwrap());
    let head = "GET http://plain.example/a?b=c HTTP/1.1\r\nHost: plain.example\r\n\
                Proxy-Connection: keep-alive\r\nX-Mine: 1\r\n\r\n";
    let (_, status) = ask(&proxy, head).await;
    assert_eq!(status, "HTTP/1.1 403 Forbidden");
    proxy.allow_plain_http(true);
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        while !heard.ends_with(b"\r\n\r\n") {
            heard.push(socket.read_u8().await.unwrap());
        }
        socket
            .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
            .await
            .unwrap();
        String::from_utf8(heard).unwrap()
    });
    let (_, status) = ask(&proxy, head).await;
    assert_eq!(status, "HTTP/1.1 204 No Content");
    let heard = server.await.unwrap();
    let expected = "GET /a?b=c HTTP/1.1\r\nHost: plain.example\r\nX-Mine: 1\r\n\
                    connection: close\r\n\r\n";
    assert_eq!(heard, expected);
}
