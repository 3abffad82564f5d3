//! The SDK's client against a loopback KMS that gives every request the same answer.

use std::sync::LazyLock;

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::aws::AwsOptions;

/// 64 zero bytes and a few others, as the API encodes bytes.
const KEY: &str =
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==";
const SEALED: &str = "c2VhbGVk";

/// Returns a context with a KMS that answers one request, and that request (head and body).
async fn kms(status: u16, answer: Value) -> (TempDir, AwsContext, JoinHandle<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        let (head, body) = loop {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
            let text = String::from_utf8_lossy(&request);
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            if let Ok(body) = serde_json::from_str(body) {
                break (head.to_owned(), body);
            }
        };
        let answer = answer.to_string();
        let answer = format!(
            "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-type: \
             application/x-amz-json-1.1\r\ncontent-length: {}\r\n\r\n{answer}",
            answer.len()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        (head, body)
    });
    let dir = tempfile::tempdir().unwrap();
    let context = context(dir.path(), &url);
    (dir, context, asked)
}

fn context(dir: &Path, url: &str) -> AwsContext {
    let (config, credentials) = (dir.join("config"), dir.join("credentials"));
    std::fs::write(&config, format!("[profile dev]\nendpoint_url = {url}\n")).unwrap();
    let keys = "[dev]\naws_access_key_id = AKID\naws_secret_access_key = secret\n";
    std::fs::write(&credentials, keys).unwrap();
    AwsContext::new(AwsOptions {
        profile: Some("dev".to_owned()),
        config_file: Some(config),
        credentials_file: Some(credentials),
        ..AwsOptions::default()
    })
}

static SESSION: LazyLock<SessionId> = LazyLock::new(|| "me-0".into());
static NODE: LazyLock<NodeId> = LazyLock::new(|| "i-1".into());

fn wanted<'a>(key: &'a str, challenge: Option<&'a str>) -> DataKeyRequest<'a> {
    DataKeyRequest {
        key,
        session_id: &SESSION,
        target: &NODE,
        challenge,
    }
}

#[tokio::test]
async fn a_key_is_asked_for_this_session_node_and_challenge() {
    let given = json!({"CiphertextBlob": SEALED, "Plaintext": KEY, "KeyId": "k"});
    for (challenge, key, region) in [
        (None, "alias/ssm", "eu-central-1"),
        (
            Some("c"),
            "arn:aws:kms:us-east-2:111122223333:key/k",
            "us-east-2",
        ),
    ] {
        let (_files, aws, asked) = kms(200, given.clone()).await;
        let made = data_key(&aws, &"eu-central-1".into(), wanted(key, challenge)).await;
        let made = made.unwrap();
        assert_eq!(*made.plaintext, [0; 64]);
        assert_eq!(made.ciphertext, b"sealed");
        assert_eq!(format!("{made:?}"), "DataKey(***)");

        let (head, body) = asked.await.unwrap();
        let mut context = json!({"aws:ssm:SessionId": "me-0", "aws:ssm:TargetId": "i-1"});
        if let Some(challenge) = challenge {
            context["aws:ssm:RandomChallenge"] = json!(challenge);
        }
        assert_eq!(
            body,
            json!({"KeyId": key, "NumberOfBytes": 64, "EncryptionContext": context})
        );
        assert!(head.contains("TrentService.GenerateDataKey"), "{head}");
        assert!(
            head.contains(&format!("/{region}/kms/aws4_request")),
            "{head}"
        );
    }
}

async fn refusal(status: u16, answer: Value) -> (bool, String) {
    let (_files, aws, _) = kms(status, answer).await;
    match data_key(&aws, &"eu-central-1".into(), wanted("k", None)).await {
        Err(TunnelError::DataKey {
            key,
            denied,
            reason,
        }) => {
            assert_eq!(key, "k");
            (denied, reason.into())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_refusal_by_policy_is_told_from_others() {
    let (denied, reason) = refusal(
        400,
        json!({"__type": "AccessDeniedException", "Message": "not authorized"}),
    )
    .await;
    assert!(denied);
    assert_eq!(reason, "AccessDeniedException: not authorized");
    let (denied, reason) = refusal(
        400,
        json!({"__type": "DisabledException", "message": "k is disabled."}),
    )
    .await;
    assert!(!denied);
    assert_eq!(reason, "DisabledException: k is disabled.");
}

#[tokio::test]
async fn a_key_of_another_size_is_no_key() {
    let (denied, reason) =
        refusal(200, json!({"CiphertextBlob": SEALED, "Plaintext": "AAAA"})).await;
    assert!(!denied);
    assert_eq!(reason, "the answer contains no valid data key");
}

#[tokio::test(start_paused = true)]
async fn a_kms_that_does_not_answer_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let aws = context(
        dir.path(),
        &format!("http://{}", listener.local_addr().unwrap()),
    );
    match data_key(&aws, &"eu-central-1".into(), wanted("k", None)).await {
        Err(TunnelError::Late(late)) => {
            let host = listener.local_addr().unwrap();
            let expected =
                format!("kms:GenerateDataKey got no answer from {host} within 10 s (1 try)");
            assert_eq!(late.to_string(), expected);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_arn_names_the_keys_region() {
    for (key, region) in [
        (
            "arn:aws:kms:us-east-2:111122223333:key/k",
            Some("us-east-2"),
        ),
        ("arn:aws-cn:kms:cn-north-1:1:alias/ssm", Some("cn-north-1")),
        ("alias/ssm", None),
        ("1234abcd-12ab-34cd-56ef-1234567890ab", None),
        ("arn:aws:s3:::bucket", None),
        ("arn:aws:kms::1:key/k", None),
        ("", None),
    ] {
        assert_eq!(region_of(key), region, "{key}");
    }
}
