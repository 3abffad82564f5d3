//! Sessions encrypted with a KMS key.

use bytes::Bytes;
use ssm_channel::handshake::{
    ActionStatus, EncryptionChallenge, HandshakeResponse, from_json, to_json,
};
use ssm_channel::{
    AgentMessage, Channel, ChannelToken, DataKey, Error, Event, FlagPayload, MAX_PAYLOAD,
    PayloadType,
};
use zeroize::Zeroizing;

use crate::secret::{KEY_ID, RANDOM, Secret, data_key, request_with_kms};
use crate::support::{
    COMPLETE, ack_from_agent, config, established, events, flag, from_agent, ms, sorted,
};

/// Returns a channel that has received the encryption request, with all output but the answer
/// taken.
fn asked(challenge: bool) -> Channel {
    let mut channel = Channel::new(config(1), ms(0));
    assert!(channel.poll_transmit(ms(0)).is_some());
    let request = request_with_kms(challenge);
    let request = from_agent(0, PayloadType::HandshakeRequest, request.as_bytes());
    channel.handle_message(ms(0), request).unwrap();
    assert_eq!(
        events(&mut channel),
        [Event::KeyRequired {
            kms_key_id: KEY_ID.to_owned(),
            challenge: challenge.then(|| RANDOM.to_owned()),
        }]
    );
    let (acks, data) = sorted(&mut channel, ms(0));
    assert_eq!((acks, data.len()), (vec![0], 0));
    channel
}

fn challenge(number: u64, sealed: Vec<u8>) -> Bytes {
    let text = to_json(&EncryptionChallenge { challenge: sealed });
    from_agent(number, PayloadType::EncryptionChallengeRequest, &text)
}

/// Returns the same after its handshake, and the agent's ciphers. The agent's next number is 3, the
/// client's is 2.
fn encrypted() -> (Channel, Secret) {
    let mut channel = asked(true);
    channel.provide_key(ms(0), data_key()).unwrap();
    let mut agent = Secret::agent();
    channel
        .handle_message(ms(0), challenge(1, agent.seal(b"text")))
        .unwrap();
    let complete = from_agent(2, PayloadType::HandshakeComplete, COMPLETE.as_bytes());
    channel.handle_message(ms(0), complete).unwrap();
    for message in sorted(&mut channel, ms(0)).1 {
        channel
            .handle_message(ms(0), ack_from_agent(&message))
            .unwrap();
    }
    assert_eq!(events(&mut channel).len(), 1);
    (channel, agent)
}

fn response(channel: &mut Channel) -> HandshakeResponse {
    let (_, data) = sorted(channel, ms(0));
    assert_eq!(data.len(), 1);
    assert_eq!(data[0].payload_type, PayloadType::HandshakeResponse);
    from_json(&data[0].payload).unwrap()
}

#[test]
fn the_answer_carries_the_encrypted_key_and_says_whether_the_challenge_is_in_it() {
    for with_challenge in [false, true] {
        let mut channel = asked(with_challenge);
        assert_eq!(channel.max_payload(), MAX_PAYLOAD);
        channel.provide_key(ms(1), data_key()).unwrap();
        assert_eq!(channel.max_payload(), MAX_PAYLOAD - 28);
        assert_eq!(
            channel.session_type().unwrap().property("host"),
            Some("db.internal")
        );
        let response = response(&mut channel);
        assert_eq!(response.errors, None);
        let [kms, session] = &response.processed_client_actions[..] else {
            panic!("{response:?}")
        };
        assert_eq!(kms.action_type, "KMSEncryption");
        assert_eq!(kms.action_status, ActionStatus::Success);
        let mut expected = serde_json::json!({ "KMSCipherTextKey": "dGhlIGtleSwgZW5jcnlwdGVk" });
        if with_challenge {
            expected["ChallengeAcknowledgement"] = true.into();
        }
        assert_eq!(kms.action_result, expected);
        assert_eq!(session.action_type, "SessionType");
        assert_eq!(session.action_status, ActionStatus::Success);
    }
}

#[test]
fn the_agents_test_is_answered_under_our_half_of_the_key() {
    let mut channel = asked(true);
    channel.provide_key(ms(0), data_key()).unwrap();
    response(&mut channel);
    let mut agent = Secret::agent();
    let request = challenge(1, agent.seal(b"sixty-four random bytes"));
    channel.handle_message(ms(0), request).unwrap();
    let (acks, data) = sorted(&mut channel, ms(0));
    assert_eq!(acks, [1]);
    assert_eq!(
        data[0].payload_type,
        PayloadType::EncryptionChallengeResponse
    );
    let answer: EncryptionChallenge = from_json(&data[0].payload).unwrap();
    assert_eq!(agent.open(&answer.challenge), b"sixty-four random bytes");
    // Once.
    let again = challenge(2, agent.seal(b"more"));
    let error = channel.handle_message(ms(0), again).unwrap_err();
    assert!(matches!(error, Error::UnexpectedPayload { .. }));
}

#[test]
fn output_is_encrypted_both_ways_and_flags_are_not() {
    let (mut channel, mut agent) = encrypted();
    assert!(!format!("{channel:?}").contains("100, 101, 102"));
    for text in ["SELECT 1", "SELECT 2"] {
        channel.send(ms(0), Bytes::from(text)).unwrap();
    }
    let (_, data) = sorted(&mut channel, ms(0));
    let texts: Vec<_> = data.iter().map(|m| agent.open(&m.payload)).collect();
    assert_eq!(texts, [b"SELECT 1", b"SELECT 2"]);
    assert_ne!(data[0].payload[..12], data[1].payload[..12], "the nonces");

    // Early messages wait as received.
    let second = from_agent(4, PayloadType::Output, &agent.seal(b"rows"));
    let first = from_agent(3, PayloadType::Output, &agent.seal(b"more "));
    let empty = from_agent(5, PayloadType::Output, &agent.seal(b""));
    let refused = from_agent(6, PayloadType::Flag, &flag(FlagPayload::ConnectToPortError));
    for message in [second, first, empty, refused] {
        channel.handle_message(ms(0), message).unwrap();
    }
    let output = |text: &'static str| Event::Output(Bytes::from(text));
    let expected = [output("more "), output("rows"), Event::ConnectToPortError];
    assert_eq!(events(&mut channel), expected);

    channel.terminate(ms(0));
    let (_, data) = sorted(&mut channel, ms(0));
    assert_eq!(data[0].payload, flag(FlagPayload::TerminateSession));
}

#[test]
fn the_largest_payload_leaves_room_for_the_encryption() {
    let (mut channel, mut agent) = encrypted();
    assert_eq!(channel.max_payload(), 996);
    let large = channel.send(ms(0), Bytes::from(vec![1; 997]));
    assert!(matches!(large, Err(Error::PayloadTooLarge(997))));
    channel.send(ms(0), Bytes::from(vec![1; 996])).unwrap();
    let (_, data) = sorted(&mut channel, ms(0));
    assert_eq!(data[0].payload.len(), MAX_PAYLOAD);
    assert_eq!(agent.open(&data[0].payload), [1; 996]);
    channel.send(ms(0), Bytes::new()).unwrap();
    assert_eq!(sorted(&mut channel, ms(0)).1, [], "nothing is no message");
}

#[test]
fn a_repeated_message_is_the_same_even_on_another_connection() {
    let (mut channel, _) = encrypted();
    channel.send(ms(0), Bytes::from_static(b"once")).unwrap();
    let first = sorted(&mut channel, ms(0)).1;
    assert_eq!(sorted(&mut channel, ms(1000)).1, first);
    let token = ChannelToken::new("tok-second".to_owned());
    channel
        .reconnect(ms(2000), token, "request-2".to_owned())
        .unwrap();
    assert!(channel.poll_transmit(ms(2000)).is_some());
    assert_eq!(sorted(&mut channel, ms(2000)).1, first);
    channel.send(ms(2000), Bytes::from_static(b"once")).unwrap();
    let second = sorted(&mut channel, ms(2000)).1;
    assert_ne!(first[0].payload, second[0].payload);
}

#[test]
fn what_does_not_decrypt_ends_the_channel() {
    let plain = b"not encrypted at all, but long enough to be".to_vec();
    let other_key = {
        let (mut channel, _) = encrypted();
        channel.send(ms(0), Bytes::from_static(b"ours")).unwrap();
        sorted(&mut channel, ms(0)).1[0].payload.to_vec()
    };
    for payload in [plain, other_key, b"short".to_vec()] {
        let (mut channel, _) = encrypted();
        let message = from_agent(3, PayloadType::Output, &payload);
        let error = channel.handle_message(ms(0), message).unwrap_err();
        assert!(matches!(
            error,
            Error::Undecryptable {
                payload_type: PayloadType::Output
            }
        ));
        assert!(error.is_fatal() && error.is_peer_fault());
        assert_eq!(events(&mut channel), []);
    }
    let mut channel = asked(false);
    channel.provide_key(ms(0), data_key()).unwrap();
    let error = channel
        .handle_message(ms(0), challenge(1, vec![7; 60]))
        .unwrap_err();
    assert!(matches!(error, Error::Undecryptable { .. }));
    let text = from_agent(1, PayloadType::EncryptionChallengeRequest, b"{}");
    let mut channel = asked(false);
    channel.provide_key(ms(0), data_key()).unwrap();
    let error = channel.handle_message(ms(0), text).unwrap_err();
    assert!(matches!(error, Error::Json { .. }));
}

#[test]
fn a_refused_key_is_told_to_the_agent_and_ends_the_channel() {
    let mut channel = asked(true);
    let reason = "Error calling KMS GenerateDataKey API: AccessDeniedException";
    let error = channel.refuse_key(ms(0), reason);
    let Error::KeyRefused {
        key_id,
        reason: told,
    } = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!((key_id.as_str(), told.as_str()), (KEY_ID, reason));
    assert!(error.is_fatal() && !error.is_peer_fault());
    let response = response(&mut channel);
    let [kms, session] = &response.processed_client_actions[..] else {
        panic!("{response:?}")
    };
    assert_eq!(kms.action_status, ActionStatus::Failed);
    assert_eq!(
        kms.error,
        format!("Failed to process action KMSEncryption: {reason}")
    );
    assert_eq!(session.action_status, ActionStatus::Success);
    assert_eq!(response.errors.unwrap(), [reason]);
    for later in [
        channel.handle_timeout(ms(1)).unwrap_err(),
        channel.provide_key(ms(1), data_key()).unwrap_err(),
        channel.refuse_key(ms(1), "again"),
    ] {
        assert!(matches!(later, Error::KeyRefused { reason: told, .. } if told == reason));
    }
    assert_eq!(channel.poll_transmit(ms(60_000)), None);
}

#[test]
fn a_key_that_nobody_wants_or_of_the_wrong_size_changes_nothing() {
    for mut channel in [Channel::new(config(1), ms(0)), established()] {
        let outcome = channel.provide_key(ms(0), data_key());
        assert!(matches!(outcome, Err(Error::KeyNotRequired)));
        let outcome = channel.refuse_key(ms(0), "no");
        assert!(matches!(outcome, Error::KeyNotRequired) && !outcome.is_fatal());
        channel.handle_timeout(ms(1)).unwrap();
    }
    let mut channel = asked(false);
    let short = DataKey {
        plaintext: Zeroizing::new(vec![1; 32]),
        ciphertext: Vec::new(),
    };
    let outcome = channel.provide_key(ms(0), short);
    assert!(matches!(&outcome, Err(Error::KeyLength(32))));
    assert!(!outcome.unwrap_err().is_fatal());
    channel.provide_key(ms(0), data_key()).unwrap();
    response(&mut channel);
}

#[test]
fn the_handshake_waits_for_the_key_no_longer_than_for_the_agent() {
    let mut channel = asked(false);
    assert_eq!(channel.poll_timeout(), Some(ms(15_000)));
    let error = channel.handle_timeout(ms(15_000)).unwrap_err();
    assert!(error.to_string().contains("data key"), "{error}");
    let late = channel.provide_key(ms(15_001), data_key());
    assert!(matches!(late, Err(Error::HandshakeTimeout { .. })));
}

#[test]
fn nothing_is_taken_in_the_clear_while_the_key_is_missing() {
    for kind in [
        PayloadType::Output,
        PayloadType::HandshakeComplete,
        PayloadType::HandshakeRequest,
        PayloadType::EncryptionChallengeRequest,
    ] {
        let mut channel = asked(false);
        let message = from_agent(1, kind, COMPLETE.as_bytes());
        let error = channel.handle_message(ms(0), message).unwrap_err();
        assert!(
            matches!(&error, Error::UnexpectedPayload { payload_type, .. } if *payload_type == kind),
            "{error:?}"
        );
    }
}

/// A lost connection during the KMS request, and while its answer is under way.
#[test]
fn reconnecting_does_not_lose_the_key() {
    let mut channel = asked(true);
    let again = |channel: &mut Channel, now| {
        channel.disconnected(now);
        let token = ChannelToken::new("tok-second".to_owned());
        channel
            .reconnect(now, token, "request-2".to_owned())
            .unwrap();
        assert!(channel.poll_transmit(now).is_some());
    };
    again(&mut channel, ms(10));
    assert_eq!(events(&mut channel), []);
    channel.disconnected(ms(20));
    channel.provide_key(ms(30), data_key()).unwrap();
    assert_eq!(channel.poll_transmit(ms(30)), None);
    again(&mut channel, ms(40));
    let first: Vec<AgentMessage> = sorted(&mut channel, ms(40)).1;
    assert_eq!(first.len(), 1);
    again(&mut channel, ms(50));
    assert_eq!(sorted(&mut channel, ms(50)).1, first);
}
