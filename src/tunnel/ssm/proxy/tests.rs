//! A proxy on loopback with the behaviour of each test.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::tls::testing::self_signed_server;

/// Far longer than any step here takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// `me:p@ss` in a URL and in a header.
const USER: &str = "me:p%40ss@";
const BASIC: &str = "Proxy-Authorization: Basic bWU6cEBzcw==\r\n";

/// Answers one CONNECT with `answer`, then echoes. Returns its port, and the request it received.
async fn proxy(
    answer: impl Into<Vec<u8>>,
    tls: Option<TlsAcceptor>,
) -> (u16, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = answer.into();
    let asked = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut stream: Stream = match tls {
            Some(acceptor) => match acceptor.accept(tcp).await {
                Ok(stream) => Box::new(stream),
                Err(error) => return error.to_string(),
            },
            None => Box::new(tcp),
        };
        let mut request = Vec::new();
        while find(&request, END_OF_HEAD).is_none() {
            if stream.read_buf(&mut request).await.unwrap() == 0 {
                break;
            }
        }
        let _ = stream.write_all(&answer).await;
        tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(stream);
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        });
        String::from_utf8(request).unwrap()
    });
    (port, asked)
}

fn https_proxy(url: &str) -> ProxySettings {
    ProxySettings(Arc::new(Matcher::builder().https(url).build()))
}

/// Returns a connector that trusts one certificate for `localhost`, or none.
fn tls(trusted: Option<&rcgen::Certificate>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    if let Some(certificate) = trusted {
        roots.add(certificate.der().clone()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(crate::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

async fn echoes(mut stream: Stream, before: &str) {
    stream.write_all(b"ping").await.unwrap();
    let mut back = vec![0; before.len() + 4];
    let read = timeout(PATIENCE, stream.read_exact(&mut back)).await;
    read.expect("bytes are missing").unwrap();
    assert_eq!(String::from_utf8(back).unwrap(), format!("{before}ping"));
}

async fn refusal(proxies: &ProxySettings, tls: &TlsConnector) -> (String, TunnelError) {
    let error = proxies.dial("gateway.example", 443, tls).await;
    let error = error.err().unwrap();
    match &error {
        TunnelError::Proxy { host, reason, .. } => {
            assert_eq!(host, "gateway.example");
            (reason.clone().into(), error)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_proxy_is_asked_for_host_and_port_with_the_credentials_of_its_url() {
    let (port, asked) = proxy("HTTP/1.1 200 OK\r\nX: y\r\n\r\n", None).await;
    let proxies = https_proxy(&format!("http://{USER}127.0.0.1:{port}"));
    let stream = proxies.dial("gateway.example", 443, &tls(None)).await;
    echoes(stream.unwrap(), "").await;
    assert_eq!(
        asked.await.unwrap(),
        format!("CONNECT gateway.example:443 HTTP/1.1\r\nHost: gateway.example:443\r\n{BASIC}\r\n")
    );
}

#[tokio::test]
async fn ipv6_hosts_keep_their_brackets_and_no_credentials_are_made_up() {
    let (port, asked) = proxy("HTTP/1.0 200 Connection established\r\n\r\n", None).await;
    // Without a scheme it is an HTTP proxy.
    let proxies = https_proxy(&format!("127.0.0.1:{port}"));
    let stream = proxies.dial("[2001:db8::1]", 8443, &tls(None)).await;
    echoes(stream.unwrap(), "").await;
    assert_eq!(
        asked.await.unwrap(),
        "CONNECT [2001:db8::1]:8443 HTTP/1.1\r\nHost: [2001:db8::1]:8443\r\n\r\n"
    );
}

#[tokio::test]
async fn bytes_behind_the_answer_are_not_lost() {
    let (port, _) = proxy("HTTP/1.1 200 OK\r\n\r\nearly", None).await;
    let proxies = https_proxy(&format!("http://127.0.0.1:{port}"));
    let stream = proxies.dial("gateway.example", 443, &tls(None)).await;
    echoes(stream.unwrap(), "early").await;
}

#[tokio::test]
async fn refusals_say_what_the_proxy_answered() {
    for (answer, user, reason) in [
        (
            "HTTP/1.1 403 You shall not pass\r\n\r\n",
            "",
            "it answered 403 Forbidden",
        ),
        (
            "HTTP/1.1 407 x\r\nProxy-Authenticate: Basic\r\n\r\n",
            "",
            "it answered 407 Proxy Authentication Required; set the user name and password in \
             HTTPS_PROXY (http://USER:PASSWORD@HOST:PORT)",
        ),
        (
            "HTTP/1.1 407 x\r\n\r\n",
            USER,
            "it answered 407 Proxy Authentication Required",
        ),
        ("SSH-2.0-OpenSSH\r\n\r\n", "", "its answer is not HTTP"),
        ("HTTP/1.1 20000 x\r\n\r\n", "", "its answer is not HTTP"),
    ] {
        let (port, _) = proxy(answer, None).await;
        let proxies = https_proxy(&format!("http://{user}127.0.0.1:{port}"));
        let (said, error) = refusal(&proxies, &tls(None)).await;
        assert_eq!(said, reason);
        assert_eq!(
            error.to_string(),
            format!("the proxy 127.0.0.1:{port} did not connect to gateway.example: {reason}")
        );
        for secret in ["p@ss", "p%40ss", "bWU6cEBzcw"] {
            let shown = format!("{error} {error:?} {proxies:?}");
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_the_end() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(LARGEST_HEAD));
    let (port, _) = proxy(long, None).await;
    let proxies = https_proxy(&format!("http://127.0.0.1:{port}"));
    let (reason, _) = refusal(&proxies, &tls(None)).await;
    assert_eq!(reason, "its answer is longer than 8192 bytes");
}

#[tokio::test]
async fn a_proxy_that_hangs_up_or_is_not_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let proxies = https_proxy(&format!("http://127.0.0.1:{port}"));
    let hung_up = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while find(&request, END_OF_HEAD).is_none() {
            tcp.read_buf(&mut request).await.unwrap();
        }
    });
    let (reason, _) = refusal(&proxies, &tls(None)).await;
    assert_eq!(reason, "it closed the connection without an answer");
    hung_up.await.unwrap();
    let (reason, _) = refusal(&proxies, &tls(None)).await;
    assert!(reason.contains("refused"), "{reason}");
}

#[tokio::test]
async fn a_proxy_behind_tls_is_verified() {
    let (acceptor, certificate) = self_signed_server();
    let answer = "HTTP/1.1 200 OK\r\n\r\n";
    let (port, asked) = proxy(answer, Some(acceptor.clone())).await;
    let proxies = https_proxy(&format!("https://{USER}localhost:{port}"));
    let stream = proxies
        .dial("gateway.example", 443, &tls(Some(&certificate)))
        .await;
    echoes(stream.unwrap(), "").await;
    assert!(asked.await.unwrap().contains(BASIC));

    let (port, asked) = proxy(answer, Some(acceptor)).await;
    let proxies = https_proxy(&format!("https://{USER}localhost:{port}"));
    let (reason, _) = refusal(&proxies, &tls(None)).await;
    assert!(
        reason.starts_with("TLS to the proxy failed: ")
            && reason.contains("its issuer is not trusted"),
        "{reason}"
    );
    assert!(!asked.await.unwrap().contains("Proxy-Authorization"));
}

#[tokio::test]
async fn socks_is_refused_in_plain_words() {
    for scheme in ["socks5", "socks5h", "socks4"] {
        let proxies = https_proxy(&format!("{scheme}://{USER}127.0.0.1:1"));
        let (reason, error) = refusal(&proxies, &tls(None)).await;
        assert_eq!(
            reason,
            format!(
                "{scheme} proxies are not supported; HTTPS_PROXY must begin with http:// or https://"
            )
        );
        assert!(!format!("{error:?}").contains("p%40ss"));
    }
}

#[tokio::test]
async fn without_a_proxy_the_way_is_straight() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let matcher = Matcher::builder().https("http://127.0.0.1:1");
    let proxies = ProxySettings(Arc::new(matcher.no("127.0.0.1").build()));
    let stream = proxies.dial("127.0.0.1", port, &tls(None)).await;
    assert!(stream.is_ok());
    drop(listener);
    let error = proxies.dial("127.0.0.1", port, &tls(None)).await.err();
    assert!(
        matches!(&error, Some(TunnelError::ChannelConnect { host, .. }) if host == "127.0.0.1"),
        "{error:?}"
    );
}

/// The environment can be set only for a separate process: the test below starts this one again and
/// reads its output.
#[test]
#[ignore = "started by the_environment_names_the_proxies"]
fn child() {
    let proxies = ProxySettings::from_env();
    for host in ["gateway.example", "inside.corp"] {
        let proxy = proxies.proxy_for(host, 443);
        println!(
            "\n@{host}={}",
            proxy.as_ref().map(place).unwrap_or_default()
        );
    }
}

fn in_child(environment: &[(&str, &str)]) -> BTreeMap<String, String> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tunnel::ssm::proxy::tests::child", "--ignored"])
        .args(["--nocapture", "--test-threads=1"])
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let pairs = text.lines().filter_map(|line| line.strip_prefix('@'));
    pairs
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn the_environment_names_the_proxies() {
    let none = ("NO_PROXY", "localhost,.corp,10.0.0.0/8");
    for (environment, expected) in [
        (vec![], ("", "")),
        (vec![("HTTPS_PROXY", "http://p:3128"), none], ("p:3128", "")),
        (
            vec![("https_proxy", "https://u:p@q:3129")],
            ("q:3129", "q:3129"),
        ),
        (vec![("ALL_PROXY", "p:1"), none], ("p:1", "")),
        (
            vec![("ALL_PROXY", "p:1"), ("HTTPS_PROXY", "p:2")],
            ("p:2", "p:2"),
        ),
        (vec![("HTTP_PROXY", "http://p:3128")], ("", "")),
        (
            vec![("HTTPS_PROXY", "http://p:3128"), ("no_proxy", "*")],
            ("", ""),
        ),
    ] {
        let seen = in_child(&environment);
        let seen = (
            seen["gateway.example"].as_str(),
            seen["inside.corp"].as_str(),
        );
        assert_eq!(seen, expected, "{environment:?}");
    }
}
