//! The part of an AWS client that the stock tools leave to others: a login token, and the answer of
//! `StartSession` that the AWS CLI hands to its plugin.

use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, ensure};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::aws::iam::{DbEndpoint, User};
use crate::aws::sandbox::Sandbox;
use crate::aws::sigv4;
use crate::aws::sigv4::{Canonical, Scope};

/// A token as `aws rds generate-db-auth-token` prints it: a secret for 15 minutes.
pub(crate) fn db_token(user: &User, db: &DbEndpoint, db_user: &str) -> String {
    let date = sigv4::format_amz_date(SystemTime::now());
    let scope = scope(&date, &db.region, "rds-db");
    let mut query: Vec<(String, String)> = [
        ("Action", "connect".to_owned()),
        ("DBUser", db_user.to_owned()),
        ("X-Amz-Algorithm", sigv4::ALGORITHM.to_owned()),
        ("X-Amz-Credential", credential(user, &scope)),
        ("X-Amz-Date", date.clone()),
        ("X-Amz-Expires", "900".to_owned()),
        ("X-Amz-SignedHeaders", "host".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    if let Some(token) = &user.session_token {
        query.push(("X-Amz-Security-Token".to_owned(), token.clone()));
    }
    let authority = format!("{}:{}", db.host, db.port);
    let canonical = Canonical {
        method: "GET",
        path: "/",
        query: &query,
        headers: &[("host".to_owned(), authority.clone())],
        payload_hash: &sigv4::sha256_hex(b""),
    };
    let signature = sigv4::signature(&user.secret_access_key, &date, &scope, &canonical);
    let query = sigv4::canonical_query(&query);
    format!("{authority}/?{query}&X-Amz-Signature={signature}")
}

/// The sandbox's answer to `StartSession` with `input`. It holds a token: a secret.
///
/// # Errors
/// When the sandbox cannot be reached or refuses.
pub(crate) async fn start_session(sandbox: &Sandbox, input: &Value) -> anyhow::Result<Value> {
    let request = signed_request(sandbox, "StartSession", &input.to_string());
    let mut roots = RootCertStore::empty();
    roots.add(sandbox.pki().ca_der().clone())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(("127.0.0.1", sandbox.port())).await?;
    let name = ServerName::try_from("localhost")?;
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // The sandbox may end without close_notify after its last byte.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).context("an answer that is not text")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("half an answer")?;
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.contains(" 200 "), "StartSession: {status}: {body}");
    Ok(serde_json::from_str(body)?)
}

/// A whole HTTP/1.1 request of the AWS JSON 1.1 protocol, after which the connection ends.
fn signed_request(sandbox: &Sandbox, operation: &str, body: &str) -> String {
    let user = sandbox.user();
    let date = sigv4::format_amz_date(SystemTime::now());
    let scope = scope(&date, sandbox.iam().region(), "ssm");
    let mut headers = vec![
        ("host", format!("localhost:{}", sandbox.port())),
        ("x-amz-date", date.clone()),
    ];
    if let Some(token) = &user.session_token {
        headers.push(("x-amz-security-token", token.clone()));
    }
    headers.push(("x-amz-target", format!("AmazonSSM.{operation}")));
    let headers: Vec<(String, String)> = headers
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    let canonical = Canonical {
        method: "POST",
        path: "/",
        query: &[],
        headers: &headers,
        payload_hash: &sigv4::sha256_hex(body.as_bytes()),
    };
    let signature = sigv4::signature(&user.secret_access_key, &date, &scope, &canonical);
    let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
    let mut request = "POST / HTTP/1.1\r\n".to_owned();
    for (name, value) in &headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += &format!(
        "authorization: {} Credential={}, SignedHeaders={}, Signature={signature}\r\n\
         content-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        sigv4::ALGORITHM,
        credential(user, &scope),
        names.join(";"),
        body.len(),
    );
    request
}

fn scope(date: &str, region: &str, service: &str) -> Scope {
    Scope {
        date: date[..8].to_owned(),
        region: region.to_owned(),
        service: service.to_owned(),
    }
}

fn credential(user: &User, scope: &Scope) -> String {
    format!("{}/{}", user.access_key_id, scope.to_text())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::aws::iam::Iam;

    #[test]
    fn the_database_takes_the_token() {
        let iam = Iam::new("eu-central-1", "123456789012");
        let user = User::example("dev", iam.account());
        iam.add(user.clone());
        let db = DbEndpoint {
            host: "db.eu-central-1.rds.amazonaws.com".to_owned(),
            port: 5432,
            region: "eu-central-1".to_owned(),
        };
        let token = db_token(&user, &db, "odd user@x");
        let taken = iam.verify_db_token(&token, &db, "odd user@x", SystemTime::now());
        assert_eq!(taken.unwrap().access_key_id, user.access_key_id);
    }

    #[tokio::test]
    async fn the_sandbox_starts_a_session_and_says_why_not() {
        let sandbox = Sandbox::builder().start().await.unwrap();
        let mut input = json!({
            "Target": crate::aws::sandbox::DEFAULT_TARGET,
            "DocumentName": "AWS-StartPortForwardingSessionToRemoteHost",
            "Parameters": {"host": ["db.internal"], "portNumber": ["1"], "localPortNumber": ["0"]},
        });
        let answer = start_session(&sandbox, &input).await.unwrap();
        assert!(answer["TokenValue"].as_str().is_some());
        input["Target"] = json!("i-nobody");
        let refused = start_session(&sandbox, &input).await.unwrap_err();
        assert!(
            refused.to_string().contains("TargetNotConnected"),
            "{refused}"
        );
    }
}
