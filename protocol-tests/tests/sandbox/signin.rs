//! The sign-in service of `aws login`: refresh with a proof of possession.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use protocol_tests::aws::console::{ConsoleLogin, SessionEnd};
use protocol_tests::aws::iam::User;
use protocol_tests::aws::sandbox::Sandbox;
use serde_json::{Value, json};

use crate::http::{Answer, call, query};

const ADMIN: &str = "arn:aws:iam::123456789012:user/Admin";

/// The key of the cache file.
fn key(login: &ConsoleLogin) -> EcdsaKeyPair {
    let pem = login.file["dpopKey"].as_str().unwrap();
    let lines: Vec<&str> = pem.lines().filter(|line| !line.contains("-----")).collect();
    let der = BASE64_STANDARD.decode(lines.concat()).unwrap();
    EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).unwrap()
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}

/// Claims of a right proof.
fn claims(sandbox: &Sandbox) -> Value {
    json!({
        "htm": "POST",
        "htu": format!("{}/v1/token", sandbox.endpoint_url()),
        "iat": now(),
        "jti": uuid::Uuid::new_v4().to_string(),
    })
}

fn proof(key: &EcdsaKeyPair, claims: &Value) -> String {
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let point = key.public_key().as_ref();
    let header = json!({
        "typ": "dpop+jwt",
        "alg": "ES256",
        "jwk": {
            "kty": "EC",
            "crv": "P-256",
            "x": encode(&point[1..33]),
            "y": encode(&point[33..]),
        },
    });
    let header = encode(header.to_string().as_bytes());
    let signed = format!("{header}.{}", encode(claims.to_string().as_bytes()));
    let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    format!("{signed}.{}", encode(signature.as_ref()))
}

async fn refresh(sandbox: &Sandbox, proof: Option<&str>, token: &Value) -> Answer {
    let body = json!({
        "clientId": "arn:aws:signin:::devtools/same-device",
        "grantType": "refresh_token",
        "refreshToken": token,
    });
    let mut request = http::Request::post("/v1/token").header("content-type", "application/json");
    if let Some(proof) = proof {
        request = request.header("DPoP", proof);
    }
    let request = request.body(body.to_string().into_bytes()).unwrap();
    call(sandbox, None, request).await
}

fn assert_refused(answer: &Answer, status: u16, exception: &str, error: &str) {
    assert_eq!(answer.status, status, "{}", answer.text);
    assert!(answer.headers["x-amzn-errortype"].starts_with(exception));
    assert_eq!(answer.json()["error"], error);
    assert!(answer.json()["message"].is_string());
}

fn user(given: &Value) -> User {
    let text = |name: &str| given[name].as_str().unwrap().to_owned();
    User {
        access_key_id: text("accessKeyId"),
        secret_access_key: text("secretAccessKey"),
        session_token: Some(text("sessionToken")),
        ..User::example("Admin", "123456789012")
    }
}

async fn logged_in() -> (Sandbox, ConsoleLogin) {
    let sandbox = Sandbox::builder().start().await.unwrap();
    let login = sandbox.console().log_in(ADMIN, Duration::from_secs(900));
    (sandbox, login)
}

#[tokio::test]
async fn credentials_are_refreshed_with_the_same_key() {
    let (sandbox, login) = logged_in().await;
    let example = "arn:aws:iam::111122223333:user/Admin";
    let example = sandbox.console().log_in(example, Duration::from_secs(900));
    let name = "15ad6a9800868e2ba5939d78849f67465e0f8392752060b3bfa16b8e10b47063.json";
    assert_eq!(example.file_name(), name);
    let key = key(&login);
    let right = proof(&key, &claims(&sandbox));
    let answer = refresh(&sandbox, Some(&right), &login.file["refreshToken"]).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let new = answer.json();
    assert_eq!(
        (&new["expiresIn"], &new["tokenType"]),
        (&json!(900), &json!("aws_sigv4"))
    );
    for given in [&login.file["accessToken"], &new["accessToken"]] {
        let identity = query(&sandbox, &user(given), "sts", "GetCallerIdentity").await;
        assert_eq!(identity.texts("Arn"), [ADMIN]);
    }
    let old = proof(&key, &claims(&sandbox));
    let answer = refresh(&sandbox, Some(&old), &login.file["refreshToken"]).await;
    assert_refused(&answer, 400, "ValidationException", "INVALID_REQUEST");
    let next = proof(&key, &claims(&sandbox));
    let answer = refresh(&sandbox, Some(&next), &new["refreshToken"]).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test]
async fn a_proof_is_for_one_call_of_this_address() {
    let (sandbox, login) = logged_in().await;
    let token = &login.file["refreshToken"];
    let key = key(&login);
    let refused = async |proof: Option<&str>| {
        let answer = refresh(&sandbox, proof, token).await;
        assert_refused(&answer, 400, "ValidationException", "INVALID_REQUEST");
    };
    refused(None).await;
    refused(Some("a.b.c")).await;
    for (name, wrong) in [
        ("htm", json!("GET")),
        ("htu", json!("https://localhost/v1/token")),
        ("iat", json!(now() - 301)),
        ("iat", json!(now() + 310)),
        ("iat", json!("now")),
        ("jti", json!("")),
    ] {
        let mut claims = claims(&sandbox);
        claims[name] = wrong;
        refused(Some(&proof(&key, &claims))).await;
    }
    let right = proof(&key, &claims(&sandbox));
    let (signed, _) = right.rsplit_once('.').unwrap();
    refused(Some(&format!("{signed}.{}", "A".repeat(86)))).await;
    let other = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    refused(Some(&proof(&other, &claims(&sandbox)))).await;
    let answer = refresh(&sandbox, Some(&right), token).await;
    assert_eq!(answer.status, 200);
    let answer = refresh(&sandbox, Some(&right), &answer.json()["refreshToken"]).await;
    assert_refused(&answer, 400, "ValidationException", "INVALID_REQUEST");
}

#[tokio::test]
async fn a_session_ends_for_a_reason() {
    for (reason, error) in [
        (SessionEnd::TokenExpired, "TOKEN_EXPIRED"),
        (SessionEnd::CredentialsChanged, "USER_CREDENTIALS_CHANGED"),
        (
            SessionEnd::InsufficientPermissions,
            "INSUFFICIENT_PERMISSIONS",
        ),
    ] {
        let (sandbox, login) = logged_in().await;
        sandbox.console().end_sessions(reason);
        let proof = proof(&key(&login), &claims(&sandbox));
        let answer = refresh(&sandbox, Some(&proof), &login.file["refreshToken"]).await;
        assert_refused(&answer, 401, "AccessDeniedException", error);
    }
}
