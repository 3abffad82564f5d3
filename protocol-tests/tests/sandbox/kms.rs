//! Encrypted sessions: the key service, the agreement on a key, and the encrypted stream.

use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use protocol_tests::aws::events::Event;
use protocol_tests::aws::sandbox::{DEFAULT_TARGET, Sandbox};
use protocol_tests::aws::wire::payload;
use serde_json::{Value, json};

use crate::client::{FIN, MiniClient, PSH, SYN};
use crate::http::{Started, kms, start_session};
use crate::{DB_HOST, assert_no_violation, expect_event, with_echo};

/// The client's end of the encryption: opens with the first half of the data key, seals with the
/// second.
pub(crate) struct ClientCipher {
    open: LessSafeKey,
    seal: LessSafeKey,
    count: std::cell::Cell<u64>,
}

impl ClientCipher {
    fn new(data_key: &[u8]) -> Self {
        let key = |half| LessSafeKey::new(UnboundKey::new(&AES_256_GCM, half).unwrap());
        Self {
            open: key(&data_key[..32]),
            seal: key(&data_key[32..]),
            count: std::cell::Cell::new(0),
        }
    }

    pub(crate) fn seal(&self, plain: &[u8]) -> Bytes {
        self.count.set(self.count.get() + 1);
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.count.get().to_be_bytes());
        let mut sealed = plain.to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        self.seal
            .seal_in_place_append_tag(unique, Aad::empty(), &mut sealed)
            .unwrap();
        [&nonce[..], &sealed].concat().into()
    }

    pub(crate) fn open(&self, sealed: &[u8]) -> Vec<u8> {
        let (nonce, rest) = sealed.split_first_chunk().unwrap();
        let mut plain = rest.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self.open.open_in_place(nonce, Aad::empty(), &mut plain);
        plain.unwrap().to_vec()
    }
}

/// A sandbox with an echo server whose sessions are encrypted, and the key's ARN.
async fn encrypted() -> (Sandbox, String) {
    let sandbox = with_echo().await;
    let key = sandbox.kms().create_key();
    let agent = sandbox.agent(DEFAULT_TARGET);
    agent.update(|s| s.kms_key = Some(key.clone()));
    (sandbox, key)
}

/// What the agent asks for besides the session type.
async fn asked(client: &mut MiniClient) -> Value {
    let request = client.message().await.unwrap();
    assert_eq!(request.payload_type, payload::HANDSHAKE_REQUEST);
    let request: Value = serde_json::from_slice(&request.payload).unwrap();
    let action = &request["RequestedClientActions"][1];
    assert_eq!(action["ActionType"], "KMSEncryption");
    action["ActionParameters"].clone()
}

fn context(session: &Started, target: &str, challenge: Option<&Value>) -> Value {
    let mut context = json!({
        "aws:ssm:SessionId": session.id,
        "aws:ssm:TargetId": target,
    });
    if let Some(challenge) = challenge {
        context["aws:ssm:RandomChallenge"] = challenge.clone();
    }
    context
}

/// Calls KMS; the plain key and what goes to the agent.
async fn data_key(sandbox: &Sandbox, key: &Value, context: Value) -> (Vec<u8>, Value) {
    let body = json!({ "KeyId": key, "NumberOfBytes": 64, "EncryptionContext": context });
    let answer = kms(sandbox, sandbox.user(), "GenerateDataKey", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answer = answer.json();
    let plain = BASE64
        .decode(answer["Plaintext"].as_str().unwrap())
        .unwrap();
    (plain, answer["CiphertextBlob"].clone())
}

async fn respond(client: &mut MiniClient, action: Value) {
    let mut encryption = json!({ "ActionType": "KMSEncryption" });
    for (name, value) in action.as_object().unwrap() {
        encryption[name] = value.clone();
    }
    let response = json!({
        "ClientVersion": "1.2.764.0",
        "ProcessedClientActions": [
            { "ActionType": "SessionType", "ActionStatus": 1, "ActionResult": null, "Error": "" },
            encryption,
        ],
        "Errors": null,
    });
    let response = Bytes::from(response.to_string());
    client.send(payload::HANDSHAKE_RESPONSE, response).await;
}

fn success(blob: &Value, acknowledged: bool) -> Value {
    json!({
        "ActionStatus": 1,
        "ActionResult": { "KMSCipherTextKey": blob, "ChallengeAcknowledgement": acknowledged },
        "Error": "",
    })
}

/// Takes the challenge and sends back what `answer` makes of its plain bytes.
async fn answer_challenge(client: &mut MiniClient, answer: impl Fn(Vec<u8>) -> Vec<u8>) {
    let request = client.message().await.unwrap();
    assert_eq!(request.payload_type, payload::CHALLENGE_REQUEST);
    let request: Value = serde_json::from_slice(&request.payload).unwrap();
    let sealed = BASE64
        .decode(request["Challenge"].as_str().unwrap())
        .unwrap();
    let cipher = client.cipher.as_ref().unwrap();
    let back = cipher.seal(&answer(cipher.open(&sealed)));
    let response = json!({ "Challenge": BASE64.encode(back) }).to_string();
    client
        .send(payload::CHALLENGE_RESPONSE, Bytes::from(response))
        .await;
}

/// Gets an encrypted session through its handshake.
async fn shake(sandbox: &Sandbox, with_challenge: bool, acknowledge: bool) -> MiniClient {
    let session = start_session(sandbox, DB_HOST, 5432).await;
    let mut client = MiniClient::connect(sandbox, &session).await;
    let asked = asked(&mut client).await;
    let challenge = asked.get("Challenge");
    assert_eq!(challenge.is_some(), with_challenge);
    let context = context(&session, DEFAULT_TARGET, challenge.filter(|_| acknowledge));
    let (plain, blob) = data_key(sandbox, &asked["KMSKeyId"], context).await;
    respond(&mut client, success(&blob, acknowledge)).await;
    client.cipher = Some(ClientCipher::new(&plain));
    answer_challenge(&mut client, |plain| plain).await;
    let complete = client.message().await.unwrap();
    assert_eq!(complete.payload_type, payload::HANDSHAKE_COMPLETE);
    let complete: Value = serde_json::from_slice(&complete.payload).unwrap();
    let text = "This session is encrypted using AWS KMS.";
    assert_eq!(complete["CustomerMessage"], text);
    client
}

async fn echo(client: &mut MiniClient) {
    client.frame(SYN, 3, b"").await;
    let sent = vec![b'x'; 20_000];
    client.frame(PSH, 3, &sent).await;
    let mut received = Vec::new();
    while received.len() < sent.len() {
        let (command, id, data) = client.next_frame().await.unwrap();
        assert_eq!((command, id), (PSH, 3));
        received.extend_from_slice(&data);
    }
    assert!(received == sent);
    client.frame(FIN, 3, b"").await;
    assert_eq!(client.next_frame().await.unwrap(), (FIN, 3, Bytes::new()));
}

#[tokio::test]
async fn a_session_is_encrypted_both_ways() {
    let (sandbox, key) = encrypted().await;
    let mut client = shake(&sandbox, true, true).await;
    echo(&mut client).await;
    let calls = sandbox.events().all().into_iter().filter_map(|e| match e {
        Event::KmsCall {
            operation,
            key_arn,
            context,
            user_arn,
        } => Some((operation, key_arn, context, user_arn)),
        _ => None,
    });
    let calls: Vec<_> = calls.collect();
    let [made, opened] = &calls[..] else {
        panic!("{calls:?}");
    };
    assert_eq!(
        (made.0.as_str(), opened.0.as_str()),
        ("GenerateDataKey", "Decrypt")
    );
    assert_eq!((&made.1, &opened.1), (&key, &key));
    assert_eq!(made.2, opened.2);
    assert_eq!(made.2.len(), 3);
    assert_eq!(made.3, sandbox.user().arn);
    assert_eq!(opened.3, sandbox.node_role().arn);
    // Plain bytes do not get through.
    client.cipher = None;
    client.frame(SYN, 5, b"").await;
    expect_event(
        &sandbox,
        |e| matches!(e, Event::Violation { what, .. } if what.contains("cannot be decrypted")),
    )
    .await;
}

#[tokio::test]
async fn older_agents_send_no_challenge_and_older_clients_ignore_it() {
    let (sandbox, _) = encrypted().await;
    let agent = sandbox.agent(DEFAULT_TARGET);
    let mut client = shake(&sandbox, true, false).await;
    echo(&mut client).await;
    agent.update(|s| s.kms_challenge = false);
    let mut client = shake(&sandbox, false, false).await;
    echo(&mut client).await;
    assert_no_violation(&sandbox);
}

#[tokio::test]
async fn a_client_that_fails_hears_its_own_words() {
    let (sandbox, _) = encrypted().await;
    let session = start_session(&sandbox, DB_HOST, 5432).await;
    let mut client = MiniClient::connect(&sandbox, &session).await;
    asked(&mut client).await;
    let error = "Failed to process action KMSEncryption: Error calling KMS GenerateDataKey API: \
                 AccessDeniedException: no";
    let failed = json!({ "ActionStatus": 2, "ActionResult": null, "Error": error });
    respond(&mut client, failed).await;
    let expected = format!(
        "----------ERROR-------\nEncountered error while initiating handshake. KMSEncryption \
         failed on client with status 2 error: {error}"
    );
    assert_eq!(client.end_reason().await, expected);
}

/// Runs the key agreement up to the point where the agent says no.
async fn refused(sandbox: &Sandbox, target: &str, acknowledge: bool) -> String {
    let session = start_session(sandbox, DB_HOST, 5432).await;
    let mut client = MiniClient::connect(sandbox, &session).await;
    let asked = asked(&mut client).await;
    let context = context(&session, target, asked.get("Challenge"));
    let (_, blob) = data_key(sandbox, &asked["KMSKeyId"], context).await;
    respond(&mut client, success(&blob, acknowledge)).await;
    client.end_reason().await
}

#[tokio::test]
async fn the_agent_opens_a_key_only_with_the_exact_context_and_permission() {
    let (sandbox, key) = encrypted().await;
    let begin = "----------ERROR-------\nEncountered error while initiating handshake. Fetching \
                 data key failed: Unable to retrieve data key, Error when decrypting data key ";
    let text = refused(&sandbox, "i-0ffffffffffffffff", true).await;
    assert!(
        text.starts_with(&format!("{begin}InvalidCiphertextException: \n")),
        "{text}"
    );
    // Made with the challenge, but the agent is told otherwise.
    let text = refused(&sandbox, DEFAULT_TARGET, false).await;
    assert!(
        text.starts_with(&format!("{begin}InvalidCiphertextException: \n")),
        "{text}"
    );
    let role = &sandbox.node_role().access_key_id;
    sandbox.iam().update(role, |u| {
        u.deny.insert(format!("kms:Decrypt {key}"));
    });
    let text = refused(&sandbox, DEFAULT_TARGET, true).await;
    let denied = format!(
        "{begin}AccessDeniedException: User: {} is not authorized to perform: kms:Decrypt on \
         resource: {key} because",
        sandbox.node_role().arn
    );
    assert!(text.starts_with(&denied), "{text}");
    assert_no_violation(&sandbox);
}

#[tokio::test]
async fn a_wrong_answer_to_the_challenge_is_met_with_silence() {
    let (sandbox, _) = encrypted().await;
    let agent = sandbox.agent(DEFAULT_TARGET);
    agent.update(|s| s.handshake_limit = Duration::from_millis(300));
    let session = start_session(&sandbox, DB_HOST, 5432).await;
    let mut client = MiniClient::connect(&sandbox, &session).await;
    let asked = asked(&mut client).await;
    let context = context(&session, DEFAULT_TARGET, asked.get("Challenge"));
    let (plain, blob) = data_key(&sandbox, &asked["KMSKeyId"], context).await;
    respond(&mut client, success(&blob, true)).await;
    client.cipher = Some(ClientCipher::new(&plain));
    answer_challenge(&mut client, |mut plain| {
        plain[0] ^= 1;
        plain
    })
    .await;
    let text = client.end_reason().await;
    assert!(
        text.ends_with("Timed out waiting for encryption challenge."),
        "{text}"
    );
}

#[tokio::test]
async fn kms_answers_as_kms() {
    let sandbox = Sandbox::builder().start().await.unwrap();
    let user = sandbox.user();
    let key = sandbox.kms().create_key();
    assert!(sandbox.kms().alias("alias/sessions", &key));
    let context = json!({ "a": "1" });
    let body = json!({
        "KeyId": "alias/sessions", "NumberOfBytes": 64, "EncryptionContext": context,
    });
    let made = kms(&sandbox, user, "GenerateDataKey", body.clone())
        .await
        .json();
    assert_eq!(made["KeyId"], json!(key));
    let open = async |context: Value| {
        let body = json!({
            "CiphertextBlob": made["CiphertextBlob"], "EncryptionContext": context,
        });
        kms(&sandbox, user, "Decrypt", body).await
    };
    assert_eq!(open(context).await.json()["Plaintext"], made["Plaintext"]);
    let wrong = open(json!({ "a": "2" })).await;
    assert_eq!(
        (wrong.status, wrong.code().as_str()),
        (400, "InvalidCiphertextException")
    );

    let code = async |body: Value| {
        let answer = kms(&sandbox, user, "GenerateDataKey", body).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        (answer.code(), answer.json())
    };
    let missing = json!({ "KeyId": "alias/none", "NumberOfBytes": 64 });
    assert_eq!(code(missing).await.0, "NotFoundException");
    let both = json!({ "KeyId": key, "NumberOfBytes": 64, "KeySpec": "AES_256" });
    assert_eq!(code(both).await.0, "ValidationException");
    let empty = json!({
        "KeyId": key, "NumberOfBytes": 64, "EncryptionContext": { "aws:ssm:TargetId": "" },
    });
    let (name, answer) = code(empty).await;
    assert_eq!(name, "ValidationException");
    assert_eq!(answer["message"], "Invalid EncryptionContext");
    sandbox.kms().set_disabled(&key, true);
    assert_eq!(code(body.clone()).await.0, "DisabledException");
    sandbox.kms().set_disabled(&key, false);
    sandbox.iam().update(&user.access_key_id, |u| {
        u.deny.insert("kms:GenerateDataKey".to_owned());
    });
    let (name, answer) = code(body).await;
    assert_eq!(name, "AccessDeniedException");
    let text = format!(
        "User: {} is not authorized to perform: kms:GenerateDataKey on resource: {key} because no \
         identity-based policy allows the kms:GenerateDataKey action",
        user.arn
    );
    assert_eq!(answer["Message"], json!(text));
}
